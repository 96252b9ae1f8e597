"""Trivial fusions, without which a table of fusion metrics misleads.

The visible image alone, or the pixelwise maximum, beats much of the literature on MI and Qabf: a method's number means
little until it is seen beside these.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

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


def _blur(image: Tensor) -> Tensor:
    kernel = torch.tensor(_BINOMIAL, dtype=image.dtype, device=image.device)
    image = F.conv2d(F.pad(image, (2, 2, 0, 0), mode="replicate"), kernel.view(1, 1, 1, 5))
    return F.conv2d(F.pad(image, (0, 0, 2, 2), mode="replicate"), kernel.view(1, 1, 5, 1))


BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "visible": lambda visible, infrared: visible,
    "infrared": lambda visible, infrared: infrared,
    "mean": lambda visible, infrared: (visible + infrared) / 2,
    "maximum": torch.maximum,
    "Laplacian pyramid": laplacian_pyramid,
}
"""Fused luminance of (visible luminance, infrared), each (B, 1, H, W) in [0, 1], by the name of the row."""
