import math

import pytest
import torch
from torch import Tensor

from tectum.errors import ConfigError, InputError
from tectum.metrics import FUSION_METRICS, METRICS, FusionScores, fusion_scores, score


@pytest.fixture
def images() -> tuple[Tensor, Tensor, Tensor]:
    """Fused, visible and infrared images (3, 1, 48, 56)."""
    visible, infrared = torch.rand(2, 3, 1, 48, 56, generator=torch.Generator().manual_seed(0))
    return torch.maximum(visible, infrared), visible, infrared


def test_mean_over_images_not_over_batches(images: tuple[Tensor, Tensor, Tensor]) -> None:
    scores = FusionScores()
    scores.update(*(image[:2] for image in images))
    scores.update(*(image[2:] for image in images))
    expected = fusion_scores(*images)
    mean = scores.compute()
    assert list(mean) == list(FUSION_METRICS)
    for key, value in mean.items():
        assert value.dtype == torch.float64
        assert value.item() == pytest.approx(expected[key].mean().item(), rel=1e-12)
    assert scores.images == 3


def test_images_of_several_sizes(images: tuple[Tensor, Tensor, Tensor]) -> None:
    small = tuple(image[:1, :, :44, :44] for image in images)
    scores = FusionScores()
    scores.update(*images)
    scores.update(*small)
    whole, part = fusion_scores(*images)["ag"], fusion_scores(*small)["ag"]
    assert scores.compute()["ag"].item() == pytest.approx(torch.cat((whole, part)).mean().item(), rel=1e-12)


def test_forward_returns_the_batch_and_reset_forgets(images: tuple[Tensor, Tensor, Tensor]) -> None:
    scores = FusionScores()
    scores.update(*(image[:2] for image in images))
    last = scores(*(image[2:] for image in images))
    assert last["vif"].item() == pytest.approx(fusion_scores(*images)["vif"][2].item(), rel=1e-12)
    assert scores.images == 3
    scores.reset()
    assert scores.images == 0


def test_data_range_is_passed_on(images: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, expected = FusionScores(data_range=1000), FusionScores()
    scores.update(*(image * 1000 for image in images))
    expected.update(*images)
    for key, value in expected.compute().items():
        assert scores.compute()[key].item() == pytest.approx(value.item(), rel=1e-12)


def test_a_bad_batch_changes_nothing(images: tuple[Tensor, Tensor, Tensor]) -> None:
    fused, visible, infrared = images
    scores = FusionScores()
    scores.update(*images)
    before = scores.compute()
    with pytest.raises(InputError):
        scores.update(fused * math.nan, visible, infrared)
    assert scores.images == 3
    assert all(torch.equal(value, before[key]) for key, value in scores.compute().items())


def test_states_add_up_over_processes(images: tuple[Tensor, Tensor, Tensor]) -> None:
    whole = FusionScores()
    whole.update(*images)
    parts = [FusionScores(), FusionScores()]
    parts[0].update(*(image[:1] for image in images))
    parts[1].update(*(image[1:] for image in images))
    # What torchmetrics does with states that are gathered from two processes.
    for state, reduction in parts[0]._reductions.items():
        assert callable(reduction)
        gathered = torch.stack([getattr(part, state) for part in parts])
        setattr(parts[0], state, reduction(gathered))
    parts[0]._computed = None
    for key, value in whole.compute().items():
        assert parts[0].compute()[key].item() == pytest.approx(value.item(), rel=1e-12)


def test_metrics_and_convention_are_passed_on(images: tuple[Tensor, Tensor, Tensor]) -> None:
    fused, visible, infrared = images
    scores = FusionScores(metrics=["mi", "qcv"], convention="vifb")
    scores.update(fused.expand(-1, 3, -1, -1), visible.expand(-1, 3, -1, -1), infrared)
    expected = score(*images, metrics=["mi", "qcv"], convention="vifb")
    assert list(scores.compute()) == ["mi", "qcv"]
    for key, value in scores.compute().items():
        assert value.item() == pytest.approx(expected[key].mean().item(), rel=1e-9)
    assert FusionScores(metrics="all").metrics == tuple(METRICS)
    with pytest.raises(ConfigError, match="does not define 'nabf'"):
        FusionScores(metrics=["nabf"], convention="cddfuse")
