import pytest
import torch

from tectum.losses.fusion import gradient_loss, intensity_loss, sobel_gradient


def test_sobel_of_a_step_edge():
    image = torch.zeros(1, 1, 5, 6)
    image[..., 3:] = 1
    gradient = sobel_gradient(image)
    # Away from the border: 1 + 2 + 1 = 4 on both sides of the edge, nothing elsewhere.
    assert gradient[0, 0, 2].tolist() == [0, 0, 4, 4, 0, 4]
    assert gradient.shape == image.shape


def test_losses_are_zero_at_their_target():
    visible = torch.rand(1, 1, 8, 8)
    assert intensity_loss(visible, visible, visible * 0.5) == 0
    assert gradient_loss(visible, visible, torch.zeros_like(visible)) == 0


def test_intensity_target_is_the_brighter_source():
    visible, infrared = torch.tensor([[[[0.2, 0.8]]]]), torch.tensor([[[[0.6, 0.1]]]])
    assert intensity_loss(torch.tensor([[[[0.5, 0.5]]]]), visible, infrared).item() == pytest.approx((0.1 + 0.3) / 2)


def test_gradient_target_is_the_stronger_edge():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    weak, strong = 0.1 * ramp, -0.3 * ramp
    assert gradient_loss(0.3 * ramp, weak, strong).item() == pytest.approx(0, abs=1e-6)
    assert gradient_loss(weak, weak, strong) > 0.5
