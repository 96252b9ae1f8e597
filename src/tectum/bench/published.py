"""The networks as published: the reference that the benchmarks compare with.

`published(model)` takes the weights of a tectum network and computes the same function by the operations that the
released code uses, in plain eager PyTorch; where the release is known to do more, less is done here.

ViR-MFS: grey planes are repeated to three channels, and each modality passes the backbone on its own; attention is
softmax(QK^T)V in three steps; both features are transformed completely, by a grouped strided convolution, and back by a
grouped transposed one; the symmetric wiring runs the fusion module twice; each head applies a linear layer per stage,
upsamples all of them to 1/4, joins and convolves them.

MAFS: the gate between the encoders is the diagonal of a C x C matrix; ASPP runs on all four scales, of which two are
used; the six auxiliary outputs are computed.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from tectum.models import FusionSegmenter
from tectum.models.backbones.mit import Attention, Block
from tectum.models.base import luminance
from tectum.models.mafs import MAFS
from tectum.models.mafs.fusion import DynamicExtraction
from tectum.models.mafs.segmentation import AuxiliaryRefinement, SegmentationDecoder
from tectum.models.virmfs import ViRMFS
from tectum.models.virmfs.layers import MLPHead, MultiScaleWaveletFusion, WaveletLevel


def published(model: FusionSegmenter) -> nn.Module:
    """The network as published, with a copy of the weights, in eval mode.

    It maps visible (B, 3, H, W) and infrared (B, 1, H, W) to fused (B, 1, H, W) and logits (B, K, H, W). The matrix of
    MAFS's first gate has no meaning for more than one pair, so that B is 1 there.

    Raises:
        ValueError: for a ViR-MFS with options that were not published.
    """
    networks: dict[str, Callable[[Any], nn.Module]] = {"virmfs": PublishedViRMFS, "mafs": PublishedMAFS}
    return networks[model.family](copy.deepcopy(model)).eval().requires_grad_(False)


def published_for_training(model: ViRMFS) -> "PublishedViRMFS":
    """The ViR-MFS network as published, to train: what `published` gives, but in training mode and with gradients.

    Its parameters are copies, in the order of `model.parameters()`. Batch norms, dropout and stochastic depth are those
    of `model`; with two backbone passes, random numbers are drawn in another order.

    Raises:
        ValueError: for options that were not published.
    """
    return PublishedViRMFS(copy.deepcopy(model)).train()


class PublishedViRMFS(nn.Module):
    def __init__(self, model: ViRMFS) -> None:
        super().__init__()
        if departures := model.departures():
            raise ValueError(f"this is not ViR-MFS as published: {', '.join(departures)}")
        self.mean, self.scale = model.input_mean, model.input_scale
        self.backbone = model.backbone
        for block in list(self.backbone.modules()):
            if isinstance(block, Block):
                block.add_module("attention", PublishedAttention(block.attention))
        fusions = cast(Iterable[MultiScaleWaveletFusion], model.fusions)
        self.fusions = nn.ModuleList(PublishedWaveletFusion(module) for module in fusions)
        self.symmetric = model.arguments["wiring"] == "symmetric"
        self.deepest_fusion = model.deepest_fusion
        self.segmentation_head = PublishedHead(model.segmentation_head)
        self.fusion_head = PublishedHead(model.fusion_head)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        grey = luminance(visible)
        encoded = [self.backbone(((x - self.mean) * self.scale).repeat(1, 3, 1, 1)) for x in (grey, infrared)]
        features = []
        for module, first, second in zip(self.fusions, *(maps[:3] for maps in encoded), strict=True):
            fused = module(first, second)
            features.append(fused + module(second, first) if self.symmetric else fused)
        features.append(self.deepest_fusion(torch.cat((encoded[0][3], encoded[1][3]), dim=1)))
        weights, logits = (
            F.interpolate(head(features), grey.shape[-2:], mode="bilinear", align_corners=True)
            for head in (self.fusion_head, self.segmentation_head)
        )
        return weights[:, :1] * grey + weights[:, 1:] * infrared, logits


class PublishedAttention(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.layers = attention

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        layers, (batch, tokens, channels) = self.layers, x.shape
        heads = layers.heads
        query = layers.query(x).reshape(batch, tokens, heads, channels // heads).permute(0, 2, 1, 3)
        if layers.reduction is not None and layers.reduction_norm is not None:
            x = layers.reduction(x.permute(0, 2, 1).reshape(batch, channels, height, width))
            x = layers.reduction_norm(x.reshape(batch, channels, -1).permute(0, 2, 1))
        key, value = layers.key_value(x).reshape(batch, -1, 2, heads, channels // heads).permute(2, 0, 3, 1, 4)
        weights = ((query @ key.transpose(-2, -1)) * (channels // heads) ** -0.5).softmax(dim=-1)
        return layers.projection((weights @ value).transpose(1, 2).reshape(batch, tokens, channels))


class PublishedWaveletFusion(nn.Module):
    """MWFM in one order, f(x, y)."""

    filters: Tensor

    def __init__(self, fusion: MultiScaleWaveletFusion) -> None:
        super().__init__()
        (self.level,) = cast(Iterable[WaveletLevel], fusion.levels)
        self.base_convolution, self.base_scale = fusion.base_convolution, fusion.base_scale
        channels = fusion.base_convolution.in_channels
        signs = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2
        filters = signs.view(4, 1, 2, 2).repeat(channels, 1, 1, 1)
        self.register_buffer("filters", filters.to(fusion.base_convolution.weight.device))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        bands = [self._bands(x) for x in (first, second)]
        low = self.level.gate(bands[0][:, :, 0], bands[1][:, :, 0])
        joined = torch.cat((low.unsqueeze(2), bands[0][:, :, 1:]), dim=2).flatten(1, 2)
        inverse = F.conv_transpose2d(joined, self.filters, stride=2, groups=first.shape[1])
        return inverse + self.base_convolution(first) * self.base_scale.weight

    def _bands(self, x: Tensor) -> Tensor:
        bands = F.conv2d(x, self.filters, stride=2, groups=x.shape[1])
        return (self.level.convolution(bands) * self.level.scale.weight).unflatten(1, (-1, 4))


class PublishedHead(nn.Module):
    def __init__(self, head: MLPHead) -> None:
        super().__init__()
        self.layers = head

    def forward(self, features: list[Tensor]) -> Tensor:
        projected = []
        for feature, linear in zip(features, self.layers.linears, strict=True):
            x = linear(feature.flatten(2).transpose(1, 2)).permute(0, 2, 1).unflatten(2, feature.shape[-2:])
            projected.append(F.interpolate(x, features[0].shape[-2:], mode="bilinear", align_corners=False))
        fused = torch.relu(self.layers.norm(self.layers.fuse(torch.cat(projected[::-1], dim=1))))
        return self.layers.prediction(self.layers.dropout(fused))


class PublishedMAFS(nn.Module):
    def __init__(self, model: MAFS) -> None:
        super().__init__()
        exchanges = cast(Iterable[DynamicExtraction], model.exchanges)
        model.exchanges = nn.ModuleList(PublishedExtraction(module) for module in exchanges)
        model.add_module("segmentation_decoder", PublishedSegmentationDecoder(model.segmentation_decoder))
        self.model = model

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(visible, infrared, auxiliary=True)
        return output.fused, output.logits


class PublishedExtraction(nn.Module):
    def __init__(self, extraction: DynamicExtraction) -> None:
        super().__init__()
        self.layers = extraction

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        layers = self.layers
        first, second = (F.normalize(layers.agreement(x.mean(dim=(2, 3))), dim=1) for x in (visible, infrared))
        matrix = torch.sigmoid(layers.temperature * (first.unsqueeze(2) @ second.unsqueeze(1)))  # (B, C, C)
        # The published diagonal is over the axes of batch and channel.
        gate = torch.diagonal(matrix) if layers.gate == "first" else torch.diagonal(matrix, dim1=1, dim2=2)
        gate = gate.reshape(len(visible), -1, 1, 1)
        agreeing_v, agreeing_t = gate * visible, gate * infrared
        pooled = layers.depthwise(torch.cat((agreeing_v, agreeing_t), dim=1)).amax(dim=(2, 3))
        weight_v, weight_t = torch.sigmoid(layers.recalibration(pooled))[:, :, None, None].chunk(2, dim=1)
        visible = (1 - gate) * visible + weight_v * agreeing_v
        infrared = (1 - gate) * infrared + weight_t * agreeing_t
        scores = torch.cat((layers.visible_score(visible), layers.infrared_score(infrared)), dim=1).softmax(dim=1)
        infrared = scores[:, 1:] * infrared
        return scores[:, :1] * visible + infrared, infrared


class PublishedSegmentationDecoder(nn.Module):
    def __init__(self, decoder: SegmentationDecoder) -> None:
        super().__init__()
        self.pixel_decoder, self.atrous_pyramid = decoder.pixel_decoder, decoder.atrous_pyramid
        for name in ("pixel_decoder", "atrous_pyramid"):
            decoder.add_module(name, nn.Identity())
        self.layers = decoder

    def forward(
        self, features: list[Tensor], detail: Tensor, size: torch.Size, auxiliary: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        layers, pyramid = self.layers, self.pixel_decoder(features)
        aux = {}
        previous, high = features[3], pyramid[0]
        for index, refinement in enumerate(cast(Iterable[AuxiliaryRefinement], layers.refinements)):
            previous, high = refinement(features[2 - index], previous, high)
            aux[f"two_class_{index}"] = refinement.two_class_head(previous, size)
            aux[f"semantic_{index}"] = refinement.semantic_head(high, size)
        _, _, middle, fine = (self.atrous_pyramid(scale) for scale in pyramid)
        x = layers.preliminary(layers.transformer(features[2], middle, fine, detail.shape[-2:]))
        return layers.head(layers.detail_context(torch.cat((detail, x), dim=1)), size), aux


def gigaflops(network: nn.Module, height: int, width: int) -> float:
    """Arithmetic of convolutions and matrix products for one pair, counted without running it."""
    # Fake tensors have no values but a device, which autocast needs and "meta" is not.
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        network(*(torch.empty(1, channels, height, width) for channels in (3, 1)))
    return counter.get_total_flops() / 1e9
