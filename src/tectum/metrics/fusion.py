"""Fusion metrics accumulated over many images, as torchmetrics classes."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from tectum.metrics.conventions import get_convention, score, select_metrics


class FusionScores(Metric):
    """Means of fusion metrics over all images seen: by default the nine of `tectum.metrics.fusion_scores`.

    Every image counts alike, whatever its size and batch. Sums are kept in float64 and added up over processes, so the
    result does not depend on how the images were batched or distributed. Whether higher or lower is better,
    `tectum.metrics.METRICS` says for each metric.

    Example:
        >>> import torch
        >>> scores = FusionScores()
        >>> visible, infrared = torch.rand(2, 2, 1, 48, 64)
        >>> scores.update(torch.maximum(visible, infrared), visible, infrared)
        >>> list(scores.compute())
        ['en', 'sd', 'sf', 'ag', 'mi', 'vif', 'qabf', 'scd', 'seam']

    Args:
        metrics: keys of `tectum.metrics.METRICS`, or "all" that the convention defines; its default if not given.
        convention: a key of `tectum.metrics.CONVENTIONS`.
        data_range: largest grey value; 255 for uint8 and 1.0 for floating-point images if not given.
        **kwargs: those of `torchmetrics.Metric`.

    Raises:
        ConfigError: an unknown convention or metric, or a metric that the convention does not define.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    total: Tensor
    images: Tensor

    def __init__(
        self,
        *,
        metrics: Iterable[str] | Literal["all"] | None = None,
        convention: str = "tectum",
        data_range: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.metrics = select_metrics(get_convention(convention), metrics)
        self.convention = convention
        self.data_range = data_range
        self.add_state("total", torch.zeros(len(self.metrics), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, fused: Tensor, visible: Tensor, infrared: Tensor) -> None:
        """Add a batch: three tensors (B, 1, H, W), or (B, 3, H, W) in RGB, as `score` takes them."""
        scores = score(
            fused, visible, infrared, metrics=self.metrics, convention=self.convention, data_range=self.data_range
        )
        self.total += torch.stack([scores[key] for key in self.metrics]).sum(1).to(self.total.device)
        self.images += len(fused)

    def compute(self) -> dict[str, Tensor]:
        """Mean of each metric, a float64 scalar under its key; NaN before the first image."""
        return dict(zip(self.metrics, self.total / self.images, strict=True))
