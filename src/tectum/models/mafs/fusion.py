"""MAFS from two encoders' features to the fused image: exchange, fusion at every scale, refinement, decoder.

The exchange is EAEFNet's dynamic extraction, the attention between the modalities LASNet's, adaptive and heterogeneous
fusion and the dense refinement PSFusion's, and the invertible decoder comes from CDDFuse and Glow.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.models.layers.invertible import InvertibleBlock
from tectum.models.layers.modules import Modules
from tectum.models.mafs.layers import FUSION_WIDTH, conv_block, resize

Gate = Literal["paired", "first"]


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
                conv_block(in_channels, out_channels, 3, nn.ReLU),
                conv_block(out_channels, out_channels, 3, nn.ReLU),
                conv_block(out_channels, out_channels, 3, nn.ReLU),
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
        hidden = self.shared(resize(semantics, x.shape[-2:], align_corners=False))
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
        self.blocks = Modules(InvertibleBlock(width) for _ in range(5))
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
