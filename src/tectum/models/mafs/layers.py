"""What the parts of MAFS share: widths, a convolution with its norm and activation, resizing."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Channels of every feature on the way to the fused image, and to the labels.
FUSION_WIDTH = 32
SEMANTIC_WIDTH = 64


def conv_block(
    in_channels: int, out_channels: int, kernel: int, activation: type[nn.Module], dilation: int = 1
) -> nn.Sequential:
    """Convolution without bias that keeps the size, BatchNorm, activation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        activation(),
    )


def resize(x: Tensor, size: torch.Size | tuple[int, int], align_corners: bool) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
