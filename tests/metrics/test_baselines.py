import pytest
import torch

from tectum.metrics import seam
from tectum.metrics.baselines import BASELINES, guided_filter, guided_filter_fusion, laplacian_pyramid


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("size", [(16, 16), (37, 53), (3, 70)])
def test_same_size_and_range(name, size):
    torch.manual_seed(0)
    fused = BASELINES[name](torch.rand(2, 1, *size), torch.rand(2, 1, *size))
    assert fused.shape == (2, 1, *size)
    assert fused.min() >= 0
    assert fused.max() <= 1


@pytest.mark.parametrize("size", [(64, 64), (37, 53)])
def test_pyramid_of_equal_images_is_the_image(size):
    image = torch.rand(1, 1, *size)
    torch.testing.assert_close(laplacian_pyramid(image, image), image, atol=1e-5, rtol=0)


def test_pyramid_takes_the_stronger_detail_and_the_mean_brightness():
    flat = torch.full((1, 1, 64, 64), 0.5)
    stripes = 0.4 + 0.2 * (torch.arange(64) % 2).float().expand(1, 1, 64, 64)
    fused = laplacian_pyramid(flat, stripes)
    assert fused.mean().item() == pytest.approx(0.5, abs=0.01)
    assert (fused[..., 1:] - fused[..., :-1]).abs().mean() > 0.19


def test_maximum_and_mean():
    visible, infrared = torch.tensor([[[[0.2, 0.8]]]]), torch.tensor([[[[0.6, 0.4]]]])
    torch.testing.assert_close(BASELINES["maximum"](visible, infrared), torch.tensor([[[[0.6, 0.8]]]]))
    torch.testing.assert_close(BASELINES["mean"](visible, infrared), torch.tensor([[[[0.4, 0.6]]]]))


def test_guided_filter_follows_the_edges_of_its_guide():
    torch.manual_seed(0)
    guide = torch.zeros(1, 1, 64, 64)
    guide[..., 32:] = 1
    noisy = guide * 0.6 + 0.2 + 0.05 * torch.randn(1, 1, 64, 64)
    smooth = guided_filter(noisy, guide, 6, 1e-3)
    torch.testing.assert_close(smooth, guide * 0.6 + 0.2, atol=0.03, rtol=0)
    flat = guided_filter(noisy, torch.zeros_like(guide), 6, 1e-3)  # without an edge it is a mean of means
    assert 0.3 < flat[0, 0, 32, 32] < 0.7


def test_guided_filter_fusion_of_equal_images_is_the_image():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 48, 64)
    torch.testing.assert_close(guided_filter_fusion(image, image), image, atol=1e-5, rtol=0)


def test_guided_filter_fusion_takes_the_detail_of_either_source_without_a_cut():
    ramp = torch.linspace(0.2, 0.6, 128).expand(1, 1, 128, 128)
    stripes = 0.1 * (torch.arange(128) // 2 % 2).float().expand(1, 1, 128, 128)
    mask = torch.zeros_like(ramp)
    mask[..., 64:] = 1
    visible, infrared = ramp + stripes * (1 - mask), 0.3 + stripes * mask
    fused = guided_filter_fusion(visible, infrared)
    steps = fused.diff(dim=3).abs()
    assert steps[..., 8:56].mean() > 0.03
    assert steps[..., 72:120].mean() > 0.03
    assert seam(fused, visible, infrared).item() < 0.02
