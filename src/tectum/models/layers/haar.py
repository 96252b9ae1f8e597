"""Two-dimensional Haar wavelet transform by slicing: exact, orthonormal, made of operations that every exporter knows.

With the analysis filters lo = [1, 1]/√2 and hi = [1, -1]/√2 (r along rows, c along columns), the four sub-bands of a
2x2 block (a b; c d) are

    LL = lo[r] lo[c] = (a + b + c + d) / 2          HL = hi[r] lo[c] = (a + b - c - d) / 2
    LH = lo[r] hi[c] = (a - b + c - d) / 2          HH = hi[r] hi[c] = (a - b - c + d) / 2

The transform is its own transpose's inverse, so analysis and synthesis use the same four sums.
"""

import torch
from torch import Tensor


def haar_dwt(x: Tensor) -> Tensor:
    """One level of the Haar transform.

    Args:
        x: (B, C, H, W), H and W even.

    Returns:
        (B, C, 4, H/2, W/2), the bands in the order LL, HL, LH, HH of this module's docstring.
    """
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    low, high = top + bottom, top - bottom
    left, right = slice(0, None, 2), slice(1, None, 2)
    bands = (
        low[..., left] + low[..., right],
        high[..., left] + high[..., right],
        low[..., left] - low[..., right],
        high[..., left] - high[..., right],
    )
    return torch.stack(bands, dim=2) / 2


def haar_ll(x: Tensor) -> Tensor:
    """The LL band of `haar_dwt` alone: (B, C, H, W) -> (B, C, H/2, W/2)."""
    low = x[..., 0::2, :] + x[..., 1::2, :]
    return (low[..., 0::2] + low[..., 1::2]) / 2


def haar_idwt(bands: Tensor) -> Tensor:
    """Inverse of `haar_dwt`: (B, C, 4, h, w) -> (B, C, 2h, 2w)."""
    ll, hl, lh, hh = bands.unbind(dim=2)
    low_left, low_right = ll + lh, ll - lh
    high_left, high_right = hl + hh, hl - hh
    low = torch.stack((low_left, low_right), dim=-1).flatten(-2)
    high = torch.stack((high_left, high_right), dim=-1).flatten(-2)
    return torch.stack((low + high, low - high), dim=-2).flatten(-3, -2) / 2
