"""A small convolutional correction of a fused image at full size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REACH = 2
"""Rows and columns around a pixel that its correction depends on."""


class FullSizeCorrection(nn.Module):
    """f + conv3x3(ReLU(conv3x3([f, v, i]))): what a fused image that is made from coarser maps can't follow.

    The weights of ViR-MFS are upsampled from 1/4 of the size, and MAFS paints its image from features alone: neither
    can choose between the sources pixel by pixel. Here ReLU of differences of the sources can, as max(v, i) =
    i + ReLU(v - i) does. The second convolution starts at zero, so that a trained network can be given a correction
    without a change of what it computes. Images are continued beyond their borders by the border's pixels.

    Not in either paper.

    Args:
        channels: between the two convolutions.

    Shape:
        fused, luminance, infrared (B, 1, H, W) -> (B, 1, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3)
        self.second = nn.Conv2d(channels, 1, 3)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
        sources = torch.cat((fused, luminance, infrared), dim=1)
        return fused + self.change(F.pad(sources, (REACH, REACH, REACH, REACH), mode="replicate"))

    def change(self, sources: Tensor) -> Tensor:
        """What is added, from the three planes with `REACH` more pixels on every side: (B, 3, H+4, W+4)."""
        return self.second(F.relu(self.first(sources), inplace=True))
