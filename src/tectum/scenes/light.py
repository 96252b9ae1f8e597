"""Light and heat: the visible and the infrared image of what the camera sees."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tectum.scenes.camera import Stage
from tectum.scenes.furniture import unit_vector
from tectum.scenes.materials import AIR, EYE, NEAR, PLAN, PLAN_SCALE, SAMPLES, WEATHER, Array, Light


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


def look(stage: Stage, rng: np.random.Generator) -> _View:
    """Resolve the buffer of polygon numbers: geometry at the pixel centres, materials averaged over the samples."""
    samples = np.asarray(stage.numbers, dtype=np.int32)
    number = samples[SAMPLES // 2 :: SAMPLES, SAMPLES // 2 :: SAMPLES]
    table = np.array([(*m.colour, *m.glow, m.heat, m.gloss, 1.0) for m in stage.materials], np.float32)
    table[0] = 0.0
    total = np.zeros((*number.shape, table.shape[1]), np.float32)
    for dy in range(SAMPLES):
        for dx in range(SAMPLES):
            total += table[samples[dy::SAMPLES, dx::SAMPLES]]
    hits = total[..., 8]
    mean = total / np.maximum(hits, 1)[..., None]

    y, x = np.mgrid[0 : stage.height, 0 : stage.width].astype(np.float32)
    across, rise = (x + 0.5 - stage.centre[0]) / stage.focal, (stage.centre[1] - y - 0.5) / stage.focal
    ray = np.stack([across, rise, np.ones_like(x)], -1)
    # A plane n.p = d is n/d . ray = 1/z: the inverse depth is linear in the image.
    inverse = (np.array(stage.planes, np.float32)[number] * ray).sum(-1)
    depth = 1 / np.clip(inverse, 1 / 4000, 1 / NEAR)
    position = ray * depth[..., None]
    position[..., 1] += EYE
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
        sky=1 - hits / SAMPLES**2,
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


def _of(stage: Stage, view: _View, values: list[float]) -> Array:
    """Spread one value per polygon over the pixels."""
    return np.array(values, np.float32)[view.number]


def facing_sun(stage: Stage, view: _View) -> Array:
    """Sunlight that arrives per pixel, (H, W) in [0, 1]: the cosine to the sun, less the shadows."""
    sx, sy, sz = stage.sun
    if sy <= 0:
        return np.zeros_like(view.depth)
    # Along the sun's ray down to the ground: where the blocks' shadow covers that place, it covers the ray.
    x, y, z = (view.position[..., k] for k in range(3))
    plan = _blur(np.asarray(stage.plan, np.float32) / 255, 1.0)
    column = (x - sx * y / sy + PLAN[0] / 2) * PLAN_SCALE
    row = (z - sz * y / sy) * PLAN_SCALE
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


def draw_clouds(stage: Stage, rng: np.random.Generator, cloudy: float) -> tuple[Array, Array]:
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


def visible_light(
    stage: Stage, view: _View, condition: str, sun: Array, rise: Array, cover: Array, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Render the visible image, (H, W, 3) in [0, 1]."""
    weather = WEATHER[condition]
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
        lights.append(Light((0.0, 0.75, 0.3), (130.0, 127.0, 112.0), unit_vector((0.0, -0.06, 1.0)), 40.0))
    lamplight = np.zeros_like(light)
    for lamp in lights:
        lamplight += _lamp_light(lamp, view)
    light = light + lamplight * np.where(view.ground, 1 - 0.8 * contact, 1.0)[..., None]

    # A mirrored sky: bright above, the street's own dark below.
    ray = view.position - np.array((0, EYE, 0), np.float32)
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
    axis = np.clip(-(way * np.array(unit_vector(lamp.aim), np.float32)).sum(-1), 0, 1)
    amount = cosine * axis**lamp.spread / np.maximum(square, 0.6)
    return amount[..., None] * np.array(lamp.colour, np.float32)


def _flares(stage: Stage, view: _View, condition: str) -> Array:
    """Return the light that lamps scatter in lens and air, (H, W, 3): a core with a veil; streaks if they dazzle."""
    y, x = np.mgrid[0 : stage.height, 0 : stage.width].astype(np.float32)
    total = np.zeros((stage.height, stage.width, 3), np.float32)
    for flare in stage.flares:
        z = flare.position[2]
        if z < NEAR:
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


def heat_radiation(
    stage: Stage, view: _View, condition: str, sun: Array, rise: Array, cover: Array, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Render the infrared image, (H, W) in [0, 1]: temperature through air, lens and sensor."""
    grain = _of(stage, view, [m.thermal_grain for m in stage.materials])
    solar = _of(stage, view, [m.solar for m in stage.materials])
    heat = view.heat + grain * (view.texture + 1.6 * view.stains) + solar * sun
    through = np.exp(-(0.010 if condition == "fog" else 0.0035) * view.depth)
    heat = AIR - 1 + (heat - AIR + 1) * through
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
