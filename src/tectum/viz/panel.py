"""Pictures side by side under thin captions."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tectum.errors import InputError
from tectum.viz.overlay import BACKGROUND, TEXT, caption_font, legend

Picture = npt.NDArray[np.generic]


def grid(rows: Sequence[Sequence[Picture]], captions: Sequence[str] = (), *, gap: int = 4) -> Image.Image:
    """Lay pictures out in rows of equal length, with one caption above each column.

    Args:
        rows: pictures of one size, each (H, W) or (H, W, 3), uint8, or float in [0, 1] (clamped and rounded).
        captions: one per column, or none. A caption wider than its picture is left out.
        gap: pixels between pictures.

    Raises:
        InputError: the pictures differ in size or the rows in length.
    """
    pictures = [[_rgb(picture) for picture in row] for row in rows]
    columns = len(pictures[0])
    height, width = pictures[0][0].shape[:2]
    if any(len(row) != columns for row in pictures) or (captions and len(captions) != columns):
        raise InputError("a grid of pictures needs rows of equal length and one caption per column")
    if any(picture.shape != (height, width, 3) for row in pictures for picture in row):
        raise InputError(f"the pictures of a grid must have one size, the first is {width}x{height}")
    font = caption_font(width)
    head = round(1.7 * font.size) if captions else 0
    sheet = Image.new("RGB", (columns * (width + gap) - gap, head + len(pictures) * (height + gap) - gap), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for column, caption in enumerate(captions):
        if font.getlength(caption) <= width:
            draw.text((column * (width + gap) + width / 2, head / 2), caption, fill=TEXT, font=font, anchor="mm")
    for line, row in enumerate(pictures):
        for column, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (column * (width + gap), head + line * (height + gap)))
    return sheet


def panel(
    visible: Picture,
    infrared: Picture,
    fused: Picture,
    labelled: Picture,
    *,
    class_names: Sequence[str] = (),
    palette: npt.ArrayLike = (),
) -> Image.Image:
    """Visible | infrared | fused | overlay in one picture, with a legend of the classes below.

    Args:
        visible: (H, W, 3).
        infrared: (H, W).
        fused: (H, W, 3).
        labelled: (H, W, 3), from `tectum.viz.overlay`.
        class_names: for the legend; without them there is none.
        palette: (K, 3) RGB 0..255, for the legend.
    """
    pictures = grid([[visible, infrared, fused, labelled]], ["visible", "infrared", "fused", "labels"])
    return with_legend(pictures, class_names, palette) if class_names else pictures


def with_legend(picture: Image.Image, class_names: Sequence[str], palette: npt.ArrayLike) -> Image.Image:
    """Put the legend of all classes but class 0 below `picture`."""
    strip = legend(class_names, palette, picture.width)
    result = Image.new("RGB", (picture.width, picture.height + strip.height), BACKGROUND)
    result.paste(picture, (0, 0))
    result.paste(strip, (0, picture.height))
    return result


def _rgb(picture: Picture) -> npt.NDArray[np.uint8]:
    if picture.dtype != np.uint8:
        picture = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    return np.ascontiguousarray(picture, dtype=np.uint8)
