import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from sewar.full_ref import vifp
from skimage.measure import shannon_entropy
from sklearn.metrics import mutual_info_score
from torch import Tensor

from tectum.errors import InputError
from tectum.metrics import functional
from tectum.metrics.functional import FUSION_METRICS, VIF_MINIMUM_SIZE, fusion_scores

Grey = NDArray[np.uint8]
NO_REFERENCE = {
    "en": functional.entropy,
    "sd": functional.standard_deviation,
    "sf": functional.spatial_frequency,
    "ag": functional.average_gradient,
}
TWO_SOURCES = {
    "mi": functional.mutual_information,
    "vif": functional.visual_information_fidelity,
    "qabf": functional.qabf,
    "scd": functional.scd,
    "seam": functional.seam,
}


def picture(seed: int, size: tuple[int, int] = (72, 96)) -> Grey:
    """A smooth picture with some noise, a saturated and a black patch."""
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(size=size), 4)
    image = 60 + 150 * (image - image.min()) / np.ptp(image) + rng.normal(0, 4, size)
    image[5:25, 8 + seed : 28 + seed] = 255
    image[40:60, 50:80] = 0
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def tensor(*images: NDArray) -> Tensor:
    return torch.from_numpy(np.stack(images))[:, None]


@pytest.fixture
def triple() -> tuple[Grey, Grey, Grey]:
    visible, infrared = picture(1), picture(2)
    return np.maximum(visible, infrared // 2), visible, infrared


@pytest.fixture
def tensors(triple: tuple[Grey, Grey, Grey]) -> tuple[Tensor, Tensor, Tensor]:
    fused, visible, infrared = (tensor(image) for image in triple)
    return fused, visible, infrared


def assert_same_scores(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for key in FUSION_METRICS:
        torch.testing.assert_close(first[key], second[key], rtol=1e-12, atol=1e-12)


# --- each metric against an independent implementation, or its definition written out


def test_entropy_is_that_of_scikit_image(triple: tuple[Grey, Grey, Grey]) -> None:
    assert functional.entropy(tensor(triple[0])).item() == pytest.approx(shannon_entropy(triple[0]), rel=1e-12)


def test_standard_deviation_is_that_of_numpy(triple: tuple[Grey, Grey, Grey]) -> None:
    expected = triple[0].astype(float).std()
    assert functional.standard_deviation(tensor(triple[0])).item() == pytest.approx(expected, rel=1e-12)


def test_spatial_frequency_by_hand() -> None:
    image = np.array([[0, 3, 3], [4, 3, 9]], np.uint8)
    # horizontal differences 3, 0, −1, 6; vertical ones 4, 0, 6
    expected = math.sqrt((9 + 0 + 1 + 36) / 4 + (16 + 0 + 36) / 3)
    assert functional.spatial_frequency(tensor(image)).item() == pytest.approx(expected, rel=1e-12)


def test_average_gradient_is_that_of_numpy_gradient(triple: tuple[Grey, Grey, Grey]) -> None:
    vertical, horizontal = np.gradient(triple[0].astype(float))
    expected = np.sqrt((vertical**2 + horizontal**2) / 2).mean()
    assert functional.average_gradient(tensor(triple[0])).item() == pytest.approx(expected, rel=1e-6)


def test_mutual_information_is_that_of_scikit_learn(triple: tuple[Grey, Grey, Grey]) -> None:
    fused, *sources = triple
    nats = sum(mutual_info_score(source.ravel(), fused.ravel()) for source in sources)
    images = [tensor(image) for image in triple]
    assert functional.mutual_information(*images, base=math.e).item() == pytest.approx(nats, rel=1e-10)
    assert functional.mutual_information(*images).item() == pytest.approx(nats / math.log(2), rel=1e-10)


def test_vif_is_that_of_sewar(triple: tuple[Grey, Grey, Grey]) -> None:
    fused, *sources = triple
    expected = sum(vifp(source, fused) for source in sources)
    images = [tensor(image) for image in triple]
    assert functional.visual_information_fidelity(*images).item() == pytest.approx(expected, rel=1e-9)


def test_vif_is_that_of_sewar_where_images_are_nearly_flat() -> None:
    visible = np.full((80, 90), 255, np.uint8)
    visible[:, 60:] = 0
    infrared = np.where(visible > 0, 254, 1).astype(np.uint8)
    fused = np.zeros_like(visible)
    fused[30:50, 20:70] = 200
    expected = vifp(visible, fused) + vifp(infrared, fused)
    score = functional.visual_information_fidelity(tensor(fused), tensor(visible), tensor(infrared))
    assert score.item() == pytest.approx(expected, rel=1e-6)


def test_scd_is_that_of_numpy_corrcoef(triple: tuple[Grey, Grey, Grey]) -> None:
    fused, visible, infrared = (image.astype(float).ravel() for image in triple)
    expected = np.corrcoef(fused - infrared, visible)[0, 1] + np.corrcoef(fused - visible, infrared)[0, 1]
    assert functional.scd(*(tensor(image) for image in triple)).item() == pytest.approx(expected, rel=1e-12)


def test_qabf_of_a_single_vertical_edge_by_hand() -> None:
    # One step in the visible image, half as high in the fused one, on black; the infrared image is black. Away from the
    # upper and lower border the edge runs vertically, so that both orientations are equal and G is 1/2.
    visible, fused = np.zeros((2, 400, 6), np.uint8)
    visible[:, 3:], fused[:, 3:] = 200, 100
    score = functional.qabf(tensor(fused), tensor(visible), tensor(np.zeros_like(visible))).item()
    expected = 0.9994 * 0.5 * 0.9879 / (1 + math.exp(-22 * 0.2))
    assert score == pytest.approx(expected, rel=1e-6)


def test_qabf_does_not_credit_an_edge_across() -> None:
    visible, fused = np.zeros((2, 64, 64), np.uint8)
    visible[20:44, 30:34] = 255
    fused[30:34, 20:44] = 255
    assert functional.qabf(tensor(fused), tensor(visible), tensor(visible)).item() < 0.1


# --- properties


def test_equal_images(triple: tuple[Grey, Grey, Grey]) -> None:
    image = tensor(triple[0])
    scores = {key: value.item() for key, value in fusion_scores(image, image, image).items()}
    assert scores["mi"] == pytest.approx(2 * scores["en"], rel=1e-12)
    assert scores["vif"] == pytest.approx(2, rel=1e-9)
    assert scores["qabf"] == pytest.approx(0.9994 * 0.9879 / (1 + math.exp(-22 * 0.2)), rel=1e-3)
    assert scores["scd"] == 0  # both differences are constant


@pytest.mark.parametrize("grey", [0, 130, 255])
def test_constant_fused_image(grey: int, tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    _, visible, infrared = tensors
    scores = fusion_scores(torch.full_like(visible, grey), visible, infrared)
    for key in ("en", "sd", "sf", "ag", "mi"):
        assert scores[key].item() == 0
    assert scores["vif"].item() == pytest.approx(0, abs=1e-9)
    # Seen against the black beyond its border, a constant image has an edge there.
    assert 0 <= scores["qabf"].item() < 0.25
    assert scores["scd"].isfinite()


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_all_images_constant(grey: int) -> None:
    image = torch.full((1, 1, 48, 48), grey, dtype=torch.uint8)
    scores = {key: value.item() for key, value in fusion_scores(image, image, image).items()}
    expected = dict.fromkeys(FUSION_METRICS, 0.0) | {"vif": 2.0}
    del expected["qabf"]
    assert {key: scores[key] for key in expected} == expected
    assert scores["qabf"] == 0 if grey == 0 else 0.9 < scores["qabf"] < 0.976


def test_constant_source_counts_one_in_vif(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    _, visible, _ = tensors
    flat = torch.full_like(visible, 93)
    assert functional.visual_information_fidelity(visible, visible, flat).item() == pytest.approx(2, rel=1e-9)


def test_visible_image_itself_has_one_scd_term(triple: tuple[Grey, Grey, Grey]) -> None:
    _, visible, infrared = triple
    difference = visible.astype(float) - infrared
    expected = np.corrcoef(difference.ravel(), visible.ravel())[0, 1]
    assert functional.scd(tensor(visible), tensor(visible), tensor(infrared)).item() == pytest.approx(expected)


def test_sources_can_be_swapped(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    fused, visible, infrared = tensors
    assert_same_scores(fusion_scores(fused, visible, infrared), fusion_scores(fused, infrared, visible))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float_images_score_as_their_8_bit_pictures(dtype: torch.dtype, tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    expected = fusion_scores(*tensors)
    floats = [image.to(dtype) / 255 for image in tensors]
    assert_same_scores(fusion_scores(*floats), expected)
    assert_same_scores(fusion_scores(*(image + 0.001 for image in floats)), expected)
    assert_same_scores(fusion_scores(*(image.to(dtype) for image in tensors), data_range=255), expected)
    assert_same_scores(fusion_scores(*(image.to(torch.int32) * 257 for image in tensors), data_range=65535), expected)
    assert_same_scores(fusion_scores(floats[0], *tensors[1:]), expected)


def test_values_beyond_the_range_are_clamped(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    raw = torch.linspace(-0.5, 1.5, 72 * 96).view(1, 1, 72, 96)
    assert_same_scores(fusion_scores(raw, *tensors[1:]), fusion_scores(raw.clamp(0, 1), *tensors[1:]))


def test_a_batch_scores_as_its_images(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    fused, visible, infrared = (torch.cat((image, image.flip(3), 255 - image)) for image in tensors)
    together = fusion_scores(fused, visible, infrared)
    for i in range(3):
        one = fusion_scores(fused[i : i + 1], visible[i : i + 1], infrared[i : i + 1])
        assert_same_scores({key: value[i : i + 1] for key, value in together.items()}, one)


def test_single_functions_are_those_of_fusion_scores(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    scores = fusion_scores(*tensors)
    assert list(scores) == list(FUSION_METRICS)
    assert all(value.shape == (1,) and value.dtype == torch.float64 for value in scores.values())
    singles = {key: metric(tensors[0]) for key, metric in NO_REFERENCE.items()}
    singles |= {key: metric(*tensors) for key, metric in TWO_SOURCES.items()}
    assert_same_scores(singles, scores)


def test_inputs_are_left_alone(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    floats = [(image.float() / 255).requires_grad_() for image in tensors]
    before = [image.detach().clone() for image in floats]
    scores = fusion_scores(*floats)
    assert all(torch.equal(image, copy) for image, copy in zip(floats, before, strict=True))
    assert not any(score.requires_grad for score in scores.values())


# --- input that cannot be scored


@pytest.mark.parametrize("metric", [*NO_REFERENCE.values(), *TWO_SOURCES.values(), fusion_scores])
def test_nan_is_an_error(metric: Callable[..., object], tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    images = [image.float() / 255 for image in tensors]
    images[0][0, 0, 3, 4] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        metric(*images[: 1 if metric in NO_REFERENCE.values() else 3])


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_error_names_the_image(which: int, tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    images = [image.float() / 255 for image in tensors]
    images[which][0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=("fused", "visible", "infrared")[which]):
        fusion_scores(*images)


def test_vif_says_which_size_it_needs() -> None:
    enough = torch.zeros(1, 1, VIF_MINIMUM_SIZE, VIF_MINIMUM_SIZE + 5)
    assert functional.visual_information_fidelity(enough, enough, enough).item() == 2
    small = enough[:, :, 1:]
    for metric in (functional.visual_information_fidelity, fusion_scores):
        with pytest.raises(InputError, match="VIF needs images of at least 41x41 pixels, found 46x40"):
            metric(small, small, small)


@pytest.mark.parametrize("metric", [functional.spatial_frequency, functional.average_gradient])
def test_gradients_need_two_pixels(metric: Callable[..., Tensor]) -> None:
    assert metric(torch.zeros(1, 1, 2, 2)).item() == 0
    with pytest.raises(InputError, match="2x2"):
        metric(torch.zeros(1, 1, 1, 9))


def test_wrong_shapes() -> None:
    grey = torch.zeros(2, 1, 48, 48)
    with pytest.raises(InputError, match=r"one shape.*\(2, 1, 48, 48\).*\(1, 1, 48, 48\)"):
        fusion_scores(grey, grey[:1], grey)
    with pytest.raises(InputError, match="luminance"):
        functional.entropy(grey.expand(2, 3, 48, 48))
    with pytest.raises(InputError, match=r"\(48, 48\)"):
        functional.entropy(grey[0, 0])
    with pytest.raises(InputError, match="no image"):
        functional.entropy(grey[:0])


def test_wrong_ranges_and_types() -> None:
    grey = torch.linspace(0, 255, 64 * 64).view(1, 1, 64, 64)
    with pytest.raises(InputError, match="do not fit data_range 1"):
        functional.entropy(grey)
    with pytest.raises(InputError, match="needs data_range"):
        functional.entropy(grey.int())
    with pytest.raises(InputError, match=r"torch\.bool"):
        functional.entropy(grey > 3)
    for data_range in (0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="positive"):
            functional.entropy(grey, data_range=data_range)
    for base in (1, 0, math.nan):
        with pytest.raises(InputError, match="base"):
            functional.mutual_information(grey, grey, grey, base=base, data_range=255)


# --- real images


def read_grey(path: Path) -> NDArray[np.float64]:
    """BT.601 luminance, rounded."""
    with Image.open(path) as image:
        return np.round(np.asarray(image.convert("RGB")).astype(np.float64) @ [0.299, 0.587, 0.114])


@pytest.mark.slow
def test_trivial_fusions_score_as_on_other_pairs_of_msrs(shared_data: Path) -> None:
    # The table of the data's README has 106 other pairs, so the means agree roughly; a score in another unit or
    # convention (nats, a mean over the sources, no factor 1/√2) would be off by 30 % and more.
    folder = shared_data / "MSRS-consensus" / "test"
    names = sorted(path.name for path in (folder / "vi").iterdir())[::3]
    visible, infrared = (
        torch.from_numpy(np.stack([read_grey(folder / part / name) for name in names])[:, None]).byte()
        for part in ("vi", "ir")
    )
    mean = ((visible.float() + infrared.float()) / 2).round().byte()
    for fused, expected in (
        (visible, {"en": 6.48, "sd": 42.70, "sf": 10.84, "ag": 3.23, "mi": 6.85, "vif": 1.046, "qabf": 0.659}),
        (mean, {"en": 5.90, "sd": 23.63, "sf": 6.04, "ag": 2.03, "mi": 2.67, "vif": 0.702, "qabf": 0.371, "scd": 1.24}),
    ):
        scores = fusion_scores(fused, visible, infrared)
        for key, value in expected.items():
            assert scores[key].mean().item() == pytest.approx(value, rel=0.15), key


def stretched(grey: NDArray) -> NDArray[np.uint8]:
    """As VIFB's MATLAB code takes images for Mutinf: stretched to their own minimum and maximum."""
    grey = grey.astype(float)
    return np.floor(255 * (grey - grey.min()) / np.ptp(grey) + 0.5).astype(np.uint8)


@pytest.mark.parametrize(
    ("method", "name"), [("CNN", "carWhite"), ("GTF", "manlight"), ("IFCNN", "fight"), ("ADF", "snow")]
)
def test_qabf_and_mutual_information_repeat_vifb(shared_data: Path, method: str, name: str) -> None:
    folder = shared_data / "VIFB"
    expected = json.loads((folder / "values.json").read_text())[method][name]
    channels = []
    for part in (f"fused/{method}", "VI", "IR"):
        with Image.open(folder / part / f"{name}.jpg") as image:
            channels.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    fused, visible, infrared = (tensor(*image) for image in channels)
    assert functional.qabf(fused, visible, infrared).mean().item() == pytest.approx(expected["Qabf"], rel=1e-4)
    fused, visible, infrared = (tensor(*map(stretched, image)) for image in channels)
    nats = functional.mutual_information(fused, visible, infrared, base=math.e).mean().item()
    assert nats == pytest.approx(expected["Mutinf"], rel=1e-4)
