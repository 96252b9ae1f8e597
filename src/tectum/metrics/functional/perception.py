"""Metrics that model human vision: VIF, VIFF, Qcb and Qcv."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.filters import edge_strength, gaussian, separable
from tectum.metrics.functional.images import MAXIMUM, Images, grey_images, stretch

VIF_MINIMUM_SIZE = 41
"""Smallest height and width for which all four scales of VIF exist."""

_VIF_NOISE = 2.0  # variance of the visual noise, for grey values of 0 to 255
_VIF_WINDOWS = (17, 9, 5, 3)  # one per scale
_VIF_EPSILON = 1e-10

_VIFF_NOISE = 0.005 * MAXIMUM**2
_VIFF_WEIGHTS = tuple(weight / 2.15 for weight in (1.0, 0.0, 0.15, 1.0))  # one per scale
_VIFF_EPSILON = 1e-7

# Contrast sensitivity of Qcb, a difference of Gaussians over frequencies of which 1 stands for 15 periods an image,
# and the masking of a contrast C as C³ / (C² + Z).
_QCB_WIDE, _QCB_NARROW, _QCB_SHARE, _QCB_PERIODS = 15.3870, 1.3456, 0.7622, 15.0
_QCB_MASKING = 0.0001
_QCB_RADIUS = 15
_QCB_SIGMAS = (2.0, 4.0)

_QCV_BLOCK = 16
_QCV_EXPONENT = 5
_QCV_PERIODS = 4.0


def visual_information_fidelity(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None
) -> Tensor:
    """Visual information fidelity in the pixel domain (VIF), a sum over both sources.

    VIF = VIF(V, F) + VIF(R, F). With local variances σ² and covariances under Gaussian windows of 17, 9, 5 and 3 pixels
    (standard deviation a fifth of that, no padding) at four scales, each filtered and halved from the one before,

        VIF(S, F) = Σ log(1 + g² σ_S² / (σ_F² − g σ_SF + 2)) / Σ log(1 + σ_S² / 2),   g = σ_SF / σ_S²,

    g being 0 where σ_SF is negative or the source is flat. The noise variance of 2 belongs to grey values of 0 to
    255. A constant source has nothing to lose and counts 1. VIF is at least 0; three equal images have 2, and it can
    exceed that where the fused image has more contrast. It needs images of at least 41 × 41 pixels. Source: H. R.
    Sheikh, A. C. Bovik, "Image information and visual quality", IEEE Trans. Image Process. 15, 2006, and their
    pixel-domain implementation. Higher is better.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> visual_information_fidelity(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([0.2087], dtype=torch.float64)
    """
    return vif_of(grey_images(fused, visible, infrared, data_range, (VIF_MINIMUM_SIZE, "VIF")))


def vif_of(images: Images) -> Tensor:
    kept, whole = torch.zeros(2, 2, len(images.fused), dtype=torch.float64, device=images.fused.device)
    for channels in _scales(images):
        for which, channel in enumerate(channels):
            kept_here, whole_here = channel.information(_VIF_NOISE)
            kept[which] += kept_here.sum((1, 2))
            whole[which] += whole_here.sum((1, 2))
    return torch.where(whole > 0, kept / whole, 1.0).sum(0)


def viff(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Visual information fidelity for fusion (VIFF): at each pixel, against the source that is harder to keep.

    With g and the variances of `visual_information_fidelity`, at each of the same four scales,

        F_k = Σ log(1 + g² σ_S² / (σ_F² − g σ_SF + σ_n²)) / Σ log(1 + σ_S² / σ_n²),   σ_n² = 0.005 · 255²,

    S being, pixel by pixel, the source with the smaller g (the infrared image where both are equal), each sum taken
    with 10⁻⁷ a pixel on top; VIFF = (F₁ + 0.15 F₃ + F₄) / 2.15. It is at least 0, and 1 if all three images are equal.
    It needs images of at least 41 × 41 pixels. Source: Y. Han, Y. Cai, Y. Cao, X. Xu, "A new image fusion performance
    metric based on visual information fidelity", Inf. Fusion 14, 2013. Higher is better. What CDDFuse's evaluator calls
    VIFF is VIF.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> viff((visible + infrared) // 2, visible, infrared, data_range=255)
    tensor([0.3320], dtype=torch.float64)
    """
    return viff_of(grey_images(fused, visible, infrared, data_range, (VIF_MINIMUM_SIZE, "VIFF")))


def viff_of(images: Images) -> Tensor:
    score = torch.zeros(len(images.fused), dtype=torch.float64, device=images.fused.device)
    for weight, (visible, infrared) in zip(_VIFF_WEIGHTS, _scales(images), strict=True):
        harder = visible.gain < infrared.gain
        kept, whole = (
            (torch.where(harder, *maps) + _VIFF_EPSILON).sum((1, 2))
            for maps in zip(visible.information(_VIFF_NOISE), infrared.information(_VIFF_NOISE), strict=True)
        )
        score += weight * kept / whole
    return score


def qcb(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Preserved contrast as the eye sees it (Qcb, Chen and Blum's metric), between 0 and 1.

    Each image is stretched to its own minimum and maximum and filtered with a contrast sensitivity function,
    exp(−(r / 15.3870)²) − 0.7622 exp(−(r / 1.3456)²), r being 1 for 15 periods an image. Its contrast is
    C = |(G₂ ∗ x) / (G₄ ∗ x) − 1|, with Gaussians of standard deviation 2 and 4 (31 pixels wide, zeros beyond the
    border), masked as C' = C³ / (C² + 0.0001). Then

        Qcb = mean (λ_V Q_VF + λ_R Q_RF),   Q_SF = min(C'_S, C'_F) / max(C'_S, C'_F),   λ_S = C'_S² / (C'_V² + C'_R²).

    Two vanishing contrasts are equal, and share the weight evenly. Three equal images have 1. It takes images of any
    size. Source: Y. Chen, R. S. Blum, "A new automated quality assessment algorithm for image fusion", Image Vis.
    Comput. 27, 2009, as in Z. Liu et al.'s toolbox. Higher is better.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> qcb(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([0.6134], dtype=torch.float64)
    """
    return qcb_of(grey_images(fused, visible, infrared, data_range))


def qcb_of(images: Images) -> Tensor:
    images = images.once(stretch)
    radius = _frequencies(images.fused, _QCB_PERIODS)
    sensitivity = torch.exp(-((radius / _QCB_WIDE) ** 2)) - _QCB_SHARE * torch.exp(-((radius / _QCB_NARROW) ** 2))

    def contrast(grey: Tensor) -> Tensor:
        seen = _filtered(grey, sensitivity)
        narrow, wide = (_blurred(seen, sigma) for sigma in _QCB_SIGMAS)
        size = torch.where(wide == 0, 0.0, narrow / wide - 1).abs_()
        return size**3 / (size.square() + _QCB_MASKING)

    fused, visible, infrared = map(contrast, (images.fused, *images.sources))
    weights = visible.square() + infrared.square()
    total = torch.zeros_like(fused)
    for source in (visible, infrared):
        larger = torch.maximum(source, fused)
        preserved = torch.where(larger > 0, torch.minimum(source, fused) / larger, 1.0)
        total += preserved * torch.where(weights > 0, source.square() / weights, 0.5)
    return total.mean((1, 2))


def qcv(fused: Tensor, visible: Tensor, infrared: Tensor, *, data_range: float | None = None) -> Tensor:
    """Visible difference to the salient regions of the sources (Qcv, Chen and Varshney's metric), at least 0.

    Each image is stretched to its own minimum and maximum. The differences V − F and R − F are filtered with Mannos and
    Sakrison's contrast sensitivity function, 2.6 (0.0192 + 0.144 r) exp(−(0.144 r)^1.1), r being 1 for 4 periods an
    image; D is the mean of their squares over a block of 16 × 16 pixels, zeros completing the blocks at the right and
    the lower border. Then

        Qcv = Σ (λ_V D_V + λ_R D_R) / Σ (λ_V + λ_R),

    over all blocks, λ being the sum of the 5th powers of the source's Sobel edge strength in the block. It is 0 if all
    three images are equal, and if both sources are black. It takes images of any size. Source: H. Chen, P. K. Varshney,
    "A human perception inspired quality metric for image fusion based on regional information", Inf. Fusion 8, 2007, as
    in Z. Liu et al.'s toolbox. Lower is better.

    >>> visible, infrared = (torch.arange(2304).view(1, 1, 48, 48) * step % 200 for step in (3, 7))
    >>> qcv(torch.maximum(visible, infrared), visible, infrared, data_range=255)
    tensor([2193.5715], dtype=torch.float64)
    """
    return qcv_of(grey_images(fused, visible, infrared, data_range))


def qcv_of(images: Images) -> Tensor:
    images = images.once(stretch)
    radius = 0.144 * _frequencies(images.fused, _QCV_PERIODS)
    sensitivity = 2.6 * (0.0192 + radius) * torch.exp(-(radius**1.1))
    difference = total = torch.zeros(len(images.fused), dtype=torch.float64, device=images.fused.device)
    for source in images.sources:
        salience = _block_sums(edge_strength(source.double()) ** _QCV_EXPONENT)
        error = _block_sums(_filtered(source - images.fused, sensitivity).square()) / _QCV_BLOCK**2
        difference = difference + (salience * error).sum((1, 2))
        total = total + salience.sum((1, 2))
    return torch.where(total > 0, difference / total, 0.0)


class _Channel(NamedTuple):
    """One scale of VIF's model of how a source reaches the fused image: maps (N, h, w)."""

    variance: Tensor  # of the source
    gain: Tensor
    distortion: Tensor  # variance of what the fused image has beside the amplified source

    def information(self, noise: float) -> tuple[Tensor, Tensor]:
        """What the eye sees of the source in the fused image, and what it would see in the source itself."""
        kept = torch.log1p(self.gain.square() * self.variance / (self.distortion + noise))
        return kept, torch.log1p(self.variance / noise)


def _scales(images: Images) -> Iterator[tuple[_Channel, _Channel]]:
    """The channels from the visible and from the infrared image, from the finest to the coarsest scale."""
    # They are float64, as variances are small differences of large means of squares. Variances do not depend on the
    # mean; without it a constant image has none at all, and an integer mean leaves every value exact.
    fused, *sources = (image - image.mean((1, 2), keepdim=True).round() for image in images.doubles)
    for scale, size in enumerate(_VIF_WINDOWS):
        window = gaussian(size, size / 5)
        if scale > 0:
            fused, *sources = (separable(image, window, stride=2) for image in (fused, *sources))
        fused_mean = separable(fused, window)
        fused_variance = F.threshold(separable(fused.square(), window) - fused_mean.square(), _VIF_EPSILON, 0)
        channels = []
        for source in sources:
            mean = separable(source, window)
            variance = F.threshold(separable(source.square(), window) - mean.square(), _VIF_EPSILON, 0)
            covariance = (separable(source * fused, window) - mean * fused_mean).clamp_min_(0)
            gain = covariance / (variance + _VIF_EPSILON)
            channels.append(_Channel(variance, gain, (fused_variance - gain * covariance).clamp_min_(_VIF_EPSILON)))
        yield channels[0], channels[1]


def _frequencies(grey: Tensor, periods: float) -> Tensor:
    """Spatial frequency of each element of the real FFT of (N, H, W), in units of `periods` an image."""
    (height, width), device = grey.shape[1:], grey.device
    vertical = torch.fft.fftfreq(height, 1 / height, dtype=torch.float64, device=device)[:, None]
    horizontal = torch.fft.rfftfreq(width, 1 / width, dtype=torch.float64, device=device)
    return torch.hypot(vertical, horizontal) / periods


def _filtered(grey: Tensor, response: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(grey.double()) * response, s=grey.shape[1:])


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian whose infinite sum, not that of its window, is one; zeros beyond the border."""
    weights = [
        math.exp(-(k**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
        for k in range(-_QCB_RADIUS, _QCB_RADIUS + 1)
    ]
    return separable(F.pad(image, (_QCB_RADIUS,) * 4), weights)


def _block_sums(values: Tensor) -> Tensor:
    """Sums over blocks of 16 × 16 pixels of (N, H, W), zeros completing the last ones."""
    height, width = values.shape[1:]
    padded = F.pad(values, (0, -width % _QCV_BLOCK, 0, -height % _QCV_BLOCK))
    return padded.unflatten(2, (-1, _QCV_BLOCK)).unflatten(1, (-1, _QCV_BLOCK)).sum((2, 4))
