"""Filters of images that metrics and losses share, in torch."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def sobel(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel responses of (N, H + 2, W + 2) to horizontal and vertical differences, each (N, H, W).

    The signs are those of a convolution, not of a correlation: left minus right, and below minus above.

    >>> import torch
    >>> sobel(torch.tensor([[[0, 1, 2], [0, 1, 2], [3, 4, 5]]]))
    (tensor([[[-8]]]), tensor([[[12]]]))
    """
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    rows = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return columns[..., :-2] - columns[..., 2:], rows[:, 2:] - rows[:, :-2]


def edge_strength(image: Tensor) -> Tensor:
    """Sobel edge strength √(s_x² + s_y²) of (N, H, W), zeros beyond the border."""
    horizontal, vertical = sobel(F.pad(image, (1, 1, 1, 1)))
    return (horizontal.square() + vertical.square()).sqrt_()


def box_mean(image: Tensor, window: int) -> Tensor:
    """Mean over the part of a window (odd) that lies within the image: (B, C, H, W) -> (B, C, H, W)."""
    # One axis after the other: the same mean at a fraction of the work.
    half = window // 2
    rows = F.avg_pool2d(image, (1, window), stride=1, padding=(0, half), count_include_pad=False)
    return F.avg_pool2d(rows, (window, 1), stride=1, padding=(half, 0), count_include_pad=False)


def gaussian(size: int, sigma: float) -> list[float]:
    """Weights of a one-dimensional Gaussian window, with a sum of one."""
    weights = [math.exp(-((k - size // 2) ** 2) / (2 * sigma**2)) for k in range(size)]
    return [weight / sum(weights) for weight in weights]


def separable(image: Tensor, weights: Sequence[float], stride: int = 1) -> Tensor:
    """Filter (N, H, W) with the same odd window along both axes, without padding; keep every `stride`-th pixel.

    >>> import torch
    >>> separable(torch.arange(15.0).view(1, 3, 5), [0.25, 0.5, 0.25])
    tensor([[[6., 7., 8.]]])
    """
    size = len(weights)
    centre = size // 2
    # Sums of shifted images: on a CPU several times faster than a float64 convolution with one channel.
    for dim in (1, 2):
        length = image.shape[dim] - size + 1
        shifted = [image.narrow(dim, k, length) for k in range(size)]
        if stride > 1:
            shifted = [part[:, ::stride] if dim == 1 else part[..., ::stride] for part in shifted]
        image = shifted[centre] * weights[centre]
        for part, weight in zip(shifted, weights, strict=True):
            if part is not shifted[centre]:
                image.add_(part, alpha=weight)
    return image
