"""Calibration: whether labels are right as often as their probabilities say."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from tectum.errors import ConfigError, InputError

__all__ = ["CalibrationScores"]


class CalibrationScores(Metric):
    """Expected calibration error (ECE) over the pixels of all images, and over all processes.

    ECE = Σ_b n_b / n · |accuracy_b - confidence_b| over bins b of equal width of the probability of the predicted
    class, with n_b of the n pixels in each. Between 0 and 1, lower is better. Source: C. Guo, G. Pleiss, Y. Sun,
    K. Weinberger, "On calibration of modern neural networks", ICML 2017, equation 3. It is that of
    `torchmetrics.classification.MulticlassCalibrationError` with norm "l1", which keeps every pixel in memory; this
    keeps three numbers a bin.

    Example:
        >>> scores = CalibrationScores()
        >>> scores.update(torch.tensor([0.9, 0.9, 0.6, 0.6]), torch.tensor([True, True, False, True]))
        >>> scores.compute()["ece"]
        tensor(0.1000, dtype=torch.float64)

    Args:
        bins: number of bins.
        **kwargs: those of `torchmetrics.Metric`.

    Raises:
        ConfigError: less than one bin.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    sums: Tensor

    def __init__(self, bins: int = 15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if bins < 1:
            raise ConfigError(f"a calibration error needs at least one bin, not {bins}")
        self.bins = bins
        self.add_state("sums", torch.zeros(3, bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, confidence: Tensor, right: Tensor) -> None:
        """Add pixels: the probabilities of their labels, and whether these are right; two tensors of one shape.

        Raises:
            InputError: unequal shapes, or confidences outside [0, 1].
        """
        if confidence.shape != right.shape:
            raise InputError(f"confidence {tuple(confidence.shape)} and right {tuple(right.shape)} must have one shape")
        probability, hit = confidence.flatten().double(), right.flatten().double()
        if probability.numel() and not (probability.min() >= 0 and probability.max() <= 1):
            raise InputError(f"confidences must lie in [0, 1], found {probability.min():g} to {probability.max():g}")
        places = (probability * self.bins).long().clamp(max=self.bins - 1)
        for row, values in enumerate((torch.ones_like(hit), probability, hit)):
            self.sums[row] += torch.bincount(places, values, minlength=self.bins).to(self.sums.device)

    def compute(self) -> dict[str, Tensor]:
        """Float64 tensors: `ece`, NaN without pixels, and per bin `pixels`, mean `confidence` and `accuracy`."""
        pixels, confidence, right = self.sums
        return {
            "ece": (right - confidence).abs().sum() / pixels.sum(),
            "pixels": pixels,
            "confidence": confidence / pixels,
            "accuracy": right / pixels,
        }
