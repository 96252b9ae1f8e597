"""The learned parts of ViR-MFS: fusion of features in the Haar domain, and the heads."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.models.layers.haar import haar_dwt, haar_idwt, haar_ll
from tectum.models.layers.modules import Modules

Wiring = Literal["asymmetric", "symmetric"]
HighFrequency = Literal["visible", "infrared", "mean", "sum", "learned"]

# Weights of (first, second) argument in the high-frequency bands.
_HIGH_FREQUENCY_MIX = {"visible": (1.0, 0.0), "infrared": (0.0, 1.0), "mean": (0.5, 0.5), "sum": (1.0, 1.0)}


class ChannelScale(nn.Module):
    """One learned factor per channel of a depth-wise convolution's result, multiplied into its weights (C, 1, k, k)."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, channels, 1, 1), initial))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.weight.transpose(0, 1)


class LowFrequencyGate(nn.Module):
    """Fuses two LL bands: LL = W(g_x LL_x + g_y LL_y), with gates in (0, 1) computed from both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // max(4, channels // 8)
        self.gates = nn.Sequential(
            nn.Conv2d(2 * channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, 2 * channels, 1, bias=False),
            nn.Sigmoid(),
        )
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        gate_first, gate_second = self.gates(torch.cat((first, second), dim=1)).chunk(2, dim=1)
        return self.projection(gate_first * first + gate_second * second)


class WaveletLevel(nn.Module):
    """The learned part of one wavelet level: depth-wise 5x5 convolutions of the sub-bands, and the LL gate."""

    def __init__(self, channels: int, high_frequency: HighFrequency) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4 * channels, 4 * channels, 5, padding=2, groups=4 * channels, bias=False)
        self.scale = ChannelScale(4 * channels, 0.1)
        self.gate = LowFrequencyGate(channels)
        self.high_frequency = high_frequency
        if high_frequency == "learned":
            # Softmax over the two sources per channel and band, starting (logits +-4) at almost only the first one.
            self.mix_logits = nn.Parameter(torch.tensor([4.0, -4.0]).view(2, 1, 1, 1, 1).repeat(1, channels, 3, 1, 1))

    def bands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Filtered sub-bands: (B, C, H, W) -> LL (B, C, H/2, W/2) and HL, LH, HH, joined, (B, 3C, H/2, W/2)."""
        bands = haar_dwt(x).transpose(1, 2).flatten(1, 2)
        weight = self._weight().transpose(0, 1).flatten(0, 1)
        channels = x.shape[1]
        low, high = F.conv2d(bands, weight, padding=2, groups=len(weight)).split((channels, 3 * channels), dim=1)
        return low, high

    def low_band(self, x: Tensor) -> Tensor:
        """The LL band of `bands` alone: (B, C, H, W) -> (B, C, H/2, W/2)."""
        return F.conv2d(haar_ll(x), self._weight()[:, 0], padding=2, groups=x.shape[1])

    def _weight(self) -> Tensor:
        """Weights of the convolutions with their scales, (C, 4, 1, 5, 5)."""
        return self.scale(self.convolution.weight).unflatten(0, (-1, 4))

    def mix(self) -> tuple[Tensor | float, Tensor | float]:
        """Weights of the first and the second argument in the high-frequency bands."""
        if self.high_frequency == "learned":
            first, second = self.mix_logits.softmax(dim=0).transpose(1, 2).flatten(1, 2)  # (2, 3C, 1, 1)
            return first, second
        return _HIGH_FREQUENCY_MIX[self.high_frequency]


class MultiScaleWaveletFusion(nn.Module):
    """MWFM, f(x, y): fuses two features in the Haar domain.

    The LL bands are fused by gates, the high-frequency bands come from `high_frequency`, and a depth-wise 5x5
    convolution of x is added to the inverse transform. The asymmetric wiring returns f(visible, infrared), the
    symmetric one f(visible, infrared) + f(infrared, visible) with shared weights; its linear parts are computed once.

    Args:
        channels: channels C of both features.
        wiring: "asymmetric" or "symmetric".
        levels: wavelet levels; level n + 1 transforms the unfiltered LL band of level n, and its fused result is added
            to the fused LL band of level n.
        high_frequency: where the high-frequency bands of f(x, y) come from: "visible" (x, the published form),
            "infrared" (y), their "mean", their "sum", or "learned" per channel and band.

    Shape:
        visible, infrared (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, wiring: Wiring, levels: int, high_frequency: HighFrequency) -> None:
        super().__init__()
        self.symmetric = wiring == "symmetric"
        self.levels = Modules(WaveletLevel(channels, high_frequency) for _ in range(levels))
        self.base_convolution = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.base_scale = ChannelScale(channels, 1.0)

    def forward(self, visible: Tensor, infrared: Tensor) -> Tensor:
        convolution = self.base_convolution
        assert convolution.bias is not None
        weight = self.base_scale(convolution.weight)
        bias = convolution.bias * self.base_scale.weight.flatten()
        if self.symmetric:
            # conv(v) + conv(i) = conv(v + i) + bias
            base = F.conv2d(visible + infrared, weight, 2 * bias, padding=2, groups=len(weight))
        else:
            base = F.conv2d(visible, weight, bias, padding=2, groups=len(weight))
        return self._wavelet(visible, infrared, 0) + base

    def _wavelet(self, visible: Tensor, infrared: Tensor, index: int) -> Tensor:
        """Fused feature of level `index` and the levels below it, at the size of its arguments."""
        height, width = visible.shape[-2:]
        if height % 2 or width % 2:
            padding = (0, width % 2, 0, height % 2)
            visible, infrared = (F.pad(x, padding, mode="replicate") for x in (visible, infrared))
        level = self.levels[index]
        first, second = level.mix()
        if self.symmetric:
            (low_v, high_v), (low_i, high_i) = level.bands(visible), level.bands(infrared)
            low = level.gate(low_v, low_i) + level.gate(low_i, low_v)
            high = (first + second) * (high_v + high_i)
        elif level.high_frequency == "visible":
            low_v, high = level.bands(visible)
            low = level.gate(low_v, level.low_band(infrared))
        else:
            (low_v, high_v), (low_i, high_i) = level.bands(visible), level.bands(infrared)
            low = level.gate(low_v, low_i)
            high = first * high_v + second * high_i
        if index + 1 < len(self.levels):
            low = low + self._wavelet(haar_ll(visible), haar_ll(infrared), index + 1)
        bands = torch.cat((low, high), dim=1).unflatten(1, (4, -1)).transpose(1, 2)
        return haar_idwt(bands)[..., :height, :width]


class MLPHead(nn.Module):
    """SegFormer's all-MLP head: a linear layer per stage, upsampling to 1/4, 1x1 fusing, BN, ReLU, prediction.

    The linear layers and the fuse convolution have nothing but bilinear upsampling between them, which commutes with
    both: the head multiplies their matrices and applies one 1x1 convolution per stage at that stage's own size.

    Shape:
        four features (B, C_i, H/s, W/s), s = 4, 8, 16, 32 -> (B, out_channels, H/4, W/4).
    """

    def __init__(self, widths: tuple[int, ...], hidden: int, out_channels: int) -> None:
        super().__init__()
        self.linears = Modules(nn.Linear(width, hidden) for width in widths)
        self.fuse = nn.Conv2d(len(widths) * hidden, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden, eps=1e-3, momentum=0.03)
        self.dropout = nn.Dropout2d(0.1)
        self.prediction = nn.Conv2d(hidden, out_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        # The fuse convolution sees the deepest stage first.
        blocks = self.fuse.weight.flatten(1).chunk(len(features), dim=1)[::-1]  # (hidden, hidden) each
        linears = list(self.linears)
        weights = [(block @ linear.weight)[:, :, None, None] for block, linear in zip(blocks, linears, strict=True)]
        # Upsampling leaves a constant as it is: the smallest map carries every bias.
        bias = torch.stack([block @ linear.bias for block, linear in zip(blocks, linears, strict=True)]).sum(dim=0)
        total = F.conv2d(features[0], weights[0])
        for feature, weight in zip(features[1:], weights[1:], strict=True):
            x = F.conv2d(feature, weight, bias if weight is weights[-1] else None)
            total += F.interpolate(x, total.shape[-2:], mode="bilinear", align_corners=False)
        return self.prediction(self.dropout(F.relu(self.norm(total), inplace=True)))
