"""Looking a data set over before work is put into it: what is wrong with it.

Missing twins, unequal sizes, unreadable files, wrong modes, unknown ids, empty labels, duplicates. A bad file does not
stop it, and is reported at the end.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tectum.data.datasets import Problem, dataset_info, scan_pairs
from tectum.data.pair import (
    InputWarning,
    PairPaths,
    read_infrared,
    read_label,
    read_visible,
    require_same_size,
    unknown_ids_message,
)
from tectum.data.parallel import Out, Progress, each
from tectum.errors import InputError


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
        looks = each(look, pairs, workers, on_pair)
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

    def attempt(role: str, path: Path, read: Callable[[], Out]) -> Out | None:
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
