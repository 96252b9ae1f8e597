"""Street scenes rendered as exact triples of visible image, infrared image and MSRS labels.

A scene is a street in metres: planar polygons with a material, seen by a pinhole camera, drawn far to near into a
buffer of polygon numbers at three times the size. Everything else follows from that one buffer: the labels are the
numbers at the pixel centres, the visible image is lit per pixel from the polygons' planes (sun, sky, lamps, headlights,
fog), and the infrared image comes from the polygons' temperatures. Both are averaged over the 3 x 3 samples of a pixel,
so the three pictures are aligned exactly.

The street is drawn from the seed alone and the condition changes only light, air and the sun's warmth: one seed gives
the same street by day, at night, against headlights (`glare`) and in fog. Glare adds a pedestrian beside dazzling
headlights, whom the visible image hides and the infrared image shows, and leaves out a car that would cross in front.

Labels are the nine of MSRS, with their meaning there: `curve` is the kerb, `car stop` a bollard or a barrier against
cars, `guardrail` a railing, `bump` a raised strip across the road. A rider is a person, what they ride is a bike.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tectum.data.pair import Pair, PairPaths
from tectum.errors import ConfigError
from tectum.files import atomic_path

CONDITIONS = ("day", "night", "glare", "fog")

CAR, PERSON, BIKE, CURVE, CAR_STOP, GUARDRAIL, CONE, BUMP = range(1, 9)

Array = NDArray[np.floating[Any]]
Point = tuple[float, float, float]  # metres: right of the camera, above the ground, ahead of the camera
Colour = tuple[float, float, float]

_SAMPLES = 3  # per pixel and axis; odd, so that one sample lies at the pixel's centre
_NEAR = 0.35  # metres; nothing nearer is drawn
_EYE = 1.45  # metres, height of the camera
_PLAN = (60, 120)  # metres across and ahead
_PLAN_SCALE = 4  # cells per metre
_AIR = 12.0  # °C
_BLACK: Colour = (0.0, 0.0, 0.0)


class Material(NamedTuple):
    """How a surface looks in both spectra. `colour` is linear albedo, `glow` emitted light, `heat` in °C."""

    colour: Colour
    heat: float = _AIR
    label: int = 0
    glow: Colour = _BLACK
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
_WEATHER = {
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


def _rgb(red: int, green: int, blue: int) -> Colour:
    """Linear albedo of an sRGB colour."""
    return ((red / 255) ** 2.2, (green / 255) ** 2.2, (blue / 255) ** 2.2)


def _scaled(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def _choose(rng: np.random.Generator, options: Sequence[Colour]) -> Colour:
    return options[int(rng.integers(len(options)))]


# ---------------------------------------------------------------------------------------------------------------------
# The camera: polygons in, one number per sample out
# ---------------------------------------------------------------------------------------------------------------------


class _Stage:
    """Collects polygons in camera coordinates, in the order in which they are to be painted."""

    def __init__(self, size: tuple[int, int], yaw: float, sun: Point) -> None:
        self.height, self.width = size
        self.focal = 1.12 * self.height
        self.centre = (self.width / 2, 0.44 * self.height)
        self.cos, self.sin = math.cos(yaw), math.sin(yaw)
        self.sun = self.turn(sun)  # towards the sun
        self.numbers = Image.new("I", (self.width * _SAMPLES, self.height * _SAMPLES), 0)
        self.pencil = ImageDraw.Draw(self.numbers)
        self.shadow = Image.new("L", (self.width, self.height), 0)
        self.shadow_pencil = ImageDraw.Draw(self.shadow)
        # The blocks' shadow is kept as a plan of the street, since it also falls on what stands on the ground.
        self.plan = Image.new("L", (_PLAN[0] * _PLAN_SCALE, _PLAN[1] * _PLAN_SCALE), 0)
        self.plan_pencil = ImageDraw.Draw(self.plan)
        self.contact = Image.new("L", (self.width, self.height), 0)
        self.contact_pencil = ImageDraw.Draw(self.contact)
        self.materials = [Material((0, 0, 0), heat=-10.0, grain=0.0, thermal_grain=0.0, solar=0.0)]  # number 0: the sky
        self.planes: list[Point] = [(0.0, 0.0, 1e-4)]
        self.normals: list[Point] = [(0.0, 0.0, -1.0)]
        self.first_thing = 0  # number of the first polygon that stands between the blocks
        self.lights: list[Light] = []
        self.flares: list[Flare] = []

    def turn(self, point: Point) -> Point:
        """Return a point of the street in camera coordinates."""
        x, y, z = point
        return (x * self.cos - z * self.sin, y, x * self.sin + z * self.cos)

    def project(self, point: Point, scale: float) -> tuple[float, float]:
        x, y, z = point
        return (
            (self.centre[0] + self.focal * x / z) * scale - 0.5,
            (self.centre[1] + self.focal * (_EYE - y) / z) * scale - 0.5,
        )

    def pixels(self, metres: float, z: float) -> float:
        return self.focal * metres / max(z, _NEAR)

    def add(
        self, points: Sequence[Point], material: Material, *, normal: Point | None = None, casts: bool = False
    ) -> None:
        """Paint a planar polygon (camera coordinates). `normal` overrides the plane's for shading only."""
        if casts:
            self.cast(points)
        plane = _plane_normal(points)
        x0, y0, z0 = points[0]
        offset = plane[0] * x0 + plane[1] * (y0 - _EYE) + plane[2] * z0
        if abs(offset) < 1e-6:  # seen edge-on
            return
        seen = _clip(points)
        if len(seen) < 3:
            return
        facing = (-plane[0], -plane[1], -plane[2]) if offset > 0 else plane  # towards the camera
        self.planes.append((plane[0] / offset, plane[1] / offset, plane[2] / offset))
        self.normals.append(facing if normal is None else normal)
        self.materials.append(material)
        self.pencil.polygon([self.project(p, _SAMPLES) for p in seen], fill=len(self.materials) - 1)

    def face(self, points: Sequence[Point], material: Material, seen: bool) -> None:
        """Paint one face of a solid if it is `seen`; it throws a shadow in any case."""
        if seen:
            self.add(points, material, casts=True)
        else:
            self.cast(points)

    def cast(self, points: Sequence[Point]) -> None:
        """Throw the polygon's shadow on the ground."""
        sx, sy, sz = self.sun
        if sy <= 0:
            return
        ground = [(x - sx * y / sy, 0.0, z - sz * y / sy) for x, y, z in points]
        if not self.first_thing:
            outline = [((x + _PLAN[0] / 2) * _PLAN_SCALE, z * _PLAN_SCALE) for x, _, z in ground]
            self.plan_pencil.polygon(outline, fill=255)
            return
        ground = _clip(ground)
        if len(ground) >= 3:
            self.shadow_pencil.polygon([self.project(p, 1) for p in ground], fill=255)

    def touch(self, points: Sequence[Point], strength: int = 190) -> None:
        """Darken the ground where something stands on it, in any light."""
        seen = _clip(points)
        if len(seen) >= 3:
            self.contact_pencil.polygon([self.project(p, 1) for p in seen], fill=strength)


def _plane_normal(points: Sequence[Point]) -> Point:
    nx = ny = nz = 0.0
    for (x0, y0, z0), (x1, y1, z1) in zip(points, (*points[1:], points[0]), strict=True):  # Newell's sum
        nx += (y0 - y1) * (z0 + z1)
        ny += (z0 - z1) * (x0 + x1)
        nz += (x0 - x1) * (y0 + y1)
    length = math.sqrt(nx * nx + ny * ny + nz * nz) or 1.0
    return (nx / length, ny / length, nz / length)


def _clip(points: Sequence[Point]) -> list[Point]:
    """Return the part of a polygon ahead of the near plane."""
    if all(p[2] >= _NEAR for p in points):
        return list(points)
    kept: list[Point] = []
    for a, b in zip(points, (*points[1:], points[0]), strict=True):
        if a[2] >= _NEAR:
            kept.append(a)
        if (a[2] >= _NEAR) != (b[2] >= _NEAR):
            t = (_NEAR - a[2]) / (b[2] - a[2])
            kept.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), _NEAR))
    return kept


class _Frame:
    """A place and a heading on the street: local (along, up, left-to-right) to camera coordinates."""

    def __init__(self, stage: _Stage, x: float, z: float, heading: float) -> None:
        """`heading` in radians: 0 looks along the street away from the camera, positive turns right."""
        self.origin = stage.turn((x, 0.0, z))
        self.ahead = stage.turn((math.sin(heading), 0.0, math.cos(heading)))
        self.side = stage.turn((math.cos(heading), 0.0, -math.sin(heading)))

    def __call__(self, along: float, up: float, across: float) -> Point:
        ox, _, oz = self.origin
        return (
            ox + along * self.ahead[0] + across * self.side[0],
            up,
            oz + along * self.ahead[2] + across * self.side[2],
        )

    def foot(self, along: float, across: float) -> list[Point]:
        """Return the rectangle of these half sizes on the ground."""
        return [self(a, 0.0, s) for a, s in ((-along, -across), (along, -across), (along, across), (-along, across))]

    def sees(self, outward: Point, at: Point) -> bool:
        """Whether a face at local `at` with the local `outward` normal is turned to the camera."""
        px, py, pz = self(*at)
        along, up, across = outward
        nx = along * self.ahead[0] + across * self.side[0]
        nz = along * self.ahead[2] + across * self.side[2]
        return nx * px + up * (py - _EYE) + nz * pz < 0


def _capsule(
    stage: _Stage, a: Point, b: Point, ra: float, rb: float, material: Material, *, casts: bool = True
) -> None:
    """Paint a tapered round limb from `a` to `b`: an outline facing the camera, lit as if it were round."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    angle = math.atan2(dy, dx) if dx * dx + dy * dy > 1e-8 else math.pi / 2
    z = (a[2] + b[2]) / 2

    def outline(shrink: float, shift: float) -> list[Point]:
        points: list[Point] = []
        for (x, y, _), radius, start in ((b, rb, angle - math.pi / 2), (a, ra, angle + math.pi / 2)):
            for k in range(6):
                t = start + math.pi * k / 5
                points.append((x + radius * (shrink * math.cos(t) + shift), y + radius * shrink * math.sin(t), z))
        return points

    stage.add(outline(1.0, 0.0), material, normal=(0.55, 0.1, -0.83), casts=casts)
    if stage.pixels(ra, z) > 1.5:  # the shifted copies touch the outline's left edge, so no sliver of it is left there
        stage.add(outline(0.80, -0.20), material, normal=(-0.55, 0.15, -0.82))
        stage.add(outline(0.52, 0.0), material._replace(heat=material.heat + 0.5), normal=(0.0, 0.1, -1.0))


def _disc(
    stage: _Stage,
    centre: Point,
    radius: float,
    u: Point,
    v: Point,
    material: Material,
    *,
    inner: float = 0.0,
    casts: bool = False,
) -> None:
    """Paint a disc, or a ring if `inner` > 0, spanned by the unit vectors `u` and `v`."""
    count = 20

    def circle(r: float) -> list[Point]:
        turns = [2 * math.pi * k / count for k in range(count + 1)]
        return [
            (
                centre[0] + r * (math.cos(t) * u[0] + math.sin(t) * v[0]),
                centre[1] + r * (math.cos(t) * u[1] + math.sin(t) * v[1]),
                centre[2] + r * (math.cos(t) * u[2] + math.sin(t) * v[2]),
            )
            for t in turns
        ]

    if inner <= 0:
        stage.add(circle(radius), material, casts=casts)
        return
    outside, inside = circle(radius), circle(inner)
    for k in range(count):  # segment by segment: a polygon fill knows no holes
        stage.add([outside[k], outside[k + 1], inside[k + 1], inside[k]], material, casts=casts)


def _box(
    stage: _Stage,
    frame: _Frame,
    low: Point,
    high: Point,
    material: Material,
    *,
    casts: bool = True,
) -> None:
    """Paint an upright box between two local corners, the faces turned to the camera only."""
    (a0, u0, s0), (a1, u1, s1) = low, high
    faces: list[tuple[Point, Point, list[Point]]] = [
        ((1, 0, 0), (a1, u0, s0), [(a1, u0, s0), (a1, u1, s0), (a1, u1, s1), (a1, u0, s1)]),
        ((-1, 0, 0), (a0, u0, s0), [(a0, u0, s0), (a0, u1, s0), (a0, u1, s1), (a0, u0, s1)]),
        ((0, 0, 1), (a0, u0, s1), [(a0, u0, s1), (a0, u1, s1), (a1, u1, s1), (a1, u0, s1)]),
        ((0, 0, -1), (a0, u0, s0), [(a0, u0, s0), (a0, u1, s0), (a1, u1, s0), (a1, u0, s0)]),
        ((0, 1, 0), (a0, u1, s0), [(a0, u1, s0), (a1, u1, s0), (a1, u1, s1), (a0, u1, s1)]),
    ]
    for outward, at, corners in faces:
        points = [frame(*c) for c in corners]
        if frame.sees(outward, at):
            stage.add(points, material)
        if casts:
            stage.cast(points)


# ---------------------------------------------------------------------------------------------------------------------
# What stands on the street
# ---------------------------------------------------------------------------------------------------------------------

_PAINTS = (
    _rgb(225, 226, 228), _rgb(200, 203, 207), _rgb(150, 155, 160), _rgb(60, 64, 70), _rgb(28, 30, 34),
    _rgb(150, 24, 28), _rgb(28, 62, 128), _rgb(36, 92, 110), _rgb(190, 170, 120), _rgb(88, 30, 40),
)  # fmt: skip
# Half width, half wheelbase, and two side outlines (along, up) from the rear over the top: the body, and the cabin.
_BODIES: dict[str, tuple[float, float, list[tuple[float, float]], list[tuple[float, float]]]] = {
    "sedan": (
        0.90, 1.32,
        [(-2.20, 0.26), (-2.27, 0.55), (-2.20, 0.92), (-1.45, 1.00),
         (1.00, 0.98), (1.95, 0.82), (2.22, 0.62), (2.20, 0.24)],
        [(-1.62, 0.98), (-0.85, 1.42), (0.25, 1.44), (1.12, 0.96)],
    ),
    "hatch": (
        0.87, 1.20,
        [(-1.85, 0.26), (-1.95, 0.55), (-1.90, 0.98), (-1.50, 1.02),
         (0.95, 1.00), (1.70, 0.86), (1.92, 0.64), (1.90, 0.24)],
        [(-1.82, 1.00), (-1.42, 1.48), (0.25, 1.52), (1.15, 0.96)],
    ),
    "suv": (
        0.95, 1.38,
        [(-2.20, 0.34), (-2.26, 0.65), (-2.20, 1.08), (-1.80, 1.12),
         (1.00, 1.12), (1.95, 1.00), (2.22, 0.76), (2.18, 0.32)],
        [(-2.12, 1.10), (-1.80, 1.66), (0.35, 1.70), (1.15, 1.10)],
    ),
    "van": (
        0.95, 1.45,
        [(-2.35, 0.30), (-2.40, 0.60), (-2.38, 1.05), (-1.90, 1.10),
         (1.40, 1.08), (2.05, 0.98), (2.32, 0.72), (2.28, 0.28)],
        [(-2.36, 1.06), (-2.22, 1.90), (0.95, 1.92), (1.85, 1.02)],
    ),
}  # fmt: skip


def _car(
    stage: _Stage, rng: np.random.Generator, x: float, z: float, heading: float, *, running: bool, lamps: bool
) -> None:
    kind = str(rng.choice(["sedan", "hatch", "suv", "van"], p=[0.35, 0.3, 0.25, 0.1]))
    half, axle, body, cabin = _BODIES[kind]
    paint = _choose(rng, _PAINTS)
    on = _Frame(stage, x, z, heading)
    lit = lamps and running
    shell = Material(paint, _AIR + 0.5, CAR, gloss=0.16, grain=0.02, solar=4.0)
    hood = shell._replace(heat=_AIR + (11.0 if running else 0.5))
    glass = Material(_rgb(22, 27, 32), _AIR - 2.5, CAR, gloss=0.55, grain=0.0, solar=1.0)
    trim = Material(_rgb(26, 27, 29), _AIR + (3.0 if running else 0.0), CAR, grain=0.05)
    rubber = Material(_rgb(24, 24, 25), _AIR + (13.0 if running else 1.0), CAR, grain=0.05)
    rim = Material(_rgb(150, 152, 156), _AIR + (9.0 if running else 0.5), CAR, gloss=0.1, grain=0.02)
    arch = Material(_rgb(10, 10, 11), _AIR + (8.0 if running else 0.0), CAR, grain=0.0)
    rear, front = body[1][0], body[6][0]

    def width(along: float) -> float:  # the plan view is rounded towards the bumpers
        t = max(abs(along) - 1.2, 0.0) / 1.1
        return half * (1 - 0.13 * t * t)

    def plate(along: float, y0: float, y1: float, s0: float, s1: float, material: Material) -> None:
        stage.add([on(along, y0, s0), on(along, y1, s0), on(along, y1, s1), on(along, y0, s1)], material)

    def panel(a0: float, a1: float, y0: float, y1: float, across: float, material: Material) -> None:
        stage.add([on(a0, y0, across), on(a0, y1, across), on(a1, y1, across), on(a1, y0, across)], material)

    stage.touch(on.foot(front + 0.1, half), 235)
    # Under the car: the wheels seen from the front or the back, then the dark floor.
    for along in (-axle, axle) if on.sees((1, 0, 0), (front, 0.4, 0)) else (axle, -axle):
        for across in (-half + 0.13, half - 0.13):
            _box(stage, on, (along - 0.3, 0, across - 0.11), (along + 0.3, 0.5, across + 0.11), rubber, casts=False)
    exhaust = Material(_rgb(14, 14, 15), _AIR + (17.0 if running else 1.0), CAR, grain=0.0)
    low = body[0][1]
    for along, outward in ((rear + 0.15, -1.0), (front - 0.15, 1.0)):
        if on.sees((outward, 0, 0), (along, 0.3, 0)):
            plate(along, 0.2, low + 0.1, -0.6, 0.6, exhaust)

    # The body: an outline swept across, its convex edges painted where they face the camera.
    for k in range(len(body) - 1):
        (a0, y0), (a1, y1) = body[k], body[k + 1]
        w0, w1 = width(a0), width(a1)
        quad = [on(a0, y0, -w0), on(a1, y1, -w1), on(a1, y1, w1), on(a0, y0, w0)]
        stage.face(quad, hood if a0 > 0.9 else shell, on.sees((y0 - y1, a1 - a0, 0.0), (a0, y0, 0.0)))
    for sign in (-1.0, 1.0):
        flank = [on(a, y, sign * width(a)) for a, y in body]
        seen = on.sees((0, 0, sign), (0.0, 0.6, sign * half))
        stage.face(flank, shell, seen)
        if not seen:
            continue
        panel(rear + 0.35, front - 0.4, 0.26, 0.36, sign * half, trim)
        if stage.pixels(1.0, on.origin[2]) > 22:  # doors and their handles
            seam = Material(_scaled(paint, 0.35), _AIR + 1.0, CAR, grain=0.0)
            for along in (-0.95, 0.05, 0.98):
                panel(along, along + 0.025, 0.36, 0.95, sign * half, seam)
            for along in (-0.78, 0.22):
                panel(along, along + 0.18, 0.80, 0.84, sign * half, trim)
        for along in (-axle, axle):
            out = sign * (width(along) + 0.01)
            up: Point = (0.0, 1.0, 0.0)
            _disc(stage, on(along, 0.36, out), 0.39, on.ahead, up, arch)
            _disc(stage, on(along, 0.32, out), 0.32, on.ahead, up, rubber)
            _disc(stage, on(along, 0.32, out), 0.21, on.ahead, up, rim)
            if stage.pixels(0.3, on.origin[2]) > 6:
                for k in range(5):
                    t0, t1 = 2 * math.pi * (k + 0.12) / 5, 2 * math.pi * (k + 0.62) / 5
                    gap = ((0.06, t0), (0.185, t0), (0.185, t1), (0.06, t1))
                    stage.add([on(along + r * math.cos(t), 0.32 + r * math.sin(t), out) for r, t in gap], arch)

    # The cabin: the same sweep, narrower at the roof.
    roof = half * 0.74
    foot = half * 0.94
    widths = (foot, roof, roof, foot)
    for k in range(3):
        (a0, y0), (a1, y1) = cabin[k], cabin[k + 1]
        w0, w1 = widths[k], widths[k + 1]
        quad = [on(a0, y0, -w0), on(a1, y1, -w1), on(a1, y1, w1), on(a0, y0, w0)]
        seen = on.sees((y0 - y1, a1 - a0, 0.0), (a0, y0, 0.0))
        stage.face(quad, shell, seen)
        if seen and k != 1:
            stage.add(_inset(quad, 0.88, 0.82), glass)
    for sign in (-1.0, 1.0):
        side = [on(a, y, sign * w) for (a, y), w in zip(cabin, widths, strict=True)]
        seen = on.sees((0, 0.3, sign), (0.0, 1.2, sign * half * 0.9))
        stage.face(side, shell, seen)
        if not seen:
            continue
        panes = _inset(side, 0.90, 0.80)
        middle = [_between(panes[0], panes[3], 0.50), _between(panes[1], panes[2], 0.42)]
        for a, b in ((panes[0], panes[1]), (panes[3], panes[2])):  # on either side of the pillar
            stage.add([a, b, _between(middle[1], b, 0.03), _between(middle[0], a, 0.03)], glass)

    # Lamps, plates, grille and bumpers.
    white = Material(_rgb(222, 222, 214), _AIR + 1.0, CAR, grain=0.0)
    if on.sees((1, 0, 0), (front + 0.02, 0.6, 0)):
        at, w, base = front + 0.02, width(front), body[6][1]
        grille = Material(_rgb(18, 18, 20), _AIR + (19.0 if running else 0.5), CAR, grain=0.0)
        plate(at, base - 0.14, base + 0.06, -0.42, 0.42, grille)
        plate(at, low + 0.02, low + 0.14, -w * 0.8, w * 0.8, trim._replace(heat=_AIR + (8.0 if running else 0.0)))
        plate(at + 0.01, base - 0.30, base - 0.19, -0.26, 0.26, white)
        lamp = Material(_rgb(236, 238, 240), _AIR + (9.0 if lit else 1.0), CAR, gloss=0.3, grain=0.0)
        if lit:
            lamp = lamp._replace(glow=(9.0, 8.6, 7.6))
        for sign in (-1.0, 1.0):
            plate(at, base - 0.07, base + 0.12, sign * w * 0.60, sign * w * 0.97, lamp)
            if lit:
                stage.flares.append(Flare(on(at + 0.05, base + 0.02, sign * w * 0.78), (1.0, 0.95, 0.84), 1.0))
    if on.sees((-1, 0, 0), (rear - 0.02, 0.6, 0)):
        at, w, top = rear - 0.02, width(rear), body[2][1]
        lamp = Material(_rgb(150, 16, 18), _AIR + 1.0, CAR, gloss=0.1, grain=0.0)
        if lit:
            lamp = lamp._replace(glow=(2.6, 0.10, 0.06))
        plate(at, low + 0.03, low + 0.20, -w * 0.92, w * 0.92, trim)
        plate(at - 0.01, 0.60, 0.71, -0.26, 0.26, white)
        for sign in (-1.0, 1.0):
            plate(at, top - 0.28, top - 0.06, sign * w * 0.66, sign * w * 0.98, lamp)
            if lit:
                stage.flares.append(Flare(on(at - 0.05, top - 0.17, sign * w * 0.82), (1.0, 0.10, 0.05), 0.10))
        pipe = Material(_rgb(60, 60, 62), _AIR + (22.0 if running else 1.0), CAR, grain=0.0)
        plate(at - 0.01, low - 0.03, low + 0.07, -w * 0.62, -w * 0.46, pipe)
    if lit:
        stage.lights.append(
            Light(on(front + 0.1, 0.65, 0.0), (52.0, 49.0, 42.0), (on.ahead[0], -0.05, on.ahead[2]), 14.0)
        )


def _inset(quad: Sequence[Point], wide: float, high: float) -> list[Point]:
    """Pull the corners (low, high, high, low) of a frame together across and upwards, to those of its pane."""
    low0, high0, high1, low1 = quad
    edge, rise = (1 - wide) / 2, (1 - high) / 2
    a, b = _between(low0, low1, edge), _between(low1, low0, edge)
    c, d = _between(high0, high1, edge), _between(high1, high0, edge)
    return [_between(a, c, rise), _between(c, a, rise), _between(d, b, rise), _between(b, d, rise)]


def _between(a: Point, b: Point, t: float) -> Point:
    return (a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), a[2] + t * (b[2] - a[2]))


_CLOTHES = (
    _rgb(32, 36, 48), _rgb(60, 62, 66), _rgb(140, 34, 38), _rgb(46, 78, 130), _rgb(212, 208, 198), _rgb(168, 128, 70),
    _rgb(40, 84, 66), _rgb(120, 120, 126), _rgb(196, 146, 40), _rgb(24, 24, 26), _rgb(112, 70, 110),
)  # fmt: skip
_TROUSERS = (_rgb(28, 32, 44), _rgb(44, 58, 88), _rgb(24, 24, 26), _rgb(110, 98, 78), _rgb(70, 70, 74))
_SKINS = (_rgb(232, 190, 160), _rgb(206, 158, 124), _rgb(150, 104, 76), _rgb(96, 64, 46))
_HAIRS = (_rgb(24, 20, 18), _rgb(54, 36, 24), _rgb(110, 78, 44), _rgb(140, 138, 134))


class _Looks(NamedTuple):
    """A person's clothes and warmth."""

    scale: float
    skin: Material
    hair: Material
    top: Material
    legs: Material
    shoes: Material
    bag: Material | None
    long_hair: bool
    coat: bool


def _looks(rng: np.random.Generator) -> _Looks:
    top, legs, skin, hair = (_choose(rng, c) for c in (_CLOTHES, _TROUSERS, _SKINS, _HAIRS))
    warm = float(rng.uniform(-1.0, 1.0))
    return _Looks(
        scale=float(rng.uniform(0.92, 1.07)),
        skin=Material(skin, 32.0 + 0.4 * warm, PERSON, grain=0.03, thermal_grain=0.3, solar=0.5),
        hair=Material(hair, 27.0 + warm, PERSON, grain=0.06, thermal_grain=0.5, solar=0.5),
        top=Material(top, 25.6 + 1.6 * warm, PERSON, grain=0.10, thermal_grain=0.9, solar=0.5),
        legs=Material(legs, 25.0 + warm, PERSON, grain=0.08, thermal_grain=0.8, solar=0.5),
        shoes=Material(_rgb(34, 30, 28), 19.5, PERSON, grain=0.05, solar=0.5),
        bag=Material(_choose(rng, _CLOTHES), 17.0, PERSON, grain=0.1, solar=0.5) if rng.random() < 0.35 else None,
        long_hair=bool(rng.random() < 0.4),
        coat=bool(rng.random() < 0.35),
    )


def _trunk(stage: _Stage, on: _Frame, looks: _Looks, hip: Point, neck: Point) -> None:
    """Paint torso and head, from the local hip centre to the local base of the neck."""
    k = looks.scale
    view = abs(on.side[0])  # 1 seen from the front or the back, 0 from the side
    wide, deep = 0.205, 0.125
    shoulder = k * (wide * view + deep * (1 - view))
    waist = k * (0.145 * view + 0.110 * (1 - view))
    hx, hy, hz = on(*hip)
    nx, ny, nz = on(*neck)
    z = (hz + nz) / 2
    drop = 0.24 * k if looks.coat else 0.04 * k
    flare = 1.25 if looks.coat else 1.05

    def shape(shrink: float, shift: float) -> list[Point]:
        s, w = shoulder * shrink, waist * shrink
        ox, nxs, mx = hx + shift * waist, nx + shift * shoulder, hx + 0.45 * (nx - hx) + shift * waist
        my = hy + 0.40 * (ny - hy)
        half = [(s * 0.32, 0.015), (s * 0.80, 0.080), (s, 0.165)]  # from the neck over the shoulder
        right = [(nxs + x, ny - y * k, z) for x, y in half]
        left = [(nxs - x, ny - y * k, z) for x, y in reversed(half)]
        hem = hy - drop
        return [(ox - w * flare, hem, z), (mx - w, my, z), *left, *right, (mx + w, my, z), (ox + w * flare, hem, z)]

    stage.add(shape(1.0, 0.0), looks.top, normal=(0.55, 0.1, -0.83), casts=True)
    if stage.pixels(0.2, z) > 2:
        stage.add(shape(0.84, -0.16), looks.top, normal=(-0.55, 0.15, -0.82))
        stage.add(shape(0.56, 0.0), looks.top._replace(heat=looks.top.heat + 0.7), normal=(0.0, 0.15, -1.0))
    _capsule(stage, (nx, ny - 0.04 * k, z), (nx, ny + 0.06 * k, z), 0.055 * k, 0.052 * k, looks.skin, casts=False)
    lean = 0.035 * on.ahead[0] * k
    cx, cy = nx + lean, ny + 0.150 * k
    away = on.ahead[2]  # > 0: the face is turned from the camera
    face = looks.skin if away < 0.55 else looks.hair

    def head(width: float, height: float, dx: float, dy: float) -> list[Point]:
        return [
            (cx + dx + width * k * math.cos(t), cy + dy + height * k * math.sin(t), z)
            for t in (2 * math.pi * i / 14 for i in range(14))
        ]

    if looks.long_hair:
        stage.add(head(0.105, 0.155, -0.02 * on.ahead[0], -0.035 * k), looks.hair, normal=(0, 0.2, -1), casts=True)
    stage.add(head(0.092, 0.125, 0, 0), face, normal=(0.5, 0.2, -0.85), casts=True)
    if away < 0.55:
        stage.add(head(0.070, 0.110, -0.01 * k, 0), face._replace(heat=face.heat + 0.7), normal=(-0.3, 0.2, -0.9))
        cap = [p for p in head(0.098, 0.132, -0.018 * on.ahead[0] * k, 0.008 * k) if p[1] >= cy + 0.045 * k]
        if on.ahead[0] ** 2 > 0.3:  # from the side the hair also covers the back of the head
            back = -math.copysign(0.098 * k, on.ahead[0])
            cap = [*cap, (cx, cy + 0.04 * k, z), (cx + 0.35 * back, cy - 0.05 * k, z), (cx + back, cy - 0.03 * k, z)]
            cap.sort(key=lambda p: math.atan2(p[1] - cy - 0.04 * k, p[0] - cx - 0.3 * back))
        stage.add(cap, looks.hair, normal=(0, 0.5, -0.85))


def _walker(
    stage: _Stage, rng: np.random.Generator, x: float, z: float, heading: float, *, standing: bool = False
) -> None:
    looks = _looks(rng)
    k = looks.scale
    phase = float(rng.uniform(0, 2 * math.pi))
    swing = (0.10 if standing else 0.50) * math.copysign(max(abs(math.sin(phase)), 0.45), math.sin(phase))
    on = _Frame(stage, x, z, heading)
    hip_y = (0.92 - 0.35 * (1 - math.cos(swing)) * 0.9) * k
    stage.touch(on.foot(0.30, 0.2), 150)

    def leg(sign: float) -> None:
        angle = swing * sign
        bend = 0.06 + (0.38 * abs(math.cos(phase)) if angle < 0 and not standing else 0.0)
        hip = (0.0, hip_y, 0.085 * sign * k)
        knee = (0.44 * k * math.sin(angle), hip_y - 0.44 * k * math.cos(angle), hip[2])
        shin = angle - bend
        ankle = (knee[0] + 0.42 * k * math.sin(shin), max(knee[1] - 0.42 * k * math.cos(shin), 0.06), hip[2])
        toe = (ankle[0] + 0.16 * k, max(ankle[1] - 0.03, 0.035), hip[2] * 1.15)
        _capsule(stage, on(*ankle), on(*toe), 0.05 * k, 0.036 * k, looks.shoes)
        _capsule(stage, on(*knee), on(*ankle), 0.065 * k, 0.048 * k, looks.legs)
        _capsule(stage, on(*hip), on(*knee), 0.092 * k, 0.066 * k, looks.legs)

    def arm(sign: float) -> None:
        angle = -0.85 * swing * sign
        shoulder = (0.0, hip_y + 0.455 * k, 0.185 * sign * k)
        elbow = (0.28 * k * math.sin(angle), shoulder[1] - 0.28 * k * math.cos(angle), shoulder[2] + 0.035 * sign * k)
        fore = angle + 0.35
        hand = (elbow[0] + 0.25 * k * math.sin(fore), elbow[1] - 0.25 * k * math.cos(fore), elbow[2])
        _capsule(stage, on(*elbow), on(*hand), 0.043 * k, 0.036 * k, looks.top)
        tip = _between(on(*elbow), on(*hand), 1.2)
        _capsule(stage, on(*hand), tip, 0.040 * k, 0.034 * k, looks.skin)
        _capsule(stage, on(*shoulder), on(*elbow), 0.060 * k, 0.048 * k, looks.top)

    far = 1.0 if on(0, 0, 1)[2] > on(0, 0, -1)[2] else -1.0
    arm(far)
    leg(far)
    leg(-far)
    bag_hidden = on.ahead[2] < 0
    if looks.bag is not None and bag_hidden:
        _backpack(stage, on, looks, looks.bag, hip_y)
    _trunk(stage, on, looks, (0.0, hip_y, 0.0), (0.02, hip_y + 0.56 * k, 0.0))
    if looks.bag is not None and not bag_hidden:
        _backpack(stage, on, looks, looks.bag, hip_y)
    arm(-far)


def _backpack(stage: _Stage, on: _Frame, looks: _Looks, bag: Material, hip_y: float) -> None:
    k = looks.scale
    low, high = on(-0.15 * k, hip_y + 0.16 * k, 0.0), on(-0.13 * k, hip_y + 0.40 * k, 0.0)
    wide = 0.13 * abs(on.side[0]) + 0.075 * abs(on.ahead[0])
    _capsule(stage, low, high, wide * k, wide * 0.9 * k, bag)


def _bike(stage: _Stage, rng: np.random.Generator, x: float, z: float, heading: float, *, ridden: bool) -> None:
    on = _Frame(stage, x, z, heading)
    paint = Material(_choose(rng, _PAINTS), _AIR + 0.5, BIKE, gloss=0.1, grain=0.02)
    rubber = Material(_rgb(20, 20, 21), _AIR + (4.0 if ridden else 0.5), BIKE, grain=0.02)
    metal = Material(_rgb(150, 152, 155), _AIR, BIKE, gloss=0.15, grain=0.02)
    saddle = Material(_rgb(20, 18, 18), _AIR + (10.0 if ridden else 0.5), BIKE, grain=0.05)
    stage.touch(on.foot(0.9, 0.12), 120)
    up: Point = (0.0, 1.0, 0.0)

    def tube(a: Point, b: Point, radius: float, material: Material) -> None:
        _capsule(stage, on(*a), on(*b), radius, radius, material)

    looks = _looks(rng) if ridden else None
    turn = float(rng.uniform(0, 2 * math.pi))
    hip: Point = (-0.20, 1.00, 0.0)
    neck: Point = (0.12, 1.50, 0.0)

    def limb(sign: float) -> None:
        assert looks is not None
        t = turn if sign > 0 else turn + math.pi
        pedal = (0.02 + 0.16 * math.cos(t), 0.30 + 0.16 * math.sin(t), 0.12 * sign)
        joint = (hip[0], hip[1] - 0.02, 0.08 * sign)
        knee = _joint(joint, pedal, 0.43, 0.43)
        _capsule(stage, on(*pedal), on(pedal[0] + 0.15, pedal[1], pedal[2]), 0.045, 0.035, looks.shoes)
        _capsule(stage, on(*knee), on(*pedal), 0.065, 0.05, looks.legs)
        _capsule(stage, on(*joint), on(*knee), 0.095, 0.068, looks.legs)
        shoulder, grip = (neck[0], neck[1] - 0.07, 0.20 * sign), (0.44, 1.03, 0.25 * sign)
        elbow = _between(shoulder, grip, 0.5)
        elbow = (elbow[0] - 0.03, elbow[1] - 0.06, elbow[2] + 0.04 * sign)
        _capsule(stage, on(*elbow), on(*grip), 0.043, 0.036, looks.top)
        _capsule(stage, on(*grip), on(grip[0] + 0.04, grip[1], grip[2]), 0.042, 0.036, looks.skin)
        _capsule(stage, on(*shoulder), on(*elbow), 0.06, 0.048, looks.top)

    far = 1.0 if on(0, 0, 1)[2] > on(0, 0, -1)[2] else -1.0
    if looks is not None:
        limb(far)
    for along in (-0.53, 0.55):
        hub = (along, 0.34, 0.0)
        _disc(stage, on(*hub), 0.345, on.ahead, up, rubber, inner=0.295, casts=True)
        tube((along, 0.01, 0.0), (along, 0.67, 0.0), 0.016, rubber)  # keeps the wheel visible edge-on
        if stage.pixels(0.34, on.origin[2]) > 14:
            for i in range(8):
                t = math.pi * i / 8
                du, dv = 0.3 * math.cos(t), 0.3 * math.sin(t)
                tube((along - du, 0.34 - dv, 0.0), (along + du, 0.34 + dv, 0.0), 0.003, metal)
        rim = [(0.37, 0.6), (0.37, 1.4), (0.37, 2.2), (0.345, 2.2), (0.345, 1.4), (0.345, 0.6)]
        stage.add([on(along + r * math.cos(t), 0.34 + r * math.sin(t), 0) for r, t in rim], paint)  # mudguard
    crank, seat, head_low, head_high = (0.02, 0.30, 0.0), (-0.18, 0.84, 0.0), (0.40, 0.66, 0.0), (0.36, 0.86, 0.0)
    for a, b in (
        (crank, seat), (crank, head_low), ((-0.16, 0.78, 0.0), head_high), ((-0.53, 0.34, 0.0), crank),
        ((-0.53, 0.34, 0.0), (-0.15, 0.74, 0.0)), (head_high, (0.55, 0.34, 0.0)),
    ):  # fmt: skip
        tube(a, b, 0.022, paint)
    tube(seat, (-0.19, 0.92, 0.0), 0.018, metal)
    tube((-0.30, 0.94, 0.0), (-0.08, 0.93, 0.0), 0.038, saddle)
    tube(head_high, (0.36, 1.00, 0.0), 0.018, metal)
    tube((0.38, 1.02, -0.27), (0.38, 1.02, 0.27), 0.020, metal)
    tube((0.58, 0.88, -0.13), (0.58, 0.88, 0.13), 0.014, metal)
    if looks is not None:
        _trunk(stage, on, looks, hip, neck)
        limb(-far)


def _joint(a: Point, b: Point, upper: float, lower: float) -> Point:
    """Return the knee between hip `a` and foot `b`, bent forwards (two links, in the plane of travel)."""
    du, dv = b[0] - a[0], b[1] - a[1]
    reach = min(math.hypot(du, dv), upper + lower - 1e-3)
    along = (upper * upper - lower * lower + reach * reach) / (2 * reach)
    bulge = math.sqrt(max(upper * upper - along * along, 0.0))
    eu, ev = du / reach, dv / reach
    return (a[0] + along * eu - bulge * ev, a[1] + along * ev + bulge * eu, (a[2] + b[2]) / 2)


def _cone(stage: _Stage, rng: np.random.Generator, x: float, z: float) -> None:
    on = _Frame(stage, x, z, 0.0)
    orange = Material(_scaled(_rgb(228, 74, 22), float(rng.uniform(0.75, 1.1))), _AIR - 0.5, CONE, grain=0.04)
    white = Material(_rgb(232, 232, 228), _AIR - 0.8, CONE, grain=0.02)
    foot = Material(_rgb(40, 36, 34), _AIR, CONE, grain=0.05)
    stage.touch(on.foot(0.2, 0.2), 170)
    _box(stage, on, (-0.18, 0.0, -0.18), (0.18, 0.04, 0.18), foot)
    bands = ((0.04, 0.28, orange), (0.28, 0.42, white), (0.42, 0.54, orange), (0.54, 0.63, white), (0.63, 0.72, orange))
    for low, high, material in bands:
        _band(stage, on, low, high, 0.145 * (1 - low / 0.80), 0.145 * (1 - high / 0.80), material)


def _band(stage: _Stage, on: _Frame, y0: float, y1: float, r0: float, r1: float, material: Material) -> None:
    """Paint a band of an upright cone or cylinder: three strips, lit as the round surface would be."""
    x, _, z = on.origin
    turns = (-1.0, -0.55, 0.45, 1.0)
    for k, slope in enumerate((-0.8, 0.0, 0.8)):
        a, b = turns[k], turns[k + 1]
        quad = [(x + a * r0, y0, z), (x + a * r1, y1, z), (x + b * r1, y1, z), (x + b * r0, y0, z)]
        stage.add(quad, material, normal=(slope, 0.1, -math.sqrt(0.99 - slope * slope)), casts=True)


def _bollard(stage: _Stage, rng: np.random.Generator, x: float, z: float) -> None:
    on = _Frame(stage, x, z, 0.0)
    stage.touch(on.foot(0.16, 0.16), 170)
    dark = Material(_scaled(_rgb(44, 48, 52), float(rng.uniform(0.6, 1.5))), _AIR + 1.0, CAR_STOP, grain=0.04)
    white = Material(_rgb(226, 228, 224), _AIR + 0.2, CAR_STOP, grain=0.02)
    for low, high, material in ((0.0, 0.60, dark), (0.60, 0.74, white), (0.74, 0.86, dark)):
        _band(stage, on, low, high, 0.115, 0.115, material)
    _disc(stage, on(0, 0.86, 0), 0.115, (1, 0, 0), (0, 0, 1), dark)


def _hoop(stage: _Stage, rng: np.random.Generator, x: float, z: float) -> None:
    """Paint a pipe bent to an inverted U, across the way of a car."""
    on = _Frame(stage, x, z, 0.0)
    pipe = Material(
        _scaled(_rgb(206, 208, 208), float(rng.uniform(0.7, 1.05))), _AIR - 1.0, CAR_STOP, gloss=0.08, grain=0.03
    )
    half = [(0.38, 0.80), (0.50, 0.74), (0.55, 0.62), (0.55, 0.0)]
    path = [*((-s, y) for s, y in reversed(half)), *half]
    for (s0, y0), (s1, y1) in pairwise(path):
        _capsule(stage, on(0, y0, s0), on(0, y1, s1), 0.038, 0.038, pipe)
    for s in (-0.55, 0.55):
        stage.touch([(x + s, y, z) for x, y, z in on.foot(0.09, 0.09)], 150)


def _railing(stage: _Stage, rng: np.random.Generator, x: float, z0: float, z1: float) -> None:
    """Paint a railing of pipes along the kerb, from far to near."""
    pipe = Material(
        _scaled(_rgb(214, 216, 212), float(rng.uniform(0.9, 1.0))), _AIR - 1.2, GUARDRAIL, gloss=0.06, grain=0.04
    )
    count = max(2, round((z1 - z0) / 2.0))
    for k in reversed(range(count)):
        near, far = z0 + (z1 - z0) * k / count, z0 + (z1 - z0) * (k + 1) / count
        for up, thick in ((0.25, 0.022), (0.55, 0.022), (0.84, 0.032)):
            a, b = stage.turn((x, up - thick, near)), stage.turn((x, up - thick, far))
            quad = [a, (a[0], up + thick, a[2]), (b[0], up + thick, b[2]), b]
            stage.add(quad, pipe, casts=True)
        for i in range(8):
            z = far + (near - far) * i / 8
            post = stage.turn((x, 0.0, z))
            if post[2] < _NEAR + 0.3:
                continue
            radius, top, foot = (0.045, 0.90, 0.0) if i == 0 else (0.014, 0.84, 0.25)
            _capsule(stage, (post[0], foot, post[2]), (post[0], top, post[2]), radius, radius, pipe)


def _street_lamp(
    stage: _Stage, rng: np.random.Generator, x: float, z: float, reach: float, warmth: float, *, lit: bool
) -> None:
    """Paint a lamp whose arm spans `reach` over the road; `warmth` numbers the colour of its light."""
    colour = ((1.0, 0.74, 0.42), (1.0, 0.86, 0.66), (0.86, 0.94, 1.0))[int(warmth)]
    on = _Frame(stage, x, z, 0.0)
    steel = Material(_scaled(_rgb(92, 98, 102), float(rng.uniform(0.9, 1.1))), _AIR - 0.4, grain=0.05)
    top = on(0, 6.2, 0)
    arm = on(0, 6.5, reach)
    _capsule(stage, on(0, 0, 0), top, 0.085, 0.055, steel)
    _capsule(stage, top, arm, 0.05, 0.04, steel)
    head = Material(_rgb(60, 62, 64), _AIR + 6.0, glow=_scaled(colour, 4.5) if lit else _BLACK, grain=0.0)
    end = on(0, 6.48, reach + math.copysign(0.6, reach))
    _capsule(stage, (arm[0], arm[1] + 0.03, arm[2]), (end[0], end[1] + 0.03, end[2]), 0.09, 0.09, steel)
    _capsule(stage, (arm[0], arm[1] - 0.05, arm[2]), (end[0], end[1] - 0.05, end[2]), 0.05, 0.05, head)
    stage.touch(on.foot(0.15, 0.15), 150)
    if lit:
        place = _between(arm, end, 0.5)
        stage.lights.append(Light((place[0], place[1] - 0.15, place[2]), _scaled(colour, 62.0), (0.0, -1.0, 0.0), 3.5))
        stage.flares.append(Flare(place, colour, 0.16))


def _sign(stage: _Stage, rng: np.random.Generator, x: float, z: float) -> None:
    on = _Frame(stage, x, z, 0.0)
    steel = Material(_rgb(128, 132, 134), _AIR - 0.4, grain=0.05)
    _capsule(stage, on(0, 0, 0), on(0, 2.75, 0), 0.035, 0.035, steel)
    faces = ((_rgb(188, 22, 30), _rgb(238, 238, 236)), (_rgb(24, 74, 160), _rgb(238, 238, 236)))
    outer, inner = faces[int(rng.integers(2))]
    right: Point = (1.0, 0.0, 0.0)
    up: Point = (0.0, 1.0, 0.0)
    _disc(stage, on(-0.05, 2.45, 0), 0.33, right, up, Material(outer, _AIR - 1.0, grain=0.0), casts=True)
    bar = [on(-0.06, 2.45 + y, x) for x, y in ((-0.22, -0.06), (-0.22, 0.06), (0.22, 0.06), (0.22, -0.06))]
    stage.add(bar, Material(inner, _AIR - 1.0, grain=0.0))


def _tree(stage: _Stage, rng: np.random.Generator, x: float, z: float) -> None:
    on = _Frame(stage, x, z, 0.0)
    tall = float(rng.uniform(5.0, 8.0))
    crown = float(rng.uniform(1.5, 2.3))
    bark = Material(_rgb(74, 60, 48), _AIR + 1.6, grain=0.25, thermal_grain=0.8)
    fork = tall - 1.35 * crown
    _capsule(stage, on(0, 0, 0), on(0, fork, 0), 0.19, 0.13, bark)
    for k in range(4):
        lean = float(rng.uniform(-0.75, 0.75)) * crown
        _capsule(stage, on(0, fork - 0.3 * k, 0), on(0, tall - 0.5 * crown, lean), 0.075, 0.03, bark)
    stage.touch(on.foot(0.3, 0.3), 170)
    green = _choose(rng, (_rgb(62, 92, 40), _rgb(78, 100, 44), _rgb(52, 84, 48), _rgb(120, 104, 40)))
    cx, cy, cz = on(0, tall, 0)
    many = int(np.clip(stage.pixels(crown, cz) * 9, 80, 900))
    radius = crown * 1.9 / math.sqrt(many)
    angle = rng.uniform(0, 2 * math.pi, many)
    out = np.sqrt(rng.uniform(0, 1, many))
    lobes = 1 + 0.14 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.09 * np.sin(7 * angle + rng.uniform(0, 6))
    us, vs = out * lobes * np.cos(angle), out * lobes * np.sin(angle)
    depth = rng.uniform(0, 1, many)
    for k in np.argsort(depth):
        u, v, d = float(us[k]), float(vs[k]), float(depth[k])
        shade = (0.45 + 0.55 * d) * (0.80 + 0.35 * v) * float(rng.uniform(0.75, 1.25))
        leaf = Material(_scaled(green, max(shade, 0.12)), _AIR + 0.3 - 0.5 * v + 0.8 * d, grain=0.30, solar=1.5)
        r = radius * float(rng.uniform(0.6, 1.2))
        turn = float(rng.uniform(0, 6))
        x0, y0 = cx + crown * u, cy + 0.9 * crown * v
        points = [
            (x0 + r * (1 + 0.35 * math.sin(3 * t + turn)) * math.cos(t), y0 + 0.8 * r * math.sin(t), cz)
            for t in (2 * math.pi * i / 9 for i in range(9))
        ]
        stage.add(points, leaf, normal=_unit((0.6 * u, 0.35 + 0.6 * v, -0.7)), casts=k % 3 == 0)


def _unit(p: Point) -> Point:
    length = math.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2])
    return (p[0] / length, p[1] / length, p[2] / length)


_WALLS = (
    _rgb(150, 92, 74), _rgb(172, 128, 98), _rgb(196, 186, 168), _rgb(168, 170, 170), _rgb(128, 112, 100),
    _rgb(206, 196, 176), _rgb(112, 118, 124),
)  # fmt: skip
_BOARDS = (_rgb(150, 36, 32), _rgb(34, 84, 66), _rgb(30, 60, 110), _rgb(196, 150, 56), _rgb(48, 48, 52))
_PANE, _DOOR = _rgb(38, 46, 54), _rgb(60, 44, 34)
_DEPTH = 12.0  # metres from a block's front to its back


class _Facade:
    """The front of a block, on the ground line from `start` to `end` (camera coordinates)."""

    def __init__(self, stage: _Stage, start: Point, end: Point, storeys: int, floor: float, wall: Material) -> None:
        self.stage, self.start, self.end, self.wall = stage, start, end, wall
        self.length = math.hypot(end[0] - start[0], end[2] - start[2])
        self.storeys, self.floor = storeys, floor
        self.ground = floor * 1.2  # height of the ground floor
        self.height = self.ground + floor * storeys + 0.5

    def panel(self, u0: float, u1: float, y0: float, y1: float, material: Material, *, casts: bool = False) -> None:
        """Paint a rectangle of the wall; `u` runs along it in metres."""
        (x0, _, z0), (x1, _, z1) = (_between(self.start, self.end, u / self.length) for u in (u0, u1))
        self.stage.add([(x0, y0, z0), (x0, y1, z0), (x1, y1, z1), (x1, y0, z1)], material, casts=casts)

    def paint(self, rng: np.random.Generator, *, lit: bool) -> None:
        wall, ground, length = self.wall, self.ground, self.length
        self.panel(0, length, 0, self.height, wall, casts=True)
        nearest = max(min(self.start[2], self.end[2]), 3.0)
        if self.stage.pixels(1.0, nearest) < 3:
            return
        ledge = Material(_scaled(wall.colour, 1.2), wall.heat - 1.8, grain=0.08)
        light_wall = sum(wall.colour) > 0.9
        trim_colour = _scaled(wall.colour, 0.55) if light_wall else _rgb(206, 202, 192)
        trim = Material(trim_colour, wall.heat - 0.3, grain=0.05)
        warm: Colour = (float(rng.uniform(0.9, 1.1)), 0.72, 0.40)
        cool: Colour = (0.75, 0.85, 0.95)
        bays = max(1, int(length / float(rng.uniform(2.2, 3.2))))
        pitch = length / bays
        half = 0.5 * pitch * float(rng.uniform(0.42, 0.62))
        self.panel(0, length, self.height - 0.35, self.height, ledge)
        for storey in range(self.storeys):
            base = ground + storey * self.floor
            low, high = base + 0.85, base + self.floor - 0.45
            if storey == 0 or rng.random() < 0.3:
                self.panel(0, length, base - 0.12, base + 0.10, ledge)
            for bay in range(bays):
                u = (bay + 0.5) * pitch
                glowing, leaky, blind, tint = (float(v) for v in rng.random(4))
                shining = lit and glowing < 0.24
                glow = _scaled(warm if tint < 0.7 else cool, 0.25 + 0.9 * tint) if shining else _BLACK
                heat = wall.heat + (8.0 if leaky < 0.08 else -5.0 + 3.0 * blind)
                pane = Material(_PANE, heat, glow=glow, gloss=0.0 if shining else 0.5, grain=0.0, solar=0.5)
                self.panel(u - half - 0.09, u + half + 0.09, low - 0.08, high + 0.08, trim)
                self.panel(u - half, u + half, low, high, pane)
                if self.stage.pixels(0.1, nearest) < 1.2:
                    continue
                if blind < 0.45:
                    cloth = Material(_rgb(190, 182, 164), heat + 1.5, glow=_scaled(glow, 0.5), grain=0.04)
                    self.panel(u - half, u + half, high - (high - low) * (0.2 + blind), high, cloth)
                self.panel(u - 0.035, u + 0.035, low, high, trim)
                self.panel(u - half - 0.14, u + half + 0.14, low - 0.14, low - 0.04, ledge)
        if rng.random() < 0.6:
            self.shops(rng, bays, trim, warm if rng.random() < 0.6 else cool, lit=lit)
        else:
            self.hall(bays, half, trim)

    def shops(self, rng: np.random.Generator, bays: int, trim: Material, light: Colour, *, lit: bool) -> None:
        """Paint shop windows with a name board above them."""
        wall, pitch, top = self.wall, self.length / bays, self.ground - 0.85
        for bay in range(bays):
            u0, u1 = bay * pitch + 0.18, (bay + 1) * pitch - 0.18
            glowing, leaky, door = (float(v) for v in rng.random(3))
            glow = _scaled(light, 1.1) if lit and glowing < 0.5 else _BLACK
            heat = wall.heat + (6.0 if leaky < 0.3 else -1.0)
            self.panel(u0, u1, 0.45, top, Material(_PANE, heat, glow=glow, gloss=0.35, grain=0.02, solar=0.5))
            self.panel((u0 + u1) / 2 - 0.05, (u0 + u1) / 2 + 0.05, 0.1, top, trim)
            if door < 0.3:
                self.panel(u0 + 0.1, u0 + 1.1, 0.0, 2.2, Material(_DOOR, wall.heat + 0.5, grain=0.1))
        board = Material(_choose(rng, _BOARDS), wall.heat - 0.5, grain=0.04)
        self.panel(0.1, self.length - 0.1, top + 0.05, top + 0.63, board)
        letters = board._replace(colour=_rgb(236, 230, 214), glow=_scaled(light, 0.7) if lit else _BLACK)
        u = self.length * 0.3
        while u < self.length * 0.7:
            wide = float(rng.uniform(0.14, 0.32))
            self.panel(u, u + wide, top + 0.19, top + 0.49, letters)
            u += wide + float(rng.choice([0.10, 0.10, 0.10, 0.35]))

    def hall(self, bays: int, half: float, trim: Material) -> None:
        """Paint a plinth, a door in the middle, and windows."""
        wall, pitch, top = self.wall, self.length / bays, self.ground - 0.68
        self.panel(0, self.length, 0, 0.6, Material(_scaled(wall.colour, 0.6), wall.heat + 0.3, grain=0.15))
        for bay in range(bays):
            u = (bay + 0.5) * pitch
            if bay == bays // 2:
                self.panel(u - 0.70, u + 0.70, 0, 2.50, trim)
                self.panel(u - 0.55, u + 0.55, 0, 2.35, Material(_DOOR, wall.heat + 1.5, grain=0.1))
                continue
            pane = Material(_PANE, wall.heat - 1.5, gloss=0.5, grain=0.0, solar=0.5)
            self.panel(u - half - 0.09, u + half + 0.09, 1.0, top + 0.08, trim)
            self.panel(u - half, u + half, 1.08, top, pane)
            self.panel(u - 0.035, u + 0.035, 1.08, top, trim)


def _block(stage: _Stage, rng: np.random.Generator, x: float, z0: float, z1: float, away: float, *, lit: bool) -> None:
    """Paint a block beside the street; `away` is the sign of its side. Its end is seen through the gaps."""
    wall = Material(_choose(rng, _WALLS), _AIR + float(rng.uniform(-0.5, 5.0)), grain=0.13, thermal_grain=0.8)
    storeys, floor = int(rng.choice([1, 2, 2, 3, 4])), float(rng.uniform(2.9, 3.4))
    front = _Facade(stage, stage.turn((x, 0.0, z0)), stage.turn((x, 0.0, z1)), storeys, floor, wall)
    back = x + away * _DEPTH
    for (xa, za), (xb, zb), seen in (
        ((x, z1), (back, z1), False),
        ((back, z0), (back, z1), False),
        ((x, z0), (back, z0), True),
    ):
        corners = [(xa, 0.0, za), (xa, front.height, za), (xb, front.height, zb), (xb, 0.0, zb)]
        end = wall._replace(colour=_scaled(wall.colour, 0.85))
        stage.face([stage.turn(p) for p in corners], end, seen)
    front.paint(rng, lit=lit)


# ---------------------------------------------------------------------------------------------------------------------
# The street
# ---------------------------------------------------------------------------------------------------------------------

_FAR = 110.0  # metres, end of the street
_KERB = 0.13  # metres, height of the pavement


class _Plan(NamedTuple):
    """The cross-section of the street: x in metres, the camera at 0, in the right-hand lane."""

    left: float  # kerbs
    right: float
    centre: float  # line between the lanes
    lane: float  # width
    parking: tuple[float, float]  # widths of the parking strips within the kerbs, 0 for none
    walk: tuple[float, float]  # widths of the pavements

    @property
    def drive(self) -> tuple[float, float]:
        """Both edges of the two lanes."""
        return self.left + self.parking[0], self.right - self.parking[1]


def _draw_plan(rng: np.random.Generator) -> _Plan:
    lane = float(rng.uniform(3.0, 3.5))
    centre = -float(rng.uniform(1.4, 1.8))
    a, b = (2.3 if rng.random() < 0.55 else 0.0 for _ in range(2))
    walk = (float(rng.uniform(2.4, 3.6)), float(rng.uniform(2.4, 3.6)))
    return _Plan(centre - lane - a, centre + lane + b, centre, lane, (a, b), walk)


class _Arrangement:
    """What stands on the street, collected in any order and painted from far to near."""

    def __init__(self, stage: _Stage, seed: int) -> None:
        self.stage, self.seed = stage, seed
        self.things: list[tuple[float, Callable[[np.random.Generator], None]]] = []
        self.taken: list[tuple[float, float, float, float]] = []

    def put(self, z: float, draw: Callable[..., None], *args: float, **options: bool) -> None:
        self.things.append((z, lambda rng: draw(self.stage, rng, *args, **options)))

    def take(self, x: float, z: float, wide: float, deep: float) -> bool:
        """Take a place of these half sizes; False if something stands there."""
        if any(abs(x - u) < wide + w and abs(z - v) < deep + d for u, v, w, d in self.taken):
            return False
        self.taken.append((x, z, wide, deep))
        return True

    def paint(self, layer: int) -> None:
        """Each thing draws from a generator of its own, so that adding one leaves the others as they are."""
        for number in sorted(range(len(self.things)), key=lambda n: -self.things[n][0]):
            self.things[number][1](np.random.default_rng([self.seed, layer, number]))
        self.things.clear()


def _build(stage: _Stage, seed: int, condition: str) -> None:
    """Paint the street of a seed. The condition switches lamps, and glare changes who is about."""
    rng = np.random.default_rng([seed, 1])
    plan = _draw_plan(rng)
    lamps = _WEATHER[condition].lamps
    headlights = lamps or condition == "fog"
    street = _Arrangement(stage, seed)
    _ground(stage, rng, plan)
    _blocks(street, rng, plan, lamps)
    street.paint(2)
    stage.first_thing = len(stage.materials)
    _kerbside(street, rng, plan, headlights)
    oncoming, crossing = _traffic(street, rng, plan, headlights)
    _furniture(street, rng, plan)
    _bicycles(street, rng, plan)
    _people(street, rng, plan)
    if condition == "glare":  # the one whom only the infrared image shows
        street.put(oncoming[1] - 2.4, _walker, oncoming[0] + 1.25, oncoming[1] - 2.4, 2.8)
    elif crossing is not None:  # in glare this car would stand before the headlights
        street.put(crossing[1], _car, *crossing, running=True, lamps=headlights)
    street.paint(3)


def _blocks(street: _Arrangement, rng: np.random.Generator, plan: _Plan, lamps: bool) -> None:
    """Houses on both sides with trees in the gaps, and one across the far end."""
    stage = street.stage
    for away, edge in ((-1.0, plan.left - plan.walk[0]), (1.0, plan.right + plan.walk[1])):
        z = float(rng.uniform(-6.0, 1.0))
        while z < _FAR:
            length = float(rng.uniform(9.0, 17.0))
            street.put(z, _block, edge + away * float(rng.choice([0.0, 0.0, 0.5])), z, z + length, away, lit=lamps)
            z += length
            gap = float(rng.choice([0.0, 0.0, 4.0, 9.0]))
            for k in range(math.ceil(gap / 5)):
                place = z + 2.0 + 4.5 * k
                street.put(place, _tree, edge + away * float(rng.uniform(2.0, 5.0)), place)
            z += gap
    wall = Material(_choose(rng, _WALLS), _AIR + 1.5)
    ends = (stage.turn((-40.0, 0.0, _FAR + 4)), stage.turn((40.0, 0.0, _FAR + 4)))
    _Facade(stage, *ends, 3, 3.1, wall).paint(np.random.default_rng([street.seed, 4]), lit=lamps)


def _kerbside(street: _Arrangement, rng: np.random.Generator, plan: _Plan, lit: bool) -> None:
    """Street lamps on one side, trees, and a sign."""
    warmth = int(rng.integers(3))
    lamp_side = 1.0 if rng.random() < 0.5 else -1.0
    first = float(rng.uniform(8.0, 15.0))
    for k in range(4):
        z = first + 22.0 * k
        x, reach = (plan.right + 0.5, -1.3) if lamp_side > 0 else (plan.left - 0.5, 1.3)
        if street.take(x, z, 0.2, 0.2):
            street.put(z, _street_lamp, x, z, reach, warmth, lit=lit)
    for side, x in ((-1.0, plan.left - 0.8), (1.0, plan.right + 0.8)):
        z = float(rng.uniform(9.0, 18.0)) + (6.0 if side == lamp_side else 0.0)
        for _ in range(int(rng.choice([0, 0, 1, 2, 3]))):
            if street.take(x, z, 0.3, 0.5):
                street.put(z, _tree, x, z)
            z += float(rng.uniform(9.0, 14.0))
    z = float(rng.uniform(9.0, 22.0))
    if rng.random() < 0.6 and street.take(plan.right + 0.45, z, 0.3, 0.3):
        street.put(z, _sign, plan.right + 0.45, z)


def _traffic(
    street: _Arrangement, rng: np.random.Generator, plan: _Plan, lamps: bool
) -> tuple[tuple[float, float], tuple[float, float, float] | None]:
    """Put the cars that come, go and park.

    Returns:
        Where (x, z) the oncoming car stands, and where and in what direction (x, z, heading) one crosses, if one does;
        that one is not put on the street.
    """
    own, other = plan.centre + plan.lane / 2, plan.centre - plan.lane / 2
    crosses = bool(rng.random() < 0.28)
    oncoming = (other, float(rng.uniform(13.0, 24.0)) + (8.0 if crosses else 0.0))
    street.take(*oncoming, 1.0, 2.6)
    street.put(oncoming[1], _car, *oncoming, math.pi, running=True, lamps=lamps)
    crossing = None
    if crosses:
        z, turn = float(rng.uniform(10.0, 15.0)), float(rng.choice([-0.5, 0.5])) * math.pi
        crossing = (float(rng.uniform(plan.left + 2.6, plan.right - 2.6)), z, turn)
        street.take(*crossing[:2], 2.6, 1.2)
    elif rng.random() < 0.75:
        z = float(rng.uniform(11.0, 30.0))
        street.take(own, z, 1.0, 2.6)
        street.put(z, _car, own, z, 0.0, running=True, lamps=lamps)
    for width, x, turn in (
        (plan.parking[0], plan.left + 1.15, math.pi),
        (plan.parking[1], plan.right - 1.15, 0.0),
    ):
        z = float(rng.uniform(6.5, 11.0))
        for _ in range(int(rng.integers(2, 6)) if width else 0):
            if rng.random() < 0.85 and street.take(x, z, 1.0, 2.3):
                street.put(z, _car, x + float(rng.uniform(-0.1, 0.1)), z, turn, running=False, lamps=False)
            z += float(rng.uniform(5.6, 7.5))
    return oncoming, crossing


def _furniture(street: _Arrangement, rng: np.random.Generator, plan: _Plan) -> None:
    """Cones, a railing, bollards or hoops."""
    if rng.random() < 0.5:
        z, x = float(rng.uniform(5.5, 10.0)), plan.drive[1] - 0.35
        for _ in range(int(rng.integers(2, 6))):
            if street.take(x, z, 0.2, 0.2):
                street.put(z, _cone, x, z)
            x -= 0.18
            z += float(rng.uniform(1.3, 2.2))
    if rng.random() < 0.55:
        x = plan.left - 0.3 if rng.random() < 0.5 else plan.right + 0.3
        z = float(rng.uniform(4.0, 9.0))
        for _ in range(int(rng.integers(2, 5))):  # in pieces, so that people can stand before and behind it
            if street.take(x, z + 2.0, 0.1, 1.99):
                street.put(z + 2.0, _railing, x, z, z + 4.0)
            z += 4.0
    if rng.random() < 0.5:
        z, x = float(rng.uniform(5.5, 12.0)), (plan.left - 0.5, plan.right + 0.5)[int(rng.integers(2))]
        shape, wide = (_hoop, 0.6) if rng.random() < 0.4 else (_bollard, 0.2)
        for _ in range(int(rng.integers(2, 4))):
            if street.take(x, z, wide, 0.3):
                street.put(z, shape, x, z)
            z += 1.9


def _bicycles(street: _Arrangement, rng: np.random.Generator, plan: _Plan) -> None:
    """One that is ridden along or across the street, and some parked before the houses."""
    if rng.random() < 0.6:
        z = float(rng.uniform(7.0, 16.0))
        turn, x, room = 0.0, plan.drive[1] - 0.6, (0.4, 1.0)
        if rng.random() < 0.5:
            turn, x = float(rng.choice([-0.5, 0.5])) * math.pi, float(rng.uniform(plan.left + 1.5, plan.right - 1.5))
            room = (1.0, 0.4)
        if street.take(x, z, *room):
            street.put(z, _bike, x, z, turn + float(rng.normal(0, 0.1)), ridden=True)
    if rng.random() < 0.55:
        z, side = float(rng.uniform(6.0, 12.0)), float(rng.choice([-1.0, 1.0]))
        x = plan.left - plan.walk[0] + 0.7 if side < 0 else plan.right + plan.walk[1] - 0.7
        for _ in range(int(rng.integers(2, 6))):
            if street.take(x, z, 0.7, 0.3):
                street.put(z, _bike, x, z, -1.25 * side + float(rng.normal(0, 0.06)), ridden=False)
            z += 0.8


def _people(street: _Arrangement, rng: np.random.Generator, plan: _Plan) -> None:
    """People on both pavements, and some who cross."""
    for x0, x1 in (
        (plan.left - plan.walk[0] + 0.4, plan.left - 0.6),
        (plan.right + 0.6, plan.right + plan.walk[1] - 0.4),
    ):
        for _ in range(int(rng.integers(2, 6))):
            x, z = float(rng.uniform(x0, x1)), float(rng.uniform(5.5, 20.0))
            turn = float(rng.choice([0.0, math.pi])) + float(rng.normal(0, 0.25))
            stands = bool(rng.random() < 0.2)
            if street.take(x, z, 0.35, 0.4):
                street.put(z, _walker, x, z, turn, standing=stands)
    for _ in range(int(rng.choice([0, 1, 1, 2]))):
        x, z = float(rng.uniform(*plan.drive)), float(rng.uniform(6.0, 11.0))
        turn = float(rng.choice([-0.5, 0.5])) * math.pi + float(rng.normal(0, 0.15))
        if street.take(x, z, 0.6, 0.4):
            street.put(z, _walker, x, z, turn)


def _ground(stage: _Stage, rng: np.random.Generator, plan: _Plan) -> None:
    """Paint the road with its lines, covers and bump, and the pavements with their kerbs."""

    def strip(x0: float, x1: float, z0: float, z1: float, material: Material, y: float = 0.0) -> None:
        corners = ((x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1))
        stage.add([stage.turn(p) for p in corners], material, normal=(0.0, 1.0, 0.0))

    left, right, centre = plan.left, plan.right, plan.centre
    tone = int(rng.integers(58, 84))
    road = Material(_rgb(tone, tone, tone + 3), _AIR + 4.5, grain=0.20, thermal_grain=0.9, solar=5.0)
    strip(-80, 80, -3, _FAR + 40, Material(_rgb(88, 92, 80), _AIR + 2.0, grain=0.18, thermal_grain=0.6))
    strip(left, right, -3, _FAR + 10, road)
    for _ in range(int(rng.integers(2, 6))):  # mended patches
        x, z, shade = float(rng.uniform(left, right - 1.2)), float(rng.uniform(3, 30)), float(rng.uniform(0.7, 0.9))
        patch = road._replace(colour=_scaled(road.colour, shade), heat=road.heat + 0.5)
        strip(x, x + float(rng.uniform(0.7, 1.4)), z, z + float(rng.uniform(1, 6)), patch)
    for track in (-2.45, -0.85, 0.85, 2.45):  # tyres polish and warm the asphalt
        worn = road._replace(colour=_scaled(road.colour, 0.92), heat=road.heat + 0.8)
        strip(centre + track - 0.25, centre + track + 0.25, -3, _FAR, worn)

    for _ in range(2):  # manhole covers, warmed from below
        place = (float(rng.uniform(left + 1, right - 1)), 0.0, float(rng.uniform(5, 18)))
        cover = Material(_rgb(52, 50, 48), _AIR + 6.5, grain=0.3)
        _disc(stage, stage.turn(place), 0.33, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), cover)

    paint = Material(_rgb(214, 214, 206), _AIR + 2.6, grain=0.22, thermal_grain=0.5)
    middle = paint._replace(colour=_rgb(214, 164, 48)) if rng.random() < 0.3 else paint
    z, dash = float(rng.uniform(-2, 2)), 6.0 if rng.random() < 0.3 else 3.0
    while z < 80:
        strip(centre - 0.07, centre + 0.07, z, z + dash, middle)
        z += 6.0
    for kerb_x, width, sign in ((left, plan.parking[0], 1.0), (right, plan.parking[1], -1.0)):
        line = kerb_x + sign * (width or 0.35)
        strip(line - 0.06, line + 0.06, -3, 80, paint)
        for k in range(12 if width else 0):
            strip(min(kerb_x, line), max(kerb_x, line), 3.4 + 6.2 * k, 3.5 + 6.2 * k, paint)
    if rng.random() < 0.45:  # zebra crossing
        z, x = float(rng.uniform(7.0, 16.0)), left + 0.4
        while x < right - 0.5:
            strip(x, x + 0.45, z, z + 3.0, paint)
            x += 0.95
    elif rng.random() < 0.5:  # arrow
        z, x = float(rng.uniform(5.0, 10.0)), centre + plan.lane / 2
        shaft, head = [(-0.08, 0.0), (0.08, 0.0), (0.08, 2.2), (-0.08, 2.2)], [(-0.32, 2.1), (0.32, 2.1), (0.0, 3.4)]
        for outline in (shaft, head):
            stage.add([stage.turn((x + u, 0.0, z + v)) for u, v in outline], paint, normal=(0.0, 1.0, 0.0))
    if rng.random() < 0.45:
        z, (x0, x1) = float(rng.uniform(6.0, 20.0)), plan.drive
        brick = Material(_rgb(150, 112, 92), _AIR + 3.0, BUMP, grain=0.20, solar=4.0)
        pale = Material(_rgb(214, 206, 188), _AIR + 2.6, BUMP, grain=0.15)
        for k in range(12):
            a, b = x0 + (x1 - x0) * k / 12, x0 + (x1 - x0) * (k + 1) / 12
            stone = pale if k % 2 else brick
            ramp = ((a, 0.0, z), (a, 0.09, z + 0.35), (b, 0.09, z + 0.35), (b, 0.0, z))
            stage.add([stage.turn(p) for p in ramp], stone._replace(colour=_scaled(stone.colour, 0.85)))
            strip(a, b, z + 0.35, z + 1.25, stone, 0.09)

    tone = int(rng.integers(118, 150))
    slabs = Material(_rgb(tone, tone - 4, tone - 12), _AIR + 2.2, grain=0.18, thermal_grain=0.6, solar=4.0)
    joint = slabs._replace(colour=_scaled(slabs.colour, 0.62), heat=slabs.heat + 0.6)
    tone = int(rng.integers(150, 182))
    kerb = Material(_rgb(tone, tone - 3, tone - 10), _AIR + 1.4, CURVE, grain=0.16)
    gap = kerb._replace(colour=_scaled(kerb.colour, 0.6))
    for x, sign, width in ((left, -1.0, plan.walk[0]), (right, 1.0, plan.walk[1])):
        a, b = sorted((x + sign * 0.16, x + sign * (width + 0.6)))
        strip(a, b, -3, _FAR, slabs, _KERB)
        for k in range(60):
            z = 1.0 + 0.9 * k * (1 + 0.02 * k)
            strip(a, b, z, z + 0.025 * (1 + 0.03 * k), joint, _KERB)
        for k in range(1, 4):
            u = a + (b - a) * k / 4
            strip(u - 0.012, u + 0.012, -3, 40, joint, _KERB)
        face = [stage.turn(p) for p in ((x, 0.0, -3), (x, _KERB, -3), (x, _KERB, _FAR), (x, 0.0, _FAR))]
        stage.add(face, kerb._replace(colour=_scaled(kerb.colour, 0.8), heat=kerb.heat + 0.8))
        a, b = sorted((x, x + sign * 0.16))
        strip(a, b, -3, _FAR, kerb, _KERB)
        for k in range(40):
            strip(a, b, 1.0 + 1.2 * k, 1.02 + 1.2 * k, gap, _KERB)
        gutter = x - sign * 0.12
        stage.touch([stage.turn(p) for p in ((x, 0, -3), (gutter, 0, -3), (gutter, 0, _FAR), (x, 0, _FAR))], 110)


# ---------------------------------------------------------------------------------------------------------------------
# Light and heat
# ---------------------------------------------------------------------------------------------------------------------


def _blur(image: Array, sigma: float) -> Array:
    """Three box filters, near a Gaussian, with the border repeated. (H, W) or (H, W, C)."""
    radius = round(math.sqrt(sigma * sigma + 0.25) - 0.5)
    if radius < 1:  # too narrow for a box: [w, 1, w] has the variance asked for
        side = sigma * sigma / 2
        for axis in (0, 1):
            pad = [(1, 1) if a == axis else (0, 0) for a in range(image.ndim)]
            p = np.pad(image, pad, mode="edge")
            n = image.shape[axis]
            low, mid, high = (np.take(p, np.arange(k, k + n), axis=axis) for k in range(3))
            image = ((1 - 2 * side) * mid + side * (low + high)).astype(np.float32)
        return image
    for _ in range(3):
        for axis in (0, 1):
            pad = [(radius + 1, radius) if a == axis else (0, 0) for a in range(image.ndim)]
            total = np.cumsum(np.pad(image, pad, mode="edge"), axis=axis, dtype=np.float64)
            n = image.shape[axis]
            reach = 2 * radius + 1
            high = np.take(total, np.arange(reach, reach + n), axis=axis)
            low = np.take(total, np.arange(n), axis=axis)
            image = ((high - low) / reach).astype(np.float32)
    return image


def _texture(rng: np.random.Generator, size: int = 512) -> Array:
    """Return tileable noise in [-1, 1], equal parts of five octaves. (size, size)."""
    total: Array = np.zeros((size, size), np.float32)
    for octave in range(5):
        cell = 2**octave
        grid = rng.uniform(-1, 1, (size // cell, size // cell)).astype(np.float32)
        total += np.kron(grid, np.ones((cell, cell), np.float32))
    for axis in (0, 1):
        total = (np.roll(total, 1, axis) + 2 * total + np.roll(total, -1, axis)) / 4
    return np.clip(total / (2.2 * total.std()), -1, 1)


class _View(NamedTuple):
    """What the camera sees, per pixel: (H, W), or (H, W, 3) for vectors and colours."""

    number: NDArray[np.int32]  # the polygon at the pixel's centre, 0 for the sky
    sky: Array  # share of the pixel's samples that hit the sky
    albedo: Array  # this and the next three: mean of the samples that hit something
    glow: Array
    heat: Array
    gloss: Array
    position: Array  # metres, camera coordinates
    depth: Array  # metres
    normal: Array
    ground: NDArray[np.bool_]  # faces up
    texture: Array  # fine noise on the surface, in [-1, 1]
    stains: Array  # noise of some metres, in [-1, 1]


def _look(stage: _Stage, rng: np.random.Generator) -> _View:
    """Resolve the buffer of polygon numbers: geometry at the pixel centres, materials averaged over the samples."""
    samples = np.asarray(stage.numbers, dtype=np.int32)
    number = samples[_SAMPLES // 2 :: _SAMPLES, _SAMPLES // 2 :: _SAMPLES]
    table = np.array([(*m.colour, *m.glow, m.heat, m.gloss, 1.0) for m in stage.materials], np.float32)
    table[0] = 0.0
    total = np.zeros((*number.shape, table.shape[1]), np.float32)
    for dy in range(_SAMPLES):
        for dx in range(_SAMPLES):
            total += table[samples[dy::_SAMPLES, dx::_SAMPLES]]
    hits = total[..., 8]
    mean = total / np.maximum(hits, 1)[..., None]

    y, x = np.mgrid[0 : stage.height, 0 : stage.width].astype(np.float32)
    across, rise = (x + 0.5 - stage.centre[0]) / stage.focal, (stage.centre[1] - y - 0.5) / stage.focal
    ray = np.stack([across, rise, np.ones_like(x)], -1)
    # A plane n.p = d is n/d . ray = 1/z: the inverse depth is linear in the image.
    inverse = (np.array(stage.planes, np.float32)[number] * ray).sum(-1)
    depth = 1 / np.clip(inverse, 1 / 4000, 1 / _NEAR)
    position = ray * depth[..., None]
    position[..., 1] += _EYE
    normal = np.array(stage.normals, np.float32)[number]
    ground = normal[..., 1] > 0.9

    # Texture coordinates in metres along the surface: one lookup for every plane, whichever way it is turned.
    u = np.where(ground, position[..., 0], position[..., 0] + position[..., 2])
    v = np.where(ground, position[..., 2], position[..., 1])
    noise = _texture(rng)
    texture, stains = np.zeros_like(depth), np.zeros_like(depth)
    for scale, weight in ((22.0, 0.55), (5.0, 0.45)):  # cells per metre; fainter where they are smaller than a pixel
        row, column = np.floor(v * scale).astype(np.int64), np.floor(u * scale).astype(np.int64)
        sharp = np.clip(stage.focal / (scale * depth), 0.25, 1)
        texture += weight * noise[row % noise.shape[0], column % noise.shape[1]] * sharp
    for scale, weight in ((0.45, 0.6), (1.7, 0.4)):
        stains += weight * _value_noise(rng.uniform(-1, 1, (64, 64)), u * scale, v * scale)
    return _View(
        number=number,
        sky=1 - hits / _SAMPLES**2,
        albedo=mean[..., :3],
        glow=mean[..., 3:6],
        heat=mean[..., 6],
        gloss=mean[..., 7],
        position=position,
        depth=depth,
        normal=normal,
        ground=ground,
        texture=texture,
        stains=stains,
    )


def _of(stage: _Stage, view: _View, values: list[float]) -> Array:
    """Spread one value per polygon over the pixels."""
    return np.array(values, np.float32)[view.number]


def _facing_sun(stage: _Stage, view: _View) -> Array:
    """Sunlight that arrives per pixel, (H, W) in [0, 1]: the cosine to the sun, less the shadows."""
    sx, sy, sz = stage.sun
    if sy <= 0:
        return np.zeros_like(view.depth)
    # Along the sun's ray down to the ground: where the blocks' shadow covers that place, it covers the ray.
    x, y, z = (view.position[..., k] for k in range(3))
    plan = _blur(np.asarray(stage.plan, np.float32) / 255, 1.0)
    column = (x - sx * y / sy + _PLAN[0] / 2) * _PLAN_SCALE
    row = (z - sz * y / sy) * _PLAN_SCALE
    blocked = plan[
        np.clip(np.rint(row), 0, plan.shape[0] - 1).astype(np.int64),
        np.clip(np.rint(column), 0, plan.shape[1] - 1).astype(np.int64),
    ]
    blocked = _blur(blocked, max(stage.height / 240, 0.4))
    thrown = _blur(np.asarray(stage.shadow, np.float32) / 255, max(stage.height / 600, 0.4))
    free = np.where(view.ground, (1 - blocked) * (1 - 0.94 * thrown), 1 - blocked)
    wall = (view.number < stage.first_thing) & ~view.ground  # its own shadow covers the ground below it
    cosine = np.clip((view.normal * np.array(stage.sun, np.float32)).sum(-1), 0, None)
    return cosine * np.where(wall, 1.0, free)


def _clouds(stage: _Stage, rng: np.random.Generator, cloudy: float) -> tuple[Array, Array]:
    """Height above the horizon as a slope, and cloud cover in [0, 1]; both (H, W)."""
    y, x = np.mgrid[0 : stage.height, 0 : stage.width].astype(np.float32)
    rise = np.clip((stage.centre[1] - y) / stage.focal, 0, None)
    far = 1 / (rise + 0.06)  # clouds lie on a plane high above, so they grow smaller towards the horizon
    across = (x - stage.centre[0]) / stage.focal * far
    cover = np.zeros_like(rise)
    for octave in range(4):
        scale = 2.0**octave
        cover += 0.5 / scale * _value_noise(rng.uniform(0, 1, (64, 64)), 0.55 * scale * across, 0.8 * scale * far)
    return rise, np.clip((cover - 0.62 + 0.35 * cloudy) * 3.2, 0, 1)


def _value_noise(grid: Array, u: Array, v: Array) -> Array:
    """Look up a tiled square grid, interpolated with smoothstep."""
    size = grid.shape[0]
    u0, v0 = np.floor(u), np.floor(v)
    fu, fv = u - u0, v - v0
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    i, j = v0.astype(np.int64) % size, u0.astype(np.int64) % size
    k, m = (i + 1) % size, (j + 1) % size
    low = grid[i, j] * (1 - fu) + grid[i, m] * fu
    high = grid[k, j] * (1 - fu) + grid[k, m] * fu
    return low * (1 - fv) + high * fv


def _visible(
    stage: _Stage, view: _View, condition: str, sun: Array, rise: Array, cover: Array, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Render the visible image, (H, W, 3) in [0, 1]."""
    weather = _WEATHER[condition]
    zenith, horizon = np.array(weather.zenith, np.float32), np.array(weather.horizon, np.float32)
    height = view.position[..., 1]
    contact = _blur(np.asarray(stage.contact, np.float32) / 255, max(stage.height / 320, 0.4))
    # What faces up sees all of the sky; low walls and the ground beneath things see less of it.
    open_sky = (0.62 + 0.38 * view.normal[..., 1]) * np.where(
        view.ground, 1 - 0.85 * contact, 0.72 + 0.28 * np.clip(height / 2.0, 0, 1)
    )
    light = open_sky[..., None] * np.array(weather.sky, np.float32) + sun[..., None] * np.array(weather.sun, np.float32)
    lights = list(stage.lights)
    if weather.lamps:  # the camera's own car
        lights.append(Light((0.0, 0.75, 0.3), (130.0, 127.0, 112.0), _unit((0.0, -0.06, 1.0)), 40.0))
    lamplight = np.zeros_like(light)
    for lamp in lights:
        lamplight += _lamp_light(lamp, view)
    light = light + lamplight * np.where(view.ground, 1 - 0.8 * contact, 1.0)[..., None]

    # A mirrored sky: bright above, the street's own dark below.
    ray = view.position - np.array((0, _EYE, 0), np.float32)
    ray = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
    mirrored = ray[..., 1] - 2 * (ray * view.normal).sum(-1) * view.normal[..., 1]
    sheen = np.clip(0.12 + 1.3 * mirrored, 0.05, 1.0)[..., None] * horizon

    grain = _of(stage, view, [m.grain for m in stage.materials])
    albedo = view.albedo * (1 + grain * (view.texture + 0.7 * view.stains))[..., None]
    gloss = view.gloss[..., None]
    radiance = albedo * light * (1 - gloss) + gloss * sheen + view.glow
    through = np.exp(-weather.haze * view.depth)[..., None]
    radiance = radiance * through + (1 - through) * horizon

    t = np.clip(rise / 0.42, 0, 1)[..., None] ** 0.7
    cloud = 0.8 * cover[..., None]
    sky = ((1 - t) * horizon + t * zenith) * (1 - cloud) + 1.04 * cloud * horizon.max()
    share = view.sky[..., None]
    radiance = radiance * (1 - share) + sky * share + _flares(stage, view, condition)

    # Lens and sensor: bloom, vignette, blur, a film-like shoulder, gamma, noise.
    radiance = radiance + 0.22 * _blur(np.clip(radiance - 0.9, 0, 4), max(stage.height / 110, 0.5))
    y, x = np.mgrid[0 : stage.height, 0 : stage.width].astype(np.float32)
    off = (x / stage.width - 0.5) ** 2 + (y / stage.height - 0.5) ** 2
    exposed = _blur(radiance * (weather.exposure * (1 - 0.45 * off))[..., None], 0.45)
    image = np.clip(1 - np.exp(-1.35 * exposed), 0, 1) ** (1 / 2.2)
    colour_noise = rng.standard_normal(image.shape).astype(np.float32)
    grey_noise = rng.standard_normal((*image.shape[:2], 1)).astype(np.float32)
    image = image + 0.6 * weather.noise * (colour_noise + grey_noise) * (1 - 0.55 * image)
    return np.clip(image, 0, 1).astype(np.float32)


def _lamp_light(lamp: Light, view: _View) -> Array:
    """Return the irradiance of one lamp, (H, W, 3)."""
    way = np.array(lamp.position, np.float32) - view.position
    square = (way * way).sum(-1)
    way /= np.sqrt(square)[..., None]
    # Lambert's cosine, softened: clothes and walls are no perfect planes.
    cosine = np.clip((way * view.normal).sum(-1) * 0.85 + 0.12, 0, None)
    axis = np.clip(-(way * np.array(_unit(lamp.aim), np.float32)).sum(-1), 0, 1)
    amount = cosine * axis**lamp.spread / np.maximum(square, 0.6)
    return amount[..., None] * np.array(lamp.colour, np.float32)


def _flares(stage: _Stage, view: _View, condition: str) -> Array:
    """Return the light that lamps scatter in lens and air, (H, W, 3): a core with a veil; streaks if they dazzle."""
    y, x = np.mgrid[0 : stage.height, 0 : stage.width].astype(np.float32)
    total = np.zeros((stage.height, stage.width, 3), np.float32)
    for flare in stage.flares:
        z = flare.position[2]
        if z < _NEAR:
            continue
        px, py = stage.project(flare.position, 1)
        column, row = round(px), round(py)
        if not (0 <= column < stage.width and 0 <= row < stage.height):
            continue
        if view.depth[row, column] < z - 0.8:  # something stands before it
            continue
        dx, dy = (x - px) / stage.height, (y - py) / stage.height
        square = dx * dx + dy * dy
        near = math.sqrt(min(16.0 / z, 1.6))
        if condition == "glare" and flare.strength >= 1.0:
            amount = 4.2 * (1 + square / (0.040 * near) ** 2) ** -1.4
            amount += 0.9 * np.exp(-np.abs(dy) / 0.006) / (1 + (dx / 0.10) ** 2)
            amount += 0.11 * (1 + square / 0.15**2) ** -1.5
        else:
            amount = 1.3 * flare.strength * (1 + square / (0.011 * near) ** 2) ** -1.35
        if condition == "fog":
            amount = 0.5 * amount + 0.25 * flare.strength * (1 + square / 0.05**2) ** -1.5
            amount *= math.exp(-0.012 * z)
        total += amount[..., None] * np.array(flare.colour, np.float32)
    return total


def _infrared(
    stage: _Stage, view: _View, condition: str, sun: Array, rise: Array, cover: Array, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Render the infrared image, (H, W) in [0, 1]: temperature through air, lens and sensor."""
    grain = _of(stage, view, [m.thermal_grain for m in stage.materials])
    solar = _of(stage, view, [m.solar for m in stage.materials])
    heat = view.heat + grain * (view.texture + 1.6 * view.stains) + solar * sun
    through = np.exp(-(0.010 if condition == "fog" else 0.0035) * view.depth)
    heat = _AIR - 1 + (heat - _AIR + 1) * through
    sky = 5.0 - 26.0 * np.clip(rise / 0.45, 0, 1) ** 0.6 + 9.0 * cover  # cold above, warmer low and under clouds
    heat = heat * (1 - view.sky) + sky * view.sky
    # The camera's fixed scale: -10 °C is black, the street lies in the dark third, skin near white.
    t = np.clip((heat + 10.0) / 44.0, 0, 1)
    value = _blur(0.26 * t + 0.74 * t**5, 0.75 * max(stage.height / 480, 0.4))
    # One camera, one fixed pattern: its columns and pixels differ a little, in the same way in every image.
    camera = np.random.default_rng(20)
    columns = camera.standard_normal((1, stage.width))
    fixed, noise = camera.standard_normal(value.shape), rng.standard_normal(value.shape)
    return np.clip(value + 0.0035 * columns + 0.0045 * fixed + 0.0055 * noise, 0, 1).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------------
# Public functions
# ---------------------------------------------------------------------------------------------------------------------


def render_scene(seed: int, size: tuple[int, int] = (480, 640), condition: str | None = None) -> Pair:
    """Render the street of a seed.

    Args:
        seed: 0 or more; the same seed gives the same bytes, and the same street in every condition.
        size: (height, width) in pixels, at least 32 x 32.
        condition: one of `CONDITIONS`; None draws one from the seed.

    Returns:
        A pair named `00042N` (the seed, and D, N, G or F for the condition) with `visible` float32 (H, W, 3) and
        `infrared` float32 (H, W), both in [0, 1], and `label` uint8 (H, W) with MSRS's ids 0 to 8.

    Raises:
        ConfigError: an unknown condition, a negative seed, or a size below 32 x 32.
    """
    if seed < 0:
        raise ConfigError(f"The seed of a synthetic scene must be 0 or more, found {seed}.")
    height, width = size
    if min(height, width) < 32:
        raise ConfigError(f"A synthetic scene needs a size of at least 32 x 32 pixels, found {height} x {width}.")
    rng = np.random.default_rng([seed, 0])
    drawn = CONDITIONS[int(rng.integers(len(CONDITIONS)))]
    condition = drawn if condition is None else condition
    if condition not in _WEATHER:
        raise ConfigError(f"Unknown condition '{condition}'; choose one of {', '.join(CONDITIONS)}.")
    yaw, cloudy = float(rng.normal(0, 0.05)), float(rng.uniform(0, 1))
    azimuth, elevation = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.3)), float(rng.uniform(0.85, 1.12))
    sun: Point = (0.0, 0.0, 0.0)
    if condition == "day":  # behind the camera or beside it, so that the street is not seen against the light
        sun = (math.cos(elevation) * math.sin(azimuth), math.sin(elevation), -math.cos(elevation) * math.cos(azimuth))
    stage = _Stage((height, width), yaw, sun)
    _build(stage, seed, condition)
    view = _look(stage, np.random.default_rng([seed, 5]))
    sunlight = _facing_sun(stage, view)
    rise, cover = _clouds(stage, np.random.default_rng([seed, 6]), cloudy)
    return Pair(
        name=f"{seed:05d}{condition[0].upper()}",
        visible=_visible(stage, view, condition, sunlight, rise, cover, np.random.default_rng([seed, 7])),
        infrared=_infrared(stage, view, condition, sunlight, rise, cover, np.random.default_rng([seed, 8])),
        label=np.array([m.label for m in stage.materials], np.uint8)[view.number],
    )


def write_scenes(
    root: str | Path,
    count: int,
    seed: int = 0,
    size: tuple[int, int] = (480, 640),
    split: str = "train",
    condition: str | None = None,
) -> list[PairPaths]:
    """Write `count` scenes, of the seeds from `seed` on, as a data set in MSRS's layout.

    The files are 8-bit PNGs `ROOT/SPLIT/{vi,ir,Segmentation_labels}/NAME.png`, each written atomically.

    Returns:
        The written pairs, in the order of their seeds.
    """
    folder = Path(root) / split
    written = []
    for number in range(seed, seed + count):
        scene = render_scene(number, size, condition)
        visible, infrared, label = (folder / kind / f"{scene.name}.png" for kind in ("vi", "ir", "Segmentation_labels"))
        assert scene.label is not None
        arrays = ((visible, scene.visible * 255), (infrared, scene.infrared * 255), (label, scene.label))
        for path, array in arrays:
            with atomic_path(path) as temporary:
                Image.fromarray(np.rint(array).astype(np.uint8)).save(temporary)
        written.append(PairPaths(scene.name, visible, infrared, label, split=split))
    return written
