"""MAFS: masked-autoencoder pretraining, then fusion and segmentation in one network with two ResNet encoders.

Paper: "MAFS: Masked Autoencoder for Infrared-Visible Image Fusion and Semantic Segmentation", IEEE Transactions on
Image Processing 2025 (arXiv:2509.11817). Written from the published description and the behaviour of the released
network; no code of the release is used. Its blocks come from PSFusion (stem, adaptive and heterogeneous fusion, dense
refinement, segmentation head), EAEFNet (dynamic extraction), LASNet (cross-modal attention), CDDFuse and Glow
(invertible fusion decoder), MaskFormer (pixel decoder), CAINet (refinement with auxiliary heads), InvPT and Restormer
(Transformer decoder).

    visible ── ResNet ─┐  ┌─ full, 1/2: adaptive fusion ─ heterogeneous fusion ─ refinement ─ invertible decoder → fused
              exchange ├──┤        (semantics of 1/4) ────────┘    │ detail at 1/2
    infrared ─ ResNet ─┘  └─ 1/4 .. 1/32: cross-modal attention ── segmentation decoder → logits, six auxiliary outputs

What differs from the release, without a change of the function it computes on the sizes that it supports: branches that
no output depends on are left out; features are resized to the size of the feature they meet, where the release tests
for three image sizes; the foreground gate is a softmax. What is added: any number of classes, size and batch, smaller
ResNets, inference without the auxiliary heads, and the gate of the feature exchange as it was meant (`gate="paired"`,
the default); the gate that the release computes, which its weights need, is `gate="first"`.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.errors import ConfigError, InputError
from tectum.models.backbones.resnet import RESNET_WIDTHS, STEM_WIDTHS, ResNetStages
from tectum.models.base import FusionSegmenter, Output, Role, luminance
from tectum.models.layers.invertible import InvertibleBlock
from tectum.models.layers.selection import SourceSelection

Gate = Literal["paired", "first"]
Reconstruction = Literal["separate", "shared"]

PRESETS: dict[str, dict[str, str]] = {f"mafs_{size}": {"backbone": size} for size in RESNET_WIDTHS}

# Channels of every feature on the way to the fused image, and to the labels.
FUSION_WIDTH = 32
SEMANTIC_WIDTH = 64
# Where the auxiliary outputs come from, as fractions of the input's size, in the order of their computation.
AUXILIARY_SCALES = (16, 8, 4)


def _convolution(
    in_channels: int, out_channels: int, kernel: int, activation: type[nn.Module], dilation: int = 1
) -> nn.Sequential:
    """Convolution without bias that keeps the size, BatchNorm, activation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        activation(),
    )


def _resize(x: Tensor, size: torch.Size | tuple[int, int], align_corners: bool) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


class DynamicExtraction(nn.Module):
    """DEM: EAEFNet's explicit attention-enhanced fusion, which lets the two encoders exchange features.

    A gate g per channel says how much the modalities agree. Agreeing parts g·V, g·T are re-weighted by channel, the
    rest (1 - g)·V, (1 - g)·T passes; a softmax over the modalities then weights the results V', T' by pixel.

    With v and t the normalised descriptors of the two modalities, the "paired" gate is g_c = sigmoid(T v_c t_c). The
    release takes the diagonal of the matrix T v_i t_j over the wrong axes: for one pair this gives the "first" gate
    g_c = sigmoid(T v_0 t_c); in larger batches it also mixes the pairs, which "first" does not.

    Shape:
        visible, infrared (B, C, H, W) -> (s_v V' + s_t T', s_t T'), each (B, C, H, W).
    """

    def __init__(self, channels: int, gate: Gate) -> None:
        super().__init__()
        self.gate = gate
        self.temperature = nn.Parameter(torch.tensor(float(channels)))
        self.agreement = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        # Groups of two neighbouring channels of [V; T]: as published, not the pairs of equal index.
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 7, padding=3, groups=channels)
        self.recalibration = nn.Sequential(
            nn.Linear(2 * channels, channels // 8), nn.GELU(), nn.Linear(channels // 8, 2 * channels)
        )
        self.visible_score = nn.Conv2d(channels, 1, 1)
        self.infrared_score = nn.Conv2d(channels, 1, 1)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        gate = self.agreement_gate(visible, infrared)
        both = torch.cat((gate * visible, gate * infrared), dim=1)
        # Channels last: oneDNN has no fast kernel for groups of two channels in the usual layout.
        agreeing = self.depthwise(both.contiguous(memory_format=torch.channels_last))
        return self.exchange(visible, infrared, gate, agreeing.amax(dim=(2, 3)))

    def agreement_gate(self, visible: Tensor, infrared: Tensor) -> Tensor:
        """The gate g, (B, C, 1, 1)."""
        descriptors = (F.normalize(self.agreement(x.mean(dim=(2, 3))), dim=1) for x in (visible, infrared))
        agreement_v, agreement_t = descriptors  # (B, C) each
        if self.gate == "first":
            agreement_v = agreement_v[:, :1]
        return torch.sigmoid(self.temperature * agreement_v * agreement_t)[:, :, None, None]

    def exchange(self, visible: Tensor, infrared: Tensor, gate: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
        """The results, from the gate and the largest responses (B, 2C) of the convolution of the agreeing parts."""
        weights = torch.sigmoid(self.recalibration(largest))[:, :, None, None]
        weight_v, weight_t = weights.chunk(2, dim=1)
        visible = visible * (1 - gate + gate * weight_v)
        infrared = infrared * (1 - gate + gate * weight_t)
        scores = torch.cat((self.visible_score(visible), self.infrared_score(infrared)), dim=1)
        share_v, share_t = scores.softmax(dim=1).chunk(2, dim=1)
        infrared = share_t * infrared
        return share_v * visible + infrared, infrared


class CrossModalAttention(nn.Module):
    """CAM: the sum of both modalities, attended by their product in space (LASNet) and by itself in channels (DANet).

    Shape:
        visible, infrared (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.reduction = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.1),
        )
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, visible: Tensor, infrared: Tensor) -> Tensor:
        attention = torch.sigmoid(self.spatial((visible * infrared).amax(dim=1, keepdim=True)))
        y = self.reduction(visible + infrared) * attention
        flat = y.flatten(2)  # (B, C, H*W)
        # DANet takes the softmax of max(E) - E, which is that of -E: the least similar channels weigh most.
        affinity = (-flat @ flat.transpose(1, 2)).softmax(dim=-1)
        return self.gamma * (affinity @ flat).view_as(y) + y


class AdaptiveFusion(nn.Module):
    """AFM: PSFusion's superficial detail fusion. Both modalities are recalibrated, then mixed by a gate per element.

    Shape:
        visible, infrared (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.visible, self.infrared = (
            nn.Sequential(
                _convolution(in_channels, out_channels, 3, nn.ReLU),
                _convolution(out_channels, out_channels, 3, nn.ReLU),
                _convolution(out_channels, out_channels, 3, nn.ReLU),
            )
            for _ in range(2)
        )
        self.recalibration = _bottleneck(2 * out_channels)
        self.aggregation = nn.Sequential(
            nn.Conv2d(2 * out_channels, out_channels, 1), nn.BatchNorm2d(out_channels), nn.ReLU()
        )
        self.local_gate = _bottleneck(out_channels)
        self.global_gate = _bottleneck(out_channels)

    def forward(self, visible: Tensor, infrared: Tensor) -> Tensor:
        both = torch.cat((self.visible(visible), self.infrared(infrared)), dim=1)
        both = both * (1 + torch.sigmoid(self.recalibration(_pooled(both))))
        aggregated = self.aggregation(both)
        gate = torch.sigmoid(self.local_gate(aggregated) * self.global_gate(_pooled(aggregated)))
        visible, infrared = both.chunk(2, dim=1)
        return gate * visible + (1 - gate) * infrared


def _bottleneck(channels: int) -> nn.Sequential:
    """1x1 convolutions to a quarter of the channels and back, each with BatchNorm."""
    hidden = channels // 4
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, channels, 1),
        nn.BatchNorm2d(channels),
    )


def _pooled(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


class HeterogeneousFusion(nn.Module):
    """PHF: PSFusion's semantic injection, a spatially adaptive normalisation by a deeper feature.

    Shape:
        x (B, 32, H, W), semantics (B, semantic_channels, h, w) -> (B, 32, H, W).
    """

    def __init__(self, semantic_channels: int) -> None:
        super().__init__()
        width = FUSION_WIDTH
        self.instance_norm = nn.InstanceNorm2d(width)
        self.shared = nn.Sequential(nn.Conv2d(semantic_channels, width, 3, padding=1), nn.ReLU())
        self.gamma = nn.Conv2d(width, width, 3, padding=1)
        self.beta = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor, semantics: Tensor) -> Tensor:
        hidden = self.shared(_resize(semantics, x.shape[-2:], align_corners=False))
        gamma, beta = torch.sigmoid(self.gamma(hidden)), self.beta(hidden)
        return self.norm(self.instance_norm(x) * (1 + gamma)) + beta


class DenseRefinement(nn.Module):
    """PSFusion's dense reconstruction: four 3x3 convolutions, each of all features before it; (B, 32, H, W) kept."""

    def __init__(self) -> None:
        super().__init__()
        width = FUSION_WIDTH
        # Two batch norms in a row, as published.
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(count * width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for count in range(1, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for block in self.blocks:
            features.append(block(torch.cat(features, dim=1)))
        return features[-1]


class InvertibleFusionDecoder(nn.Module):
    """Five invertible blocks, the last three of them densely joined to the input, to the fused image.

    Shape:
        (B, 32, H, W) -> (B, 1, H, W) in [0, 1].
    """

    def __init__(self) -> None:
        super().__init__()
        width = FUSION_WIDTH
        self.blocks = nn.ModuleList(InvertibleBlock(width) for _ in range(5))
        self.fuse = nn.Conv2d(4 * width, width, 1)
        self.prediction = nn.Conv2d(width, 1, 3, padding=1)
        for module in (*self.blocks.modules(), self.fuse):
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for block in self.blocks:
            features.append(block(features[-1]))
        x = self.fuse(torch.cat((features[0], *features[3:]), dim=1))
        return (torch.tanh(self.prediction(x)) + 1) / 2


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
        self.dilated = nn.ModuleList(
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
        self.dilated = nn.ModuleList(_convolution(in_channels, width, 3, nn.ReLU6, dilation) for dilation in dilations)
        self.join = _convolution(len(dilations) * width, width, 1, nn.ReLU6)

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
        self.projection = _convolution(width, width, 1, nn.ReLU6)
        self.two_class_head = AuxiliaryHead(2, scale)
        self.semantic_head = AuxiliaryHead(classes, scale)

    def forward(self, low: Tensor, previous: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        previous, high = (_resize(x, low.shape[-2:], align_corners=True) for x in (previous, high))
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
        self.convolution = _convolution(SEMANTIC_WIDTH, SEMANTIC_WIDTH, 3, nn.ReLU6)
        self.prediction = nn.Conv2d(SEMANTIC_WIDTH, channels, 1)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        # The 1x1 prediction commutes with upsampling, and costs least at the smallest size.
        x = self.prediction(self.convolution(x))
        between = (x.shape[-2] * self.factor, x.shape[-1] * self.factor)
        return _resize(_resize(x, between, align_corners=True), size, align_corners=True)


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
                _convolution(width, width, 3, nn.ReLU, dilation=2), _convolution(width, width, 3, nn.ReLU, dilation=2)
            )
            for _ in range(2)
        )
        self.blocks = nn.ModuleList(TransformerBlock() for _ in range(3))
        self.norms = nn.ModuleList(ChannelLayerNorm(width) for _ in range(3))
        self.projection = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, coarse: Tensor, middle: Tensor, fine: Tensor, size: torch.Size) -> Tensor:
        # Unlike InvPT, each stage passes its normalised feature on.
        x = self.norms[0](self.blocks[0](coarse))
        total = _resize(x, size, align_corners=False)
        for index, skip in enumerate((middle, fine)):
            x = self.upsampling[index](_resize(x, skip.shape[-2:], align_corners=False)) + skip
            x = self.norms[index + 1](self.blocks[index + 1](x))
            total = total + _resize(x, size, align_corners=False)
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
            _convolution(width, width // 4, 1, nn.ReLU6), nn.Conv2d(width // 4, 2, 3, padding=1)
        )
        self.semantic = nn.Sequential(_convolution(width, width, 1, nn.ReLU6), nn.Conv2d(width, classes, 3, padding=1))

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        foreground = self.foreground(x).softmax(dim=1)[:, 1:]
        return _resize(self.semantic(x * foreground), size, align_corners=True)


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
        self.preliminary = nn.Sequential(_convolution(width, width, 3, nn.ReLU), _convolution(width, width, 3, nn.ReLU))
        self.detail_context = DilatedContext(width + FUSION_WIDTH, (1, 2, 4, 8))
        self.head = SegmentationHead(classes)
        self.refinements = nn.ModuleList(AuxiliaryRefinement(classes, scale) for scale in AUXILIARY_SCALES)

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
            assert isinstance(refinement, AuxiliaryRefinement)
            aux[f"two_class_{scale}"] = refinement.two_class_head(previous, size)
            aux[f"semantic_{scale}"] = refinement.semantic_head(high, size)
        return aux


class FusedFeatures(NamedTuple):
    """Features of both modalities together.

    Attributes:
        full: (B, 32, H, W).
        half: (B, 32, H/2, W/2).
        stages: four features (B, 64, H/s, W/s), s = 4, 8, 16, 32.
    """

    full: Tensor
    half: Tensor
    stages: list[Tensor]


_FUSED_FEATURES = (
    "adaptive_full", "adaptive_half", "attentions", "heterogeneous_half", "heterogeneous_full", "refinement",
)  # fmt: skip


class MAFS(FusionSegmenter):
    """MAFS network.

    Args:
        architecture: name of the preset, kept for saving.
        classes: number of classes K.
        backbone: ResNet of both encoders, "r18", "r34", "r50", "r101" or "r152" (the published one).
        gate: how the two encoders' agreement is gated, "paired" or, for the authors' weights, "first"; see
            `DynamicExtraction`.
        selection: channels of a `SourceSelection`, or 0, as published, for none. With one, the fused image is what is
            selected by the decoder's.
        imagenet: start both encoders from torchvision's ImageNet weights, fetching them if they are not in its cache.
            Not kept with saved weights, which replace them.

    Shape:
        visible (B, 3, H, W) and infrared (B, 1, H, W) in [0, 1], H and W multiples of 32 -> `Output`. The fused image
        is in [0, 1]. `aux` holds `semantic_s` (B, K, H, W) and `two_class_s` (B, 2, H, W) for s = 4, 8, 16, in training
        mode or where `forward` is called with `auxiliary=True`; it is empty otherwise.

    In training mode a batch needs at least two pairs, since batch norms see globally pooled features.
    """

    family = "mafs"
    roles: ClassVar[Mapping[Role, tuple[str, ...]]] = {
        "backbone": ("visible_encoder", "infrared_encoder", "exchanges"),
        "fusion": (*_FUSED_FEATURES, "fusion_decoder", "selection"),
        "segmentation": ("segmentation_decoder",),
        # The pixel decoder, although in the segmentation decoder, encodes.
        "pretraining": (
            "visible_encoder", "infrared_encoder", "exchanges", *_FUSED_FEATURES, "segmentation_decoder.pixel_decoder",
        ),
    }  # fmt: skip
    exact_modules = ("selection",)
    # The invertible blocks amplify rounding: in 8 bits they are the largest part of the fused image's error by far.
    unquantised_modules = ("fusion_decoder", "selection")
    restart_keywords = ("classes", "selection")

    def __init__(
        self,
        architecture: str = "mafs_r152",
        *,
        classes: int = 9,
        backbone: str = "r152",
        gate: Gate = "paired",
        selection: int = 0,
        imagenet: bool = False,
    ) -> None:
        arguments = {"classes": classes, "backbone": backbone, "gate": gate, "selection": selection}
        super().__init__(architecture, arguments)
        if backbone not in RESNET_WIDTHS:
            raise ConfigError(f"backbone must be one of {', '.join(RESNET_WIDTHS)}, but it is {backbone!r}")
        if gate not in get_args(Gate):
            raise ConfigError(f"gate must be one of {', '.join(get_args(Gate))}, but it is {gate!r}")
        if classes < 1:
            raise ConfigError(f"classes must be at least 1, but it is {classes}")
        self.visible_encoder = ResNetStages(backbone, in_channels=3, imagenet=imagenet)
        self.infrared_encoder = ResNetStages(backbone, in_channels=1, imagenet=imagenet)
        widths = self.visible_encoder.widths
        full, half = STEM_WIDTHS
        self.exchanges = nn.ModuleList(DynamicExtraction(width, gate) for width in (half, *widths[:3]))
        self.adaptive_full = AdaptiveFusion(full, FUSION_WIDTH)
        self.adaptive_half = AdaptiveFusion(half, FUSION_WIDTH)
        self.attentions = nn.ModuleList(CrossModalAttention(width, SEMANTIC_WIDTH) for width in widths)
        self.heterogeneous_half = HeterogeneousFusion(SEMANTIC_WIDTH)
        self.heterogeneous_full = HeterogeneousFusion(FUSION_WIDTH)
        self.refinement = DenseRefinement()
        self.fusion_decoder = InvertibleFusionDecoder()
        self.segmentation_decoder = SegmentationDecoder(classes)
        self.selection = SourceSelection(selection) if selection else None

    def departures(self) -> list[str]:
        arguments = self.arguments
        found = {
            "encoders smaller than ResNet-152": arguments["backbone"] != "r152",
            "the gate of the exchange as it was meant": arguments["gate"] != "first",
            "a choice between the sources pixel by pixel": bool(arguments["selection"]),
        }
        return [phrase for phrase, present in found.items() if present]

    def check_inputs(self, visible: Tensor, infrared: Tensor) -> None:
        """Raise InputError as every network does, and in training mode for a batch of one."""
        super().check_inputs(visible, infrared)
        if self.training and len(visible) < 2:
            raise InputError("MAFS trains on batches of at least two pairs, but this one has one: use a larger batch")

    def encode(self, visible: Tensor, infrared: Tensor) -> FusedFeatures:
        """Features of both modalities, fused at every scale."""
        visible_full, visible = self.visible_encoder.stem(visible)
        infrared_full, infrared = self.infrared_encoder.stem(infrared)
        visible, infrared = self.exchanges[0](visible, infrared)
        full = self.adaptive_full(visible_full, infrared_full)
        half = self.adaptive_half(visible, infrared)
        stages = []
        for index, attention in enumerate(self.attentions):
            visible = self.visible_encoder.stage(index, visible)
            infrared = self.infrared_encoder.stage(index, infrared)
            if index < 3:
                visible, infrared = self.exchanges[index + 1](visible, infrared)
            stages.append(attention(visible, infrared))
        return FusedFeatures(full, half, stages)

    def refine(self, features: FusedFeatures) -> tuple[Tensor, Tensor]:
        """Feature of the fused image (B, 32, H, W), and the detail feature (B, 32, H/2, W/2) that `segment` uses."""
        detail = self.heterogeneous_half(features.half, features.stages[0])
        return self.refinement(self.heterogeneous_full(features.full, detail)), detail

    def fuse_image(self, features: FusedFeatures) -> tuple[Tensor, Tensor]:
        """Fused luminance (B, 1, H, W) in [0, 1], and the detail feature (B, 32, H/2, W/2) that `segment` uses."""
        refined, detail = self.refine(features)
        return self.fusion_decoder(refined), detail

    def select(self, fused: Tensor, visible: Tensor, infrared: Tensor) -> Tensor:
        """The fused luminance (B, 1, H, W) that is selected by the decoder's, if the network selects."""
        return fused if self.selection is None else self.selection(fused, luminance(visible), infrared)

    def segment(
        self, features: FusedFeatures, detail: Tensor, auxiliary: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, K, H, W) and, if asked for, the auxiliary outputs."""
        return self.segmentation_decoder(features.stages, detail, features.full.shape[-2:], auxiliary)

    def forward(self, visible: Tensor, infrared: Tensor, auxiliary: bool | None = None) -> Output:
        """Both tasks. `auxiliary` asks for the auxiliary outputs or leaves them out; None: in training mode only."""
        self.check_inputs(visible, infrared)
        features = self.encode(visible, infrared)
        fused, detail = self.fuse_image(features)
        logits, aux = self.segment(features, detail, self.training if auxiliary is None else auxiliary)
        return Output(self.select(fused, visible, infrared), logits, aux)

    def initialise(self, pretrained: "MAFS") -> None:
        """Copy what encodes (parameters and statistics) from a pretrained network, whatever its classes.

        Raises:
            ConfigError: when the two networks differ in size.
        """
        if pretrained.arguments["backbone"] != self.arguments["backbone"]:
            raise ConfigError(
                f"the pretrained network is {pretrained.architecture}, but {self.architecture} is to be trained: "
                "pretrain one of the same size"
            )
        trained = pretrained.role_modules("pretraining")
        for path, module in self.role_modules("pretraining").items():
            module.load_state_dict(trained[path].state_dict())


class MaskedAutoencoder(nn.Module):
    """Stage I of MAFS: the network's encoder, trained to show both images from a pair with hidden patches.

    Args:
        model: the network to pretrain.
        decoder: "separate", a small decoder of its own that reads the refined detail feature and the finest level of
            the pixel decoder, which all encoder stages feed, and shows both images; or "shared", as released: the fused
            image stands for both, so it has to show the infrared image on some patches and the visible one on others,
            and no gradient reaches the encoders beyond 1/4 of the size.

    Shape:
        visible (B, 3, H, W) and infrared (B, 1, H, W) in [0, 1] -> luminance and infrared image, each (B, 1, H, W) in
        [0, 1].
    """

    def __init__(self, model: MAFS, decoder: Reconstruction = "separate") -> None:
        super().__init__()
        self.model = model
        self.decoder = decoder
        if decoder == "separate":
            width = FUSION_WIDTH
            self.projection = nn.Conv2d(SEMANTIC_WIDTH, width, 1, bias=False)
            self.prediction = nn.Sequential(
                _convolution(2 * width, width, 3, nn.ReLU), nn.Conv2d(width, 2, 3, padding=1)
            )

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        self.model.check_inputs(visible, infrared)
        features = self.model.encode(visible, infrared)
        if self.decoder == "shared":
            image, _ = self.model.fuse_image(features)
            return image, image
        shallow, _ = self.model.refine(features)
        deep = self.projection(self.model.segmentation_decoder.pixel_decoder(features.stages)[-1])
        deep = _resize(deep, shallow.shape[-2:], align_corners=False)
        images = torch.sigmoid(self.prediction(torch.cat((shallow, deep), dim=1)))
        return images[:, :1], images[:, 1:]
