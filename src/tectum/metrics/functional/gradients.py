"""Metrics from differences of neighbouring pixels: SF, AG, EI, Qabf, Labf, Nabf and seam."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.filters import sobel
from tectum.metrics.functional.images import Images, fused_alone, grey_images

# Xydeas and Petrović's constants for the loss of edge strength (g) and orientation (a): gain, slope, midpoint.
_STRENGTH_GAIN, _STRENGTH_SLOPE, _STRENGTH_MIDPOINT = 0.9994, 15.0, 0.5
_ORIENTATION_GAIN, _ORIENTATION_SLOPE, _ORIENTATION_MIDPOINT = 0.9879, 22.0, 0.8

# Those of Shreyamsha Kumar's Labf and Nabf, which weigh edges by the 1.5th power of their strength, and hardly at all
# where that is below 2.
_LOSS_STRENGTH_GAIN, _LOSS_STRENGTH_SLOPE = 0.9999, 19.0
_LOSS_ORIENTATION_GAIN, _LOSS_ORIENTATION_SLOPE = 0.9995, 22.0
_LOSS_MIDPOINT = 0.5
_LOSS_THRESHOLD, _LOSS_EXPONENT, _LOSS_WEAK_WEIGHT = 2.0, 1.5, 0.001
_LOSS_SIZE = (2, "Labf and Nabf")  # what reflection needs


def spatial_frequency(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Spatial frequency (SF), on the scale of 0 to 255. It needs an image of at least 2 × 2 pixels.

    SF = √(RF² + CF²), where RF² is the mean of the squared differences of horizontal neighbours and CF² that of
    vertical neighbours, each over the differences that exist. A constant image has 0. Source: A. M.
    Eskicioglu, P. S. Fisher, "Image quality measures and their performance", IEEE Trans. Commun. 43, 1995. Higher is
    better.

    >>> spatial_frequency(torch.tensor([[[[0, 3], [4, 7]]]], dtype=torch.uint8))
    tensor([5.], dtype=torch.float64)
    """
    return sf_of(fused_alone(image, data_range, (2, "spatial frequency")))


def sf_of(images: Images) -> Tensor:
    # Differences of 8-bit values and their squares are exact in float32; only the sum needs more.
    rows, columns = (torch.diff(images.fused, dim=dim).square_().mean((1, 2), dtype=torch.float64) for dim in (2, 1))
    return (rows + columns).sqrt()


def average_gradient(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Average gradient (AG), on the scale of 0 to 255. It needs an image of at least 2 × 2 pixels.

    AG = mean √((∂x² + ∂y²) / 2), with central differences inside and one-sided differences at the borders, over all
    pixels. A constant image has 0. Source: G. Cui, H. Feng, Z. Xu, Q. Li, Y. Chen, "Detail preserved fusion of visible
    and infrared images using regional saliency extraction and multi-scale image decomposition", Opt. Commun. 341, 2015.
    Higher is better.

    >>> average_gradient(torch.tensor([[[[0, 1], [7, 8]]]], dtype=torch.uint8))
    tensor([5.], dtype=torch.float64)
    """
    return ag_of(fused_alone(image, data_range, (2, "the average gradient")))


def ag_of(images: Images) -> Tensor:
    vertical, horizontal = torch.gradient(images.fused, dim=(1, 2))
    return ((vertical.square() + horizontal.square()) / 2).sqrt_().mean((1, 2), dtype=torch.float64)


def edge_intensity(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Edge intensity (EI): the mean Sobel edge strength, on a scale on which a step by one grey level counts 4.

    EI = mean √(s_x² + s_y²), s being the Sobel responses, border pixels repeated beyond the border. A constant image
    has 0. It takes images of any size. Source: B. Rajalingam, R. Priya, "Hybrid multimodality medical image fusion
    technique for feature enhancement in medical diagnosis", Int. J. Eng. Sci. Invention, 2018, as cited throughout the
    field. Higher is better.

    >>> edge_intensity(torch.tensor([[[[0, 0, 1, 1]]]], dtype=torch.uint8))
    tensor([2.], dtype=torch.float64)
    """
    return ei_of(fused_alone(image, data_range))


def ei_of(images: Images) -> Tensor:
    horizontal, vertical = sobel(F.pad(images.fused[:, None], (1, 1, 1, 1), mode="replicate")[:, 0])
    return (horizontal.square() + vertical.square()).sqrt_().mean((1, 2), dtype=torch.float64)


def qabf(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Edge information that the fused image has from its sources (Qabf), between 0 and 0.976, for images of any size.

    With Sobel edge strength g (zeros beyond the border) and orientation α = arctan(s_y / s_x),

        Qabf = Σ (g_V Q_VF + g_R Q_RF) / Σ (g_V + g_R),
        Q_SF = 0.9994 / (1 + e^(−15 (G − 0.5))) · 0.9879 / (1 + e^(−22 (A − 0.8))),
        G = min(g_S, g_F) / max(g_S, g_F),   A = 1 − |α_S − α_F| / (π / 2).

    Where both strengths are equal, G is that strength, as in the public evaluators, and not the 1 of the paper: this
    raises Qabf by up to 0.0005 and is needed to repeat published numbers. So are the plain arctan, to which
    orientations just above −π/2 and just below π/2 are opposite though they are nearly the same, and α = π/2 where
    s_x = 0. Equal images come near the upper bound. Black sources, which have no edge, give 0. Source:
    C. S. Xydeas, V. Petrović, "Objective image fusion performance measure", Electron. Lett. 36, 2000. Higher is better.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> qabf(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([0.5309], dtype=torch.float64)
    """
    return qabf_of(grey_images(fused, visible, infrared, data_range))


def qabf_of(images: Images) -> Tensor:
    fused_strength, fused_orientation = _edges(images.fused)
    numerator = denominator = torch.zeros(len(fused_strength), dtype=torch.float64, device=fused_strength.device)
    for source in images.sources:
        strength, orientation = _edges(source)
        weaker, stronger = torch.minimum(strength, fused_strength), torch.maximum(strength, fused_strength)
        relative_strength = torch.where(strength == fused_strength, strength, weaker / stronger)
        relative_orientation = 1 - (orientation - fused_orientation).abs() / (math.pi / 2)
        preserved = torch.sigmoid(_STRENGTH_SLOPE * (relative_strength - _STRENGTH_MIDPOINT))
        preserved *= torch.sigmoid(_ORIENTATION_SLOPE * (relative_orientation - _ORIENTATION_MIDPOINT))
        numerator = numerator + (preserved * strength).sum((1, 2), dtype=torch.float64)
        denominator = denominator + strength.sum((1, 2), dtype=torch.float64)
    score = _STRENGTH_GAIN * _ORIENTATION_GAIN * numerator / denominator
    return torch.where(denominator > 0, score, 0.0)


def _edges(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel edge strength and orientation in (−π/2, π/2], each (N, H, W), zeros beyond the border."""
    horizontal, vertical = sobel(F.pad(grey, (1, 1, 1, 1)))
    strength = (horizontal.square() + vertical.square()).sqrt_()
    # The sign of `vertical` against `horizontal` matters, since π/2 stands for both vertical directions.
    orientation = torch.where(horizontal == 0, math.pi / 2, torch.atan(vertical / horizontal))
    return strength, orientation


def labf(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Edge information of the sources that the fused image has lost (Labf), between 0 and 1.

    It is the companion of `nabf`, with the same Q and w:

        Labf = Σ_lost ((1 − Q_VF) w_V + (1 − Q_RF) w_R) / Σ (w_V + w_R),

    over the pixels at which the fused image has no stronger edge than one of the sources at least (g_F ≤ g_V or
    g_F ≤ g_R). What is left, 1 − Labf − Nabf, is the edge information that was kept, in the same constants; Qabf has
    others. It needs images of at least 2 × 2 pixels. Source: V. Petrović, C. Xydeas, "Objective image fusion
    performance characterisation", ICCV 2005. Lower is better.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> labf(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([0.3205], dtype=torch.float64)
    """
    return labf_of(grey_images(fused, visible, infrared, data_range, _LOSS_SIZE))


def labf_of(images: Images) -> Tensor:
    return images.once(_lost_and_new_edges)[0]


def nabf(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Edge information of the fused image that neither source has: artefacts and noise (Nabf), between 0 and 1.

    With edge strength g, an eighth of Sobel's (the image reflected at the border), orientation α = arctan(s_x / s_y),
    and w = g^1.5 where g ≥ 2 and 0.001 elsewhere,

        Nabf = Σ_new ((1 − Q_VF) w_V + (1 − Q_RF) w_R) / Σ (w_V + w_R),
        Q_SF² = 0.9999 / (1 + e^(−19 (G − 0.5))) · 0.9995 / (1 + e^(−22 (A − 0.5))),
        G = min(g_S, g_F) / max(g_S, g_F),   A = | |α_S − α_F| − π/2 | / (π / 2),

    over the pixels at which the fused image's edge is stronger than that of both sources. It needs images of at least
    2 × 2 pixels. Source: B. K. Shreyamsha Kumar, "Multifocus and multispectral image fusion based on pixel significance
    using discrete cosine harmonic wavelet transform", Signal Image Video Process. 7, 2013, after Petrović and Xydeas.
    Lower is better.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> nabf(visible, infrared, infrared, data_range=255)
    tensor([0.0294], dtype=torch.float64)
    """
    return nabf_of(grey_images(fused, visible, infrared, data_range, _LOSS_SIZE))


def nabf_of(images: Images) -> Tensor:
    return images.once(_lost_and_new_edges)[1]


def seam(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Gradient of the fused image that neither source has: cuts, rims and patches. Needs at least 2 × 2 pixels.

        seam = Σ max(0, |∇F| − max(|∇V|, |∇R|) − 1) / Σ max(|∇V|, |∇R|),

    on the scale of 0 to 255, with central differences inside and one-sided ones at the borders; one grey level is
    rounding. 0 means no edge of its own; two flat sources have a denominator of 1. A choice between the sources has a
    seam wherever it changes at a place at which they differ, which MI and Qabf do not see. Source: this project. Lower
    is better.

    >>> flat = torch.full((1, 1, 8, 8), 100, dtype=torch.uint8)
    >>> ramp = (torch.arange(8) * 10).expand(1, 1, 8, 8).to(torch.uint8)
    >>> seam(ramp, ramp, flat), seam(ramp * 2, ramp, flat)
    (tensor([0.], dtype=torch.float64), tensor([0.9000], dtype=torch.float64))
    """
    return seam_of(grey_images(fused, visible, infrared, data_range, (2, "seam")))


def seam_of(images: Images) -> Tensor:
    strengths = [torch.hypot(*torch.gradient(image, dim=(1, 2))) for image in (images.fused, *images.sources)]
    largest = torch.maximum(strengths[1], strengths[2])
    beyond = (strengths[0] - largest - 1).clamp_(min=0)
    return beyond.sum((1, 2), dtype=torch.float64) / largest.sum((1, 2), dtype=torch.float64).clamp(min=1)


def _lost_and_new_edges(images: Images) -> tuple[Tensor, Tensor]:
    """Labf and Nabf, which share all but the pixels over which they sum."""
    fused_strength, fused_orientation = _reflected_edges(images.fused)
    missing = total = torch.zeros_like(fused_strength)
    new = torch.ones_like(fused_strength, dtype=torch.bool)
    for source in images.sources:
        strength, orientation = _reflected_edges(source)
        stronger = torch.maximum(strength, fused_strength)
        relative_strength = torch.where(stronger > 0, torch.minimum(strength, fused_strength) / stronger, 0.0)
        relative_orientation = ((orientation - fused_orientation).abs() - math.pi / 2).abs() / (math.pi / 2)
        kept = torch.sigmoid(_LOSS_STRENGTH_SLOPE * (relative_strength - _LOSS_MIDPOINT))
        kept *= torch.sigmoid(_LOSS_ORIENTATION_SLOPE * (relative_orientation - _LOSS_MIDPOINT))
        kept = (_LOSS_STRENGTH_GAIN * _LOSS_ORIENTATION_GAIN * kept).sqrt_()
        weight = torch.where(strength >= _LOSS_THRESHOLD, strength**_LOSS_EXPONENT, _LOSS_WEAK_WEIGHT)
        missing = missing + (1 - kept) * weight
        total = total + weight
        new &= fused_strength > strength
    whole = total.sum((1, 2))
    artefacts = (missing * new).sum((1, 2)) / whole
    return missing.sum((1, 2)) / whole - artefacts, artefacts


def _reflected_edges(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Edge strength and orientation of an image that is reflected at its border, each (N, H, W) float64."""
    horizontal, vertical = sobel(F.pad(grey.double()[:, None], (1, 1, 1, 1), mode="reflect")[:, 0] / 8)
    # The arctangent is from the other axis than in Qabf, and 0 where there is no edge at all.
    flat = (horizontal == 0) & (vertical == 0)
    return (horizontal.square() + vertical.square()).sqrt_(), torch.where(flat, 0.0, torch.atan(-horizontal / vertical))
