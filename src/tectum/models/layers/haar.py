"""Two-dimensional Haar wavelet transform by slicing: exact, orthonormal, made of operations that every exporter knows.

With the analysis filters lo = [1, 1]/√2 and hi = [1, -1]/√2 (r along rows, c along columns), the four sub-bands of a
2x2 block (a b; c d) are

    LL = lo[r] lo[c] = (a + b + c + d) / 2          HL = hi[r] lo[c] = (a + b - c - d) / 2
    LH = lo[r] hi[c] = (a - b + c - d) / 2          HH = hi[r] hi[c] = (a - b - c + d) / 2

The transform is its own transpose's inverse, so analysis and synthesis use the same four sums.

All of it works on channels-last memory and leaves it that way, with band after band within a pixel's channels: there
the features of Transformers are, and depth-wise convolutions and upsampling are many times faster on CPUs. Slices are
taken by `unbind`, whose gradient keeps the layout; that of indexing does not.
"""

import torch
from torch import Tensor


def haar_dwt(x: Tensor) -> Tensor:
    """One level of the Haar transform.

    Args:
        x: (B, C, H, W), H and W even.

    Returns:
        (B, C, 4, H/2, W/2), the bands in the order LL, HL, LH, HH of this module's docstring. In memory its axes are
        in the order (B, H/2, W/2, 4, C).
    """
    top, bottom = _rows(x)
    low_left, low_right = _columns(top + bottom)
    high_left, high_right = _columns(top - bottom)
    bands = (low_left + low_right, high_left + high_right, low_left - low_right, high_left - high_right)
    return (torch.stack(bands, dim=3) / 2).permute(0, 4, 3, 1, 2)


def haar_ll(x: Tensor) -> Tensor:
    """The LL band of `haar_dwt` alone: (B, C, H, W) -> (B, C, H/2, W/2)."""
    top, bottom = _rows(x)
    left, right = _columns(top + bottom)
    return ((left + right) / 2).permute(0, 3, 1, 2)


def haar_idwt(bands: Tensor) -> Tensor:
    """Inverse of `haar_dwt`: (B, C, 4, h, w) -> (B, C, 2h, 2w)."""
    ll, hl, lh, hh = bands.permute(0, 3, 4, 2, 1).unbind(dim=3)
    low = torch.stack((ll + lh, ll - lh), dim=3).flatten(2, 3)
    high = torch.stack((hl + hh, hl - hh), dim=3).flatten(2, 3)
    return (torch.stack((low + high, low - high), dim=2).flatten(1, 2) / 2).permute(0, 3, 1, 2)


def _rows(x: Tensor) -> tuple[Tensor, ...]:
    """The first and the second of every two rows: (B, C, H, W) -> two of (B, H/2, W, C)."""
    return x.permute(0, 2, 3, 1).unflatten(1, (-1, 2)).unbind(dim=2)


def _columns(x: Tensor) -> tuple[Tensor, ...]:
    """The first and the second of every two columns: (B, h, W, C) -> two of (B, h, W/2, C)."""
    return x.unflatten(2, (-1, 2)).unbind(dim=3)
