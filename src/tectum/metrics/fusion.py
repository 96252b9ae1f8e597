"""Fusion metrics accumulated over many images, as torchmetrics classes."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from tectum.metrics.functional import FUSION_METRICS, fusion_scores

__all__ = ["FusionScores"]


class FusionScores(Metric):
    """Mean of the eight metrics of `tectum.metrics.functional.fusion_scores` over all images seen.

    Every image counts alike, whatever its size and batch. Sums are kept in float64 and added up over processes, so the
    result does not depend on how the images were batched or distributed.

    Example:
        >>> import torch
        >>> scores = FusionScores()
        >>> visible, infrared = torch.rand(2, 2, 1, 48, 64)
        >>> scores.update(torch.maximum(visible, infrared), visible, infrared)
        >>> list(scores.compute())
        ['en', 'sd', 'sf', 'ag', 'mi', 'vif', 'qabf', 'scd']

    Args:
        data_range: largest grey value; 255 for uint8 and 1.0 for floating-point images if not given.
        **kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    images: Tensor

    def __init__(self, *, data_range: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_range = data_range
        self.add_state("total", torch.zeros(len(FUSION_METRICS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, fused: Tensor, visible: Tensor, infrared: Tensor) -> None:
        """Add a batch: three tensors (B, 1, H, W), fused and visible being luminance."""
        scores = fusion_scores(fused, visible, infrared, data_range=self.data_range)
        self.total += torch.stack(list(scores.values())).sum(1).to(self.total.device)
        self.images += len(fused)

    def compute(self) -> dict[str, Tensor]:
        """Mean of each metric, a float64 scalar under its key; NaN before the first image."""
        return dict(zip(FUSION_METRICS, self.total / self.images, strict=True))
