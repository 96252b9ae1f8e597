"""Repairs of a data set's files, written elsewhere; a bad file does not stop them, and is reported at the end.

split_packed      MFNet's four-channel files to one folder per modality
ids_from_colours  colour-coded label maps to class ids
drop_unknown_ids  ids that a data set does not have (FMB's 15 and 16) to 255
scale_thermal     16-bit thermal counts to 8 bit, over a given range
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tectum.arrays import Bytes, Float
from tectum.data.datasets import Problem, dataset_info, list_images, scan_pairs
from tectum.data.pair import (
    IGNORE,
    PairPaths,
    read_infrared,
    read_label,
    read_pair,
    read_visible,
)
from tectum.data.parallel import In, Progress, each
from tectum.errors import ConfigError, InputError
from tectum.files import atomic_path


class Conversion(NamedTuple):
    """Outcome of a conversion.

    Attributes:
        written: the new files.
        changed: pixels that were altered in meaning (only `drop_unknown_ids` alters any).
        problems: inputs that could not be converted; nothing was written for them.
    """

    written: list[Path]
    changed: int
    problems: list[Problem]


def split_packed(
    root: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    on_start: Callable[[int], None] | None = None,
    on_pair: Progress | None = None,
) -> Conversion:
    """Write MFNet's four-channel files as OUT/SPLIT/vi (RGB), ir (grey) and Segmentation_labels (ids), all 8-bit PNG.

    Names, values and splits stay as they are; without list files there is no SPLIT level. The result is read as
    `mfnet`.

    Raises:
        InputError: `root` is not MFNet in its packed layout.
    """
    out = Path(out)
    pairs, unpaired = scan_pairs(root, "mfnet")
    if not pairs[0].packed:
        raise InputError(f"'{root}' already has one folder per modality, so there is nothing to split")
    info = dataset_info("mfnet")
    if on_start is not None:
        on_start(len(pairs))

    def convert(paths: PairPaths) -> Conversion:
        pair = read_pair(paths, classes=len(info.classes), ignore=info.ignore)
        base = out / paths.split if paths.split else out
        images = {"vi": _to_bytes(pair.visible), "ir": _to_bytes(pair.infrared)}
        if pair.label is not None:
            images["Segmentation_labels"] = pair.label
        return Conversion([_save(array, base / folder / f"{pair.name}.png") for folder, array in images.items()], 0, [])

    result = _convert_each(convert, {pair: pair.name for pair in pairs}, workers, on_pair)
    return result._replace(problems=sorted([*unpaired, *result.problems]))


def ids_from_colours(
    source: str | Path,
    out: str | Path,
    dataset: str,
    *,
    bgr: bool = False,
    workers: int | None = None,
    on_start: Callable[[int], None] | None = None,
    on_pair: Progress | None = None,
) -> Conversion:
    """Write colour-coded label maps as class ids, by the palette of a data set, to OUT/NAME.png.

    Args:
        source: a file, or a folder of files.
        out: another folder.
        dataset: whose palette to use.
        bgr: the files have red and blue exchanged, as OpenCV writes them when it is given RGB.
        workers: threads; by default one per processor, at most 8.
        on_start: told the number of files first.
        on_pair: called once for every finished file.

    Raises:
        InputError: the folder holds no image. A file that cannot be converted, for a colour that is not in the palette
            or any other reason, becomes a problem of the result instead.
        ConfigError: unknown data set, one without classes, or an output folder that holds the originals.
    """
    palette = np.array(dataset_info(dataset).palette, np.int64).reshape(-1, 3)
    if not len(palette):
        raise ConfigError(f"the data set '{dataset}' has no palette; name the one whose colours these are")
    codes = _colour_codes(palette[:, ::-1] if bgr else palette)
    swapped = _colour_codes(palette if bgr else palette[:, ::-1])

    def convert(path: Path) -> Conversion:
        found = _colour_codes(_to_bytes(read_visible(path)).astype(np.int64))
        unknown, counts = np.unique(found[~np.isin(found, codes)], return_counts=True)
        if unknown.size:
            raise InputError(
                _unknown_colours_message(path, dataset, unknown, counts, bool(np.isin(found, swapped).all()))
            )
        order = np.argsort(codes)
        ids = order[np.searchsorted(codes, found, sorter=order)].astype(np.uint8)
        return Conversion([_save(ids, Path(out) / f"{path.stem}.png")], 0, [])

    return _convert_files(convert, source, out, workers, on_start, on_pair)


def drop_unknown_ids(
    source: str | Path,
    out: str | Path,
    dataset: str,
    *,
    workers: int | None = None,
    on_start: Callable[[int], None] | None = None,
    on_pair: Progress | None = None,
) -> Conversion:
    """Write label maps with every id that the data set does not have turned into 255, to OUT/NAME.png.

    This mends FMB label maps that were resized by bicubic interpolation only as far as it shows: the invented ids 15
    and 16 go, but wrong ids between 0 and 14 at the same edges cannot be told from right ones. The originals are
    better.

    Arguments and errors are those of `ids_from_colours`.
    """
    info = dataset_info(dataset)
    if not info.classes:
        raise ConfigError(f"the data set '{dataset}' has no classes; name the one to which the labels belong")

    def convert(path: Path) -> Conversion:
        ids = read_label(path, ignore=info.ignore)
        unknown = (ids >= len(info.classes)) & (ids != IGNORE)
        ids[unknown] = IGNORE
        return Conversion([_save(ids, Path(out) / f"{path.stem}.png")], int(unknown.sum()), [])

    return _convert_files(convert, source, out, workers, on_start, on_pair)


def scale_thermal(
    source: str | Path,
    out: str | Path,
    value_range: tuple[float, float],
    *,
    workers: int | None = None,
    on_start: Callable[[int], None] | None = None,
    on_pair: Progress | None = None,
) -> Conversion:
    """Write infrared images as 8-bit grey, `value_range` to 0..255 and clipped beyond, to OUT/NAME.png.

    One range serves all files, so that equal counts stay equal greys. The other arguments are those of
    `ids_from_colours`.
    """

    def convert(path: Path) -> Conversion:
        grey = _to_bytes(read_infrared(path, value_range))
        return Conversion([_save(grey, Path(out) / f"{path.stem}.png")], 0, [])

    return _convert_files(convert, source, out, workers, on_start, on_pair)


def _unknown_colours_message(
    path: Path, dataset: str, codes: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], swapped_fits: bool
) -> str:
    most = np.argsort(counts)[::-1][:3]
    shown = ", ".join(f"({c >> 16}, {c >> 8 & 255}, {c & 255}) x {counts[i]}" for i in most for c in [int(codes[i])])
    message = f"'{path}' has {len(codes)} colours that are not in the palette of '{dataset}', mostly {shown} pixels"
    if swapped_fits:
        return f"{message}; all fit with red and blue exchanged, so convert with bgr (--bgr)"
    return f"{message}; name the data set whose colours these are, and take a file that was never resized or a JPEG"


def _colour_codes(colours: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(..., 3) bytes as one number each, 0xRRGGBB."""
    return colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]


def _to_bytes(image: Float) -> Bytes:
    return np.rint(image * 255).astype(np.uint8)


def _save(array: Bytes, path: Path) -> Path:
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary)
    return path


def _convert_files(
    convert: Callable[[Path], Conversion],
    source: str | Path,
    out: str | Path,
    workers: int | None,
    on_start: Callable[[int], None] | None,
    on_pair: Progress | None,
) -> Conversion:
    source, out = Path(source), Path(out)
    files = list_images(source) if source.is_dir() else [source]
    if not files:
        raise InputError(f"'{source}' holds no image")
    if out.resolve() == files[0].parent.resolve():
        raise ConfigError(f"'{out}' holds the originals; give another output folder")
    stems = Counter(file.stem for file in files)
    twice = [file for file in files if stems[file.stem] > 1]
    if on_start is not None:
        on_start(len(files) - len(twice))
    result = _convert_each(convert, {file: file.name for file in files if file not in twice}, workers, on_pair)
    problems = [
        Problem("ambiguous name", file.name, f"'{file}' shares its name with another file; rename one")
        for file in twice
    ]
    return result._replace(problems=sorted([*problems, *result.problems]))


def _convert_each(
    convert: Callable[[In], Conversion], names: Mapping[In, str], workers: int | None, on_pair: Progress | None
) -> Conversion:
    def attempt(item: In) -> Conversion:
        try:
            return convert(item)
        except (InputError, OSError) as error:  # OSError: a full disk, say
            return Conversion([], 0, [Problem("not converted", names[item], str(error))])

    results = each(attempt, list(names), workers, on_pair)
    return Conversion(
        [path for result in results for path in result.written],
        sum(result.changed for result in results),
        [problem for result in results for problem in result.problems],
    )
