"""Segmentation metrics: scores of a confusion matrix, agreement of outlines, and agreement with boxes that people drew.

What holds for them:

- Counts are accumulated over all images before any ratio is taken; a mean of per-image IoU is something else.
- Pixels whose target has an ignored id are left out altogether.
- A class that occurs neither in the targets nor in the predictions has no IoU (NaN) and is left out of the means.
- The boundary F-score alone is taken per image and then averaged, as its authors do.
- The mean IoU is given with class 0 (in most sets "unlabelled" or background) and without it.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad
from torchmetrics import Metric

from tectum.data.boxes import MSRS_BOX_CLASSES, Box, covered_pixels, read_boxes
from tectum.errors import ConfigError, InputError

__all__ = [
    "MSRS_BOX_CLASSES",
    "BoundaryScores",
    "Box",
    "BoxAgreement",
    "SegmentationScores",
    "boundary_f_score",
    "box_agreement",
    "box_counts",
    "confusion_matrix",
    "read_boxes",
    "segmentation_scores",
]

_FOUND_SHARE = 0.25
_BOUNDARY_SHARE = 0.0075  # of the image's diagonal


def confusion_matrix(labels: Tensor, target: Tensor, classes: int, ignore: int | Collection[int] = 255) -> Tensor:
    """Count the pixels of every pair of true and predicted class.

    Args:
        labels: predicted class ids, an integer tensor of any shape; 0..classes − 1 wherever the target counts.
        target: true class ids, of the same shape.
        classes: number of classes K.
        ignore: target id, or ids, whose pixels are left out.

    Returns:
        (K, K) int64; entry [t, p] is the number of pixels of true class t that were predicted as p.

    Raises:
        InputError: unequal shapes, types other than integers, or ids that are neither a class nor ignored.
        ConfigError: less than one class.

    >>> confusion_matrix(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 255]), classes=2)
    tensor([[1, 1],
            [0, 1]])
    """
    predicted, true, ignored = _checked_ids(labels, target, classes, ignore)
    counted = ~ignored
    return torch.bincount(true[counted] * classes + predicted[counted], minlength=classes**2).view(classes, classes)


def _checked_ids(
    labels: Tensor, target: Tensor, classes: int, ignore: int | Collection[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted and true ids as int64, and which of the true ones are ignored; `confusion_matrix` says what raises."""
    if classes < 1:
        raise ConfigError(f"a confusion matrix needs at least one class, not {classes}")
    for name, ids in (("labels", labels), ("target", target)):
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            hint = "; of class scores, pass the argmax over the class dimension" if ids.is_floating_point() else ""
            raise InputError(f"{name}: expected integer class ids, found {ids.dtype}{hint}")
    if labels.shape != target.shape:
        raise InputError(f"labels {tuple(labels.shape)} and target {tuple(target.shape)} must have one shape")
    # int64 before any comparison: an ignored id need not fit the type of the label map.
    true, predicted = target.long(), labels.long()
    ignored = torch.zeros_like(true, dtype=torch.bool)
    for value in [ignore] if isinstance(ignore, int) else ignore:
        ignored |= true == value
    for name, ids in (("target", true), ("labels", predicted)):
        unknown = ids[~ignored & ((ids < 0) | (ids >= classes))]
        if len(unknown):
            found = ", ".join(str(int(value)) for value in unknown.unique()[:8])
            raise InputError(f"{name}: ids {found} are neither one of the {classes} classes (from 0) nor ignored")
    return predicted, true, ignored


def segmentation_scores(matrix: Tensor) -> dict[str, Tensor]:
    """Scores of a confusion matrix.

    With TP, FP and FN the pixels of a class that were found, wrongly claimed, and missed: IoU = TP / (TP + FP + FN),
    precision = TP / (TP + FP), recall = TP / (TP + FN), also called class accuracy. What would be 0 / 0 is NaN. Higher
    is better for each.

    Args:
        matrix: (K, K) counts, true classes in rows, predicted ones in columns.

    Returns:
        float64 tensors:
            iou, precision, recall: (K,), per class.
            miou: mean IoU over the classes that occur in targets or predictions, class 0 among them.
            miou_without_0: the same without class 0.
            class_accuracy: mean recall over the classes that occur in the targets, class 0 among them.
            pixel_accuracy: share of the pixels that have the right class.

    Raises:
        InputError: not a square matrix.

    >>> scores = segmentation_scores(torch.tensor([[6, 2], [1, 3]]))
    >>> scores["iou"], scores["pixel_accuracy"]
    (tensor([0.6667, 0.5000], dtype=torch.float64), tensor(0.7500, dtype=torch.float64))
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"expected a square confusion matrix, found shape {tuple(matrix.shape)}")
    counts = matrix.double()
    right, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    iou, recall = right / (true + predicted - right), right / true
    return {
        "iou": iou,
        "precision": right / predicted,
        "recall": recall,
        "miou": iou.nanmean(),
        "miou_without_0": iou[1:].nanmean(),
        "class_accuracy": recall.nanmean(),
        "pixel_accuracy": right.sum() / counts.sum(),
    }


class SegmentationScores(Metric):
    """Scores of one confusion matrix accumulated over all images, and over all processes.

    Example:
        >>> import torch
        >>> scores = SegmentationScores(classes=3)
        >>> scores.update(torch.tensor([[0, 1, 1, 2]]), torch.tensor([[0, 1, 0, 255]]))
        >>> scores.compute()["iou"]
        tensor([0.5000, 0.5000,    nan], dtype=torch.float64)

    Args:
        classes: number of classes.
        ignore: target id, or ids, whose pixels are left out.
        **kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    matrix: Tensor

    def __init__(self, classes: int, *, ignore: int | Collection[int] = 255, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.ignore = ignore
        self.add_state("matrix", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, labels: Tensor, target: Tensor) -> None:
        """Add predicted and true class ids, two integer tensors of one shape, (B, H, W) or any other."""
        self.matrix += confusion_matrix(labels, target, self.classes, self.ignore).to(self.matrix.device)

    def compute(self) -> dict[str, Tensor]:
        """The scores of `segmentation_scores`; `self.matrix` holds the counts behind them."""
        return segmentation_scores(self.matrix)


def boundary_f_score(
    labels: Tensor, target: Tensor, classes: int, *, ignore: int | Collection[int] = 255, tolerance: float | None = None
) -> Tensor:
    """Boundary F-score (BF) of each class in each image: how well the outlines agree, whatever the areas.

    BF = 2 P R / (P + R), where P is the share of the predicted boundary's pixels that lie within `tolerance` of the
    true boundary, and R the share of the true boundary's pixels within `tolerance` of the predicted one. The boundary
    of a class consists of its pixels that have another class above, below, to the left or to the right; neither the
    border of the image nor that of an ignored region is one. BF is between 0 and 1, NaN if the class has no boundary in
    target and prediction, and 0 if it has one in only one of them. Source: G. Csurka, D. Larlus, F. Perronnin, "What is
    a good evaluation measure for semantic segmentation?", BMVC 2013. Higher is better.

    Args:
        labels: (B, H, W) predicted class ids.
        target: (B, H, W) true class ids.
        classes: number of classes K.
        ignore: target id, or ids, whose pixels are left out of both.
        tolerance: largest distance in pixels; by default 0.75 % of the image's diagonal, as the authors have it, and
            never below one pixel.

    Returns:
        (B, K) float64.

    Raises:
        InputError: unequal shapes, types other than integers, or ids that are neither a class nor ignored.
        ConfigError: less than one class, or a tolerance that is not a positive number.

    >>> target = torch.zeros(1, 8, 8, dtype=torch.int64)
    >>> target[:, 2:6, 2:6] = 1
    >>> boundary_f_score(target.roll(2, dims=2), target, classes=2)
    tensor([[0.5714, 0.7273]], dtype=torch.float64)
    """
    predicted, true, ignored = _checked_ids(labels, target, classes, ignore)
    if labels.ndim != 3:
        raise InputError(f"expected label maps (B, H, W), found {tuple(labels.shape)}")
    height, width = labels.shape[1:]
    if tolerance is None:
        tolerance = max(_BOUNDARY_SHARE * math.hypot(height, width), 1.0)
    if not 0 < tolerance < math.inf:
        raise ConfigError(f"the tolerance must be a positive number of pixels, not {tolerance}")
    scores = []
    for label in range(classes):
        edges = [_boundary((ids == label) & ~ignored, ignored) for ids in (predicted, true)]
        hits = [
            (edge & _within(other, tolerance)).sum((1, 2)).double()
            for edge, other in zip(edges, reversed(edges), strict=True)
        ]
        lengths = [edge.sum((1, 2)).double() for edge in edges]
        precision, recall = (hit / length.clamp_min(1) for hit, length in zip(hits, lengths, strict=True))
        score = 2 * precision * recall / (precision + recall).clamp_min(torch.finfo(torch.float64).tiny)
        scores.append(torch.where(lengths[0] + lengths[1] > 0, score, torch.nan))
    return torch.stack(scores, 1)


def _boundary(inside: Tensor, ignored: Tensor) -> Tensor:
    """Pixels (B, H, W) of a region of which a neighbour belongs neither to it nor to what is ignored."""
    # Beyond the border, nothing is outside the region.
    outside = pad(~(inside | ignored), (1, 1, 1, 1))
    beside = outside[:, 1:-1, :-2] | outside[:, 1:-1, 2:] | outside[:, :-2, 1:-1] | outside[:, 2:, 1:-1]
    return inside & beside


def _within(points: Tensor, distance: float) -> Tensor:
    """Pixels (B, H, W) at most `distance` away from one of the points: a union of rows of a disk."""
    reach, height = int(distance), points.shape[1]
    rows = pad(points.float(), (0, 0, reach, reach))
    near = torch.zeros_like(points)
    for offset in range(-reach, reach + 1):
        half = int(math.sqrt(distance**2 - offset**2))
        row = rows[:, reach + offset : reach + offset + height]
        near |= max_pool2d(row[:, None], (1, 2 * half + 1), stride=1, padding=(0, half))[:, 0] > 0
    return near


class BoundaryScores(Metric):
    """Boundary F-score of each class, the mean over the images in which the class has a boundary, and over processes.

    Args:
        classes: number of classes.
        ignore: target id, or ids, whose pixels are left out.
        tolerance: largest distance in pixels; by default 0.75 % of each image's diagonal.
        **kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    images: Tensor

    def __init__(
        self, classes: int, *, ignore: int | Collection[int] = 255, tolerance: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.ignore = ignore
        self.tolerance = tolerance
        self.add_state("total", torch.zeros(classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, labels: Tensor, target: Tensor) -> None:
        """Add predicted and true class ids, two integer tensors (B, H, W)."""
        scores = boundary_f_score(labels, target, self.classes, ignore=self.ignore, tolerance=self.tolerance)
        self.total += scores.nansum(0).to(self.total.device)
        self.images += (~scores.isnan()).sum(0).to(self.images.device)

    def compute(self) -> dict[str, Tensor]:
        """Float64 tensors: `bf`, (K,) with NaN for a class without any boundary, and `mean_bf`, over the other ones."""
        scores = self.total / self.images
        return {"bf": scores, "mean_bf": scores.nanmean()}


def box_counts(labels: Tensor, boxes: Iterable[Box], classes: Sequence[int]) -> Tensor:
    """Compare one label map with the boxes of the same image, for data that has boxes but no masks.

    A box counts as found when at least 25 % of its pixels carry its class.

    Args:
        labels: (H, W) predicted class ids.
        boxes: the image's boxes; those of other classes are passed over.
        classes: ids of the C classes that the boxes' makers looked for.

    Returns:
        (C, 4) int64, per class: boxes, boxes found, pixels of the class, and those of them inside a box of the class.

    Raises:
        InputError: labels that are not one map of integer ids.

    >>> labels = torch.tensor([[0, 2, 2, 0], [2, 2, 0, 0]])
    >>> box_counts(labels, [Box(2, x=0.5, y=0.5, width=0.5, height=1.0)], classes=(1, 2))
    tensor([[0, 0, 0, 0],
            [1, 1, 4, 3]])
    """
    if labels.ndim != 2 or labels.is_floating_point() or 0 in labels.shape:
        raise InputError(f"expected a label map (H, W) of class ids, found {tuple(labels.shape)}, {labels.dtype}")
    height, width = labels.shape
    boxes = list(boxes)
    counts = []
    for label in classes:
        carried = labels == label
        inside = torch.zeros_like(carried)
        number = found = 0
        for box in boxes:
            if box.label != label:
                continue
            area = (covered_pixels(box.y, box.height, height), covered_pixels(box.x, box.width, width))
            inside[area] = True
            number += 1
            found += int(carried[area].sum()) >= _FOUND_SHARE * carried[area].numel()
        counts.append([number, found, int(carried.sum()), int((carried & inside).sum())])
    return torch.tensor(counts, dtype=torch.int64, device=labels.device).view(len(counts), 4)


def box_agreement(counts: Tensor) -> dict[str, Tensor]:
    """Scores of (C, 4) counts of `box_counts`, of one image or added up over many.

    Returns:
        float64 tensors, NaN where there is nothing to count; higher is better:
            found: (C,), share of the boxes of each class that were found.
            inside: (C,), share of the pixels of each class that lie inside one of its boxes.
            found_all, inside_all: the same over all boxes and all pixels of these classes.

    >>> box_agreement(torch.tensor([[4, 3, 200, 150], [1, 0, 0, 0]]))["found_all"]
    tensor(0.6000, dtype=torch.float64)
    """
    number, found, pixels, inside = counts.double().unbind(1)
    return {
        "found": found / number,
        "inside": inside / pixels,
        "found_all": found.sum() / number.sum(),
        "inside_all": inside.sum() / pixels.sum(),
    }


class BoxAgreement(Metric):
    """Agreement of label maps with boxes that people drew, accumulated over all images and all processes.

    Args:
        classes: ids of the classes that the boxes' makers looked for, by default those of MSRS: car, person, bike.
        **kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    counts: Tensor

    def __init__(self, classes: Sequence[int] = (1, 2, 3), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = tuple(classes)
        self.add_state("counts", torch.zeros(len(self.classes), 4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, labels: Tensor, boxes: Sequence[Iterable[Box]]) -> None:
        """Add a batch: label maps (B, H, W) of class ids, and the boxes of each of the B images."""
        if len(labels) != len(boxes):
            raise InputError(f"{len(labels)} label maps do not fit the boxes of {len(boxes)} images")
        for label_map, image_boxes in zip(labels, boxes, strict=True):
            self.counts += box_counts(label_map, image_boxes, self.classes).to(self.counts.device)

    def compute(self) -> dict[str, Tensor]:
        """The scores of `box_agreement`, in the order of `self.classes`; `self.counts` holds the counts."""
        return box_agreement(self.counts)
