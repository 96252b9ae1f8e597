"""The inference path: every command, the evaluation and the validation in training go through `Predictor`.

Reading, padding, tiling, cropping and colour are numpy; the network runs in an engine (`tectum.engines`).
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tectum import DEFAULT_WEIGHTS
from tectum.arrays import Bytes, Float
from tectum.data.datasets import Problem
from tectum.data.pair import (
    IGNORE,
    ImageSource,
    InputWarning,
    Pair,
    PairPaths,
    read_infrared,
    read_pair,
    read_visible,
    require_same_size,
)
from tectum.engines.base import Engine
from tectum.errors import ConfigError, InputError, WeightsError
from tectum.machine import free_memory
from tectum.predict.blind import FrozenCameras, without_blind
from tectum.predict.choice import create_engine
from tectum.predict.colour import luminance, recolour, to_bytes
from tectum.predict.familiar import say_if_unlike, traits
from tectum.predict.tiling import (
    BAND_ROWS,
    SMALLEST_TILE,
    WHOLE_PIXELS,
    Band,
    blend,
    bytes_per_pixel,
    cover,
    fit_tile,
    round_up,
)
from tectum.viz.overlay import default_palette

if TYPE_CHECKING:
    from torch import nn

MIN_SIDE = 16
"""Smallest height and width that `Predictor` takes, in pixels."""

Tile = int | Literal["auto", "off"]

# Rows of a result that are worked on at a time: their temporary arrays stay in the processor's cache.
_STRIP = 32


@dataclass(frozen=True)
class Result:
    """What the network made of one pair, at the pair's own size.

    Attributes:
        name: the pair's name.
        fused: uint8 (H, W, 3) RGB, the fused luminance in the visible image's colour, clamped and rounded.
        labels: uint8 (H, W), the class with the highest score at each pixel; 255 where `Predictor.unknown` says so.
        confidence: float32 (H, W) in (0, 1], the probability of that class, calibrated on held-out pairs where the
            weights' metadata have a temperature.
        luminance: float32 (H, W) in [0, 1], the fused luminance before rounding and colour.
    """

    name: str
    fused: Bytes
    labels: Bytes
    confidence: Float
    luminance: Float


class _Plan(NamedTuple):
    """How pairs of one padded size are run.

    Attributes:
        tile: height and width of what is run at a time, the padded size itself for a whole run.
        together: how many pairs may go through the network together, None for all.
        exact: the tile is a band of `Engine.bands`.
    """

    tile: tuple[int, int]
    together: int | None
    exact: bool = False


@dataclass(frozen=True)
class Prediction:
    """One pair of `Predictor.stream` that went well: where it lies, what was read, and the result."""

    paths: PairPaths
    pair: Pair
    result: Result

    def compared(self) -> tuple[Float, Float, Float]:
        """What fusion metrics compare: fused as saved (3, H, W), visible (3, H, W), infrared (1, H, W), in [0, 1]."""
        fused = self.result.fused.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        return fused, self.pair.visible.transpose(2, 0, 1), self.pair.infrared[None]


class Predictor:
    """Fuses and labels aligned pairs of any size from 16x16 pixels up.

    Args:
        model: a shipped name, a directory written by `model.save()`, a file that `tectum.load` reads, a network, or an
            exported file (`.onnx`, or `.xml` with its `.bin` beside it), which runs without torch.
        device: "auto", "cpu", "cuda", "cuda:1", "mps". With "auto" a loaded network goes to the GPU where there is
            one, and a network handed in stays where it is.
        backend: "torch", "compile" (`torch.compile`), "onnx" (ONNX Runtime), "openvino", or "auto", the fastest that is
            installed: see `tectum.predict.choice.create_engine`. For the two runtimes weights are exported when they
            are first run, with a message, and the file is kept in ~/.cache/tectum.
        tile: how images too large for one run are run. ViR-MFS in torch works through them in bands of rows, which
            gives what a whole run gives, up to rounding. All others are cut into overlapping tiles that fade into each
            other, which changes the result of networks that look at the whole image, as all of tectum's do; smaller
            tiles change it more. "off": always whole; a number of pixels: the height of a band or the side of a
            square tile, rounded up to the network's stride; "auto": bands or tiles where an image has more than
            2 megapixels or half of the free memory would not do for a whole run, tiles as large as that allows.
        unknown: pixels whose confidence is below this get the label 255.

    A network handed in is used as it is at each call, so that a network in training can be validated; its modules'
    train and eval modes are left as they were found.

    Raises:
        ConfigError: unknown model name, device or backend, or three that do not go together; a tile below 128; an
            `unknown` that is no probability.
        ExportError: weights that cannot be exported for the backend asked for.
        MissingExtraError: a backend that is not installed.
        WeightsError: weights or an exported file that cannot be read.

    Example:
        >>> predictor = Predictor("virmfs_lite0_street")  # doctest: +SKIP
        >>> result = predictor(visible="v.png", infrared="i.png")  # doctest: +SKIP
        >>> result.fused.shape, result.labels.shape  # doctest: +SKIP
        ((480, 640, 3), (480, 640))
    """

    def __init__(
        self,
        model: "str | Path | nn.Module" = DEFAULT_WEIGHTS,
        device: str = "auto",
        backend: str = "auto",
        *,
        tile: Tile = "auto",
        unknown: float = 0.0,
    ) -> None:
        if not 0 <= unknown <= 1:
            raise ConfigError(f"unknown must be a probability from 0 to 1, got {unknown!r}")
        if tile not in ("auto", "off") and not (isinstance(tile, int) and tile >= SMALLEST_TILE):
            raise ConfigError(f"tile must be auto, off, or a number of pixels from {SMALLEST_TILE} up, got {tile!r}")
        self.tile, self.unknown = tile, unknown
        self.engine: Engine = create_engine(model, device, backend)
        self._sharpness = np.float32(1 / self.temperature)
        if self.classes > 255:
            raise ConfigError(
                f"model '{self.name}' has {self.classes} classes; label maps are 8-bit and hold at most 255"
            )

    @property
    def name(self) -> str:
        """What the network calls itself."""
        return self.engine.name

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.engine.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class id; "class N" where the weights do not say."""
        return tuple(self._per_class("class_names") or [f"class {index}" for index in range(self.classes)])

    @property
    def palette(self) -> Bytes:
        """uint8 (K, 3): the colour of each class id in pictures; evenly spread hues where the weights do not say."""
        palette = self._per_class("palette")
        return np.array(palette, np.uint8) if palette else default_palette(self.classes)

    @property
    def _calibration(self) -> dict[str, Any]:
        return self.engine.metadata.get("calibration") or {}

    @property
    def temperature(self) -> float:
        """What the logits are divided by before they become probabilities; 1 where the weights do not say."""
        value = self._calibration.get("temperature", 1.0)
        if not isinstance(value, int | float) or not value > 0:
            raise WeightsError(
                f"model '{self.name}' has the temperature {value!r} in its metadata; correct its config.json"
            )
        return float(value)

    def _per_class(self, key: str) -> list[Any] | None:
        values = self.engine.metadata.get(key)
        if values and len(values) != self.classes:
            raise WeightsError(
                f"model '{self.name}' has {self.classes} classes, but its metadata lists {len(values)} in '{key}'; "
                "correct its config.json"
            )
        return values

    def __call__(
        self, *, visible: ImageSource, infrared: ImageSource, infrared_range: tuple[float, float] | None = None
    ) -> Result:
        """Fuse and label one pair.

        Args:
            visible: path, PIL image or array: (H, W, 3) RGB or (H, W) grey; uint8, uint16, or float in [0, 1].
            infrared: the same, of the same height and width.
            infrared_range: the infrared values that become 0 and 1; by default the range of its type.

        Raises:
            InputError: an image cannot be read, is smaller than 16x16, or the two differ in size.
            WeightsError: the network gave NaN or infinity.
        """
        pair = Pair(
            Path(visible).stem if isinstance(visible, str | os.PathLike) else "pair",
            read_visible(visible),
            read_infrared(infrared, infrared_range),
        )
        names = (_called(visible, "visible image"), _called(infrared, "infrared image"), None)
        require_same_size(pair.visible, pair.infrared, names=names)
        return self.batch([pair])[0]

    def batch(self, pairs: Sequence[Pair]) -> list[Result]:
        """Fuse and label several pairs; those of equal padded size go through the network together.

        The results are those of single calls, in the order of `pairs`. Pairs in tiles go one after the other. Unless
        `tile` is "auto", all others of one size are in memory at once: it is for the caller to keep the sequence short.

        Raises:
            InputError: a pair is smaller than 16x16 or its images differ in size.
            WeightsError: the network gave NaN or infinity.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for pair in pairs:
            _check(pair)
        pairs = [without_blind(pair) for pair in pairs]
        for index, pair in enumerate(pairs):
            height, width = (round_up(side, self.engine.stride) for side in pair.infrared.shape)
            groups.setdefault((height, width), []).append(index)
        results: dict[int, Result] = {}
        for size, indices in groups.items():
            plan = self._plan(size)
            together = plan.together or len(indices)
            for start in range(0, len(indices), together):
                chosen = indices[start : start + together]
                results.update(zip(chosen, self._run([pairs[index] for index in chosen], size, plan), strict=True))
        if ranges := self._calibration.get("ranges"):
            for index, pair in enumerate(pairs):
                found = traits(pair, results[index].labels, results[index].confidence)
                say_if_unlike(pair, found, ranges, self.name)
        return [results[index] for index in range(len(pairs))]

    def logits(self, pair: Pair) -> Float:
        """The network's segmentation scores (K, H, W) float32 of one pair, before `temperature`.

        Raises:
            InputError: the pair is smaller than 16x16 or its images differ in size.
        """
        _check(pair)
        height, width = pair.infrared.shape
        size = (round_up(height, self.engine.stride), round_up(width, self.engine.stride))
        bands = [logits[0].copy() for _, _, logits in self._bands([without_blind(pair)], size, self._plan(size))]
        return np.concatenate(bands, axis=1)[:, :height, :width]

    def stream(
        self, table: Iterable[PairPaths], *, batch: int = 1, read: Callable[[PairPaths], Pair] = read_pair
    ) -> Iterator[Prediction | Problem]:
        """Go through a table of pairs: files are decoded ahead in threads while the network runs.

        Args:
            table: the pairs.
            batch: how many pairs are handed to `batch` at once.
            read: how a pair is read, `functools.partial(read_pair, value_range=(0, 16383))` for example.

        Yields:
            For each pair, in the order of the table, either a `Prediction` or the `Problem` that it has. A bad pair
            harms no other one of its batch.
        """
        rows = iter(table)
        frozen = FrozenCameras()
        readers = min(4, os.cpu_count() or 1)
        with ThreadPoolExecutor(readers, thread_name_prefix="tectum-read") as pool:
            # What is read and not yet used is bounded, since a pair may be a hundred megabytes.
            ahead = deque((row, pool.submit(_read, read, row)) for row in islice(rows, batch + readers))
            try:
                while ahead:
                    group: list[tuple[PairPaths, Pair | Problem]] = []
                    while ahead and len(group) < batch:
                        row, future = ahead.popleft()
                        group.append((row, future.result()))
                        ahead.extend((row, pool.submit(_read, read, row)) for row in islice(rows, 1))
                    seen = [frozen(pair) if isinstance(pair, Pair) else pair for _, pair in group]
                    yield from self._predict_read(group, seen)
            finally:
                for _, future in ahead:
                    future.cancel()

    def _predict_read(
        self, group: Sequence[tuple[PairPaths, Pair | Problem]], seen: Sequence[Pair | Problem]
    ) -> Iterator[Prediction | Problem]:
        """Results of what was read, in order; one by one if the batch as a whole fails. `seen` is without ghosts."""
        pairs = [pair for pair in seen if isinstance(pair, Pair)]
        try:
            results: Iterator[Result] | None = iter(self.batch(pairs))
        except (InputError, WeightsError):
            results = None
        for (row, pair), used in zip(group, seen, strict=True):
            if isinstance(pair, Problem):
                yield pair
                continue
            assert isinstance(used, Pair)
            try:
                result = next(results) if results else self.batch([used])[0]
            except InputError as error:
                yield Problem("bad input", row.name, str(error))
            except WeightsError as error:
                yield Problem("bad output", row.name, str(error))
            else:
                yield Prediction(row, pair, result)

    def _plan(self, size: tuple[int, int]) -> _Plan:
        if self.tile == "off":
            return _Plan(size, None)
        stride, exact = self.engine.stride, self.engine.bands is not None
        if self.tile != "auto":
            side = round_up(int(self.tile), stride)
            if side >= max(size):
                return _Plan(size, None)
            return _Plan((min(size[0], side), size[1] if exact else min(size[1], side)), 1, exact)
        # The other half is for the images themselves, those read ahead, and everybody else.
        free = free_memory() // 2
        affordable = free // bytes_per_pixel(self.engine)
        pixels = size[0] * size[1]
        if pixels <= min(WHOLE_PIXELS, affordable):
            return _Plan(size, affordable // pixels)
        if exact and pixels * bytes_per_pixel(self.engine, bands=True) <= free:
            return _Plan((min(size[0], round_up(BAND_ROWS, stride)), size[1]), 1, exact)
        tile = fit_tile(size, min(WHOLE_PIXELS, affordable), stride)
        if tile != size and (exact or pixels <= WHOLE_PIXELS):
            warnings.warn(
                f"{size[1]}x{size[0]} pixels are run in tiles of {tile[1]}x{tile[0]}, since memory is short "
                f"({2 * free / 2**30:.1f} GiB free); the result differs from that of a whole run",
                InputWarning,
                stacklevel=3,
            )
        return _Plan(tile, 1)

    def _run(self, pairs: Sequence[Pair], size: tuple[int, int], plan: _Plan) -> list[Result]:
        results = [_empty(pair) for pair in pairs]
        for top, fused, logits in self._bands(pairs, size, plan):
            for pair, result, one_fused, one_logits in zip(pairs, results, fused, logits, strict=True):
                for start in range(0, min(len(one_fused), len(pair.infrared) - top), _STRIP):
                    part = slice(start, start + _STRIP)
                    self._write_rows(result, pair, top + start, one_fused[part], one_logits[:, part])
        return results

    def _bands(self, pairs: Sequence[Pair], size: tuple[int, int], plan: _Plan) -> Iterator[Band]:
        """The network's output in bands, from top to bottom, whichever way it is computed."""
        if plan.exact:
            assert self.engine.bands is not None
            top = 0
            for raw in self.engine.bands(*_window(pairs, slice(0, size[0]), slice(0, size[1])), plan.tile[0]):
                yield Band(top, *raw)
                top += raw.fused.shape[1]
        else:
            down, across = (cover(*lengths, self.engine.stride) for lengths in zip(size, plan.tile, strict=True))
            yield from blend(down, across, lambda rows, columns: self.engine.run(*_window(pairs, rows, columns)))

    def _write_rows(self, result: Result, pair: Pair, top: int, fused: Float, logits: Float) -> None:
        """Write rows of a result, from `top` on; `fused` (h, W) and `logits` (K, h, W) may reach beyond the image."""
        height, width = pair.infrared.shape
        fused, logits = fused[: height - top, :width], logits[:, : height - top, :width]
        rows = slice(top, top + len(fused))
        if not (np.isfinite(fused).all() and np.isfinite(logits).all()):
            raise WeightsError(
                f"model '{self.name}' gave NaN or infinity for pair '{pair.name}': its weights are damaged or its "
                "training diverged; use other weights"
            )
        if pair.lost is not None:
            fused = luminance(pair.visible[rows]) if pair.lost == "infrared" else pair.infrared[rows]
        np.clip(fused, 0, 1, out=result.luminance[rows])
        result.fused[rows] = to_bytes(recolour(pair.visible[rows], fused))
        labels, best = _highest(logits)
        confidence = result.confidence[rows]
        confidence.fill(0)
        for scores in logits:
            confidence += np.exp((scores - best) * self._sharpness)
        np.reciprocal(confidence, out=confidence)
        result.labels[rows] = np.where(confidence < self.unknown, IGNORE, labels) if self.unknown else labels


def _highest(logits: Float) -> tuple[Bytes, Float]:
    """Labels and scores (h, W) of finite logits (K, h, W): argmax and max over K, in an eighth of their time."""
    best, labels = logits[0].copy(), np.zeros(logits.shape[1:], np.uint8)
    for label, scores in enumerate(logits[1:], start=1):
        # Labels rise, so the largest one is the last that was above all before.
        np.maximum(labels, (scores > best) * np.uint8(label), out=labels)
        np.maximum(best, scores, out=best)
    return labels, best


def _read(read: Callable[[PairPaths], Pair], row: PairPaths) -> Pair | Problem:
    try:
        return read(row)
    except (InputError, OSError) as error:
        return Problem("bad input", row.name, str(error))


def _called(source: ImageSource, role: str) -> object:
    return source if isinstance(source, str | os.PathLike) else role


def _check(pair: Pair) -> None:
    names = (f"{pair.name} (visible)", f"{pair.name} (infrared)", None)
    require_same_size(pair.visible, pair.infrared, names=names)
    height, width = pair.infrared.shape
    if min(height, width) < MIN_SIDE:
        raise InputError(f"pair '{pair.name}' is {width}x{height} pixels; the smallest size is {MIN_SIDE}x{MIN_SIDE}")


def _empty(pair: Pair) -> Result:
    """The result of a pair, to be filled."""
    shape = pair.infrared.shape
    luminance, confidence = np.empty(shape, np.float32), np.empty(shape, np.float32)
    return Result(pair.name, np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint8), confidence, luminance)


def _window(pairs: Sequence[Pair], rows: slice, columns: slice) -> tuple[Float, Float]:
    """The network's input (B, 3, h, w) and (B, 1, h, w) for a window of the padded size."""
    size = (rows.stop - rows.start, columns.stop - columns.start)
    visible = np.empty((len(pairs), 3, *size), np.float32)
    infrared = np.empty((len(pairs), 1, *size), np.float32)
    for index, pair in enumerate(pairs):
        visible[index] = _pad(pair.visible[rows, columns], size).transpose(2, 0, 1)
        infrared[index, 0] = _pad(pair.infrared[rows, columns], size)
    return visible, infrared


def _pad(image: Float, size: tuple[int, int]) -> Float:
    """Reflect `image` (H, W) or (H, W, C) beyond its bottom and right edge up to `size`."""
    if image.shape[:2] == size:
        return image
    margins = [(0, size[0] - image.shape[0]), (0, size[1] - image.shape[1])] + [(0, 0)] * (image.ndim - 2)
    return np.pad(image, margins, mode="reflect")
