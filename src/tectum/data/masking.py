"""Random complementary masks: each patch is hidden in at most one of the two modalities (MAFS, stage I).

The network has to fill what is hidden in one modality from its surroundings and from the other modality.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class MaskedPair(NamedTuple):
    """A batch of pairs with hidden patches.

    Attributes:
        visible: (B, 3, H, W) in [0, 1].
        infrared: (B, 1, H, W) in [0, 1].
        hidden_visible, hidden_infrared: (B, 1, H, W) float32, 1 where the modality is hidden; never both.
    """

    visible: Tensor
    infrared: Tensor
    hidden_visible: Tensor
    hidden_infrared: Tensor


def complementary_masks(batch: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Which patches each modality keeps, drawn as the release of MAFS does, from the global generator.

    Each sample draws one keep rate p = 0.1 + U(0, 1) / 1.12. A grid of kept patches is the product of two
    Bernoulli(p) grids. Patches that both modalities would hide are given to one or the other by a third such grid, and
    the two grids then change places with probability 1/2. On average a modality keeps 61 % of its patches, and 22 % of
    the patches are kept in both.

    Returns:
        kept patches of the visible and of the infrared image, bool (batch, rows, columns); one of the two is true
        everywhere.
    """
    rate = 0.1 + torch.rand(batch, 1, 1, 1, 1) / 1.12
    # (batch, three grids, rows, columns); each the product of two Bernoulli grids.
    first, second, tie = (torch.rand(batch, 3, 2, rows, columns) < rate).all(dim=2).unbind(1)
    neither = ~first & ~second
    first, second = first | (neither & tie), second | (neither & ~tie)
    swap = (torch.rand(batch) < 0.5)[:, None, None]
    return torch.where(swap, second, first), torch.where(swap, first, second)


def mask_pair(visible: Tensor, infrared: Tensor, patch: int = 32) -> MaskedPair:
    """Hide random patches of either modality under uniform noise.

    Args:
        visible: (B, 3, H, W) in [0, 1].
        infrared: (B, 1, H, W) in [0, 1].
        patch: side of the square patches in pixels; those at the right and lower edge may be cut.
    """
    height, width = visible.shape[-2:]
    grids = complementary_masks(len(visible), -(-height // patch), -(-width // patch))
    hidden_visible, hidden_infrared = (
        F.interpolate((~grid)[:, None].float(), scale_factor=patch)[..., :height, :width].to(visible.device)
        for grid in grids
    )
    return MaskedPair(
        torch.where(hidden_visible > 0, torch.rand_like(visible), visible),
        torch.where(hidden_infrared > 0, torch.rand_like(infrared), infrared),
        hidden_visible,
        hidden_infrared,
    )
