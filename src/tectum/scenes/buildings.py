"""Blocks of houses."""

import math

import numpy as np

from tectum.scenes.camera import Stage
from tectum.scenes.cars import between
from tectum.scenes.materials import AIR, BLACK, Colour, Material, Point, choose, rgb, scaled

WALLS = (
    rgb(150, 92, 74), rgb(172, 128, 98), rgb(196, 186, 168), rgb(168, 170, 170), rgb(128, 112, 100),
    rgb(206, 196, 176), rgb(112, 118, 124),
)  # fmt: skip
_BOARDS = (rgb(150, 36, 32), rgb(34, 84, 66), rgb(30, 60, 110), rgb(196, 150, 56), rgb(48, 48, 52))
_PANE, _DOOR = rgb(38, 46, 54), rgb(60, 44, 34)
_DEPTH = 12.0  # metres from a block's front to its back


class Facade:
    """The front of a block, on the ground line from `start` to `end` (camera coordinates)."""

    def __init__(self, stage: Stage, start: Point, end: Point, storeys: int, floor: float, wall: Material) -> None:
        self.stage, self.start, self.end, self.wall = stage, start, end, wall
        self.length = math.hypot(end[0] - start[0], end[2] - start[2])
        self.storeys, self.floor = storeys, floor
        self.ground = floor * 1.2  # height of the ground floor
        self.height = self.ground + floor * storeys + 0.5

    def panel(self, u0: float, u1: float, y0: float, y1: float, material: Material, *, casts: bool = False) -> None:
        """Paint a rectangle of the wall; `u` runs along it in metres."""
        (x0, _, z0), (x1, _, z1) = (between(self.start, self.end, u / self.length) for u in (u0, u1))
        self.stage.add([(x0, y0, z0), (x0, y1, z0), (x1, y1, z1), (x1, y0, z1)], material, casts=casts)

    def paint(self, rng: np.random.Generator, *, lit: bool) -> None:
        wall, ground, length = self.wall, self.ground, self.length
        self.panel(0, length, 0, self.height, wall, casts=True)
        nearest = max(min(self.start[2], self.end[2]), 3.0)
        if self.stage.pixels(1.0, nearest) < 3:
            return
        ledge = Material(scaled(wall.colour, 1.2), wall.heat - 1.8, grain=0.08)
        light_wall = sum(wall.colour) > 0.9
        trim_colour = scaled(wall.colour, 0.55) if light_wall else rgb(206, 202, 192)
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
                glow = scaled(warm if tint < 0.7 else cool, 0.25 + 0.9 * tint) if shining else BLACK
                heat = wall.heat + (8.0 if leaky < 0.08 else -5.0 + 3.0 * blind)
                pane = Material(_PANE, heat, glow=glow, gloss=0.0 if shining else 0.5, grain=0.0, solar=0.5)
                self.panel(u - half - 0.09, u + half + 0.09, low - 0.08, high + 0.08, trim)
                self.panel(u - half, u + half, low, high, pane)
                if self.stage.pixels(0.1, nearest) < 1.2:
                    continue
                if blind < 0.45:
                    cloth = Material(rgb(190, 182, 164), heat + 1.5, glow=scaled(glow, 0.5), grain=0.04)
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
            glow = scaled(light, 1.1) if lit and glowing < 0.5 else BLACK
            heat = wall.heat + (6.0 if leaky < 0.3 else -1.0)
            self.panel(u0, u1, 0.45, top, Material(_PANE, heat, glow=glow, gloss=0.35, grain=0.02, solar=0.5))
            self.panel((u0 + u1) / 2 - 0.05, (u0 + u1) / 2 + 0.05, 0.1, top, trim)
            if door < 0.3:
                self.panel(u0 + 0.1, u0 + 1.1, 0.0, 2.2, Material(_DOOR, wall.heat + 0.5, grain=0.1))
        board = Material(choose(rng, _BOARDS), wall.heat - 0.5, grain=0.04)
        self.panel(0.1, self.length - 0.1, top + 0.05, top + 0.63, board)
        letters = board._replace(colour=rgb(236, 230, 214), glow=scaled(light, 0.7) if lit else BLACK)
        u = self.length * 0.3
        while u < self.length * 0.7:
            wide = float(rng.uniform(0.14, 0.32))
            self.panel(u, u + wide, top + 0.19, top + 0.49, letters)
            u += wide + float(rng.choice([0.10, 0.10, 0.10, 0.35]))

    def hall(self, bays: int, half: float, trim: Material) -> None:
        """Paint a plinth, a door in the middle, and windows."""
        wall, pitch, top = self.wall, self.length / bays, self.ground - 0.68
        self.panel(0, self.length, 0, 0.6, Material(scaled(wall.colour, 0.6), wall.heat + 0.3, grain=0.15))
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


def add_block(
    stage: Stage, rng: np.random.Generator, x: float, z0: float, z1: float, away: float, *, lit: bool
) -> None:
    """Paint a block beside the street; `away` is the sign of its side. Its end is seen through the gaps."""
    wall = Material(choose(rng, WALLS), AIR + float(rng.uniform(-0.5, 5.0)), grain=0.13, thermal_grain=0.8)
    storeys, floor = int(rng.choice([1, 2, 2, 3, 4])), float(rng.uniform(2.9, 3.4))
    front = Facade(stage, stage.turn((x, 0.0, z0)), stage.turn((x, 0.0, z1)), storeys, floor, wall)
    back = x + away * _DEPTH
    for (xa, za), (xb, zb), seen in (
        ((x, z1), (back, z1), False),
        ((back, z0), (back, z1), False),
        ((x, z0), (back, z0), True),
    ):
        corners = [(xa, 0.0, za), (xa, front.height, za), (xb, front.height, zb), (xb, 0.0, zb)]
        end = wall._replace(colour=scaled(wall.colour, 0.85))
        stage.face([stage.turn(p) for p in corners], end, seen)
    front.paint(rng, lit=lit)
