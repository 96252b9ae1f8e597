"""Choice between the sources of a fused image, pixel by pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 7
"""Side of the window over which features are gathered before the choice."""

REACH = 1 + WINDOW // 2
"""Rows and columns around a pixel that the choice depends on."""

SHARPNESS = 200.0
"""Of the sigmoid, per unit of brightness: where one source is preferred by 0.025, it is taken to 99.3 %."""


class SourceSelection(nn.Module):
    """Fused image of which almost every pixel is that of one source: i + s (v - i), s = σ(200 (v - i + bonus)).

    A fused image that is made from coarse maps or from features alone blurs what it takes over; in dark scenes, where
    a source differs from its surroundings by few grey levels, it loses most of it. Here the brighter source is chosen,
    and a small network may give one of them a bonus: from the sources, so for local detail, and from a first fused
    image, so for what the large network knows of the scene. The bonus starts at zero, and the image as the pixelwise
    maximum. Images are continued beyond their borders by the border's pixels.

    Not in either paper.

    Args:
        channels: of the small network.

    Shape:
        fused, luminance, infrared (B, 1, H, W) -> (B, 1, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = nn.Conv2d(3, channels, 3)
        self.gather = nn.Conv2d(channels, channels, WINDOW, groups=channels, bias=False)
        self.bonus = nn.Conv2d(channels, 1, 1)
        nn.init.constant_(self.gather.weight, 1 / WINDOW**2)
        for parameter in self.bonus.parameters():
            nn.init.zeros_(parameter)

    def forward(self, fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
        planes = torch.cat((fused, luminance, infrared), dim=1)
        return self.select(F.pad(planes, (REACH, REACH, REACH, REACH), mode="replicate"), luminance, infrared)

    def select(self, planes: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
        """The same from all three planes joined, with `REACH` more pixels on every side."""
        bonus = self.bonus(self.gather(F.relu(self.detail(planes), inplace=True)))
        difference = luminance - infrared
        return infrared + torch.sigmoid(SHARPNESS * (difference + bonus)) * difference
