import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

Triple = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


def picture(seed: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A smooth picture with some noise, a saturated and a black patch."""
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(size=size), 3)
    image = 60 + 150 * (image - image.min()) / np.ptp(image) + rng.normal(0, 4, size)
    image[3:14, 6 + seed : 20 + seed] = 255
    image[24:38, 30:49] = 0
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def triple() -> Triple:
    """Fused, visible and infrared image of odd size, as arrays."""
    visible, infrared = picture(1, (45, 61)), picture(2, (45, 61))
    return np.maximum(visible, infrared // 2), visible, infrared


@pytest.fixture(scope="session")
def tensors(triple: Triple) -> tuple[Tensor, ...]:
    """The same as tensors (1, 1, 45, 61)."""
    return tuple(torch.from_numpy(image)[None, None] for image in triple)
