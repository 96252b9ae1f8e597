"""The street: what stands where, drawn from the seed alone."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tectum.scenes.buildings import WALLS, Facade, add_block
from tectum.scenes.camera import Stage, add_disc
from tectum.scenes.cars import add_car
from tectum.scenes.furniture import add_bollard, add_cone, add_hoop, add_railing, add_sign, add_street_lamp, add_tree
from tectum.scenes.materials import AIR, BUMP, CURVE, WEATHER, Material, choose, rgb, scaled
from tectum.scenes.people import add_bike, add_walker

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

    def __init__(self, stage: Stage, seed: int) -> None:
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


def build_street(stage: Stage, seed: int, condition: str) -> None:
    """Paint the street of a seed. The condition switches lamps, and glare changes who is about."""
    rng = np.random.default_rng([seed, 1])
    plan = _draw_plan(rng)
    lamps = WEATHER[condition].lamps
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
        street.put(oncoming[1] - 2.4, add_walker, oncoming[0] + 1.25, oncoming[1] - 2.4, 2.8)
    elif crossing is not None:  # in glare this car would stand before the headlights
        street.put(crossing[1], add_car, *crossing, running=True, lamps=headlights)
    street.paint(3)


def _blocks(street: _Arrangement, rng: np.random.Generator, plan: _Plan, lamps: bool) -> None:
    """Houses on both sides with trees in the gaps, and one across the far end."""
    stage = street.stage
    for away, edge in ((-1.0, plan.left - plan.walk[0]), (1.0, plan.right + plan.walk[1])):
        z = float(rng.uniform(-6.0, 1.0))
        while z < _FAR:
            length = float(rng.uniform(9.0, 17.0))
            street.put(z, add_block, edge + away * float(rng.choice([0.0, 0.0, 0.5])), z, z + length, away, lit=lamps)
            z += length
            gap = float(rng.choice([0.0, 0.0, 4.0, 9.0]))
            for k in range(math.ceil(gap / 5)):
                place = z + 2.0 + 4.5 * k
                street.put(place, add_tree, edge + away * float(rng.uniform(2.0, 5.0)), place)
            z += gap
    wall = Material(choose(rng, WALLS), AIR + 1.5)
    ends = (stage.turn((-40.0, 0.0, _FAR + 4)), stage.turn((40.0, 0.0, _FAR + 4)))
    Facade(stage, *ends, 3, 3.1, wall).paint(np.random.default_rng([street.seed, 4]), lit=lamps)


def _kerbside(street: _Arrangement, rng: np.random.Generator, plan: _Plan, lit: bool) -> None:
    """Street lamps on one side, trees, and a sign."""
    warmth = int(rng.integers(3))
    lamp_side = 1.0 if rng.random() < 0.5 else -1.0
    first = float(rng.uniform(8.0, 15.0))
    for k in range(4):
        z = first + 22.0 * k
        x, reach = (plan.right + 0.5, -1.3) if lamp_side > 0 else (plan.left - 0.5, 1.3)
        if street.take(x, z, 0.2, 0.2):
            street.put(z, add_street_lamp, x, z, reach, warmth, lit=lit)
    for side, x in ((-1.0, plan.left - 0.8), (1.0, plan.right + 0.8)):
        z = float(rng.uniform(9.0, 18.0)) + (6.0 if side == lamp_side else 0.0)
        for _ in range(int(rng.choice([0, 0, 1, 2, 3]))):
            if street.take(x, z, 0.3, 0.5):
                street.put(z, add_tree, x, z)
            z += float(rng.uniform(9.0, 14.0))
    z = float(rng.uniform(9.0, 22.0))
    if rng.random() < 0.6 and street.take(plan.right + 0.45, z, 0.3, 0.3):
        street.put(z, add_sign, plan.right + 0.45, z)


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
    street.put(oncoming[1], add_car, *oncoming, math.pi, running=True, lamps=lamps)
    crossing = None
    if crosses:
        z, turn = float(rng.uniform(10.0, 15.0)), float(rng.choice([-0.5, 0.5])) * math.pi
        crossing = (float(rng.uniform(plan.left + 2.6, plan.right - 2.6)), z, turn)
        street.take(*crossing[:2], 2.6, 1.2)
    elif rng.random() < 0.75:
        z = float(rng.uniform(11.0, 30.0))
        street.take(own, z, 1.0, 2.6)
        street.put(z, add_car, own, z, 0.0, running=True, lamps=lamps)
    for width, x, turn in (
        (plan.parking[0], plan.left + 1.15, math.pi),
        (plan.parking[1], plan.right - 1.15, 0.0),
    ):
        z = float(rng.uniform(6.5, 11.0))
        for _ in range(int(rng.integers(2, 6)) if width else 0):
            if rng.random() < 0.85 and street.take(x, z, 1.0, 2.3):
                street.put(z, add_car, x + float(rng.uniform(-0.1, 0.1)), z, turn, running=False, lamps=False)
            z += float(rng.uniform(5.6, 7.5))
    return oncoming, crossing


def _furniture(street: _Arrangement, rng: np.random.Generator, plan: _Plan) -> None:
    """Cones, a railing, bollards or hoops."""
    if rng.random() < 0.5:
        z, x = float(rng.uniform(5.5, 10.0)), plan.drive[1] - 0.35
        for _ in range(int(rng.integers(2, 6))):
            if street.take(x, z, 0.2, 0.2):
                street.put(z, add_cone, x, z)
            x -= 0.18
            z += float(rng.uniform(1.3, 2.2))
    if rng.random() < 0.55:
        x = plan.left - 0.3 if rng.random() < 0.5 else plan.right + 0.3
        z = float(rng.uniform(4.0, 9.0))
        for _ in range(int(rng.integers(2, 5))):  # in pieces, so that people can stand before and behind it
            if street.take(x, z + 2.0, 0.1, 1.99):
                street.put(z + 2.0, add_railing, x, z, z + 4.0)
            z += 4.0
    if rng.random() < 0.5:
        z, x = float(rng.uniform(5.5, 12.0)), (plan.left - 0.5, plan.right + 0.5)[int(rng.integers(2))]
        shape, wide = (add_hoop, 0.6) if rng.random() < 0.4 else (add_bollard, 0.2)
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
            street.put(z, add_bike, x, z, turn + float(rng.normal(0, 0.1)), ridden=True)
    if rng.random() < 0.55:
        z, side = float(rng.uniform(6.0, 12.0)), float(rng.choice([-1.0, 1.0]))
        x = plan.left - plan.walk[0] + 0.7 if side < 0 else plan.right + plan.walk[1] - 0.7
        for _ in range(int(rng.integers(2, 6))):
            if street.take(x, z, 0.7, 0.3):
                street.put(z, add_bike, x, z, -1.25 * side + float(rng.normal(0, 0.06)), ridden=False)
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
                street.put(z, add_walker, x, z, turn, standing=stands)
    for _ in range(int(rng.choice([0, 1, 1, 2]))):
        x, z = float(rng.uniform(*plan.drive)), float(rng.uniform(6.0, 11.0))
        turn = float(rng.choice([-0.5, 0.5])) * math.pi + float(rng.normal(0, 0.15))
        if street.take(x, z, 0.6, 0.4):
            street.put(z, add_walker, x, z, turn)


def _ground(stage: Stage, rng: np.random.Generator, plan: _Plan) -> None:
    """Paint the road with its lines, covers and bump, and the pavements with their kerbs."""

    def strip(x0: float, x1: float, z0: float, z1: float, material: Material, y: float = 0.0) -> None:
        corners = ((x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1))
        stage.add([stage.turn(p) for p in corners], material, normal=(0.0, 1.0, 0.0))

    left, right, centre = plan.left, plan.right, plan.centre
    tone = int(rng.integers(58, 84))
    road = Material(rgb(tone, tone, tone + 3), AIR + 4.5, grain=0.20, thermal_grain=0.9, solar=5.0)
    strip(-80, 80, -3, _FAR + 40, Material(rgb(88, 92, 80), AIR + 2.0, grain=0.18, thermal_grain=0.6))
    strip(left, right, -3, _FAR + 10, road)
    for _ in range(int(rng.integers(2, 6))):  # mended patches
        x, z, shade = float(rng.uniform(left, right - 1.2)), float(rng.uniform(3, 30)), float(rng.uniform(0.7, 0.9))
        patch = road._replace(colour=scaled(road.colour, shade), heat=road.heat + 0.5)
        strip(x, x + float(rng.uniform(0.7, 1.4)), z, z + float(rng.uniform(1, 6)), patch)
    for track in (-2.45, -0.85, 0.85, 2.45):  # tyres polish and warm the asphalt
        worn = road._replace(colour=scaled(road.colour, 0.92), heat=road.heat + 0.8)
        strip(centre + track - 0.25, centre + track + 0.25, -3, _FAR, worn)

    for _ in range(2):  # manhole covers, warmed from below
        place = (float(rng.uniform(left + 1, right - 1)), 0.0, float(rng.uniform(5, 18)))
        cover = Material(rgb(52, 50, 48), AIR + 6.5, grain=0.3)
        add_disc(stage, stage.turn(place), 0.33, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), cover)

    paint = Material(rgb(214, 214, 206), AIR + 2.6, grain=0.22, thermal_grain=0.5)
    middle = paint._replace(colour=rgb(214, 164, 48)) if rng.random() < 0.3 else paint
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
        brick = Material(rgb(150, 112, 92), AIR + 3.0, BUMP, grain=0.20, solar=4.0)
        pale = Material(rgb(214, 206, 188), AIR + 2.6, BUMP, grain=0.15)
        for k in range(12):
            a, b = x0 + (x1 - x0) * k / 12, x0 + (x1 - x0) * (k + 1) / 12
            stone = pale if k % 2 else brick
            ramp = ((a, 0.0, z), (a, 0.09, z + 0.35), (b, 0.09, z + 0.35), (b, 0.0, z))
            stage.add([stage.turn(p) for p in ramp], stone._replace(colour=scaled(stone.colour, 0.85)))
            strip(a, b, z + 0.35, z + 1.25, stone, 0.09)

    tone = int(rng.integers(118, 150))
    slabs = Material(rgb(tone, tone - 4, tone - 12), AIR + 2.2, grain=0.18, thermal_grain=0.6, solar=4.0)
    joint = slabs._replace(colour=scaled(slabs.colour, 0.62), heat=slabs.heat + 0.6)
    tone = int(rng.integers(150, 182))
    kerb = Material(rgb(tone, tone - 3, tone - 10), AIR + 1.4, CURVE, grain=0.16)
    gap = kerb._replace(colour=scaled(kerb.colour, 0.6))
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
        stage.add(face, kerb._replace(colour=scaled(kerb.colour, 0.8), heat=kerb.heat + 0.8))
        a, b = sorted((x, x + sign * 0.16))
        strip(a, b, -3, _FAR, kerb, _KERB)
        for k in range(40):
            strip(a, b, 1.0 + 1.2 * k, 1.02 + 1.2 * k, gap, _KERB)
        gutter = x - sign * 0.12
        stage.touch([stage.turn(p) for p in ((x, 0, -3), (gutter, 0, -3), (gutter, 0, _FAR), (x, 0, _FAR))], 110)
