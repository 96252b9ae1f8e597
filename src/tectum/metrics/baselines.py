"""Trivial and classical fusions, without which a table of fusion metrics misleads.

The visible image alone, or the pixelwise maximum, beats much of the literature on MI and Qabf: a method's number means
little until it is seen beside these.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.filters import box_mean, gaussian

_LEVELS = 4
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def laplacian_pyramid(visible: Tensor, infrared: Tensor) -> Tensor:
    """Fusion of Laplacian pyramids: at each of four levels the larger detail by magnitude, below them the mean.

    Burt and Adelson, "The Laplacian pyramid as a compact image code", 1983, with the choice of the larger detail.

    Args:
        visible, infrared: (B, 1, H, W) in [0, 1].

    Returns:
        (B, 1, H, W), clamped to [0, 1].
    """
    details = []
    for _ in range(_LEVELS):
        if min(visible.shape[-2:]) < 4:
            break
        coarse = [_blur(image)[..., ::2, ::2] for image in (visible, infrared)]
        first, second = (
            image - F.interpolate(small, image.shape[-2:], mode="bilinear", align_corners=False)
            for image, small in zip((visible, infrared), coarse, strict=True)
        )
        details.append(torch.where(first.abs() >= second.abs(), first, second))
        visible, infrared = coarse
    fused = (visible + infrared) / 2
    for detail in reversed(details):
        fused = F.interpolate(fused, detail.shape[-2:], mode="bilinear", align_corners=False) + detail
    return fused.clamp(0, 1)


def guided_filter(image: Tensor, guide: Tensor, radius: int, epsilon: float) -> Tensor:
    """Edge-preserving smoothing of an image by the edges of another one.

    He, Sun, Tang, "Guided image filtering", IEEE TPAMI 35, 2013.

    Args:
        image, guide: (B, 1, H, W).
        radius: of the square windows, in pixels.
        epsilon: variance of the guide, for values in [0, 1], below which it has no edge.
    """

    def mean(x: Tensor) -> Tensor:
        return box_mean(x, 2 * radius + 1)

    guide_mean, image_mean = mean(guide), mean(image)
    covariance = mean(guide * image) - guide_mean * image_mean
    slope = covariance / (mean(guide.square()) - guide_mean.square() + epsilon)
    return mean(slope) * guide + mean(image_mean - slope * guide_mean)


def guided_filter_fusion(visible: Tensor, infrared: Tensor) -> Tensor:
    """Fusion in two scales, a base and a detail layer, by weights that follow the edges of each source.

    Li, Kang, Hu, "Image fusion with guided filtering", IEEE TIP 22, 2013, with the authors' parameters: the base is a
    mean over 31 x 31 pixels, saliency the length of the Laplacian smoothed by a Gaussian of σ = 5 over 11 x 11 pixels,
    and the choice of the more salient source is filtered with radius 45 and ε 0.3 for the base, 7 and 1e-6 for detail.

    Args:
        visible, infrared: (B, 1, H, W) in [0, 1].

    Returns:
        (B, 1, H, W), clamped to [0, 1].
    """
    window = torch.tensor(gaussian(11, 5.0), dtype=visible.dtype, device=visible.device)
    saliency = []
    for image in (visible, infrared):
        padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
        laplacian = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
        saliency.append(_separable((laplacian - 4 * image).abs(), window))
    chosen = (saliency[0] >= saliency[1]).to(visible.dtype)
    fused = torch.zeros_like(visible)
    for radius, epsilon, detail in ((45, 0.3, False), (7, 1e-6, True)):
        layers, weights = [], []
        for image, choice in ((visible, chosen), (infrared, 1 - chosen)):
            base = box_mean(image, 31)
            layers.append(image - base if detail else base)
            # Float64, since the variance of a flat area is a difference of two numbers that are almost equal.
            weight = guided_filter(choice.double(), image.double(), radius, epsilon).to(image.dtype)
            weights.append(weight.clamp(0, 1))
        total = (weights[0] + weights[1]).clamp(min=1e-6)
        fused = fused + (weights[0] * layers[0] + weights[1] * layers[1]) / total
    return fused.clamp(0, 1)


def _separable(image: Tensor, window: Tensor) -> Tensor:
    half = len(window) // 2
    image = F.conv2d(F.pad(image, (half, half, 0, 0), mode="replicate"), window.view(1, 1, 1, -1))
    return F.conv2d(F.pad(image, (0, 0, half, half), mode="replicate"), window.view(1, 1, -1, 1))


def _blur(image: Tensor) -> Tensor:
    return _separable(image, torch.tensor(_BINOMIAL, dtype=image.dtype, device=image.device))


BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "visible": lambda visible, infrared: visible,
    "infrared": lambda visible, infrared: infrared,
    "mean": lambda visible, infrared: (visible + infrared) / 2,
    "maximum": torch.maximum,
    "Laplacian pyramid": laplacian_pyramid,
    "guided filter": guided_filter_fusion,
}
"""Fused luminance of (visible luminance, infrared), each (B, 1, H, W) in [0, 1], by the name of the row."""
