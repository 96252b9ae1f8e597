"""ViR-MFS folded for inference: what the network computes in eval mode, with the weights multiplied out.

What is folded, next to what the trained module already leaves out and what the backbone folds itself:

- Wavelets: the channel scales, the mix of the high-frequency bands and the 1/2 of the Haar transform and its inverse
  are in the depth-wise 5x5 convolutions, which run on the mixed feature once; the gates' batch norm is in their
  convolution. The symmetric wiring computes the gates of both orders by one convolution, and projects their sum once.
- Heads: batch norm and every bias are in the 1x1 convolution per stage; that of 1/32 contains the convolution that
  fuses the modalities there, since nothing else reads it.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.models.layers.folding import convolution, doubles, reshaped, with_norm
from tectum.models.virmfs.layers import LowFrequencyGate, MLPHead, MultiScaleWaveletFusion, WaveletLevel

# The modalities pass as one batch of 2B, visible first. `count` is B.


class DeployedWaveletFusion(nn.Module):
    """MWFM: (2B, C, H, W) -> (B, C, H, W).

    Args:
        fusion: the trained module.
        even_levels: number of wavelet levels on which height and width are certain to be even.
    """

    def __init__(self, fusion: MultiScaleWaveletFusion, even_levels: int) -> None:
        super().__init__()
        self.symmetric = fusion.symmetric
        weight, bias = doubles(fusion.base_convolution)
        scale = fusion.base_scale.weight.detach().double().flatten()
        bias = bias * scale * (2 if self.symmetric else 1)  # once for each order
        self.base = reshaped(fusion.base_convolution, weight * scale.view(-1, 1, 1, 1), bias)
        self.wavelet: DeployedWaveletLevel | None = None
        for index, level in reversed(list(enumerate(fusion.levels))):
            self.wavelet = DeployedWaveletLevel(level, self.symmetric, index, index < even_levels, self.wavelet)

    def forward(self, both: Tensor, count: int) -> Tensor:
        assert self.wavelet is not None
        base = both[:count] + both[count:] if self.symmetric else both[:count]
        return self.wavelet(both, count) + self.base(base)


class DeployedWaveletLevel(nn.Module):
    """One wavelet level and those below it: (2B, C, H, W) -> (B, C, H, W).

    The Haar transforms are left without their 1/2. That makes the input of level n 2^n times too large, its sub-bands
    2^(n+1) times, and would make its result as many times too large: the convolutions divide by both.
    """

    shares: Tensor

    def __init__(
        self, level: WaveletLevel, symmetric: bool, index: int, even: bool, below: "DeployedWaveletLevel | None"
    ) -> None:
        super().__init__()
        self.even = even
        self.below = below
        divisor = 2.0 ** (index + 1)
        weight, _ = doubles(level.convolution)
        weight = (weight * level.scale.weight.detach().double().view(-1, 1, 1, 1)).unflatten(0, (-1, 4)) / divisor
        channels = len(weight)
        self.low = convolution(weight[:, 0], padding=2, groups=channels)
        self.gate = DeployedGate(level.gate, symmetric, divisor)

        first, second = (torch.as_tensor(share, dtype=weight.dtype, device=weight.device) for share in level.mix())
        # Band by band, as the sub-bands are joined and the shares are: (3C, 1, 5, 5).
        high = weight[:, 1:].transpose(0, 1).flatten(0, 1) / divisor
        self.source = "visible"
        if symmetric:
            self.source, high = "sum", high * (first + second)[..., None]
        elif level.high_frequency == "learned":
            self.source = "mixed"
            self.register_buffer("shares", torch.stack((first, second)).detach()[:, None].float())  # (2, 1, 3C, 1, 1)
        elif level.high_frequency == "infrared":
            self.source = "infrared"
        elif level.high_frequency != "visible":
            self.source, high = "sum", high * first
        self.high = convolution(high, padding=2, groups=3 * channels)

    def forward(self, both: Tensor, count: int) -> Tensor:
        height, width = both.shape[-2:]
        top, bottom = self._neighbours(both, 2)
        low_rows = top + bottom
        left, right = self._neighbours(low_rows, 3)
        low = left + right
        fused = self.gate(self.low(low), count)
        if self.below is not None:
            fused = fused + self.below(low, count)

        left, right = self._source(left, count), self._source(right, count)
        high_left, high_right = self._neighbours(self._source(top, count) - self._source(bottom, count), 3)
        high = torch.cat((high_left + high_right, left - right, high_left - high_right), dim=1)
        if self.source == "mixed":
            high = self.shares[0] * high[:count] + self.shares[1] * high[count:]
        hl, lh, hh = self.high(high).chunk(3, dim=1)

        low_left, low_right, high_left, high_right = fused + lh, fused - lh, hl + hh, hl - hh
        corners = (low_left + high_left, low_right + high_right, low_left - high_left, low_right - high_right)
        whole = F.pixel_shuffle(torch.stack(corners, dim=2).flatten(1, 2), 2)
        if self.even:
            return whole
        # Not by slicing: the memory layout of a slice depends on whether it cuts, which an exporter would hold fixed.
        rows, columns = (torch.arange(side, device=whole.device) for side in (height, width))
        return whole.index_select(2, rows).index_select(3, columns)

    def _neighbours(self, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Every other row (dim 2) or column (dim 3) of x, from the first and from the second on.

        Where their number is odd, the last one is its own neighbour, as if it were repeated.
        """
        size = x.shape[dim]
        if not self.even:
            first = torch.arange(0, size, 2, device=x.device)
            return x.index_select(dim, first), x.index_select(dim, (first + 1).clamp(max=size - 1))
        # ":-1" has no effect but that both have size // 2 elements also in the eyes of an exporter.
        return (x[:, :, :-1:2], x[:, :, 1::2]) if dim == 2 else (x[..., :-1:2], x[..., 1::2])

    def _source(self, both: Tensor, count: int) -> Tensor:
        """What the high-frequency bands are computed from."""
        if self.source == "visible":
            return both[:count]
        if self.source == "infrared":
            return both[count:]
        return both[:count] + both[count:] if self.source == "sum" else both


class DeployedGate(nn.Module):
    """Gated sum of two LL bands, for the symmetric wiring in both orders: (2B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, gate: LowFrequencyGate, symmetric: bool, divisor: float) -> None:
        super().__init__()
        self.symmetric = symmetric
        reduction, norm, _, expansion, _ = gate.gates
        assert isinstance(reduction, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(expansion, nn.Conv2d)
        weight, bias = with_norm(*doubles(reduction), norm)
        widened, _ = doubles(expansion)
        projection, projection_bias = doubles(gate.projection)
        if symmetric:
            # The other order sees the halves exchanged, and its gates are exchanged back.
            weight, bias = torch.cat((weight, weight.roll(weight.shape[1] // 2, 1))), bias.repeat(2)
            widened = torch.cat((widened, widened.roll(len(widened) // 2, 0)))
            projection_bias = 2 * projection_bias
        self.reduction = convolution(weight, bias, padding=1)
        self.expansion = convolution(widened, groups=2 if symmetric else 1)
        self.projection = convolution(projection / divisor, projection_bias / divisor)

    def forward(self, low: Tensor, count: int) -> Tensor:
        pair = torch.cat((low[:count], low[count:]), dim=1)
        gates = torch.sigmoid(self.expansion(F.relu(self.reduction(pair))))
        if self.symmetric:
            one, other = gates.chunk(2, dim=1)
            gates = one + other
        first, second = (gates * pair).chunk(2, dim=1)
        return self.projection(first + second)


class DeployedHead(nn.Module):
    """MLP head: three fused features and both features of 1/32, joined -> (B, out_channels, H/4, W/4)."""

    def __init__(self, head: MLPHead, deepest_fusion: nn.Conv2d) -> None:
        super().__init__()
        linears = [doubles(linear) for linear in head.linears]
        # The fuse convolution sees the deepest stage first.
        blocks = doubles(head.fuse)[0].flatten(1).chunk(len(linears), dim=1)[::-1]
        weights = [block @ weight for block, (weight, _) in zip(blocks, linears, strict=True)]
        bias = sum(block @ bias for block, (_, bias) in zip(blocks, linears, strict=True))
        deepest, deepest_bias = doubles(deepest_fusion)
        bias = bias + weights[3] @ deepest_bias
        weights[3] = weights[3] @ deepest.flatten(1)
        joined, bias = with_norm(torch.cat(weights, dim=1)[:, :, None, None], bias, head.norm)
        parts = joined.split([weight.shape[1] for weight in weights], dim=1)
        # Upsampling leaves a constant as it is, so that one stage can add it for all.
        self.projections = nn.ModuleList(convolution(part, None if i else bias) for i, part in enumerate(parts))
        self.prediction = copy.deepcopy(head.prediction)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        total = self.projections[0](features[0])
        for feature, projection in zip(features[1:], self.projections[1:], strict=True):
            total += F.interpolate(projection(feature), size, mode="bilinear", align_corners=False)
        return self.prediction(F.relu(total, inplace=True))

    def strip(self, features: list[Tensor], top: int, bottom: int) -> Tensor:
        """Rows of what `forward` gives, from `top` to `bottom`, both multiples of 8."""
        total = self.projections[0](features[0][:, :, top:bottom])
        for feature, projection in zip(features[1:], self.projections[1:], strict=True):
            factor = features[0].shape[2] // feature.shape[2]
            # With the neighbours that upsampling mixes in, where there are any.
            first = max(0, top // factor - 1)
            part = projection(feature[:, :, first : bottom // factor + 1])
            size = (factor * part.shape[2], total.shape[3])
            upsampled = F.interpolate(part, size, mode="bilinear", align_corners=False)
            total += upsampled[:, :, top - factor * first :][:, :, : bottom - top]
        return self.prediction(F.relu(total, inplace=True))
