"""The data sets of infrared-visible segmentation and fusion: where their files lie and what their ids mean.

`pair_table(root, "msrs", "train")` lists the pairs of a data set as it lies on disk, without reading a pixel. Each data
set is understood in the layouts in which it is distributed and in which the papers' repositories arrange it; names of
folders are compared without regard to case. All label maps are single-channel class ids; 255 means "ignore" everywhere.


MSRS, Multi-Spectral Road Scenarios (`msrs`)
    Reference: L. Tang, J. Yuan, H. Zhang, X. Jiang, J. Ma, "PIAFusion: A progressive infrared and visible image fusion
    network based on illumination aware", Information Fusion 2022. https://github.com/Linfeng-Tang/MSRS
    Licence: none stated; derived from MFNet, so for research only unless its owners say otherwise.
    1083 training and 361 test pairs of 640x480; RGB visible, 8-bit grey infrared::

        MSRS/{train,test}/vi/00001D.png                     D = day, N = night
        MSRS/{train,test}/ir/00001D.png
        MSRS/{train,test}/Segmentation_labels/00001D.png    or label/
        MSRS/{train,test}/boxes/00001D.txt                  optional YOLO boxes: 0 person, 1 bicycle, 2 car

        MSRS/{vi,ir,label}/{train,test}/                    layout of the ViR-MFS repository
        MSRS/{train,test}/{vi,ir,label,bi,bd,mask}/         layout of MAFS and PSFusion (bi, bd, mask: not needed)
        MSRS/{vi,ir}/                                       without splits

    Ids 0..8 as in MFNet. The published scores count id 0, "unlabelled", as a class.
    Quirks: there is no validation split, so validate on a part of `train`, not on `test`. The detection subset
    (`detection/`) has its own numbering and is no third split. The infrared images are MFNet's after a contrast
    enhancement, so the two data sets share scenes and names: never train on one and test on the other.


MFNet, Multi-spectral Semantic Segmentation Dataset (`mfnet`)
    Reference: Q. Ha, K. Watanabe, T. Karasawa, Y. Ushiku, T. Harada, "MFNet: Towards real-time semantic segmentation
    for autonomous vehicles with multi-spectral scenes", IROS 2017.
    https://www.mi.t.u-tokyo.ac.jp/static/projects/mil_multispectral/
    Licence: none stated with the download; research use.
    1569 pairs of 640x480: 784 training, 392 validation, 393 test::

        MFNet/images/00001D.png                             four channels: RGB + thermal ("packed")
        MFNet/labels/00001D.png
        MFNet/{train,val,test}.txt                          one name per line; also test_day.txt, test_night.txt, ...

        MFNet/{RGB,Thermal,Label}/00001D.png + lists        separated (RTFNet's and MRFS's arrangement; also THE, Modal)
        MFNet/seperated_images/00001D_{rgb,th}.png, labels/ + lists
        MFNet/{train,val,test}/{vi,ir,label}/               layout of MAFS and PSFusion
        MFNet/{vi,ir,label}/{train,val,test}/

    Ids 0..8: unlabelled, car, person, bike, curve, car stop, guardrail, colour cone, bump.
    Quirks: an image viewer shows the packed PNGs as half-transparent; `tectum data convert mfnet` separates them.
    Labels look black since their values are 0..8. Names ending in `_flip` in `train.txt` are mirrored copies written by
    a helper script; they are left out here, since mirroring belongs to training. 125 of the pairs are misaligned (that
    is why MSRS exists).


FMB, Full-time Multi-modality Benchmark (`fmb`)
    Reference: J. Liu, Z. Liu, G. Wu, L. Ma, R. Liu, W. Zhong, Z. Luo, X. Fan, "Multi-interactive feature learning and a
    full-time multi-modality benchmark for image fusion and segmentation", ICCV 2023.
    https://github.com/JinyuanLiu-CV/SegMiF
    Licence: none stated; research use.
    1220 training and 280 test pairs of 800x600; the infrared is grey stored as RGB::

        FMB/{train,test}/{Visible,Infrared,Label,color}/00001.png     color: coloured labels, for looking at only
        FMB/{vi,ir,label}/{train,test}/                               layout of the ViR-MFS repository
        FMB/{train,test}/{vi,ir,label}/                               layout of MAFS

    14 or 15 classes? The paper annotates 14 categories, ids 1..14; id 0 is what was left unlabelled (1.84 % of the
    pixels), which makes 15 ids 0..14. Here K is 15 with id 0 named "background". Work that reports 14 classes leaves id
    0 out of loss and score: read the labels with `ignore=(0, 255)` to do the same, and say which was done, for the mean
    IoU differs.
    Quirks: ids 15 and 16 do not exist. They appear when a label map is resized by bicubic interpolation (PIL's default
    for grey images), and "17 classes" in published code come from there; `tectum data convert ids` turns them into 255.
    The test split contains no bicycle, so that a mean over all classes must skip it.


PST900, Penn Subterranean Thermal 900 (`pst900`)
    Reference: S. S. Shivakumar, N. Rodrigues, A. Zhou, I. D. Miller, V. Kumar, C. J. Taylor, "PST900: RGB-thermal
    calibration, dataset and segmentation network", ICRA 2020. https://github.com/ShreyasSkandanS/pst900_thermal_rgb
    Licence: GPL-3.0, as the repository.
    597 training and 288 test pairs of 1280x720::

        PST900_RGBT_Dataset/{train,test}/rgb/31_bag1a_rect_rgb_frame0000000007.png
        PST900_RGBT_Dataset/{train,test}/thermal/                     8 bit, after the camera's gain control (read here)
        PST900_RGBT_Dataset/{train,test}/thermal_raw/                 16 bit raw counts (convert with an explicit range)
        PST900_RGBT_Dataset/{train,test}/depth/
        PST900_RGBT_Dataset/{train,test}/labels/
        PST900/{train,test}/{vi,ir,label}/                            layout of MAFS

    Ids 0..4: background, fire extinguisher, backpack, hand drill, survivor ("rescue randy"), as in the authors' own
    inference code. Papers often print the columns as hand drill, backpack, fire extinguisher: that is the order of
    their table, not of the ids.
    Quirks: the thermal images have holes (zeros) where the cameras' views do not overlap.


Plain folders (`folder`)
    Two folders of images with equal names, no classes: `vi` + `ir`, `visible` + `infrared`, `rgb` + `thermal`, ...,
    with `label`/`labels`/`Segmentation_labels` if there are labels; with or without splits, on either side
    (`train/vi` or `vi/train`). This reads LLVIP (`visible/train`, `infrared/train`), M3FD (`Vis`, `Ir`), RoadScene, TNO
    and VIFB (`VI`, `IR`). Where names differ by a modality mark only (`a_vis.png`/`a_ir.png`, `VIS01.png`/`IR01.png`),
    they are matched when that is unambiguous, even within one folder.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tectum.data.pair import IGNORE, PairPaths
from tectum.errors import ConfigError, InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".jp2"})
"""Suffixes, in lower case, of the files taken for images; others in the same folder are passed over."""

SPLITS = ("train", "val", "test")
"""Splits that are found without being named."""


@dataclass(frozen=True)
class DatasetInfo:
    """What the ids of a data set mean.

    Attributes:
        name: key in `DATASETS`.
        title: full name.
        classes: class names, indexed by id; empty for plain folders.
        palette: one (R, G, B) per class, 0..255.
        ignore: ids in label files that count neither in a loss nor in a score.
        licence: terms as far as they are stated.
        reference: the paper.
        url: where the data come from.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore: tuple[int, ...]
    licence: str
    reference: str
    url: str


class Problem(NamedTuple):
    """Something wrong with one pair of a data set.

    Attributes:
        kind: short and fixed, for counting: `missing twin`, `ambiguous name`, `missing file`, `unequal sizes`, ...
        name: the pair or file concerned.
        message: one sentence that names the file and the fix.
    """

    kind: str
    name: str
    message: str


class Matches(NamedTuple):
    """Pairs that were found, and what could not be paired."""

    pairs: list[PairPaths]
    problems: list[Problem]


# Colours: `visualize.py` of the MSRS repository, where they are RGB. MFNet's own demo uses the same ones.
_MFNET_CLASSES = (
    "unlabelled",
    "car",
    "person",
    "bike",
    "curve",
    "car stop",
    "guardrail",
    "colour cone",
    "bump",
)
_MFNET_PALETTE = (
    (0, 0, 0),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
    (0, 0, 192),
    (128, 128, 0),
    (64, 64, 128),
    (192, 128, 128),
    (192, 64, 0),
)

# Colours: the authors' answer in issue 10 of the SegMiF repository. Other repositories list them with red and blue
# exchanged (read by OpenCV); `tectum data convert colours --bgr` reads those.
_FMB_CLASSES = (
    "background",
    "road",
    "sidewalk",
    "building",
    "traffic light",
    "traffic sign",
    "vegetation",
    "sky",
    "person",
    "car",
    "truck",
    "bus",
    "motorcycle",
    "bicycle",
    "pole",
)
_FMB_PALETTE = (
    (0, 0, 0),
    (179, 228, 228),
    (181, 57, 133),
    (67, 162, 177),
    (200, 178, 50),
    (132, 45, 199),
    (66, 172, 84),
    (179, 73, 79),
    (76, 99, 166),
    (66, 121, 253),
    (137, 165, 91),
    (155, 97, 152),
    (105, 153, 140),
    (222, 215, 158),
    (135, 113, 90),
)

# Colours: `toolkit/utilities.py` of the PST900 repository. It shows them by OpenCV, hence as BGR; here they are RGB.
_PST900_CLASSES = ("background", "fire extinguisher", "backpack", "hand drill", "survivor")
_PST900_PALETTE = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))

DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="msrs",
            title="MSRS, Multi-Spectral Road Scenarios",
            classes=_MFNET_CLASSES,
            palette=_MFNET_PALETTE,
            ignore=(IGNORE,),
            licence="not stated",
            reference="Tang et al., PIAFusion, Information Fusion 2022",
            url="https://github.com/Linfeng-Tang/MSRS",
        ),
        DatasetInfo(
            name="mfnet",
            title="MFNet, Multi-spectral Semantic Segmentation Dataset",
            classes=_MFNET_CLASSES,
            palette=_MFNET_PALETTE,
            ignore=(IGNORE,),
            licence="not stated",
            reference="Ha et al., MFNet, IROS 2017",
            url="https://www.mi.t.u-tokyo.ac.jp/static/projects/mil_multispectral/",
        ),
        DatasetInfo(
            name="fmb",
            title="FMB, Full-time Multi-modality Benchmark",
            classes=_FMB_CLASSES,
            palette=_FMB_PALETTE,
            ignore=(IGNORE,),
            licence="not stated",
            reference="Liu et al., SegMiF, ICCV 2023",
            url="https://github.com/JinyuanLiu-CV/SegMiF",
        ),
        DatasetInfo(
            name="pst900",
            title="PST900, Penn Subterranean Thermal 900",
            classes=_PST900_CLASSES,
            palette=_PST900_PALETTE,
            ignore=(IGNORE,),
            licence="GPL-3.0",
            reference="Shivakumar et al., PST900, ICRA 2020",
            url="https://github.com/ShreyasSkandanS/pst900_thermal_rgb",
        ),
        DatasetInfo(
            name="folder",
            title="two folders of images with equal names",
            classes=(),
            palette=(),
            ignore=(IGNORE,),
            licence="the owner's",
            reference="",
            url="",
        ),
    )
}


@dataclass(frozen=True)
class _Layout:
    """Folders of one arrangement.

    Each of `visible`, `infrared`, `label` and `boxes` lists alternative folder names, of which the first that exists is
    taken; `form` says where such a folder lies below the root. With `lists`, the names of a split are in
    `ROOT/SPLIT.txt`.
    """

    visible: tuple[str, ...]
    infrared: tuple[str, ...]
    label: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()
    form: str = "{folder}"
    lists: bool = False
    packed: bool = False

    @property
    def split_folders(self) -> bool:
        return "{split}" in self.form

    def folder(self, root: Path, names: Sequence[str], split: str | None) -> Path | None:
        for name in names:
            if found := _child(root, self.form.format(folder=name, split=split)):
                return found
        return None

    def fits(self, root: Path, split: str | None = None) -> bool:
        return all(self.folder(root, names, split) is not None for names in (self.visible, self.infrared))

    def __str__(self) -> str:
        visible, infrared = (
            self.form.format(folder="|".join(names), split="SPLIT") for names in (self.visible, self.infrared)
        )
        text = f"{visible}/ (four channels)" if self.packed else f"{visible}/ + {infrared}/"
        return text + (" with SPLIT.txt" if self.lists else "")


def _arrangements(
    visible: tuple[str, ...], infrared: tuple[str, ...], label: tuple[str, ...], boxes: tuple[str, ...] = ()
) -> tuple[_Layout, ...]:
    """Build the three usual arrangements of the same folders."""
    forms = ("{split}/{folder}", "{folder}/{split}", "{folder}")
    return tuple(_Layout(visible, infrared, label, boxes, form) for form in forms)


_LABELS = ("Segmentation_labels", "label", "labels")
_BOTH_IN_ONE = ("seperated_images", "separated_images")  # the first spelling is the one in circulation
_LAYOUTS: dict[str, tuple[_Layout, ...]] = {
    "msrs": _arrangements(("vi",), ("ir",), ("Segmentation_labels", "label"), ("boxes", "labels")),
    "mfnet": (
        _Layout(("images",), ("images",), ("labels",), lists=True, packed=True),
        _Layout(("RGB",), ("Thermal", "THE", "Modal", "ModalX"), ("Label", "labels"), lists=True),
        _Layout(_BOTH_IN_ONE, _BOTH_IN_ONE, ("labels",), lists=True),
        *_arrangements(("vi",), ("ir",), _LABELS),
    ),
    "fmb": (
        *_arrangements(("Visible",), ("Infrared",), ("Label",)),
        *_arrangements(("vi",), ("ir",), ("label", "labels")),
    ),
    "pst900": (
        *_arrangements(("rgb",), ("thermal",), ("labels", "label")),
        *_arrangements(("vi",), ("ir",), ("label", "labels")),
    ),
    "folder": _arrangements(
        ("vi", "vis", "visible", "rgb", "color"),
        ("ir", "inf", "infrared", "thermal", "lwir"),
        (*_LABELS, "masks"),
        ("boxes",),
    ),
}

# Marks by which two files of one pair differ in their names: after a separator or digit at the end (`a_vis`, `01ir`),
# or before a separator or digit at the start (`VIS01`, `ir_a`).
_MARKS = {
    "visible": r"visible|vis|vi|rgb|color|colour",
    "infrared": r"infrared|inf|ir|thermal|th|lwir",
}


def dataset_info(name: str) -> DatasetInfo:
    """Return what is known of a data set.

    Raises:
        ConfigError: there is no such data set; the message lists those there are.
    """
    try:
        return DATASETS[name]
    except KeyError:
        raise ConfigError(f"unknown data set '{name}'; known are {', '.join(DATASETS)}") from None


def list_images(folder: str | Path) -> list[Path]:
    """Image files of a folder (not of its subfolders), sorted by name; hidden files are passed over.

    Raises:
        InputError: the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def pair_table(root: str | Path, dataset: str = "folder", split: str | None = None) -> list[PairPaths]:
    """List the pairs of a data set, sorted by name, without reading any pixel.

    Args:
        root: folder of the data set, in one of the layouts of the module's description.
        dataset: a key of `DATASETS`.
        split: name of a split; None takes all of train, val and test that exist.

    Raises:
        InputError: no known layout fits, or a pair lacks one of its images (the message names them). `scan_pairs`
            returns such problems instead.
        ConfigError: unknown data set or split.
    """
    pairs, problems = scan_pairs(root, dataset, split)
    if problems:
        shown = "; ".join(problem.message for problem in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"{len(problems)} files of '{root}' cannot be paired: {shown}{more}")
    return pairs


def scan_pairs(root: str | Path, dataset: str = "folder", split: str | None = None) -> Matches:
    """List the pairs of a data set as `pair_table` does, and the files that cannot be paired, so that work goes on.

    Raises:
        InputError: no known layout fits, or there is no pair at all.
        ConfigError: unknown data set or split.
    """
    root = Path(root)
    dataset_info(dataset)
    if not root.is_dir():
        raise InputError(f"'{root}' is not a folder; give the root folder of the data set")
    layout = _find_layout(root, dataset, split)
    pairs: list[PairPaths] = []
    problems: list[Problem] = []
    if layout is not None:
        for one in _splits_of(root, layout, split):
            found = _scan_split(root, layout, one)
            pairs += found.pairs
            problems += found.problems
    elif dataset == "folder" and split is None and (found := _match_within(root)).pairs:
        pairs, problems = found
    else:
        raise InputError(_no_layout_message(root, dataset))
    if not pairs:
        detail = f": {problems[0].message}" if problems else ""
        raise InputError(f"'{root}' holds no pair of the data set '{dataset}'{detail}")
    return Matches(sorted(pairs, key=lambda pair: (pair.name, pair.split or "")), problems)


def match_pairs(
    visible_files: Iterable[str | Path],
    infrared_files: Iterable[str | Path],
    label_files: Iterable[str | Path] = (),
) -> Matches:
    """Find the twins among visible and infrared files.

    Equal stems belong together, whatever their suffixes (`a.jpg`, `a.PNG`). Files left over are compared once more
    without a modality mark (`a_vis.png` and `a_ir.png`, `VIS01.png` and `IR01.png`), and matched if that is
    unambiguous.

    Returns:
        The pairs, sorted by name (the visible file's stem), and one problem per file without a twin or with several.
        A pair without a label file has label None, which is no problem.
    """
    problems: list[Problem] = []
    visible = _by_stem(visible_files, "visible", problems)
    infrared = _by_stem(infrared_files, "infrared", problems)
    # A name that occurs twice on one side has been reported; its twin on the other side is not missing one.
    repeated = {problem.name for problem in problems}
    labels = _by_stem(label_files, "label", problems)

    twins = {stem: stem for stem in visible if stem in infrared}
    bare_visible = _by_bare_name((stem for stem in visible if stem not in infrared), "visible")
    bare_infrared = _by_bare_name((stem for stem in infrared if stem not in visible), "infrared")
    for bare in sorted(bare_visible.keys() | bare_infrared.keys()):
        stems, others = bare_visible.get(bare, []), bare_infrared.get(bare, [])
        if len(stems) == len(others) == 1:
            twins[stems[0]] = others[0]
        elif stems and others:
            names = ", ".join(f"'{path}'" for path in [*(visible[s] for s in stems), *(infrared[s] for s in others)])
            problems.append(
                Problem("ambiguous name", bare, f"cannot tell which of {names} belong together; rename them")
            )
        else:
            for stem, file, other in [
                *((stem, visible[stem], "infrared") for stem in stems),
                *((stem, infrared[stem], "visible") for stem in others),
            ]:
                if stem in repeated:
                    continue
                fix = f"add one named '{stem}' or take the file away"
                problems.append(Problem("missing twin", stem, f"'{file}' has no {other} twin; {fix}"))

    pairs = []
    for stem, other_stem in twins.items():
        candidates = (stem, other_stem, _bare_name(stem, "visible"))
        label = next((labels[name] for name in candidates if name in labels), None)
        pairs.append(PairPaths(stem, visible[stem], infrared[other_stem], label))
    return Matches(sorted(pairs, key=lambda pair: pair.name), problems)


def _by_stem(files: Iterable[str | Path], role: str, problems: list[Problem]) -> dict[str, Path]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in map(Path, files):
        groups[file.stem].append(file)
    for stem, paths in groups.items():
        if len(paths) > 1:
            names = ", ".join(f"'{path}'" for path in paths)
            problems.append(
                Problem("ambiguous name", stem, f"{len(paths)} {role} files are named '{stem}': {names}; keep one")
            )
    return {stem: paths[0] for stem, paths in groups.items() if len(paths) == 1}


def _bare_name(stem: str, modality: str) -> str | None:
    """Stem without its modality mark; None when it has none."""
    marks = _MARKS[modality]
    for pattern in (rf"^(.*?)(?:[ _.-]+|(?<=\d))(?:{marks})$", rf"^(?:{marks})(?:[ _.-]+|(?=\d))(.+)$"):
        if match := re.match(pattern, stem, re.IGNORECASE):
            return match[1]
    return None


def _by_bare_name(stems: Iterable[str], modality: str) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for stem in stems:
        # A file without a mark may still be the twin of one with a mark: a.png and a_ir.png.
        groups[(_bare_name(stem, modality) or stem).lower()].append(stem)
    return dict(groups)


def _match_within(folder: Path, labels: Sequence[Path] = ()) -> Matches:
    """Pairs of a folder that holds both modalities, told apart by the marks in their names."""
    files = list_images(folder)
    visible = [path for path in files if _bare_name(path.stem, "visible") is not None]
    infrared = [path for path in files if _bare_name(path.stem, "infrared") is not None]
    return match_pairs(visible, infrared, labels)


def _child(folder: Path, relative: str) -> Path | None:
    """Subfolder by its path, compared without regard to case; None when there is none."""
    for part in relative.split("/"):
        exact = folder / part
        if exact.is_dir():
            folder = exact
            continue
        same = [path for path in folder.iterdir() if path.name.lower() == part.lower() and path.is_dir()]
        if len(same) != 1:
            return None
        folder = same[0]
    return folder


def _find_layout(root: Path, dataset: str, split: str | None) -> _Layout | None:
    for layout in _LAYOUTS[dataset]:
        # A layout with the usual splits but not the one asked for still fits: the message then names those there are.
        splits = (split, *SPLITS) if layout.split_folders else (None,)
        if any(layout.fits(root, one) for one in splits if one or not layout.split_folders):
            return layout
    return None


def _splits_of(root: Path, layout: _Layout, split: str | None) -> list[str | None]:
    """Return the splits to read; None stands for the whole of a data set without splits."""
    if layout.split_folders:
        known = [one for one in dict.fromkeys((*SPLITS, split)) if one and layout.fits(root, one)]
    elif layout.lists:
        known = sorted(path.stem for path in root.glob("*.txt"))
    else:
        known = []
    if split is None:
        return [one for one in SPLITS if one in known] or [None]
    if split not in known:
        have = f"its splits: {', '.join(known)}" if known else "it has no splits, so leave the split out"
        raise ConfigError(f"'{root}' has no split '{split}'; {have}")
    return [split]


def _scan_split(root: Path, layout: _Layout, split: str | None) -> Matches:
    visible_folder = layout.folder(root, layout.visible, split)
    infrared_folder = layout.folder(root, layout.infrared, split)
    assert visible_folder is not None  # the layout fits
    assert infrared_folder is not None
    label_folder = layout.folder(root, layout.label, split)
    labels = list_images(label_folder) if label_folder else []
    boxes = _box_files(root, layout, split)

    if layout.packed:
        problems: list[Problem] = []
        files = _by_stem(list_images(visible_folder), "image", problems)
        label_of = _by_stem(labels, "label", problems)
        pairs = [PairPaths(stem, file, file, label_of.get(stem), packed=True) for stem, file in files.items()]
    elif visible_folder == infrared_folder:
        pairs, problems = _match_within(visible_folder, labels)
        # Lists and labels go by the name without the mark.
        pairs = [replace(pair, name=_bare_name(pair.name, "visible") or pair.name) for pair in pairs]
    else:
        pairs, problems = match_pairs(list_images(visible_folder), list_images(infrared_folder), labels)

    pairs = [replace(pair, split=split, boxes=boxes.get(pair.name)) for pair in pairs]
    if layout.lists and split is not None:
        pairs, problems = _only_listed(root / f"{split}.txt", pairs, problems)
    return Matches(pairs, problems)


def _box_files(root: Path, layout: _Layout, split: str | None) -> dict[str, Path]:
    folder = layout.folder(root, layout.boxes, split)
    return {path.stem: path for path in folder.glob("*.txt")} if folder else {}


def _only_listed(file: Path, pairs: list[PairPaths], problems: list[Problem]) -> Matches:
    """Keep what a list file names; what it names in vain becomes a problem."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{file}' cannot be read as a list of names ({error})") from None
    # Some repositories write paths, or the paths of image and label side by side: the first one's stem is the name.
    names = [Path(line.split()[0].replace("\\", "/")).stem for line in lines if line.strip()]
    listed = {name for name in names if not name.endswith("_flip")}
    known = {pair.name for pair in pairs}
    troubled = {problem.name for problem in problems}
    lost = [
        Problem("missing file", name, f"'{file}' lists '{name}', but there is no such pair; remove the line or add it")
        for name in sorted(listed - known - troubled)
    ]
    return Matches(
        [pair for pair in pairs if pair.name in listed],
        [problem for problem in problems if problem.name in listed] + lost,
    )


def _no_layout_message(root: Path, dataset: str) -> str:
    entries = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir() if path.name[0] != ".")
    found = ", ".join(entries[:8]) + (", ..." if len(entries) > 8 else "") if entries else "nothing"
    wanted = ", or ".join(str(layout) for layout in _LAYOUTS[dataset])
    message = (
        f"'{root}' is not laid out as the data set '{dataset}': looked for {wanted} (SPLIT: {', '.join(SPLITS)}); "
        f"found {found}"
    )
    inside = [path for path in sorted(root.iterdir()) if path.is_dir() and _find_layout(path, dataset, None)]
    if inside:
        return f"{message}. Did you mean '{inside[0]}'?"
    others = [name for name in DATASETS if name != dataset and _find_layout(root, name, None)]
    if others:
        return f"{message}. It can be read as {' or '.join(repr(name) for name in others)}"
    return message
