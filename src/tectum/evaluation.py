"""The one scoring loop: behind `tectum.evaluate`, `tectum eval`, validation in training, and what a precision costs."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from tectum.arrays import Float, luma
from tectum.data.boxes import Box, read_boxes
from tectum.data.datasets import Problem
from tectum.data.pair import IGNORE, Pair, PairPaths, read_pair
from tectum.errors import InputError
from tectum.metrics.calibration import CalibrationScores
from tectum.metrics.conventions import score
from tectum.metrics.objects import ContrastScores, ObjectContrast, object_contrasts, objects_in_boxes, objects_of_class
from tectum.metrics.segmentation import BoxAgreement, SegmentationScores
from tectum.predict import Prediction, Predictor, blind
from tectum.predict.blind import Source

Metrics = Iterable[str] | Literal["all"] | None

LOST: dict[Source, float] = {"visible": 0.0, "infrared": 0.5}
"""What a lost camera shows everywhere: a visible one black, an infrared one grey."""


class Scored(NamedTuple):
    """One prediction and the values of its fusion metrics."""

    prediction: Prediction
    values: dict[str, float]


@dataclass
class Evaluation:
    """Scores of a model on pairs.

    Attributes:
        images: values of the fusion metrics of each image, by name, in the order of the pairs.
        segmentation: the confusion matrix over all images that have labels, and what follows from it.
        calibration: whether the labels are right as often as their confidence says, over the same pixels.
        boxes: agreement with the human boxes of those images that have a file of them.
        contrast: whether objects stand out in the fused images as they do in the sources.
        labelled: number of images with labels.
        problems: pairs that could not be scored; they count in nothing else.
    """

    segmentation: SegmentationScores
    calibration: CalibrationScores = field(default_factory=CalibrationScores)
    images: dict[str, dict[str, float]] = field(default_factory=dict)
    boxes: BoxAgreement = field(default_factory=BoxAgreement)
    contrast: ContrastScores = field(default_factory=ContrastScores)
    labelled: int = 0
    problems: list[Problem] = field(default_factory=list)

    def means(self) -> dict[str, float]:
        """Mean of each fusion metric; "miou" over the classes present, 0 counted, where a pixel is labelled."""
        metrics = next(iter(self.images.values()), {})
        means = {key: sum(image[key] for image in self.images.values()) / len(self.images) for key in metrics}
        return means | ({"miou": float(self.segmentation.compute()["miou"])} if self.segmentation.matrix.any() else {})


def evaluate(
    predictor: Predictor,
    pairs: Sequence[PairPaths],
    *,
    metrics: Metrics = None,
    convention: str = "tectum",
    boxes: bool = False,
    objects: str = "person",
    looked_for: Collection[int] | None = None,
    without: Source | None = None,
    batch: int = 1,
    read: Callable[[PairPaths], Pair] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score a model on pairs: fusion, segmentation where there are labels, agreement with boxes where there are boxes.

    The pictures are scored as they are saved: 8-bit RGB, in luminance unless the convention says otherwise.

    Args:
        predictor: makes the pictures and the labels.
        pairs: for example `tectum.data.datasets.pair_table("MSRS", "msrs", "test")`.
        metrics: keys of `tectum.metrics.METRICS`, or "all"; by default the convention's usual ones.
        convention: whose definitions, a key of `tectum.metrics.CONVENTIONS`.
        boxes: also compare the labels with box files, whose ids are those of MSRS.
        objects: name of the class whose contrast is looked at, in label maps, or with `boxes` where there is only a box
            file; none is where the predictor has no class of that name.
        looked_for: ids of the only classes that the label maps look for; all others count as 0, in predictions too.
        without: a camera that is lost: the predictor sees one grey in its place, `LOST`.
        batch: pairs of one size that go through the network together.
        read: how a pair is read; by default labels are checked against the predictor's classes.
        advance: called once for each pair that is done with.

    Raises:
        ConfigError: an unknown convention or metric.
        WeightsError: the model's metadata are damaged.

    Example:
        >>> from tectum.data.datasets import pair_table  # doctest: +SKIP
        >>> scores = evaluate(Predictor(), pair_table("MSRS", "msrs", "test"))  # doctest: +SKIP
        >>> scores.means()["miou"]  # doctest: +SKIP
        0.53
    """
    found = Evaluation(SegmentationScores(predictor.classes, ignore=255))  # what is ignored was read as 255
    looked_at = predictor.class_names.index(objects) if objects in predictor.class_names else None
    qualified = len({paths.split for paths in pairs}) > 1  # names may repeat between splits
    read = read or partial(read_pair, classes=predictor.classes)
    if without is not None:
        read = _blinded(read, without)
    for item in scored(predictor, pairs, metrics=metrics, convention=convention, batch=batch, read=read):
        if isinstance(item, Problem):
            found.problems.append(item)
        else:
            paths, label = item.prediction.paths, item.prediction.pair.label
            try:
                drawn = read_boxes(paths.boxes) if boxes and paths.boxes else None
            except InputError as error:
                found.problems.append(Problem("not scored", paths.name, str(error)))
            else:
                found.images[f"{paths.split}/{paths.name}" if qualified else paths.name] = item.values
                labels = torch.from_numpy(item.prediction.result.labels)
                if label is not None:
                    found.labelled += 1
                    truth, confidence = torch.from_numpy(label), torch.from_numpy(item.prediction.result.confidence)
                    compared = labels if looked_for is None else _only(labels, looked_for)
                    # What the predictor calls unknown counts nowhere.
                    known = (truth != IGNORE) & (labels != IGNORE)
                    found.segmentation.update(compared.where(known, 0), truth.where(known, IGNORE))
                    found.calibration.update(confidence[known], compared[known] == truth[known])
                if drawn is not None:
                    found.boxes.update(labels[None], [drawn])
                if looked_at is not None:
                    found.contrast.update(_contrasts(item.prediction, drawn or [], looked_at))
        advance()
    return found


def flood(matrix: torch.Tensor, looked_for: Collection[int]) -> float:
    """Share of the pixels that are none of some classes and yet carry one of them; NaN where there are none.

    Args:
        matrix: (K, K) counts, true classes in rows, predicted ones in columns.
        looked_for: ids of the classes.
    """
    others = [label for label in range(len(matrix)) if label not in looked_for]
    rows = matrix[others].double()
    return float(rows[:, list(looked_for)].sum() / rows.sum())


def _only(labels: torch.Tensor, looked_for: Collection[int]) -> torch.Tensor:
    return labels.where(torch.isin(labels, torch.tensor([*looked_for, IGNORE], dtype=labels.dtype)), 0)


def _blinded(read: Callable[[PairPaths], Pair], lost: Source) -> Callable[[PairPaths], Pair]:
    return lambda paths: blind.without(read(paths), lost, LOST[lost])


def _contrasts(prediction: Prediction, boxes: Sequence[Box], label: int) -> list[ObjectContrast]:
    pair = prediction.pair
    if pair.label is not None:
        objects = objects_of_class(pair.label, label)
    else:
        objects = objects_in_boxes(boxes, label, pair.infrared.shape)
    if not objects:
        return []
    fused, visible, _ = (luma(*image) if len(image) == 3 else image[0] for image in prediction.compared())
    return object_contrasts(fused, visible, pair.infrared, objects)


def scored(
    predictor: Predictor,
    pairs: Iterable[PairPaths],
    *,
    metrics: Metrics = None,
    convention: str = "tectum",
    batch: int = 1,
    read: Callable[[PairPaths], Pair] | None = None,
) -> Iterator[Scored | Problem]:
    """Each pair's prediction with the values of its fusion metrics, or the problem that it has, in order."""
    keys = metrics if metrics is None or metrics == "all" else tuple(metrics)
    read = read or partial(read_pair, classes=predictor.classes)
    for one in predictor.stream(pairs, batch=batch, read=read):
        if isinstance(one, Problem):
            yield one
            continue
        try:
            values = score_image(*one.compared(), metrics=keys, convention=convention)
        except InputError as error:
            yield Problem("not scored", one.paths.name, str(error))
        else:
            yield Scored(one, values)


def score_image(
    fused: Float, visible: Float, infrared: Float, *, metrics: Metrics = None, convention: str = "tectum"
) -> dict[str, float]:
    """Fusion metrics of one picture; arrays (3, H, W) or (1, H, W) in [0, 1], see `tectum.metrics.score`."""
    images: Any = (torch.from_numpy(image)[None] for image in (fused, visible, infrared))
    return {key: float(value) for key, value in score(*images, metrics=metrics, convention=convention).items()}


@dataclass(frozen=True)
class PrecisionCost:
    """What a precision below float32 costs, on given pairs at their own size; for INT8 those that calibrated it.

    Attributes:
        pairs: how many.
        fused_max: largest difference of the fused luminance, in grey levels of 1/255.
        fused_mean: mean absolute difference, in the same.
        labels: share of the pixels with the same label.
        before: means of the fusion metrics `qabf` and `mi` of the exact predictor.
        after: the same of the rounded one.
    """

    pairs: int
    fused_max: float
    fused_mean: float
    labels: float
    before: dict[str, float]
    after: dict[str, float]


def precision_cost(exact: Predictor, rounded: Predictor, pairs: Sequence[PairPaths]) -> PrecisionCost:
    """Compare two predictors of the same weights on pairs, by the whole path that a user's pair takes.

    Raises:
        InputError: a pair that cannot be used.
    """
    largest, total, equal, pixels = 0.0, 0.0, 0, 0
    sums: list[dict[str, float]] = [{}, {}]
    streams = (scored(predictor, pairs, metrics=("qabf", "mi")) for predictor in (exact, rounded))
    for both in zip(*streams, strict=True):
        results = []
        for item, means in zip(both, sums, strict=True):
            if isinstance(item, Problem):
                raise InputError(f"pair '{item.name}' cannot be used: {item.message}")
            results.append(item.prediction.result)
            for key, value in item.values.items():
                means[key] = means.get(key, 0.0) + value
        difference = 255 * np.abs(results[1].luminance - results[0].luminance)
        largest, total = max(largest, float(difference.max())), total + float(difference.sum(dtype=np.float64))
        equal, pixels = equal + int((results[1].labels == results[0].labels).sum()), pixels + results[0].labels.size
    before, after = ({key: value / len(pairs) for key, value in means.items()} for means in sums)
    return PrecisionCost(len(pairs), largest, total / pixels, equal / pixels, before, after)
