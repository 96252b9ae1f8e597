"""The camera: polygons in, one number per sample out; and the bodies that are made of polygons."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from tectum.scenes.materials import EYE, NEAR, PLAN, PLAN_SCALE, SAMPLES, Flare, Light, Material, Point


class Stage:
    """Collects polygons in camera coordinates, in the order in which they are to be painted."""

    def __init__(self, size: tuple[int, int], yaw: float, sun: Point) -> None:
        self.height, self.width = size
        self.focal = 1.12 * self.height
        self.centre = (self.width / 2, 0.44 * self.height)
        self.cos, self.sin = math.cos(yaw), math.sin(yaw)
        self.sun = self.turn(sun)  # towards the sun
        self.numbers = Image.new("I", (self.width * SAMPLES, self.height * SAMPLES), 0)
        self.pencil = ImageDraw.Draw(self.numbers)
        self.shadow = Image.new("L", (self.width, self.height), 0)
        self.shadow_pencil = ImageDraw.Draw(self.shadow)
        # The blocks' shadow is kept as a plan of the street, since it also falls on what stands on the ground.
        self.plan = Image.new("L", (PLAN[0] * PLAN_SCALE, PLAN[1] * PLAN_SCALE), 0)
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
            (self.centre[1] + self.focal * (EYE - y) / z) * scale - 0.5,
        )

    def pixels(self, metres: float, z: float) -> float:
        return self.focal * metres / max(z, NEAR)

    def add(
        self, points: Sequence[Point], material: Material, *, normal: Point | None = None, casts: bool = False
    ) -> None:
        """Paint a planar polygon (camera coordinates). `normal` overrides the plane's for shading only."""
        if casts:
            self.cast(points)
        plane = _plane_normal(points)
        x0, y0, z0 = points[0]
        offset = plane[0] * x0 + plane[1] * (y0 - EYE) + plane[2] * z0
        if abs(offset) < 1e-6:  # seen edge-on
            return
        seen = _clip(points)
        if len(seen) < 3:
            return
        facing = (-plane[0], -plane[1], -plane[2]) if offset > 0 else plane  # towards the camera
        self.planes.append((plane[0] / offset, plane[1] / offset, plane[2] / offset))
        self.normals.append(facing if normal is None else normal)
        self.materials.append(material)
        self.pencil.polygon([self.project(p, SAMPLES) for p in seen], fill=len(self.materials) - 1)

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
            outline = [((x + PLAN[0] / 2) * PLAN_SCALE, z * PLAN_SCALE) for x, _, z in ground]
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
    if all(p[2] >= NEAR for p in points):
        return list(points)
    kept: list[Point] = []
    for a, b in zip(points, (*points[1:], points[0]), strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            t = (NEAR - a[2]) / (b[2] - a[2])
            kept.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), NEAR))
    return kept


class Frame:
    """A place and a heading on the street: local (along, up, left-to-right) to camera coordinates."""

    def __init__(self, stage: Stage, x: float, z: float, heading: float) -> None:
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
        return nx * px + up * (py - EYE) + nz * pz < 0


def add_capsule(
    stage: Stage, a: Point, b: Point, ra: float, rb: float, material: Material, *, casts: bool = True
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


def add_disc(
    stage: Stage,
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


def add_box(
    stage: Stage,
    frame: Frame,
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
