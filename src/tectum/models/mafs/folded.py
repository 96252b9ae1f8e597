"""MAFS folded for inference: what the network computes in eval mode, with the weights multiplied out.

What is folded, next to the auxiliary outputs, which are left out: every batch norm into the convolution before it (the
two in a row of the refinement too). Further

- Exchange of the encoders: a convolution in groups of two channels, for which frameworks have no fast kernel, is the
  sum of two depth-wise ones: of the channels, and of each one's neighbour.
- Heterogeneous fusion: gamma and beta are one convolution; the scale of the batch norm behind them is the instance
  norm's, its shift is in beta's bias.
- Invertible blocks: the 1x1 convolution is multiplied out, and gives each half of the channels by its own rows of the
  matrix. 2 sigmoid(h) - 1 = tanh(h / 2), and all between the last convolutions and h is positively homogeneous, so that
  they contain the 1/2. Where half of the channels are normalised, the other half are multiplied by 1. So no feature at
  full size is cut in two, which would be a copy where the channels of a pixel are neighbours in memory.
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
from tectum.models.layers.folding import convolution, doubles, fold_norms, pointwise, reshaped
from tectum.models.layers.invertible import HalfInstanceNormBlock, InvertibleBlock
from tectum.models.mafs.fusion import DynamicExtraction, HeterogeneousFusion, InvertibleFusionDecoder
from tectum.models.mafs.segmentation import AtrousPyramid, TransposedAttention


def fold(module: nn.Module) -> None:
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
        fold(child)


class DeployedDynamicExtraction(nn.Module):
    """DEM: visible, infrared (B, C, H, W) -> two features (B, C, H, W)."""

    def __init__(self, extraction: DynamicExtraction) -> None:
        super().__init__()
        weights, biases = (parameter.chunk(2) for parameter in doubles(extraction.depthwise))
        self.pairwise_v, self.pairwise_t = map(PairwiseConvolution, weights, biases)
        self.layers = copy.deepcopy(extraction)
        del self.layers.depthwise

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        gate = self.layers.agreement_gate(visible, infrared)
        largest = (self.pairwise_v(gate * visible).amax(dim=(2, 3)), self.pairwise_t(gate * infrared).amax(dim=(2, 3)))
        return self.layers.exchange(visible, infrared, gate, torch.cat(largest, dim=1))


class PairwiseConvolution(nn.Module):
    """Convolution of odd kernel size, in groups of two channels: (B, C, H, W) -> the same, by a weight (C, 2, k, k)."""

    neighbours: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        channels, padding = torch.arange(len(weight), device=weight.device), weight.shape[-1] // 2
        own, other = (weight[channels, place].unsqueeze(1) for place in (channels % 2, 1 - channels % 2))
        self.own = convolution(own, bias, padding=padding, groups=len(weight))
        self.other = convolution(other, padding=padding, groups=len(weight))
        self.register_buffer("neighbours", channels ^ 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x) + self.other(x[:, self.neighbours])


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
        self.blocks = nn.ModuleList(DeployedInvertibleBlock(block) for block in decoder.blocks)
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
        self.first_half, self.second_half = map(pointwise, mixing(identity[None, :, :, None])[0, :, :, 0].chunk(2))
        self.additive = _subnetwork(block.additive)
        self.shift = _subnetwork(block.shift)
        self.half_scale = _subnetwork(block.scale, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = self.first_half(x), self.second_half(x)
        y1 = x1 + self.additive(x2)
        y2 = x2 * torch.exp(self.clamp * torch.tanh(self.half_scale(y1))) + self.shift(y1)
        return torch.cat((y1, y2), dim=1)


def _subnetwork(network: nn.Sequential, factor: float = 1.0) -> nn.Sequential:
    """A subnetwork of an `InvertibleBlock`, its output multiplied by `factor`: (B, C, H, W) -> the same."""
    first, first_activation, second, second_activation = network
    assert isinstance(first, HalfInstanceNormBlock)
    assert isinstance(second, HalfInstanceNormBlock)
    return nn.Sequential(
        DeployedHalfInstanceNormBlock(first),
        copy.deepcopy(first_activation),
        DeployedHalfInstanceNormBlock(second, factor),
        copy.deepcopy(second_activation),
    )


class DeployedHalfInstanceNormBlock(nn.Module):
    """A `HalfInstanceNormBlock`, its output multiplied by `factor`: (B, C, H, W) -> the same."""

    def __init__(self, block: HalfInstanceNormBlock, factor: float = 1.0) -> None:
        super().__init__()
        self.slope = block.slope
        self.first = copy.deepcopy(block.first)
        self.norm = DeployedHalfInstanceNorm(block.norm)
        self.second, self.identity = (_scaled(layer, factor) for layer in (block.second, block.identity))

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm(self.first(x)), self.slope)
        return F.leaky_relu(self.second(y), self.slope) + self.identity(x)


def _scaled(layer: nn.Conv2d, factor: float) -> nn.Conv2d:
    weight, bias = doubles(layer)
    return reshaped(layer, factor * weight, factor * bias)


class DeployedHalfInstanceNorm(nn.Module):
    """Instance norm of the first half of the channels, the second half unchanged: (B, C, H, W) -> the same."""

    normalised: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        zeros = torch.zeros_like(norm.weight)
        for name, half in (("normalised", zeros + 1), ("weight", norm.weight), ("bias", norm.bias)):
            self.register_buffer(name, torch.cat((half, zeros)).detach()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        variance = (x - mean).square().mean(dim=(2, 3), keepdim=True)
        scale = self.weight * torch.rsqrt(variance + self.eps) + (1 - self.normalised)
        return (x - self.normalised * mean) * scale + self.bias


class DeployedAtrousPyramid(nn.Module):
    """ASPP: (B, 64, H, W) -> the same."""

    def __init__(self, pyramid: AtrousPyramid) -> None:
        super().__init__()
        join, bias = doubles(pyramid.join)
        pointwise_part, *parts = join.flatten(1).chunk(1 + len(pyramid.dilated), dim=1)
        weight, branch_bias = doubles(pyramid.pointwise)
        centre = pointwise_part @ weight.flatten(1) + torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        bias = bias + pointwise_part @ branch_bias
        weights = []
        for layer, part in zip(pyramid.dilated, parts, strict=True):
            weight, branch_bias = doubles(layer)
            weights.append(torch.einsum("oi,ichw->ochw", part, weight))
            bias = bias + part @ branch_bias
        weights[0][:, :, 1, 1] += centre
        self.dilated = nn.ModuleList(
            reshaped(layer, weight, None if i else bias)
            for i, (layer, weight) in enumerate(zip(pyramid.dilated, weights, strict=True))
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
    fold(folded)
    return folded


# What a module of these types becomes.
_REPLACEMENTS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Sequential: _fold_sequence,
    DynamicExtraction: DeployedDynamicExtraction,
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
