"""From what a user points at (files, folders, globs, list files) to a table of pairs. Reads no pixels.

- a file: one image;
- a folder: the images directly in it, not those of its subfolders;
- a glob (`scenes/*/vi/*.png`; `**` crosses folders): quote it, so that the shell leaves it alone;
- a list file (`.txt`): one path per line, relative to the list file; empty lines and lines with # at the start are
  skipped.

Two list files, or two single images, are paired in their order. Everything else is paired by file name, as
`tectum.data.datasets.match_pairs` does; where names repeat, as they do in `a/vi/1.png` and `b/vi/1.png`, within the
folders that lie nearest to each other.
"""

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tectum.data.datasets import IMAGE_SUFFIXES, Matches, list_images, match_pairs
from tectum.data.pair import PairPaths
from tectum.errors import InputError

_GLOB_CHARACTERS = "*?["


def find_pairs(visible: str | Path, infrared: str | Path) -> Matches:
    """Pairs of two sources, and the files that have no twin.

    Args:
        visible: file, folder, glob or list file.
        infrared: the same.

    Returns:
        The pairs with unique names (see `unique_names`), and one problem per file without a twin or with several.
        Beside a choice of files (one image, a glob, a list), a folder is where their twins are looked up, and what else
        lies in it is no problem.

    Raises:
        InputError: a source does not exist, holds no images, or two list files differ in length.
    """
    sources = (Path(visible), Path(infrared))
    visible_files, infrared_files = source_images(visible), source_images(infrared)
    if all(map(_is_list, sources)) or all(map(_is_image, sources)):
        if len(visible_files) != len(infrared_files):
            raise InputError(
                f"list files are paired line by line, but '{visible}' names {len(visible_files)} images and "
                f"'{infrared}' {len(infrared_files)}; make them equal"
            )
        both = zip(visible_files, infrared_files, strict=True)
        found = Matches([PairPaths(first.stem, first, second) for first, second in both], [])
    else:
        found = _match(visible_files, infrared_files)
    pairs, problems = found
    folders = [source.is_dir() for source in sources]
    if any(folders) and not all(folders):
        chosen = {file.stem for file in (infrared_files if folders[0] else visible_files)}
        problems = [problem for problem in problems if problem.kind != "missing twin" or problem.name in chosen]
    names = unique_names([pair.visible for pair in pairs])
    return Matches([replace(pair, name=name) for pair, name in zip(pairs, names, strict=True)], problems)


def source_images(source: str | Path) -> list[Path]:
    """The image files of one source, sorted; those of a list file in its own order and not checked to exist.

    Raises:
        InputError: the source does not exist or names no images.
    """
    path = Path(source)
    if path.is_dir():
        files = list_images(path)
        if not files:
            raise InputError(
                f"folder '{source}' holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); its subfolders are not "
                f"searched, name one of them or use a glob such as '{source}/*/*.png'"
            )
        return files
    if path.is_file():
        return _read_list(path) if _is_list(path) else [path]
    if any(character in str(source) for character in _GLOB_CHARACTERS):
        files = sorted(file for file in map(Path, glob.glob(str(source), recursive=True)) if _is_image(file))
        if not files:
            raise InputError(f"no image matches '{source}'; check the pattern and quote it")
        return files
    raise InputError(f"'{source}' does not exist; give an image, a folder, a quoted glob or a .txt list of paths")


def unique_names(files: Sequence[Path]) -> list[str]:
    """A distinct name for each file: its name without suffix and, only where that clashes, as much more as is needed.

    That is as many parent folders as tell the clashing files apart (`a/1.png`, `b/1.png`: `a_1`, `b_1`), else the
    suffix (`1_png`, `1_jpg`), else a count (the same file twice: `1`, `1-2`). Names that differ in case alone clash,
    since some file systems do not tell them apart.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        groups[file.stem.casefold()].append(index)
    names = [file.stem for file in files]
    for group in groups.values():
        for index, name in zip(group, _distinct([files[index] for index in group]), strict=True):
            names[index] = name
    taken: set[str] = set()
    for index, name in enumerate(names):
        count = 1
        while names[index].casefold() in taken:
            count += 1
            names[index] = f"{name}-{count}"
        taken.add(names[index].casefold())
    return names


def _distinct(files: Sequence[Path]) -> list[str]:
    """The shortest names that differ, of files whose stems are equal; the bare stems when there are none."""
    folders = [[part for part in file.parent.parts if part not in ("..", file.anchor)] for file in files]
    deepest = max(map(len, folders))
    for suffix in (False, True):
        for depth in range(deepest + 1):
            names = [
                "_".join(
                    [*parts[len(parts) - min(depth, len(parts)) :], file.stem, *([file.suffix[1:]] if suffix else [])]
                )
                for parts, file in zip(folders, files, strict=True)
            ]
            if len({name.casefold() for name in names}) == len(names):
                return names
    return [file.stem for file in files]


def _match(visible_files: Sequence[Path], infrared_files: Sequence[Path]) -> Matches:
    sides = (_by_folder(visible_files), _by_folder(infrared_files))
    repeated = any(max(Counter(file.stem for file in files).values()) > 1 for files in (visible_files, infrared_files))
    folders = _nearest_folders(list(sides[0]), list(sides[1])) if repeated else None
    if folders is None:
        return match_pairs(visible_files, infrared_files)
    found = [match_pairs(sides[0][first], sides[1][second]) for first, second in folders]
    return Matches(
        [pair for one in found for pair in one.pairs], [problem for one in found for problem in one.problems]
    )


def _by_folder(files: Sequence[Path]) -> dict[Path, list[Path]]:
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        groups[file.parent].append(file)
    return groups


def _nearest_folders(visible: Sequence[Path], infrared: Sequence[Path]) -> list[tuple[Path, Path]] | None:
    """Each visible folder with the one infrared folder it has most parents in common with; None unless one to one."""
    chosen: list[tuple[Path, Path]] = []
    for folder in visible:
        common = [len(Path(os.path.commonpath([folder.absolute(), other.absolute()])).parts) for other in infrared]
        if common.count(max(common)) > 1:
            return None
        chosen.append((folder, infrared[common.index(max(common))]))
    one_to_one = len({second for _, second in chosen}) == len(visible) == len(infrared)
    return chosen if one_to_one else None


def _read_list(path: Path) -> list[Path]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"list file '{path}' is not UTF-8 text; save it as UTF-8, one path per line") from None
    files = [path.parent / line for line in lines if line and not line.startswith("#")]
    if not files:
        raise InputError(f"list file '{path}' names no images; write one path per line")
    return files


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and not path.is_dir()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
