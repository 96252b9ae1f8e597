"""Choice between the sources of a fused image, pixel by pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 9
"""Side of the window over which features are gathered before the choice."""

REACH = 1 + WINDOW // 2
"""Rows and columns around a pixel that the choice depends on."""

SHARPNESS = 200.0
"""Of the sigmoid, per unit of brightness: where one source is preferred by 0.025, it is taken to 99.3 %."""


LIFT = 0.2
"""Share of the common brightness above `LIFT_THRESHOLD` that the lift begins with."""

LIFT_THRESHOLD = 0.1
"""Brightness, of a range of 1, below which the lift begins with nothing: dark areas keep their grey levels."""

LIFT_SCALE = 16
"""The lift comes from maps of 1/16 of the size, so that it adds no texture."""


class SourceSelection(nn.Module):
    """Fused image of which almost every pixel is that of one source: i + s (v - i) + lift, s = σ(200 (v - i + bonus)).

    A fused image that is made from coarse maps or from features alone blurs what it takes over; in dark scenes, where
    a source differs from its surroundings by few grey levels, it loses most of it. Here the brighter source is chosen,
    and a small network may give one of them a bonus: from the sources, so for local detail, and from a first fused
    image, so for what the large network knows of the scene. The bonus starts at zero. For it, images are continued
    beyond their borders by the border's pixels. The lift, α ReLU(min(v, i) - β) with a smoothed minimum, leaves a trace
    of the other source where both are bright; α and β are learned.

    Not in either paper.

    Args:
        channels: of the small network.

    Shape:
        fused, luminance, infrared (B, 1, H, W), H and W multiples of 16 -> (B, 1, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = nn.Conv2d(3, channels, 3)
        self.gather = nn.Conv2d(channels, channels, WINDOW, groups=channels, bias=False)
        self.bonus = nn.Conv2d(channels, 1, 1)
        self.lift = nn.Parameter(torch.tensor([LIFT, LIFT_THRESHOLD]))  # α and β
        nn.init.constant_(self.gather.weight, 1 / WINDOW**2)
        for parameter in self.bonus.parameters():
            nn.init.zeros_(parameter)

    def forward(self, fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
        planes = torch.cat((fused, luminance, infrared), dim=1)
        chosen = self.select(F.pad(planes, (REACH, REACH, REACH, REACH), mode="replicate"), luminance, infrared)
        lift = self.lift_map(luminance, infrared)
        return chosen + F.interpolate(lift, luminance.shape[-2:], mode="bilinear", align_corners=True)

    def select(self, planes: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
        """The same without the lift, from all three planes joined, with `REACH` more pixels on every side."""
        bonus = self.bonus(self.gather(F.relu(self.detail(planes), inplace=True)))
        difference = luminance - infrared
        return infrared + torch.sigmoid(SHARPNESS * (difference + bonus)) * difference

    def lift_map(self, luminance: Tensor, infrared: Tensor) -> Tensor:
        """The lift at 1/16 of the size: (B, 1, H, W) -> (B, 1, H/16, W/16)."""
        common = F.avg_pool2d(torch.minimum(luminance, infrared), LIFT_SCALE)
        return self.lift[0] * F.relu(common - self.lift[1])
