"""Large images: which are cut, and overlapping tiles, in numpy.

Where the engine can run a large image whole in bands of rows (`Engine.bands`), nothing here but the limits is used.

Neighbouring tiles overlap, and in the overlap the fused luminance and the logits of one fade into those of the other:
each tile is weighted by raised-cosine ramps which, normalised, add up to one at every pixel. Tiles start at multiples
of the network's stride, so that its patches lie where they lie in the whole image.

For a network that sees a limited neighbourhood this changes nothing. What looks at the whole image (attention, pooling,
instance normalisation) sees one tile instead, so its result does change: see "Large images" in docs/inference.md.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tectum.arrays import Float
from tectum.engines.base import Engine, Raw

OVERLAP = 128
"""Pixels, at least, by which neighbouring tiles overlap; half a tile where tiles are small."""

SMALLEST_TILE = 128
"""Smallest side of a tile, in pixels."""

WHOLE_PIXELS = 2**21
"""Pixels up to which an image is run whole if memory allows: 1920x1080 and a little more.

Beyond, attention, whose cost grows with the square of the pixels, costs ViR-MFS more than everything else together.
"""

BAND_ROWS = 256
"""Height of the bands in which engines with `bands` run large images, in pixels."""

BYTES_PER_PIXEL = 2500
"""Memory of a run per input pixel where the network declares none: what the largest preset, mafs_r152, needs.

ONNX Runtime has no declared need, since it holds all scores of attention, which grow with the square of the pixels.
"""


class Span(NamedTuple):
    """The place of one tile along one axis: `start` in pixels, `weights` (tile,) in (0, 1]."""

    start: int
    weights: Float

    @property
    def window(self) -> slice:
        return slice(self.start, self.start + len(self.weights))


class Band(NamedTuple):
    """Finished rows of a blended result: `fused` (B, h, W) and `logits` (B, K, h, W) from row `top` on."""

    top: int
    fused: Float
    logits: Float


def cover(length: int, tile: int, stride: int) -> list[Span]:
    """Cover one axis with equal tiles, evenly spread, whose weights add up to one everywhere.

    Args:
        length: pixels to cover, a multiple of `stride`.
        tile: pixels of a tile, a multiple of `stride`; at least two strides unless it covers `length` at once.
        stride: of the network.

    Returns:
        As few tiles as overlap by `OVERLAP` (half a tile if that is less, rounded down to strides), in order, from 0 to
        `length`; one of `length` if that is no more than `tile`.
    """
    if length <= tile:
        return [Span(0, np.ones(length, np.float32))]
    overlap = min(OVERLAP, tile // 2) // stride * stride
    gaps = math.ceil((length - tile) / (tile - overlap))
    starts = [index * (length - tile) // stride // gaps * stride for index in range(gaps + 1)]

    ramps = np.ones((len(starts), tile))
    for index, (first, second) in enumerate(pairwise(starts)):
        shared = first + tile - second
        rising = np.sin(np.pi / 2 * (np.arange(shared) + 0.5) / shared) ** 2
        ramps[index, tile - shared :] *= rising[::-1]
        ramps[index + 1, :shared] *= rising
    total = np.zeros(length)
    for start, ramp in zip(starts, ramps, strict=True):
        total[start : start + tile] += ramp
    return [
        Span(start, (ramp / total[start : start + tile]).astype(np.float32))
        for start, ramp in zip(starts, ramps, strict=True)
    ]


def blend(rows: list[Span], columns: list[Span], run: Callable[[slice, slice], Raw]) -> Iterator[Band]:
    """Run the tiles row by row and give the blended result from top to bottom.

    Only the rows under one row of tiles are held: logits at full size would be the largest array of all.

    Args:
        rows: the tiles along the height.
        columns: the tiles along the width.
        run: gives the network's output for the window (rows, columns).

    Yields:
        Bands that follow each other without a gap. Their arrays are overwritten when the next one is asked for.
    """
    if len(rows) == len(columns) == 1:
        yield Band(0, *run(rows[0].window, columns[0].window))
        return
    height, width = len(rows[0].weights), columns[-1].window.stop
    sums: Raw | None = None
    for index, row in enumerate(rows):
        for column in columns:
            raw = run(row.window, column.window)
            if sums is None:
                sums = Raw(*(np.zeros((*part.shape[:-2], height, width), np.float32) for part in raw))
            weights = row.weights[:, None] * column.weights
            for total, part in zip(sums, raw, strict=True):
                total[..., column.window] += weights * part
        assert sums is not None
        following = rows[index + 1 : index + 2]
        done = following[0].start - row.start if following else height
        yield Band(row.start, sums.fused[..., :done, :], sums.logits[..., :done, :])
        if following:
            for total in sums:
                total[..., : height - done, :] = total[..., done:, :].copy()
                total[..., height - done :, :] = 0


def fit_tile(size: tuple[int, int], pixels: int, stride: int) -> tuple[int, int]:
    """The tile for an image of `size` (multiples of `stride`): at most `pixels` pixels, as near to a square as can be.

    No side is less than `SMALLEST_TILE` or the image's own, however few the pixels.
    """
    least = round_up(SMALLEST_TILE, stride)
    shorter = min(*size, max(least, math.isqrt(pixels) // stride * stride))
    longer = max(least, pixels // shorter // stride * stride)
    height, width = size
    return (min(height, shorter), min(width, longer)) if height <= width else (min(height, longer), min(width, shorter))


def bytes_per_pixel(engine: Engine, *, bands: bool = False) -> int:
    """Memory per input pixel of a whole run, or of one in bands of `BAND_ROWS` rows, for images that may run whole."""
    return engine.bytes_per_pixel.get("bands" if bands else engine.runtime, BYTES_PER_PIXEL)


def round_up(length: int, stride: int) -> int:
    """The smallest multiple of `stride` that is not less than `length`."""
    return -(-length // stride) * stride
