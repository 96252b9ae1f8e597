"""The inference path: every command, the evaluation and the validation in training go through `Predictor`.

Reading, padding, cropping and colour are numpy; the network runs in a backend (`tectum.predict.backends`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tectum.data.pair import ImageSource, Pair, read_infrared, read_visible
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
        names = self.backend.metadata.get("class_names") or [f"class {index}" for index in range(self.classes)]
        return tuple(names)

    @property
    def palette(self) -> npt.NDArray[np.uint8]:
        """uint8 (K, 3): the colour of each class id in pictures; evenly spread hues where the weights do not say."""
        from tectum.viz.overlay import default_palette

        palette = self.backend.metadata.get("palette")
        return np.array(palette, np.uint8) if palette else default_palette(self.classes)

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
        name = Path(visible).stem if isinstance(visible, str | Path) else "pair"
        pair = Pair(name, read_visible(visible), read_infrared(infrared, infrared_range))
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


def _check(pair: Pair) -> None:
    height, width = pair.infrared.shape
    if pair.visible.shape[:2] != (height, width):
        raise InputError(
            f"pair '{pair.name}': the visible image is {pair.visible.shape[1]}x{pair.visible.shape[0]} and the "
            f"infrared {width}x{height} pixels; the two must be aligned and of one size"
        )
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"pair '{pair.name}' is {width}x{height} pixels; the smallest size is {MIN_SIDE}x{MIN_SIDE}"
        )


def _padded_size(shape: tuple[int, ...], stride: int) -> tuple[int, int]:
    height, width = shape[:2]
    return -(-height // stride) * stride, -(-width // stride) * stride


def _pad(image: Float, size: tuple[int, int]) -> Float:
    """Reflect `image` (H, W) or (H, W, C) beyond its bottom and right edge up to `size`."""
    margins = [(0, size[0] - image.shape[0]), (0, size[1] - image.shape[1])] + [(0, 0)] * (image.ndim - 2)
    return np.pad(image, margins, mode="reflect")
