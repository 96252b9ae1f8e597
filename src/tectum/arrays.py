"""Types of the arrays that every room hands on, and the one definition of luminance."""

from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""


def luma(red: Any, green: Any, blue: Any) -> Any:
    """BT.601 luminance of three planes of one shape, numpy arrays or torch tensors, in the range of the planes."""
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
