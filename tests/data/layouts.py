"""Tiny copies of the layouts in which the data sets are really distributed: folders, names and modes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Size = tuple[int, int]
Names = dict[str, list[str]]

SIZE: Size = (12, 16)
"""(height, width) where nothing else is asked for."""


def visible(seed: int, size: Size = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def infrared(seed: int, size: Size = SIZE) -> np.ndarray:
    return np.random.default_rng(1000 + seed).integers(0, 256, size, dtype=np.uint8)


def label(seed: int, classes: int, size: Size = SIZE) -> np.ndarray:
    return np.random.default_rng(2000 + seed).integers(0, classes, size, dtype=np.uint8)


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _folders(
    root: Path,
    names: Names,
    form: str,
    folders: tuple[str, str, str | None],
    classes: int,
    size: Size = SIZE,
    *,
    suffix: str = ".png",
    grey_rgb: bool = False,
) -> None:
    seed = 0
    for split, members in names.items():
        for name in members:
            seed += 1
            heat = infrared(seed, size)
            arrays = (
                visible(seed, size),
                np.repeat(heat[..., None], 3, axis=2) if grey_rgb else heat,
                label(seed, classes, size),
            )
            for folder, array in zip(folders, arrays, strict=True):
                if folder is not None:
                    save(array, root / form.format(split=split, folder=folder) / f"{name}{suffix}")


MSRS_NAMES: Names = {"train": ["00001D", "00003N"], "test": ["00004N"]}
MFNET_NAMES: Names = {"train": ["00001D", "00003N"], "val": ["00006N"], "test": ["00004N"]}
FMB_NAMES: Names = {"train": ["00001", "00002"], "test": ["01221"]}
PST900_NAMES: Names = {
    "train": ["31_bag1a_rect_rgb_frame0000000007"],
    "test": ["62_bag25_rect_rgb_frame0000001571"],
}


def msrs(root: Path, names: Names = MSRS_NAMES, size: Size = SIZE) -> None:
    _folders(root, names, "{split}/{folder}", ("vi", "ir", "Segmentation_labels"), 9, size)
    for split, members in names.items():
        for name in members:
            boxes = root / split / "boxes" / f"{name}.txt"
            boxes.parent.mkdir(exist_ok=True)
            boxes.write_text("0 0.5 0.5 0.1 0.2\n")
    # The repository's third folder: detection pairs with another numbering, which belong to no split.
    save(visible(90, size), root / "detection/vi/1.png")
    save(infrared(90, size), root / "detection/ir/1.png")


def msrs_virmfs(root: Path) -> None:
    _folders(root, MSRS_NAMES, "{folder}/{split}", ("vi", "ir", "label"), 9)


def msrs_mafs(root: Path) -> None:
    _folders(root, MSRS_NAMES, "{split}/{folder}", ("vi", "ir", "label"), 9)
    for name in MSRS_NAMES["train"]:
        for folder in ("bi", "bd", "mask"):
            save(infrared(7), root / "train" / folder / f"{name}.png")


def msrs_flat(root: Path) -> None:
    _folders(root, {"": ["00001D", "00003N"]}, "{folder}", ("vi", "ir", "label"), 9)


def _members(names: Names) -> list[str]:
    return sorted(name for members in names.values() for name in members)


def _mfnet_lists(root: Path, names: Names) -> None:
    # train.txt as the flip script leaves it; no newline at the end, as in the download.
    (root / "train.txt").write_text("\n".join(f"{name}\n{name}_flip" for name in names["train"]))
    (root / "val.txt").write_text("".join(f"{name}\n" for name in names["val"]))
    (root / "test.txt").write_text("".join(f"{name}\n" for name in names["test"]))
    (root / "test_night.txt").write_text("".join(f"{name}\n" for name in names["test"] if name.endswith("N")))


def mfnet(root: Path, names: Names = MFNET_NAMES, size: Size = SIZE) -> None:
    for seed, name in enumerate([*_members(names), *(f"{name}_flip" for name in names["train"])]):
        save(np.dstack([visible(seed, size), infrared(seed, size)]), root / f"images/{name}.png")
        save(label(seed, 9, size), root / f"labels/{name}.png")
    _mfnet_lists(root, names)


def mfnet_separated(root: Path) -> None:
    _folders(root, {"": _members(MFNET_NAMES)}, "{folder}", ("RGB", "Thermal", "Label"), 9)
    for split, members in MFNET_NAMES.items():
        (root / f"{split}.txt").write_text("".join(f"RGB/{name}.png Label/{name}.png\n" for name in members))


def mfnet_suffixed(root: Path) -> None:
    for seed, name in enumerate(_members(MFNET_NAMES)):
        save(visible(seed), root / f"seperated_images/{name}_rgb.png")
        save(infrared(seed), root / f"seperated_images/{name}_th.png")
        save(label(seed, 9), root / f"labels/{name}.png")
    _mfnet_lists(root, MFNET_NAMES)


def fmb(root: Path, names: Names = FMB_NAMES, size: Size = SIZE) -> None:
    _folders(root, names, "{split}/{folder}", ("Visible", "Infrared", "Label"), 15, size, grey_rgb=True)
    for split, members in names.items():
        for name in members:
            save(visible(50, size), root / split / "color" / f"{name}.png")


def fmb_virmfs(root: Path) -> None:
    _folders(root, FMB_NAMES, "{folder}/{split}", ("vi", "ir", "label"), 15, grey_rgb=True)


def pst900(root: Path, names: Names = PST900_NAMES, size: Size = SIZE) -> None:
    _folders(root, names, "{split}/{folder}", ("rgb", "thermal", "labels"), 5, size)
    for split, members in names.items():
        for name in members:
            for folder in ("thermal_raw", "depth"):
                save(infrared(3, size).astype(np.uint16) + 22000, root / split / folder / f"{name}.png")


def llvip(root: Path) -> None:
    names = {"train": ["010001"], "test": ["190001"]}
    _folders(root, names, "{folder}/{split}", ("visible", "infrared", None), 1, suffix=".jpg", grey_rgb=True)


def tno(root: Path) -> None:
    for seed in range(2):
        save(infrared(40 + seed), root / f"VIS0{seed}.bmp")
        save(infrared(seed), root / f"IR0{seed}.bmp")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    write.__name__: write
    for write in (
        msrs,
        msrs_virmfs,
        msrs_mafs,
        msrs_flat,
        mfnet,
        mfnet_separated,
        mfnet_suffixed,
        fmb,
        fmb_virmfs,
        pst900,
        llvip,
        tno,
    )
}
