"""Scenes as pairs in memory, and as a data set in the layout of MSRS."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from tectum.data.pair import Pair, PairPaths
from tectum.errors import ConfigError
from tectum.files import atomic_path
from tectum.scenes.camera import Stage
from tectum.scenes.light import draw_clouds, facing_sun, heat_radiation, look, visible_light
from tectum.scenes.materials import CONDITIONS, WEATHER, Point
from tectum.scenes.street import build_street


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
    if condition not in WEATHER:
        raise ConfigError(f"Unknown condition '{condition}'; choose one of {', '.join(CONDITIONS)}.")
    yaw, cloudy = float(rng.normal(0, 0.05)), float(rng.uniform(0, 1))
    azimuth, elevation = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.3)), float(rng.uniform(0.85, 1.12))
    sun: Point = (0.0, 0.0, 0.0)
    if condition == "day":  # behind the camera or beside it, so that the street is not seen against the light
        sun = (math.cos(elevation) * math.sin(azimuth), math.sin(elevation), -math.cos(elevation) * math.cos(azimuth))
    stage = Stage((height, width), yaw, sun)
    build_street(stage, seed, condition)
    view = look(stage, np.random.default_rng([seed, 5]))
    sunlight = facing_sun(stage, view)
    rise, cover = draw_clouds(stage, np.random.default_rng([seed, 6]), cloudy)
    return Pair(
        name=f"{seed:05d}{condition[0].upper()}",
        visible=visible_light(stage, view, condition, sunlight, rise, cover, np.random.default_rng([seed, 7])),
        infrared=heat_radiation(stage, view, condition, sunlight, rise, cover, np.random.default_rng([seed, 8])),
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
