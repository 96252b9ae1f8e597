"""Pairs unlike those that the weights were trained on: told by a few traits, and said in a sentence.

Weights may carry in their metadata, under "calibration", the range of each trait over their training pairs. A pair
beyond a range is fused and labelled all the same, and its labels may be wrong in ways that held-out pairs don't show.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from tectum.arrays import Bytes, Float
from tectum.data.pair import InputWarning, Pair
from tectum.predict.colour import luminance

_SAMPLES = 40_000  # pixels that are looked at, about

TRAITS = {
    "visible_brightness": ("visible image", "darker", "brighter"),
    "visible_contrast": ("visible image", "flatter", "richer in contrast"),
    "visible_detail": ("visible image", "smoother", "rougher"),
    "infrared_brightness": ("infrared image", "darker", "brighter"),
    "infrared_contrast": ("infrared image", "flatter", "richer in contrast"),
    "infrared_detail": ("infrared image", "smoother", "rougher"),
    "common_edges": ("two images", "less alike in their edges", "more alike in their edges"),
    "confidence": ("labels", "less certain", "more certain"),
    "foreground": ("labels", "emptier", "fuller of objects"),
}
"""What each trait is of, and what a pair is called that has less of it, or more."""


def traits(pair: Pair, labels: Bytes, confidence: Float) -> dict[str, float]:
    """The traits of a pair and of its labels, by the keys of `TRAITS`; those of a lost image are left out.

    Brightness and contrast are mean and standard deviation in [0, 1]. Detail is the median step between neighbouring
    pixels over the contrast. Common edges is the correlation of the lengths of both images' gradients. Confidence is
    the mean over the pixels, foreground the share of those with a class other than 0.
    """
    step = max(1, round(math.sqrt(pair.infrared.size / _SAMPLES)))
    found: dict[str, float] = {}
    edges = []
    for name, image in (("visible", luminance(pair.visible)), ("infrared", pair.infrared)):
        if pair.lost == name:
            continue
        corner = image[:-1:step, :-1:step]
        steps = (image[:-1:step, 1::step] - corner, image[1::step, :-1:step] - corner)
        contrast = float(corner.std())
        found[f"{name}_brightness"] = float(corner.mean())
        found[f"{name}_contrast"] = contrast
        lengths = np.hypot(*steps)
        found[f"{name}_detail"] = float(np.median(lengths)) / (contrast + 1e-3)
        edges.append(lengths)
    if len(edges) == 2 and all(lengths.std() > 0 for lengths in edges):
        found["common_edges"] = float(np.corrcoef(edges[0].ravel(), edges[1].ravel())[0, 1])
    thinned = (slice(None, None, step), slice(None, None, step))
    found["confidence"] = float(confidence[thinned].mean())
    found["foreground"] = float(((labels[thinned] != 0) & (labels[thinned] != 255)).mean())
    return found


def say_if_unlike(pair: Pair, found: Mapping[str, float], ranges: Mapping[str, Sequence[float]], model: str) -> None:
    """Warn with an `InputWarning` where a trait lies beyond the range of the training pairs."""
    beyond = []
    for name, (low, high) in ranges.items():
        value = found.get(name)
        if value is None or low <= value <= high or name not in TRAITS:
            continue
        of, less, more = TRAITS[name]
        verb = "are" if of.endswith("s") else "is"
        distance = max(low - value, value - high) / max(high - low, 1e-6)
        beyond.append((distance, f"{of} {verb} {less if value < low else more}"))
    if beyond:
        clauses = [clause for _, clause in sorted(beyond, reverse=True)]
        warnings.warn(
            f"pair '{pair.name}' is unlike those that '{model}' was trained on: its {' and its '.join(clauses[:2])} "
            "than theirs; check the labels before you trust them",
            InputWarning,
            stacklevel=3,
        )
