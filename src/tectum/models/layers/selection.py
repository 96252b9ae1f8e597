"""Choice between the sources of a fused image, pixel by pixel."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.errors import ConfigError

DETAIL_WINDOW = 13
"""Side of the boxes over which the sources' gradients are compared at first."""

BRIGHTNESS_WINDOW = 9
"""Side of the boxes over which the sources' brightness is compared at first."""

DETAIL_WEIGHT = 2.6
"""Brightness, of a range of 1, that a mean Sobel gradient of 1 makes up for at first."""

DETAIL_LIMIT = 0.15
"""Brightness that detail makes up for at most: without a limit, what is next to something bright gets a dark rim."""

VISIBLE_NOISE, INFRARED_NOISE = 0.015, 0.035
"""Sobel responses, for images in [0, 1], below which there is no detail at first; thermal sensors are noisier."""

REACH = 1 + DETAIL_WINDOW // 2
"""Rows and columns around a pixel that the choice depends on."""

SHARPNESS = 400.0
"""Slope of the choice: where one source is preferred by a brightness of 0.0125, it is taken to 99.3 %."""

TRAINING_SHARPNESS = 40.0
"""Slope in training mode, since a choice as sharp as it should be has no gradient to be changed by."""

LIFT = 0.28
"""Share of the common brightness above `LIFT_THRESHOLD` that the lift begins with."""

LIFT_THRESHOLD = 0.08
"""Brightness, of a range of 1, below which the lift begins with nothing: dark areas keep their grey levels."""

LIFT_SCALE = 16
"""The lift comes from maps of 1/16 of the size, so that it adds no texture."""

RULE_CHANNELS = 10
"""Channels that the first rule takes: two signs of two Sobel responses of two sources, two of their difference."""


class SourceSelection(nn.Module):
    """Fused image of which almost every pixel is that of one source: i + σ(400 preference) (v - i) + lift.

    A fused image that is made from coarse maps or from features alone blurs what it takes over; in dark scenes, where
    a source differs from its surroundings by few grey levels, it loses most of it. Here a small network prefers one
    source at each pixel. It sees both, so local detail, and a first fused image, so what the large network knows of the
    scene. It starts as a rule, by which detail counts beside brightness (`tectum.losses.fusion.detailed_target`):

        preference = 2.6 mean of (|∇v| - |∇i|) over 13 x 13 pixels + mean of (v - i) over 9 x 9,

    the first term within ±0.15, and |∇| = π/4 (|Sobel_x| + |Sobel_y|), the length of the gradient in the mean over all
    directions, each response less what is noise. Images are continued beyond their borders by the border's pixels. The
    lift, α ReLU(min(v, i) - β) with a smoothed minimum, leaves a trace of the other source where both are bright; α and
    β are learned.

    Not in either paper.

    Args:
        channels: of the small network, at least `RULE_CHANNELS`. The rest starts from random weights that the
            preference does not count at first.

    Raises:
        ConfigError: for fewer channels.

    Shape:
        fused, luminance, infrared (B, 1, H, W), H and W multiples of 16 -> (B, 1, H, W).
    """

    def __init__(self, channels: int) -> None:
        if channels < RULE_CHANNELS:
            raise ConfigError(
                f"selection must be at least {RULE_CHANNELS} channels, or 0 for none, but it is {channels}"
            )
        super().__init__()
        self.detail = nn.Conv2d(3, channels, 3)
        self.gather = nn.Sequential(
            nn.Conv2d(channels, channels, (1, DETAIL_WINDOW), groups=channels, bias=False),
            nn.Conv2d(channels, channels, (DETAIL_WINDOW, 1), groups=channels, bias=False),
        )
        self.preference = nn.Conv2d(channels, 2, 1)  # by detail, and by brightness and whatever is learned
        self.lift = nn.Parameter(torch.tensor([LIFT, LIFT_THRESHOLD]))  # α and β
        self._start_as_rule()

    @torch.no_grad()
    def _start_as_rule(self) -> None:
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        centre = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
        detail = torch.full((DETAIL_WINDOW,), 1 / DETAIL_WINDOW)
        brightness = F.pad(
            torch.full((BRIGHTNESS_WINDOW,), 1 / BRIGHTNESS_WINDOW), ((DETAIL_WINDOW - BRIGHTNESS_WINDOW) // 2,) * 2
        )
        length = DETAIL_WEIGHT * math.pi / 4
        nothing = torch.zeros(3, 3)
        # Of each channel: kernels for luminance and infrared, bias, window, weights. |x| is ReLU(x) + ReLU(-x).
        rule = []
        for sign in (1, -1):
            for response in (sign * sobel, sign * sobel.T):
                rule.append((response, nothing, -VISIBLE_NOISE, detail, (length, 0)))
                rule.append((nothing, response, -INFRARED_NOISE, detail, (-length, 0)))
            rule.append((sign * centre, -sign * centre, 0.0, brightness, (0, sign)))
        rows, columns = (convolution.get_parameter("weight") for convolution in self.gather)
        for gathering in (rows, columns):
            gathering.fill_(1 / DETAIL_WINDOW)
        for parameter in self.preference.parameters():
            parameter.zero_()
        for channel, (visible, infrared, bias, window, weights) in enumerate(rule):
            self.detail.weight[channel] = torch.stack((nothing, visible, infrared))
            self.detail.get_parameter("bias")[channel] = bias
            rows[channel] = window
            columns[channel] = window[:, None]
            self.preference.weight[:, channel, 0, 0] = torch.tensor(weights)

    def forward(self, fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
        planes = torch.cat((fused, luminance, infrared), dim=1)
        chosen = self.select(F.pad(planes, (REACH, REACH, REACH, REACH), mode="replicate"), luminance, infrared)
        lift = self.lift_map(luminance, infrared)
        return chosen + F.interpolate(lift, luminance.shape[-2:], mode="bilinear", align_corners=True)

    def select(self, planes: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
        """The same without the lift, from all three planes joined, with `REACH` more pixels on every side."""
        preferences = self.preference(self.gather(F.relu(self.detail(planes), inplace=True)))
        preference = preferences[:, :1].clamp(-DETAIL_LIMIT, DETAIL_LIMIT) + preferences[:, 1:]
        sharpness = TRAINING_SHARPNESS if self.training else SHARPNESS
        return infrared + torch.sigmoid(sharpness * preference) * (luminance - infrared)

    def lift_map(self, luminance: Tensor, infrared: Tensor) -> Tensor:
        """The lift at 1/16 of the size: (B, 1, H, W) -> (B, 1, H/16, W/16)."""
        common = F.avg_pool2d(torch.minimum(luminance, infrared), LIFT_SCALE)
        return self.lift[0] * F.relu(common - self.lift[1])
