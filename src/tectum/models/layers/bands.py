"""Fusion of two images in stationary wavelet bands, by weights that a network predicts.

An image x of H x W is split by smoothing it ever more, without thinning it out (à trous):

    x = D0 + D1 + D2 + base,   D0 = x - B0,   D1 = B0 - B1,   D2 = B1 - B2,   base = B2,

B0, B1 and B2 being the means over 4x4, 16x16 and 32x32 pixels, blurred and enlarged bilinearly. Nothing is lost: the
sum of the bands is the image, whatever the smoothing.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.errors import ConfigError
from tectum.models.layers.modules import Modules

DETAILS = 3
"""Number of detail bands; the fourth is the base."""

SHRINK = 4
"""The weights, and all bands but the finest, are computed at this part of the size."""

MAPS = 2 * (2 * DETAILS + 1)
"""What the weights are predicted from, next to features: of both images the mean, strength and value of the bands."""

DILATIONS = (1, 2, 4, 8, 16)
"""Of the convolutions that look around a place, at 1/4 of the size: 32 of its pixels each way."""

NOISE = 0.15
"""Of the features in training, as a part of each channel's standard deviation."""

_NOISE_SIZE = 8


def blur(x: Tensor) -> Tensor:
    """Binomial mean over 3x3 pixels, a border being continued: (B, C, H, W) -> (B, C, H, W)."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4
    return (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4


def coarse_bands(planes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """B0, D1, D2 and base at 1/4 of the size: (B, C, H, W), H and W multiples of 32 -> four (B, C, H/4, W/4)."""
    quarter = F.avg_pool2d(planes, SHRINK)
    sixteenth = F.avg_pool2d(quarter, 4)
    first = blur(quarter)
    second = enlarged(blur(sixteenth), 4)
    base = enlarged(blur(blur(blur(F.avg_pool2d(sixteenth, 2)))), 8)
    return first, first - second, second - base, base


def split_bands(planes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """D0, D1, D2 and base at full size: (B, C, H, W), H and W multiples of 32 -> four (B, C, H, W), whose sum is x."""
    first, *others = coarse_bands(planes)
    first, second, third, base = enlarged(torch.cat((first, *others), dim=1), SHRINK).chunk(4, dim=1)
    return planes - first, second, third, base


def enlarged(x: Tensor, factor: int) -> Tensor:
    """Bilinear: (B, C, h, w) -> (B, C, factor h, factor w)."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


class Surroundings(nn.Module):
    """Adds what is around a place: a dilated depth-wise 3x3 convolution and a 1x1 one."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.relu(self.depthwise(x)))


class BandFusion(nn.Module):
    """Fused luminance Σ_k (a_k D_k(v) + b_k D_k(i)) + (1 - c) base(v) + c base(i), with weights in (0, 1).

    The two weights of a detail band are apart: where both images show something, both can be kept, and where neither
    is worth it, neither. Those of D1, D2 and the base are predicted at 1/4 of the size, at which these bands are
    complete. Those of D0, which has the edges, follow the images at full size: their logits are

        u + p v + q i,

    with u, p and q enlarged from 1/4, a local linear model as in a guided filter, but learned.

    The idea, fusion of detail by weights and of the base apart, is that of wavelet fusion, and that of ViR-MFS for
    features; carrying it over to the picture is ours.

    Args:
        channels: of the features, and of the small network that makes weights of them.

    Raises:
        ConfigError: for none.

    Shape:
        features (B, channels, H/4, W/4), luminance and infrared (B, 1, H, W), H and W multiples of 32
        -> fused (B, 1, H, W), not clamped, and its weights (B, 7, H, W) in the order a_0, b_0, a_1, b_1, a_2, b_2, c.
    """

    def __init__(self, channels: int) -> None:
        if channels < 1:
            raise ConfigError(f"bands must be at least 1 channel, or 0 for none, but it is {channels}")
        super().__init__()
        self.maps = nn.Conv2d(MAPS, channels, 3, padding=1)
        self.surroundings = Modules(Surroundings(channels, dilation) for dilation in DILATIONS)
        # Of D0 two logits and their slopes along both images, of D1 and D2 two each, and the base's.
        self.logits = nn.Conv2d(channels, 6 + 4 + 1, 1)
        # From equal shares: a mean of both images.
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.zeros_(self.logits.get_parameter("bias"))

    def forward(self, features: Tensor, luminance: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        planes = torch.cat((luminance, infrared), dim=1)
        if self.training:
            features = _disturbed(features)
        coarse, weights = self.at_quarter(features, planes)
        enlarged_coarse = enlarged(coarse, SHRINK)
        fused, finest = _with_finest(enlarged_coarse, planes)
        return fused, torch.cat((finest, enlarged(weights, SHRINK)), dim=1)

    def at_quarter(self, features: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        """All that is computed at 1/4 of the size, from luminance and infrared as planes (B, 2, H, W).

        Returns:
            What is to be enlarged (B, 9, H/4, W/4), and the weights of D1, D2 and the base (B, 5, H/4, W/4).
        """
        first, *details, base = coarse_bands(planes)
        finest = F.avg_pool2d((planes - enlarged(first, SHRINK)).abs(), SHRINK)
        # Factors bring bands, which are mostly small, to the size of brightness.
        strengths = [8 * band for band in (finest, *(detail.abs() for detail in details))]
        values = [4 * band for band in (*details, base)]
        hidden = features + self.maps(torch.cat((F.avg_pool2d(planes, SHRINK), *strengths, *values), dim=1))
        for surroundings in self.surroundings:
            hidden = surroundings(hidden)
        finest_logits, logits = self.logits(F.relu(hidden)).split((6, 5), dim=1)
        # So smooth that no edge comes from them.
        weights = torch.sigmoid(blur(logits))
        fused = base[:, :1] + weights[:, 4:] * (base[:, 1:] - base[:, :1])
        for index, detail in enumerate(details):
            fused = fused + (weights[:, 2 * index : 2 * index + 2] * detail).sum(dim=1, keepdim=True)
        return torch.cat((finest_logits, first, fused), dim=1), weights


class BandPicture(nn.Module):
    """The picture of a `BandFusion` alone, without its weights: for inference.

    It is a module, not a method, so that all of its operations carry its name in a graph that is traced: those that
    stay in floating point under quantisation are found by it.

    Args:
        fusion: is copied.

    Shape:
        As of `BandFusion` -> fused (B, 1, H, W), not clamped.
    """

    def __init__(self, fusion: BandFusion) -> None:
        super().__init__()
        self.fusion = copy.deepcopy(fusion)

    def forward(self, features: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
        planes = torch.cat((luminance, infrared), dim=1)
        return _with_finest(enlarged(self.fusion.at_quarter(features, planes)[0], SHRINK), planes)[0]

    def coarse(self, features: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
        """All that is computed at 1/4 of the size, for `rows`: (B, 9, H/4, W/4)."""
        return self.fusion.at_quarter(features, torch.cat((luminance, infrared), dim=1))[0]

    def rows(self, coarse: Tensor, luminance: Tensor, infrared: Tensor, top: int) -> Tensor:
        """Rows of the picture from `top` on, a multiple of 4.

        Args:
            coarse: result of the method of that name, of the whole images.
            luminance, infrared: (B, 1, h, W), those rows.
            top: the first of them.

        Returns:
            (B, 1, h, W).
        """
        height = luminance.shape[2]
        # With the neighbours that enlarging mixes in, where there are any.
        first = max(0, top // SHRINK - 1)
        part = enlarged(coarse[:, :, first : -(-(top + height) // SHRINK) + 1], SHRINK)
        part = part[:, :, top - SHRINK * first :][:, :, :height]
        return _with_finest(part, torch.cat((luminance, infrared), dim=1))[0]


def _disturbed(features: Tensor) -> Tensor:
    """With noise some pixels wide, so that what rounding does to features in bfloat16 and INT8 changes no decision."""
    batch, channels, height, width = features.shape
    noise = torch.randn(batch, channels, height // _NOISE_SIZE, width // _NOISE_SIZE).to(features)
    spread = features.detach().std(dim=(0, 2, 3), keepdim=True)
    return features + NOISE * spread * enlarged(noise, _NOISE_SIZE)


def _with_finest(coarse: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
    """The picture (B, 1, h, W) and the weights of D0 (B, 2, h, W), from what is enlarged (B, 9, h, W)."""
    visible, infrared = planes[:, :1], planes[:, 1:]
    logits = coarse[:, :2] + 4 * (coarse[:, 2:4] * visible + coarse[:, 4:6] * infrared)
    weights = torch.sigmoid(logits)
    detail = planes - coarse[:, 6:8]
    return coarse[:, 8:] + (weights * detail).sum(dim=1, keepdim=True), weights
