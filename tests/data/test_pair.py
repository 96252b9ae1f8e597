import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tectum.data.pair import (
    InputWarning,
    PairPaths,
    read_infrared,
    read_label,
    read_pair,
    read_visible,
    require_same_size,
)
from tectum.errors import ConfigError, InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 16), dtype=np.uint8)
RGB = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (12, 16), dtype=np.uint16)
IDS = RNG.integers(0, 9, (12, 16), dtype=np.uint8)


@pytest.fixture(autouse=True)
def no_unexpected_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        yield


def save(array, path: Path, **options) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def grey_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


# ---- visible


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_visible_rgb_is_exact(tmp_path, suffix):
    path = save(RGB, tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    image = read_visible(path)
    assert image.dtype == np.float32
    assert image.flags["C_CONTIGUOUS"]
    assert np.array_equal(image, RGB.astype(np.float32) / 255)


def test_visible_grey_is_repeated(tmp_path):
    assert np.array_equal(read_visible(save(GREY, tmp_path / "a.png")), grey_rgb(GREY).astype(np.float32) / 255)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_visible_16_bit_grey_is_divided_by_65535(tmp_path, suffix):
    image = read_visible(save(DEEP, tmp_path / f"a{suffix}"))
    assert np.array_equal(image, grey_rgb(DEEP).astype(np.float32) / np.float32(65535))


def test_visible_big_endian_tiff(tmp_path):
    path = tmp_path / "a.tif"
    Image.frombytes("I;16B", (16, 12), DEEP.astype(">u2").tobytes()).save(path)
    assert np.array_equal(read_visible(path)[..., 0], DEEP.astype(np.float32) / np.float32(65535))


def test_visible_alpha_is_dropped_and_a_varying_one_is_reported(tmp_path):
    opaque = np.dstack([RGB, np.full_like(GREY, 255)])
    assert np.array_equal(read_visible(save(opaque, tmp_path / "a.png")), RGB.astype(np.float32) / 255)
    path = save(np.dstack([RGB, GREY]), tmp_path / "b.png")
    with pytest.warns(InputWarning, match=r"b\.png.*mfnet"):
        assert np.array_equal(read_visible(path), RGB.astype(np.float32) / 255)


def test_visible_grey_and_alpha(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([GREY, np.full_like(GREY, 255)]), "LA").save(path)
    assert np.array_equal(read_visible(path)[..., 1], GREY.astype(np.float32) / 255)


def test_visible_palette_gives_colours(tmp_path):
    image = Image.fromarray(IDS, "P")
    palette = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_visible(tmp_path / "a.png"), palette[IDS].astype(np.float32) / 255)


def test_visible_one_bit(tmp_path):
    bits = GREY > 127
    save(bits, tmp_path / "a.png")
    assert np.array_equal(read_visible(tmp_path / "a.png")[..., 0], bits.astype(np.float32))


def test_visible_cmyk_jpeg(tmp_path):
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_visible(tmp_path / "a.jpg") * 255 - flat).max() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    image = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB),
    }[orientation]
    assert np.array_equal(read_visible(tmp_path / "a.png"), turned.astype(np.float32) / 255)


def test_pil_images_and_paths_as_text(tmp_path):
    path = save(RGB, tmp_path / "a.png")
    expected = RGB.astype(np.float32) / 255
    assert np.array_equal(read_visible(str(path)), expected)
    assert np.array_equal(read_visible(Image.open(path)), expected)


def test_arrays_of_all_types():
    assert np.array_equal(read_visible(RGB), RGB.astype(np.float32) / 255)
    assert read_visible(GREY[..., None]).shape == (12, 16, 3)
    assert np.array_equal(read_visible(DEEP)[..., 2], DEEP.astype(np.float32) / np.float32(65535))
    for dtype in (np.float16, np.float32, np.float64):
        values = (RGB / 255).astype(dtype)
        image = read_visible(values)
        assert image.dtype == np.float32
        assert np.allclose(image, values.astype(np.float32))


def test_result_does_not_share_memory_with_the_input():
    values = (RGB / 255).astype(np.float32)
    read_visible(values)[:] = 0
    assert values.any()


# ---- infrared


def test_infrared_keeps_equal_channels_exactly(tmp_path):
    expected = GREY.astype(np.float32) / 255
    for array in (GREY, GREY[..., None], grey_rgb(GREY), np.dstack([grey_rgb(GREY), np.full_like(GREY, 255)])):
        assert np.array_equal(read_infrared(array), expected)
    assert np.array_equal(read_infrared(save(grey_rgb(GREY), tmp_path / "a.png")), expected)


def test_infrared_grey_saved_as_colour_jpeg_needs_no_warning(tmp_path):
    y, x = np.mgrid[:64, :64]
    grey = (128 + 100 * np.sin(x / 5) * np.cos(y / 7)).astype(np.uint8)
    image = read_infrared(save(grey_rgb(grey), tmp_path / "a.jpg", quality=75))
    assert np.abs(image * 255 - grey).mean() < 3


def test_infrared_in_pseudo_colour_warns_and_gives_luminance(tmp_path):
    path = save(RGB, tmp_path / "hot.png")
    with pytest.warns(InputWarning, match=r"hot\.png.*pseudo-colour"):
        image = read_infrared(path)
    assert np.abs(image - RGB @ np.array([0.299, 0.587, 0.114]) / 255).max() <= 0.5 / 255 + 1e-6


def test_infrared_16_bit_full_range(tmp_path):
    assert np.array_equal(read_infrared(save(DEEP, tmp_path / "a.png")), DEEP.astype(np.float32) / np.float32(65535))


def test_raw_counts_warn_once_and_are_never_stretched(tmp_path):
    counts = (7000 + GREY.astype(np.uint16) * 4).astype(np.uint16)
    path = save(counts, tmp_path / "raw.tif")
    low, high = int(counts.min()), int(counts.max())
    with pytest.warns(InputWarning, match=rf"raw\.tif.*value_range=\({low}, {high}\)") as caught:
        image = read_infrared(path)
    assert len(caught) == 1
    assert np.array_equal(image, counts.astype(np.float32) / np.float32(65535))


def test_value_range_scales_and_clips(tmp_path):
    counts = np.array([[0, 7000, 8000, 9000, 16383]], np.uint16)
    assert read_infrared(counts, (7000, 9000)).tolist() == [[0, 0, 0.5, 1, 1]]
    kelvin = np.array([[273.15, 293.15]], np.float32)
    assert np.allclose(read_infrared(save(kelvin, tmp_path / "k.tif"), (273.15, 313.15)), [[0, 0.5]], atol=1e-5)


def test_value_range_beside_the_data_warns():
    with pytest.warns(InputWarning, match="outside the value range"):
        read_infrared(np.array([[7000, 8000]], np.uint16), (20000, 30000))


@pytest.mark.parametrize("bad", [(1, 1), (5, 2), (0, float("nan")), (float("-inf"), 1)])
def test_value_range_must_be_a_range(bad):
    with pytest.raises(ConfigError, match="infrared range"):
        read_infrared(DEEP, bad)


def test_infrared_refuses_a_packed_file_read_as_ordinary(tmp_path):
    path = save(np.dstack([RGB, GREY]), tmp_path / "00001D.png")
    with pytest.raises(InputError, match=r"00001D\.png.*packed"):
        read_infrared(path)


# ---- labels


def test_label_modes_keep_the_stored_numbers(tmp_path):
    palette = Image.fromarray(IDS, "P")
    palette.putpalette(RNG.integers(0, 256, (256, 3), dtype=np.uint8).tobytes())
    palette.save(tmp_path / "palette.png")
    save(IDS, tmp_path / "grey.png")
    save(IDS.astype(np.uint16), tmp_path / "deep.png")
    save(IDS.astype(np.int32), tmp_path / "long.tif")
    save(grey_rgb(IDS), tmp_path / "rgb.png")
    for path in sorted(tmp_path.iterdir()):
        ids = read_label(path, 9)
        assert ids.dtype == np.uint8, path
        assert np.array_equal(ids, IDS), path


def test_one_bit_label_is_0_and_1(tmp_path):
    assert np.array_equal(read_label(save(IDS > 4, tmp_path / "a.png"), 2), (IDS > 4).astype(np.uint8))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint16])
def test_label_arrays(dtype):
    assert np.array_equal(read_label(IDS.astype(dtype)), IDS.astype(dtype).astype(np.uint8))


def test_ignored_ids_become_255():
    ids = np.array([[0, 1, 200, 255]], np.uint8)
    assert read_label(ids, 2, ignore=(0, 200, 255)).tolist() == [[255, 1, 255, 255]]
    assert read_label(np.array([[-1, 3]]), 4, ignore=(-1,)).tolist() == [[255, 3]]


def test_unknown_ids_are_named(tmp_path):
    ids = IDS.copy()
    ids[0, :2] = 40, 77
    with pytest.raises(InputError, match=r"a\.png.*40, 77.*0\.\.8.*nearest"):
        read_label(save(ids, tmp_path / "a.png"), 9)
    with pytest.raises(InputError, match="-1"):
        read_label(np.array([[-1, 0]]))


def test_bicubic_resize_of_fmb_makes_the_ids_15_and_16_and_the_error_says_so(tmp_path):
    ids = np.zeros((20, 20), np.uint8)
    ids[:, 10:] = 14
    path = tmp_path / "a.png"
    Image.fromarray(ids).resize((33, 33), Image.Resampling.BICUBIC).save(path)
    with pytest.raises(InputError, match=r"15.*FMB.*bicubic.*nearest.*convert ids"):
        read_label(path, 15)
    Image.fromarray(ids).resize((33, 33), Image.Resampling.NEAREST).save(path)
    assert set(np.unique(read_label(path, 15))) == {0, 14}


def test_colour_coded_label_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.png.*colour-coded.*tectum data convert"):
        read_label(save(RGB, tmp_path / "a.png"))


def test_lossy_and_float_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"JPEG.*PNG"):
        read_label(save(IDS, tmp_path / "a.jpg"))
    with pytest.raises(InputError, match="integers"):
        read_label(IDS.astype(np.float32))


# ---- bad input


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    good = save(RGB, folder / "good.png")
    big = save(np.tile(RGB, (20, 20, 1)), folder / "big.jpg")
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes(good.read_bytes()[:-40])
    (folder / "cut.jpg").write_bytes(big.read_bytes()[: big.stat().st_size // 2])
    (folder / "text.png").write_text("not an image")
    (folder / "head.png").write_bytes(good.read_bytes()[:20])
    nan = np.ones((4, 4), np.float32)
    nan[1, 2] = np.nan
    save(nan, folder / "nan.tif")
    save(np.full((4, 4), 300.0, np.float32), folder / "kelvin.tif")
    save(np.full((4, 4), 70000, np.int32), folder / "long.tif")
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1])]
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    return {
        "missing": (folder / "nowhere.png", "does not exist"),
        "folder": (folder, "is a folder"),
        "empty": (folder / "empty.png", r"0 bytes"),
        "cut png": (folder / "cut.png", "truncated or damaged"),
        "cut jpg": (folder / "cut.jpg", "truncated or damaged"),
        "text": (folder / "text.png", "not an image"),
        "head": (folder / "head.png", "again|not an image"),
        "nan": (folder / "nan.tif", "1 NaN"),
        "kelvin": (folder / "kelvin.tif", r"300.*\[0, 1\].*value_range"),
        "long": (folder / "long.tif", "32-bit"),
        "pages": (folder / "pages.tif", "2 frames"),
    }


@pytest.mark.parametrize(
    "case",
    ["missing", "folder", "empty", "cut png", "cut jpg", "text", "head", "nan", "kelvin", "long", "pages"],
)
@pytest.mark.parametrize("read", [read_visible, read_infrared])
def test_bad_files_name_the_file_and_the_fix(tmp_path, case, read):
    path, words = bad_files(tmp_path)[case]
    with pytest.raises(InputError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_decompression_bomb(tmp_path, monkeypatch):
    path = save(GREY, tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(InputError, match=r"bomb\.png.*too large.*MAX_IMAGE_PIXELS"):
        read_visible(path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 8, 9), np.uint8), "channels first.*transpose"),
        (np.zeros((2, 8, 9, 3), np.uint8), r"shape \(2, 8, 9, 3\)"),
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((0, 5), np.uint8), "no pixel"),
        (np.zeros((4, 4), np.int64), "int64.*uint8"),
        (np.full((4, 4), 2.0), r"\[0, 1\]"),
        (np.full((4, 4), np.inf), "infinite"),
        ("a tensor", "Tensor.*numpy"),
    ],
)
@pytest.mark.parametrize("read", [read_visible, read_infrared])
def test_bad_arrays(array, words, read):
    class Tensor:
        pass

    with pytest.raises(InputError, match=words):
        read(Tensor() if isinstance(array, str) else array)


# ---- pairs


def write_pair(folder: Path, visible=RGB, infrared=GREY, label=IDS) -> PairPaths:
    paths = [save(array, folder / f"{name}.png") for name, array in (("v", visible), ("i", infrared), ("l", label))]
    return PairPaths("v", *paths)


def test_read_pair(tmp_path):
    pair = read_pair(write_pair(tmp_path), classes=9)
    assert pair.name == "v"
    assert pair.visible.shape == (12, 16, 3)
    assert pair.infrared.shape == (12, 16)
    assert np.array_equal(pair.label, IDS)


def test_unequal_sizes_name_both_files_and_sizes(tmp_path):
    with pytest.raises(InputError, match=r"v\.png' is 16x12 but '.*i\.png' is 10x12"):
        read_pair(write_pair(tmp_path, infrared=GREY[:, :10]))
    with pytest.raises(InputError, match=r"v\.png' is 16x12 but '.*l\.png' is 16x5 .*nearest"):
        read_pair(write_pair(tmp_path, label=IDS[:5]))


def test_require_same_size_of_arrays():
    require_same_size(RGB, GREY, IDS)
    with pytest.raises(InputError, match="'visible image' is 16x12 but 'infrared image' is 4x12"):
        require_same_size(RGB, GREY[:, :4])


def test_packed_pair(tmp_path):
    path = save(np.dstack([RGB, GREY]), tmp_path / "00001D.png")
    pair = read_pair(PairPaths("00001D", path, path, packed=True))
    assert np.array_equal(pair.visible, RGB.astype(np.float32) / 255)
    assert np.array_equal(pair.infrared, GREY.astype(np.float32) / 255)
    assert np.array_equal(read_infrared(path, packed=True), pair.infrared)
    assert np.array_equal(read_visible(path, packed=True), pair.visible)
    three = save(RGB, tmp_path / "rgb.png")
    with pytest.raises(InputError, match=r"rgb\.png.*3 channel.*four"):
        read_pair(PairPaths("rgb", three, three, packed=True))


@pytest.mark.parametrize(
    ("folder", "mode"), [("TNO/ir", "RGB"), ("VIFB/IR", "RGB"), ("FMB-sample/ir", "RGB"), ("LLVIP/train/ir", "RGB")]
)
def test_real_infrared_stored_as_colour_is_not_suspicious(shared_data, folder, mode):
    for path in sorted((shared_data / folder).iterdir())[:3]:  # a warning would fail
        assert Image.open(path).mode == mode
        assert read_infrared(path).ndim == 2


def test_reading_does_not_import_torch():
    code = "import sys, tectum.data.pair, tectum.data.datasets, tectum.data.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
