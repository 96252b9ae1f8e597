import pytest
import torch
from pydantic import ValidationError

from tectum.data import weather
from tectum.data.weather import INFRARED, VISIBLE, Weather


def scene(channels):
    """A grey step, and a few fine structures."""
    generator = torch.Generator().manual_seed(0)
    image = torch.full((channels, 96, 128), 0.3)
    image[:, :, 64:] = 0.6
    return (image + 0.05 * torch.rand(channels, 96, 128, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("name", [*VISIBLE, *INFRARED])
def test_each_effect_changes_the_picture_within_its_range_and_by_its_seed(name):
    effect, image = (VISIBLE[name], scene(3)) if name in VISIBLE else (INFRARED[name], scene(1))
    before = image.clone()
    torch.manual_seed(1)
    first = effect(image)
    torch.manual_seed(1)
    again = effect(image)
    assert torch.equal(image, before)
    assert first.shape == image.shape
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert (first - image).abs().mean() > 0.005
    assert first.min() >= -1e-6
    assert first.max() <= 1 + 1e-6
    torch.manual_seed(2)
    assert name == "inversion" or not torch.equal(effect(image), first)


def test_fog_follows_koschmieder():
    image = scene(3)
    torch.testing.assert_close(weather.fog(image, transmission=0.25, airlight=0.8), 0.25 * image + 0.6)


def test_glare_saturates_and_only_adds_light():
    torch.manual_seed(0)
    image = scene(3)
    found = [weather.glare(image) for _ in range(20)]
    assert all((one >= image - 1e-6).all() for one in found)
    assert sum(bool((one == 1).any()) for one in found) > 15


def test_rain_and_snow_are_bright_and_cover_little():
    torch.manual_seed(0)
    image = torch.zeros(3, 200, 200)
    for effect, least in ((weather.rain, 0.1), (weather.snow, 0.3)):
        for _ in range(10):
            found = effect(image)[0]
            veil = found.median()
            struck = found > veil + 0.02
            assert 0 < struck.float().mean() < 0.5
            assert found.max() > veil + least


def test_probabilities_are_kept():
    torch.manual_seed(0)
    visible, infrared = torch.full((3, 16, 16), 0.5), torch.full((1, 16, 16), 0.25)
    effects = Weather(fog=0.3, darkness=0.2, inversion=0.25)
    found = [effects(visible, infrared) for _ in range(1000)]
    brighter, darker = (sum(bool(sign * (v.mean() - 0.5) > 0.001) for v, _ in found) for sign in (1, -1))
    assert brighter + darker == pytest.approx(500, abs=50)
    assert darker > 190 - 30
    assert sum(bool(i.mean() == 0.75) for _, i in found) == pytest.approx(250, abs=45)


def test_nothing_happens_unless_asked_for_and_draws_nothing():
    visible, infrared = scene(3), scene(1)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    out = Weather()(visible, infrared)
    assert out == (visible, infrared)
    assert torch.equal(torch.get_rng_state(), state)


def test_effects_of_an_image_exclude_one_another():
    with pytest.raises(ValidationError, match=r"exclude one another, but their sum is 1.2"):
        Weather(fog=0.6, rain=0.6)
    Weather(fog=0.6, inversion=0.6)
