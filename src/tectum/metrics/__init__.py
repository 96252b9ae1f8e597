"""Metrics of fused images and of label maps: pure functions, and torchmetrics classes that accumulate them."""

from tectum.metrics.functional import (
    FUSION_METRICS,
    average_gradient,
    entropy,
    fusion_scores,
    mutual_information,
    qabf,
    scd,
    spatial_frequency,
    standard_deviation,
    visual_information_fidelity,
)
from tectum.metrics.fusion import FusionScores
from tectum.metrics.segmentation import (
    Box,
    BoxAgreement,
    SegmentationScores,
    box_agreement,
    box_counts,
    confusion_matrix,
    read_boxes,
    segmentation_scores,
)

__all__ = [
    "FUSION_METRICS",
    "Box",
    "BoxAgreement",
    "FusionScores",
    "SegmentationScores",
    "average_gradient",
    "box_agreement",
    "box_counts",
    "confusion_matrix",
    "entropy",
    "fusion_scores",
    "mutual_information",
    "qabf",
    "read_boxes",
    "scd",
    "segmentation_scores",
    "spatial_frequency",
    "standard_deviation",
    "visual_information_fidelity",
]
