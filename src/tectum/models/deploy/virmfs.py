"""ViR-MFS for inference: what `tectum.models.virmfs` computes in eval mode, with the weights multiplied out.

What is folded, next to what the trained module already leaves out:

- Attention: the 1/√d of the scores is in the query's weights. A constant added to every key cancels in the softmax, so
  keys have no bias; the rows of the attention sum to one, so the value's bias is in the projection's. With one head the
  projection is in the values' weights, which there are far fewer of than queries. Without spatial reduction, queries,
  keys and values are one product.
- Wavelets: the channel scales, the mix of the high-frequency bands and the 1/2 of the Haar transform and its inverse
  are in the depth-wise 5x5 convolutions, which run on the mixed feature once; the gates' batch norm is in their
  convolution. The symmetric wiring computes the gates of both orders by one convolution, and projects their sum once.
- Heads: batch norm and every bias are in the 1x1 convolution per stage; that of 1/32 contains the convolution that
  fuses the modalities there, since nothing else reads it.

Large images: `DeployedViRMFS.bands` computes the same without the arrays that make a run large, the hidden features of
the Mix-FFNs and of the heads and the logits at full size. It works on strips of rows with whatever of the whole image
they depend on: all keys and values of attention, and one row of neighbours in convolutions and upsampling.
"""

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.models.backbones.lite import EfficientNetLite0
from tectum.models.backbones.mit import Attention, Block, MixVisionTransformer, Stage, to_map, to_tokens
from tectum.models.base import luminance
from tectum.models.deploy.base import Deployed
from tectum.models.deploy.folding import convolution, doubles, for_scaled, linear, pointwise, reshaped, with_norm
from tectum.models.deploy.lite import DeployedLite0
from tectum.models.layers.selection import REACH
from tectum.models.virmfs import LowFrequencyGate, MLPHead, MultiScaleWaveletFusion, ViRMFS, WaveletLevel

# The modalities pass as one batch of 2B, visible first. `count` is B.


class DeployedViRMFS(Deployed):
    """The folded form of a `ViRMFS`; see `Deployed`."""

    def __init__(self, model: ViRMFS) -> None:
        super().__init__(model)
        self.input_mean, self.colour = model.input_mean, model.colour
        self.backbone: DeployedBackbone | DeployedLite0
        if isinstance(model.backbone, EfficientNetLite0):
            self.backbone = DeployedLite0(model.backbone, model.input_scale, model.colour)
        else:
            self.backbone = DeployedBackbone(model.backbone, model.input_scale, model.colour)
        # The features of the stages have a height and width that are multiples of 8, 4 and 2.
        self.fusions = nn.ModuleList(
            DeployedWaveletFusion(module, even_levels)
            for module, even_levels in zip(model.fusions, (3, 2, 1), strict=True)
            if isinstance(module, MultiScaleWaveletFusion)
        )
        self.segmentation_head = DeployedHead(model.segmentation_head, model.deepest_fusion)
        self.fusion_head = DeployedHead(model.fusion_head, model.deepest_fusion)
        self.selection = copy.deepcopy(model.selection)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        size = visible.shape[-2:]
        grey = luminance(visible)
        features = self._features(visible if self.colour else grey, infrared)
        weights, logits = (
            F.interpolate(head(features), size, mode="bilinear", align_corners=True)
            for head in (self.fusion_head, self.segmentation_head)
        )
        fused = _weighted(weights, grey, infrared)
        return fused if self.selection is None else self.selection(fused, grey, infrared), logits

    @torch.inference_mode()
    def bands(self, visible: Tensor, infrared: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What `forward` gives, up to rounding, in bands from top to bottom, and in a fraction of its memory.

        Args:
            visible, infrared: as in `forward`.
            rows: height of a band, and of what is worked on at a time before, in pixels; a multiple of `stride`.

        Yields:
            fused (B, 1, h, W) and logits (B, K, h, W), where h is `rows`, or what is left for the last band.
        """
        size = visible.shape[-2:]
        grey = luminance(visible)
        weights, logits = self._predictions(visible if self.colour else grey, infrared, rows)
        lift = None if self.selection is None else self.selection.lift_map(grey, infrared)
        for top in range(0, size[0], rows):
            band = torch.arange(top, min(top + rows, size[0]), device=grey.device)
            yield self._fused_rows(weights, lift, grey, infrared, band), _upsampled(logits, size, band)

    def _fused_rows(self, weights: Tensor, lift: Tensor | None, grey: Tensor, infrared: Tensor, rows: Tensor) -> Tensor:
        """Rows (h) of the fused image (B, 1, h, W) from all the weights (B, 2, H/4, W/4) and the selection's lift."""
        size = grey.shape[-2:]

        def weighted(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            sources = [plane.index_select(2, rows) for plane in (grey, infrared)]
            return _weighted(_upsampled(weights, size, rows), *sources), sources[0], sources[1]

        if self.selection is None or lift is None:
            return weighted(rows)[0]
        first, last = int(rows[0]) - REACH, int(rows[-1]) + REACH
        planes = weighted(torch.arange(first, last + 1, device=rows.device).clamp(0, size[0] - 1))
        padded = F.pad(torch.cat(planes, dim=1), (REACH, REACH, 0, 0), mode="replicate")
        chosen = self.selection.select(padded, *(plane[:, :, REACH:-REACH] for plane in planes[1:]))
        return chosen + _upsampled(lift, size, rows)

    def _features(self, visible: Tensor, infrared: Tensor, rows: int | None = None) -> list[Tensor]:
        """What the heads see; with `rows`, so many rows of the images are worked on at a time.

        Args:
            visible: (B, 3, H, W) in colour, otherwise the luminance (B, 1, H, W).
            infrared: (B, 1, H, W).
            rows: as in `bands`.
        """
        count, images = visible.shape[0], torch.cat((visible, infrared.expand_as(visible)))
        # Not folded: zero padding follows the centring.
        both = self.backbone(images - self.input_mean if self.input_mean else images, rows)
        features = [fusion(feature, count) for fusion, feature in zip(self.fusions, both, strict=False)]
        return [*features, torch.cat((both[3][:count], both[3][count:]), dim=1)]

    def _predictions(self, visible: Tensor, infrared: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Both heads' results (B, 2, H/4, W/4) and (B, K, H/4, W/4), in strips of rows."""
        features = self._features(visible, infrared, rows)
        height, strip = features[0].shape[2], rows // 4
        weights, logits = (
            torch.cat([head.strip(features, top, min(top + strip, height)) for top in range(0, height, strip)], dim=2)
            for head in (self.fusion_head, self.segmentation_head)
        )
        return weights, logits


class DeployedBackbone(nn.Module):
    """MiT encoder of planes (B, 1, H, W), or of colours (B, 3, H, W) -> four maps (B, C_i, H/s, W/s), s = 4 to 32."""

    def __init__(self, backbone: MixVisionTransformer, input_scale: float, colour: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for index, stage in enumerate(backbone.stages):
            assert isinstance(stage, Stage)
            made = DeployedStage(stage)
            if index == 0:
                made.projection = for_scaled(stage.embedding.projection, input_scale, plane=not colour)
            self.stages.append(made)

    def forward(self, x: Tensor, rows: int | None = None) -> list[Tensor]:
        """The features; with `rows`, so many rows of the image are worked on at a time."""
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x, rows and rows >> (index + 2))
            features.append(x)
        return features


class DeployedStage(nn.Module):
    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.projection = copy.deepcopy(stage.embedding.projection)
        self.embedding_norm = copy.deepcopy(stage.embedding.norm)
        self.blocks = nn.ModuleList(DeployedBlock(block) for block in stage.blocks if isinstance(block, Block))
        self.norm = copy.deepcopy(stage.norm)

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """The stage's feature; with `rows`, the blocks work on so many rows of it at a time."""
        x = self.projection(x)
        size = x.shape[-2:]
        x = self.embedding_norm(to_tokens(x))
        for block in self.blocks:
            x = block(x, size, rows)
        return to_map(self.norm(x), size)


class DeployedBlock(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1 = copy.deepcopy(block.norm1)
        self.attention = DeployedAttention(block.attention)
        self.norm2 = copy.deepcopy(block.norm2)
        ffn = block.ffn
        # The linear layers as 1x1 convolutions: the feature four times as wide is never transposed.
        self.ffn = nn.Sequential(
            pointwise(*doubles(ffn.expand)),
            copy.deepcopy(ffn.depthwise),
            nn.GELU(approximate="tanh"),
            pointwise(*doubles(ffn.contract)),
        )

    def forward(self, x: Tensor, size: torch.Size, rows: int | None = None) -> Tensor:
        """(B, N, C) -> the same; with `rows`, where attention is reduced, so many rows at a time, written over x."""
        if rows is not None and self.attention.reduction is not None:
            return self._in_strips(x, size[1], rows)
        x = x + self.attention(self.norm1(x), size)
        return x + to_tokens(self.ffn(to_map(self.norm2(x), size)))

    def _in_strips(self, x: Tensor, width: int, rows: int) -> Tensor:
        strips, nothing = x.split(rows * width, dim=1), x[:, :0]
        size = (-1, width)
        sources = [self.attention.reduced(self.norm1(strip), size) for strip in strips]
        key, value = self.attention.keys_and_values(torch.cat(sources, dim=1))
        for strip in strips:
            strip += self.attention.attend(self.attention.queries(self.norm1(strip)), key, value)

        # The depth-wise 3x3 convolution sees the row below and the one above, which is overwritten by then.
        above = nothing
        for strip, below in zip(strips, (*strips[1:], nothing), strict=True):
            source = torch.cat((above, strip, below[:, :width]), dim=1)
            change = to_tokens(self.ffn(to_map(self.norm2(source), size)))
            start = above.shape[1]
            above = strip[:, -width:].clone()
            strip += change[:, start : start + strip.shape[1]]
        return x


class DeployedAttention(nn.Module):
    """Multi-head self-attention on a reduced map: (B, N, C) -> the same."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        query, query_bias = doubles(attention.query)
        key, value = doubles(attention.key_value)[0].chunk(2)
        value_bias = doubles(attention.key_value)[1].chunk(2)[1]
        projection, bias = doubles(attention.projection)
        scale = (len(query) // self.heads) ** -0.5
        query, query_bias = query * scale, query_bias * scale
        bias = bias + projection @ value_bias
        zeros = torch.zeros_like(bias)
        self.projection: nn.Linear | None = None
        if self.heads == 1:
            value, value_bias = projection @ value, bias
        else:
            self.projection, value_bias = linear(projection, bias), zeros
        self.reduction = copy.deepcopy(attention.reduction)
        self.reduction_norm = copy.deepcopy(attention.reduction_norm)
        if self.reduction is None:
            self.joint = linear(torch.cat((query, key, value)), torch.cat((query_bias, zeros, value_bias)))
        else:
            self.query = linear(query, query_bias)
            self.key_value = linear(
                torch.cat((key, value)), torch.cat((zeros, value_bias)) if self.heads == 1 else None
            )

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        if self.reduction is None:
            return self.attend(*self._heads(self.joint(x), 3))
        source = self.reduced(x, size)
        return self.attend(self.queries(x), *self.keys_and_values(source))

    def reduced(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        """What keys and values are computed from: (B, N, C) -> (B, M, C)."""
        assert self.reduction is not None
        assert self.reduction_norm is not None
        return self.reduction_norm(to_tokens(self.reduction(to_map(x, size))))

    def queries(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads)."""
        return self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)

    def keys_and_values(self, source: Tensor) -> tuple[Tensor, ...]:
        """(B, M, C) -> (B, heads, M, C / heads), twice."""
        return self._heads(self.key_value(source), 2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, heads, N, C / heads) and (B, heads, M, C / heads) twice -> (B, N, C)."""
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(1, 2).flatten(2)
        return attended if self.projection is None else self.projection(attended)

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, N, parts * C) -> (B, heads, N, C / heads), `parts` times."""
        return x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()


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
        levels = [level for level in fusion.levels if isinstance(level, WaveletLevel)]
        self.wavelet: DeployedWaveletLevel | None = None
        for index, level in reversed(list(enumerate(levels))):
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
        linears = [doubles(module) for module in head.linears if isinstance(module, nn.Linear)]
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


def _weighted(weights: Tensor, grey: Tensor, infrared: Tensor) -> Tensor:
    return weights[:, :1] * grey + weights[:, 1:] * infrared


def _upsampled(x: Tensor, size: tuple[int, ...], rows: Tensor) -> Tensor:
    """Rows of x upsampled to `size`, bilinear with aligned corners: (B, C, h, w) -> (B, C, len(rows), size[1])."""
    last = x.shape[2] - 1
    # In the precision that `F.interpolate` has, so that both round alike.
    dtype = torch.promote_types(x.dtype, torch.float32)
    position = rows.to(dtype) * (last / (size[0] - 1))
    above = position.long()
    share = (position - above).to(x.dtype)[:, None]
    lines = torch.lerp(x.index_select(2, above), x.index_select(2, (above + 1).clamp(max=last)), share)
    return F.interpolate(lines, (len(position), size[1]), mode="bilinear", align_corners=True)
