import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from tectum.errors import InputError
from tectum.metrics import functional
from tectum.metrics.functional import MS_SSIM_MINIMUM_SIZE


def test_psnr_and_rmse_are_those_of_scikit_image(triple, tensors):
    fused, *sources = triple
    errors = [mean_squared_error(source, fused) for source in sources]
    assert functional.rmse(*tensors).item() == pytest.approx(np.sqrt(errors).mean(), rel=1e-9)
    assert functional.psnr(*tensors).item() == pytest.approx(10 * np.log10(255**2 / np.mean(errors)), rel=1e-9)
    ratio = peak_signal_noise_ratio(sources[0], fused, data_range=255)
    assert functional.psnr(tensors[0], tensors[1], tensors[1]).item() == pytest.approx(ratio, rel=1e-9)


def test_correlation_coefficient_is_that_of_numpy(triple, tensors):
    fused, *sources = (image.ravel().astype(float) for image in triple)
    expected = np.mean([np.corrcoef(fused, source)[0, 1] for source in sources])
    assert functional.correlation_coefficient(*tensors).item() == pytest.approx(expected, rel=1e-9)


def reference_ssim(first, second):
    _, whole = structural_similarity(
        first, second, full=True, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    return whole[5:-5, 5:-5].mean()


def test_ssim_is_that_of_scikit_image(triple, tensors):
    fused, *sources = (image.astype(float) for image in triple)
    expected = sum(reference_ssim(source, fused) for source in sources)
    assert functional.ssim(*tensors).item() == pytest.approx(expected, rel=1e-9)


def test_ms_ssim_by_hand():
    rng = np.random.default_rng(3)
    size = (MS_SSIM_MINIMUM_SIZE, MS_SSIM_MINIMUM_SIZE + 5)
    source = np.clip(120 + 400 * gaussian_filter(rng.normal(size=size), 3), 0, 255).round()
    fused = np.clip(source + rng.normal(0, 20, size), 0, 255).round()
    score = functional.ms_ssim(*(torch.from_numpy(x).byte()[None, None] for x in (fused, source, source))).item()

    taps = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    window = np.outer(taps, taps) / taps.sum() ** 2
    expected = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale > 0:
            height, width = (length // 2 for length in source.shape)
            source, fused = (
                image[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3)) for image in (source, fused)
            )
        means = [convolve2d(image, window, "valid") for image in (source, fused)]
        one, two = (convolve2d(x * x, window, "valid") - m * m for x, m in zip((source, fused), means, strict=True))
        both = convolve2d(source * fused, window, "valid") - means[0] * means[1]
        structure = ((2 * both + 58.5225) / (one + two + 58.5225)).mean()
        expected *= (reference_ssim(source, fused) if scale == 4 else structure) ** weight
    assert score == pytest.approx(2 * expected, rel=1e-9)


def test_qy_by_hand(triple, tensors):
    taps = np.exp(-(np.arange(-3, 4) ** 2) / 4.5)
    weights = np.outer(taps, taps) / taps.sum() ** 2
    windows = [sliding_window_view(image.astype(float), (7, 7)).reshape(-1, 49) for image in triple]
    means = [view @ weights.ravel() for view in windows]
    centred = [view - mean[:, None] for view, mean in zip(windows, means, strict=True)]
    variances = [(view**2) @ weights.ravel() for view in centred]

    def similarity(one, two):
        covariance = (centred[one] * centred[two]) @ weights.ravel()
        with np.errstate(invalid="ignore"):
            light = 2 * means[one] * means[two] / (means[one] ** 2 + means[two] ** 2)
            structure = 2 * covariance / (variances[one] + variances[two])
        light[np.isnan(light)] = 1  # both black
        structure[np.isnan(structure)] = 1  # both flat
        return light * structure

    with np.errstate(invalid="ignore"):
        share = np.nan_to_num(variances[1] / (variances[1] + variances[2]), nan=0.5)
    visible, infrared = similarity(0, 1), similarity(0, 2)
    redundant = similarity(1, 2) >= 0.75
    assert 0 < redundant.mean() < 1
    expected = np.where(redundant, share * visible + (1 - share) * infrared, np.maximum(visible, infrared)).mean()
    assert functional.qy(*tensors).item() == pytest.approx(expected, rel=1e-6)


def test_equal_images(tensors):
    image = tensors[0]
    assert functional.psnr(image, image, image).item() == np.inf
    assert functional.rmse(image, image, image).item() == 0
    assert functional.correlation_coefficient(image, image, image).item() == pytest.approx(1)
    assert functional.ssim(image, image, image).item() == pytest.approx(2)
    assert functional.qy(image, image, image).item() == pytest.approx(1)


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_constant_images(grey, tensors):
    flat = torch.full_like(tensors[0], grey)
    assert functional.correlation_coefficient(flat, *tensors[1:]).item() == 0
    assert functional.qy(flat, flat, flat).item() == pytest.approx(1)
    assert functional.ssim(flat, flat, flat).item() == pytest.approx(2)
    assert functional.qy(flat, *tensors[1:]).item() < 0.2  # alike only in the saturated and black patches


def test_too_small():
    for metric, size in ((functional.ssim, 11), (functional.ms_ssim, MS_SSIM_MINIMUM_SIZE), (functional.qy, 7)):
        enough = torch.zeros(1, 1, size, size + 3)
        assert metric(enough, enough, enough).isfinite()
        with pytest.raises(InputError, match=f"at least {size}x{size} pixels"):
            metric(enough[:, :, 1:], enough[:, :, 1:], enough[:, :, 1:])
