"""The conventions of several evaluators by name, and `score`, which computes fusion metrics under any of them.

The numbers of the literature come from a handful of evaluators that define the same metrics differently. A convention
is one evaluator's set of definitions: a table from metric to function, and how it takes colour images.
`docs/metrics.md` tells how they differ, and by how much.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.arrays import LUMA
from tectum.errors import ConfigError, InputError
from tectum.filters import gaussian
from tectum.metrics.functional.gradients import ag_of
from tectum.metrics.functional.images import MAXIMUM, Images, eight_bit
from tectum.metrics.functional.information import entropies, mi_of
from tectum.metrics.functional.keys import FUSION_METRICS, MEAN, METRICS, SUM, Definition, scores_of, smallest_size
from tectum.metrics.functional.similarity import psnr_of, rmse_of, similarity_means


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


def _ag_by_inner_pixels(images: Images) -> Tensor:
    """The sum over all pixels, divided by their number without a row and a column."""
    height, width = images.fused.shape[1:]
    return ag_of(images) * (height * width / ((height - 1) * (width - 1)))


def _sf_side_by_side(images: Images) -> Tensor:
    """Spatial frequency of the channels set side by side, seams and all; sums are divided by the number of pixels."""
    height, width = images.fused.shape[1:]
    fused = images.fused.view(-1, images.channels, height, width).transpose(1, 2).flatten(2)
    rows, columns = (torch.diff(fused, dim=dim).square_().sum((1, 2), dtype=torch.float64) for dim in (2, 1))
    return ((rows + columns) / (height * width * images.channels)).sqrt()


def _mi_in_nats(images: Images) -> Tensor:
    return math.log(2) * mi_of(images)


def _mi_saturated(images: Images) -> Tensor:
    """Mutual information whose joint histograms, but not whose entropies, take the level 255 for 254.

    So counts MATLAB code that adds 1 to 8-bit values before it uses them as indices.
    """
    terms = images.once(entropies)
    fused, visible, infrared = (image.clamp_max(MAXIMUM - 1) for image in (images.fused, *images.sources))
    return (terms.fused + terms.sources - entropies(Images(fused, visible, infrared)).joint).sum(0)


def _rmse_root_first(images: Images) -> Tensor:
    """√(Σ d²) / N, where a root mean square would be √(Σ d² / N); the mean over both sources."""
    return rmse_of(images) / math.sqrt(images.fused[0].numel())


def _psnr_root_first(images: Images) -> Tensor:
    return 20 * math.log10(MAXIMUM) - 10 * _rmse_root_first(images).log10()


def _psnr_to_unit_range(images: Images) -> Tensor:
    """A peak of 255 over errors of values from 0 to 1."""
    return psnr_of(images) + 20 * math.log10(MAXIMUM)


def _psnr_to_brightest(images: Images) -> Tensor:
    """The peak is the fused image's brightest pixel."""
    brightest = images.fused.double().amax((1, 2))
    return psnr_of(images) + 20 * torch.log10(brightest / MAXIMUM)


def _ssim_of_toolbox(images: Images) -> Tensor:
    """MATLAB's ssim of values from 0 to 255 in double precision, for which it assumes a range of 1."""
    fused, *sources = F.pad(torch.stack(images.doubles), (5, 5, 5, 5), mode="replicate")
    return similarity_means(fused, sources, gaussian(11, 1.5), peak=1.0)[0].mean(0)


def _ssim_of_assumed_range(images: Images) -> Tensor:
    """scikit-image's uniform window of 7 pixels, with the range of 2 that it assumed for floating-point images."""
    fused, *sources = images.doubles
    return similarity_means(fused, sources, [1 / 7] * 7, peak=2.0, unbiased=49 / 48)[0].sum(0)


_MATLAB_GREY = (0.298936021293775, 0.587043074451121, 0.114020904255103)

_TECTUM = {key: metric.definition for key, metric in METRICS.items()}

_AG_BY_INNER_PIXELS = Definition(_ag_by_inner_pixels, "", "divided by (H − 1)(W − 1)", 2)
_MI_IN_NATS = Definition(_mi_in_nats, "nats", SUM)


def _as_tectum(keys: str, **others: Definition) -> dict[str, Definition]:
    """Definitions of these keys, in their order: those of "tectum" but for the others."""
    return {key: _TECTUM[key] for key in keys.split()} | others


_VIFB = _as_tectum(
    "en sd sf ag ei mi qabf ssim psnr rmse ce qcb qcv",
    sd=replace(_TECTUM["sd"], detail="called variance"),
    sf=Definition(_sf_side_by_side, "", "channels side by side, divided by all pixels", 2),
    ag=_AG_BY_INNER_PIXELS,
    mi=_MI_IN_NATS,
    psnr=Definition(_psnr_root_first, "dB", "of √(Σ d²) / N in place of the mean squared error"),
    rmse=Definition(_rmse_root_first, "", "√(Σ d²) / N, mean over the sources"),
)

_MATLAB = _as_tectum(
    "en sd sf ag mi vif qabf scd cc ssim psnr fmi_dct fmi_wavelet",
    ag=_AG_BY_INNER_PIXELS,
    mi=Definition(_mi_saturated, "bits", f"{SUM}, 254 and 255 merged in joint histograms"),
    ssim=Definition(_ssim_of_toolbox, "", f"{MEAN}, constants for a range of 1"),
    psnr=Definition(_psnr_to_unit_range, "dB", "peak 255 over errors of values from 0 to 1"),
)

_CDDFUSE = _as_tectum(
    "en sd sf ag mi vif qabf scd cc ssim psnr",
    mi=_MI_IN_NATS,
    vif=replace(_TECTUM["vif"], detail=f"{SUM}; called VIFF"),
    ssim=Definition(_ssim_of_assumed_range, "", f"{SUM}, uniform window, constants for 2", 7),
    psnr=Definition(_psnr_to_brightest, "dB", "peak is the fused image's brightest pixel"),
)

CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            name="tectum",
            summary="luminance, bits, sums over the sources where the literature sums",
            evaluator="this package",
            by_channel=False,
            luminance=LUMA,
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
            luminance=LUMA,
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

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> fused = torch.maximum(visible, infrared)
    >>> score(fused, visible, infrared, metrics=["mi", "ssim"], convention="cddfuse", data_range=255)
    {'mi': tensor([9.7120], dtype=torch.float64), 'ssim': tensor([1.2272], dtype=torch.float64)}
    """
    rules = get_convention(convention)
    definitions = {key: rules.metrics[key] for key in select_metrics(rules, metrics)}
    return scores_of(_read(fused, visible, infrared, rules, data_range, smallest_size(definitions)), definitions)


def _read(
    fused: Tensor,
    visible: Tensor,
    infrared: Tensor,
    convention: Convention,
    data_range: float | None,
    smallest: tuple[int, str],
) -> Images:
    """Check the three images and take them as the convention does: channel by channel, or their luminance."""
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
