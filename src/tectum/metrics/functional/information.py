"""Metrics from the distribution of grey levels: EN, SD, MI, NMI, CE and QNCIE."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tectum.errors import InputError
from tectum.metrics.functional.images import LEVELS, MAXIMUM, Images, grey_image, grey_images

__all__ = [
    "cross_entropy",
    "entropy",
    "mutual_information",
    "normalized_mutual_information",
    "qncie",
    "standard_deviation",
]


def entropy(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Shannon entropy of the grey values (EN), in bits.

    EN = −Σ p(k) log₂ p(k) over the 256 grey levels k, p being their relative frequency. Between 0 for a constant image
    and 8. Source: J. W. Roberts, J. A. van Aardt, F. B. Ahmed, "Assessment of image fusion procedures using entropy,
    image quality, and multispectral classification", J. Appl. Remote Sens. 2, 2008. Higher is better.

    Args:
        image: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong shape or type, NaN, or values that do not fit `data_range`.
    """
    return histogram_entropy(_histograms(grey_image("image", image, data_range), LEVELS))


def standard_deviation(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Standard deviation of the grey values (SD), on the scale of 0 to 255.

    SD = √(mean (x − mean x)²), over the whole population (divided by N, not N − 1). 0 for a constant image. Source:
    Y.-J. Rao, "In-fibre Bragg grating sensors", Meas. Sci. Technol. 8, 1997, as cited throughout the field. Higher is
    better.

    Args:
        image: (B, 1, H, W).
        data_range: largest grey value; see the package.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong shape or type, NaN, or values that do not fit `data_range`.
    """
    return _deviation(grey_image("image", image, data_range))


def mutual_information(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, base: float = 2.0, data_range: float | None = None
) -> Tensor:
    """Mutual information of the fused image with its sources (MI), a sum over both.

    MI = I(F, V) + I(F, R), where I(F, S) = H(F) + H(S) − H(F, S) from the joint histogram of 256 × 256 grey levels. 0
    if the fused image, or both sources, are constant. Source: G. Qu, D. Zhang, P. Yan, "Information measure for
    performance of image fusion", Electron. Lett. 38, 2002. Higher is better, though an image that merely repeats one
    source scores high.

    Args:
        fused: (B, 1, H, W).
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        base: base of the logarithm: 2 for bits, `math.e` for nats (one bit is 0.693 nats).
        data_range: largest grey value; see the package.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, or values that do not fit `data_range`.
    """
    if not base > 1:
        raise InputError(f"the base of the logarithm must be above 1, not {base}: 2 gives bits, math.e gives nats")
    return mutual_bits(grey_images(fused, visible, infrared, data_range)) * (math.log(2) / math.log(base))


def normalized_mutual_information(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None
) -> Tensor:
    """Normalised mutual information of the fused image with its sources (NMI, Q_MI), between 0 and 2.

    NMI = 2 (I(F, V) / (H(F) + H(V)) + I(F, R) / (H(F) + H(R))), each term between 0 and 1 and free of the logarithm's
    base; a term of two constant images counts 0. 2 if all three images are equal. Source: M. Hossny, S. Nahavandi,
    D. Creighton, "Comments on 'Information measure for performance of image fusion'", Electron. Lett. 44, 2008. Higher
    is better.

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
    return normalized_mutual(grey_images(fused, visible, infrared, data_range))


def cross_entropy(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Cross entropy of the sources' grey levels and the fused image's (CE), in bits, the mean over both sources.

    CE = (D(V, F) + D(R, F)) / 2 with D(S, F) = Σ p_S(k) log₂ (p_S(k) / p_F(k)) over the grey levels k that occur in
    both images: the field's name for a Kullback-Leibler divergence of two histograms. Levels that the fused image lacks
    would make it infinite; leaving them out, as every public evaluator does, can make it negative. 0 for equal images.
    Source: D. M. Bulanon, T. F. Burks, V. Alchanatis, "Image fusion of visible and thermal images for fruit detection",
    Biosyst. Eng. 103, 2009. Lower is better.

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
    return divergence_bits(grey_images(fused, visible, infrared, data_range))


def qncie(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Nonlinear correlation information entropy of the three images (QNCIE), between 0 and 1, mostly 0.80 to 0.85.

    QNCIE = 1 + Σ (λ_i / 3) log₂₅₆ (λ_i / 3), where λ_i are the eigenvalues of the 3 × 3 matrix whose diagonal is 1 and
    whose other elements are the mutual information of two of the images, in units of log 256. Source: Q. Wang, Y. Shen,
    J. Jin, "Performance evaluation of image fusion techniques", in Image Fusion: Algorithms and Applications, 2008.
    Higher is better.

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
    return correlation_information(grey_images(fused, visible, infrared, data_range))


class Information(NamedTuple):
    """Entropies in bits; rows of two are the visible and the infrared image."""

    fused: Tensor  # (N,)
    sources: Tensor  # (2, N)
    joint: Tensor  # (2, N), of the fused image with each source

    @property
    def mutual(self) -> Tensor:
        """(2, N); never negative but for the last digit."""
        return (self.fused + self.sources - self.joint).clamp_min(0)


def information(images: Images) -> Information:
    joint = _joint_histograms(images.fused, torch.stack(images.sources))  # (2, N, 256, 256)
    rows, columns = joint.sum(3), joint.sum(2)
    return Information(histogram_entropy(rows[0]), histogram_entropy(columns), histogram_entropy(joint.flatten(2)))


def entropy_bits(images: Images) -> Tensor:
    return histogram_entropy(_histograms(images.fused, LEVELS))


def deviation(images: Images) -> Tensor:
    return _deviation(images.fused)


def mutual_bits(images: Images) -> Tensor:
    return images.once(information).mutual.sum(0)


def saturated_mutual_bits(images: Images) -> Tensor:
    """Mutual information whose joint histograms, but not whose entropies, take the level 255 for 254.

    So counts MATLAB code that adds 1 to 8-bit values before it uses them as indices.
    """
    terms = images.once(information)
    fused, visible, infrared = (image.clamp_max(MAXIMUM - 1) for image in (images.fused, *images.sources))
    joint = _joint_histograms(fused, torch.stack((visible, infrared))).flatten(2)
    return (terms.fused + terms.sources - histogram_entropy(joint)).sum(0)


def normalized_mutual(images: Images) -> Tensor:
    terms = images.once(information)
    whole = terms.fused + terms.sources
    return torch.where(whole > 0, 2 * terms.mutual / whole, 0.0).sum(0)


def divergence_bits(images: Images) -> Tensor:
    fused = _histograms(images.fused, LEVELS).double()
    pixels = fused.sum(1)
    total = torch.zeros_like(pixels)
    for source in images.sources:
        counts = _histograms(source, LEVELS).double()
        ratio = torch.where((counts > 0) & (fused > 0), counts / fused, 1.0)
        total += (counts * ratio.log()).sum(1) / pixels
    return total / (2 * math.log(2))


def correlation_information(images: Images) -> Tensor:
    visible, infrared = images.sources
    terms = images.once(information)
    joint = histogram_entropy(_joint_histograms(visible, infrared[None])[0].flatten(1))
    mutual = torch.cat((terms.mutual, (terms.sources.sum(0) - joint)[None])) / math.log2(LEVELS)
    matrix = torch.eye(3, dtype=torch.float64, device=mutual.device).repeat(mutual.shape[1], 1, 1)
    for value, (row, column) in zip(mutual, ((0, 2), (1, 2), (0, 1)), strict=True):
        matrix[:, row, column] = matrix[:, column, row] = value
    share = (torch.linalg.eigvalsh(matrix) / 3).clamp_min(0)
    return 1 + torch.special.xlogy(share, share).sum(1) / math.log(LEVELS)


def _deviation(grey: Tensor) -> Tensor:
    return grey.double().flatten(1).std(1, correction=0)


def histogram_entropy(counts: Tensor) -> Tensor:
    """Entropy in bits of each row of integer counts (..., bins)."""
    counts = counts.double()
    total = counts.sum(-1)
    # H = log N − Σ c log c / N needs no division per bin, and an empty bin adds nothing.
    return (total.log() - torch.special.xlogy(counts, counts).sum(-1) / total) / math.log(2)


def _histograms(codes: Tensor, bins: int) -> Tensor:
    """Count the integers 0..bins − 1 in each row of codes (N, ...), in one pass."""
    rows = len(codes)
    offsets = torch.arange(rows, device=codes.device).mul_(bins).view(-1, *[1] * (codes.ndim - 1))
    return torch.bincount((codes.long() + offsets).flatten(), minlength=rows * bins).view(rows, bins)


def _joint_histograms(first: Tensor, second: Tensor) -> Tensor:
    """Joint counts of (N, H, W) with each of (K, N, H, W): (K, N, 256, 256), the first image's levels in rows."""
    codes = (first * LEVELS + second).flatten(0, 1)
    return _histograms(codes, LEVELS**2).view(len(second), len(first), LEVELS, LEVELS)
