import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from sklearn.metrics import mutual_info_score
from torch import Tensor

from tectum.errors import ConfigError, InputError
from tectum.metrics import CONVENTIONS, METRICS, functional, fusion_scores, get_convention, score

# Names of VIFB's metrics, whose "variance" is a standard deviation.
VIFB_NAMES = {
    "mi": "Mutinf",
    "qabf": "Qabf",
    "en": "Entropy",
    "sf": "Spatial_frequency",
    "ag": "Avg_gradient",
    "sd": "Variance",
    "ei": "Edge_intensity",
    "ssim": "Ssim",
    "psnr": "Psnr",
    "rmse": "Rmse",
    "ce": "Cross_entropy",
    "qcb": "Qcb",
    "qcv": "Qcv",
}
# Large enough for every metric but MS-SSIM, which the tests of its function cover.
WITHOUT_MS_SSIM = [key for key in METRICS if key != "ms_ssim"]


@pytest.fixture(scope="module")
def grey() -> tuple[Tensor, ...]:
    """Fused, visible and infrared uint8 images (2, 1, 44, 50), with levels up to 255."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 2, 11, 10, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (44, 50), mode="bilinear") * 300 - 20
    visible, infrared, noise = (images + torch.randn(images.shape, generator=generator) * 5).clamp(0, 255)
    return tuple(x[:, None].round().byte() for x in ((visible + infrared) / 2 + noise / 9, visible, infrared))


@pytest.fixture(scope="module")
def colour(grey: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Fused and visible RGB (2, 3, 44, 50), infrared grey."""
    fused, visible, infrared = grey
    return torch.cat((fused, fused.flip(3), 255 - fused), 1), torch.cat((visible, visible // 2, visible), 1), infrared


# --- the registry


def test_every_definition_is_of_a_known_metric() -> None:
    for name, convention in CONVENTIONS.items():
        assert convention.name == name
        assert set(convention.metrics) <= set(METRICS)
        assert set(convention.default) <= set(convention.metrics)
    assert set(CONVENTIONS["tectum"].metrics) == set(METRICS)
    assert all(metric.key == key == key.lower() for key, metric in METRICS.items())
    assert sum(not metric.higher_is_better for metric in METRICS.values()) == 6
    assert all(getattr(metric.definition.compute, "__name__", "") == f"{key}_of" for key, metric in METRICS.items())


def test_tectum_is_that_of_the_functions(grey: tuple[Tensor, ...]) -> None:
    functions = {
        "en": functional.entropy,
        "sd": functional.standard_deviation,
        "sf": functional.spatial_frequency,
        "ag": functional.average_gradient,
        "ei": functional.edge_intensity,
        "mi": functional.mutual_information,
        "nmi": functional.normalized_mutual_information,
        "vif": functional.visual_information_fidelity,
        "cc": functional.correlation_coefficient,
        "ce": functional.cross_entropy,
    }
    scores = score(*grey, metrics=WITHOUT_MS_SSIM)
    assert list(scores) == WITHOUT_MS_SSIM
    for key, value in scores.items():
        assert value.shape == (2,)
        assert value.dtype == torch.float64
        if key.startswith("fmi_"):
            expected = functional.fmi(*grey, feature=key.removeprefix("fmi_"))  # type: ignore[arg-type]
        else:
            function = functions.get(key) or getattr(functional, key)
            expected = function(grey[0]) if key in ("en", "sd", "sf", "ag", "ei") else function(*grey)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


def test_default_is_that_of_fusion_scores(grey: tuple[Tensor, ...]) -> None:
    scores, expected = score(*grey), fusion_scores(*grey)
    assert list(scores) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(scores[key], value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_float_images_score_as_their_8_bit_pictures(name: str, colour: tuple[Tensor, ...]) -> None:
    keys = [key for key in CONVENTIONS[name].metrics if key in CONVENTIONS["vifb"].metrics]
    expected = score(*colour, metrics=keys, convention=name)
    for images, data_range in (
        ([image / 255 for image in colour], None),
        ([image / 255 + 0.001 for image in colour], None),
        ([image.double() * 40 for image in colour], 255 * 40),
    ):
        scores = score(*images, metrics=keys, convention=name, data_range=data_range)
        for key in keys:
            torch.testing.assert_close(scores[key], expected[key], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_batch_scores_as_its_images(name: str, colour: tuple[Tensor, ...]) -> None:
    together = score(*colour, convention=name)
    for number in range(2):
        one = score(*(image[number : number + 1] for image in colour), convention=name)
        for key, value in together.items():
            torch.testing.assert_close(value[number : number + 1], one[key], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_sources_can_be_swapped(name: str, grey: tuple[Tensor, ...]) -> None:
    # VIFF alone tells them apart, where both sources are equally hard to keep.
    keys = [key for key in CONVENTIONS[name].metrics if key not in ("ms_ssim", "viff")]
    fused, visible, infrared = grey
    scores = score(fused, visible, infrared, metrics=keys, convention=name)
    for key, value in score(fused, infrared, visible, metrics=keys, convention=name).items():
        torch.testing.assert_close(value, scores[key], rtol=1e-9, atol=0)


# --- colour


def test_colour_becomes_rounded_luminance(colour: tuple[Tensor, ...]) -> None:
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)
    grey = [(image * weights).sum(1, keepdim=True).round().byte() for image in colour[:2]]
    for name in ("tectum", "cddfuse", "matlab"):
        torch.testing.assert_close(
            score(*colour, metrics="mi", convention=name)["mi"],
            score(*grey, colour[2], metrics="mi", convention=name)["mi"],
            rtol=1e-12 if name != "matlab" else 1e-2,  # MATLAB's weights have more digits, and round some ties apart
            atol=0,
        )


def test_vifb_scores_channels_and_averages(colour: tuple[Tensor, ...]) -> None:
    fused, visible, infrared = colour
    whole = score(fused, visible, infrared, convention="vifb")
    parts = [
        score(fused[:, c : c + 1], visible[:, c : c + 1], infrared, convention="vifb") for c in range(fused.shape[1])
    ]
    for key in set(whole) - {"sf"}:
        torch.testing.assert_close(whole[key], torch.stack([part[key] for part in parts]).mean(0), rtol=1e-9, atol=0)
    # A grey fused image meets the luminance of its sources, a grey source each channel.
    grey = score(infrared, infrared, infrared.expand(-1, 3, -1, -1), convention="vifb", metrics="rmse")
    assert grey["rmse"].tolist() == [0, 0]


def test_vifb_spatial_frequency_runs_over_the_seams() -> None:
    fused = torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 9]], [[0, 0], [0, 0]]], dtype=torch.uint8)[None]
    across = [1, 3, 1, -6, 0, 1, 3, 2, -9, 0]
    down = [2, 2, 2, 3, 0, 0]
    expected = math.sqrt((sum(x * x for x in across) + sum(x * x for x in down)) / 12)
    scores = score(fused, fused, fused[:, :1], metrics="sf", convention="vifb")
    assert scores["sf"].item() == pytest.approx(expected, rel=1e-12)


# --- what sets the other conventions apart


def test_matlab_merges_the_two_brightest_levels(grey: tuple[Tensor, ...]) -> None:
    fused, *sources = grey
    assert ((fused == 255) | (sources[0] == 255)).any()
    expected = 0.0
    for source in sources:
        one, two = (image[0].flatten().numpy() for image in (source, fused))
        entropies = [mutual_info_score(x, x) for x in (one, two)]
        pairs = np.minimum(one, 254).astype(int) * 256 + np.minimum(two, 254)
        expected += (sum(entropies) - mutual_info_score(pairs, pairs)) / math.log(2)
    merged = score(*grey, metrics="mi", convention="matlab")["mi"][0].item()
    assert merged == pytest.approx(expected, rel=1e-10)
    assert merged > score(*grey, metrics="mi")["mi"][0].item()


def test_nats_bits_and_other_constants(grey: tuple[Tensor, ...]) -> None:
    tectum = score(*grey, metrics=[*CONVENTIONS["cddfuse"].metrics, "rmse"])
    cddfuse, matlab, vifb = (score(*grey, convention=name) for name in ("cddfuse", "matlab", "vifb"))
    pixels, inner = 44 * 50, 43 * 49
    brightest = grey[0].double().amax((1, 2, 3))
    torch.testing.assert_close(cddfuse["mi"], tectum["mi"] * math.log(2))
    torch.testing.assert_close(vifb["mi"], tectum["mi"] * math.log(2))
    torch.testing.assert_close(matlab["ag"], tectum["ag"] * pixels / inner)
    torch.testing.assert_close(vifb["ag"], tectum["ag"] * pixels / inner)
    torch.testing.assert_close(matlab["psnr"], tectum["psnr"] + 20 * math.log10(255))
    torch.testing.assert_close(cddfuse["psnr"], tectum["psnr"] + 20 * (brightest / 255).log10())
    torch.testing.assert_close(vifb["rmse"], tectum["rmse"] / math.sqrt(pixels))
    torch.testing.assert_close(vifb["psnr"], 10 * (255**2 / vifb["rmse"]).log10())
    for key in ("en", "sd", "sf", "vif", "qabf", "scd", "cc"):
        assert torch.equal(cddfuse[key], tectum[key])
        assert torch.equal(matlab[key], tectum[key])


def test_cddfuse_ssim_is_that_of_scikit_image(grey: tuple[Tensor, ...]) -> None:
    fused, *sources = (image[0, 0].double().numpy() for image in grey)
    expected = sum(structural_similarity(fused, source, data_range=2) for source in sources)
    assert score(*grey, metrics="ssim", convention="cddfuse")["ssim"][0].item() == pytest.approx(expected, rel=1e-9)


def test_matlab_ssim_is_that_of_scikit_image_inside(grey: tuple[Tensor, ...]) -> None:
    # Both pad by half a window, in different ways: give the border its pixels by hand, and cut off what they pad.
    fused, *sources = (image[0, 0].double().numpy() for image in grey)
    expected = 0.0
    for source in sources:
        one, two = (np.pad(image, 5, mode="edge") for image in (fused, source))
        _, whole = structural_similarity(
            one, two, full=True, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
        )
        expected += whole[5:-5, 5:-5].mean() / 2
    assert score(*grey, metrics="ssim", convention="matlab")["ssim"][0].item() == pytest.approx(expected, rel=1e-9)


# --- wrong use


def test_unknown_names() -> None:
    grey = torch.zeros(1, 1, 48, 48)
    with pytest.raises(ConfigError, match=r"'ivif'.*tectum, vifb, matlab, cddfuse"):
        get_convention("ivif")
    with pytest.raises(ConfigError, match=r"unknown metric 'psnrr'.*psnr"):
        score(grey, grey, grey, metrics=["en", "psnrr"])
    with pytest.raises(ConfigError, match=r"'vifb' does not define 'vif'"):
        score(grey, grey, grey, metrics=["vif"], convention="vifb")


def test_bad_images() -> None:
    grey = torch.zeros(1, 1, 48, 48)
    with pytest.raises(InputError, match=r"one size.*\(1, 1, 48, 47\)"):
        score(grey, grey[..., 1:], grey)
    with pytest.raises(InputError, match=r"\(B, 3, H, W\), found \(1, 2, 48, 48\)"):
        score(grey, grey.expand(1, 2, 48, 48), grey)
    with pytest.raises(InputError, match="infrared: the image has NaN"):
        score(grey, grey, grey * math.nan, convention="cddfuse")
    with pytest.raises(InputError, match="MS-SSIM needs images of at least 176x176 pixels, found 48x48"):
        score(grey, grey, grey, metrics="all")
    small = grey[..., :8]
    assert score(small, small, small, metrics=["en", "qy"])["qy"].item() == 1
    with pytest.raises(InputError, match="VIF needs images of at least 41x41 pixels, found 8x48"):
        score(small, small, small)


# --- the numbers of VIFB's own MATLAB code


def read(path: Path) -> Tensor:
    with Image.open(path) as image:
        pixels = np.array(image)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1).copy())[None]


def vifb_deviations(folder: Path, method: str, name: str) -> dict[str, float]:
    expected = json.loads((folder / "values.json").read_text())[method][name]
    images = (read(folder / part / f"{name}.jpg") for part in (f"fused/{method}", "VI", "IR"))
    scores = score(*images, convention="vifb")
    return {key: abs(value.item() / expected[VIFB_NAMES[key]] - 1) for key, value in scores.items()}


# The smallest pictures, of which one has a grey infrared image.
@pytest.mark.parametrize(("method", "name"), [("CNN", "peopleshadow"), ("GTF", "walking"), ("ADF", "running")])
def test_vifb_repeats_its_evaluator(shared_data: Path, method: str, name: str) -> None:
    deviations = vifb_deviations(shared_data / "VIFB", method, name)
    assert set(deviations) == set(VIFB_NAMES)
    assert max(deviations.values()) < 1e-4, deviations


@pytest.mark.slow
def test_vifb_repeats_its_evaluator_everywhere(shared_data: Path) -> None:
    folder = shared_data / "VIFB"
    values = json.loads((folder / "values.json").read_text())
    for method in values:
        for name in values[method]:
            deviations = vifb_deviations(folder, method, name)
            assert max(deviations.values()) < 1e-4, (method, name, deviations)
