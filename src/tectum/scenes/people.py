"""People, and the bikes that they ride."""

import math
from typing import NamedTuple

import numpy as np

from tectum.scenes.camera import Frame, Stage, add_capsule, add_disc
from tectum.scenes.cars import PAINTS, between
from tectum.scenes.materials import AIR, BIKE, PERSON, Material, Point, choose, rgb

_CLOTHES = (
    rgb(32, 36, 48), rgb(60, 62, 66), rgb(140, 34, 38), rgb(46, 78, 130), rgb(212, 208, 198), rgb(168, 128, 70),
    rgb(40, 84, 66), rgb(120, 120, 126), rgb(196, 146, 40), rgb(24, 24, 26), rgb(112, 70, 110),
)  # fmt: skip
_TROUSERS = (rgb(28, 32, 44), rgb(44, 58, 88), rgb(24, 24, 26), rgb(110, 98, 78), rgb(70, 70, 74))
_SKINS = (rgb(232, 190, 160), rgb(206, 158, 124), rgb(150, 104, 76), rgb(96, 64, 46))
_HAIRS = (rgb(24, 20, 18), rgb(54, 36, 24), rgb(110, 78, 44), rgb(140, 138, 134))


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
    top, legs, skin, hair = (choose(rng, c) for c in (_CLOTHES, _TROUSERS, _SKINS, _HAIRS))
    warm = float(rng.uniform(-1.0, 1.0))
    return _Looks(
        scale=float(rng.uniform(0.92, 1.07)),
        skin=Material(skin, 32.0 + 0.4 * warm, PERSON, grain=0.03, thermal_grain=0.3, solar=0.5),
        hair=Material(hair, 27.0 + warm, PERSON, grain=0.06, thermal_grain=0.5, solar=0.5),
        top=Material(top, 25.6 + 1.6 * warm, PERSON, grain=0.10, thermal_grain=0.9, solar=0.5),
        legs=Material(legs, 25.0 + warm, PERSON, grain=0.08, thermal_grain=0.8, solar=0.5),
        shoes=Material(rgb(34, 30, 28), 19.5, PERSON, grain=0.05, solar=0.5),
        bag=Material(choose(rng, _CLOTHES), 17.0, PERSON, grain=0.1, solar=0.5) if rng.random() < 0.35 else None,
        long_hair=bool(rng.random() < 0.4),
        coat=bool(rng.random() < 0.35),
    )


def _trunk(stage: Stage, on: Frame, looks: _Looks, hip: Point, neck: Point) -> None:
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
    add_capsule(stage, (nx, ny - 0.04 * k, z), (nx, ny + 0.06 * k, z), 0.055 * k, 0.052 * k, looks.skin, casts=False)
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


def add_walker(
    stage: Stage, rng: np.random.Generator, x: float, z: float, heading: float, *, standing: bool = False
) -> None:
    looks = _looks(rng)
    k = looks.scale
    phase = float(rng.uniform(0, 2 * math.pi))
    swing = (0.10 if standing else 0.50) * math.copysign(max(abs(math.sin(phase)), 0.45), math.sin(phase))
    on = Frame(stage, x, z, heading)
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
        add_capsule(stage, on(*ankle), on(*toe), 0.05 * k, 0.036 * k, looks.shoes)
        add_capsule(stage, on(*knee), on(*ankle), 0.065 * k, 0.048 * k, looks.legs)
        add_capsule(stage, on(*hip), on(*knee), 0.092 * k, 0.066 * k, looks.legs)

    def arm(sign: float) -> None:
        angle = -0.85 * swing * sign
        shoulder = (0.0, hip_y + 0.455 * k, 0.185 * sign * k)
        elbow = (0.28 * k * math.sin(angle), shoulder[1] - 0.28 * k * math.cos(angle), shoulder[2] + 0.035 * sign * k)
        fore = angle + 0.35
        hand = (elbow[0] + 0.25 * k * math.sin(fore), elbow[1] - 0.25 * k * math.cos(fore), elbow[2])
        add_capsule(stage, on(*elbow), on(*hand), 0.043 * k, 0.036 * k, looks.top)
        tip = between(on(*elbow), on(*hand), 1.2)
        add_capsule(stage, on(*hand), tip, 0.040 * k, 0.034 * k, looks.skin)
        add_capsule(stage, on(*shoulder), on(*elbow), 0.060 * k, 0.048 * k, looks.top)

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


def _backpack(stage: Stage, on: Frame, looks: _Looks, bag: Material, hip_y: float) -> None:
    k = looks.scale
    low, high = on(-0.15 * k, hip_y + 0.16 * k, 0.0), on(-0.13 * k, hip_y + 0.40 * k, 0.0)
    wide = 0.13 * abs(on.side[0]) + 0.075 * abs(on.ahead[0])
    add_capsule(stage, low, high, wide * k, wide * 0.9 * k, bag)


def add_bike(stage: Stage, rng: np.random.Generator, x: float, z: float, heading: float, *, ridden: bool) -> None:
    on = Frame(stage, x, z, heading)
    paint = Material(choose(rng, PAINTS), AIR + 0.5, BIKE, gloss=0.1, grain=0.02)
    rubber = Material(rgb(20, 20, 21), AIR + (4.0 if ridden else 0.5), BIKE, grain=0.02)
    metal = Material(rgb(150, 152, 155), AIR, BIKE, gloss=0.15, grain=0.02)
    saddle = Material(rgb(20, 18, 18), AIR + (10.0 if ridden else 0.5), BIKE, grain=0.05)
    stage.touch(on.foot(0.9, 0.12), 120)
    up: Point = (0.0, 1.0, 0.0)

    def tube(a: Point, b: Point, radius: float, material: Material) -> None:
        add_capsule(stage, on(*a), on(*b), radius, radius, material)

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
        add_capsule(stage, on(*pedal), on(pedal[0] + 0.15, pedal[1], pedal[2]), 0.045, 0.035, looks.shoes)
        add_capsule(stage, on(*knee), on(*pedal), 0.065, 0.05, looks.legs)
        add_capsule(stage, on(*joint), on(*knee), 0.095, 0.068, looks.legs)
        shoulder, grip = (neck[0], neck[1] - 0.07, 0.20 * sign), (0.44, 1.03, 0.25 * sign)
        elbow = between(shoulder, grip, 0.5)
        elbow = (elbow[0] - 0.03, elbow[1] - 0.06, elbow[2] + 0.04 * sign)
        add_capsule(stage, on(*elbow), on(*grip), 0.043, 0.036, looks.top)
        add_capsule(stage, on(*grip), on(grip[0] + 0.04, grip[1], grip[2]), 0.042, 0.036, looks.skin)
        add_capsule(stage, on(*shoulder), on(*elbow), 0.06, 0.048, looks.top)

    far = 1.0 if on(0, 0, 1)[2] > on(0, 0, -1)[2] else -1.0
    if looks is not None:
        limb(far)
    for along in (-0.53, 0.55):
        hub = (along, 0.34, 0.0)
        add_disc(stage, on(*hub), 0.345, on.ahead, up, rubber, inner=0.295, casts=True)
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
