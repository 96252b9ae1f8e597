"""Tiny copies of the layouts in which the data sets are really distributed: folders, names and modes, at 16x12."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH = 12, 16


def visible(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def infrared(seed: int) -> np.ndarray:
    return np.random.default_rng(1000 + seed).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def label(seed: int, classes: int) -> np.ndarray:
    return np.random.default_rng(2000 + seed).integers(0, classes, (HEIGHT, WIDTH), dtype=np.uint8)


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _folders(
    root: Path,
    names: dict[str, list[str]],
    form: str,
    folders: tuple[str, str, str | None],
    classes: int,
    *,
    suffix: str = ".png",
    grey_rgb: bool = False,
) -> None:
    seed = 0
    for split, members in names.items():
        for name in members:
            seed += 1
            heat = infrared(seed)
            arrays = (
                visible(seed),
                np.repeat(heat[..., None], 3, axis=2) if grey_rgb else heat,
                label(seed, classes),
            )
            for folder, array in zip(folders, arrays, strict=True):
                if folder is not None:
                    save(array, root / form.format(split=split, folder=folder) / f"{name}{suffix}")


MSRS_NAMES = {"train": ["00001D", "00003N"], "test": ["00004N"]}
FMB_NAMES = {"train": ["00001", "00002"], "test": ["01221"]}
PST_NAMES = {"train": ["31_bag1a_rect_rgb_frame0000000007"], "test": ["62_bag25_rect_rgb_frame0000001571"]}


def msrs(root: Path) -> None:
    _folders(root, MSRS_NAMES, "{split}/{folder}", ("vi", "ir", "Segmentation_labels"), 9)
    for split, members in MSRS_NAMES.items():
        for name in members:
            boxes = root / split / "boxes" / f"{name}.txt"
            boxes.parent.mkdir(exist_ok=True)
            boxes.write_text("0 0.5 0.5 0.1 0.2\n")
    # The repository's third folder: detection pairs with another numbering, which belong to no split.
    save(visible(90), root / "detection/vi/1.png")
    save(infrared(90), root / "detection/ir/1.png")


def msrs_virmfs(root: Path) -> None:
    _folders(root, MSRS_NAMES, "{folder}/{split}", ("vi", "ir", "label"), 9)


def msrs_mafs(root: Path) -> None:
    _folders(root, MSRS_NAMES, "{split}/{folder}", ("vi", "ir", "label"), 9)
    for name in MSRS_NAMES["train"]:
        for folder in ("bi", "bd", "mask"):
            save(infrared(7), root / "train" / folder / f"{name}.png")


def msrs_flat(root: Path) -> None:
    _folders(root, {"": ["00001D", "00003N"]}, "{folder}", ("vi", "ir", "label"), 9)


def _mfnet_lists(root: Path) -> None:
    # train.txt as the flip script leaves it; no newline at the end, as in the download.
    (root / "train.txt").write_text("00001D\n00001D_flip\n00003N\n00003N_flip")
    (root / "val.txt").write_text("00006N\n")
    (root / "test.txt").write_text("00004N\n")
    (root / "test_night.txt").write_text("00004N\n")


MFNET_NAMES = ["00001D", "00003N", "00004N", "00006N"]


def mfnet(root: Path) -> None:
    for seed, name in enumerate([*MFNET_NAMES, "00001D_flip", "00003N_flip"]):
        save(np.dstack([visible(seed), infrared(seed)]), root / f"images/{name}.png")
        save(label(seed, 9), root / f"labels/{name}.png")
    _mfnet_lists(root)


def mfnet_separated(root: Path) -> None:
    _folders(root, {"": MFNET_NAMES}, "{folder}", ("RGB", "Thermal", "Label"), 9)
    (root / "train.txt").write_text("RGB/00001D.png Label/00001D.png\nRGB/00003N.png Label/00003N.png\n")
    (root / "val.txt").write_text("RGB/00006N.png Label/00006N.png\n")
    (root / "test.txt").write_text("RGB/00004N.png Label/00004N.png\n")


def mfnet_suffixed(root: Path) -> None:
    for seed, name in enumerate(MFNET_NAMES):
        save(visible(seed), root / f"seperated_images/{name}_rgb.png")
        save(infrared(seed), root / f"seperated_images/{name}_th.png")
        save(label(seed, 9), root / f"labels/{name}.png")
    _mfnet_lists(root)


def fmb(root: Path) -> None:
    _folders(root, FMB_NAMES, "{split}/{folder}", ("Visible", "Infrared", "Label"), 15, grey_rgb=True)
    for split, members in FMB_NAMES.items():
        for name in members:
            save(visible(50), root / split / "color" / f"{name}.png")


def fmb_virmfs(root: Path) -> None:
    _folders(root, FMB_NAMES, "{folder}/{split}", ("vi", "ir", "label"), 15, grey_rgb=True)


def pst900(root: Path) -> None:
    _folders(root, PST_NAMES, "{split}/{folder}", ("rgb", "thermal", "labels"), 5)
    for split, members in PST_NAMES.items():
        for name in members:
            for folder in ("thermal_raw", "depth"):
                save(infrared(3).astype(np.uint16) + 22000, root / split / folder / f"{name}.png")


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


@pytest.fixture
def layout(tmp_path: Path) -> Callable[[str], Path]:
    """Write the layout of that name and return its root."""

    def write(name: str) -> Path:
        root = tmp_path / name
        LAYOUTS[name](root)
        return root

    return write
