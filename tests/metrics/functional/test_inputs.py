import math

import pytest
import torch

from tectum.errors import InputError
from tectum.metrics import functional

ONE_IMAGE = ("average_gradient", "edge_intensity", "entropy", "spatial_frequency", "standard_deviation")
METRICS = [name for name in functional.__all__ if name.islower()]


def call(name, fused, visible, infrared, **keywords):
    images = (fused,) if name in ONE_IMAGE else (fused, visible, infrared)
    return getattr(functional, name)(*images, **keywords)


@pytest.fixture(scope="module")
def images():
    """Three uint8 images (1, 1, 176, 176), as MS-SSIM needs them; the others get a corner."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 1, 1, 176, 176), generator=generator, dtype=torch.uint8)


def cut(images, name):
    return images if name == "ms_ssim" else images[..., :44, :48]


@pytest.mark.parametrize("name", METRICS)
def test_nan_and_shape_are_errors(name, images):
    floats = cut(images, name).float() / 255
    with pytest.raises(InputError, match=r"\(B, 1, H, W\)"):
        call(name, *(image[0] for image in floats))
    with pytest.raises(InputError, match="do not fit data_range"):
        call(name, *(floats * 255))
    floats[0, 0, 0, 5, 6] = math.nan
    with pytest.raises(InputError, match="NaN"):
        call(name, *floats)
    if name not in ONE_IMAGE:
        with pytest.raises(InputError, match="one shape"):
            call(name, floats[0], floats[1], floats[2][..., 1:])


@pytest.mark.parametrize("name", [name for name in METRICS if name != "fusion_scores"])
def test_scale_and_type_do_not_matter(name, images):
    images = cut(images, name)
    expected = call(name, *images)
    assert expected.shape == (1,)
    assert expected.dtype == torch.float64
    for scaled, data_range in ((images / 255, None), (images.double() * 16, 255 * 16), (images.int(), 255)):
        torch.testing.assert_close(call(name, *scaled, data_range=data_range), expected, rtol=1e-12, atol=0)
