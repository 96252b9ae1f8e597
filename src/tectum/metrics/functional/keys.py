"""Every fusion metric by its key: what it is, and how this package defines it.

A metric is a public function on tensors and, behind it in the same module, its inner function on `Images`, named after
the key: `qabf` and `qabf_of`, `spatial_frequency` and `sf_of`. A row of `METRICS` makes it known to everything else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from tectum.metrics.functional.features import fmi_dct_of, fmi_gradient_of, fmi_pixel_of, fmi_wavelet_of
from tectum.metrics.functional.gradients import ag_of, ei_of, labf_of, nabf_of, qabf_of, seam_of, sf_of
from tectum.metrics.functional.images import ANY_SIZE, Images, grey_images
from tectum.metrics.functional.information import ce_of, en_of, mi_of, nmi_of, qncie_of, sd_of
from tectum.metrics.functional.perception import VIF_MINIMUM_SIZE, qcb_of, qcv_of, vif_of, viff_of
from tectum.metrics.functional.similarity import (
    MS_SSIM_MINIMUM_SIZE,
    cc_of,
    ms_ssim_of,
    psnr_of,
    qy_of,
    rmse_of,
    scd_of,
    ssim_of,
)

SUM = "sum over the sources"
MEAN = "mean over the sources"


@dataclass(frozen=True)
class Definition:
    """How a convention computes a metric: a number for each grey image of an `Images`, or already for each picture."""

    compute: Callable[[Images], Tensor]
    unit: str = ""  # empty for a pure number
    detail: str = ""  # what sets this definition apart, for a table's legend
    smallest: int = 1  # height and width


@dataclass(frozen=True)
class Metric:
    """What a metric is, whatever the convention, and the definition of the convention "tectum"."""

    key: str
    symbol: str  # for the head of a table
    name: str
    higher_is_better: bool
    source: str
    definition: Definition


_FMI = "feature mutual information of"
_HAGHIGHAT = "Haghighat et al. 2014"

METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("en", "EN", "entropy", True, "Roberts et al. 2008", Definition(en_of, "bits")),
        Metric("sd", "SD", "standard deviation", True, "Rao 1997", Definition(sd_of)),
        Metric("sf", "SF", "spatial frequency", True, "Eskicioglu, Fisher 1995", Definition(sf_of, smallest=2)),
        Metric("ag", "AG", "average gradient", True, "Cui et al. 2015", Definition(ag_of, smallest=2)),
        Metric("ei", "EI", "edge intensity", True, "Rajalingam, Priya 2018", Definition(ei_of)),
        Metric("mi", "MI", "mutual information", True, "Qu et al. 2002", Definition(mi_of, "bits", SUM)),
        Metric("nmi", "NMI", "normalised mutual information", True, "Hossny et al. 2008", Definition(nmi_of, "", SUM)),
        Metric("vif", "VIF", "visual information fidelity", True, "Sheikh, Bovik 2006",
               Definition(vif_of, "", SUM, VIF_MINIMUM_SIZE)),
        Metric("viff", "VIFF", "visual information fidelity for fusion", True, "Han et al. 2013",
               Definition(viff_of, smallest=VIF_MINIMUM_SIZE)),
        Metric("qabf", "Qabf", "edge information transferred", True, "Xydeas, Petrović 2000", Definition(qabf_of)),
        Metric("labf", "Labf", "edge information lost", False, "Petrović, Xydeas 2005",
               Definition(labf_of, smallest=2)),
        Metric("nabf", "Nabf", "edge information that is artefact", False, "Shreyamsha Kumar 2013",
               Definition(nabf_of, smallest=2)),
        Metric("seam", "seam", "gradient that neither source has", False, "this project",
               Definition(seam_of, smallest=2)),
        Metric("scd", "SCD", "sum of the correlations of differences", True, "Aslantas, Bendes 2015",
               Definition(scd_of, "", SUM)),
        Metric("cc", "CC", "correlation coefficient", True, "Deshmukh, Bhosale 2010", Definition(cc_of, "", MEAN)),
        Metric("ssim", "SSIM", "structural similarity", True, "Wang et al. 2004", Definition(ssim_of, "", SUM, 11)),
        Metric("ms_ssim", "MS-SSIM", "structural similarity at five scales", True, "Wang et al. 2003",
               Definition(ms_ssim_of, "", SUM, MS_SSIM_MINIMUM_SIZE)),
        Metric("psnr", "PSNR", "peak signal-to-noise ratio", True, "Jagalingam, Hegde 2015",
               Definition(psnr_of, "dB", "mean squared error over both sources")),
        Metric("rmse", "RMSE", "root mean squared error", False, "Jagalingam, Hegde 2015",
               Definition(rmse_of, "grey levels", MEAN)),
        Metric("ce", "CE", "cross entropy", False, "Bulanon et al. 2009", Definition(ce_of, "bits", MEAN)),
        Metric("fmi_pixel", "FMI pixel", f"{_FMI} pixels", True, _HAGHIGHAT, Definition(fmi_pixel_of, "", MEAN, 3)),
        Metric("fmi_gradient", "FMI grad", f"{_FMI} gradients", True, _HAGHIGHAT,
               Definition(fmi_gradient_of, "", MEAN, 3)),
        Metric("fmi_dct", "FMI dct", f"{_FMI} cosines", True, _HAGHIGHAT, Definition(fmi_dct_of, "", MEAN, 3)),
        Metric("fmi_wavelet", "FMI w", f"{_FMI} wavelets", True, _HAGHIGHAT, Definition(fmi_wavelet_of, "", MEAN, 3)),
        Metric("qcb", "Qcb", "preserved contrast as the eye sees it", True, "Chen, Blum 2009", Definition(qcb_of)),
        Metric("qcv", "Qcv", "visible difference to salient regions", False, "Chen, Varshney 2007", Definition(qcv_of)),
        Metric("qy", "Qy", "similarity to the source that matters", True, "Yang et al. 2008",
               Definition(qy_of, smallest=7)),
        Metric("qncie", "QNCIE", "nonlinear correlation information entropy", True, "Wang et al. 2008",
               Definition(qncie_of)),
    )
}  # fmt: skip
"""Every metric by its key, in the order of tables."""

FUSION_METRICS: dict[str, str] = {
    "en": "entropy, bits",
    "sd": "standard deviation",
    "sf": "spatial frequency",
    "ag": "average gradient",
    "mi": "mutual information, bits, sum over the sources",
    "vif": "visual information fidelity, sum over the sources",
    "qabf": "edge transfer",
    "scd": "sum of the correlations of differences",
    "seam": "gradient that neither source has",
}
"""Keys of `fusion_scores`, in the order of the field's tables, and what they stand for; of seam, lower is better."""


def smallest_size(definitions: Mapping[str, Definition]) -> tuple[int, str]:
    """Smallest height and width that all these metrics take, and the symbol of the one that needs it."""
    largest = max(definitions, key=lambda key: definitions[key].smallest, default=None)
    return ANY_SIZE if largest is None else (definitions[largest].smallest, METRICS[largest].symbol)


def scores_of(images: Images, definitions: Mapping[str, Definition]) -> dict[str, Tensor]:
    """Scores of each picture by key, float64 (B,): means over the picture's channels if these are scored apart."""
    pictures = len(images.fused) // images.channels
    return {key: definition.compute(images).view(pictures, -1).mean(1) for key, definition in definitions.items()}


def fusion_scores(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None
) -> dict[str, Tensor]:
    """The nine metrics of `FUSION_METRICS` at once, each as its own function gives it.

    `tectum.metrics.score` gives the same by default, and takes colour images too.

    Args:
        fused: (B, 1, H, W), H and W at least 41.
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        The keys of `FUSION_METRICS` in their order, each (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, values that do not fit `data_range`, or images that are
            too small for VIF.

    >>> import torch
    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> scores = fusion_scores(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    >>> print(*(f"{key} {value.item():.4f}" for key, value in scores.items()))
    en 7.0058 sd 48.3853 sf 75.2568 ag 27.2727 mi 14.0115 vif 0.2087 qabf 0.5309 scd 1.1947 seam 0.0000
    """
    definitions = {key: METRICS[key].definition for key in FUSION_METRICS}
    return scores_of(grey_images(fused, visible, infrared, data_range, smallest_size(definitions)), definitions)
