"""Label maps as colour on a picture, and the legend that goes with them."""

import colorsys
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tectum.errors import InputError

Bytes = npt.NDArray[np.uint8]

CLEAR = (0, 255)
"""Ids that an overlay leaves clear: background and ignore."""

BACKGROUND = (18, 18, 20)
TEXT = (225, 225, 228)


def caption_font(width: float) -> ImageFont.FreeTypeFont:
    """Pillow's own font, sized for captions of pictures `width` pixels wide."""
    font = ImageFont.load_default(size=min(max(width / 32, 10), 40))
    assert isinstance(font, ImageFont.FreeTypeFont)  # what Pillow gives when a size is asked for
    return font


def default_palette(classes: int) -> Bytes:
    """uint8 (classes, 3): black for class 0, then hues a golden angle apart, so that neighbouring ids differ."""
    golden = (5**0.5 - 1) / 2
    colours = [colorsys.hsv_to_rgb(index * golden % 1, 0.75, 0.95) for index in range(1, classes)]
    return np.array([(0, 0, 0), *[[round(255 * channel) for channel in colour] for colour in colours]], np.uint8)


def display_colours(palette: npt.ArrayLike) -> Bytes:
    """uint8 (K, 3): the palette as overlays and legends show it, with gamma 0.6.

    The palettes of MSRS and MFNet are dark (a person is 64, 64, 0) and would vanish on pictures taken at night. Colours
    that differ still do; black, white and full primaries stay as they are.
    """
    return np.rint(255 * (np.asarray(palette, np.float64) / 255) ** 0.6).astype(np.uint8)


def overlay(
    picture: Bytes,
    labels: Bytes,
    palette: npt.ArrayLike,
    *,
    opacity: float = 0.45,
    clear: Collection[int] = CLEAR,
) -> Bytes:
    """Blend each class's colour into a picture and draw its outline.

    Args:
        picture: uint8 (H, W, 3) RGB, usually the fused image.
        labels: uint8 (H, W) class ids.
        palette: (K, 3) RGB 0..255, the colour of each id; see `display_colours`.
        opacity: share of the class colour inside its regions; outlines are drawn at full strength.
        clear: ids that leave the picture as it is.

    Returns:
        uint8 (H, W, 3).

    Raises:
        InputError: sizes differ, or an id that is not clear has no colour.
    """
    if picture.shape != (*labels.shape, 3):
        raise InputError(f"an overlay needs a picture (H, W, 3) and labels (H, W), got {picture.shape}, {labels.shape}")
    colours = display_colours(palette)
    shown = ~np.isin(labels, list(clear))
    unknown = sorted(set(np.unique(labels[shown]).tolist()) - set(range(len(colours))))
    if unknown:
        raise InputError(f"the palette has {len(colours)} colours and none for the label ids {unknown}")
    result = picture.copy()
    tint = colours[labels[shown]].astype(np.float32)
    result[shown] = np.rint(picture[shown] * (1 - opacity) + tint * opacity).astype(np.uint8)
    # About one pixel per 500 of the shorter side, so that an outline is as visible on a large picture as on a small.
    outline = shown & _outline(labels, max(1, round(min(labels.shape) / 500)))
    result[outline] = _outline_colours(colours)[labels[outline]]
    return result


def _outline(labels: Bytes, thickness: int) -> npt.NDArray[np.bool_]:
    """Pixels with another class within `thickness` pixels above, below, left or right."""
    edge = np.zeros(labels.shape, bool)
    for step in range(1, thickness + 1):
        rows = labels[step:] != labels[:-step]
        columns = labels[:, step:] != labels[:, :-step]
        edge[step:] |= rows
        edge[:-step] |= rows
        edge[:, step:] |= columns
        edge[:, :-step] |= columns
    return edge


def _outline_colours(colours: Bytes) -> Bytes:
    # Halfway to white, so that they stand out from the regions.
    return (colours // 2 + 128).astype(np.uint8)


def legend(
    class_names: Sequence[str], palette: npt.ArrayLike, width: int, *, ids: Collection[int] | None = None
) -> Image.Image:
    """A strip of colour swatches with class names, wrapped to `width` pixels.

    Args:
        class_names: name of each id.
        palette: (K, 3) RGB 0..255.
        width: width of the strip in pixels.
        ids: the ids to list, in order; by default all but class 0.
    """
    colours = display_colours(palette)
    font = caption_font(width / 4)
    size = round(font.size)
    swatch, spacing = size, round(0.5 * size)
    line = round(2 * size)
    places: list[tuple[int, int, int]] = []
    x, y = spacing, 0
    for index in range(1, len(class_names)) if ids is None else ids:
        entry = swatch + spacing + round(font.getlength(class_names[index])) + 3 * spacing
        if x > spacing and x + entry > width:
            x, y = spacing, y + line
        places.append((index, x, y))
        x += entry
    strip = Image.new("RGB", (width, y + line), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for index, left, top in places:
        middle = top + line / 2
        box = (left, middle - swatch / 2, left + swatch, middle + swatch / 2)
        outline = tuple(_outline_colours(colours)[index].tolist())
        draw.rectangle(box, fill=tuple(colours[index].tolist()), outline=outline)
        draw.text((left + swatch + spacing, middle), class_names[index], fill=TEXT, font=font, anchor="lm")
    return strip
