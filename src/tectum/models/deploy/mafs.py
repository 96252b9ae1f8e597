"""MAFS for inference: what `tectum.models.mafs` computes in eval mode, with the weights multiplied out.

What is folded, next to the auxiliary outputs, which are left out: every batch norm into the convolution before it (the
two in a row of the refinement too). Further

- Heterogeneous fusion: gamma and beta are one convolution; the scale of the batch norm behind them is the instance
  norm's, its shift is in beta's bias.
- Invertible blocks: the 1x1 convolution is multiplied out. Shift and scale read the same feature and run as one
  network of two groups. 2 sigmoid(h) - 1 = tanh(h / 2), and all between the last convolutions and h is positively
  homogeneous, so that they contain the 1/2.
- Prediction of the image: nothing is between the 1x1 convolution of the joined features and the 3x3 one to one channel.
  Each feature is multiplied by the product of both for the nine taps at once, and the taps are shifted and summed. The
  features need not be joined; the border stays exact, since zeros are padded behind the first bias as before.
- ASPP: nothing is between its branches and the convolution that joins them, so each dilated convolution contains its
  part of that one, and the first one's centre the pointwise branch and the residual too.
- Transposed attention: the norms of queries and keys divide the small matrix between channels instead of the features,
  and the projection is multiplied with that matrix instead of the attended feature.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from tectum.models.backbones.resnet import FReLU
from tectum.models.deploy.base import Deployed
from tectum.models.deploy.folding import convolution, doubles, fold_norms, pointwise, reshaped
from tectum.models.layers.invertible import HalfInstanceNormBlock, InvertibleBlock
from tectum.models.mafs import (
    MAFS,
    AtrousPyramid,
    HeterogeneousFusion,
    InvertibleFusionDecoder,
    TransposedAttention,
)


class DeployedMAFS(Deployed):
    """The folded form of a `MAFS`; see `Deployed`."""

    def __init__(self, model: MAFS) -> None:
        super().__init__(model)
        self.network = copy.deepcopy(model).eval()
        self.network.segmentation_decoder.refinements = nn.ModuleList()
        _fold(self.network)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.encode(visible, infrared)
        fused, detail = self.network.fuse_image(features)
        logits, _ = self.network.segment(features, detail)
        return fused, logits


def _fold(module: nn.Module) -> None:
    """Fold all below `module`, in place."""
    for name, child in module.named_children():
        replace = _REPLACEMENTS.get(type(child))
        if replace is not None:
            setattr(module, name, replace(child))
            continue
        for convolution_name, norm_name in _NORMS_BY_NAME.get(type(child), ()):
            folded = fold_norms(getattr(child, convolution_name), getattr(child, norm_name))
            setattr(child, convolution_name, folded)
            setattr(child, norm_name, nn.Identity())
        _fold(child)


class DeployedHeterogeneousFusion(nn.Module):
    """PHF: x (B, 32, H, W), semantics (B, C, h, w) -> (B, 32, H, W)."""

    def __init__(self, fusion: HeterogeneousFusion) -> None:
        super().__init__()
        # The batch norm as a 1x1 convolution of one channel each gives its scale and shift.
        ones = fusion.norm.weight.new_ones(fusion.norm.num_features, 1, 1, 1)
        scaled = fold_norms(convolution(ones, groups=len(ones)), fusion.norm)
        scale, shift = doubles(scaled)
        self.norm = nn.InstanceNorm2d(len(ones), eps=fusion.instance_norm.eps, affine=True).to(ones.device)
        self.norm.load_state_dict({"weight": scale.flatten(), "bias": torch.zeros_like(shift)})
        self.shared = copy.deepcopy(fusion.shared)
        (gamma, gamma_bias), (beta, beta_bias) = doubles(fusion.gamma), doubles(fusion.beta)
        self.gamma_beta = reshaped(fusion.gamma, torch.cat((gamma, beta)), torch.cat((gamma_bias, beta_bias + shift)))

    def forward(self, x: Tensor, semantics: Tensor) -> Tensor:
        semantics = F.interpolate(semantics, x.shape[-2:], mode="bilinear", align_corners=False)
        gamma, beta = self.gamma_beta(self.shared(semantics)).chunk(2, dim=1)
        return self.norm(x) * (1 + torch.sigmoid(gamma)) + beta


class DeployedFusionDecoder(nn.Module):
    """Invertible blocks and the prediction of the image: (B, 32, H, W) -> (B, 1, H, W) in [0, 1]."""

    def __init__(self, decoder: InvertibleFusionDecoder) -> None:
        super().__init__()
        blocks = [block for block in decoder.blocks if isinstance(block, InvertibleBlock)]
        self.blocks = nn.ModuleList(DeployedInvertibleBlock(block) for block in blocks)
        fuse, fuse_bias = doubles(decoder.fuse)
        prediction, prediction_bias = doubles(decoder.prediction)
        taps = prediction[0].flatten(1).T  # (9, 32)
        products = (taps @ fuse.flatten(1)).chunk(4, dim=1)
        self.taps = nn.ModuleList(pointwise(part, None if i else taps @ fuse_bias) for i, part in enumerate(products))
        # (tanh(z) + 1) / 2 = sigmoid(2z)
        shifts = torch.eye(9, dtype=taps.dtype, device=taps.device).view(1, 9, 3, 3)
        self.sum = convolution(2 * shifts, 2 * prediction_bias, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        total = self.taps[0](x)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index >= 2:
                total = total + self.taps[index - 1](x)
        return torch.sigmoid(self.sum(total))


class DeployedInvertibleBlock(nn.Module):
    """Forward direction of an `InvertibleBlock`: (B, C, H, W) -> the same."""

    def __init__(self, block: InvertibleBlock) -> None:
        super().__init__()
        self.clamp = block.clamp
        mixing = copy.deepcopy(block.mixing).double()
        identity = torch.eye(len(mixing.lower), dtype=torch.float64, device=mixing.lower.device)
        self.mixing = pointwise(mixing(identity[None, :, :, None])[0, :, :, 0])
        self.additive = _subnetwork(block.additive)
        self.shift_and_half_scale = _subnetwork(block.shift, block.scale)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = self.mixing(x).chunk(2, dim=1)
        y1 = x1 + self.additive(x2)
        shift, half_scale = self.shift_and_half_scale(y1).chunk(2, dim=1)
        y2 = x2 * torch.exp(self.clamp * torch.tanh(half_scale)) + shift
        return torch.cat((y1, y2), dim=1)


def _subnetwork(network: nn.Sequential, halved: nn.Sequential | None = None) -> nn.Sequential:
    """One or two subnetworks of the same input, the output of the second halved: (B, C, H, W) -> (B, C or 2C, H, W)."""
    branches = [network] if halved is None else [network, halved]
    first, second = ([branch[index] for branch in branches] for index in (0, 2))
    return nn.Sequential(
        DeployedHalfInstanceNormBlock(first, 1, 1.0),
        copy.deepcopy(network[1]),
        DeployedHalfInstanceNormBlock(second, len(branches), 0.5),
        copy.deepcopy(network[3]),
    )


class DeployedHalfInstanceNormBlock(nn.Module):
    """One or more `HalfInstanceNormBlock`s of C channels side by side: (B, groups * C, H, W) -> (B, blocks * C, H, W).

    Args:
        blocks: the trained blocks.
        groups: 1 if all of them see the same input, or their number if each has its own.
        factor: of the output of all but the first block.
    """

    def __init__(self, blocks: list[nn.Module], groups: int, factor: float) -> None:
        super().__init__()
        sources = [block for block in blocks if isinstance(block, HalfInstanceNormBlock)]
        factors = [factor if index else 1.0 for index in range(len(sources))]
        ones = [1.0] * len(sources)
        self.slope = sources[0].slope
        self.first = _side_by_side([source.first for source in sources], groups, ones)
        self.norms = nn.ModuleList(copy.deepcopy(source.norm) for source in sources)
        self.second = _side_by_side([source.second for source in sources], len(sources), factors)
        self.identity = _side_by_side([source.identity for source in sources], groups, factors)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2 * len(self.norms), dim=1))
        parts[0::2] = [norm(part) for norm, part in zip(self.norms, parts[0::2], strict=True)]
        y = F.leaky_relu(torch.cat(parts, dim=1), self.slope)
        return F.leaky_relu(self.second(y), self.slope) + self.identity(x)


def _side_by_side(layers: list[nn.Conv2d], groups: int, factors: list[float]) -> nn.Conv2d:
    """Convolutions of one shape as one, their outputs joined and multiplied by `factors`."""
    weights, biases = zip(*(doubles(layer) for layer in layers), strict=True)
    weight = torch.cat([weight * factor for weight, factor in zip(weights, factors, strict=True)])
    bias = torch.cat([bias * factor for bias, factor in zip(biases, factors, strict=True)])
    return convolution(weight, bias, padding=weight.shape[-1] // 2, groups=groups)


class DeployedAtrousPyramid(nn.Module):
    """ASPP: (B, 64, H, W) -> the same."""

    def __init__(self, pyramid: AtrousPyramid) -> None:
        super().__init__()
        join, bias = doubles(pyramid.join)
        pointwise_part, *parts = join.flatten(1).chunk(1 + len(pyramid.dilated), dim=1)
        weight, branch_bias = doubles(pyramid.pointwise)
        centre = pointwise_part @ weight.flatten(1) + torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        bias = bias + pointwise_part @ branch_bias
        layers, weights = [layer for layer in pyramid.dilated if isinstance(layer, nn.Conv2d)], []
        for layer, part in zip(layers, parts, strict=True):
            weight, branch_bias = doubles(layer)
            weights.append(torch.einsum("oi,ichw->ochw", part, weight))
            bias = bias + part @ branch_bias
        weights[0][:, :, 1, 1] += centre
        self.dilated = nn.ModuleList(
            reshaped(layer, weight, None if i else bias)
            for i, (layer, weight) in enumerate(zip(layers, weights, strict=True))
        )
        self.output = _fold_sequence(pyramid.output)

    def forward(self, x: Tensor) -> Tensor:
        total = self.dilated[0](x)
        for dilated in self.dilated[1:]:
            total = total + dilated(x)
        return self.output(total)


class DeployedTransposedAttention(nn.Module):
    """Attention between channels: (B, C, H, W) -> the same."""

    projection: Tensor

    def __init__(self, attention: TransposedAttention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.temperature = copy.deepcopy(attention.temperature)
        self.query_key_value = copy.deepcopy(attention.query_key_value)
        self.depthwise = copy.deepcopy(attention.depthwise)
        projection = attention.projection.weight.detach().flatten(1)
        self.register_buffer("projection", projection.unflatten(1, (self.heads, -1)).transpose(0, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        joined = self.depthwise(self.query_key_value(x))
        query, key, value = joined.flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)  # (B, heads, C/heads, H*W)
        norm_q, norm_k = (part.norm(dim=-1, keepdim=True).clamp_min(1e-12) for part in (query, key))
        scores = query @ key.transpose(-2, -1) / (norm_q * norm_k.transpose(-2, -1))
        attention = self.projection @ (scores * self.temperature).softmax(dim=-1)  # (B, heads, C, C/heads)
        attended = attention.transpose(1, 2).flatten(2) @ value.flatten(1, 2)
        return attended.unflatten(2, x.shape[-2:])


def _fold_sequence(sequence: nn.Sequential) -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer in sequence:
        if isinstance(layer, nn.BatchNorm2d):
            assert isinstance(layers[-1], nn.Conv2d)
            layers[-1] = fold_norms(layers[-1], layer)
        else:
            layers.append(layer)
    folded = nn.Sequential(*layers)
    _fold(folded)
    return folded


# What a module of these types becomes.
_REPLACEMENTS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Sequential: _fold_sequence,
    HeterogeneousFusion: DeployedHeterogeneousFusion,
    InvertibleFusionDecoder: DeployedFusionDecoder,
    AtrousPyramid: DeployedAtrousPyramid,
    TransposedAttention: DeployedTransposedAttention,
}
# Convolutions of modules of these types, and the batch norms that follow them.
_NORMS_BY_NAME: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    FReLU: (("convolution", "norm"),),
    BasicBlock: (("conv1", "bn1"), ("conv2", "bn2")),
    Bottleneck: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
}
