"""Losses of the label map."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.data.pair import IGNORE


def cross_entropy_sum(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy summed over the labelled pixels, and the sum of their weights.

    The two are returned apart so that a mean can be taken over a batch that is spread over processes, and so that a
    batch without a single label costs nothing instead of 0/0.

    Args:
        logits: (B, K, H, W).
        labels: (B, H, W) int64, class ids or 255 = ignore.
        weights: (K,) class weights, or None for 1 each.

    Returns:
        (sum of losses, sum of weights), scalars.
    """
    total = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE, reduction="sum")
    labelled = labels != IGNORE
    if weights is None:
        return total, labelled.sum().to(total.dtype)
    return total, weights[labels[labelled]].sum()


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean cross-entropy over the labelled pixels, 0 if there are none. Arguments as `cross_entropy_sum`."""
    total, weight = cross_entropy_sum(logits, labels, weights)
    return total / torch.clamp(weight, min=torch.finfo(weight.dtype).tiny)
