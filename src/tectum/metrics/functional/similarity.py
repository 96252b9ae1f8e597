"""Metrics that compare the fused image with its sources pixel by pixel or window by window.

PSNR, RMSE, CC, SCD, SSIM, MS-SSIM and Qy.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.metrics.functional.images import MAXIMUM, Images, gaussian, grey_images, separable

__all__ = [
    "MS_SSIM_MINIMUM_SIZE",
    "correlation_coefficient",
    "ms_ssim",
    "psnr",
    "qy",
    "rmse",
    "scd",
    "ssim",
]

_SSIM_WINDOW = gaussian(11, 1.5)
_QY_WINDOW = gaussian(7, 1.5)
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

MS_SSIM_MINIMUM_SIZE = len(_SSIM_WINDOW) * 2 ** (len(_SCALE_WEIGHTS) - 1)
"""Smallest height and width for which all five scales of MS-SSIM hold a whole window."""

SSIM_SIZE = (len(_SSIM_WINDOW), "SSIM")
MS_SSIM_SIZE = (MS_SSIM_MINIMUM_SIZE, "MS-SSIM")
QY_SIZE = (len(_QY_WINDOW), "Qy")

_QY_EPSILON = 2e-16
_QY_REDUNDANT = 0.75
# Of 8-bit values under the window of Qy, a variance is 0 or at least 0.001; below this it is rounding.
_QY_FLAT = 1e-6


def psnr(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Peak signal-to-noise ratio of the fused image against its sources (PSNR), in dB.

    PSNR = 10 log₁₀ (255² / MSE), MSE being the mean of the squared differences to the visible and to the infrared
    image. Infinite if all three are equal. Source: P. Jagalingam, A. V. Hegde, "A review of quality metrics for fused
    image", Aquat. Procedia 4, 2015. Higher is better, though what it rewards is the mean of both sources.

    Args:
        fused: (B, 1, H, W).
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, or values that do not fit `data_range`.
    """
    return peak_ratio(grey_images(fused, visible, infrared, data_range))


def rmse(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Root mean squared difference of the fused image to its sources (RMSE), in grey levels, the mean over both.

    RMSE = (√(mean (F − V)²) + √(mean (F − R)²)) / 2. 0 if all three images are equal. Source: P. Jagalingam,
    A. V. Hegde, "A review of quality metrics for fused image", Aquat. Procedia 4, 2015. Lower is better, though what it
    rewards is the mean of both sources.

    Args:
        fused: (B, 1, H, W).
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, or values that do not fit `data_range`.
    """
    return root_error(grey_images(fused, visible, infrared, data_range))


def correlation_coefficient(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None
) -> Tensor:
    """Correlation of the fused image with its sources (CC), the mean over both, between −1 and 1.

    CC = (corr(F, V) + corr(F, R)) / 2, corr being Pearson's correlation over the pixels. A correlation with a constant
    image is not defined and counts 0. Source: M. Deshmukh, U. Bhosale, "Image fusion and image quality assessment of
    fused images", Int. J. Image Process. 4, 2010, as cited throughout the field. Higher is better.

    Args:
        fused: (B, 1, H, W).
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, or values that do not fit `data_range`.
    """
    return mean_correlation(grey_images(fused, visible, infrared, data_range))


def scd(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Sum of the correlations of differences (SCD), between −2 and 2.

    SCD = corr(F − R, V) + corr(F − V, R), corr being Pearson's correlation over the pixels: what the fused image adds
    to one source should be the other one. A correlation with a constant image is not defined and counts 0; so the
    visible image itself, for which F − V vanishes, is judged by the first term alone. Source: V. Aslantas, E. Bendes,
    "A new image quality metric for image fusion: the sum of the correlations of differences", AEU 69, 2015. Higher is
    better.

    Args:
        fused: (B, 1, H, W).
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, or values that do not fit `data_range`.
    """
    return difference_correlation(grey_images(fused, visible, infrared, data_range))


def ssim(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Structural similarity of the fused image and its sources (SSIM), a sum over both, between −2 and 2.

    SSIM = SSIM(V, F) + SSIM(R, F), each the mean over all whole windows of

        (2 μ_S μ_F + C₁) (2 σ_SF + C₂) / ((μ_S² + μ_F² + C₁) (σ_S² + σ_F² + C₂)),

    with means, variances and covariance under a Gaussian window of 11 pixels (standard deviation 1.5),
    C₁ = (0.01 · 255)² and C₂ = (0.03 · 255)². 2 if all three images are equal. Source: Z. Wang, A. C. Bovik,
    H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
    Trans. Image Process. 13, 2004. Higher is better.

    Args:
        fused: (B, 1, H, W), H and W at least 11.
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, values that do not fit `data_range`, or images that are
            smaller than the window.
    """
    return structural_similarity(grey_images(fused, visible, infrared, data_range, SSIM_SIZE))


def ms_ssim(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Structural similarity at five scales (MS-SSIM), a sum over both sources, between 0 and 2.

    MS-SSIM(S, F) = Π c_k^w_k · l₅^w₅ with w = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333): at scales 1 to 4 the mean of
    SSIM's contrast and structure factor, at the fifth that of all of SSIM, negative means counting 0. From scale to
    scale, images are averaged over 2 × 2 pixels; an odd last row or column is left out. 2 if all three images are
    equal. Source: Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multiscale structural similarity for image quality
    assessment", Asilomar 2003. Higher is better.

    Args:
        fused: (B, 1, H, W), H and W at least 176.
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, values that do not fit `data_range`, or images that are
            too small for the fifth scale.
    """
    return multiscale_similarity(grey_images(fused, visible, infrared, data_range, MS_SSIM_SIZE))


def qy(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Structural similarity to the source that matters at each place (Qy, Yang's metric), at most 1.

    The mean over all whole windows of

        λ SSIM(V, F) + (1 − λ) SSIM(R, F)   where SSIM(V, R) ≥ 0.75, with λ = σ_V² / (σ_V² + σ_R²),
        max(SSIM(V, F), SSIM(R, F))         elsewhere,

    SSIM being taken under a Gaussian window of 7 pixels (standard deviation 1.5) without the stabilising constants. Two
    windows without variance are alike in structure, and λ is 1/2 for them. 1 if all three images are equal. Source:
    C. Yang, J.-Q. Zhang, X.-R. Wang, X. Liu, "A novel similarity based quality metric for image fusion", Inf. Fusion 9,
    2008. Higher is better.

    Args:
        fused: (B, 1, H, W), H and W at least 7.
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, values that do not fit `data_range`, or images that are
            smaller than the window.
    """
    return selective_similarity(grey_images(fused, visible, infrared, data_range, QY_SIZE))


def squared_errors(images: Images) -> Tensor:
    """Mean squared difference of the fused image to the visible and to the infrared one, (2, N) in grey levels²."""
    return torch.stack(
        [(images.fused - source).square_().mean((1, 2), dtype=torch.float64) for source in images.sources]
    )


def peak_ratio(images: Images) -> Tensor:
    return 10 * torch.log10(MAXIMUM**2 / images.once(squared_errors).mean(0))


def root_error(images: Images) -> Tensor:
    return images.once(squared_errors).sqrt().mean(0)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation over the pixels of (N, H, W) float64; 0 where one of the two is constant."""
    first = (first - first.mean((1, 2), keepdim=True)).flatten(1)
    second = (second - second.mean((1, 2), keepdim=True)).flatten(1)
    scale = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(scale > 0, (first * second).sum(1) / scale, 0.0)


def mean_correlation(images: Images) -> Tensor:
    fused, visible, infrared = (image.double() for image in (images.fused, *images.sources))
    return (_correlation(fused, visible) + _correlation(fused, infrared)) / 2


def difference_correlation(images: Images) -> Tensor:
    fused, visible, infrared = (image.double() for image in (images.fused, *images.sources))
    return _correlation(fused - infrared, visible) + _correlation(fused - visible, infrared)


def moments(image: Tensor, window: Sequence[float]) -> tuple[Tensor, Tensor]:
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
    fused_mean, fused_variance = moments(fused, window)
    whole, structure = [], []
    for source in sources:
        mean, variance = moments(source, window)
        covariance = separable(source * fused, window) - mean * fused_mean
        factor = 2 * unbiased * covariance + stability[1]
        factor /= unbiased * (variance + fused_variance) + stability[1]
        structure.append(factor.mean((1, 2)))
        factor *= (2 * mean * fused_mean + stability[0]) / (mean.square() + fused_mean.square() + stability[0])
        whole.append(factor.mean((1, 2)))
    return torch.stack(whole), torch.stack(structure)


def standard_similarity(images: Images) -> tuple[Tensor, Tensor]:
    fused, *sources = (image.double() for image in (images.fused, *images.sources))
    return similarity_means(fused, sources, _SSIM_WINDOW, MAXIMUM)


def structural_similarity(images: Images) -> Tensor:
    return images.once(standard_similarity)[0].sum(0)


def multiscale_similarity(images: Images) -> Tensor:
    whole, structure = images.once(standard_similarity)
    stack = torch.stack((images.fused, *images.sources)).double()
    score = structure.clamp_min(0) ** _SCALE_WEIGHTS[0]
    for weight in _SCALE_WEIGHTS[1:]:
        stack = F.avg_pool2d(stack, 2)
        whole, structure = similarity_means(stack[0], list(stack[1:]), _SSIM_WINDOW, MAXIMUM)
        score = score * (whole if weight is _SCALE_WEIGHTS[-1] else structure).clamp_min(0) ** weight
    return score.sum(0)


def _plain_similarity(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], product_mean: Tensor) -> Tensor:
    """Map of SSIM with next to no stabilising constants, from both images' moments and the mean of their product."""
    (first_mean, first_variance), (second_mean, second_variance) = first, second
    covariance = product_mean - first_mean * second_mean
    covariance = torch.where((first_variance > 0) & (second_variance > 0), covariance, 0.0)
    light = (2 * first_mean * second_mean + _QY_EPSILON) / (first_mean.square() + second_mean.square() + _QY_EPSILON)
    return light * (2 * covariance + _QY_EPSILON) / (first_variance + second_variance + _QY_EPSILON)


def selective_similarity(images: Images) -> Tensor:
    pictures = [image.double() for image in (images.fused, *images.sources)]
    terms = []
    for picture in pictures:
        mean, variance = moments(picture, _QY_WINDOW)
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
