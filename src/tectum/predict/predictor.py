"""The inference path: every command, the evaluation and the validation in training go through `Predictor`.

Reading, padding, cropping and colour are numpy; the network runs in a backend (`tectum.predict.backends`).
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tectum.data.datasets import Problem
from tectum.data.pair import (
    ImageSource,
    Pair,
    PairPaths,
    read_infrared,
    read_pair,
    read_visible,
    require_same_size,
)
from tectum.errors import ConfigError, InputError, WeightsError
from tectum.predict.backends import Backend, TorchBackend
from tectum.predict.colour import recolour, to_bytes

if TYPE_CHECKING:
    from torch import nn

Float = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

MIN_SIDE = 16
"""Smallest height and width that `Predictor` takes, in pixels."""


@dataclass(frozen=True)
class Result:
    """What the network made of one pair, at the pair's own size.

    Attributes:
        name: the pair's name.
        fused: uint8 (H, W, 3) RGB, the fused luminance in the visible image's colour, clamped and rounded.
        labels: uint8 (H, W), the class with the highest score at each pixel.
        luminance: float32 (H, W) in [0, 1], the fused luminance before rounding and colour.
    """

    name: str
    fused: Bytes
    labels: Bytes
    luminance: Float


@dataclass(frozen=True)
class Done:
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
        model: a shipped name, a directory written by `model.save()`, a file that `tectum.load` reads, or a network.
        device: "auto", "cpu", "cuda", "cuda:1", "mps". With "auto" a loaded network goes to the GPU where there is
            one, and a network handed in stays where it is.

    A network handed in is used as it is at each call, so that a network in training can be validated; its modules'
    train and eval modes are left as they were found.

    Raises:
        ConfigError: unknown model name or device.
        WeightsError: weights that cannot be read.

    Example:
        >>> predictor = Predictor("virmfs_b0_msrs")  # doctest: +SKIP
        >>> result = predictor(visible="v.png", infrared="i.png")  # doctest: +SKIP
        >>> result.fused.shape, result.labels.shape  # doctest: +SKIP
        ((480, 640, 3), (480, 640))
    """

    def __init__(self, model: "str | Path | nn.Module" = "virmfs_b0_msrs", device: str = "auto") -> None:
        self.backend: Backend = TorchBackend(model, device)
        if self.classes > 255:
            raise ConfigError(
                f"model '{self.name}' has {self.classes} classes; label maps are 8-bit and hold at most 255"
            )

    @property
    def name(self) -> str:
        """What the network calls itself."""
        return self.backend.name

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.backend.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class id; "class N" where the weights do not say."""
        return tuple(self._per_class("class_names") or [f"class {index}" for index in range(self.classes)])

    @property
    def palette(self) -> npt.NDArray[np.uint8]:
        """uint8 (K, 3): the colour of each class id in pictures; evenly spread hues where the weights do not say."""
        from tectum.viz.overlay import default_palette

        palette = self._per_class("palette")
        return np.array(palette, np.uint8) if palette else default_palette(self.classes)

    def _per_class(self, key: str) -> list[Any] | None:
        values = self.backend.metadata.get(key)
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

        The results are those of single calls, in the order of `pairs`. All pairs of one size are in memory at once:
        it is for the caller to keep the sequence short.

        Raises:
            InputError: a pair is smaller than 16x16 or its images differ in size.
            WeightsError: the network gave NaN or infinity.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for index, pair in enumerate(pairs):
            _check(pair)
            groups.setdefault(_padded_size(pair.infrared.shape, self.backend.stride), []).append(index)
        results: dict[int, Result] = {}
        for size, indices in groups.items():
            members = [pairs[index] for index in indices]
            results.update(zip(indices, self._run(members, size), strict=True))
        return [results[index] for index in range(len(pairs))]

    def stream(
        self, table: Iterable[PairPaths], *, batch: int = 1, read: Callable[[PairPaths], Pair] = read_pair
    ) -> Iterator[Done | Problem]:
        """Go through a table of pairs: files are decoded ahead in threads while the network runs.

        Args:
            table: the pairs.
            batch: how many pairs are handed to `batch` at once.
            read: how a pair is read, `functools.partial(read_pair, value_range=(0, 16383))` for example.

        Yields:
            For each pair, in the order of the table, either `Done` or the `Problem` that it has. A bad pair harms no
            other one of its batch.
        """
        rows = iter(table)
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
                    yield from self._finish(group)
            finally:
                for _, future in ahead:
                    future.cancel()

    def _finish(self, group: Sequence[tuple[PairPaths, Pair | Problem]]) -> Iterator[Done | Problem]:
        """Results of what was read, in order; one by one if the batch as a whole fails."""
        pairs = [pair for _, pair in group if isinstance(pair, Pair)]
        try:
            results: Iterator[Result] | None = iter(self.batch(pairs))
        except (InputError, WeightsError):
            results = None
        for row, pair in group:
            if isinstance(pair, Problem):
                yield pair
                continue
            try:
                result = next(results) if results else self.batch([pair])[0]
            except InputError as error:
                yield Problem("bad input", row.name, str(error))
            except WeightsError as error:
                yield Problem("bad output", row.name, str(error))
            else:
                yield Done(row, pair, result)

    def _run(self, pairs: Sequence[Pair], size: tuple[int, int]) -> list[Result]:
        visible = np.stack([_pad(pair.visible, size) for pair in pairs]).transpose(0, 3, 1, 2)  # (B, 3, *size)
        infrared = np.stack([_pad(pair.infrared, size) for pair in pairs])[:, None]  # (B, 1, *size)
        raw = self.backend.run(visible, infrared)
        return [
            self._result(pair, fused, logits) for pair, fused, logits in zip(pairs, raw.fused, raw.logits, strict=True)
        ]

    def _result(self, pair: Pair, fused: Float, logits: Float) -> Result:
        height, width = pair.infrared.shape
        fused, logits = fused[:height, :width], logits[:, :height, :width]
        if not (np.isfinite(fused).all() and np.isfinite(logits).all()):
            raise WeightsError(
                f"model '{self.name}' gave NaN or infinity for pair '{pair.name}': its weights are damaged or its "
                "training diverged; use other weights"
            )
        return Result(
            name=pair.name,
            fused=to_bytes(recolour(pair.visible, fused)),
            labels=logits.argmax(axis=0).astype(np.uint8),
            luminance=np.clip(fused, 0, 1),
        )


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


def _padded_size(shape: tuple[int, ...], stride: int) -> tuple[int, int]:
    height, width = shape[:2]
    return -(-height // stride) * stride, -(-width // stride) * stride


def _pad(image: Float, size: tuple[int, int]) -> Float:
    """Reflect `image` (H, W) or (H, W, C) beyond its bottom and right edge up to `size`."""
    margins = [(0, size[0] - image.shape[0]), (0, size[1] - image.shape[1])] + [(0, 0)] * (image.ndim - 2)
    return np.pad(image, margins, mode="reflect")
