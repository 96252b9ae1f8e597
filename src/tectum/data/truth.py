"""Labels that say only part of the truth: maps that look for some classes, and boxes around objects without a mask.

A training label is a class id, 255 where nothing is known, or a set of classes, one of which it is.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from tectum.arrays import Bytes
from tectum.data.boxes import Box, covered_pixels

LEAST_SHARE = 0.1
"""Share of a box's pixels with its class from which on the label map has a mask of the object."""

_NUMBER = 256  # class ids are below


def any_of(classes: Collection[int]) -> int:
    """Label of a pixel that is known to be one of several classes: minus the sum of their 2^id, so below 0.

    >>> any_of({0, 4})
    -17
    """
    return -sum(1 << label for label in classes)


def unmasked_boxes(boxes: Sequence[Box], label: Bytes) -> Tensor:
    """The boxes whose object has no mask in a label map (H, W), as an int64 map (H, W) of `box_label` and a number.

    0 is where there is none. Of boxes that overlap, the smaller one lies on top.
    """
    drawn = np.zeros(label.shape, np.int64)
    for number, box in enumerate(sorted(boxes, key=lambda box: -box.width * box.height), start=1):
        area = (covered_pixels(box.y, box.height, label.shape[0]), covered_pixels(box.x, box.width, label.shape[1]))
        if (label[area] == box.label).mean() < LEAST_SHARE:
            drawn[area] = box.label + _NUMBER * number
    return torch.from_numpy(drawn)


def box_label(boxes: Tensor) -> Tensor:
    """Class id of each pixel's box in what `unmasked_boxes` gives, 0 where there is none."""
    return boxes % _NUMBER


def renumbered(boxes: Tensor) -> Tensor:
    """The same boxes under other numbers, so that they stay apart from those of another image."""
    return torch.where(boxes > 0, boxes + _NUMBER * _NUMBER, boxes)


def whole_boxes(boxes: Tensor, before: Tensor) -> Tensor:
    """Of boxes that something was laid over, those that lost no pixel by it."""
    cut = before[(boxes != before) & (before > 0)].unique()
    return boxes.masked_fill(torch.isin(boxes, cut), 0)


def partial_labels(labels: Tensor, boxes: Tensor, classes: int, looked_for: Collection[int] | None) -> Tensor:
    """Label map with sets of classes where it says no more.

    Args:
        labels: (H, W) int64 class ids, 255 = not known.
        boxes: (H, W) int64, from `unmasked_boxes`.
        classes: number of classes K.
        looked_for: ids of the only classes that the map looks for; None for all.

    Returns:
        (H, W) int64: 0 in a map that looks for some classes may be any of the others; 0 within a box without a mask may
        be the class of the box, too.
    """
    others = {0} if looked_for is None else set(range(classes)) - set(looked_for)
    empty = labels == 0
    known = labels if looked_for is None else labels.masked_fill(empty, any_of(others))
    if not boxes.any():
        return known
    inside = box_label(boxes)
    for label in inside.unique().tolist():
        if label:
            known = known.masked_fill(empty & (inside == label), any_of(others | {label}))
    return known
