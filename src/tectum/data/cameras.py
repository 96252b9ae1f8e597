"""What differs between cameras: polarity, gain control, sharpness, colour, tones, and the scenes they look at."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from tectum.data.truth import renumbered, whole_boxes
from tectum.data.weather import integer, uniform
from tectum.section import Section

if TYPE_CHECKING:
    from tectum.data.transforms import Sample

_QUANTILES = torch.linspace(0, 1, 33)
_THINNED = 4  # every so many pixels are enough for quantiles
_PART = (0.25, 0.7)  # least and largest side of a part, as a share of the image's


class Cameras(Section):
    """Other cameras, rendered from a pair; each property is drawn on its own, and all zeros change nothing.

    Attributes:
        tones: probability that either image takes on, each channel on its own, the distribution of values of another
            training pair; by how much is drawn from [0, 1].
        parts: probability that a rectangle of another training pair is laid over, with its labels, under the tones of
            this one.
        grey: probability that the visible image has no colour.
        sharpness: each image's sharpness is multiplied by a factor from [1 - s, 1 + s], where 0 is blurred by a kernel
            of 3x3 pixels, and above 1 the difference from that is enlarged.
        inversion: probability that the infrared image is black hot.
        stretch: largest share of the infrared image's pixels that is cut off at black, and at white, when the rest
            fills the range, as gain control does.
        gamma: the infrared image is raised to a power from [1 / (1 + g), 1 + g] (log-uniform).
    """

    tones: float = Field(0.0, ge=0, le=1)
    parts: float = Field(0.0, ge=0, le=1)
    grey: float = Field(0.0, ge=0, le=1)
    sharpness: float = Field(0.0, ge=0, le=1)
    inversion: float = Field(0.0, ge=0, le=1)
    stretch: float = Field(0.0, ge=0, lt=0.5)
    gamma: float = Field(0.0, ge=0)

    def mix(self, sample: "Sample", another: "Callable[[], Sample]") -> "Sample":
        """A clean pair with `tones` and `parts` of others; `another` draws one of the same size."""
        if self.tones and uniform(0, 1) < self.tones:
            other, share = another(), uniform(0, 1)
            sample = sample._replace(
                visible=torch.lerp(sample.visible, with_tones(sample.visible, other.visible), share),
                infrared=torch.lerp(sample.infrared, with_tones(sample.infrared, other.infrared), share),
            )
        if self.parts and uniform(0, 1) < self.parts:
            sample = with_part(sample, another())
        return sample

    def see(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        """The pair (3, H, W), (1, H, W) in [0, 1] as a camera of other properties shows it."""
        if self.grey and uniform(0, 1) < self.grey:
            visible = tvf.rgb_to_grayscale(visible, num_output_channels=3)
        if self.stretch:
            low, high = uniform(0, self.stretch), 1 - uniform(0, self.stretch)
            black, white = _quantiles(infrared[0], torch.tensor([low, high])).tolist()
            infrared = ((infrared - black) / max(white - black, 1 / 255)).clamp(0, 1)
        if self.gamma:
            infrared = infrared ** math.exp(uniform(-1, 1) * math.log(1 + self.gamma))
        if self.inversion and uniform(0, 1) < self.inversion:
            infrared = 1 - infrared
        if self.sharpness:
            visible, infrared = (
                tvf.adjust_sharpness(image, 1 + uniform(-self.sharpness, self.sharpness))
                for image in (visible, infrared)
            )
        return visible, infrared


def with_tones(image: Tensor, other: Tensor) -> Tensor:
    """An image (C, H, W) whose channels have the quantiles of another one's (C, H', W')."""
    matched = [
        np.interp(one.numpy(), _quantiles(one, _QUANTILES).numpy(), _quantiles(another, _QUANTILES).numpy())
        for one, another in zip(image, other, strict=True)
    ]
    return torch.from_numpy(np.stack(matched).astype(np.float32))


def with_part(sample: "Sample", other: "Sample") -> "Sample":
    """A pair with a random rectangle of another one of its size laid over, in its place there."""
    height, width = sample.labels.shape
    sides = [round(uniform(*_PART) * side) for side in (height, width)]
    top, left = integer(height - sides[0] + 1), integer(width - sides[1] + 1)
    area = (..., slice(top, top + sides[0]), slice(left, left + sides[1]))

    def laid_over(below: Tensor, above: Tensor) -> Tensor:
        result = below.clone()
        result[area] = above[area]
        return result

    theirs = renumbered(other.boxes)
    boxes = whole_boxes(laid_over(sample.boxes, theirs), sample.boxes)
    outside = theirs.clone()
    outside[area] = 0
    return sample._replace(
        visible=laid_over(sample.visible, with_tones(other.visible, sample.visible)),
        infrared=laid_over(sample.infrared, with_tones(other.infrared, sample.infrared)),
        labels=laid_over(sample.labels, other.labels),
        boxes=boxes.masked_fill(torch.isin(boxes, outside.unique()[1:]), 0),
    )


def _quantiles(channel: Tensor, shares: Tensor) -> Tensor:
    return torch.quantile(channel[..., ::_THINNED, ::_THINNED].flatten(), shares)
