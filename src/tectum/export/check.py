"""Comparison of an exported file with the network in torch, before the file gets its name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tectum.arrays import Float
from tectum.data.pair import PairPaths, read_pair
from tectum.engines.base import Engine
from tectum.errors import TectumError
from tectum.export.samples import inputs
from tectum.scenes import render_scene

# Below float32 single pixels may differ by anything: a choice between the sources falls the other way, and the
# invertible blocks of MAFS amplify rounding, most of all with random weights. So the mean counts, and only gross faults
# can fail.
LARGEST_DIFFERENCE = {"float32": 0.1, "bfloat16": math.inf, "int8": math.inf}
"""Largest difference of the fused image, in grey levels of 1/255, with which a file of a precision passes its check."""

MEAN_DIFFERENCE = {"float32": 0.1, "bfloat16": 16.0, "int8": math.inf}
"""The same for the mean difference."""

SMALLEST_AGREEMENT = {"float32": 0.999, "bfloat16": 0.9, "int8": 0.0}
"""Smallest share of pixels with the same label with which a file of a precision passes its check."""

# Neither of them is the size that is traced, and their multiples of the stride are odd as well as even.
_RANDOM_CHECK, _SCENE_CHECK = (3, 7), (4, 5)
_SCENE_SEED = 9  # a street by day with people, cars and bikes


class ExportError(TectumError):
    """A network that cannot be exported, or whose export does not equal it."""


@dataclass(frozen=True)
class Check:
    """How an exported file differs from the network in torch, on one input.

    Attributes:
        content: "random", "rendered scene" or a pair's name.
        size: batch, height and width.
        fused: largest difference of the fused images, in grey levels of 1/255.
        fused_mean: mean difference of the fused images, in the same.
        labels: share of the pixels with the same label.
    """

    content: str
    size: tuple[int, int, int]
    fused: float
    fused_mean: float
    labels: float


def example_pair(table: Sequence[PairPaths], stride: int) -> tuple[str, Float, Float]:
    """The first pair, or a rendered scene: what it is, visible (1, 3, H, W) and infrared (1, 1, H, W)."""
    if table:
        return table[0].name, *inputs(read_pair(table[0]), stride)
    height, width = (side * stride for side in _SCENE_CHECK)
    return "rendered scene", *inputs(render_scene(_SCENE_SEED, (height, width), "day"), stride)


def compare(reference: Engine, exported: Engine, example: tuple[str, Float, Float]) -> list[Check]:
    """Run both on two random pairs at once and on one real or rendered pair."""
    rng = np.random.default_rng(0)
    height, width = (side * reference.stride for side in _RANDOM_CHECK)
    random = (
        "random",
        rng.random((2, 3, height, width), np.float32),
        rng.random((2, 1, height, width), np.float32),
    )
    checks = []
    for content, visible, infrared in (random, example):
        expected, found = reference.run(visible, infrared), exported.run(visible, infrared)
        difference = 255 * np.abs(found.fused - expected.fused)
        checks.append(
            Check(
                content,
                (len(visible), *visible.shape[2:]),
                float(difference.max()),
                float(difference.mean()),
                float((found.logits.argmax(1) == expected.logits.argmax(1)).mean()),
            )
        )
    return checks


def require_equal(checks: Sequence[Check], precision: str) -> None:
    """Raise ExportError unless all checks of a file of a precision pass."""
    for check in checks:
        # Written so that NaN fails, whatever the precision.
        passes = check.fused <= LARGEST_DIFFERENCE[precision] and check.fused_mean <= MEAN_DIFFERENCE[precision]
        if not (passes and check.labels >= SMALLEST_AGREEMENT[precision]):
            batch, height, width = check.size
            raise ExportError(
                f"the exported network differs from the one in torch ({check.content}, {batch} x {width}x{height}: "
                f"fused by {check.fused_mean:.3g} of 255 in the mean, {check.fused:.3g} at most, "
                f"{100 * check.labels:.2f} % of the labels equal), so nothing was written: the weights may hold NaN, "
                "or the exporting packages may have a fault"
            )
