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

import copy
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from tectum.errors import ConfigError, InputError
from tectum.models.backbones.resnet import RESNET_WIDTHS, STEM_WIDTHS, ResNetStages
from tectum.models.base import Deployed, FusionSegmenter, Output, Role, luminance
from tectum.models.layers.modules import Modules
from tectum.models.layers.selection import SourceSelection
from tectum.models.mafs.folded import fold
from tectum.models.mafs.fusion import (
    AdaptiveFusion,
    CrossModalAttention,
    DenseRefinement,
    DynamicExtraction,
    Gate,
    HeterogeneousFusion,
    InvertibleFusionDecoder,
)
from tectum.models.mafs.layers import FUSION_WIDTH, SEMANTIC_WIDTH, conv_block, resize
from tectum.models.mafs.segmentation import SegmentationDecoder

Reconstruction = Literal["separate", "shared"]

PRESETS: dict[str, dict[str, str]] = {f"mafs_{size}": {"backbone": size} for size in RESNET_WIDTHS}


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
            "its encoders are smaller than ResNet-152": arguments["backbone"] != "r152",
            "the gate of its exchange is as it was meant": arguments["gate"] != "first",
            "it chooses between the sources pixel by pixel": bool(arguments["selection"]),
        }
        return [clause for clause, true in found.items() if true]

    def check_inputs(self, visible: Tensor, infrared: Tensor) -> None:
        """Raise InputError as every network does, and in training mode for a batch of one."""
        super().check_inputs(visible, infrared)
        if self.training and len(visible) < 2:
            raise InputError("MAFS trains on batches of at least two pairs, but this one has one: use a larger batch")

    def _folded(self) -> Deployed:
        return DeployedMAFS(self)

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


class DeployedMAFS(Deployed):
    """The folded form of a `MAFS`; see `Deployed` and `tectum.models.mafs.folded`."""

    def __init__(self, model: MAFS) -> None:
        super().__init__(model)
        self.network = copy.deepcopy(model).eval()
        self.network.segmentation_decoder.refinements = Modules()
        fold(self.network)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.encode(visible, infrared)
        fused, detail = self.network.fuse_image(features)
        logits, _ = self.network.segment(features, detail)
        return self.network.select(fused, visible, infrared), logits


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
            self.prediction = nn.Sequential(conv_block(2 * width, width, 3, nn.ReLU), nn.Conv2d(width, 2, 3, padding=1))

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        self.model.check_inputs(visible, infrared)
        features = self.model.encode(visible, infrared)
        if self.decoder == "shared":
            image, _ = self.model.fuse_image(features)
            return image, image
        shallow, _ = self.model.refine(features)
        deep = self.projection(self.model.segmentation_decoder.pixel_decoder(features.stages)[-1])
        deep = resize(deep, shallow.shape[-2:], align_corners=False)
        images = torch.sigmoid(self.prediction(torch.cat((shallow, deep), dim=1)))
        return images[:, :1], images[:, 1:]
