"""Fusion metrics by key, and the conventions of several evaluators by name.

The numbers of the literature come from a handful of evaluators that define the same metrics differently. A convention
is one evaluator's set of definitions: a table from metric to function, and how it takes colour images. `score` computes
any of them; `docs/metrics.md` tells how they differ, and by how much.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.errors import ConfigError, InputError
from tectum.metrics.functional import FUSION_METRICS, MS_SSIM_MINIMUM_SIZE, VIF_MINIMUM_SIZE
from tectum.metrics.functional.features import (
    cosine_information,
    gradient_information,
    pixel_information,
    wavelet_information,
)
from tectum.metrics.functional.gradients import (
    difference_norm,
    edge_artefacts,
    edge_loss,
    edge_mean,
    edge_transfer,
    gradient_mean,
)
from tectum.metrics.functional.images import ANY_SIZE, MAXIMUM, Images, eight_bit, gaussian
from tectum.metrics.functional.information import (
    correlation_information,
    deviation,
    divergence_bits,
    entropy_bits,
    mutual_bits,
    normalized_mutual,
    saturated_mutual_bits,
)
from tectum.metrics.functional.perception import fidelity, preserved_contrast, salient_difference, selected_fidelity
from tectum.metrics.functional.similarity import (
    difference_correlation,
    mean_correlation,
    multiscale_similarity,
    peak_ratio,
    root_error,
    selective_similarity,
    similarity_means,
    structural_similarity,
)

__all__ = ["CONVENTIONS", "METRICS", "Convention", "Definition", "Metric", "get_convention", "score", "select_metrics"]


@dataclass(frozen=True)
class Metric:
    """What a metric is, whatever the convention."""

    key: str
    symbol: str  # for the head of a table
    name: str
    higher_is_better: bool
    source: str


@dataclass(frozen=True)
class Definition:
    """How a convention computes a metric: a number for each grey image of an `Images`, or already for each picture."""

    compute: Callable[[Images], Tensor]
    unit: str = ""  # empty for a pure number
    detail: str = ""  # what sets this definition apart, for a table's legend
    smallest: int = 1  # height and width


@dataclass(frozen=True)
class Convention:
    """One evaluator's definitions."""

    name: str
    summary: str
    evaluator: str  # where the definitions come from
    by_channel: bool  # colour images channel by channel, and the mean over them; otherwise their luminance
    luminance: tuple[float, float, float]  # weights of red, green and blue
    metrics: Mapping[str, Definition]
    default: tuple[str, ...]  # keys that `score` computes unless told otherwise


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("en", "EN", "entropy", True, "Roberts et al. 2008"),
        Metric("sd", "SD", "standard deviation", True, "Rao 1997"),
        Metric("sf", "SF", "spatial frequency", True, "Eskicioglu, Fisher 1995"),
        Metric("ag", "AG", "average gradient", True, "Cui et al. 2015"),
        Metric("ei", "EI", "edge intensity", True, "Rajalingam, Priya 2018"),
        Metric("mi", "MI", "mutual information", True, "Qu et al. 2002"),
        Metric("nmi", "NMI", "normalised mutual information", True, "Hossny et al. 2008"),
        Metric("vif", "VIF", "visual information fidelity", True, "Sheikh, Bovik 2006"),
        Metric("viff", "VIFF", "visual information fidelity for fusion", True, "Han et al. 2013"),
        Metric("qabf", "Qabf", "edge information transferred", True, "Xydeas, Petrović 2000"),
        Metric("labf", "Labf", "edge information lost", False, "Petrović, Xydeas 2005"),
        Metric("nabf", "Nabf", "edge information that is artefact", False, "Shreyamsha Kumar 2013"),
        Metric("scd", "SCD", "sum of the correlations of differences", True, "Aslantas, Bendes 2015"),
        Metric("cc", "CC", "correlation coefficient", True, "Deshmukh, Bhosale 2010"),
        Metric("ssim", "SSIM", "structural similarity", True, "Wang et al. 2004"),
        Metric("ms_ssim", "MS-SSIM", "structural similarity at five scales", True, "Wang et al. 2003"),
        Metric("psnr", "PSNR", "peak signal-to-noise ratio", True, "Jagalingam, Hegde 2015"),
        Metric("rmse", "RMSE", "root mean squared error", False, "Jagalingam, Hegde 2015"),
        Metric("ce", "CE", "cross entropy", False, "Bulanon et al. 2009"),
        Metric("fmi_pixel", "FMI pixel", "feature mutual information of pixels", True, "Haghighat et al. 2014"),
        Metric("fmi_gradient", "FMI grad", "feature mutual information of gradients", True, "Haghighat et al. 2014"),
        Metric("fmi_dct", "FMI dct", "feature mutual information of cosines", True, "Haghighat et al. 2014"),
        Metric("fmi_wavelet", "FMI w", "feature mutual information of wavelets", True, "Haghighat et al. 2014"),
        Metric("qcb", "Qcb", "preserved contrast as the eye sees it", True, "Chen, Blum 2009"),
        Metric("qcv", "Qcv", "visible difference to salient regions", False, "Chen, Varshney 2007"),
        Metric("qy", "Qy", "similarity to the source that matters", True, "Yang et al. 2008"),
        Metric("qncie", "QNCIE", "nonlinear correlation information entropy", True, "Wang et al. 2008"),
    )
}
"""Every metric by its key, in the order of tables."""


def _times(factor: float, compute: Callable[[Images], Tensor]) -> Callable[[Images], Tensor]:
    return lambda images: factor * compute(images)


def _inner_gradient_mean(images: Images) -> Tensor:
    """The sum over all pixels, divided by their number without a row and a column."""
    height, width = images.fused.shape[1:]
    return gradient_mean(images) * (height * width / ((height - 1) * (width - 1)))


def _side_by_side_frequency(images: Images) -> Tensor:
    """Spatial frequency of the channels set side by side, seams and all; sums are divided by the number of pixels."""
    height, width = images.fused.shape[1:]
    fused = images.fused.view(-1, images.channels, height, width).transpose(1, 2).flatten(2)
    rows, columns = (torch.diff(fused, dim=dim).square_().sum((1, 2), dtype=torch.float64) for dim in (2, 1))
    return ((rows + columns) / (height * width * images.channels)).sqrt()


def _root_then_pixels(images: Images) -> Tensor:
    """√(Σ d²) / N, where a root mean square would be √(Σ d² / N); the mean over both sources."""
    return root_error(images) / math.sqrt(images.fused[0].numel())


def _ratio_to_root_then_pixels(images: Images) -> Tensor:
    return 20 * math.log10(MAXIMUM) - 10 * _root_then_pixels(images).log10()


def _ratio_to_unit_range(images: Images) -> Tensor:
    """A peak of 255 over errors of values from 0 to 1."""
    return peak_ratio(images) + 20 * math.log10(MAXIMUM)


def _ratio_to_brightest(images: Images) -> Tensor:
    """The peak is the fused image's brightest pixel."""
    brightest = images.fused.double().amax((1, 2))
    return peak_ratio(images) + 20 * torch.log10(brightest / MAXIMUM)


def _toolbox_similarity(images: Images) -> Tensor:
    """MATLAB's ssim of values from 0 to 255 in double precision, for which it assumes a range of 1."""
    pictures = torch.stack((images.fused, *images.sources)).double()
    window = gaussian(11, 1.5)
    fused, *sources = F.pad(pictures, (5, 5, 5, 5), mode="replicate")
    return similarity_means(fused, sources, window, peak=1.0)[0].mean(0)


def _assumed_range_similarity(images: Images) -> Tensor:
    """scikit-image's uniform window of 7 pixels, with the range of 2 that it assumed for floating-point images."""
    fused, *sources = (image.double() for image in (images.fused, *images.sources))
    return similarity_means(fused, sources, [1 / 7] * 7, peak=2.0, unbiased=49 / 48)[0].sum(0)


_SUM = "sum over the sources"
_MEAN = "mean over the sources"
_BT601 = (0.299, 0.587, 0.114)
_MATLAB_GREY = (0.298936021293775, 0.587043074451121, 0.114020904255103)
_PIXELS_LESS = "divided by (H − 1)(W − 1)"

_TECTUM = {
    "en": Definition(entropy_bits, "bits"),
    "sd": Definition(deviation),
    "sf": Definition(difference_norm, smallest=2),
    "ag": Definition(gradient_mean, smallest=2),
    "ei": Definition(edge_mean),
    "mi": Definition(mutual_bits, "bits", _SUM),
    "nmi": Definition(normalized_mutual, "", _SUM),
    "vif": Definition(fidelity, "", _SUM, VIF_MINIMUM_SIZE),
    "viff": Definition(selected_fidelity, smallest=VIF_MINIMUM_SIZE),
    "qabf": Definition(edge_transfer),
    "labf": Definition(edge_loss, smallest=2),
    "nabf": Definition(edge_artefacts, smallest=2),
    "scd": Definition(difference_correlation, "", _SUM),
    "cc": Definition(mean_correlation, "", _MEAN),
    "ssim": Definition(structural_similarity, "", _SUM, 11),
    "ms_ssim": Definition(multiscale_similarity, "", _SUM, MS_SSIM_MINIMUM_SIZE),
    "psnr": Definition(peak_ratio, "dB", "mean squared error over both sources"),
    "rmse": Definition(root_error, "grey levels", _MEAN),
    "ce": Definition(divergence_bits, "bits", _MEAN),
    "fmi_pixel": Definition(pixel_information, "", _MEAN, 3),
    "fmi_gradient": Definition(gradient_information, "", _MEAN, 3),
    "fmi_dct": Definition(cosine_information, "", _MEAN, 3),
    "fmi_wavelet": Definition(wavelet_information, "", _MEAN, 3),
    "qcb": Definition(preserved_contrast),
    "qcv": Definition(salient_difference),
    "qy": Definition(selective_similarity, smallest=7),
    "qncie": Definition(correlation_information),
}

_VIFB = {
    "en": Definition(entropy_bits, "bits"),
    "sd": Definition(deviation, "", "called variance"),
    "sf": Definition(_side_by_side_frequency, "", "channels side by side, divided by all pixels", 2),
    "ag": Definition(_inner_gradient_mean, "", _PIXELS_LESS, 2),
    "ei": Definition(edge_mean),
    "mi": Definition(_times(math.log(2), mutual_bits), "nats", _SUM),
    "qabf": Definition(edge_transfer),
    "ssim": Definition(structural_similarity, "", _SUM, 11),
    "psnr": Definition(_ratio_to_root_then_pixels, "dB", "of √(Σ d²) / N in place of the mean squared error"),
    "rmse": Definition(_root_then_pixels, "", "√(Σ d²) / N, mean over the sources"),
    "ce": Definition(divergence_bits, "bits", _MEAN),
    "qcb": Definition(preserved_contrast),
    "qcv": Definition(salient_difference),
}

_MATLAB = {
    "en": Definition(entropy_bits, "bits"),
    "sd": Definition(deviation),
    "sf": Definition(difference_norm, smallest=2),
    "ag": Definition(_inner_gradient_mean, "", _PIXELS_LESS, 2),
    "mi": Definition(saturated_mutual_bits, "bits", "sum over the sources, 254 and 255 merged in joint histograms"),
    "vif": Definition(fidelity, "", _SUM, VIF_MINIMUM_SIZE),
    "qabf": Definition(edge_transfer),
    "scd": Definition(difference_correlation, "", _SUM),
    "cc": Definition(mean_correlation, "", _MEAN),
    "ssim": Definition(_toolbox_similarity, "", "mean over the sources, constants for a range of 1"),
    "psnr": Definition(_ratio_to_unit_range, "dB", "peak 255 over errors of values from 0 to 1"),
    "fmi_dct": Definition(cosine_information, "", _MEAN, 3),
    "fmi_wavelet": Definition(wavelet_information, "", _MEAN, 3),
}

_CDDFUSE = {
    "en": Definition(entropy_bits, "bits"),
    "sd": Definition(deviation),
    "sf": Definition(difference_norm, smallest=2),
    "ag": Definition(gradient_mean, smallest=2),
    "mi": Definition(_times(math.log(2), mutual_bits), "nats", _SUM),
    "vif": Definition(fidelity, "", "sum over the sources; called VIFF", VIF_MINIMUM_SIZE),
    "qabf": Definition(edge_transfer),
    "scd": Definition(difference_correlation, "", _SUM),
    "cc": Definition(mean_correlation, "", _MEAN),
    "ssim": Definition(_assumed_range_similarity, "", "sum over the sources, uniform window, constants for 2", 7),
    "psnr": Definition(_ratio_to_brightest, "dB", "peak is the fused image's brightest pixel"),
}

CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            name="tectum",
            summary="luminance, bits, sums over the sources where the literature sums",
            evaluator="this package",
            by_channel=False,
            luminance=_BT601,
            metrics=_TECTUM,
            default=tuple(FUSION_METRICS),
        ),
        Convention(
            name="vifb",
            summary="colour channel by channel, mutual information in nats",
            evaluator="MATLAB metrics of the VIFB benchmark, github.com/xingchenzhang/VIFB",
            by_channel=True,
            luminance=_MATLAB_GREY,
            metrics=_VIFB,
            default=tuple(_VIFB),
        ),
        Convention(
            name="matlab",
            summary="luminance, bits, a joint histogram in which 254 and 255 are one",
            evaluator="Linfeng Tang's MATLAB code, github.com/Linfeng-Tang/Evaluation-for-Image-Fusion",
            by_channel=False,
            luminance=_MATLAB_GREY,
            metrics=_MATLAB,
            default=("en", "sd", "sf", "ag", "mi", "vif", "qabf", "scd", "cc", "psnr", "ssim"),
        ),
        Convention(
            name="cddfuse",
            summary="luminance, mutual information in nats, sums over the sources",
            evaluator="utils/Evaluator.py of CDDFuse, github.com/Zhaozixiang1228/MMIF-CDDFuse",
            by_channel=False,
            luminance=_BT601,
            metrics=_CDDFUSE,
            default=tuple(_CDDFUSE),
        ),
    )
}
"""Every convention by its name."""


def get_convention(name: str) -> Convention:
    """The convention of that name.

    Raises:
        ConfigError: there is none; the message lists those that exist.
    """
    try:
        return CONVENTIONS[name]
    except KeyError:
        raise ConfigError(f"unknown convention {name!r}; the conventions are {', '.join(CONVENTIONS)}") from None


def select_metrics(convention: Convention, metrics: Iterable[str] | Literal["all"] | None) -> tuple[str, ...]:
    """Keys to compute: the convention's default for None, all that it defines for "all".

    Raises:
        ConfigError: a key that is unknown, or that the convention does not define.
    """
    if metrics is None:
        return convention.default
    if metrics == "all":
        return tuple(convention.metrics)
    keys = tuple(dict.fromkeys([metrics] if isinstance(metrics, str) else metrics))
    for key in keys:
        if key not in METRICS:
            raise ConfigError(f"unknown metric {key!r}; the metrics are {', '.join(METRICS)}")
        if key not in convention.metrics:
            raise ConfigError(
                f"the convention {convention.name!r} does not define {key!r}; it has {', '.join(convention.metrics)}"
            )
    return keys


def score(
    fused: Tensor,
    visible: Tensor,
    infrared: Tensor,
    *,
    metrics: Iterable[str] | Literal["all"] | None = None,
    convention: str = "tectum",
    data_range: float | None = None,
) -> dict[str, Tensor]:
    """Score fused images against their sources, as a convention defines the metrics.

    Colour images become luminance, rounded to 8 bits. Under a convention that scores channel by channel, a colour
    fused image is scored so, against the channels of its sources or against a grey source as it is, and a grey one
    against the luminance of its sources.

    Args:
        fused: (B, 1, H, W), or (B, 3, H, W) in RGB.
        visible: (B, 1, H, W) or (B, 3, H, W).
        infrared: (B, 1, H, W) or (B, 3, H, W).
        metrics: keys of `METRICS`, or "all" that the convention defines; by default its `default`.
        convention: a key of `CONVENTIONS`.
        data_range: largest grey value; 255 for uint8 and 1.0 for floating-point images if not given.

    Returns:
        A float64 tensor (B,) under each key, in the order in which they were asked for.

    Raises:
        ConfigError: an unknown convention or metric, or a metric that the convention does not define.
        InputError: wrong or unequal shapes, wrong type, NaN, values that do not fit `data_range`, or images that are
            too small for one of the metrics.
    """
    rules = get_convention(convention)
    keys = select_metrics(rules, metrics)
    largest = max(keys, key=lambda key: rules.metrics[key].smallest, default=None)
    smallest = ANY_SIZE if largest is None else (rules.metrics[largest].smallest, METRICS[largest].symbol)
    images = _read(fused, visible, infrared, rules, data_range, smallest)
    return {key: rules.metrics[key].compute(images).view(len(fused), -1).mean(1) for key in keys}


def _read(
    fused: Tensor,
    visible: Tensor,
    infrared: Tensor,
    convention: Convention,
    data_range: float | None,
    smallest: tuple[int, str],
) -> Images:
    named = {"fused": fused, "visible": visible, "infrared": infrared}
    pictures = [eight_bit(name, image, data_range, smallest, colour=True) for name, image in named.items()]
    if len({(len(picture), *picture.shape[2:]) for picture in pictures}) > 1:
        raise InputError(
            "the three images must have one size: "
            + ", ".join(f"{name} {tuple(image.shape)}" for name, image in named.items())
        )
    channels = fused.shape[1] if convention.by_channel else 1
    if channels == 1:
        weights = torch.tensor(convention.luminance, dtype=torch.float64, device=pictures[0].device).view(1, 3, 1, 1)
        pictures = [
            picture if picture.shape[1] == 1 else (picture * weights).sum(1, keepdim=True).round().float()
            for picture in pictures
        ]
    grey = [picture.expand(-1, channels, -1, -1).flatten(0, 1) for picture in pictures]
    return Images(grey[0], grey[1], grey[2], channels=channels)
