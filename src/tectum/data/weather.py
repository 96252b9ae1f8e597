"""What weather, light and ageing sensors make of a pair, rendered on tensors for training and for tests of robustness.

Each effect is applied to one image of an aligned, clean pair, so that the clean pair still says what there was to be
seen. All of them draw from torch's global generator.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from tectum.section import Section


def fog(visible: Tensor, transmission: float | None = None, airlight: float | None = None) -> Tensor:
    """Koschmieder's law for one distance: v·t + A·(1 - t); by default t in [0.05, 0.6], A in [0.5, 0.95], t uneven."""
    chosen = uniform(0.05, 0.6) if transmission is None else transmission
    field = cloud(visible.shape[-2:], 80, chosen - 0.1, chosen + 0.1).clamp(0.03, 1) if transmission is None else chosen
    return _veiled(visible, field, uniform(0.5, 0.95) if airlight is None else airlight)


def smoke(visible: Tensor) -> Tensor:
    """Fog in patches: anything from clear to opaque, and greyer."""
    cell = (40, 80, 120)[integer(3)]
    return _veiled(visible, cloud(visible.shape[-2:], cell, -0.2, 0.9).clamp(0.03, 1), uniform(0.3, 0.8))


def glare(visible: Tensor) -> Tensor:
    """One to three lamps that shine into the lens: a disc that saturates, and a halo around it."""
    height, width = visible.shape[-2:]
    rows = torch.arange(height, dtype=torch.float32)[:, None]
    columns = torch.arange(width, dtype=torch.float32)
    light = torch.zeros(height, width)
    for _ in range(1 + integer(3)):
        radius = uniform(0.06, 0.3) * min(height, width)
        squared = (rows - uniform(0, 1) * height) ** 2 + (columns - uniform(0, 1) * width) ** 2
        light += uniform(0.5, 1.4) * torch.exp(-squared / (2 * radius**2))
        light += uniform(0.0, 0.4) * torch.exp(-squared.sqrt() / (2 * radius))
    return (visible + light).clamp(0, 1)


def darkness(visible: Tensor) -> Tensor:
    """A fraction of the light, 0.05 to 0.4, and the sensor's noise with it."""
    return _noisy(visible * uniform(0.05, 0.4), 0.02)


def rain(visible: Tensor) -> Tensor:
    """Bright streaks, all falling one way, before a thin veil."""
    height, width = visible.shape[-2:]
    length = 7 + 2 * integer(8)
    streak = torch.zeros(1, 1, length, length)
    along = torch.arange(length)
    slant = uniform(-0.4, 0.4)
    streak[0, 0, along, (length // 2 + slant * (along - length // 2)).round().long()] = 1.0
    drops = (torch.rand(1, 1, height, width) < uniform(0.001, 0.006)).float()
    streaks = F.conv2d(drops, streak, padding=length // 2)[0].clamp(max=1)
    return _veiled(_veiled(visible, uniform(0.7, 1.0), 0.6), 1 - uniform(0.2, 0.6) * streaks, 0.85)


def snow(visible: Tensor) -> Tensor:
    """White flakes of one to three pixels before a thin veil."""
    size = visible.shape[-2:]
    flakes = torch.zeros(1, *size)
    for sigma in (0.6, 1.0, 1.6):
        seeds = (torch.rand(1, *size) < uniform(0.0005, 0.003)).float()
        flakes += 6 * sigma**2 * tvf.gaussian_blur(seeds, [7, 7], [sigma, sigma])
    return _veiled(_veiled(visible, uniform(0.6, 1.0), 0.75), 1 - uniform(0.6, 1.0) * flakes.clamp(max=1), 0.95)


def thermal_noise(infrared: Tensor) -> Tensor:
    """Noise of the pixels, and that of the columns, which an uncooled sensor shows between two shutter frames."""
    columns = torch.randn(1, 1, infrared.shape[-1]) * uniform(0, 0.02)
    return _noisy(infrared + columns, 0.04)


def stretch(infrared: Tensor) -> Tensor:
    """Gain about the mean, 1 to 2, cut off at black and white, as automatic gain control does to a calm scene."""
    mean = infrared.mean()
    return (mean + uniform(1, 2) * (infrared - mean)).clamp(0, 1)


def low_contrast(infrared: Tensor) -> Tensor:
    """Less contrast, 0.25 to 0.8 of it, somewhere in the range."""
    share = uniform(0.25, 0.8)
    return share * infrared + uniform(0, 1 - share)


def inversion(infrared: Tensor) -> Tensor:
    """Black hot for white hot."""
    return 1 - infrared


VISIBLE: dict[str, Callable[[Tensor], Tensor]] = {
    "fog": fog,
    "smoke": smoke,
    "glare": glare,
    "darkness": darkness,
    "rain": rain,
    "snow": snow,
}
"""Effects on a visible image (3, H, W) in [0, 1], by name."""

INFRARED: dict[str, Callable[[Tensor], Tensor]] = {
    "thermal_noise": thermal_noise,
    "stretch": stretch,
    "low_contrast": low_contrast,
    "inversion": inversion,
}
"""Effects on an infrared image (1, H, W) in [0, 1], by name."""


class Weather(Section):
    """How often each effect is rendered. At most one befalls either image of a pair; what is left of 1 is clear.

    Attributes:
        fog, smoke, glare, darkness, rain, snow: probabilities on the visible image, with a sum of at most 1.
        thermal_noise, stretch, low_contrast, inversion: those on the infrared image, likewise.
    """

    fog: float = Field(0.0, ge=0, le=1)
    smoke: float = Field(0.0, ge=0, le=1)
    glare: float = Field(0.0, ge=0, le=1)
    darkness: float = Field(0.0, ge=0, le=1)
    rain: float = Field(0.0, ge=0, le=1)
    snow: float = Field(0.0, ge=0, le=1)
    thermal_noise: float = Field(0.0, ge=0, le=1)
    stretch: float = Field(0.0, ge=0, le=1)
    low_contrast: float = Field(0.0, ge=0, le=1)
    inversion: float = Field(0.0, ge=0, le=1)

    images: ClassVar = (VISIBLE, INFRARED)

    @model_validator(mode="after")
    def _at_most_one_befalls_an_image(self) -> "Weather":
        for effects in self.images:
            total = sum(getattr(self, name) for name in effects)
            if total > 1 + 1e-9:
                raise ValueError(f"{', '.join(effects)} exclude one another, but their sum is {total:g}, above 1")
        return self

    def __call__(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        """The pair (3, H, W), (1, H, W) in [0, 1] with what befalls it; new tensors where something does."""
        return self._befall(visible, VISIBLE), self._befall(infrared, INFRARED)

    def _befall(self, image: Tensor, effects: dict[str, Callable[[Tensor], Tensor]]) -> Tensor:
        if not any(getattr(self, name) for name in effects):
            return image
        left = uniform(0, 1)
        for name, effect in effects.items():
            left -= getattr(self, name)
            if left < 0:
                return effect(image).clamp(0, 1)
        return image


def cloud(size: torch.Size, cell: int, low: float, high: float) -> Tensor:
    """Smooth random field (H, W) about [low, high], with structures of some `cell` pixels."""
    seeds = torch.rand(1, 1, size[0] // cell + 3, size[1] // cell + 3)
    field = F.interpolate(seeds, size=tuple(size), mode="bicubic", align_corners=False)[0, 0].clamp(0, 1)
    return low + (high - low) * field


def uniform(low: float, high: float) -> float:
    """A random number in [low, high)."""
    return low + (high - low) * torch.rand(()).item()


def integer(bound: int) -> int:
    """A random integer from 0 to bound - 1."""
    return int(torch.randint(bound, ()).item())


def _veiled(image: Tensor, transmission: Tensor | float, airlight: float) -> Tensor:
    return image * transmission + airlight * (1 - transmission)


def _noisy(image: Tensor, largest: float) -> Tensor:
    return (image + torch.randn_like(image) * uniform(0, largest)).clamp(0, 1)
