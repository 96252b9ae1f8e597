"""Fusion metrics as pure functions on batches of grey images.

Every function takes tensors of shape (B, 1, H, W), the luminance of the fused and the visible image and the infrared
image, and returns one number per image, a float64 tensor of shape (B,). `fusion_scores` computes all eight at once and
shares what they have in common.

What the field's evaluators leave open is fixed here as follows, for every metric of this module:

- Images are taken as 8-bit pictures: values are scaled from [0, `data_range`] to [0, 255], clamped, and rounded. A
  float image and its saved 8-bit picture have the same scores.
- `data_range` is 255 for uint8 and 1.0 for floating-point images unless it is given; given, it holds for all images of
  the call. Other integer types need it.
- Mutual information is in bits.
- Where a metric compares the fused image with both sources, the two values are added, not averaged (MI, VIF, SCD).
- The channels of a colour image are not scored one by one: pass its luminance.

Tensors on Apple's MPS are moved to the CPU first, since MPS has no float64.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.errors import InputError

__all__ = [
    "FUSION_METRICS",
    "VIF_MINIMUM_SIZE",
    "average_gradient",
    "entropy",
    "fusion_scores",
    "mutual_information",
    "qabf",
    "scd",
    "spatial_frequency",
    "standard_deviation",
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

VIF_MINIMUM_SIZE = 41
"""Smallest height and width for which all four scales of VIF exist."""

_LEVELS = 256
_MAXIMUM = _LEVELS - 1.0

# Xydeas and Petrović's constants for the loss of edge strength (g) and orientation (a): gain, slope, midpoint.
_STRENGTH_GAIN, _STRENGTH_SLOPE, _STRENGTH_MIDPOINT = 0.9994, 15.0, 0.5
_ORIENTATION_GAIN, _ORIENTATION_SLOPE, _ORIENTATION_MIDPOINT = 0.9879, 22.0, 0.8

_VIF_NOISE = 2.0  # variance of the visual noise, for grey values of 0 to 255
_VIF_WINDOWS = (17, 9, 5, 3)  # one per scale
_VIF_EPSILON = 1e-10

_ANY_SIZE = (1, "a score")  # smallest height and width, and what needs them
_VIF_SIZE = (VIF_MINIMUM_SIZE, "VIF")


class _Images(NamedTuple):
    """The three images of a call as 8-bit grey values in float32, each (B, H, W)."""

    fused: Tensor
    visible: Tensor
    infrared: Tensor


def entropy(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Shannon entropy of the grey values (EN), in bits.

    EN = −Σ p(k) log₂ p(k) over the 256 grey levels k, p being their relative frequency. Between 0 for a constant image
    and 8. Source: J. W. Roberts, J. A. van Aardt, F. B. Ahmed, "Assessment of image fusion procedures using entropy,
    image quality, and multispectral classification", J. Appl. Remote Sens. 2, 2008. Higher is better.

    Args:
        image: (B, 1, H, W).
        data_range: largest grey value; see the module.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong shape or type, NaN, or values that do not fit `data_range`.
    """
    return _entropy(_eight_bit("image", image, data_range))


def standard_deviation(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Standard deviation of the grey values (SD), on the scale of 0 to 255.

    SD = √(mean (x − mean x)²), over the whole population (divided by N, not N − 1). 0 for a constant image. Source:
    Y.-J. Rao, "In-fibre Bragg grating sensors", Meas. Sci. Technol. 8, 1997, as cited throughout the field. Higher is
    better.

    Args:
        image: (B, 1, H, W).
        data_range: largest grey value; see the module.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong shape or type, NaN, or values that do not fit `data_range`.
    """
    return _standard_deviation(_eight_bit("image", image, data_range))


def spatial_frequency(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Spatial frequency (SF), on the scale of 0 to 255.

    SF = √(RF² + CF²), where RF² is the mean of the squared differences of horizontal neighbours and CF² that of
    vertical neighbours, each over the differences that exist. 0 for a constant image. Source: A. M. Eskicioglu,
    P. S. Fisher, "Image quality measures and their performance", IEEE Trans. Commun. 43, 1995. Higher is better.

    Args:
        image: (B, 1, H, W), H and W at least 2.
        data_range: largest grey value; see the module.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong shape or type, NaN, values that do not fit `data_range`, or an image that is too small.
    """
    return _spatial_frequency(_eight_bit("image", image, data_range, smallest=(2, "spatial frequency")))


def average_gradient(image: Tensor, *, data_range: float | None = None) -> Tensor:
    """Average gradient (AG), on the scale of 0 to 255.

    AG = mean √((∂x² + ∂y²) / 2), with central differences inside and one-sided differences at the borders, over all
    pixels. 0 for a constant image. Source: G. Cui, H. Feng, Z. Xu, Q. Li, Y. Chen, "Detail preserved fusion of visible
    and infrared images using regional saliency extraction and multi-scale image decomposition", Opt. Commun. 341, 2015.
    Higher is better.

    Args:
        image: (B, 1, H, W), H and W at least 2.
        data_range: largest grey value; see the module.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong shape or type, NaN, values that do not fit `data_range`, or an image that is too small.
    """
    return _average_gradient(_eight_bit("image", image, data_range, smallest=(2, "the average gradient")))


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
        data_range: largest grey value; see the module.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, or values that do not fit `data_range`.
    """
    if not base > 1:
        raise InputError(f"the base of the logarithm must be above 1, not {base}: 2 gives bits, math.e gives nats")
    information = _mutual_information(_eight_bit_images(fused, visible, infrared, data_range))
    return information * (math.log(2) / math.log(base))


def visual_information_fidelity(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None
) -> Tensor:
    """Visual information fidelity in the pixel domain (VIF), a sum over both sources.

    VIF = VIF(V, F) + VIF(R, F). With local variances σ² and covariances under Gaussian windows of 17, 9, 5 and 3 pixels
    (standard deviation a fifth of that, no padding) at four scales, each filtered and halved from the one before,

        VIF(S, F) = Σ log(1 + g² σ_S² / (σ_F² − g σ_SF + 2)) / Σ log(1 + σ_S² / 2),   g = σ_SF / σ_S²,

    g being 0 where σ_SF is negative or the source is flat. The noise variance of 2 belongs to grey values of 0 to
    255. A constant source has nothing to lose and counts 1. 2 if all three images are equal; it can exceed that where
    the fused image has more contrast. Source: H. R. Sheikh, A. C. Bovik, "Image information and visual quality", IEEE
    Trans. Image Process. 15, 2006, and their pixel-domain implementation. Higher is better.

    Args:
        fused: (B, 1, H, W), H and W at least 41.
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the module.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, values that do not fit `data_range`, or images that are
            too small for the fourth scale.
    """
    return _visual_information_fidelity(_eight_bit_images(fused, visible, infrared, data_range, smallest=_VIF_SIZE))


def qabf(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Edge information that the fused image has from its sources (Qabf), between 0 and 0.976.

    With Sobel edge strength g (zeros beyond the border) and orientation α = arctan(s_y / s_x),

        Qabf = Σ (g_V Q_VF + g_R Q_RF) / Σ (g_V + g_R),
        Q_SF = 0.9994 / (1 + e^(−15 (G − 0.5))) · 0.9879 / (1 + e^(−22 (A − 0.8))),
        G = min(g_S, g_F) / max(g_S, g_F),   A = 1 − |α_S − α_F| / (π / 2).

    Where both strengths are equal, G is that strength, as in the public evaluators, and not the 1 of the paper: this
    raises Qabf by up to 0.0005 and is needed to repeat published numbers. So are the plain arctan, to which
    orientations just above −π/2 and just below π/2 are opposite though they are nearly the same, and α = π/2 where
    s_x = 0. Equal images come near the upper bound. 0 if both sources are black, and so have no edge. Source:
    C. S. Xydeas, V. Petrović, "Objective image fusion performance measure", Electron. Lett. 36, 2000. Higher is better.

    Args:
        fused: (B, 1, H, W).
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the module.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, or values that do not fit `data_range`.
    """
    return _qabf(_eight_bit_images(fused, visible, infrared, data_range))


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
        data_range: largest grey value; see the module.

    Returns:
        (B,) float64.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, or values that do not fit `data_range`.
    """
    return _scd(_eight_bit_images(fused, visible, infrared, data_range))


def fusion_scores(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None
) -> dict[str, Tensor]:
    """All eight metrics of this module at once, each as its own function gives it.

    Args:
        fused: (B, 1, H, W), H and W at least 41.
        visible: (B, 1, H, W).
        infrared: (B, 1, H, W).
        data_range: largest grey value; see the module.

    Returns:
        The keys of `FUSION_METRICS` in their order, each (B,) float64. Higher is better for each.

    Raises:
        InputError: wrong or unequal shapes, wrong type, NaN, values that do not fit `data_range`, or images that are
            too small for VIF.
    """
    images = _eight_bit_images(fused, visible, infrared, data_range, smallest=_VIF_SIZE)
    return {
        "en": _entropy(images.fused),
        "sd": _standard_deviation(images.fused),
        "sf": _spatial_frequency(images.fused),
        "ag": _average_gradient(images.fused),
        "mi": _mutual_information(images),
        "vif": _visual_information_fidelity(images),
        "qabf": _qabf(images),
        "scd": _scd(images),
    }


def _eight_bit(name: str, image: Tensor, data_range: float | None, smallest: tuple[int, str] = _ANY_SIZE) -> Tensor:
    """Check an image and return its grey values 0..255, rounded, as float32 (B, H, W)."""
    if image.ndim != 4 or image.shape[1] != 1:
        raise InputError(
            f"{name}: expected a grey batch of shape (B, 1, H, W), found {tuple(image.shape)}; "
            "of a colour image, pass the luminance"
        )
    height, width = image.shape[2:]
    if min(height, width) < smallest[0]:
        raise InputError(
            f"{name}: {smallest[1]} needs images of at least {smallest[0]}x{smallest[0]} pixels, found {width}x{height}"
        )
    if len(image) == 0:
        raise InputError(f"{name}: the batch has no image")
    if image.dtype == torch.bool or image.is_complex():
        raise InputError(f"{name}: expected grey values, found {image.dtype}")
    if data_range is None:
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise InputError(f"{name}: a {image.dtype} image needs data_range, its largest possible grey value")
        data_range = 1.0 if image.is_floating_point() else _MAXIMUM
    elif not 0 < data_range < math.inf:
        raise InputError(f"data_range must be a positive number, not {data_range}")
    if image.device.type == "mps":
        image = image.cpu()
    grey = image.detach().squeeze(1)
    if grey.dtype == torch.uint8 and data_range == _MAXIMUM:
        return grey.float()
    grey = grey.double() if grey.dtype in (torch.float64, torch.int32, torch.int64) else grey.float()
    low, high = (float(value) for value in torch.aminmax(grey))
    if math.isnan(low) or math.isnan(high):
        raise InputError(f"{name}: the image has NaN values")
    # A network's raw output may exceed the range a little, and is clamped as it is when saved. Far beyond it, the
    # caller has the range wrong, and every score would be silently wrong.
    if high > 4 * data_range or low < -4 * data_range:
        raise InputError(
            f"{name}: values from {low:g} to {high:g} do not fit data_range {data_range:g}; "
            "pass the data_range that the image has"
        )
    return (grey * (_MAXIMUM / data_range)).clamp(0, _MAXIMUM).round().float()


def _eight_bit_images(
    fused: Tensor, visible: Tensor, infrared: Tensor, data_range: float | None, smallest: tuple[int, str] = _ANY_SIZE
) -> _Images:
    if not fused.shape == visible.shape == infrared.shape:
        raise InputError(
            "the three images must have one shape: "
            f"fused {tuple(fused.shape)}, visible {tuple(visible.shape)}, infrared {tuple(infrared.shape)}"
        )
    return _Images(
        _eight_bit("fused", fused, data_range, smallest),
        _eight_bit("visible", visible, data_range, smallest),
        _eight_bit("infrared", infrared, data_range, smallest),
    )


def _histogram_entropy(counts: Tensor) -> Tensor:
    """Entropy in bits of each row of integer counts (N, bins)."""
    counts = counts.double()
    total = counts.sum(1)
    # H = log N − Σ c log c / N needs no division per bin, and an empty bin adds nothing.
    return (total.log() - torch.special.xlogy(counts, counts).sum(1) / total) / math.log(2)


def _histograms(codes: Tensor, bins: int) -> Tensor:
    """Count the integers 0..bins − 1 in each row of codes (N, ...), in one pass."""
    rows = len(codes)
    offsets = torch.arange(rows, device=codes.device).mul_(bins).view(-1, *[1] * (codes.ndim - 1))
    return torch.bincount((codes.long() + offsets).flatten(), minlength=rows * bins).view(rows, bins)


def _entropy(grey: Tensor) -> Tensor:
    return _histogram_entropy(_histograms(grey, _LEVELS))


def _standard_deviation(grey: Tensor) -> Tensor:
    return grey.double().flatten(1).std(1, correction=0)


def _spatial_frequency(grey: Tensor) -> Tensor:
    # Differences of 8-bit values and their squares are exact in float32; only the sum needs more.
    rows = (grey[:, :, 1:] - grey[:, :, :-1]).square_().mean((1, 2), dtype=torch.float64)
    columns = (grey[:, 1:] - grey[:, :-1]).square_().mean((1, 2), dtype=torch.float64)
    return (rows + columns).sqrt()


def _average_gradient(grey: Tensor) -> Tensor:
    vertical, horizontal = torch.gradient(grey, dim=(1, 2))
    return ((vertical.square() + horizontal.square()) / 2).sqrt_().mean((1, 2), dtype=torch.float64)


def _mutual_information(images: _Images) -> Tensor:
    """Sum of both sources' mutual information with the fused image, in bits."""
    sources = torch.stack((images.visible, images.infrared))  # (2, B, H, W)
    batch = sources.shape[1]
    joint = _histograms((images.fused * _LEVELS + sources).flatten(0, 1), _LEVELS**2).view(-1, _LEVELS, _LEVELS)
    information = (
        _histogram_entropy(joint.sum(2)) + _histogram_entropy(joint.sum(1)) - _histogram_entropy(joint.flatten(1))
    )
    return information.clamp_min(0).view(2, batch).sum(0)  # never negative but for the last digit


def _smooth(image: Tensor, size: int, stride: int = 1) -> Tensor:
    """Filter (B, H, W) with a Gaussian window of `size` pixels, without padding, and keep every `stride`-th pixel."""
    centre = size // 2
    weights = [math.exp(-((k - centre) ** 2) / (2 * (size / 5) ** 2)) for k in range(size)]
    weights = [weight / sum(weights) for weight in weights]
    # Sums of shifted images: on a CPU several times faster than a float64 convolution with one channel.
    for dim in (1, 2):
        length = image.shape[dim] - size + 1
        shifted = [image.narrow(dim, k, length) for k in range(size)]
        if stride > 1:
            shifted = [part[:, ::stride] if dim == 1 else part[..., ::stride] for part in shifted]
        image = shifted[centre] * weights[centre]
        for part, weight in zip(shifted, weights, strict=True):
            if part is not shifted[centre]:
                image.add_(part, alpha=weight)
    return image


def _visual_information_fidelity(images: _Images) -> Tensor:
    # In float64, as variances are small differences of large means of squares. They do not depend on the mean;
    # without it a constant image has no variance at all, and an integer mean leaves every value exact.
    fused, *sources = (image.double() - image.mean((1, 2), keepdim=True).round() for image in images)
    kept = [torch.zeros(len(fused), dtype=torch.float64, device=fused.device) for _ in sources]
    whole = [torch.zeros_like(total) for total in kept]
    for scale, size in enumerate(_VIF_WINDOWS):
        if scale > 0:
            fused, *sources = (_smooth(image, size, stride=2) for image in (fused, *sources))
        fused_mean = _smooth(fused, size)
        fused_variance = F.threshold(_smooth(fused.square(), size) - fused_mean.square(), _VIF_EPSILON, 0)
        for which, source in enumerate(sources):
            mean = _smooth(source, size)
            variance = F.threshold(_smooth(source.square(), size) - mean.square(), _VIF_EPSILON, 0)
            covariance = (_smooth(source * fused, size) - mean * fused_mean).clamp_min_(0)
            gain = covariance / (variance + _VIF_EPSILON)
            distortion = (fused_variance - gain * covariance).clamp_min_(_VIF_EPSILON)
            kept[which] += torch.log1p(gain.square_() * variance / (distortion + _VIF_NOISE)).sum((1, 2))
            whole[which] += torch.log1p(variance / _VIF_NOISE).sum((1, 2))
    kept_sums, whole_sums = torch.stack(kept), torch.stack(whole)  # (2, B)
    return torch.where(whole_sums > 0, kept_sums / whole_sums, 1.0).sum(0)


def _edges(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel edge strength and orientation in (−π/2, π/2], each (B, H, W)."""
    padded = F.pad(grey, (1, 1, 1, 1))
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    rows = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    horizontal = columns[..., :-2] - columns[..., 2:]
    # The sign against `horizontal` matters, since π/2 stands for both vertical directions: it is that of a convolution.
    vertical = rows[:, 2:] - rows[:, :-2]
    strength = (horizontal.square() + vertical.square()).sqrt_()
    orientation = torch.where(horizontal == 0, math.pi / 2, torch.atan(vertical / horizontal))
    return strength, orientation


def _qabf(images: _Images) -> Tensor:
    fused_strength, fused_orientation = _edges(images.fused)
    numerator = denominator = torch.zeros(len(fused_strength), dtype=torch.float64, device=fused_strength.device)
    for source in (images.visible, images.infrared):
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


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation over the pixels of (B, H, W) float64; 0 where one of the two is constant."""
    first = (first - first.mean((1, 2), keepdim=True)).flatten(1)
    second = (second - second.mean((1, 2), keepdim=True)).flatten(1)
    scale = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(scale > 0, (first * second).sum(1) / scale, 0.0)


def _scd(images: _Images) -> Tensor:
    fused, visible, infrared = (image.double() for image in images)
    return _correlation(fused - infrared, visible) + _correlation(fused - visible, infrared)
