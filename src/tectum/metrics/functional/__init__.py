"""Fusion metrics as pure functions on batches of grey images.

Every function takes tensors of shape (B, 1, H, W), the luminance of the fused and the visible image and the infrared
image, and returns one number per image, a float64 tensor of shape (B,). `fusion_scores` computes the nine of the
field's tables at once and shares what they have in common; `tectum.metrics.score` computes any selection, also as other
evaluators define them, and takes colour images.

What the field's evaluators leave open is fixed here as follows, for every metric of this package:

- Images are taken as 8-bit pictures: values are scaled from [0, `data_range`] to [0, 255], clamped, and rounded. A
  float image and its saved 8-bit picture have the same scores.
- `data_range` is 255 for uint8 and 1.0 for floating-point images unless it is given; given, it holds for all images of
  the call. Other integer types need it.
- Entropies and mutual information are in bits.
- Where a metric compares the fused image with both sources, and the literature adds the two values, they are added
  (MI, NMI, VIF, SCD, SSIM, MS-SSIM); CC, CE, RMSE and FMI are means, since the literature's are.
- The channels of a colour image are not scored one by one: pass its luminance.
- Images of wrong or unequal shape, of a wrong type or with NaN, values that do not fit `data_range`, and images that
  are smaller than the metric needs, are an InputError that says which image and why.

In formulas V, R and F are the visible, the infrared and the fused image, and S is either source. Tensors on Apple's MPS
are moved to the CPU first, since MPS has no float64.
"""

from tectum.metrics.functional.features import fmi
from tectum.metrics.functional.gradients import (
    average_gradient,
    edge_intensity,
    labf,
    nabf,
    qabf,
    seam,
    spatial_frequency,
)
from tectum.metrics.functional.information import (
    cross_entropy,
    entropy,
    mutual_information,
    normalized_mutual_information,
    qncie,
    standard_deviation,
)
from tectum.metrics.functional.keys import FUSION_METRICS, fusion_scores
from tectum.metrics.functional.perception import VIF_MINIMUM_SIZE, qcb, qcv, viff, visual_information_fidelity
from tectum.metrics.functional.similarity import (
    MS_SSIM_MINIMUM_SIZE,
    correlation_coefficient,
    ms_ssim,
    psnr,
    qy,
    rmse,
    scd,
    ssim,
)

__all__ = [
    "FUSION_METRICS",
    "MS_SSIM_MINIMUM_SIZE",
    "VIF_MINIMUM_SIZE",
    "average_gradient",
    "correlation_coefficient",
    "cross_entropy",
    "edge_intensity",
    "entropy",
    "fmi",
    "fusion_scores",
    "labf",
    "ms_ssim",
    "mutual_information",
    "nabf",
    "normalized_mutual_information",
    "psnr",
    "qabf",
    "qcb",
    "qcv",
    "qncie",
    "qy",
    "rmse",
    "scd",
    "seam",
    "spatial_frequency",
    "ssim",
    "standard_deviation",
    "viff",
    "visual_information_fidelity",
]
