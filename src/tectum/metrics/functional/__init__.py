"""Fusion metrics as pure functions on batches of grey images.

Every function takes tensors of shape (B, 1, H, W), the luminance of the fused and the visible image and the infrared
image, and returns one number per image, a float64 tensor of shape (B,). `fusion_scores` computes the eight of the
field's tables at once and shares what they have in common; `tectum.metrics.conventions.score` computes any selection,
also as other evaluators define them, and takes colour images.

What the field's evaluators leave open is fixed here as follows, for every metric of this package:

- Images are taken as 8-bit pictures: values are scaled from [0, `data_range`] to [0, 255], clamped, and rounded. A
  float image and its saved 8-bit picture have the same scores.
- `data_range` is 255 for uint8 and 1.0 for floating-point images unless it is given; given, it holds for all images of
  the call. Other integer types need it.
- Entropies and mutual information are in bits.
- Where a metric compares the fused image with both sources, and the literature adds the two values, they are added
  (MI, NMI, VIF, SCD, SSIM, MS-SSIM); CC, CE, RMSE and FMI are means, since the literature's are.
- The channels of a colour image are not scored one by one: pass its luminance.

Tensors on Apple's MPS are moved to the CPU first, since MPS has no float64.
"""

from torch import Tensor

from tectum.metrics.functional.features import fmi
from tectum.metrics.functional.gradients import (
    average_gradient,
    difference_norm,
    edge_intensity,
    edge_transfer,
    gradient_mean,
    labf,
    nabf,
    qabf,
    spatial_frequency,
)
from tectum.metrics.functional.images import grey_images
from tectum.metrics.functional.information import (
    cross_entropy,
    deviation,
    entropy,
    information,
    mutual_bits,
    mutual_information,
    normalized_mutual_information,
    qncie,
    standard_deviation,
)
from tectum.metrics.functional.perception import (
    VIF_MINIMUM_SIZE,
    VIF_SIZE,
    fidelity,
    qcb,
    qcv,
    viff,
    visual_information_fidelity,
)
from tectum.metrics.functional.similarity import (
    MS_SSIM_MINIMUM_SIZE,
    correlation_coefficient,
    difference_correlation,
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
    "spatial_frequency",
    "ssim",
    "standard_deviation",
    "viff",
    "visual_information_fidelity",
]

FUSION_METRICS: dict[str, str] = {
    "en": "entropy, bits",
    "sd": "standard deviation",
    "sf": "spatial frequency",
    "ag": "average gradient",
    "mi": "mutual information, bits, sum over the sources",
    "vif": "visual information fidelity, sum over the sources",
    "qabf": "edge transfer",
    "scd": "sum of the correlations of differences",
}
"""Keys of `fusion_scores`, in the order of the field's tables, and what they stand for. Higher is better for each."""


def fusion_scores(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None
) -> dict[str, Tensor]:
    """The eight metrics of `FUSION_METRICS` at once, each as its own function gives it.

    Args:
        fused: (B, 1, H, W), H and W at least 41.
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        The keys of `FUSION_METRICS` in their order, each (B,) float64. Higher is better for each.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, values that do not fit `data_range`, or images that are
            too small for VIF.
    """
    images = grey_images(fused, visible, infrared, data_range, VIF_SIZE)
    return {
        "en": images.once(information).fused,
        "sd": deviation(images),
        "sf": difference_norm(images),
        "ag": gradient_mean(images),
        "mi": mutual_bits(images),
        "vif": fidelity(images),
        "qabf": edge_transfer(images),
        "scd": difference_correlation(images),
    }
