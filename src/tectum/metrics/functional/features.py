"""Feature mutual information (FMI), of windows of 3 × 3 pixels or transform coefficients."""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.errors import ConfigError
from tectum.metrics.functional.images import Images, grey_images

Feature = Literal["pixel", "gradient", "dct", "wavelet"]

_WINDOW = 3
_CHUNK = 4096  # windows at a time: their joint distributions, 81 numbers each, stay in the processor's cache
_DECIMALS = 6
_NOTHING = 1e-12

# Low-pass filter of the discrete Meyer wavelet ("dmey"), from its centre outwards; the other half mirrors it.
_MEYER = (
    0.7445855923188, 0.4445930027576, -0.03508755565626, -0.1328452004362, 0.03065509196082, 0.0637390243228,
    -0.02434874590608, -0.03213079399021, 0.01742343410373, 0.01527001513093, -0.01106149639251, -0.006387718318497,
    0.006045814097323, 0.002202534100911, -0.002704672124644, -0.0006011502343516, 6.554305930575e-05,
    -1.631269973455e-05, 3.205441913345e-06, 7.367572885904e-07, -1.489549216497e-06, 1.130794701792e-06,
    -5.506340565252e-07, 1.178300449766e-07, 8.200680650386e-08, -1.086651653674e-07, 6.066975741351e-08,
    -1.079881953962e-08, -1.111944952595e-08, 8.519459636796e-09, -1.009999956941e-12,
)  # fmt: skip


def fmi(
    fused: Tensor,
    visible: Tensor,
    infrared: Tensor,
    *,
    feature: Feature = "pixel",
    data_range: float | None = None,
) -> Tensor:
    """Feature mutual information of the fused image with its sources (FMI), the mean over both, between 0 and 1.

    It is the mean of 2 I(S, F) / (H(S) + H(F)) over all windows of 3 × 3 elements of a feature image and over both
    sources. In a window, the nine elements, stretched to 0..1 and divided by their sum, are taken as a probability
    distribution (column by column; uniform if all are equal), and the joint distribution of two windows as

        φ B + (1 − φ) p_S p_F,   φ = c · s_S s_F / cov(B),

    where B is the joint distribution with the same marginals of highest (c ≥ 0) or lowest (c < 0) covariance, c is the
    correlation of both windows' elements, and s are the distributions' standard deviations over the positions 1 to 9.
    Equal windows count 1. Feature images are

        pixel: the grey values;
        gradient: horizontal differences, central inside and one-sided at the borders;
        dct: the discrete cosine transform (type 2, orthonormal) of the whole image;
        wavelet: the four subbands of a discrete Meyer wavelet transform, one level, set side by side.

    Their elements are rounded to six decimals, so that windows of nothing but rounding errors are equal. Source:
    M. Haghighat, A. Aghagolzadeh, H. Seyedarabi, "A non-reference image fusion metric based on mutual information of
    image features", Comput. Electr. Eng. 37, 2011, in the fast form of M. Haghighat, M. A. Razian, "Fast-FMI:
    non-reference image fusion metric", AICT 2014. Higher is better.

    It needs images of at least 3 × 3 pixels. A `feature` of another name is a ConfigError.

    >>> visible, infrared = (torch.arange(576).view(1, 1, 24, 24) * step % 200 for step in (3, 7))
    >>> fused = torch.maximum(visible, infrared)
    >>> for feature in ("pixel", "gradient", "dct", "wavelet"):
    ...     print(fmi(fused, visible, infrared, feature=feature, data_range=255))
    tensor([0.4346], dtype=torch.float64)
    tensor([0.2782], dtype=torch.float64)
    tensor([0.3755], dtype=torch.float64)
    tensor([0.4199], dtype=torch.float64)
    """
    if feature not in get_args(Feature):
        raise ConfigError(f"FMI has no feature {feature!r}; the features are {', '.join(get_args(Feature))}")
    images = grey_images(fused, visible, infrared, data_range, (_WINDOW, "FMI"))
    functions = {"pixel": fmi_pixel_of, "gradient": fmi_gradient_of, "dct": fmi_dct_of, "wavelet": fmi_wavelet_of}
    return functions[feature](images)


def fmi_pixel_of(images: Images) -> Tensor:
    return _feature_information(*images.doubles)


def fmi_gradient_of(images: Images) -> Tensor:
    return _feature_information(*(torch.gradient(image, dim=2)[0] for image in images.doubles))


def fmi_dct_of(images: Images) -> Tensor:
    vertical, horizontal = (_cosines(size, images.fused.device) for size in images.fused.shape[1:])
    return _feature_information(*(vertical @ image @ horizontal.T for image in images.doubles))


def fmi_wavelet_of(images: Images) -> Tensor:
    return _feature_information(*(meyer_subbands(image) for image in images.doubles))


def _cosines(size: int, device: torch.device) -> Tensor:
    """Matrix of the orthonormal discrete cosine transform, (size, size) float64."""
    positions = torch.arange(size, dtype=torch.float64, device=device)
    matrix = torch.cos(math.pi / size * positions[:, None] * (positions + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def meyer_subbands(image: Tensor) -> Tensor:
    """One level of the discrete Meyer wavelet transform of (N, H, W) float64: [[A, H], [V, D]], as MATLAB orders it."""
    low = torch.tensor((0.0, *_MEYER[:0:-1], *_MEYER), dtype=torch.float64, device=image.device)
    signs = 1 - 2 * (torch.arange(len(low), device=image.device) % 2)
    bank = torch.stack((low.flip(0), signs * low))[:, None]  # as correlations; (2, 1, taps)

    def split(signals: Tensor) -> Tensor:
        """Low and high band of the last axis, (..., 2, bands)."""
        size, reach = signals.shape[-1], bank.shape[-1] - 1
        # Mirrored beyond the border with the border pixel repeated, as often as the filter needs.
        index = torch.arange(-reach + 1, size + reach, device=signals.device) % (2 * size)
        extended = signals[..., torch.minimum(index, 2 * size - 1 - index)]
        return F.conv1d(extended.reshape(-1, 1, extended.shape[-1]), bank, stride=2).unflatten(0, signals.shape[:-1])

    along_rows = split(image)  # (N, H, 2, w): low and high horizontal frequencies
    bands = split(along_rows.permute(0, 2, 3, 1))  # (N, 2, w, 2, h): then vertical ones
    # The horizontal details H, of high vertical frequency, stand to the right of A, and the vertical ones V below it.
    approximation, horizontal = bands[:, 0].permute(2, 0, 3, 1)
    vertical, diagonal = bands[:, 1].permute(2, 0, 3, 1)
    return torch.cat((torch.cat((approximation, horizontal), 2), torch.cat((vertical, diagonal), 2)), 1)


def _feature_information(fused: Tensor, *sources: Tensor) -> Tensor:
    """Mean of the windows' information over all of them and both sources, from feature images (N, h, w)."""
    fused_windows, *source_windows = (_windows(feature) for feature in (fused, *sources))
    count = len(fused)
    total = torch.zeros(count, dtype=torch.float64, device=fused.device)
    for number in range(count):
        for windows in source_windows:
            pairs = zip(windows[:, number].split(_CHUNK, 1), fused_windows[:, number].split(_CHUNK, 1), strict=True)
            for source_chunk, fused_chunk in pairs:
                total[number] += _window_information(source_chunk, fused_chunk).sum()
    return total / (len(sources) * fused_windows.shape[2])


def _windows(feature: Tensor) -> Tensor:
    """The elements of every window of (N, h, w), column by column: (9, N, windows)."""
    feature = feature.round(decimals=_DECIMALS)
    height, width = (size - _WINDOW + 1 for size in feature.shape[1:])
    shifted = [
        feature[:, row : row + height, column : column + width] for column in range(_WINDOW) for row in range(_WINDOW)
    ]
    return torch.stack(shifted).flatten(2)


class _Distribution:
    """Windows (9, P) as distributions over nine positions."""

    def __init__(self, elements: Tensor) -> None:
        low, high = elements.amin(0), elements.amax(0)
        shape = torch.where(high > low, (elements - low) / (high - low), 1.0)
        self.probability = shape / shape.sum(0)
        self.cumulative = self.probability.cumsum(0)
        self.deviation = torch.where(high > low, self.probability - 1 / len(elements), 0.0)
        positions = torch.arange(1, len(elements) + 1, dtype=torch.float64, device=elements.device)[:, None]
        mean = (positions * self.probability).sum(0)
        self.spread = ((positions.square() * self.probability).sum(0) - mean.square()).clamp_min(0).sqrt()
        self.entropy = -torch.special.xlogy(self.probability, self.probability).sum(0)


def _window_information(source: Tensor, fused: Tensor) -> Tensor:
    """2 I / (H + H) of each of P pairs of windows (9, P)."""
    one, two = _Distribution(source), _Distribution(fused)
    norms = (one.deviation.square().sum(0) * two.deviation.square().sum(0)).sqrt()
    likeness = torch.where(norms > 0, (one.deviation * two.deviation).sum(0) / norms, 0.0)
    rows, columns = one.cumulative[:, None], two.cumulative[None]
    # The joint cumulative distributions of highest and of lowest covariance (Fréchet's bounds).
    bound = torch.where(likeness >= 0, torch.minimum(rows, columns), (rows + columns - 1).clamp_min(0))  # (9, 9, P)
    covariance = (bound - rows * columns).sum((0, 1))
    share = torch.where(covariance.abs() > _NOTHING, likeness * one.spread * two.spread / covariance, 0.0)
    mass = torch.diff(bound, dim=0, prepend=torch.zeros_like(bound[:1]))
    mass = torch.diff(mass, dim=1, prepend=torch.zeros_like(mass[:, :1]))
    joint = mass.mul_(share).add_((1 - share) * (one.probability[:, None] * two.probability[None]))
    # The share can exceed 1, and the "probabilities" fall below 0: the definition goes on with their absolute values.
    joint_entropy = -torch.special.xlogy(joint, joint.abs()).sum((0, 1))
    information = one.entropy + two.entropy - joint_entropy
    whole = one.entropy + two.entropy
    relative = torch.where((whole > _NOTHING) & (information.abs() > _NOTHING), 2 * information / whole, 0.0)
    return torch.where((source == fused).all(0), 1.0, relative)
