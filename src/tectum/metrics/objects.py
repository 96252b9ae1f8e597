"""What becomes of objects in a fused image: whether they still stand out as they do in the better of its sources.

The metrics of images average over all pixels, of which a person is a thousandth: a fused image that hides every person
in fog scores as well as one that shows them. These count objects.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torchmetrics import Metric

from tectum.arrays import Float
from tectum.data.boxes import Box, covered_pixels
from tectum.errors import InputError

__all__ = ["ContrastScores", "ObjectContrast", "object_contrasts", "objects_in_boxes", "objects_of_class"]

KEPT_SHARE = 0.7
"""Of the larger contrast in a source: what an object has to have in the fused image to count as kept."""

HIDDEN = 10.0
"""Contrast, in grey levels of 0 to 255, below which an object counts as hidden."""

_LEAST_CONTRAST = 15.0
_LEAST_AREA = 60
_RING = (2, 10)  # the ring begins after the first and ends with the second number of pixels around an object

Mask = npt.NDArray[np.bool_]


class ObjectContrast(NamedTuple):
    """How an object differs from its surroundings, in grey levels of 0 to 255, at least 0."""

    visible: float
    infrared: float
    fused: float

    @property
    def kept(self) -> bool:
        """Whether the fused image has 0.7 of the larger contrast."""
        return self.fused >= KEPT_SHARE * max(self.visible, self.infrared)

    @property
    def hidden(self) -> bool:
        """Whether the fused image has less than 10 grey levels."""
        return self.fused < HIDDEN


def objects_of_class(labels: npt.NDArray[np.integer], label: int) -> list[Mask]:
    """The connected areas of a class in a label map (H, W), each a mask (H, W); corners do not connect."""
    areas, count = ndimage.label(labels == label)
    return [areas == number for number in range(1, count + 1)]


def objects_in_boxes(boxes: Iterable[Box], label: int, size: tuple[int, int]) -> list[Mask]:
    """The boxes of a class, each as a mask of `size` (H, W); rough, since a box holds some of what is around."""
    masks = []
    for box in boxes:
        if box.label == label:
            mask = np.zeros(size, bool)
            mask[covered_pixels(box.y, box.height, size[0]), covered_pixels(box.x, box.width, size[1])] = True
            masks.append(mask)
    return masks


def object_contrasts(fused: Float, visible: Float, infrared: Float, objects: Sequence[Mask]) -> list[ObjectContrast]:
    """Contrast of each object that stands out in a source by 15 grey levels or more.

    The contrast is the difference of the means over the object and over a ring of 3 to 10 pixels around, the other
    objects left out; objects or rings of less than 60 pixels are too small to be counted. Values are rounded to 8 bit.

    Args:
        fused, visible, infrared: (H, W) luminance in [0, 1].
        objects: masks (H, W), from `objects_of_class` or `objects_in_boxes`.

    Raises:
        InputError: images or masks of unequal size.
    """
    images = [np.rint(np.clip(image, 0, 1) * 255).astype(np.float64) for image in (fused, visible, infrared)]
    shapes = {image.shape for image in (*images, *objects)}
    if len(shapes) > 1 or images[0].ndim != 2:
        raise InputError(f"images and objects must have one size (H, W), found {', '.join(map(str, sorted(shapes)))}")
    taken = np.any(objects, axis=0) if objects else np.zeros(images[0].shape, bool)
    found = []
    for mask in objects:
        window = _window(mask)
        inside = mask[window]
        near, far = (ndimage.binary_dilation(inside, iterations=pixels) for pixels in _RING)
        ring = far & ~near & ~(taken[window] & ~inside)
        if min(inside.sum(), ring.sum()) < _LEAST_AREA:
            continue
        of_fused, *of_sources = (abs(image[window][inside].mean() - image[window][ring].mean()) for image in images)
        if max(of_sources) >= _LEAST_CONTRAST:
            found.append(ObjectContrast(of_sources[0], of_sources[1], of_fused))
    return found


def _window(mask: Mask) -> tuple[slice, slice]:
    """The part of an image that holds an object and its ring."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    margin = _RING[1] + 2
    return tuple(slice(max(0, int(at[0]) - margin), int(at[-1]) + margin + 1) for at in (rows, columns))  # type: ignore[return-value]


class ContrastScores(Metric):
    """Shares of objects that the fused images keep and hide, over all images, and over all processes.

    Kept is an object with at least 0.7 of its larger contrast in a source, hidden one with less than 10 grey levels;
    `object_contrasts` says what counts. Source: this project. Higher `kept` and lower `hidden` are better.

    Example:
        >>> fused, visible, infrared = (np.full((48, 48), grey) for grey in (0.4, 0.4, 0.2))
        >>> labels = np.zeros((48, 48), np.uint8)
        >>> labels[16:32, 16:32] = 2
        >>> infrared[labels == 2], fused[labels == 2] = 0.6, 0.7
        >>> scores = ContrastScores()
        >>> scores.update(object_contrasts(fused, visible, infrared, objects_of_class(labels, 2)))
        >>> {key: value.item() for key, value in scores.compute().items()}
        {'objects': 1, 'kept': 1.0, 'hidden': 0.0}

    Args:
        **kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    counts: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, contrasts: Sequence[ObjectContrast]) -> None:
        """Add the objects of an image."""
        kept, hidden = (sum(getattr(one, name) for one in contrasts) for name in ("kept", "hidden"))
        self.counts += torch.tensor([len(contrasts), kept, hidden], device=self.counts.device)

    def compute(self) -> dict[str, Tensor]:
        """Number of `objects`, and the shares `kept` and `hidden`, NaN where there are none."""
        objects, kept, hidden = self.counts
        return {"objects": objects, "kept": kept / objects, "hidden": hidden / objects}
