"""MixVisionTransformer (MiT), the hierarchical encoder of SegFormer, and its folded form.

Written from the paper (Xie et al., NeurIPS 2021, arXiv:2105.15203, section 3.1); the sizes b0 to b5 are its table 6.
Four stages, each an overlapping patch embedding followed by Transformer blocks with spatially reduced attention and a
Mix-FFN, give features at 1/4, 1/8, 1/16 and 1/32 of the input.

Two details follow ViR-MFS rather than SegFormer's own code: GELU in its tanh approximation, and LayerNorm eps of 1e-6
in the blocks and the stage outputs (1e-5 in the patch embeddings and the spatial reduction).

What is folded for inference: the 1/√d of the scores is in the query's weights. A constant added to every key cancels
in the softmax, so keys have no bias; the rows of the attention sum to one, so the value's bias is in the projection's.
With one head the projection is in the values' weights, which there are far fewer of than queries. Without spatial
reduction, queries, keys and values are one product.
"""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from tectum.models.backbones.base import Encoder, FoldedEncoder
from tectum.models.layers.convolution import convolve_plane, initialise_convolution
from tectum.models.layers.folding import doubles, for_scaled, linear, pointwise
from tectum.models.layers.modules import Modules


class MiTSize(NamedTuple):
    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


MIT_SIZES = {
    "b0": MiTSize((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": MiTSize((64, 128, 320, 512), (2, 2, 2, 2)),
    "b2": MiTSize((64, 128, 320, 512), (3, 4, 6, 3)),
    "b3": MiTSize((64, 128, 320, 512), (3, 4, 18, 3)),
    "b4": MiTSize((64, 128, 320, 512), (3, 8, 27, 3)),
    "b5": MiTSize((64, 128, 320, 512), (3, 6, 40, 3)),
}
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
EXPANSION = 4


def to_map(tokens: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W), a view whose memory stays channels-last; of `size` (H, W), H may be -1."""
    return tokens.transpose(1, 2).unflatten(2, size)


def to_tokens(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C)."""
    return features.flatten(2).transpose(1, 2)


class PatchEmbedding(nn.Module):
    """Overlapping patch embedding: a strided convolution, then LayerNorm."""

    def __init__(self, in_channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        """(B, C, H, W) -> tokens (B, h*w, width), h, w. One channel where more are expected counts as repeated."""
        x = convolve_plane(self.projection, x)
        height, width = x.shape[-2:]
        return self.norm(to_tokens(x)), height, width


class Attention(nn.Module):
    """Multi-head self-attention whose keys and values come from a map reduced `reduction` times in each direction."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.projection = nn.Linear(width, width)
        self.reduction = nn.Conv2d(width, width, reduction, reduction) if reduction > 1 else None
        self.reduction_norm = nn.LayerNorm(width) if reduction > 1 else None

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, C/heads)
        if self.reduction is not None and self.reduction_norm is not None:
            source = self.reduction_norm(to_tokens(self.reduction(to_map(x, (height, width)))))
        else:
            source = x
        key, value = self.key_value(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.projection(attended.transpose(1, 2).flatten(2))


class MixFFN(nn.Module):
    """Feed-forward network with a 3x3 depth-wise convolution, which gives position (paper, equation 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.expand = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.activation = nn.GELU(approximate="tanh")
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = self.depthwise(to_map(self.expand(x), (height, width)))
        return self.contract(self.activation(to_tokens(x)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.ffn = MixFFN(width)
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x), height, width))
        return x + self.drop_path(self.ffn(self.norm2(x), height, width))


class Stage(nn.Module):
    def __init__(self, embedding: PatchEmbedding, blocks: list[Block], width: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks = Modules(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x, height, width = self.embedding(x)
        for block in self.blocks:
            x = block(x, height, width)
        return to_map(self.norm(x), (height, width))


class MixVisionTransformer(Encoder):
    """MiT encoder.

    Args:
        size: a key of `MIT_SIZES`, "b0" to "b5".
        in_channels: channels of the input.
        drop_path: stochastic depth rate of the last block; earlier blocks get proportionally less.

    Shape:
        (B, in_channels, H, W), or (B, 1, H, W) standing for a plane repeated `in_channels` times, with H and W
        multiples of 32 -> four maps (B, widths[i], H/s, W/s), s = 4, 8, 16, 32.
    """

    def __init__(self, size: str, in_channels: int = 3, drop_path: float = 0.0) -> None:
        super().__init__()
        self.name = size
        self.widths, depths = MIT_SIZES[size]
        self.head_width = 256 if size in ("b0", "b1") else 768
        rates = [drop_path * i / (sum(depths) - 1) for i in range(sum(depths))]
        stages = []
        for i, width in enumerate(self.widths):
            kernel, stride = (7, 4) if i == 0 else (3, 2)
            embedding = PatchEmbedding(self.widths[i - 1] if i else in_channels, width, kernel, stride)
            stage_rates = rates[sum(depths[:i]) : sum(depths[: i + 1])]
            blocks = [Block(width, HEADS[i], REDUCTIONS[i], rate) for rate in stage_rates]
            stages.append(Stage(embedding, blocks, width))
        self.stages = Modules(stages)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def fold(self, input_scale: float, plane: bool) -> FoldedEncoder:
        return DeployedMiT(self, input_scale, plane)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        initialise_convolution(module)


class DeployedMiT(FoldedEncoder):
    """MiT encoder of planes (B, 1, H, W), or of colours (B, 3, H, W) -> four maps (B, C_i, H/s, W/s), s = 4 to 32."""

    def __init__(self, backbone: MixVisionTransformer, input_scale: float, plane: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for index, stage in enumerate(backbone.stages):
            made = DeployedStage(stage)
            if index == 0:
                made.projection = for_scaled(stage.embedding.projection, input_scale, plane)
            self.stages.append(made)

    def forward(self, x: Tensor, rows: int | None = None) -> list[Tensor]:
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
        self.blocks = nn.ModuleList(DeployedBlock(block) for block in stage.blocks)
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
