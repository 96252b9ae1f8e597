"""MAFS from fused features to labels: pixel decoder, Transformer decoder, head, and the six auxiliary outputs.

The pixel decoder is MaskFormer's, the Transformer decoder comes from InvPT and Restormer, the head from PSFusion, and
the refinement with auxiliary heads from CAINet.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.models.layers.modules import Modules
from tectum.models.mafs.layers import FUSION_WIDTH, SEMANTIC_WIDTH, conv_block, resize

# Where the auxiliary outputs come from, as fractions of the input's size, in the order of their computation.
AUXILIARY_SCALES = (16, 8, 4)


class PixelDecoder(nn.Module):
    """MaskFormer's feature pyramid: from coarse to fine, each scale is added to the upsampled one before it.

    Shape:
        four features (B, 64, H/s, W/s), s = 4, 8, 16, 32 -> as many, in the order s = 32, 16, 8, 4.
    """

    def __init__(self) -> None:
        super().__init__()
        width = SEMANTIC_WIDTH
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.GroupNorm(32, width)) for _ in range(3)
        )
        self.outputs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(32, width), nn.ReLU())
            for _ in range(4)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        x = self.outputs[0](features[3])
        pyramid = [x]
        for feature, lateral, output in zip(features[2::-1], self.laterals, self.outputs[1:], strict=True):
            x = output(lateral(feature) + F.interpolate(x, feature.shape[-2:], mode="nearest"))
            pyramid.append(x)
        return pyramid


class AtrousPyramid(nn.Module):
    """ASPP: a 1x1 and four 3x3 convolutions of dilation 1 to 4, joined, added to the input, convolved; size kept."""

    def __init__(self) -> None:
        super().__init__()
        width = SEMANTIC_WIDTH
        self.pointwise = nn.Conv2d(width, width, 1)
        self.dilated = Modules(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation) for dilation in (1, 2, 3, 4)
        )
        self.join = nn.Conv2d(5 * width, width, 1)
        self.output = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.pointwise(x), *(convolution(x) for convolution in self.dilated)]
        return self.output(self.join(torch.cat(branches, dim=1)) + x)


class DilatedContext(nn.Module):
    """3x3 convolutions of several dilations side by side, joined by a 1x1 one; ReLU6 throughout."""

    def __init__(self, in_channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        width = SEMANTIC_WIDTH
        self.dilated = nn.ModuleList(conv_block(in_channels, width, 3, nn.ReLU6, dilation) for dilation in dilations)
        self.join = conv_block(len(dilations) * width, width, 1, nn.ReLU6)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([convolution(x) for convolution in self.dilated], dim=1))


class AuxiliaryRefinement(nn.Module):
    """ARM of CAINet, with an auxiliary head on each of its two outputs.

    l is the dilated context of (low, previous, high), h a projection of high; the outputs are l·h, which the two-class
    head sees, and l·h + h, which the semantic head sees.

    Shape:
        low (B, 64, H, W), previous and high (B, 64, h, w) -> two features (B, 64, H, W).
    """

    def __init__(self, classes: int, scale: int) -> None:
        super().__init__()
        width = SEMANTIC_WIDTH
        self.context = DilatedContext(3 * width, (1, 2, 4))
        self.projection = conv_block(width, width, 1, nn.ReLU6)
        self.two_class_head = AuxiliaryHead(2, scale)
        self.semantic_head = AuxiliaryHead(classes, scale)

    def forward(self, low: Tensor, previous: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        previous, high = (resize(x, low.shape[-2:], align_corners=True) for x in (previous, high))
        context = self.context(torch.cat((low, previous, high), dim=1))
        high = self.projection(high)
        product = context * high
        return product, product + high


class AuxiliaryHead(nn.Module):
    """Prediction from one scale: (B, 64, H/scale, W/scale) -> (B, channels, H, W), where `size` is (H, W)."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        # Bilinear upsampling in two steps is not the same as in one; the first is by this factor.
        self.factor = min(4, scale // 2)
        self.convolution = conv_block(SEMANTIC_WIDTH, SEMANTIC_WIDTH, 3, nn.ReLU6)
        self.prediction = nn.Conv2d(SEMANTIC_WIDTH, channels, 1)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        # The 1x1 prediction commutes with upsampling, and costs least at the smallest size.
        x = self.prediction(self.convolution(x))
        between = (x.shape[-2] * self.factor, x.shape[-1] * self.factor)
        return resize(resize(x, between, align_corners=True), size, align_corners=True)


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class TransposedAttention(nn.Module):
    """Restormer's multi-head attention between channels: a (C/heads) x (C/heads) matrix, linear in the pixels.

    Shape:
        (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.depthwise = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.projection = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        joined = self.depthwise(self.query_key_value(x))
        query, key, value = joined.flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)  # (B, heads, C/heads, H*W)
        scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
        attended = (scores * self.temperature).softmax(dim=-1) @ value
        return self.projection(attended.flatten(1, 2).view_as(x))


class TransformerBlock(nn.Module):
    """Transposed attention, then a locally enhanced feed-forward network (LeFF); (B, 64, H, W) kept."""

    def __init__(self) -> None:
        super().__init__()
        width = SEMANTIC_WIDTH
        self.norm1 = ChannelLayerNorm(width)
        self.attention = TransposedAttention(width, heads=2)
        self.norm2 = ChannelLayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Conv2d(width, width, 1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.GELU(),
            nn.Conv2d(width, width, 1),
            nn.GELU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        # The published feed-forward network adds its own input, and the block adds another residual.
        return x + (self.ffn(y) + y)


class TransformerDecoder(nn.Module):
    """InvPT's decoder in three stages: each doubles the size, adds a scale of the pyramid and attends; then all join.

    Shape:
        coarse (B, 64, H/16, W/16), middle (B, 64, H/8, W/8), fine (B, 64, H/4, W/4) -> (B, 64, H/2, W/2).
    """

    def __init__(self) -> None:
        super().__init__()
        width = SEMANTIC_WIDTH
        self.upsampling = nn.ModuleList(
            nn.Sequential(
                conv_block(width, width, 3, nn.ReLU, dilation=2),
                conv_block(width, width, 3, nn.ReLU, dilation=2),
            )
            for _ in range(2)
        )
        self.blocks = nn.ModuleList(TransformerBlock() for _ in range(3))
        self.norms = nn.ModuleList(ChannelLayerNorm(width) for _ in range(3))
        self.projection = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, coarse: Tensor, middle: Tensor, fine: Tensor, size: torch.Size) -> Tensor:
        # Unlike InvPT, each stage passes its normalised feature on.
        x = self.norms[0](self.blocks[0](coarse))
        total = resize(x, size, align_corners=False)
        for index, skip in enumerate((middle, fine)):
            x = self.upsampling[index](resize(x, skip.shape[-2:], align_corners=False)) + skip
            x = self.norms[index + 1](self.blocks[index + 1](x))
            total = total + resize(x, size, align_corners=False)
        return self.projection(total)


class SegmentationHead(nn.Module):
    """PSFusion's semantic head: scores from features gated by their own foreground probability.

    Shape:
        (B, 64, H/2, W/2) -> (B, classes, H, W).
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        width = SEMANTIC_WIDTH
        self.foreground = nn.Sequential(
            conv_block(width, width // 4, 1, nn.ReLU6), nn.Conv2d(width // 4, 2, 3, padding=1)
        )
        self.semantic = nn.Sequential(conv_block(width, width, 1, nn.ReLU6), nn.Conv2d(width, classes, 3, padding=1))

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        foreground = self.foreground(x).softmax(dim=1)[:, 1:]
        return resize(self.semantic(x * foreground), size, align_corners=True)


class SegmentationDecoder(nn.Module):
    """Multi-stage Transformer decoder of the fused features, with six auxiliary outputs.

    Shape:
        four features (B, 64, H/s, W/s), s = 4, 8, 16, 32, and the detail feature (B, 32, H/2, W/2) -> logits
        (B, K, H, W) and, if asked for, auxiliary logits of that size: `semantic_s` (K channels) and `two_class_s`
        (2 channels) from the scales s = 16, 8, 4.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        width = SEMANTIC_WIDTH
        self.pixel_decoder = PixelDecoder()
        self.atrous_pyramid = AtrousPyramid()
        self.transformer = TransformerDecoder()
        self.preliminary = nn.Sequential(conv_block(width, width, 3, nn.ReLU), conv_block(width, width, 3, nn.ReLU))
        self.detail_context = DilatedContext(width + FUSION_WIDTH, (1, 2, 4, 8))
        self.head = SegmentationHead(classes)
        self.refinements = Modules(AuxiliaryRefinement(classes, scale) for scale in AUXILIARY_SCALES)

    def forward(
        self, features: list[Tensor], detail: Tensor, size: torch.Size, auxiliary: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        pyramid = self.pixel_decoder(features)
        aux = self._auxiliary(features, pyramid[0], size) if auxiliary else {}
        middle, fine = (self.atrous_pyramid(scale) for scale in pyramid[2:])
        x = self.preliminary(self.transformer(features[2], middle, fine, detail.shape[-2:]))
        x = self.detail_context(torch.cat((detail, x), dim=1))
        return self.head(x, size), aux

    def _auxiliary(self, features: list[Tensor], coarsest: Tensor, size: torch.Size) -> dict[str, Tensor]:
        aux = {}
        previous, high = features[3], coarsest
        for scale, low, refinement in zip(AUXILIARY_SCALES, features[2::-1], self.refinements, strict=True):
            previous, high = refinement(low, previous, high)
            aux[f"two_class_{scale}"] = refinement.two_class_head(previous, size)
            aux[f"semantic_{scale}"] = refinement.semantic_head(high, size)
        return aux
