"""Metrics from the distribution of grey levels: EN, SD, MI, NMI, CE and QNCIE. They take images of any size."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tectum.errors import InputError
from tectum.metrics.functional.images import LEVELS, Images, fused_alone, grey_images


def entropy(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Shannon entropy of the grey values (EN), in bits, for images of any size.

    EN = −Σ p(k) log₂ p(k) over the 256 grey levels k, p being their relative frequency. It is between 0, for a constant
    image, and 8. Source: J. W. Roberts, J. A. van Aardt, F. B. Ahmed, "Assessment of image fusion procedures using
    entropy, image quality, and multispectral classification", J. Appl. Remote Sens. 2, 2008. Higher is better.

    >>> entropy(torch.tensor([[[[10, 20], [30, 40]]]], dtype=torch.uint8))
    tensor([2.], dtype=torch.float64)
    """
    return en_of(fused_alone(image, data_range))


def en_of(images: Images) -> Tensor:
    return _entropy(_histograms(images.fused, LEVELS))


def standard_deviation(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Standard deviation of the grey values (SD), on the scale of 0 to 255, for images of any size.

    SD = √(mean (x − mean x)²), over the whole population (divided by N, not N − 1). A constant image has 0. Source:
    Y.-J. Rao, "In-fibre Bragg grating sensors", Meas. Sci. Technol. 8, 1997, as cited throughout the field. Higher is
    better.

    >>> standard_deviation(torch.tensor([[[[10, 20]]]], dtype=torch.uint8))
    tensor([5.], dtype=torch.float64)
    """
    return sd_of(fused_alone(image, data_range))


def sd_of(images: Images) -> Tensor:
    return images.fused.double().flatten(1).std(1, correction=0)


def mutual_information(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, base: float = 2.0, data_range: float | None = None
) -> Tensor:
    """Mutual information of the fused image with its sources (MI), a sum over both, for images of any size.

    MI = I(F, V) + I(F, R), where I(F, S) = H(F) + H(S) − H(F, S) from the joint histogram of 256 × 256 grey levels. It
    is between 0, if the fused image or both sources are constant, and 16 bits. Source: G. Qu, D. Zhang, P. Yan,
    "Information measure for performance of image fusion", Electron. Lett. 38, 2002. Higher is better, though an image
    that merely repeats one source scores high.

    `base` is that of the logarithm: 2 for bits, `math.e` for nats (one bit is 0.693 nats); an InputError says that it
    must be above 1.

    >>> halves, quarters = torch.tensor([[[[0, 0, 1, 1]]], [[[0, 1, 2, 3]]]], dtype=torch.uint8)[:, None]
    >>> mutual_information(quarters, quarters, halves)
    tensor([3.], dtype=torch.float64)
    """
    if not base > 1:
        raise InputError(f"the base of the logarithm must be above 1, not {base}: 2 gives bits, math.e gives nats")
    return mi_of(grey_images(fused, visible, infrared, data_range)) * (math.log(2) / math.log(base))


def mi_of(images: Images) -> Tensor:
    return images.once(entropies).mutual.sum(0)


def normalized_mutual_information(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None
) -> Tensor:
    """Normalised mutual information of the fused image with its sources (NMI, Q_MI), between 0 and 2.

    NMI = 2 (I(F, V) / (H(F) + H(V)) + I(F, R) / (H(F) + H(R))), each term between 0 and 1 and free of the logarithm's
    base; a term of two constant images counts 0. Three equal images have 2. It takes images of any size. Source:
    M. Hossny, S. Nahavandi, D. Creighton, "Comments on 'Information measure for performance of image fusion'",
    Electron. Lett. 44, 2008. Higher is better.

    >>> halves, quarters = torch.tensor([[[[0, 0, 1, 1]]], [[[0, 1, 2, 3]]]], dtype=torch.uint8)[:, None]
    >>> normalized_mutual_information(quarters, quarters, halves)
    tensor([1.6667], dtype=torch.float64)
    """
    return nmi_of(grey_images(fused, visible, infrared, data_range))


def nmi_of(images: Images) -> Tensor:
    terms = images.once(entropies)
    whole = terms.fused + terms.sources
    return torch.where(whole > 0, 2 * terms.mutual / whole, 0.0).sum(0)


def cross_entropy(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Cross entropy of the sources' grey levels and the fused image's (CE), in bits, the mean over both sources.

    CE = (D(V, F) + D(R, F)) / 2 with D(S, F) = Σ p_S(k) log₂ (p_S(k) / p_F(k)) over the grey levels k that occur in
    both images: the field's name for a Kullback-Leibler divergence of two histograms. Levels that the fused image lacks
    would make it infinite; leaving them out, as every public evaluator does, can make it negative. Equal images have 0.
    It takes images of any size. Source: D. M. Bulanon, T. F. Burks, V. Alchanatis, "Image fusion of visible and thermal
    images for fruit detection", Biosyst. Eng. 103, 2009. Lower is better.

    >>> halves, quarters = torch.tensor([[[[0, 0, 1, 1]]], [[[0, 1, 2, 3]]]], dtype=torch.uint8)[:, None]
    >>> cross_entropy(quarters, quarters, halves)
    tensor([0.5000], dtype=torch.float64)
    """
    return ce_of(grey_images(fused, visible, infrared, data_range))


def ce_of(images: Images) -> Tensor:
    fused = _histograms(images.fused, LEVELS).double()
    pixels = fused.sum(1)
    total = torch.zeros_like(pixels)
    for source in images.sources:
        counts = _histograms(source, LEVELS).double()
        ratio = torch.where((counts > 0) & (fused > 0), counts / fused, 1.0)
        total += (counts * ratio.log()).sum(1) / pixels
    return total / (2 * math.log(2))


def qncie(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Nonlinear correlation information entropy of the three images (QNCIE), between 0 and 1, mostly 0.80 to 0.85.

    QNCIE = 1 + Σ (λ_i / 3) log₂₅₆ (λ_i / 3), where λ_i are the eigenvalues of the 3 × 3 matrix whose diagonal is 1 and
    whose other elements are the mutual information of two of the images, in units of log 256. It takes images of any
    size. Source: Q. Wang, Y. Shen, J. Jin, "Performance evaluation of image fusion techniques", in Image Fusion:
    Algorithms and Applications, 2008. Higher is better.

    >>> halves, quarters = torch.tensor([[[[0, 0, 1, 1]]], [[[0, 1, 2, 3]]]], dtype=torch.uint8)[:, None]
    >>> qncie(quarters, quarters, halves)
    tensor([0.8074], dtype=torch.float64)
    """
    return qncie_of(grey_images(fused, visible, infrared, data_range))


def qncie_of(images: Images) -> Tensor:
    visible, infrared = images.sources
    terms = images.once(entropies)
    joint = _entropy(_joint_histograms(visible, infrared[None])[0].flatten(1))
    mutual = torch.cat((terms.mutual, (terms.sources.sum(0) - joint)[None])) / math.log2(LEVELS)
    matrix = torch.eye(3, dtype=torch.float64, device=mutual.device).repeat(mutual.shape[1], 1, 1)
    for value, (row, column) in zip(mutual, ((0, 2), (1, 2), (0, 1)), strict=True):
        matrix[:, row, column] = matrix[:, column, row] = value
    share = (torch.linalg.eigvalsh(matrix) / 3).clamp_min(0)
    return 1 + torch.special.xlogy(share, share).sum(1) / math.log(LEVELS)


class Entropies(NamedTuple):
    """Entropies in bits; rows of two are the visible and the infrared image."""

    fused: Tensor  # (N,)
    sources: Tensor  # (2, N)
    joint: Tensor  # (2, N), of the fused image with each source

    @property
    def mutual(self) -> Tensor:
        """(2, N); never negative but for the last digit."""
        return (self.fused + self.sources - self.joint).clamp_min(0)


def entropies(images: Images) -> Entropies:
    joint = _joint_histograms(images.fused, torch.stack(images.sources))  # (2, N, 256, 256)
    rows, columns = joint.sum(3), joint.sum(2)
    return Entropies(_entropy(rows[0]), _entropy(columns), _entropy(joint.flatten(2)))


def _entropy(counts: Tensor) -> Tensor:
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
