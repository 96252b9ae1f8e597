"""Metrics that compare the fused image with its sources pixel by pixel or window by window.

PSNR, RMSE, CC, SCD, SSIM, MS-SSIM and Qy.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.filters import gaussian, separable
from tectum.metrics.functional.images import MAXIMUM, Images, grey_images

_SSIM_WINDOW = gaussian(11, 1.5)
_QY_WINDOW = gaussian(7, 1.5)
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

MS_SSIM_MINIMUM_SIZE = len(_SSIM_WINDOW) * 2 ** (len(_SCALE_WEIGHTS) - 1)
"""Smallest height and width for which all five scales of MS-SSIM hold a whole window."""

_QY_EPSILON = 2e-16
_QY_REDUNDANT = 0.75
# Of 8-bit values under the window of Qy, a variance is 0 or at least 0.001; below this it is rounding.
_QY_FLAT = 1e-6


def psnr(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Peak signal-to-noise ratio of the fused image against its sources (PSNR), in dB, for images of any size.

    PSNR = 10 log₁₀ (255² / MSE), MSE being the mean of the squared differences to the visible and to the infrared
    image. It is infinite if all three are equal. Source: P. Jagalingam, A. V. Hegde, "A review of quality metrics for
    fused image", Aquat. Procedia 4, 2015. Higher is better, though what it rewards is the mean of both sources.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> psnr(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([13.2359], dtype=torch.float64)
    """
    return psnr_of(grey_images(fused, visible, infrared, data_range))


def psnr_of(images: Images) -> Tensor:
    return 10 * torch.log10(MAXIMUM**2 / images.once(_squared_errors).mean(0))


def rmse(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Root mean squared difference of the fused image to its sources (RMSE), in grey levels, the mean over both.

    RMSE = (√(mean (F − V)²) + √(mean (F − R)²)) / 2. Three equal images have 0. It takes images of any size. Source:
    P. Jagalingam, A. V. Hegde, "A review of quality metrics for fused image", Aquat. Procedia 4, 2015. Lower is better,
    though what it rewards is the mean of both sources.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> rmse(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([55.5578], dtype=torch.float64)
    """
    return rmse_of(grey_images(fused, visible, infrared, data_range))


def rmse_of(images: Images) -> Tensor:
    return images.once(_squared_errors).sqrt().mean(0)


def correlation_coefficient(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None
) -> Tensor:
    """Correlation of the fused image with its sources (CC), the mean over both, between −1 and 1.

    CC = (corr(F, V) + corr(F, R)) / 2, corr being Pearson's correlation over the pixels. A correlation with a constant
    image is not defined and counts 0. It takes images of any size. Source: M. Deshmukh, U. Bhosale, "Image fusion and
    image quality assessment of fused images", Int. J. Image Process. 4, 2010, as cited throughout the field. Higher is
    better.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> correlation_coefficient(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([0.6469], dtype=torch.float64)
    """
    return cc_of(grey_images(fused, visible, infrared, data_range))


def cc_of(images: Images) -> Tensor:
    fused, visible, infrared = images.doubles
    return (_correlation(fused, visible) + _correlation(fused, infrared)) / 2


def scd(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Sum of the correlations of differences (SCD), between −2 and 2, for images of any size.

    SCD = corr(F − R, V) + corr(F − V, R), corr being Pearson's correlation over the pixels: what the fused image adds
    to one source should be the other one. A correlation with a constant image is not defined and counts 0; so the
    visible image itself, for which F − V vanishes, is judged by the first term alone. Source: V. Aslantas, E. Bendes,
    "A new image quality metric for image fusion: the sum of the correlations of differences", AEU 69, 2015. Higher is
    better.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> scd(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([1.1947], dtype=torch.float64)
    """
    return scd_of(grey_images(fused, visible, infrared, data_range))


def scd_of(images: Images) -> Tensor:
    fused, visible, infrared = images.doubles
    return _correlation(fused - infrared, visible) + _correlation(fused - visible, infrared)


def ssim(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Structural similarity of the fused image and its sources (SSIM), a sum over both, between −2 and 2.

    SSIM = SSIM(V, F) + SSIM(R, F), each the mean over all whole windows of

        (2 μ_S μ_F + C₁) (2 σ_SF + C₂) / ((μ_S² + μ_F² + C₁) (σ_S² + σ_F² + C₂)),

    with means, variances and covariance under a Gaussian window of 11 pixels (standard deviation 1.5),
    C₁ = (0.01 · 255)² and C₂ = (0.03 · 255)². Three equal images have 2. It needs images of at least 11 × 11 pixels.
    Source: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE Trans. Image Process. 13, 2004. Higher is better.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> ssim(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([1.2476], dtype=torch.float64)
    """
    return ssim_of(grey_images(fused, visible, infrared, data_range, (len(_SSIM_WINDOW), "SSIM")))


def ssim_of(images: Images) -> Tensor:
    return images.once(_standard_similarity)[0].sum(0)


def ms_ssim(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Structural similarity at five scales (MS-SSIM), a sum over both sources, between 0 and 2.

    MS-SSIM(S, F) = Π c_k^w_k · l₅^w₅ with w = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333): at scales 1 to 4 the mean of
    SSIM's contrast and structure factor, at the fifth that of all of SSIM, negative means counting 0. From scale to
    scale, images are averaged over 2 × 2 pixels; an odd last row or column is left out. Three equal images have 2. It
    needs images of at least 176 × 176 pixels. Source: Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multiscale structural
    similarity for image quality assessment", Asilomar 2003. Higher is better.

    >>> visible, infrared = (torch.arange(30976).view(1, 1, 176, 176) * step % 200 for step in (3, 7))
    >>> ms_ssim(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([1.3977], dtype=torch.float64)
    """
    return ms_ssim_of(grey_images(fused, visible, infrared, data_range, (MS_SSIM_MINIMUM_SIZE, "MS-SSIM")))


def ms_ssim_of(images: Images) -> Tensor:
    whole, structure = images.once(_standard_similarity)
    stack = torch.stack(images.doubles)
    score = structure.clamp_min(0) ** _SCALE_WEIGHTS[0]
    for weight in _SCALE_WEIGHTS[1:]:
        stack = F.avg_pool2d(stack, 2)
        whole, structure = similarity_means(stack[0], list(stack[1:]), _SSIM_WINDOW, MAXIMUM)
        score = score * (whole if weight is _SCALE_WEIGHTS[-1] else structure).clamp_min(0) ** weight
    return score.sum(0)


def qy(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Structural similarity to the source that matters at each place (Qy, Yang's metric), at most 1.

    It is the mean over all whole windows of

        λ SSIM(V, F) + (1 − λ) SSIM(R, F)   where SSIM(V, R) ≥ 0.75, with λ = σ_V² / (σ_V² + σ_R²),
        max(SSIM(V, F), SSIM(R, F))         elsewhere,

    SSIM being taken under a Gaussian window of 7 pixels (standard deviation 1.5) without the stabilising constants. Two
    windows without variance are alike in structure, and λ is 1/2 for them. Three equal images have 1. It needs images
    of at least 7 × 7 pixels. Source: C. Yang, J.-Q. Zhang, X.-R. Wang, X. Liu, "A novel similarity based quality metric
    for image fusion", Inf. Fusion 9, 2008. Higher is better.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> qy(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([0.7884], dtype=torch.float64)
    """
    return qy_of(grey_images(fused, visible, infrared, data_range, (len(_QY_WINDOW), "Qy")))


def qy_of(images: Images) -> Tensor:
    pictures = images.doubles
    terms = []
    for picture in pictures:
        mean, variance = _moments(picture, _QY_WINDOW)
        terms.append((mean, F.threshold(variance, _QY_FLAT, 0)))

    def similarity(first: int, second: int) -> Tensor:
        product_mean = separable(pictures[first] * pictures[second], _QY_WINDOW)
        return _plain_similarity(terms[first], terms[second], product_mean)

    to_visible, to_infrared = similarity(0, 1), similarity(0, 2)
    variances = terms[1][1] + terms[2][1]
    share = torch.where(variances > 0, terms[1][1] / variances, 0.5)
    both = share * to_visible + (1 - share) * to_infrared
    redundant = similarity(1, 2) >= _QY_REDUNDANT
    return torch.where(redundant, both, torch.maximum(to_visible, to_infrared)).mean((1, 2))


def _squared_errors(images: Images) -> Tensor:
    """Mean squared difference of the fused image to the visible and to the infrared one, (2, N) in grey levels²."""
    return torch.stack(
        [(images.fused - source).square_().mean((1, 2), dtype=torch.float64) for source in images.sources]
    )


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation over the pixels of (N, H, W) float64; 0 where one of the two is constant."""
    first = (first - first.mean((1, 2), keepdim=True)).flatten(1)
    second = (second - second.mean((1, 2), keepdim=True)).flatten(1)
    scale = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(scale > 0, (first * second).sum(1) / scale, 0.0)


def _moments(image: Tensor, window: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Local mean and variance of (N, H, W) float64."""
    mean = separable(image, window)
    return mean, separable(image.square(), window) - mean.square()


def similarity_means(
    fused: Tensor, sources: Sequence[Tensor], window: Sequence[float], peak: float, unbiased: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Means of SSIM, and of its contrast and structure factor alone, for each of K sources.

    Args:
        fused: (N, H, W) float64.
        sources: K of the same shape.
        window: weights along one axis.
        peak: the range of values that sets the stabilising constants.
        unbiased: factor of variances and covariances.

    Returns:
        Two (K, N) tensors.
    """
    stability = ((0.01 * peak) ** 2, (0.03 * peak) ** 2)
    fused_mean, fused_variance = _moments(fused, window)
    whole, structure = [], []
    for source in sources:
        mean, variance = _moments(source, window)
        covariance = separable(source * fused, window) - mean * fused_mean
        factor = 2 * unbiased * covariance + stability[1]
        factor /= unbiased * (variance + fused_variance) + stability[1]
        structure.append(factor.mean((1, 2)))
        factor *= (2 * mean * fused_mean + stability[0]) / (mean.square() + fused_mean.square() + stability[0])
        whole.append(factor.mean((1, 2)))
    return torch.stack(whole), torch.stack(structure)


def _standard_similarity(images: Images) -> tuple[Tensor, Tensor]:
    fused, *sources = images.doubles
    return similarity_means(fused, sources, _SSIM_WINDOW, MAXIMUM)


def _plain_similarity(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], product_mean: Tensor) -> Tensor:
    """Map of SSIM with next to no stabilising constants, from both images' moments and the mean of their product."""
    (first_mean, first_variance), (second_mean, second_variance) = first, second
    covariance = product_mean - first_mean * second_mean
    covariance = torch.where((first_variance > 0) & (second_variance > 0), covariance, 0.0)
    light = (2 * first_mean * second_mean + _QY_EPSILON) / (first_mean.square() + second_mean.square() + _QY_EPSILON)
    return light * (2 * covariance + _QY_EPSILON) / (first_variance + second_variance + _QY_EPSILON)
