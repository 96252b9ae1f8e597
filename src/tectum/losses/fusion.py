"""Losses of the fused image."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sobel_gradient(image: Tensor) -> Tensor:
    """|Sobel_x| + |Sobel_y| with zero padding: (B, 1, H, W) -> (B, 1, H, W)."""
    smooth = image.new_tensor([1.0, 2.0, 1.0])
    derivative = image.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack((smooth[:, None] * derivative, derivative[:, None] * smooth))[:, None]
    return F.conv2d(image, kernels, padding=1).abs().sum(1, keepdim=True)


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
