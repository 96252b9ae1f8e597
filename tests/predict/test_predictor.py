import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tectum import create_model
from tectum.data.datasets import Problem
from tectum.data.pair import InputWarning, Pair, PairPaths
from tectum.engines.base import Raw
from tectum.errors import ConfigError, InputError, WeightsError
from tectum.models.base import Output, luminance
from tectum.predict import Prediction, Predictor
from tectum.predict import predictor as predictor_module
from tectum.predict.tiling import bytes_per_pixel


class MaximumFusion(nn.Module):
    """Fuses by the pixelwise maximum; labels a pixel by the brightness of its infrared, in steps of 1 / classes."""

    def __init__(self, classes=3, gain=1.0, stride=32, **metadata):
        super().__init__()
        self.classes, self.stride, self.metadata = classes, stride, metadata
        self.gain = nn.Parameter(torch.tensor(gain))
        self.seen = []

    def forward(self, visible, infrared):
        self.seen.append(tuple(visible.shape))
        fused = torch.maximum(luminance(visible), infrared) * self.gain
        steps = torch.arange(self.classes).view(1, -1, 1, 1) / self.classes
        return Output(fused, -(infrared - steps - 0.5 / self.classes).abs(), {})


def pair(height, width, seed=0, name="pair"):
    rng = np.random.default_rng(seed)
    return Pair(name, rng.random((height, width, 3), np.float32), rng.random((height, width), np.float32))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_model("virmfs_b0", classes=9)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (33, 64), (50, 97), (64, 64)])
def test_any_size_in_the_same_size_out(height, width):
    one = pair(height, width)
    result = Predictor(MaximumFusion())(visible=one.visible, infrared=one.infrared)
    assert result.fused.shape == (height, width, 3)
    assert result.fused.dtype == np.uint8
    assert result.labels.shape == result.luminance.shape == (height, width)
    assert result.labels.dtype == np.uint8
    # Whatever the padding is, the crop must be the image itself and not a neighbour of it.
    grey = one.visible @ np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(result.luminance, np.maximum(grey, one.infrared), atol=1e-6)
    np.testing.assert_array_equal(result.labels, np.minimum(one.infrared * 3, 2.999).astype(np.uint8))


def test_pads_to_the_stride_of_the_network():
    model = MaximumFusion(stride=24)
    Predictor(model).batch([pair(16, 50)])
    assert model.seen == [(1, 3, 24, 72)]


def test_smaller_than_16_pixels_is_an_error():
    with pytest.raises(InputError, match=r"40x15.*16x16"):
        Predictor(MaximumFusion()).batch([pair(15, 40)])


def test_sizes_that_differ_are_an_error():
    one = pair(32, 40)
    with pytest.raises(InputError, match=r"40x32.*39x32"):
        Predictor(MaximumFusion())(visible=one.visible, infrared=one.infrared[:, :-1])


@pytest.mark.filterwarnings("ignore:the .* image of pair 'flat' is constant")
def test_values_are_clamped_and_never_stretched():
    flat = Pair("flat", np.full((32, 32, 3), 0.4, np.float32), np.full((32, 32), 0.5, np.float32))
    assert (Predictor(MaximumFusion()).batch([flat])[0].fused == 128).all()
    bright = Predictor(MaximumFusion(gain=3.0)).batch([flat])[0]
    assert (bright.fused == 255).all()
    assert bright.luminance.max() == 1


def test_colour_is_that_of_the_visible_image():
    one = pair(32, 32)
    muted = Pair("muted", 0.4 + 0.2 * one.visible, 0.4 + 0.2 * one.infrared)  # no channel leaves [0, 1]
    fused = Predictor(MaximumFusion()).batch([muted])[0].fused / 255
    # Differences between channels are what Cb and Cr are made of.
    np.testing.assert_allclose(fused[..., 0] - fused[..., 1], muted.visible[..., 0] - muted.visible[..., 1], atol=0.005)


def test_grey_visible_gives_grey(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (40, 32), np.uint8)
    Image.fromarray(grey).save(tmp_path / "v.png")
    infrared = Image.fromarray(rng.integers(0, 256, (40, 32), np.uint8))
    result = Predictor(MaximumFusion())(visible=tmp_path / "v.png", infrared=infrared)
    assert result.name == "v"
    assert (result.fused == np.maximum(grey, np.asarray(infrared))[..., None]).all()


def test_a_batch_equals_single_runs(network):
    pairs = [pair(*size, seed=seed) for seed, size in enumerate([(40, 60), (64, 64), (33, 40), (41, 50), (16, 20)])]
    predictor = Predictor(network)
    together = predictor.batch(pairs)
    for one, result in zip(pairs, together, strict=True):
        alone = predictor.batch([one])[0]
        assert result.fused.shape == one.visible.shape
        assert np.abs(result.fused.astype(int) - alone.fused).max() <= 1
        assert (result.labels == alone.labels).mean() > 0.999


def test_equal_padded_sizes_run_together():
    model = MaximumFusion()
    results = Predictor(model).batch([pair(40, 60, name="a"), pair(20, 20, name="b"), pair(64, 64, name="c")])
    assert sorted(model.seen) == [(1, 3, 32, 32), (2, 3, 64, 64)]
    assert [result.name for result in results] == ["a", "b", "c"]


def test_modes_of_a_network_in_training_are_restored(network):
    network.train()
    network.backbone.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first, second = (Predictor(network).batch([pair(32, 32)])[0] for _ in range(2))
    assert network.training
    assert network.segmentation_head.training
    assert not network.backbone.training
    assert np.array_equal(first.luminance, second.luminance)  # no dropout
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())  # no batch statistics
    network.eval()


def test_nan_from_the_network_is_an_error():
    with pytest.raises(WeightsError, match="'broken' gave NaN or infinity for pair 'p'"):
        Predictor(MaximumFusion(gain=float("nan"), name="broken")).batch([pair(32, 32, name="p")])


@pytest.mark.parametrize("classes", [1, 9, 255])
def test_labels_are_the_first_class_with_the_highest_score(classes):
    logits = np.random.default_rng(0).integers(-4, 0, (classes, 7, 11)).astype(np.float32)  # many are equal
    labels, _ = predictor_module._highest(logits)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, logits.argmax(axis=0))


@pytest.mark.slow
def test_a_saved_model_is_loaded(network, tmp_path):
    network.save(tmp_path / "m")
    one = pair(32, 48)
    saved = Predictor(tmp_path / "m", device="cpu").batch([one])[0]
    np.testing.assert_allclose(saved.luminance, Predictor(network).batch([one])[0].luminance, atol=1e-6)


def test_unknown_device_and_model():
    with pytest.raises(ConfigError, match="'quantum' is not usable"):
        Predictor(MaximumFusion(), device="quantum")
    with pytest.raises(ConfigError, match="no weights 'nothing'"):
        Predictor("nothing", device="cpu")


def test_names_and_colours_of_classes():
    plain = Predictor(MaximumFusion(classes=4))
    assert plain.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert len(np.unique(plain.palette, axis=0)) == 4
    named = Predictor(MaximumFusion(classes=2, class_names=["no", "yes"], palette=[[0, 0, 0], [9, 8, 7]]))
    assert named.class_names == ("no", "yes")
    assert named.palette.tolist() == [[0, 0, 0], [9, 8, 7]]
    with pytest.raises(WeightsError, match="2 classes, but its metadata lists 3 in 'class_names'"):
        _ = Predictor(MaximumFusion(classes=2, class_names=["a", "b", "c"])).class_names


def test_more_classes_than_8_bits_hold():
    with pytest.raises(ConfigError, match="at most 255"):
        Predictor(MaximumFusion(classes=256))


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_stream_keeps_the_order_and_every_good_pair(batch):
    table = [PairPaths(str(index), f"{index}.png", f"{index}.png") for index in range(9)]

    def read(paths):
        if paths.name == "3":
            raise InputError("'3.png' is empty")
        return pair(8 if paths.name == "5" else 32, 32, name=paths.name)  # number 5 is read but too small

    outcome = list(Predictor(MaximumFusion()).stream(iter(table), batch=batch, read=read))
    assert [one.name if isinstance(one, Problem) else one.paths.name for one in outcome] == list("012345678")
    problems = {one.name: one.message for one in outcome if isinstance(one, Problem)}
    assert problems.keys() == {"3", "5"}
    assert problems["3"] == "'3.png' is empty"
    assert "32x8" in problems["5"]
    assert all(one.result.name == one.paths.name for one in outcome if isinstance(one, Prediction))


def test_stream_reads_only_a_little_ahead():
    opened = []

    def read(paths):
        opened.append(paths.name)
        return pair(32, 32)

    table = (PairPaths(str(index), "v", "i") for index in range(1000))
    stream = Predictor(MaximumFusion()).stream(table, read=read)
    next(stream)
    stream.close()
    assert len(opened) < 20


@pytest.mark.parametrize(("height", "width"), [(128, 600), (300, 129), (311, 457)])
def test_tiles_of_a_network_without_context_give_the_whole(height, width):
    one = pair(height, width)
    model = MaximumFusion()
    tiled = Predictor(model, tile=128).batch([one])[0]
    assert set(model.seen) == {(1, 3, 128, 128)}
    whole = Predictor(model, tile="off").batch([one])[0]
    np.testing.assert_allclose(tiled.luminance, whole.luminance, atol=1e-6)
    assert np.abs(tiled.fused.astype(int) - whole.fused).max() <= 1  # a rounding may fall to the other side
    assert (tiled.labels == whole.labels).mean() > 0.9999


def test_tiles_are_rounded_up_to_the_stride():
    model = MaximumFusion(stride=24)
    Predictor(model, tile=130).batch([pair(200, 300)])
    assert set(model.seen) == {(1, 3, 144, 144)}


def test_padding_of_more_rows_than_are_filled_at_a_time():
    one = pair(130, 150)
    result = Predictor(MaximumFusion(stride=128), tile=128).batch([one])[0]
    whole = Predictor(MaximumFusion(stride=1)).batch([one])[0]
    np.testing.assert_allclose(result.luminance, whole.luminance, atol=1e-6)


def test_small_images_are_not_tiled():
    model = MaximumFusion()
    Predictor(model, tile=160).batch([pair(150, 160), pair(160, 159)])
    assert model.seen == [(2, 3, 160, 160)]


@pytest.mark.parametrize("exact", [False, True])
def test_a_batch_equals_single_runs_in_tiles_and_bands(network, exact):
    pairs = [pair(*size, seed=seed) for seed, size in enumerate([(64, 150), (60, 140), (32, 40)])]
    predictor = Predictor(network if exact else MaximumFusion(), tile=128)
    for one, result in zip(pairs, predictor.batch(pairs), strict=True):
        alone = predictor.batch([one])[0]
        assert result.labels.shape == one.infrared.shape
        assert np.array_equal(result.luminance, alone.luminance)
        assert np.array_equal(result.labels, alone.labels)


@pytest.mark.parametrize(("height", "width"), [(300, 129), (131, 300), (280, 90), (60, 200)])
def test_virmfs_in_torch_is_exact_in_bands(network, height, width, monkeypatch):
    one = pair(height, width)
    network.train()
    whole = Predictor(network, tile="off").batch([one])[0]
    monkeypatch.setattr(network, "forward", None)  # a run of any window of it would fail
    for model in (network, network.deploy()):
        result = Predictor(model, tile=128).batch([one])[0]
        np.testing.assert_allclose(result.luminance, whole.luminance, atol=1e-5)
        assert (result.labels == whole.labels).mean() > 0.999
    assert all(module.training for module in network.modules())
    network.eval()


def test_auto_takes_bands_where_memory_is_short(network, monkeypatch, recwarn):
    predictor = Predictor(network.deploy())
    one = pair(300, 200)
    whole = predictor.batch([one])[0]
    # Enough for a run in bands, and a little less than that for a whole one.
    free = 2 * 320 * 224 * bytes_per_pixel(predictor.engine, bands=True)
    monkeypatch.setattr(predictor_module, "free_memory", lambda: free)
    monkeypatch.setattr(predictor.engine, "run", None)
    np.testing.assert_allclose(predictor.batch([one])[0].luminance, whole.luminance, atol=1e-5)
    assert not recwarn


def test_auto_takes_tiles_where_bands_would_not_do(network, monkeypatch):
    predictor = Predictor(network.deploy())
    one = pair(300, 200)
    free = 2 * 320 * 224 * bytes_per_pixel(predictor.engine, bands=True) - 2
    monkeypatch.setattr(predictor_module, "free_memory", lambda: free)
    with pytest.warns(InputWarning, match="224x320 pixels are run in tiles of .* since memory is short"):
        predictor.batch([one])


def test_auto_takes_bands_above_two_megapixels(monkeypatch):
    monkeypatch.setattr(predictor_module, "free_memory", lambda: 2**50)
    predictor = Predictor(MaximumFusion())
    seen = []

    def bands(visible, infrared, rows):
        for top in range(0, visible.shape[2], rows):
            seen.append(rows)
            part = infrared[:, 0, top : top + rows]
            yield Raw(part, np.stack((part, 1 - part, 0 * part), axis=1))

    monkeypatch.setattr(type(predictor.engine), "bands", property(lambda _: bands))
    one = pair(1500, 1600)
    result = predictor.batch([one])[0]
    np.testing.assert_array_equal(result.luminance, one.infrared)
    assert len(seen) == -(-1504 // seen[0])


def test_auto_takes_tiles_where_memory_is_short(monkeypatch):
    affordable = 160 * 160
    model = MaximumFusion()
    predictor = Predictor(model)
    free = 2 * affordable * bytes_per_pixel(predictor.engine)
    monkeypatch.setattr(predictor_module, "free_memory", lambda: free)
    with pytest.warns(InputWarning, match="256x128 pixels are run in tiles of 192x128, since memory is short"):
        predictor.batch([pair(100, 250, name=name) for name in "ab"])
    assert model.seen == [(1, 3, 128, 192)] * 4  # one pair after the other
    model.seen.clear()
    predictor.batch([pair(64, 128, name=name) for name in "abcd"])
    assert model.seen == [(3, 3, 64, 128), (1, 3, 64, 128)]


def test_auto_takes_tiles_above_two_megapixels_whatever_the_memory(monkeypatch, recwarn):
    monkeypatch.setattr(predictor_module, "free_memory", lambda: 2**50)
    seen = []

    class Flat:
        runtime, name, classes, stride, metadata, bytes_per_pixel, bands = "none", "flat", 2, 32, {}, {}, None

        def run(self, visible, infrared):
            seen.append(visible.shape)
            return Raw(infrared[:, 0], np.repeat(infrared, 2, axis=1))

    predictor = Predictor(MaximumFusion())
    predictor.engine = Flat()
    rng = np.random.default_rng(0)
    pairs = {
        size: Pair("p", rng.random((*size, 3), np.float32), rng.random(size, np.float32))
        for size in [(1080, 1920), (2160, 3840)]
    }
    predictor.batch([pairs[1080, 1920]])
    assert seen == [(1, 3, 1088, 1920)]
    seen.clear()
    predictor.batch([pairs[2160, 3840]])
    assert len(seen) > 1
    assert all(shape[2] * shape[3] <= 2**21 for shape in seen)
    assert not recwarn


@pytest.mark.parametrize("tile", ["large", 0, -512, 127, 256.0, None])
def test_unknown_tiles(tile):
    with pytest.raises(ConfigError, match="auto, off, or a number of pixels from 128"):
        Predictor(MaximumFusion(), tile=tile)


def agreement(shared_data, model, backend, tile):
    """99.9th percentile of the fused difference in 8-bit levels and share of equal labels, cut against whole."""
    files = {
        role: shared_data / "LLVIP" / "test" / kind / "190001.jpg"
        for role, kind in (("visible", "vi"), ("infrared", "ir"))
    }
    whole, cut = (Predictor(model, device="cpu", backend=backend, tile=side)(**files) for side in ("off", tile))
    assert whole.labels.shape == (1024, 1280)
    return np.percentile(255 * np.abs(whole.luminance - cut.luminance), 99.9), (whole.labels == cut.labels).mean()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["virmfs_b0_msrs", "virmfs_lite0_street"])
def test_bands_on_a_real_pair(model, shared_data):
    levels, labels = agreement(shared_data, model, "torch", 256)
    assert levels < 0.01
    assert labels > 0.9999


@pytest.mark.slow
def test_tiles_on_a_real_pair(shared_data):
    """How far tiles lie from the whole: attention sees one tile, so that they are no substitute for each other."""
    pytest.importorskip("openvino")
    levels, labels = agreement(shared_data, "virmfs_b0_msrs", "openvino", 1024)
    assert 1 < levels < 4  # measured 2.0
    assert 0.97 < labels < 0.995  # measured 0.988


def test_importing_does_not_import_torch():
    code = "import sys, tectum.predict, tectum.viz; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_pair(shared_data, network):
    folder = shared_data / "FMB-sample"
    name = sorted(file.name for file in (folder / "vi").iterdir())[0]
    result = Predictor(network)(visible=folder / "vi" / name, infrared=str(folder / "ir" / name))
    assert result.fused.shape == (600, 800, 3)


def confidences(logits):
    exponentials = np.exp(logits - logits.max(axis=0))
    return (exponentials / exponentials.sum(axis=0)).max(axis=0)


def test_confidence_is_the_probability_of_the_label():
    one = pair(50, 97)
    predictor = Predictor(MaximumFusion())
    result, logits = predictor.batch([one])[0], predictor.logits(one)
    assert logits.shape == (3, 50, 97)
    np.testing.assert_array_equal(logits.argmax(axis=0), result.labels)
    np.testing.assert_allclose(result.confidence, confidences(logits), rtol=1e-5)


def test_weights_may_have_a_temperature():
    one = pair(40, 40)
    warm = Predictor(MaximumFusion(calibration={"temperature": 0.1})).batch([one])[0]
    plain = Predictor(MaximumFusion())
    np.testing.assert_allclose(warm.confidence, confidences(10 * plain.logits(one)), rtol=1e-4)
    np.testing.assert_array_equal(warm.labels, plain.batch([one])[0].labels)
    for value in (0, -1, "hot"):
        with pytest.raises(WeightsError, match="temperature"):
            Predictor(MaximumFusion(calibration={"temperature": value}))


def test_logits_in_tiles_are_those_of_a_whole_run():
    one = pair(200, 300)
    whole, tiled = (Predictor(MaximumFusion(), tile=tile).logits(one) for tile in ("off", 128))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_what_is_below_the_least_probability_is_unknown():
    one = pair(40, 50)
    known = Predictor(MaximumFusion()).batch([one])[0]
    least = float(np.median(known.confidence))
    result = Predictor(MaximumFusion(), unknown=least).batch([one])[0]
    np.testing.assert_array_equal(result.labels, np.where(known.confidence < least, 255, known.labels))
    assert 0.2 < (result.labels == 255).mean() < 0.8
    for value in (-0.1, 1.5):
        with pytest.raises(ConfigError, match="probability"):
            Predictor(MaximumFusion(), unknown=value)
