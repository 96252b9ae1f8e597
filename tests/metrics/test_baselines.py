import pytest
import torch

from tectum.metrics.baselines import BASELINES, laplacian_pyramid


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
