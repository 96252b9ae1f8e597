"""What is in a data set: class counts and weights, image sizes, brightness."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tectum.arrays import LUMA, Float
from tectum.data.datasets import Problem, dataset_info, scan_pairs
from tectum.data.pair import (
    IGNORE,
    PairPaths,
    read_pair,
)
from tectum.data.parallel import Progress, each
from tectum.errors import InputError


class ClassCount(NamedTuple):
    """How often one class occurs.

    Attributes:
        name: the class.
        pixels: labelled pixels of this class.
        frequency: part of all pixels that count, 0..1.
        images: label maps that contain it.
        enet: weight 1 / ln(1.02 + frequency).
        median_frequency: weight by median-frequency balancing; 0 for a class that does not occur.
    """

    name: str
    pixels: int
    frequency: float
    images: int
    enet: float
    median_frequency: float


class Brightness(NamedTuple):
    """Grey values of one modality over all pixels of all images, in [0, 1].

    Attributes:
        mean: mean over all pixels.
        std: standard deviation over all pixels.
        darkest: lowest mean of an image.
        brightest: highest mean of an image.
    """

    mean: float
    std: float
    darkest: float
    brightest: float


@dataclass(frozen=True)
class Stats:
    """What `dataset_stats` counted.

    Attributes:
        root: the folder that was read.
        dataset: what it was read as.
        pairs: pairs that could be read.
        labelled: how many of them have a label map.
        classes: one entry for each id, in order.
        ignored: part of the labelled pixels that is ignored, 0..1.
        sizes: pairs of each size, as "640x480" (width x height).
        visible: brightness of the visible images' luminance.
        infrared: brightness of the infrared images.
        problems: pairs left out because they could not be read or found.
    """

    root: Path
    dataset: str
    pairs: int
    labelled: int
    classes: list[ClassCount]
    ignored: float
    sizes: dict[str, int]
    visible: Brightness
    infrared: Brightness
    problems: list[Problem]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "root": str(self.root),
            "dataset": self.dataset,
            "pairs": self.pairs,
            "labelled": self.labelled,
            "classes": [{"id": i, **entry._asdict()} for i, entry in enumerate(self.classes)],
            "ignored": self.ignored,
            "sizes": self.sizes,
            "visible": self.visible._asdict(),
            "infrared": self.infrared._asdict(),
            "problems": [problem._asdict() for problem in self.problems],
        }


def enet_weights(pixels: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Class weights 1 / ln(1.02 + p), p the class's share of all pixels: from 1.42 (all pixels) to 50.5 (none).

    Source: A. Paszke et al., "ENet: A deep neural network architecture for real-time semantic segmentation", 2016.

    Args:
        pixels: (K,) pixel counts, ignored pixels left out.
    """
    counts = np.asarray(pixels, np.float64)
    return 1 / np.log(1.02 + counts / max(counts.sum(), 1.0))


def median_frequency_weights(pixels: npt.ArrayLike, image_pixels: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Class weights median(f) / f, f the class's share of the pixels of those images that contain it.

    Source: D. Eigen, R. Fergus, "Predicting depth, surface normals and semantic labels with a common multi-scale
    convolutional architecture", ICCV 2015. A class that does not occur gets 0 and is left out of the median.

    Args:
        pixels: (K,) pixel counts, ignored pixels left out.
        image_pixels: (K,) counted pixels of all images that contain the class.
    """
    counts = np.asarray(pixels, np.float64)
    frequency = counts / np.maximum(np.asarray(image_pixels, np.float64), 1.0)
    present = counts > 0
    weights = np.zeros_like(frequency)
    if present.any():
        weights[present] = np.median(frequency[present]) / frequency[present]
    return weights


class _Sums(NamedTuple):
    """What one pair adds to the statistics."""

    size: str
    ids: npt.NDArray[np.int64] | None  # (256,) pixels of each id
    grey: tuple[tuple[float, float, int], tuple[float, float, int]]  # sum, sum of squares, pixels: visible, infrared


def dataset_stats(
    root: str | Path,
    dataset: str = "folder",
    split: str | None = None,
    *,
    value_range: tuple[float, float] | None = None,
    workers: int | None = None,
    on_start: Callable[[int], None] | None = None,
    on_pair: Progress | None = None,
) -> Stats:
    """Count classes, sizes and brightness of a data set; pixels with an ignored id are left out of all class figures.

    Arguments and errors are those of `check_dataset`.
    """
    info = dataset_info(dataset)
    pairs, problems = scan_pairs(root, dataset, split)
    if on_start is not None:
        on_start(len(pairs))

    def sums(paths: PairPaths) -> _Sums | Problem:
        try:
            pair = read_pair(paths, value_range=value_range, classes=len(info.classes) or None, ignore=info.ignore)
        except InputError as error:
            return Problem("unreadable pair", paths.name, str(error))
        ids = None if pair.label is None else np.bincount(pair.label.ravel(), minlength=256)
        luminance = pair.visible @ np.array(LUMA, np.float32)  # (H, W, 3) -> (H, W)
        height, width = pair.infrared.shape
        return _Sums(f"{width}x{height}", ids, (_moments(luminance), _moments(pair.infrared)))

    results = each(sums, pairs, workers, on_pair)
    read = [result for result in results if isinstance(result, _Sums)]
    problems = [*problems, *(result for result in results if isinstance(result, Problem))]
    if not read:
        raise InputError(f"no pair of '{root}' can be read: {problems[0].message}")

    table = np.array([result.ids for result in read if result.ids is not None]).reshape(-1, 256)  # (labelled, 256)
    used = np.flatnonzero(table[:, :IGNORE].sum(axis=0))
    count = len(info.classes) or (int(used[-1]) + 1 if used.size else 0)
    names = info.classes or tuple(f"id {i}" for i in range(count))
    per_image = table[:, :count]
    pixels = per_image.sum(axis=0)
    image_pixels = ((per_image > 0) * per_image.sum(axis=1, keepdims=True)).sum(axis=0)
    columns = zip(
        names,
        pixels.tolist(),
        (pixels / max(pixels.sum(), 1)).tolist(),
        (per_image > 0).sum(axis=0).tolist(),
        enet_weights(pixels).tolist(),
        median_frequency_weights(pixels, image_pixels).tolist(),
        strict=True,
    )
    visible, infrared = (_brightness([result.grey[i] for result in read]) for i in (0, 1))
    return Stats(
        root=Path(root),
        dataset=dataset,
        pairs=len(read),
        labelled=len(table),
        classes=[ClassCount(*column) for column in columns] if len(table) else [],
        ignored=float(table[:, IGNORE].sum() / max(table.sum(), 1)),
        sizes=dict(Counter(result.size for result in read).most_common()),
        visible=visible,
        infrared=infrared,
        problems=sorted(problems),
    )


def _moments(image: Float) -> tuple[float, float, int]:
    values = image.astype(np.float64)
    return float(values.sum()), float(np.square(values).sum()), values.size


def _brightness(images: Sequence[tuple[float, float, int]]) -> Brightness:
    total, squares, pixels = (sum(column) for column in zip(*images, strict=True))
    mean = total / pixels
    means = [one / count for one, _, count in images]
    return Brightness(mean, float(np.sqrt(max(squares / pixels - mean * mean, 0.0))), min(means), max(means))
