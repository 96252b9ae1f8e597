"""What every fusion metric starts from: the images as 8-bit grey values, checked."""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from tectum.errors import InputError

LEVELS = 256
MAXIMUM = LEVELS - 1.0

ANY_SIZE = (1, "a score")
"""Smallest height and width, and what needs them."""

T = TypeVar("T")


class Images:
    """The three images of a call as 8-bit grey values in float32, each (N, H, W), and what metrics share about them.

    N counts grey images: a colour image that is scored channel by channel makes `channels` of them, one after another.
    """

    def __init__(self, fused: Tensor, visible: Tensor, infrared: Tensor, channels: int = 1) -> None:
        self.fused = fused
        self.visible = visible
        self.infrared = infrared
        self.channels = channels
        self._results: dict[Callable[[Images], Any], Any] = {}

    @property
    def sources(self) -> tuple[Tensor, Tensor]:
        return self.visible, self.infrared

    @property
    def doubles(self) -> tuple[Tensor, Tensor, Tensor]:
        """The fused, the visible and the infrared image in float64."""
        return self.fused.double(), self.visible.double(), self.infrared.double()

    def once(self, compute: Callable[["Images"], T]) -> T:
        """The result of `compute` for these images, computed only the first time that it is asked for."""
        if compute not in self._results:
            self._results[compute] = compute(self)
        return cast(T, self._results[compute])


def eight_bit(
    name: str, image: Tensor, data_range: float | None, smallest: tuple[int, str] = ANY_SIZE, colour: bool = False
) -> Tensor:
    """Check an image (B, C, H, W) and return its values 0..255, rounded, as float32; C is 1, or 3 if `colour`."""
    if image.ndim != 4 or image.shape[1] not in ((1, 3) if colour else (1,)):
        expected = "(B, 1, H, W) or (B, 3, H, W)" if colour else "(B, 1, H, W)"
        raise InputError(
            f"{name}: expected a {'' if colour else 'grey '}batch of shape {expected}, found {tuple(image.shape)}"
            + ("" if colour else "; of a colour image, pass the luminance")
        )
    height, width = image.shape[2:]
    if min(height, width) < smallest[0]:
        raise InputError(
            f"{name}: {smallest[1]} needs images of at least {smallest[0]}x{smallest[0]} pixels, found {width}x{height}"
        )
    if len(image) == 0:
        raise InputError(f"{name}: the batch has no image")
    if image.dtype == torch.bool or image.is_complex():
        raise InputError(f"{name}: expected grey values, found {image.dtype}")
    if data_range is None:
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise InputError(f"{name}: a {image.dtype} image needs data_range, its largest possible grey value")
        data_range = 1.0 if image.is_floating_point() else MAXIMUM
    elif not 0 < data_range < math.inf:
        raise InputError(f"data_range must be a positive number, not {data_range}")
    if image.device.type == "mps":
        image = image.cpu()
    grey = image.detach()
    if grey.dtype == torch.uint8 and data_range == MAXIMUM:
        return grey.float()
    grey = grey.double() if grey.dtype in (torch.float64, torch.int32, torch.int64) else grey.float()
    low, high = (float(value) for value in torch.aminmax(grey))
    if math.isnan(low) or math.isnan(high):
        raise InputError(f"{name}: the image has NaN values")
    # A network's raw output may exceed the range a little, and is clamped as it is when saved. Far beyond it, the
    # caller has the range wrong, and every score would be silently wrong.
    if high > 4 * data_range or low < -4 * data_range:
        raise InputError(
            f"{name}: values from {low:g} to {high:g} do not fit data_range {data_range:g}; "
            "pass the data_range that the image has"
        )
    return (grey * (MAXIMUM / data_range)).clamp(0, MAXIMUM).round().float()


def fused_alone(image: Tensor, data_range: float | None, smallest: tuple[int, str] = ANY_SIZE) -> Images:
    """Check an image (B, 1, H, W) that is scored without its sources; it stands in for them."""
    grey = eight_bit("image", image, data_range, smallest).squeeze(1)
    return Images(grey, grey, grey)


def grey_images(
    fused: Tensor, visible: Tensor, infrared: Tensor, data_range: float | None, smallest: tuple[int, str] = ANY_SIZE
) -> Images:
    """Check three images (B, 1, H, W) of one shape."""
    if not fused.shape == visible.shape == infrared.shape:
        raise InputError(
            "the three images must have one shape: "
            f"fused {tuple(fused.shape)}, visible {tuple(visible.shape)}, infrared {tuple(infrared.shape)}"
        )
    named = {"fused": fused, "visible": visible, "infrared": infrared}
    grey = [eight_bit(name, image, data_range, smallest).squeeze(1) for name, image in named.items()]
    return Images(grey[0], grey[1], grey[2])


def stretch(images: Images) -> Images:
    """Each image stretched to its own minimum and maximum and rounded to 0..255; a constant image becomes black.

    The metrics of Liu et al.'s MATLAB toolbox begin so. Grey levels move apart and never merge: entropies and mutual
    information stay as they are.
    """

    def stretched(grey: Tensor) -> Tensor:
        grey = grey.double()
        low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
        # Halves go up, as MATLAB rounds them, and not to the even neighbour.
        return ((grey - low) / (high - low).clamp_min(1) * MAXIMUM + 0.5).floor_().float()

    return Images(
        stretched(images.fused), stretched(images.visible), stretched(images.infrared), channels=images.channels
    )
