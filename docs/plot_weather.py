"""The picture of data/weather.py in docs/data.md: python docs/plot_weather.py; on a scene rendered by the project."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from tectum.data.weather import INFRARED, VISIBLE
from tectum.predict.colour import to_bytes
from tectum.scenes import render_scene

SCENE, SIZE, COLUMNS, CAPTION = 9, (180, 240), 4, 16


def tile(image: torch.Tensor, name: str) -> Image.Image:
    """An image (C, H, W) with its name above."""
    array = to_bytes(image.expand(3, -1, -1).permute(1, 2, 0).numpy())
    framed = Image.new("RGB", (SIZE[1] + 4, SIZE[0] + CAPTION + 4), "white")
    framed.paste(Image.fromarray(array), (2, CAPTION + 2))
    ImageDraw.Draw(framed).text((4, 2), name, fill="black")
    return framed


def main() -> None:
    pair = render_scene(SCENE, SIZE)
    visible, infrared = torch.from_numpy(pair.visible).permute(2, 0, 1), torch.from_numpy(pair.infrared)[None]
    tiles = [tile(visible, "visible"), tile(infrared, "infrared")]
    for image, effects in ((visible, VISIBLE), (infrared, INFRARED)):
        for seed, (name, effect) in enumerate(effects.items()):
            torch.manual_seed(seed)
            tiles.append(tile(effect(image), name))
    rows = [
        np.concatenate([np.asarray(one) for one in tiles[at : at + COLUMNS]], 1) for at in range(0, len(tiles), COLUMNS)
    ]
    Image.fromarray(np.concatenate(rows)).save(Path(__file__).parent / "weather.jpg", quality=88)


if __name__ == "__main__":
    main()
