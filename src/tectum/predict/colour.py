"""Luminance and colour, in numpy.

The networks fuse luminance alone. Colour comes back from the visible image: in YCbCr its Y is replaced by the fused
luminance and its own Cb and Cr are kept. With the exact (unrounded, full-range) BT.601 matrices that is the same as
adding the change of luminance to each of R, G and B, since the column of Y in the inverse matrix is (1, 1, 1).
"""

import numpy as np

from tectum.arrays import Bytes, Float, luma


def luminance(rgb: Float) -> Float:
    """BT.601 luminance of an RGB image.

    Args:
        rgb: float (..., H, W, 3), any range.

    Returns:
        float32 (..., H, W), in the range of the input. Grey pixels (R = G = B) keep their value up to rounding.
    """
    planes: Float = luma(rgb[..., 0], rgb[..., 1], rgb[..., 2])
    return planes.astype(np.float32, copy=False)


def recolour(visible: Float, fused: Float) -> Float:
    """Give the fused luminance the colour of the visible image.

    Args:
        visible: float32 (H, W, 3) RGB in [0, 1].
        fused: float32 (H, W), the fused luminance; values outside [0, 1] are clamped first.

    Returns:
        float32 (H, W, 3) in [0, 1]: clip(visible + (fused - luminance(visible))). A grey visible image gives a grey
        result. Colours that leave the RGB cube are clamped, never rescaled.
    """
    change = np.clip(fused, 0, 1)
    change -= luminance(visible)
    coloured = visible + change[..., None]
    # In place: fresh memory costs more than the arithmetic.
    return np.clip(coloured, 0, 1, out=coloured).astype(np.float32, copy=False)


def to_bytes(image: Float) -> Bytes:
    """Clamp to [0, 1] and round to 8 bits (half to even): the level v of the input becomes round(255 v)."""
    levels = np.clip(image, 0, 1)
    levels *= 255
    return np.rint(levels, out=levels).astype(np.uint8)
