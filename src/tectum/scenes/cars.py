"""Cars."""

import math
from collections.abc import Sequence

import numpy as np

from tectum.scenes.camera import Frame, Stage, add_box, add_disc
from tectum.scenes.materials import AIR, CAR, Flare, Light, Material, Point, choose, rgb, scaled

PAINTS = (
    rgb(225, 226, 228), rgb(200, 203, 207), rgb(150, 155, 160), rgb(60, 64, 70), rgb(28, 30, 34),
    rgb(150, 24, 28), rgb(28, 62, 128), rgb(36, 92, 110), rgb(190, 170, 120), rgb(88, 30, 40),
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


def add_car(
    stage: Stage, rng: np.random.Generator, x: float, z: float, heading: float, *, running: bool, lamps: bool
) -> None:
    kind = str(rng.choice(["sedan", "hatch", "suv", "van"], p=[0.35, 0.3, 0.25, 0.1]))
    half, axle, body, cabin = _BODIES[kind]
    paint = choose(rng, PAINTS)
    on = Frame(stage, x, z, heading)
    lit = lamps and running
    shell = Material(paint, AIR + 0.5, CAR, gloss=0.16, grain=0.02, solar=4.0)
    hood = shell._replace(heat=AIR + (11.0 if running else 0.5))
    glass = Material(rgb(22, 27, 32), AIR - 2.5, CAR, gloss=0.55, grain=0.0, solar=1.0)
    trim = Material(rgb(26, 27, 29), AIR + (3.0 if running else 0.0), CAR, grain=0.05)
    rubber = Material(rgb(24, 24, 25), AIR + (13.0 if running else 1.0), CAR, grain=0.05)
    rim = Material(rgb(150, 152, 156), AIR + (9.0 if running else 0.5), CAR, gloss=0.1, grain=0.02)
    arch = Material(rgb(10, 10, 11), AIR + (8.0 if running else 0.0), CAR, grain=0.0)
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
            add_box(stage, on, (along - 0.3, 0, across - 0.11), (along + 0.3, 0.5, across + 0.11), rubber, casts=False)
    exhaust = Material(rgb(14, 14, 15), AIR + (17.0 if running else 1.0), CAR, grain=0.0)
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
            seam = Material(scaled(paint, 0.35), AIR + 1.0, CAR, grain=0.0)
            for along in (-0.95, 0.05, 0.98):
                panel(along, along + 0.025, 0.36, 0.95, sign * half, seam)
            for along in (-0.78, 0.22):
                panel(along, along + 0.18, 0.80, 0.84, sign * half, trim)
        for along in (-axle, axle):
            out = sign * (width(along) + 0.01)
            up: Point = (0.0, 1.0, 0.0)
            add_disc(stage, on(along, 0.36, out), 0.39, on.ahead, up, arch)
            add_disc(stage, on(along, 0.32, out), 0.32, on.ahead, up, rubber)
            add_disc(stage, on(along, 0.32, out), 0.21, on.ahead, up, rim)
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
        middle = [between(panes[0], panes[3], 0.50), between(panes[1], panes[2], 0.42)]
        for a, b in ((panes[0], panes[1]), (panes[3], panes[2])):  # on either side of the pillar
            stage.add([a, b, between(middle[1], b, 0.03), between(middle[0], a, 0.03)], glass)

    # Lamps, plates, grille and bumpers.
    white = Material(rgb(222, 222, 214), AIR + 1.0, CAR, grain=0.0)
    if on.sees((1, 0, 0), (front + 0.02, 0.6, 0)):
        at, w, base = front + 0.02, width(front), body[6][1]
        grille = Material(rgb(18, 18, 20), AIR + (19.0 if running else 0.5), CAR, grain=0.0)
        plate(at, base - 0.14, base + 0.06, -0.42, 0.42, grille)
        plate(at, low + 0.02, low + 0.14, -w * 0.8, w * 0.8, trim._replace(heat=AIR + (8.0 if running else 0.0)))
        plate(at + 0.01, base - 0.30, base - 0.19, -0.26, 0.26, white)
        lamp = Material(rgb(236, 238, 240), AIR + (9.0 if lit else 1.0), CAR, gloss=0.3, grain=0.0)
        if lit:
            lamp = lamp._replace(glow=(9.0, 8.6, 7.6))
        for sign in (-1.0, 1.0):
            plate(at, base - 0.07, base + 0.12, sign * w * 0.60, sign * w * 0.97, lamp)
            if lit:
                stage.flares.append(Flare(on(at + 0.05, base + 0.02, sign * w * 0.78), (1.0, 0.95, 0.84), 1.0))
    if on.sees((-1, 0, 0), (rear - 0.02, 0.6, 0)):
        at, w, top = rear - 0.02, width(rear), body[2][1]
        lamp = Material(rgb(150, 16, 18), AIR + 1.0, CAR, gloss=0.1, grain=0.0)
        if lit:
            lamp = lamp._replace(glow=(2.6, 0.10, 0.06))
        plate(at, low + 0.03, low + 0.20, -w * 0.92, w * 0.92, trim)
        plate(at - 0.01, 0.60, 0.71, -0.26, 0.26, white)
        for sign in (-1.0, 1.0):
            plate(at, top - 0.28, top - 0.06, sign * w * 0.66, sign * w * 0.98, lamp)
            if lit:
                stage.flares.append(Flare(on(at - 0.05, top - 0.17, sign * w * 0.82), (1.0, 0.10, 0.05), 0.10))
        pipe = Material(rgb(60, 60, 62), AIR + (22.0 if running else 1.0), CAR, grain=0.0)
        plate(at - 0.01, low - 0.03, low + 0.07, -w * 0.62, -w * 0.46, pipe)
    if lit:
        stage.lights.append(
            Light(on(front + 0.1, 0.65, 0.0), (52.0, 49.0, 42.0), (on.ahead[0], -0.05, on.ahead[2]), 14.0)
        )


def _inset(quad: Sequence[Point], wide: float, high: float) -> list[Point]:
    """Pull the corners (low, high, high, low) of a frame together across and upwards, to those of its pane."""
    low0, high0, high1, low1 = quad
    edge, rise = (1 - wide) / 2, (1 - high) / 2
    a, b = between(low0, low1, edge), between(low1, low0, edge)
    c, d = between(high0, high1, edge), between(high1, high0, edge)
    return [between(a, c, rise), between(c, a, rise), between(d, b, rise), between(b, d, rise)]


def between(a: Point, b: Point, t: float) -> Point:
    return (a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), a[2] + t * (b[2] - a[2]))
