"""What stands along a street: cones, bollards, hoops, railings, lamps, signs, trees."""

import math
from itertools import pairwise

import numpy as np

from tectum.scenes.camera import Frame, Stage, add_box, add_capsule, add_disc
from tectum.scenes.cars import between
from tectum.scenes.materials import (
    AIR,
    BLACK,
    CAR_STOP,
    CONE,
    GUARDRAIL,
    NEAR,
    Flare,
    Light,
    Material,
    Point,
    choose,
    rgb,
    scaled,
)


def add_cone(stage: Stage, rng: np.random.Generator, x: float, z: float) -> None:
    on = Frame(stage, x, z, 0.0)
    orange = Material(scaled(rgb(228, 74, 22), float(rng.uniform(0.75, 1.1))), AIR - 0.5, CONE, grain=0.04)
    white = Material(rgb(232, 232, 228), AIR - 0.8, CONE, grain=0.02)
    foot = Material(rgb(40, 36, 34), AIR, CONE, grain=0.05)
    stage.touch(on.foot(0.2, 0.2), 170)
    add_box(stage, on, (-0.18, 0.0, -0.18), (0.18, 0.04, 0.18), foot)
    bands = ((0.04, 0.28, orange), (0.28, 0.42, white), (0.42, 0.54, orange), (0.54, 0.63, white), (0.63, 0.72, orange))
    for low, high, material in bands:
        _band(stage, on, low, high, 0.145 * (1 - low / 0.80), 0.145 * (1 - high / 0.80), material)


def _band(stage: Stage, on: Frame, y0: float, y1: float, r0: float, r1: float, material: Material) -> None:
    """Paint a band of an upright cone or cylinder: three strips, lit as the round surface would be."""
    x, _, z = on.origin
    turns = (-1.0, -0.55, 0.45, 1.0)
    for k, slope in enumerate((-0.8, 0.0, 0.8)):
        a, b = turns[k], turns[k + 1]
        quad = [(x + a * r0, y0, z), (x + a * r1, y1, z), (x + b * r1, y1, z), (x + b * r0, y0, z)]
        stage.add(quad, material, normal=(slope, 0.1, -math.sqrt(0.99 - slope * slope)), casts=True)


def add_bollard(stage: Stage, rng: np.random.Generator, x: float, z: float) -> None:
    on = Frame(stage, x, z, 0.0)
    stage.touch(on.foot(0.16, 0.16), 170)
    dark = Material(scaled(rgb(44, 48, 52), float(rng.uniform(0.6, 1.5))), AIR + 1.0, CAR_STOP, grain=0.04)
    white = Material(rgb(226, 228, 224), AIR + 0.2, CAR_STOP, grain=0.02)
    for low, high, material in ((0.0, 0.60, dark), (0.60, 0.74, white), (0.74, 0.86, dark)):
        _band(stage, on, low, high, 0.115, 0.115, material)
    add_disc(stage, on(0, 0.86, 0), 0.115, (1, 0, 0), (0, 0, 1), dark)


def add_hoop(stage: Stage, rng: np.random.Generator, x: float, z: float) -> None:
    """Paint a pipe bent to an inverted U, across the way of a car."""
    on = Frame(stage, x, z, 0.0)
    pipe = Material(
        scaled(rgb(206, 208, 208), float(rng.uniform(0.7, 1.05))), AIR - 1.0, CAR_STOP, gloss=0.08, grain=0.03
    )
    half = [(0.38, 0.80), (0.50, 0.74), (0.55, 0.62), (0.55, 0.0)]
    path = [*((-s, y) for s, y in reversed(half)), *half]
    for (s0, y0), (s1, y1) in pairwise(path):
        add_capsule(stage, on(0, y0, s0), on(0, y1, s1), 0.038, 0.038, pipe)
    for s in (-0.55, 0.55):
        stage.touch([(x + s, y, z) for x, y, z in on.foot(0.09, 0.09)], 150)


def add_railing(stage: Stage, rng: np.random.Generator, x: float, z0: float, z1: float) -> None:
    """Paint a railing of pipes along the kerb, from far to near."""
    pipe = Material(
        scaled(rgb(214, 216, 212), float(rng.uniform(0.9, 1.0))), AIR - 1.2, GUARDRAIL, gloss=0.06, grain=0.04
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
            if post[2] < NEAR + 0.3:
                continue
            radius, top, foot = (0.045, 0.90, 0.0) if i == 0 else (0.014, 0.84, 0.25)
            add_capsule(stage, (post[0], foot, post[2]), (post[0], top, post[2]), radius, radius, pipe)


def add_street_lamp(
    stage: Stage, rng: np.random.Generator, x: float, z: float, reach: float, warmth: float, *, lit: bool
) -> None:
    """Paint a lamp whose arm spans `reach` over the road; `warmth` numbers the colour of its light."""
    colour = ((1.0, 0.74, 0.42), (1.0, 0.86, 0.66), (0.86, 0.94, 1.0))[int(warmth)]
    on = Frame(stage, x, z, 0.0)
    steel = Material(scaled(rgb(92, 98, 102), float(rng.uniform(0.9, 1.1))), AIR - 0.4, grain=0.05)
    top = on(0, 6.2, 0)
    arm = on(0, 6.5, reach)
    add_capsule(stage, on(0, 0, 0), top, 0.085, 0.055, steel)
    add_capsule(stage, top, arm, 0.05, 0.04, steel)
    head = Material(rgb(60, 62, 64), AIR + 6.0, glow=scaled(colour, 4.5) if lit else BLACK, grain=0.0)
    end = on(0, 6.48, reach + math.copysign(0.6, reach))
    add_capsule(stage, (arm[0], arm[1] + 0.03, arm[2]), (end[0], end[1] + 0.03, end[2]), 0.09, 0.09, steel)
    add_capsule(stage, (arm[0], arm[1] - 0.05, arm[2]), (end[0], end[1] - 0.05, end[2]), 0.05, 0.05, head)
    stage.touch(on.foot(0.15, 0.15), 150)
    if lit:
        place = between(arm, end, 0.5)
        stage.lights.append(Light((place[0], place[1] - 0.15, place[2]), scaled(colour, 62.0), (0.0, -1.0, 0.0), 3.5))
        stage.flares.append(Flare(place, colour, 0.16))


def add_sign(stage: Stage, rng: np.random.Generator, x: float, z: float) -> None:
    on = Frame(stage, x, z, 0.0)
    steel = Material(rgb(128, 132, 134), AIR - 0.4, grain=0.05)
    add_capsule(stage, on(0, 0, 0), on(0, 2.75, 0), 0.035, 0.035, steel)
    faces = ((rgb(188, 22, 30), rgb(238, 238, 236)), (rgb(24, 74, 160), rgb(238, 238, 236)))
    outer, inner = faces[int(rng.integers(2))]
    right: Point = (1.0, 0.0, 0.0)
    up: Point = (0.0, 1.0, 0.0)
    add_disc(stage, on(-0.05, 2.45, 0), 0.33, right, up, Material(outer, AIR - 1.0, grain=0.0), casts=True)
    bar = [on(-0.06, 2.45 + y, x) for x, y in ((-0.22, -0.06), (-0.22, 0.06), (0.22, 0.06), (0.22, -0.06))]
    stage.add(bar, Material(inner, AIR - 1.0, grain=0.0))


def add_tree(stage: Stage, rng: np.random.Generator, x: float, z: float) -> None:
    on = Frame(stage, x, z, 0.0)
    tall = float(rng.uniform(5.0, 8.0))
    crown = float(rng.uniform(1.5, 2.3))
    bark = Material(rgb(74, 60, 48), AIR + 1.6, grain=0.25, thermal_grain=0.8)
    fork = tall - 1.35 * crown
    add_capsule(stage, on(0, 0, 0), on(0, fork, 0), 0.19, 0.13, bark)
    for k in range(4):
        lean = float(rng.uniform(-0.75, 0.75)) * crown
        add_capsule(stage, on(0, fork - 0.3 * k, 0), on(0, tall - 0.5 * crown, lean), 0.075, 0.03, bark)
    stage.touch(on.foot(0.3, 0.3), 170)
    green = choose(rng, (rgb(62, 92, 40), rgb(78, 100, 44), rgb(52, 84, 48), rgb(120, 104, 40)))
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
        leaf = Material(scaled(green, max(shade, 0.12)), AIR + 0.3 - 0.5 * v + 0.8 * d, grain=0.30, solar=1.5)
        r = radius * float(rng.uniform(0.6, 1.2))
        turn = float(rng.uniform(0, 6))
        x0, y0 = cx + crown * u, cy + 0.9 * crown * v
        points = [
            (x0 + r * (1 + 0.35 * math.sin(3 * t + turn)) * math.cos(t), y0 + 0.8 * r * math.sin(t), cz)
            for t in (2 * math.pi * i / 9 for i in range(9))
        ]
        stage.add(points, leaf, normal=unit_vector((0.6 * u, 0.35 + 0.6 * v, -0.7)), casts=k % 3 == 0)


def unit_vector(p: Point) -> Point:
    length = math.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2])
    return (p[0] / length, p[1] / length, p[2] / length)
