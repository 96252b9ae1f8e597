"""Pairs as inputs of a network, for the check of a file and the calibration of INT8."""

from collections.abc import Iterator, Sequence

import numpy as np

from tectum.arrays import Float
from tectum.data.pair import Pair, PairPaths, read_pair

_CROP = (480, 640)


class Samples:
    """Pairs as inputs {"visible": (1, 3, H, W), "infrared": (1, 1, H, W)}, read anew in each iteration."""

    def __init__(self, table: Sequence[PairPaths], stride: int) -> None:
        self.table, self.stride = table, stride

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[dict[str, Float]]:
        for paths in self.table:
            visible, infrared = inputs(read_pair(paths), self.stride)
            yield {"visible": visible, "infrared": infrared}


def inputs(pair: Pair, stride: int) -> tuple[Float, Float]:
    """The middle of a pair, at most 640x480 and mirrored up to multiples of `stride`: (1, 3, H, W), (1, 1, H, W)."""
    sides = [min(side, most // stride * stride) for side, most in zip(pair.infrared.shape, _CROP, strict=True)]
    top, left = ((whole - side) // 2 for whole, side in zip(pair.infrared.shape, sides, strict=True))
    margins = [(0, -side % stride) for side in sides]
    visible = np.pad(pair.visible[top : top + sides[0], left : left + sides[1]], [*margins, (0, 0)], mode="symmetric")
    infrared = np.pad(pair.infrared[top : top + sides[0], left : left + sides[1]], margins, mode="symmetric")
    return visible.transpose(2, 0, 1)[None], infrared[None, None]
