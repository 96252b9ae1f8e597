"""Looking a data set over before work is put into it: what is wrong with it, what is in it, and repairs.

    check_dataset     missing twins, unequal sizes, unreadable files, wrong modes, unknown ids, empty labels, duplicates
    dataset_stats     class counts and weights, image sizes, brightness
    split_packed      MFNet's four-channel files to one folder per modality
    ids_from_colours  colour-coded label maps to class ids
    drop_unknown_ids  ids that a data set does not have (FMB's 15 and 16) to 255
    scale_thermal     16-bit thermal counts to 8 bit, over a given range

All of them go on when a file is bad and report it at the end. Files are read and written by several threads.
"""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from tectum.data.datasets import Problem, dataset_info, list_images, scan_pairs
from tectum.data.pair import (
    IGNORE,
    LUMA,
    InputWarning,
    PairPaths,
    read_infrared,
    read_label,
    read_pair,
    read_visible,
    require_same_size,
    unknown_ids_message,
)
from tectum.errors import ConfigError, InputError
from tectum.files import atomic_path

Progress = Callable[[], None]
"""Called once for every finished pair or file."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Report:
    """What `check_dataset` found.

    Attributes:
        root: the folder that was checked.
        dataset: what it was read as.
        pairs: number of pairs.
        labelled: how many of them have a label map.
        splits: pairs of each split; the key is "" when there are no splits.
        sizes: pairs of each size, as "640x480" (width x height).
        modes: for "visible", "infrared" and "label", files of each Pillow mode.
        problems: what must be mended, by pair name.
        notes: what may be meant so.
    """

    root: Path
    dataset: str
    pairs: int
    labelled: int
    splits: dict[str, int]
    sizes: dict[str, int]
    modes: dict[str, dict[str, int]]
    problems: list[Problem]
    notes: list[Problem]

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "root": str(self.root),
            "dataset": self.dataset,
            "ok": self.ok,
            "pairs": self.pairs,
            "labelled": self.labelled,
            "splits": self.splits,
            "sizes": self.sizes,
            "modes": self.modes,
            "problems": [problem._asdict() for problem in self.problems],
            "notes": [note._asdict() for note in self.notes],
        }


@dataclass
class _Look:
    """What one pair showed."""

    pair: PairPaths
    digest: bytes | None = None
    size: str | None = None
    modes: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def check_dataset(
    root: str | Path,
    dataset: str = "folder",
    split: str | None = None,
    *,
    value_range: tuple[float, float] | None = None,
    workers: int | None = None,
    on_start: Callable[[int], None] | None = None,
    on_pair: Progress | None = None,
) -> Report:
    """Read every file of a data set and say what is wrong.

    Problems: `missing twin`, `missing file`, `ambiguous name`, `unreadable file`, `wrong mode or values`,
    `unequal sizes`, `unknown ids`, `empty label` (every pixel ignored), `duplicate between splits` (the same visible
    pixels). Notes: `suspicious image` (an `InputWarning` of reading), `missing label` where others have one,
    `duplicate within a split`.

    Args:
        root: folder of the data set.
        dataset: a key of `tectum.data.datasets.DATASETS`; ids are known for those with classes.
        split: as in `pair_table`; None checks all splits, and duplicates between them.
        value_range: as in `read_infrared`.
        workers: reading threads; by default one per processor, at most 8.
        on_start: told the number of pairs before the reading begins.
        on_pair: called once for every finished pair.

    Raises:
        InputError: no known layout fits, or there is no pair.
        ConfigError: unknown data set or split.
    """
    info = dataset_info(dataset)
    pairs, problems = scan_pairs(root, dataset, split)
    if on_start is not None:
        on_start(len(pairs))

    def look(pair: PairPaths) -> _Look:
        return _look_at(pair, len(info.classes) or None, info.ignore, value_range)

    # Reading threads warn into the same list; which file is meant stands in the text, in the first quotes.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        looks = _each(look, pairs, workers, on_pair)
    texts = [str(warning.message) for warning in caught if issubclass(warning.category, InputWarning)]
    notes = [Problem("suspicious image", Path(text.split("'")[1]).stem, text) for text in texts]

    problems = [*problems, *(problem for found in looks for problem in found.problems)]
    for problem, between_splits in _duplicates(looks):
        (problems if between_splits else notes).append(problem)
    labelled = sum(pair.label is not None for pair in pairs)
    if 0 < labelled < len(pairs):
        notes += [
            Problem("missing label", pair.name, f"'{pair.visible}' has no label map, though other pairs have one")
            for pair in pairs
            if pair.label is None
        ]
    return Report(
        root=Path(root),
        dataset=dataset,
        pairs=len(pairs),
        labelled=labelled,
        splits=dict(Counter(pair.split or "" for pair in pairs)),
        sizes=dict(Counter(found.size for found in looks if found.size).most_common()),
        modes={
            role: dict(Counter(found.modes[role] for found in looks if role in found.modes).most_common())
            for role in ("visible", "infrared", "label")
            if any(role in found.modes for found in looks)
        },
        problems=sorted(problems),
        notes=sorted(notes),
    )


def _look_at(
    pair: PairPaths, classes: int | None, ignore: Sequence[int], value_range: tuple[float, float] | None
) -> _Look:
    look = _Look(pair)

    def attempt(role: str, path: Path, read: Callable[[], _Out]) -> _Out | None:
        try:
            with Image.open(path) as image:
                look.modes[role] = image.mode
        except Exception:  # the reader says better what is wrong
            pass
        try:
            return read()
        except InputError as error:
            kind = "wrong mode or values" if _decodes(path) else "unreadable file"
            look.problems.append(Problem(kind, pair.name, str(error)))
            return None

    visible = attempt("visible", pair.visible, lambda: read_visible(pair.visible, packed=pair.packed))
    infrared = None
    if visible is not None or not pair.packed:  # a bad packed file is reported once
        infrared = attempt(
            "infrared", pair.infrared, lambda: read_infrared(pair.infrared, value_range, packed=pair.packed)
        )
    label = None
    if (path := pair.label) is not None:
        label = attempt("label", path, lambda: read_label(path))

    if visible is not None:
        look.size = f"{visible.shape[1]}x{visible.shape[0]}"
        look.digest = blake2b(visible.tobytes(), digest_size=16, salt=look.size.encode()[:16]).digest()
        for other, other_path in ((infrared, pair.infrared), (label, pair.label)):
            if other is not None:
                try:
                    require_same_size(visible, other, names=(pair.visible, other_path, None))
                except InputError as error:
                    look.problems.append(Problem("unequal sizes", pair.name, str(error)))
    if label is not None:
        present = set(np.flatnonzero(np.bincount(label.ravel())).tolist())
        if present <= set(ignore):
            message = f"every pixel of '{pair.label}' is ignored; take the label map away, or mend it"
            look.problems.append(Problem("empty label", pair.name, message))
        unknown = [i for i in present if classes is not None and i >= classes and i not in ignore]
        if unknown:
            message = unknown_ids_message(f"'{pair.label}'", unknown, classes)
            look.problems.append(Problem("unknown ids", pair.name, message))
    return look


def _decodes(path: Path) -> bool:
    """Whether the file is a sound image, so that what is wrong with it is its mode or its values."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:  # decoders raise whatever they like on damaged bytes
        return False
    return True


def _duplicates(looks: Iterable[_Look]) -> list[tuple[Problem, bool]]:
    """Return groups of equal visible images, each with whether it reaches over two splits."""
    groups: dict[bytes, list[PairPaths]] = defaultdict(list)
    for look in looks:
        if look.digest is not None:
            groups[look.digest].append(look.pair)
    found = []
    for group in groups.values():
        if len(group) > 1:
            between = len({pair.split for pair in group}) > 1
            files = ", ".join(f"'{pair.visible}'" for pair in group)
            kind = "duplicate between splits" if between else "duplicate within a split"
            fix = "a score on the one split would be of data seen in the other; keep one" if between else "keep one"
            found.append((Problem(kind, group[0].name, f"{files} are the same picture: {fix}"), between))
    return found


class ClassCount(NamedTuple):
    """How often one class occurs.

    Attributes:
        name: the class.
        pixels: labelled pixels of this class.
        frequency: part of all pixels that count, 0..1.
        images: label maps that contain it.
        enet: weight 1 / ln(1.02 + frequency).
        median_frequency: weight by median-frequency balancing; 0 for a class that does not occur.
    """

    name: str
    pixels: int
    frequency: float
    images: int
    enet: float
    median_frequency: float


class Brightness(NamedTuple):
    """Grey values of one modality over all pixels of all images, in [0, 1].

    Attributes:
        mean: mean over all pixels.
        std: standard deviation over all pixels.
        darkest: lowest mean of an image.
        brightest: highest mean of an image.
    """

    mean: float
    std: float
    darkest: float
    brightest: float


@dataclass(frozen=True)
class Stats:
    """What `dataset_stats` counted.

    Attributes:
        root: the folder that was read.
        dataset: what it was read as.
        pairs: pairs that could be read.
        labelled: how many of them have a label map.
        classes: one entry for each id, in order.
        ignored: part of the labelled pixels that is ignored, 0..1.
        sizes: pairs of each size, as "640x480" (width x height).
        visible: brightness of the visible images' luminance.
        infrared: brightness of the infrared images.
        problems: pairs left out because they could not be read or found.
    """

    root: Path
    dataset: str
    pairs: int
    labelled: int
    classes: list[ClassCount]
    ignored: float
    sizes: dict[str, int]
    visible: Brightness
    infrared: Brightness
    problems: list[Problem]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "root": str(self.root),
            "dataset": self.dataset,
            "pairs": self.pairs,
            "labelled": self.labelled,
            "classes": [{"id": i, **entry._asdict()} for i, entry in enumerate(self.classes)],
            "ignored": self.ignored,
            "sizes": self.sizes,
            "visible": self.visible._asdict(),
            "infrared": self.infrared._asdict(),
            "problems": [problem._asdict() for problem in self.problems],
        }


def enet_weights(pixels: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Class weights 1 / ln(1.02 + p), p the class's share of all pixels: from 1.42 (all pixels) to 50.5 (none).

    Source: A. Paszke et al., "ENet: A deep neural network architecture for real-time semantic segmentation", 2016.

    Args:
        pixels: (K,) pixel counts, ignored pixels left out.
    """
    counts = np.asarray(pixels, np.float64)
    return 1 / np.log(1.02 + counts / max(counts.sum(), 1.0))


def median_frequency_weights(pixels: npt.ArrayLike, image_pixels: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Class weights median(f) / f, f the class's share of the pixels of those images that contain it.

    Source: D. Eigen, R. Fergus, "Predicting depth, surface normals and semantic labels with a common multi-scale
    convolutional architecture", ICCV 2015. A class that does not occur gets 0 and is left out of the median.

    Args:
        pixels: (K,) pixel counts, ignored pixels left out.
        image_pixels: (K,) counted pixels of all images that contain the class.
    """
    counts = np.asarray(pixels, np.float64)
    frequency = counts / np.maximum(np.asarray(image_pixels, np.float64), 1.0)
    present = counts > 0
    weights = np.zeros_like(frequency)
    if present.any():
        weights[present] = np.median(frequency[present]) / frequency[present]
    return weights


class _Sums(NamedTuple):
    """What one pair adds to the statistics."""

    size: str
    ids: npt.NDArray[np.int64] | None  # (256,) pixels of each id
    grey: tuple[tuple[float, float, int], tuple[float, float, int]]  # sum, sum of squares, pixels: visible, infrared


def dataset_stats(
    root: str | Path,
    dataset: str = "folder",
    split: str | None = None,
    *,
    value_range: tuple[float, float] | None = None,
    workers: int | None = None,
    on_start: Callable[[int], None] | None = None,
    on_pair: Progress | None = None,
) -> Stats:
    """Count classes, sizes and brightness of a data set; pixels with an ignored id are left out of all class figures.

    Arguments and errors are those of `check_dataset`.
    """
    info = dataset_info(dataset)
    pairs, problems = scan_pairs(root, dataset, split)
    if on_start is not None:
        on_start(len(pairs))

    def sums(paths: PairPaths) -> _Sums | Problem:
        try:
            pair = read_pair(paths, value_range=value_range, classes=len(info.classes) or None, ignore=info.ignore)
        except InputError as error:
            return Problem("unreadable pair", paths.name, str(error))
        ids = None if pair.label is None else np.bincount(pair.label.ravel(), minlength=256)
        luminance = pair.visible @ np.array(LUMA, np.float32)  # (H, W, 3) -> (H, W)
        height, width = pair.infrared.shape
        return _Sums(f"{width}x{height}", ids, (_moments(luminance), _moments(pair.infrared)))

    results = _each(sums, pairs, workers, on_pair)
    read = [result for result in results if isinstance(result, _Sums)]
    problems = [*problems, *(result for result in results if isinstance(result, Problem))]
    if not read:
        raise InputError(f"no pair of '{root}' can be read: {problems[0].message}")

    table = np.array([result.ids for result in read if result.ids is not None]).reshape(-1, 256)  # (labelled, 256)
    used = np.flatnonzero(table[:, :IGNORE].sum(axis=0))
    count = len(info.classes) or (int(used[-1]) + 1 if used.size else 0)
    names = info.classes or tuple(f"id {i}" for i in range(count))
    per_image = table[:, :count]
    pixels = per_image.sum(axis=0)
    image_pixels = ((per_image > 0) * per_image.sum(axis=1, keepdims=True)).sum(axis=0)
    columns = zip(
        names,
        pixels.tolist(),
        (pixels / max(pixels.sum(), 1)).tolist(),
        (per_image > 0).sum(axis=0).tolist(),
        enet_weights(pixels).tolist(),
        median_frequency_weights(pixels, image_pixels).tolist(),
        strict=True,
    )
    visible, infrared = (_brightness([result.grey[i] for result in read]) for i in (0, 1))
    return Stats(
        root=Path(root),
        dataset=dataset,
        pairs=len(read),
        labelled=len(table),
        classes=[ClassCount(*column) for column in columns] if len(table) else [],
        ignored=float(table[:, IGNORE].sum() / max(table.sum(), 1)),
        sizes=dict(Counter(result.size for result in read).most_common()),
        visible=visible,
        infrared=infrared,
        problems=sorted(problems),
    )


def _moments(image: npt.NDArray[np.float32]) -> tuple[float, float, int]:
    values = image.astype(np.float64)
    return float(values.sum()), float(np.square(values).sum()), values.size


def _brightness(images: Sequence[tuple[float, float, int]]) -> Brightness:
    total, squares, pixels = (sum(column) for column in zip(*images, strict=True))
    mean = total / pixels
    means = [one / count for one, _, count in images]
    return Brightness(mean, float(np.sqrt(max(squares / pixels - mean * mean, 0.0))), min(means), max(means))


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


def _to_bytes(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.rint(image * 255).astype(np.uint8)


def _save(array: npt.NDArray[np.uint8], path: Path) -> Path:
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
    convert: Callable[[_In], Conversion], names: Mapping[_In, str], workers: int | None, on_pair: Progress | None
) -> Conversion:
    def attempt(item: _In) -> Conversion:
        try:
            return convert(item)
        except (InputError, OSError) as error:  # OSError: a full disk, say
            return Conversion([], 0, [Problem("not converted", names[item], str(error))])

    results = _each(attempt, list(names), workers, on_pair)
    return Conversion(
        [path for result in results for path in result.written],
        sum(result.changed for result in results),
        [problem for result in results for problem in result.problems],
    )


def _each(
    function: Callable[[_In], _Out], items: Sequence[_In], workers: int | None, on_item: Progress | None
) -> list[_Out]:
    """Apply `function` to every item in threads; results in the order of the items."""
    results = []
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for result in pool.map(function, items):
            results.append(result)
            if on_item is not None:
                on_item()
    return results
