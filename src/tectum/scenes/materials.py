"""What scenes are made of: materials, lamps, weather, colours, and the ids of MSRS."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONDITIONS = ("day", "night", "glare", "fog")

CAR, PERSON, BIKE, CURVE, CAR_STOP, GUARDRAIL, CONE, BUMP = range(1, 9)

Array = NDArray[np.floating[Any]]
Point = tuple[float, float, float]  # metres: right of the camera, above the ground, ahead of the camera
Colour = tuple[float, float, float]

SAMPLES = 3  # per pixel and axis; odd, so that one sample lies at the pixel's centre
NEAR = 0.35  # metres; nothing nearer is drawn
EYE = 1.45  # metres, height of the camera
PLAN = (60, 120)  # metres across and ahead
PLAN_SCALE = 4  # cells per metre
AIR = 12.0  # °C
BLACK: Colour = (0.0, 0.0, 0.0)


class Material(NamedTuple):
    """How a surface looks in both spectra. `colour` is linear albedo, `glow` emitted light, `heat` in °C."""

    colour: Colour
    heat: float = AIR
    label: int = 0
    glow: Colour = BLACK
    gloss: float = 0.0  # share of mirrored sky
    grain: float = 0.12  # relative contrast of the texture
    thermal_grain: float = 0.35  # °C
    solar: float = 3.0  # °C gained under full sun


class Light(NamedTuple):
    """A lamp. `reach` is the intensity at one metre, `aim` the axis of its cone, `spread` the cone's sharpness."""

    position: Point
    colour: Colour
    aim: Point
    spread: float


class Flare(NamedTuple):
    """A lamp that shines into the lens."""

    position: Point
    colour: Colour
    strength: float


class Weather(NamedTuple):
    """Light and air of one condition; colours are linear light."""

    sun: Colour
    sky: Colour  # light from all of the sky
    zenith: Colour
    horizon: Colour  # also the colour of the haze
    haze: float  # extinction per metre
    exposure: float
    noise: float
    lamps: bool = False


_DARK = Weather(
    sun=(0.0, 0.0, 0.0),
    sky=(0.0035, 0.0050, 0.0080),
    zenith=(0.0012, 0.0016, 0.0036),
    horizon=(0.0060, 0.0056, 0.0065),
    haze=0.0015,
    exposure=1.1,
    noise=0.025,
    lamps=True,
)
WEATHER = {
    "day": Weather(
        sun=(2.70, 2.45, 2.05),
        sky=(0.42, 0.50, 0.66),
        zenith=(0.13, 0.30, 0.68),
        horizon=(0.62, 0.74, 0.88),
        haze=0.0014,
        exposure=1.15,
        noise=0.008,
    ),
    "night": _DARK,
    "glare": _DARK,
    "fog": Weather(
        sun=(0.0, 0.0, 0.0),
        sky=(0.80, 0.84, 0.88),
        zenith=(0.74, 0.77, 0.80),
        horizon=(0.70, 0.73, 0.76),
        haze=0.034,
        exposure=0.85,
        noise=0.012,
    ),
}


def rgb(red: int, green: int, blue: int) -> Colour:
    """Linear albedo of an sRGB colour."""
    return ((red / 255) ** 2.2, (green / 255) ** 2.2, (blue / 255) ** 2.2)


def scaled(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def choose(rng: np.random.Generator, options: Sequence[Colour]) -> Colour:
    return options[int(rng.integers(len(options)))]
