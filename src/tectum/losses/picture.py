"""Losses of a picture that is fused in wavelet bands: what stands out from its surroundings in either source is kept.

Not in either paper. ViR-MFS asks for the brighter source and the stronger gradient; where the visible image is bright
and empty, in fog and glare, the brighter source hides what the other shows. These losses ask for contrast instead, a
band at a time. Which source has it is known in training: the clean pair, from before weather was rendered, tells what
is worth keeping of what a source still shows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from tectum.filters import box_mean, sobel
from tectum.models.layers.bands import DETAILS, SHRINK, enlarged, split_bands
from tectum.section import Section

WINDOWS = (3, 7, 17)
"""Sides of the boxes over which the strength of D0, D1 and D2 is taken, in pixels of 1/4 of the size."""

NOISE = (0.006, 0.004, 0.003)
"""Strength of D0, D1 and D2, of a range of 1, that is taken for noise."""

SHARPNESS = 8
"""Power by which the stronger source of a detail band prevails."""

BASE_WINDOW = 15
"""Side of the boxes, likewise, over which the sources' strengths are compared for the base."""

BASE_SHARPNESS = 4
"""Power by which the stronger source of the base prevails."""

BASE_NOISE = 0.004
"""Strength that the infrared image needs beside `PictureLoss.tone` times that of the visible one."""

KEPT = 0.85
"""Share of an object's contrast that is asked for; `tectum.metrics.objects` counts as kept what has 0.7."""

LEAST_CONTRAST = 0.05
"""Difference of an object from its surroundings, of a range of 1, below which there is nothing to keep."""

SHARED_CONTRAST = 0.1
"""Difference up to which objects count by what they miss of it, so that faint ones do not outweigh all others."""

OBJECT_WINDOWS = (11, 25, 49)
"""Sides of the boxes over which an object and its surroundings are compared, in pixels of 1/4 of the size."""

PLACES = ((3, 13), (7, 25), (13, 49))
"""Sides of the boxes of a place and of its surroundings, in pixels of 1/4 of the size."""

TOLERANCE = 0.5 / 255
"""Gradient above those of both sources that is no seam."""

LEAST_GRADIENT = 0.003
"""Mean gradient, of a range of 1 per pixel, below which a pair's seams are not counted in full."""


class Kept(NamedTuple):
    """What is worth keeping, from `worth_keeping`.

    Attributes:
        details: share of the infrared image in each detail band, DETAILS of (B, 1, H/4, W/4) in [0, 1].
        base: its share in the base, (B, 1, H/4, W/4).
    """

    details: list[Tensor]
    base: Tensor


def useful_strength(band: Tensor, clean: Tensor, window: int, noise: float) -> Tensor:
    """How much of a clean band a degraded one still shows: |E[d c]| / √E[c²], less noise.

    For the clean band itself that is its standard deviation, in fog the transmitted part of it; noise, drops and
    flakes, which are independent of the clean band, count nothing. A contrast whose sign is turned counts in full.

    Args:
        band, clean: (B, 1, H, W).
        window: side of the boxes of the means, odd, in pixels of 1/4 of the size.
        noise: is taken off.

    Returns:
        (B, 1, H/4, W/4), at least 0.
    """
    product, square = (box_mean(F.avg_pool2d(x, SHRINK), window) for x in (band * clean, clean.square()))
    return F.relu(product.abs() / (square + 1e-6).sqrt() - noise)


def worth_keeping(bands: Sequence[Tensor], clean_bands: Sequence[Tensor], tone: float) -> Kept:
    """The source that a picture should be of, softly, band by band.

    Args:
        bands, clean_bands: of luminance and infrared (B, 2, H, W), from `split_bands`.
        tone: the infrared image makes the base only where it shows this many times as much as the visible image.
    """
    details, sums = [], [torch.zeros(()), torch.zeros(())]
    for band, clean, window, noise in zip(bands[:DETAILS], clean_bands[:DETAILS], WINDOWS, NOISE, strict=True):
        both = [useful_strength(band[:, k : k + 1], clean[:, k : k + 1], window, noise) for k in (0, 1)]
        details.append(_share(both[1], both[0] + 1e-3, SHARPNESS))
        sums = [total + strength for total, strength in zip(sums, both, strict=True)]
    visible, infrared = (box_mean(total, BASE_WINDOW) for total in sums)
    return Kept(details, _share(infrared, tone * visible + BASE_NOISE, BASE_SHARPNESS))


def contrast_loss(fused: Tensor, luminance: Tensor, infrared: Tensor, objects: Tensor) -> Tensor:
    """What is missing of objects' contrast: mean of ReLU(0.85 c - c_fused) / c, each object counting alike.

    An object's contrast is the mean over it less the mean over a ring of 3 to 10 pixels around, near each of its
    pixels. Asked for is the larger one of both sources, with its sign; one below 0.05 counts nothing.

    Args:
        fused, luminance, infrared: (B, 1, H, W), about [0, 1]; the fused image is clamped, since a picture is.
        objects: (B, 1, H, W), 1 within objects and 0 elsewhere.
    """
    inside = F.avg_pool2d(objects, SHRINK)
    near = F.max_pool2d(objects, 5, stride=1, padding=2)
    ring = F.avg_pool2d(1 - near, SHRINK) * (F.max_pool2d(inside, 5, stride=1, padding=2) > 0)
    images = [F.avg_pool2d(image, SHRINK) for image in (fused.clamp(0, 1), luminance, infrared)]
    total = fused.new_zeros(())
    for window in OBJECT_WINDOWS:
        area, around = box_mean(inside, window), box_mean(ring, window)
        of_fused, visible, thermal = (
            box_mean(image * inside, window) / (area + 1e-4) - box_mean(image * ring, window) / (around + 1e-4)
            for image in images
        )
        larger = torch.where(thermal.abs() >= visible.abs(), thermal, visible)
        counted = (area > 0.01) & (around > 0.01) & (inside > 0) & (larger.abs() > LEAST_CONTRAST)
        size = larger.abs()
        missing = F.relu(KEPT * size - larger.sign() * of_fused) / size.clamp(min=SHARED_CONTRAST) * counted
        total = total + (missing * inside / (area * window**2 + 1)).sum()
    return total / len(fused)


def local_contrast_loss(fused: Tensor, sources: tuple[Tensor, Tensor], clean: tuple[Tensor, Tensor]) -> Tensor:
    """What is missing of the contrast of places, whatever they show: mean of ReLU(0.85 c - c_fused) / c.

    The contrast of a place is the mean over it less the mean over its surroundings. Asked for is that of the source
    that has more, with its sign: where a thing is dark in one source and bright in the other, a mean of both would hide
    it. Of a degraded source only what the clean one has too counts, so that glare and smoke stand out for nothing.

    Args:
        fused: (B, 1, H, W), about [0, 1], clamped as in `contrast_loss`.
        sources, clean: luminance and infrared (B, 1, H, W), as the network saw them, and before weather.
    """
    images = torch.cat((fused.clamp(0, 1), *sources, *clean), dim=1)
    images = F.avg_pool2d(images, SHRINK)
    total = fused.new_zeros(())
    for place, around in PLACES:
        contrasts = box_mean(images, place) - box_mean(images, around)
        of_fused, own, of_clean = contrasts[:, :1], contrasts[:, 1:3], contrasts[:, 3:]
        worth, source = torch.minimum(own.abs(), of_clean.abs()).max(dim=1, keepdim=True)
        sign = own.gather(1, source).sign()
        missing = F.relu(KEPT * worth - sign * of_fused) / worth.clamp(min=SHARED_CONTRAST)
        total = total + (missing * (worth > LEAST_CONTRAST)).mean()
    return total


def seam_loss(fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
    """Edges that neither source has: Σ ReLU(|∇f| - max(|∇v|, |∇i|) - 0.5/255) / Σ max(|∇v|, |∇i|), mean over the batch.

    See `tectum.metrics.seam`. Sources that show next to nothing count as if they had gradients of `LEAST_GRADIENT`.
    """
    lengths = [_gradient_length(image) for image in (fused, luminance, infrared)]
    larger = torch.maximum(lengths[1], lengths[2])
    beyond = F.relu(lengths[0] - larger - TOLERANCE)
    return (beyond.mean(dim=(1, 2, 3)) / larger.mean(dim=(1, 2, 3)).clamp(min=LEAST_GRADIENT)).mean()


def edge_loss(fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
    """1 - Qabf, of Xydeas and Petrović's edge information, over the whole batch; see `tectum.metrics.qabf`.

    Args:
        fused, luminance, infrared: (B, 1, H, W), about [0, 1].
    """
    of_fused, *of_sources = (_sobel(image) for image in (fused, luminance, infrared))
    strength = _length(of_fused)
    transferred, total = fused.new_zeros(()), fused.new_zeros(())
    for source in of_sources:
        own = _length(source)
        ratio = torch.minimum(own, strength) / torch.maximum(own, strength)
        cosine = (source[0] * of_fused[0] + source[1] * of_fused[1]).abs() / (own * strength)
        alike = 1 - torch.acos(cosine.clamp(max=1 - 1e-4)) * (2 / torch.pi)
        quality = torch.sigmoid(15 * (ratio - 0.5)) * torch.sigmoid(22 * (alike - 0.8))
        transferred, total = transferred + (quality * own).sum(), total + own.sum()
    return 1 - transferred / total


def difference_loss(fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
    """2 - SCD, the sum of the correlations of differences of Aslantas and Bendes, mean over the batch."""
    return 2 - (_correlation(fused - luminance, infrared) + _correlation(fused - infrared, luminance)).mean()


class PictureLoss(Section):
    """Weights of the terms, 0 for none.

    Attributes:
        detail: of the mean distances of D0, D1 and D2 from those of the source worth keeping.
        direction: of the mean distance of the Sobel responses, with their signs, from those of that source of D0.
        edges: of `edge_loss`.
        differences: of `difference_loss`.
        base: of the mean distance of the base from that of the source worth keeping.
        tone: how many times as much as the visible image the infrared one must show to make the base.
        contrast: of `contrast_loss`, of the classes in `objects`.
        objects: ids of classes whose contrast is kept.
        local: of `local_contrast_loss`.
        seam: of `seam_loss`.
        range: of how far the picture leaves [0, 1], in the mean.
        decided: of the mean of w (1 - w) over all weights: a mean of both sources is neither.
        agreed: of the mean distance of a source's weights in the four bands from their mean.
        smooth: of the mean difference of neighbouring weights, that of the base counting as much as all others.
    """

    detail: float = Field(20.0, ge=0)
    direction: float = Field(40.0, ge=0)
    edges: float = Field(6.0, ge=0)
    differences: float = Field(0.5, ge=0)
    base: float = Field(10.0, ge=0)
    tone: float = Field(1.5, gt=0)
    contrast: float = Field(20.0, ge=0)
    objects: tuple[int, ...] = (2,)
    local: float = Field(10.0, ge=0)
    seam: float = Field(30.0, ge=0)
    range: float = Field(20.0, ge=0)
    decided: float = Field(4.0, ge=0)
    agreed: float = Field(5.0, ge=0)
    smooth: float = Field(0.5, ge=0)

    def __call__(
        self,
        fused: Tensor,
        weights: Tensor,
        sources: tuple[Tensor, Tensor],
        clean: tuple[Tensor, Tensor],
        labels: Tensor,
    ) -> dict[str, Tensor]:
        """The terms, each with its weight.

        Args:
            fused: (B, 1, H, W), about [0, 1], H and W multiples of 32.
            weights: (B, 7, H, W), of `BandFusion`.
            sources: luminance and infrared (B, 1, H, W), as the network saw them.
            clean: the same as they were before weather was rendered.
            labels: (B, H, W) class ids.
        """
        bands = split_bands(torch.cat(sources, dim=1))
        kept = worth_keeping(bands, split_bands(torch.cat(clean, dim=1)), self.tone)
        of_fused = split_bands(fused)
        shares = [enlarged(share, SHRINK) for share in kept.details]
        own = [*zip(of_fused, bands, shares, strict=False)]
        terms = {"detail": self.detail * torch.stack([_distance(*each) for each in own]).sum()}
        gradients = [torch.cat(_sobel(image), dim=1) / 8 for image in (fused, *sources)]
        wanted = torch.lerp(gradients[1], gradients[2], shares[0])
        terms["direction"] = self.direction * 2 * F.l1_loss(gradients[0], wanted)
        terms["edges"] = self.edges * edge_loss(fused, *sources)
        terms["differences"] = self.differences * difference_loss(fused, *sources)
        base, own_base = (F.avg_pool2d(each[-1], SHRINK) for each in (bands, of_fused))
        terms["base"] = self.base * _distance(own_base, base, kept.base)
        objects = torch.stack([labels == label for label in self.objects]).any(dim=0)[:, None].to(fused.dtype)
        terms["contrast"] = self.contrast * contrast_loss(fused, *sources, objects)
        terms["local"] = self.local * local_contrast_loss(fused, sources, clean)
        terms["seam"] = self.seam * seam_loss(fused, *sources)
        terms["range"] = self.range * (F.relu(fused - 1) + F.relu(-fused)).mean()
        terms["decided"] = self.decided * (weights * (1 - weights)).mean()
        of_sources = torch.stack(
            (
                torch.cat((weights[:, :6:2], 1 - weights[:, 6:]), dim=1),
                torch.cat((weights[:, 1:6:2], weights[:, 6:]), dim=1),
            )
        )
        terms["agreed"] = self.agreed * (of_sources - of_sources.mean(dim=2, keepdim=True)).abs().mean()
        changes = [w.diff(dim=2).abs().mean() + w.diff(dim=3).abs().mean() for w in (weights[:, :6], weights[:, 6:])]
        terms["smooth"] = self.smooth * torch.stack(changes).sum()
        return terms


def _share(first: Tensor, second: Tensor, power: int) -> Tensor:
    """first^p / (first^p + second^p), of a second one above 0."""
    return 1 / (1 + (second / first.clamp(min=1e-6)) ** power)


def _distance(fused: Tensor, sources: Tensor, share: Tensor) -> Tensor:
    """Mean |f - target|, of luminance and infrared joined and the share of the latter."""
    return F.l1_loss(fused, torch.lerp(sources[:, :1], sources[:, 1:], share))


def _sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel responses of (B, 1, H, W), of the same shape; a border is no edge."""
    horizontal, vertical = sobel(F.pad(image, (1, 1, 1, 1), mode="replicate")[:, 0])
    return horizontal[:, None], vertical[:, None]


def _length(responses: tuple[Tensor, Tensor]) -> Tensor:
    return (responses[0].square() + responses[1].square() + 1e-8).sqrt()


def _gradient_length(image: Tensor) -> Tensor:
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    horizontal = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    vertical = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return (horizontal.square() + vertical.square() + 1e-10).sqrt()


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's, of each pair of images: (B, 1, H, W) -> (B,)."""
    first, second = (image - image.mean(dim=(1, 2, 3), keepdim=True) for image in (first, second))
    product = (first * second).mean(dim=(1, 2, 3))
    squares = first.square().mean(dim=(1, 2, 3)) * second.square().mean(dim=(1, 2, 3))
    return product / (squares + 1e-7).sqrt()
