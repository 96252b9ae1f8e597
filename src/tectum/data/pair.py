"""Reading one infrared-visible pair: files, PIL images or arrays in; float32 arrays in [0, 1] out.

What is read, and how
    visible     (H, W, 3) float32 RGB in [0, 1]. Grey is repeated to three channels, a palette is resolved, CMYK is
                converted, alpha is dropped.
    infrared    (H, W) float32 in [0, 1]. Three equal channels (grey stored as RGB, as LLVIP and RoadScene do) are
                taken as they are; unequal ones are reduced to luminance, with a warning if they look pseudo-coloured.
    label       (H, W) uint8 class ids, 255 = ignore. A palette image gives its indices, never its colours.

Values are scaled by their storage type, never by the image's own minimum and maximum: 8 bit by 255, 16 bit by 65535,
float taken as it is and required to lie in [0, 1]. Raw thermal counts (14 bit in a 16-bit file) need an explicit
`value_range`; a 16-bit infrared image that uses less than an eighth of the range is reported by an `InputWarning`.
Pillow reads 16-bit *colour* PNGs and TIFFs by their upper eight bits. EXIF orientation is applied.

Packed files, as MFNet distributes them, hold RGB in channels 1 to 3 and thermal in channel 4 of one "RGBA" PNG. They
cannot be told from an ordinary RGBA image by their bytes, so they are read as packed only on request (`packed=True`).
"""

import os
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from tectum.arrays import LUMA, Bytes, Float
from tectum.errors import ConfigError, InputError

ImageSource = str | os.PathLike[str] | Image.Image | npt.NDArray[np.generic]

IGNORE = 255
"""Label id of pixels that no loss and no score counts."""

# Mean and 99th percentile of the largest difference between two channels, in 8-bit levels, up to which three channels
# count as one grey image. A grey picture saved as colour JPEG stays far below, pseudo-colour far above.
_GREY_MEAN, _GREY_P99 = 4.0, 24.0

# Part of the 16-bit range below which an infrared image is taken for unscaled sensor counts.
_USED_RANGE = 65535 / 8


class InputWarning(UserWarning):
    """An image was read, but probably not as its owner means it."""


@dataclass(frozen=True)
class Use:
    """What training makes of a pair.

    Attributes:
        looked_for: class ids that the label map looks for, so that 0 in it means none of these; None for all.
        boxes: whether the box file counts: within a box whose object has no mask, its class is somewhere.
        weight: of the pair's labels in the losses.
        scale: factor by which the pair is resized before anything else, 2 for pictures stored at half size.
    """

    looked_for: tuple[int, ...] | None = None
    boxes: bool = False
    weight: float = 1.0
    scale: float = 1.0


@dataclass(frozen=True)
class PairPaths:
    """Where one pair lies; nothing has been read yet.

    Attributes:
        name: identifies the pair in tables and output files; the visible file's stem.
        visible: file of the visible image.
        infrared: file of the infrared image; the same file as `visible` when `packed`.
        label: file of the label map, or None when the pair has none.
        boxes: text file of YOLO boxes (class, centre x, centre y, width, height, relative to the image), or None.
        split: `train`, `val`, `test`, ... or None when the data set has no splits.
        packed: visible and infrared are channels 1-3 and 4 of one file (MFNet).
        use: what training makes of the pair.
    """

    name: str
    visible: Path
    infrared: Path
    label: Path | None = None
    boxes: Path | None = None
    split: str | None = None
    packed: bool = False
    use: Use = Use()


@dataclass(frozen=True)
class Pair:
    """One pair in memory.

    Attributes:
        name: as in `PairPaths`.
        visible: (H, W, 3) float32 RGB in [0, 1].
        infrared: (H, W) float32 in [0, 1].
        label: (H, W) uint8 class ids with 255 = ignore, or None.
        lost: the image that shows nothing of the scene, and so takes no part in the fused picture.
    """

    name: str
    visible: Float
    infrared: Float
    label: Bytes | None = None
    lost: Literal["visible", "infrared"] | None = None


def read_visible(source: ImageSource, *, packed: bool = False) -> Float:
    """Read a visible image.

    Args:
        source: file, PIL image, or array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); uint8, uint16, or float
            in [0, 1].
        packed: the image has four channels, of which the first three are the visible image.

    Returns:
        (H, W, 3) float32 RGB in [0, 1].

    Raises:
        InputError: the source is missing, damaged, no image, holds NaN, or has the wrong shape, type or range.
    """
    return _visible(*_pixels(source, "visible image"), packed)


def read_infrared(
    source: ImageSource, value_range: tuple[float, float] | None = None, *, packed: bool = False
) -> Float:
    """Read an infrared image.

    Args:
        source: as in `read_visible`.
        value_range: (low, high) in the file's own units (counts, or kelvin in a float TIFF); low becomes 0, high
            becomes 1, what lies outside is clipped. Take one range for the whole data set, not one per image.
        packed: the image has four channels, of which the fourth is the infrared image.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        InputError: as in `read_visible`; also for an image whose fourth channel may or may not be the infrared.
        ConfigError: `value_range` is not two finite numbers with low < high.
    """
    _check_range(value_range)  # before the file: a wrong option is told even if the file is bad too
    return _infrared(*_pixels(source, "infrared image", any_float=value_range is not None), value_range, packed)


def read_label(source: ImageSource, classes: int | None = None, ignore: Collection[int] = (IGNORE,)) -> Bytes:
    """Read a map of class ids.

    Grey, 1-bit, 16-bit and palette files are taken by their stored numbers; so are RGB files with three equal
    channels. Nothing is resized here: who resizes a label map must use nearest-neighbour, anything else invents ids.

    Args:
        source: file, PIL image, or integer or boolean array of shape (H, W) or (H, W, 1).
        classes: number of classes K; ids must then lie in 0..K-1 or in `ignore`.
        ignore: ids that do not count; each becomes 255 in the result.

    Returns:
        (H, W) uint8 class ids, 255 = ignore.

    Raises:
        InputError: the source cannot be read, is colour-coded, lossy (JPEG), not integer, or has unknown ids.
    """
    pixels, where = _pixels(source, "label map", label=True)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1]
    if pixels.ndim == 3:
        if pixels.shape[2] == 3 and not (
            np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 1], pixels[..., 2])
        ):
            raise InputError(
                f"{where} is colour-coded, not a map of class ids; turn colours into ids with `tectum data convert`"
            )
        pixels = pixels[..., 0]
    if pixels.dtype.kind == "f":
        raise InputError(f"{where} holds {pixels.dtype} numbers; a label map must hold integers (class ids)")
    unknown = _unknown_ids(pixels, classes, ignore)
    if unknown:
        raise InputError(unknown_ids_message(where, unknown, classes))
    labels = pixels.astype(np.uint8)
    others = [i for i in ignore if i != IGNORE]
    if others:
        labels[np.isin(pixels, others)] = IGNORE
    return np.ascontiguousarray(labels)


def read_pair(
    paths: PairPaths,
    *,
    value_range: tuple[float, float] | None = None,
    classes: int | None = None,
    ignore: Collection[int] = (IGNORE,),
) -> Pair:
    """Read the images of a pair and, where there is one, its label map.

    Args:
        paths: where the pair lies.
        value_range: as in `read_infrared`.
        classes: as in `read_label`.
        ignore: as in `read_label`.

    Raises:
        InputError: a file cannot be used, or the sizes differ; the message names the files.
    """
    if paths.packed:  # one file, decoded once
        _check_range(value_range)
        pixels, where = _pixels(paths.visible, "packed pair")
        visible, infrared = _visible(pixels, where, True), _infrared(pixels, where, value_range, True)
    else:
        visible, infrared = read_visible(paths.visible), read_infrared(paths.infrared, value_range)
    label = None if paths.label is None else read_label(paths.label, classes, ignore)
    require_same_size(visible, infrared, label, names=(paths.visible, paths.infrared, paths.label))
    return Pair(paths.name, visible, infrared, label)


def require_same_size(
    visible: npt.NDArray[np.generic],
    infrared: npt.NDArray[np.generic],
    label: npt.NDArray[np.generic] | None = None,
    *,
    names: tuple[object, object, object] = ("visible image", "infrared image", "label map"),
) -> None:
    """Raise an InputError naming both sources unless all arrays have the same height and width."""
    height, width = visible.shape[:2]
    for other, name, fix in (
        (infrared, names[1], "fusion needs aligned images of one size, so register and crop them first"),
        (label, names[2], "resize the label map with nearest-neighbour, or take the one that belongs to the image"),
    ):
        if other is not None and other.shape[:2] != (height, width):
            raise InputError(
                f"'{names[0]}' is {width}x{height} but '{name}' is {other.shape[1]}x{other.shape[0]} pixels: {fix}"
            )


def unknown_ids_message(where: str, ids: Collection[int], classes: int | None) -> str:
    """Say which ids of a label map are unknown and what to do about it."""
    shown = ", ".join(str(i) for i in sorted(ids)[:12]) + (", ..." if len(ids) > 12 else "")
    if classes is None:
        return f"{where} has ids outside 0..255: {shown}; mark pixels to ignore by 255"
    if classes == 15 and set(ids) <= {15, 16}:
        # Bicubic interpolation overshoots: between id 0 and id 14 it makes 15 and 16.
        return (
            f"{where} has the ids {shown}, which FMB (ids 0..14) does not: they appear when a label map is resized "
            "with bicubic instead of nearest; use the original file, or turn them into 255 with "
            "`tectum data convert ids`"
        )
    return (
        f"{where} has unknown ids {shown}; known are 0..{classes - 1} and the ignore id. Check that it belongs to this "
        "data set and was resized with nearest only; `tectum data convert ids` turns unknown ids into 255"
    )


def _visible(pixels: npt.NDArray[np.generic], where: str, packed: bool) -> Float:
    if packed:
        return np.ascontiguousarray(_scale(_unpack(pixels, where)[..., :3]))
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        alpha, pixels = pixels[..., -1], pixels[..., :-1]
        if alpha.min() != alpha.max():
            warnings.warn(
                f"{where} has a last channel that varies; it is taken for transparency and dropped. "
                "If it is the thermal image (MFNet), read it as packed (dataset 'mfnet')",
                InputWarning,
                stacklevel=2,
            )
    scaled = _scale(pixels)
    if scaled.ndim == 2:
        scaled = scaled[..., None]
    if scaled.shape[2] == 1:
        scaled = np.repeat(scaled, 3, axis=2)  # (H, W, 1) -> (H, W, 3)
    return np.ascontiguousarray(scaled)


def _check_range(value_range: tuple[float, float] | None) -> None:
    if value_range is None:
        return
    low, high = value_range
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ConfigError(f"the infrared range must be LOW HIGH with low < high, got {low:g} {high:g}")


def _infrared(
    pixels: npt.NDArray[np.generic], where: str, value_range: tuple[float, float] | None, packed: bool
) -> Float:
    grey = _unpack(pixels, where)[..., 3] if packed else _single_channel(pixels, where)
    if value_range is None:
        if grey.dtype == np.uint16:
            _warn_unused_range(grey, where)
        return np.ascontiguousarray(_scale(grey))
    low, high = value_range
    scaled = (grey.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    if scaled.max() <= 0 or scaled.min() >= 1:
        warnings.warn(
            f"all values of {where} ({grey.min():g} to {grey.max():g}) lie outside the value range "
            f"({low:g}, {high:g}), so it is blank; choose a range that covers the data",
            InputWarning,
            stacklevel=2,
        )
    return np.ascontiguousarray(np.clip(scaled, 0, 1, out=scaled))


def _pixels(
    source: ImageSource, role: str, *, label: bool = False, any_float: bool = False
) -> tuple[npt.NDArray[np.generic], str]:
    """Return the stored numbers of `source` as (H, W) or (H, W, C), and how to call it in a message."""
    if isinstance(source, np.ndarray):
        pixels, where = source, f"the {role}"
    elif isinstance(source, Image.Image):
        where = f"'{name}'" if (name := getattr(source, "filename", "")) else f"the {role}"
        pixels = _decode(source, where, label=label)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        where = f"'{path}'"
        if path.is_dir():
            raise InputError(f"{where} is a folder; give the file of one {role}")
        if not path.exists():
            raise InputError(f"{where} does not exist; check the path of the {role}")
        if path.stat().st_size == 0:
            raise InputError(f"{where} is empty (0 bytes); copy or download the {role} again")
        try:
            with Image.open(path) as image:
                pixels = _decode(image, where, label=label)
        except Image.UnidentifiedImageError:
            raise InputError(f"{where} is not an image, or of a format that Pillow does not read") from None
        except Image.DecompressionBombError as error:
            raise InputError(
                f"{where} is too large to be opened safely ({error}); cut it into pieces, or raise "
                "PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            ) from None
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{where} cannot be read ({error}); copy or download the {role} again") from None
    else:
        raise InputError(
            f"the {role} is given as {type(source).__name__}; give a path, a PIL image or a numpy array "
            "(of a tensor: tensor.numpy(), channels last)"
        )
    return _checked(pixels, where, label=label, any_float=any_float), where


def _decode(image: Image.Image, where: str, *, label: bool) -> npt.NDArray[np.generic]:
    if label and image.format in ("JPEG", "MPO"):
        raise InputError(f"{where} is a JPEG; its compression changes class ids, so save label maps as PNG")
    try:
        frames = getattr(image, "n_frames", 1)
        image.load()
        upright = ImageOps.exif_transpose(image)
        mode = upright.mode
        if mode in ("P", "PA") and not label:
            upright = upright.convert("RGB")  # its transparency is of no use here
        elif mode == "1" and not label:
            upright = upright.convert("L")
        elif mode in ("CMYK", "YCbCr", "HSV", "LAB", "RGBX"):
            upright = upright.convert("RGB")
        elif mode in ("RGBa", "La"):
            upright = upright.convert(mode.upper())
        pixels = np.asarray(upright)
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        raise InputError(f"{where} is truncated or damaged ({error}); copy or download it again") from None
    # An MPO is a photograph with a preview behind it; in every other format a second frame is a second picture.
    if frames > 1 and image.format != "MPO":
        raise InputError(f"{where} holds {frames} frames or pages; save the one you mean as a file of its own")
    if mode == "I" and not label:
        # Older Pillow reads 16-bit grey PNGs as 32-bit integers.
        if pixels.min() < 0 or pixels.max() > 65535:
            raise InputError(
                f"{where} holds 32-bit integers ({pixels.min()} to {pixels.max()}); save it as 8 or 16 bit, or as "
                "float in [0, 1]"
            )
        return pixels.astype(np.uint16)
    if mode.startswith("I;16"):
        return pixels.astype(np.uint16)  # native byte order
    return pixels


def _checked(pixels: npt.NDArray[np.generic], where: str, *, label: bool, any_float: bool) -> npt.NDArray[np.generic]:
    """Refuse wrong shapes, types and ranges."""
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 2, 3, 4) and pixels.shape[0] in (1, 3, 4):
        raise InputError(f"{where} has shape {pixels.shape}, channels first; transpose it to (height, width, channels)")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 2, 3, 4)):
        raise InputError(
            f"{where} has shape {pixels.shape}; expected (height, width) or (height, width, channels) with 1, 3 or 4 "
            "channels"
        )
    if pixels.size == 0:
        raise InputError(f"{where} has shape {pixels.shape}, which holds no pixel")
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            bad = int((~np.isfinite(pixels)).sum())
            raise InputError(f"{where} holds {bad} NaN or infinite values; replace them before fusing")
        if not label and not any_float and (pixels.min() < -1e-6 or pixels.max() > 1 + 1e-6):
            raise InputError(
                f"{where} holds float values from {pixels.min():g} to {pixels.max():g}; scale them to [0, 1] first "
                "(for infrared, value_range=(low, high) does it)"
            )
    elif label:
        if pixels.dtype.kind not in "biu":
            raise InputError(f"{where} holds {pixels.dtype}; a label map must hold integers (class ids)")
    elif pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{where} holds {pixels.dtype}; give uint8, uint16, or float in [0, 1]")
    return pixels


def _unpack(pixels: npt.NDArray[np.generic], where: str) -> npt.NDArray[np.generic]:
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        raise InputError(
            f"{where} has {channels} channel(s), but a packed pair has four (RGB and thermal); for separate files use "
            "a layout with one folder per modality"
        )
    return pixels


def _scale(pixels: npt.NDArray[np.generic]) -> Float:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) / np.float32(65535)
    return np.clip(pixels.astype(np.float32), 0, 1)


def _single_channel(pixels: npt.NDArray[np.generic], where: str) -> npt.NDArray[np.generic]:
    """(H, W) of what may be stored as grey, grey + alpha, RGB or RGBA; keeps the dtype where nothing is mixed."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] in (1, 2):
        return pixels[..., 0]
    red, green, blue = (pixels[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return red
    if pixels.shape[2] == 4 and pixels[..., 3].min() != pixels[..., 3].max():
        raise InputError(
            f"{where} has colour and a fourth channel that varies: if that is the thermal image (MFNet), read it as "
            "packed (dataset 'mfnet') or split it with `tectum data convert mfnet`; if it is transparency, remove it"
        )
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    full = {"uint8": 255.0, "uint16": 65535.0}.get(str(pixels.dtype), 1.0)
    levels = spread.astype(np.float32) * np.float32(255 / full)
    if levels.mean() > _GREY_MEAN or np.percentile(levels, 99) > _GREY_P99:
        warnings.warn(
            f"{where} is an infrared image in colour; its luminance is used. If the colours are a palette "
            "(pseudo-colour), luminance is not temperature: use the grey original",
            InputWarning,
            stacklevel=3,
        )
    grey = pixels[..., :3].astype(np.float32) @ np.array(LUMA, np.float32)  # (H, W, 3) -> (H, W)
    # Back to the stored type: 8-bit grey in, 8-bit grey out, as for a file that was grey from the start.
    return grey if pixels.dtype.kind == "f" else np.rint(grey).astype(pixels.dtype)


def _warn_unused_range(pixels: npt.NDArray[np.generic], where: str) -> None:
    low, high = int(pixels.min()), int(pixels.max())
    if high - low < _USED_RANGE:
        warnings.warn(
            f"{where} is 16 bit but uses only the values {low} to {high}, so it will look almost flat; if these are "
            f"raw sensor counts, give one range for the whole set, such as value_range=({low}, {high}) "
            f"(--infrared-range {low} {high}), or convert the files with `tectum data convert thermal`",
            InputWarning,
            stacklevel=3,
        )


def _unknown_ids(pixels: npt.NDArray[np.generic], classes: int | None, ignore: Collection[int]) -> list[int]:
    if pixels.dtype == np.uint8:
        found = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256))  # far faster than unique
    else:
        found = np.unique(pixels)
    top = 256 if classes is None else classes
    allowed = set(ignore)
    return [int(i) for i in found if not (0 <= i < top or int(i) in allowed)]
