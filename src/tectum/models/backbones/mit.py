"""MixVisionTransformer (MiT), the hierarchical encoder of SegFormer.

Written from the paper (Xie et al., NeurIPS 2021, arXiv:2105.15203, section 3.1); the sizes b0 to b5 are its table 6.
Four stages, each an overlapping patch embedding followed by Transformer blocks with spatially reduced attention and a
Mix-FFN, give features at 1/4, 1/8, 1/16 and 1/32 of the input.

Two details follow ViR-MFS rather than SegFormer's own code: GELU in its tanh approximation, and LayerNorm eps of 1e-6
in the blocks and the stage outputs (1e-5 in the patch embeddings and the spatial reduction).
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from tectum.models.layers.convolution import convolve_plane, initialise_convolution


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
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x, height, width = self.embedding(x)
        for block in self.blocks:
            x = block(x, height, width)
        return to_map(self.norm(x), (height, width))


class MixVisionTransformer(nn.Module):
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
        self.widths, depths = MIT_SIZES[size]
        rates = [drop_path * i / (sum(depths) - 1) for i in range(sum(depths))]
        stages = []
        for i, width in enumerate(self.widths):
            kernel, stride = (7, 4) if i == 0 else (3, 2)
            embedding = PatchEmbedding(self.widths[i - 1] if i else in_channels, width, kernel, stride)
            stage_rates = rates[sum(depths[:i]) : sum(depths[: i + 1])]
            blocks = [Block(width, HEADS[i], REDUCTIONS[i], rate) for rate in stage_rates]
            stages.append(Stage(embedding, blocks, width))
        self.stages = nn.ModuleList(stages)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        initialise_convolution(module)
