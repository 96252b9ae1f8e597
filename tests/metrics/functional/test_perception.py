import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from scipy.signal import convolve2d

from tectum.errors import InputError
from tectum.metrics import functional


def stretched(image):
    image = image.astype(float)
    return np.floor(255 * (image - image.min()) / np.ptp(image) + 0.5)


def filtered(image, response):
    """Filter with a function of the frequency index, on the whole, shifted plane of frequencies."""
    axes = [np.arange(-(size // 2), (size + 1) // 2) for size in image.shape]
    radius = np.hypot(*np.meshgrid(*axes, indexing="ij"))
    return np.fft.ifft2(np.fft.ifftshift(np.fft.fftshift(np.fft.fft2(image)) * response(radius))).real


@pytest.mark.parametrize("crop", [0, 1])
def test_qcb_by_hand(crop, triple, tensors):
    triple = [stretched(image[crop:, crop:]) for image in triple]
    tensors = [image[..., crop:, crop:] for image in tensors]

    def contrast(image):
        seen = filtered(image, lambda r: np.exp(-((r / 15 / 15.387) ** 2)) - 0.7622 * np.exp(-((r / 15 / 1.3456) ** 2)))
        y, x = np.mgrid[-15:16, -15:16]
        blurs = [
            convolve2d(seen, np.exp(-(x**2 + y**2) / (2 * s * s)) / (2 * np.pi * s * s), mode="same") for s in (2, 4)
        ]
        size = np.abs(blurs[0] / blurs[1] - 1)
        return size**3 / (size**2 + 0.0001)

    fused, visible, infrared = map(contrast, triple)
    quality = [np.minimum(source, fused) / np.maximum(source, fused) for source in (visible, infrared)]
    expected = (visible**2 * quality[0] + infrared**2 * quality[1]) / (visible**2 + infrared**2)
    assert functional.qcb(*tensors).item() == pytest.approx(expected.mean(), rel=1e-6)


@pytest.mark.parametrize("crop", [0, 1])
def test_qcv_by_hand(crop, triple, tensors):
    fused, *sources = (stretched(image[crop:, crop:]) for image in triple)
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])

    def blocks(values):
        return [values[y : y + 16, x : x + 16] for y in range(0, len(values), 16) for x in range(0, len(values[0]), 16)]

    numerator = denominator = 0.0
    for source in sources:
        edges = np.hypot(*(correlate(source, weights, mode="constant") for weights in (kernel, kernel.T)))
        seen = filtered(source - fused, lambda r: 2.6 * (0.0192 + 0.144 * r / 4) * np.exp(-((0.144 * r / 4) ** 1.1)))
        for edge, error in zip(blocks(edges), blocks(seen), strict=True):
            numerator += (edge**5).sum() * (error**2).sum() / 256
            denominator += (edge**5).sum()
    images = [image[..., crop:, crop:] for image in tensors]
    assert functional.qcv(*images).item() == pytest.approx(numerator / denominator, rel=1e-6)


def test_viff_by_hand(triple, tensors):
    fused, *sources = (image.astype(float) for image in triple)
    score = 0.0
    for scale, (size, share) in enumerate(zip((17, 9, 5, 3), (1, 0, 0.15, 1), strict=True)):
        reach = np.arange(size) - size // 2
        window = np.exp(-(reach[:, None] ** 2 + reach**2) / (2 * (size / 5) ** 2))
        window /= window.sum()

        def blur(image, window=window):
            return convolve2d(image, window, mode="valid")

        if scale > 0:
            fused, *sources = (blur(image)[::2, ::2] for image in (fused, *sources))
        gains, kept, whole = [], [], []
        fused_variance = np.maximum(blur(fused**2) - blur(fused) ** 2, 0)
        for source in sources:
            variance = np.maximum(blur(source**2) - blur(source) ** 2, 0)
            covariance = blur(source * fused) - blur(source) * blur(fused)
            gain = np.where((variance > 1e-8) & (covariance > 0), covariance / (variance + 1e-10), 0)
            rest = np.maximum(fused_variance - gain * np.maximum(covariance, 0), 0)
            gains.append(gain)
            kept.append(np.log(1 + gain**2 * variance / (rest + 325.125)))
            whole.append(np.log(1 + variance / 325.125))
        harder = np.where(gains[0] < gains[1], 0, 1)[None]
        kept, whole = (np.take_along_axis(np.stack(maps), harder, 0) + 1e-7 for maps in (kept, whole))
        score += share / 2.15 * kept.sum() / whole.sum()
    assert functional.viff(*tensors).item() == pytest.approx(score, rel=1e-4)


def test_equal_images(tensors):
    image = tensors[0]
    assert functional.viff(image, image, image).item() == pytest.approx(1)
    assert functional.qcb(image, image, image).item() == pytest.approx(1)
    assert functional.qcv(image, image, image).item() == 0


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_constant_images_give_numbers(grey, tensors):
    flat = torch.full_like(tensors[0], grey)
    for metric in (functional.viff, functional.qcb, functional.qcv):
        assert metric(flat, flat, flat).isfinite()
        assert metric(flat, *tensors[1:]).isfinite()
        assert metric(tensors[0], flat, tensors[2]).isfinite()
    assert functional.viff(flat, *tensors[1:]).item() == pytest.approx(0, abs=1e-4)


def test_sources_can_be_swapped(tensors):
    fused, visible, infrared = tensors
    for metric in (functional.qcb, functional.qcv):
        assert metric(fused, infrared, visible).item() == pytest.approx(metric(*tensors).item(), rel=1e-9)


def test_viff_needs_four_scales():
    small = torch.zeros(1, 1, 40, 50)
    with pytest.raises(InputError, match="VIFF needs images of at least 41x41 pixels"):
        functional.viff(small, small, small)
