import math

import numpy as np
import pytest
import pywt
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import dctn

from tectum.errors import ConfigError, InputError
from tectum.metrics import functional
from tectum.metrics.functional.features import meyer_subbands

FEATURES = ("pixel", "gradient", "dct", "wavelet")


def wavelet(image):
    approximation, (horizontal, vertical, diagonal) = pywt.dwt2(image, "dmey", mode="symmetric")
    return np.block([[approximation, horizontal], [vertical, diagonal]])


def feature_image(feature, image):
    image = image.astype(float)
    return {
        "pixel": lambda: image,
        "gradient": lambda: np.gradient(image, axis=1),
        "dct": lambda: dctn(image, norm="ortho"),
        "wavelet": lambda: wavelet(image),
    }[feature]().round(6)


def window_information(one, two):
    """Of two windows (3, 3), written out as the definition has it."""
    if (one == two).all():
        return 1.0
    distributions = []
    for window in (one, two):
        values = window.T.ravel()
        flat = values.max() == values.min()
        values = np.ones(9) if flat else (values - values.min()) / np.ptp(values)
        distributions.append(values / values.sum())
    p, q = distributions
    positions = np.arange(1, 10)
    spreads = [math.sqrt(max((positions**2 * x).sum() - (positions * x).sum() ** 2, 0)) for x in (p, q)]
    centred = [x - x.mean() if np.ptp(x) > 0 else np.zeros(9) for x in (p, q)]
    norm = math.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    likeness = (centred[0] * centred[1]).sum() / norm if norm > 0 else 0.0
    sums = [np.cumsum(x) for x in (p, q)]
    highest, lowest = np.minimum.outer(*sums), np.maximum(np.add.outer(*sums) - 1, 0)
    bound = np.pad(highest if likeness >= 0 else lowest, ((1, 0), (1, 0)))
    covariance = (bound[1:, 1:] - np.outer(*sums)).sum()
    share = likeness * spreads[0] * spreads[1] / covariance if abs(covariance) > 1e-12 else 0.0
    mass = np.diff(np.diff(bound, axis=0), axis=1)
    joint = share * mass + (1 - share) * np.outer(p, q)
    entropies = [-(x[x != 0] * np.log(np.abs(x[x != 0]))).sum() for x in (p, q, joint)]
    information, whole = entropies[0] + entropies[1] - entropies[2], entropies[0] + entropies[1]
    return 2 * information / whole if whole > 1e-12 and abs(information) > 1e-12 else 0.0


@pytest.mark.parametrize("feature", FEATURES)
def test_fmi_by_hand(feature, triple, tensors):
    part = (slice(14, 27), slice(20, 38))
    fused, *sources = (sliding_window_view(feature_image(feature, image[part]), (3, 3)) for image in triple)
    expected = np.mean(
        [
            window_information(source[index], fused[index])
            for index in np.ndindex(*fused.shape[:2])
            for source in sources
        ]
    )
    score = functional.fmi(*(image[:, :, part[0], part[1]] for image in tensors), feature=feature)
    assert score.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [(31, 30), (30, 29), (12, 70)])
def test_meyer_wavelet_is_that_of_pywavelets(size):
    image = np.random.default_rng(0).uniform(0, 255, size)
    np.testing.assert_allclose(meyer_subbands(torch.from_numpy(image)[None])[0], wavelet(image), atol=1e-8)


@pytest.mark.parametrize("feature", FEATURES)
def test_extremes(feature, tensors):
    fused, visible, infrared = (image[..., 10:34, 18:44] for image in tensors)
    assert functional.fmi(visible, visible, visible, feature=feature).item() == 1
    flat = torch.full_like(visible, 120)
    assert functional.fmi(flat, flat, flat, feature=feature).item() == 1
    assert 0 <= functional.fmi(flat, visible, infrared, feature=feature).item() < 0.6
    swapped = functional.fmi(fused, infrared, visible, feature=feature).item()
    assert swapped == pytest.approx(functional.fmi(fused, visible, infrared, feature=feature).item(), rel=1e-12)


def test_wrong_use(tensors):
    with pytest.raises(ConfigError, match=r"'edge'.*pixel, gradient, dct, wavelet"):
        functional.fmi(*tensors, feature="edge")
    with pytest.raises(InputError, match="3x3"):
        functional.fmi(*(image[..., :2, :9] for image in tensors))
