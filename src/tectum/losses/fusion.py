"""Losses of the fused image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.metrics.functional.gradients import sobel


def sobel_gradient(image: Tensor) -> Tensor:
    """|Sobel_x| + |Sobel_y| with zero padding: (B, 1, H, W) -> (B, 1, H, W)."""
    horizontal, vertical = sobel(F.pad(image[:, 0], (1, 1, 1, 1)))
    return (horizontal.abs() + vertical.abs())[:, None]


def gradient_loss(fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
    """Mean |∇f - max(∇v, ∇i)|, ∇ = `sobel_gradient`: the fused image keeps the stronger edge (ViR-MFS).

    Args:
        fused, luminance, infrared: (B, 1, H, W), about [0, 1].
    """
    target = torch.maximum(sobel_gradient(luminance), sobel_gradient(infrared))
    return F.l1_loss(sobel_gradient(fused), target)


def intensity_loss(fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
    """Mean |f - max(v, i)|: the fused image keeps the brighter source (ViR-MFS).

    Args:
        fused, luminance, infrared: (B, 1, H, W), about [0, 1].
    """
    return F.l1_loss(fused, torch.maximum(luminance, infrared))
