"""Cameras that see nothing, or no more: what they send takes no part in the fused picture, and that is said."""

import warnings
from dataclasses import replace
from typing import Literal

import numpy as np

from tectum.arrays import Float
from tectum.data.pair import InputWarning, Pair
from tectum.predict.colour import luminance

_TOLERANCE = 2 / 255
_LEAST_SHARE = 0.001
_SATURATED_SHARE = 0.98
_ANOTHER_SCENE = 0.2
_THINNED = 4
_WINDOW = 9

Source = Literal["visible", "infrared"]


def blindness(image: Float) -> str | None:
    """Why a grey image (H, W) in [0, 1] shows nothing, or None where it shows something.

    It is constant, as while a shutter is closed; or at most a thousandth of its pixels differ from its median by more
    than two of 255 levels; or 98 % of it are white. Dark images with lamps in them are none of this.
    """
    if image.min() == image.max():
        return "constant"
    # A median takes long, and what varies much needs none.
    if image.std() < 0.04 and np.mean(np.abs(image - np.median(image)) > _TOLERANCE) <= _LEAST_SHARE:
        return "nearly flat"
    return "saturated" if np.mean(image >= 1) >= _SATURATED_SHARE else None


def without_blind(pair: Pair) -> Pair:
    """The pair, with `lost` set and an `InputWarning` where one of its images shows nothing."""
    if pair.lost is not None:
        return pair
    found = {name: blindness(_grey(pair, name)) for name in _SOURCES}
    blind = [name for name in _SOURCES if found[name] is not None]
    for name in blind:
        fate = "neither image shows anything" if len(blind) > 1 else "the other image alone makes the picture"
        _warn(f"the {name} image of pair '{pair.name}' is {found[name]}: {fate}; check that camera")
    return without(pair, blind[0]) if len(blind) == 1 else pair


class FrozenCameras:
    """Looks for cameras that have stopped, in pairs that come one after another.

    No camera sends the same image twice, since its sensor has noise. Where one image of a pair is that of the pair
    before and the other is not, the camera may have stopped, or the pair may be the same scene in other weather: that
    is said. Once the other image shows another scene, the one that stands still takes no part.
    """

    def __init__(self) -> None:
        self._before: Pair | None = None
        self._since: dict[Source, Pair] = {}

    def __call__(self, pair: Pair) -> Pair:
        """The pair, with `lost` set where a camera has stopped; an `InputWarning` where one may have."""
        before, self._before = self._before, pair
        if before is None or pair.lost is not None:
            return pair
        same = [name for name in _SOURCES if np.array_equal(_image(pair, name), _image(before, name))]
        if len(same) != 1:
            self._since.clear()
            return pair
        frozen = same[0]
        other: Source = "visible" if frozen == "infrared" else "infrared"
        since = self._since.get(frozen)
        if since is None:
            self._since = {frozen: before}
            since = before
            _warn(
                f"the {frozen} image of pair '{pair.name}' is the same as that of '{before.name}', but the {other} one "
                "is not: unless they are made of one picture, that camera has stopped"
            )
        if min(pair.infrared.shape) < _THINNED or _likeness(_grey(pair, other), _grey(since, other)) > _ANOTHER_SCENE:
            return pair
        _warn(
            f"the {frozen} image of pair '{pair.name}' has been frozen since '{since.name}': "
            "the other image alone makes the picture; check that camera"
        )
        return without(pair, frozen)


_SOURCES: tuple[Source, Source] = ("infrared", "visible")


def _image(pair: Pair, name: Source) -> Float:
    return pair.infrared if name == "infrared" else pair.visible


def _grey(pair: Pair, name: Source) -> Float:
    return pair.infrared if name == "infrared" else luminance(pair.visible)


def _likeness(first: Float, second: Float) -> float:
    """Correlation of the detail of two grey images, each at its own local contrast: about 0 for two scenes."""
    from scipy.ndimage import uniform_filter  # a fifth of a second, which a single pair need not wait for

    details = []
    for image in (first, second):
        height, width = (side // _THINNED for side in image.shape)
        parts = image[: height * _THINNED, : width * _THINNED].reshape(height, _THINNED, width, _THINNED)
        small = parts.mean(axis=(1, 3), dtype=np.float64)
        detail = small - uniform_filter(small, _WINDOW)
        strength = np.sqrt(np.maximum(uniform_filter(detail**2, _WINDOW), 0))
        details.append(detail / (strength + _TOLERANCE))
    squares = float((details[0] ** 2).sum() * (details[1] ** 2).sum())
    return float((details[0] * details[1]).sum()) / max(squares**0.5, 1e-12)


def without(pair: Pair, lost: Source, grey: float | None = None) -> Pair:
    """The pair whose lost image is of one grey, by default its mean, so that the network sees no ghosts in it."""
    image = _image(pair, lost)
    flat = np.full_like(image, image.mean() if grey is None else grey)
    if lost == "infrared":
        return replace(pair, infrared=flat, lost=lost)
    return replace(pair, visible=flat, lost=lost)


def _warn(text: str) -> None:
    warnings.warn(text, InputWarning, stacklevel=4)
