"""A training in one folder: the pairs of a config, its starting weights, and a config that finds them there.

For machines that are rented or lent, to which the data sets are not to be copied as they are.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from tectum.data.datasets import dataset_info
from tectum.data.pair import PairPaths, read_pair
from tectum.files import atomic_path, write_text
from tectum.predict.colour import to_bytes
from tectum.recipes.loop import Settings
from tectum.recipes.pairs import source_table

CONFIG = "train.yaml"

_WEIGHTS = (("model", "weights"), ("model", "backbone_weights"), ("self_training", "model"), ("teacher", "model"))


def pack(
    config: Settings,
    folder: Path,
    *,
    quality: int = 95,
    on_start: Callable[[int], None] = lambda _: None,
    on_pair: Callable[[], None] = lambda: None,
) -> list[PairPaths]:
    """Write the pairs of a training to FOLDER/NUMBER/{vi,ir,label,boxes}, and FOLDER/train.yaml, to be run in FOLDER.

    Names and splits stay, and with them which pairs are held out. Images become JPEGs of 8 bits, labels PNGs.

    Args:
        config: checked config of a recipe.
        folder: made if absent; files of the same name are replaced.
        quality: of the JPEGs, up to 100.
        on_start: called with the number of pairs.
        on_pair: called for each that is done with.

    Returns:
        The pairs that were packed, as they lie in their data sets.

    Raises:
        InputError: a pair cannot be read.
    """
    content = config.model_dump(mode="json")
    classes = len(dataset_info(config.data.classes_of).classes)
    listed: list[tuple[dict[str, Any], list[PairPaths]]] = []
    for key in ("train", "validation"):
        for source, dumped in zip(getattr(config.data, key), content["data"][key], strict=True):
            listed.append((dumped, source_table(source)))
    on_start(sum(len(table) for _, table in listed))
    for number, (dumped, table) in enumerate(listed):
        for paths in table:
            _write(paths, folder / str(number) / (paths.split or ""), classes, quality)
            on_pair()
        dumped["root"] = str(number)
    _take_along(content, folder)
    write_text(folder / CONFIG, yaml.safe_dump(content, sort_keys=False))
    return [paths for _, table in listed for paths in table]


def _write(paths: PairPaths, folder: Path, classes: int, quality: int) -> None:
    pair = read_pair(paths, classes=classes)
    for kind, image in (("vi", pair.visible), ("ir", pair.infrared)):
        with atomic_path(folder / kind / f"{paths.name}.jpg") as temporary:
            Image.fromarray(to_bytes(image)).save(temporary, format="JPEG", quality=quality, subsampling=0)
    if pair.label is not None:
        with atomic_path(folder / "label" / f"{paths.name}.png") as temporary:
            Image.fromarray(pair.label).save(temporary, format="PNG")
    if paths.boxes is not None:
        write_text(folder / "boxes" / f"{paths.name}.txt", paths.boxes.read_text(encoding="utf-8"))


def _take_along(content: dict[str, Any], folder: Path) -> None:
    """Copy the weights that the config names by a path; shipped ones are there wherever tectum is."""
    places = [(content.get(section) or {}, key) for section, key in _WEIGHTS] + [(content, "pretrained")]
    for number, (section, key) in enumerate(places):
        path = Path(section.get(key) or "")
        name = f"weights{number}"
        if section.get(key) and path.is_dir():
            shutil.copytree(path, folder / name, dirs_exist_ok=True)
            section[key] = name
        elif path.is_file():
            shutil.copyfile(path, folder / name)
            section[key] = name
