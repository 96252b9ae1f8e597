"""Links a share of a folder's pairs apart from the rest: python benchmarks/held_out.py FOLDER OUT.

FOLDER holds vi, ir and Segmentation_labels. Pairs that have a label map go to OUT/held or OUT/train, by the hash of
their names by which `data.holdout` chooses: a pair stays on its side whatever else comes or goes. Pairs without a label
map go nowhere. Several folders may be joined in one OUT.
"""

import argparse
from pathlib import Path

from tectum.data.datasets import pair_table
from tectum.recipes.pairs import hash_fraction

SUBFOLDERS = ("vi", "ir", "Segmentation_labels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.2, help="of the pairs, that is held out")
    arguments = parser.parse_args()
    for pair in pair_table(arguments.folder, "folder", None):
        if pair.label is None:
            continue
        side = "held" if hash_fraction(pair.name) < arguments.share else "train"
        for subfolder, path in zip(SUBFOLDERS, (pair.visible, pair.infrared, pair.label), strict=True):
            link = arguments.out / side / subfolder / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())


if __name__ == "__main__":
    main()
