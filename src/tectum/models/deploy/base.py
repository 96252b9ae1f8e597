"""What every deployed network has in common."""

import copy
from typing import Any

from torch import Tensor, nn

from tectum.models.base import FusionSegmenter


class Deployed(nn.Module):
    """A trained network folded for inference, made by `FusionSegmenter.deploy()`.

    It computes what the trained one computes in eval mode, up to rounding, and shares no memory with it. It has no
    train mode: there is no dropout and no batch norm in it. So that it can be traced and exported for any batch, height
    and width, it does not check its inputs.

    Attributes:
        architecture, arguments, classes, stride, metadata, unquantised_modules, runs_in_bands, bytes_per_pixel: of the
            trained network, see `FusionSegmenter`.

    Shape:
        visible (B, 3, H, W) and infrared (B, 1, H, W) in [0, 1], H and W multiples of `stride` -> fused (B, 1, H, W),
        about [0, 1] and not clamped, and logits (B, K, H, W); all float32.
    """

    def __init__(self, model: FusionSegmenter) -> None:
        super().__init__()
        self.architecture = model.architecture
        self.arguments: dict[str, Any] = copy.deepcopy(model.arguments)
        self.classes = model.classes
        self.stride = model.stride
        self.metadata: dict[str, Any] = copy.deepcopy(model.metadata)
        self.unquantised_modules = model.unquantised_modules
        self.runs_in_bands = model.runs_in_bands
        self.bytes_per_pixel = dict(model.bytes_per_pixel)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError
