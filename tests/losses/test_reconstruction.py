import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from tectum.losses.reconstruction import reconstruction_losses, second_order_gradient

# The 5 x 5 Sobel kernels of second order, as printed in the literature.
XX = [[-1, 0, 2, 0, -1], [-4, 0, 8, 0, -4], [-6, 0, 12, 0, -6], [-4, 0, 8, 0, -4], [-1, 0, 2, 0, -1]]
XY = [[-1, -2, 0, 2, 1], [-2, -4, 0, 4, 2], [0, 0, 0, 0, 0], [2, 4, 0, -4, -2], [1, 2, 0, -2, -1]]
KERNELS = [np.array(XX) / 64, np.array(XY) / 36, np.array(XX).T / 64]


def random_images(count, batch=1, side=32):
    return torch.rand(count, batch, 1, side, side, generator=torch.Generator().manual_seed(0)).unbind()


def patch(top, left, batch=1, side=32, size=8):
    hidden = torch.zeros(batch, 1, side, side)
    hidden[..., top : top + size, left : left + size] = 1
    return hidden


def polynomial(function, side=12):
    y, x = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    return (function(x, y) + 0 * x)[None, None]


def test_second_order_gradient_equals_scipy():
    (images,) = random_images(1, batch=2)
    expected = [sum(abs(correlate(image.numpy(), k, mode="nearest")) for k in KERNELS) for image in images[:, 0]]
    result = second_order_gradient(images)
    assert result.shape == images.shape
    np.testing.assert_allclose(result[:, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (lambda x, y: 5.0, 0),
        (lambda x, y: 0.3 * x - 0.7 * y, 0),
        (lambda x, y: x**2, 2),
        (lambda x, y: 0.5 * y**2, 1),
        (lambda x, y: x**2 - y**2, 4),  # magnitudes add up
        (lambda x, y: x * y, 64 / 36),
    ],
)
def test_second_order_gradient_of_polynomials(function, value):
    inner = second_order_gradient(polynomial(function))[..., 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, value), atol=1e-4, rtol=0)


def test_constant_image_has_no_edge_at_the_border():
    assert second_order_gradient(polynomial(lambda x, y: 0.5)).abs().max() < 1e-6


def test_a_perfect_reconstruction_costs_nothing():
    (image,) = random_images(1)
    assert reconstruction_losses(image, image, patch(0, 0)) == {"intensity": 0, "gradient": 0}


@pytest.mark.parametrize("mix_batch", [False, True])
def test_errors_outside_the_hidden_patches_cost_nothing(mix_batch):
    (image,) = random_images(1)
    wrong = image.clone()
    wrong[..., 20:, 20:] += 0.5  # more than two pixels from the patch below
    losses = reconstruction_losses(wrong, image, patch(4, 4), mix_batch)
    assert losses == {"intensity": 0, "gradient": 0}
    inside = reconstruction_losses(wrong, image, patch(18, 18), mix_batch)
    assert min(inside.values()) > 0


def test_means_are_over_all_pixels():
    (image,) = random_images(1)
    # 0.5 off everywhere, and 8 x 8 of 32 x 32 pixels are hidden; a constant has no second derivative.
    losses = reconstruction_losses(image + 0.5, image, patch(4, 4))
    assert losses["intensity"].item() == pytest.approx(0.5 / 16, rel=1e-5)
    assert losses["gradient"].item() == pytest.approx(0, abs=1e-6)


def test_gradient_term_is_the_difference_of_the_gradients():
    image, target = random_images(2)
    hidden = patch(10, 6)
    expected = (second_order_gradient(image) - second_order_gradient(target)).abs()[hidden > 0].sum() / hidden.numel()
    torch.testing.assert_close(reconstruction_losses(image, target, hidden)["gradient"], expected)


def test_mixed_batch_masks_every_map_by_every_sample():
    image, target = random_images(2, batch=3)
    hidden = torch.cat([patch(0, 0), patch(8, 20), patch(16, 8, size=14)])
    maps = (second_order_gradient(image) - second_order_gradient(target)).abs()
    pairs = [(maps[i] * hidden[j]).mean() for i in range(3) for j in range(3)]
    mixed, plain = (reconstruction_losses(image, target, hidden, mix) for mix in (True, False))
    torch.testing.assert_close(mixed["gradient"], torch.stack(pairs).mean())
    torch.testing.assert_close(plain["gradient"], torch.stack([pairs[0], pairs[4], pairs[8]]).mean())
    assert mixed["gradient"].item() != pytest.approx(plain["gradient"].item(), rel=1e-3)
    assert mixed["intensity"] == plain["intensity"]


def test_a_batch_of_one_does_not_mix():
    image, target = random_images(2)
    mixed, plain = (reconstruction_losses(image, target, patch(3, 5), mix) for mix in (True, False))
    assert mixed == plain
