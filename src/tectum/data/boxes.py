"""Boxes that people drew around objects, in YOLO text files."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tectum.errors import InputError

MSRS_BOX_CLASSES: dict[int, int] = {0: 2, 1: 3, 2: 1}
"""From the ids of MSRS's box files (0 person, 1 bicycle, 2 car) to the class ids of its label maps."""


class Box(NamedTuple):
    """A box around one object; coordinates are shares of the image's width and height."""

    label: int  # class id, as in label maps
    x: float  # centre, 0 at the left border and 1 at the right one
    y: float  # centre, 0 at the top
    width: float
    height: float


def read_boxes(path: str | Path, classes: Mapping[int, int] = MSRS_BOX_CLASSES) -> list[Box]:
    """Read a YOLO text file: one line `id x y width height` per object, coordinates as shares of the image's size.

    Empty files, which say that there is no object, and blank lines are allowed.

    Args:
        path: the text file.
        classes: from the file's ids to those of the label maps.

    Raises:
        InputError: a file that cannot be read, or a malformed line; the message names the file and the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: the box file does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the box file cannot be read as text ({error})") from error
    return [
        _parse_box(line, f"{path}, line {number}", classes)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]


def _parse_box(line: str, where: str, classes: Mapping[int, int]) -> Box:
    fields = line.split()
    if len(fields) != 5:
        raise InputError(f"{where}: expected 'id x y width height', found {len(fields)} fields: {line.strip()!r}")
    try:
        label = int(fields[0])
        x, y, width, height = (float(field) for field in fields[1:])
    except ValueError:
        raise InputError(f"{where}: expected an integer and four numbers, found {line.strip()!r}") from None
    if label not in classes:
        known = ", ".join(str(known) for known in sorted(classes))
        raise InputError(f"{where}: unknown id {label}; the known ones are {known}")
    if not (0 <= x <= 1 and 0 <= y <= 1 and 0 < width <= 1 and 0 < height <= 1):
        raise InputError(
            f"{where}: x, y, width and height must be shares of the image's size, from 0 to 1 (width and height "
            f"above 0), found {line.strip()!r}"
        )
    return Box(classes[label], x, y, width, height)


def covered_pixels(centre: float, extent: float, size: int) -> slice:
    """The pixels of one axis whose centres a box covers; at least the one in which the box's own centre lies."""
    start = max(math.ceil((centre - extent / 2) * size - 0.5), 0)
    stop = min(math.ceil((centre + extent / 2) * size - 0.5), size)
    if stop <= start:
        start = min(int(centre * size), size - 1)
        stop = start + 1
    return slice(start, stop)
