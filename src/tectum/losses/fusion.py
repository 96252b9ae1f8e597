"""Losses of the fused image."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from tectum.data.pair import IGNORE
from tectum.filters import box_mean, sobel
from tectum.models.layers.selection import (
    BRIGHTNESS_WINDOW,
    DETAIL_LIMIT,
    DETAIL_WEIGHT,
    DETAIL_WINDOW,
    INFRARED_NOISE,
    LIFT,
    LIFT_THRESHOLD,
    VISIBLE_NOISE,
)

SALIENT_WEIGHT = 4.0
"""Of salient pixels in `detailed_intensity_loss`: they are few, and the rest is what the network starts with."""

LIFT_WINDOW = 15
"""Side, in pixels, of the boxes by which `detailed_target` smooths what it adds, twice."""

WINDOW = 9
"""Side of the windows of the local variance (Gaussian) and of the averaged squared errors (box), as released."""

VARIANCE_SIGMA = 1.5
"""Standard deviation, in pixels, of the Gaussian window of the local variance, as released."""

SALIENCY_WINDOW = 97
"""Side, in pixels, of the surroundings against which infrared contrast is taken.

Narrower ones leave holes in people near the camera; wider ones take in tree tops before a cold sky, and warm roads.
"""

SALIENCY_THRESHOLD = 0.15
"""Infrared contrast, of a range of 1, above which a pixel without labels is salient.

On 95 pairs of MSRS that is 40 % of the people's area and 0.6 % of the background. 0.1 gives 50 % and 1.6 %, which adds
mostly trees and windows.
"""

LABELLED_THRESHOLD = 0.05
"""Infrared contrast above which a pixel of a foreground class is salient.

Lower than `SALIENCY_THRESHOLD`, since labels rule out trees and windows. On the same pairs it keeps 63 % of the area of
people, 17 % of kerbs, 14 % of cars and at most 5 % of any other class. A threshold of 0 would keep half of the area of
bikes, barriers and kerbs, which are as cold as what surrounds them: a choice by noise.
"""


def sobel_responses(image: Tensor) -> tuple[Tensor, Tensor]:
    """|Sobel_x| and |Sobel_y| with zero padding: (B, 1, H, W) -> two of (B, 1, H, W)."""
    horizontal, vertical = sobel(F.pad(image[:, 0], (1, 1, 1, 1)))
    return horizontal.abs()[:, None], vertical.abs()[:, None]


def sobel_gradient(image: Tensor) -> Tensor:
    """|Sobel_x| + |Sobel_y| with zero padding: (B, 1, H, W) -> (B, 1, H, W)."""
    horizontal, vertical = sobel_responses(image)
    return horizontal + vertical


def gradient_loss(fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
    """Mean |∇f - max(∇v, ∇i)|, ∇ = `sobel_gradient`: the fused image keeps the stronger edge (ViR-MFS).

    Args:
        fused, luminance, infrared: (B, 1, H, W), about [0, 1].
    """
    target = torch.maximum(sobel_gradient(luminance), sobel_gradient(infrared))
    return F.l1_loss(sobel_gradient(fused), target)


def intensity_loss(fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
    """Mean |f - max(v, i)|: the fused image keeps the brighter source (ViR-MFS).

    Args:
        fused, luminance, infrared: (B, 1, H, W), about [0, 1].
    """
    return F.l1_loss(fused, torch.maximum(luminance, infrared))


def detailed_target(luminance: Tensor, infrared: Tensor, salient: Tensor) -> Tensor:
    """A fused image by rule, to train towards: warm objects, else the source that is brighter or has more detail.

    With box means over 13 x 13 pixels of the lengths of Sobel gradients, and over 9 x 9 pixels of the brightness, the
    source of a pixel is infrared where that is salient and brighter, elsewhere

        v where 2.6 mean (|∇v| - |∇i|) + mean (v - i) >= 0, otherwise i.

    The first term is kept within ±0.15; responses of 0.015 (visible) and 0.035 (infrared) are noise and are taken off.
    Added is 0.28 of what of the darker source, smoothed, is above 0.08: so each source leaves a trace where both are
    bright. The maximum, the target of ViR-MFS, buries the texture of one source under smooth brightness of the other;
    the source with more detail alone loses people who are warm before a textured background.

    Not in either paper.

    Args:
        luminance, infrared: (B, 1, H, W), about [0, 1].
        salient: (B, 1, H, W) bool, as from `saliency_mask`.

    Returns:
        (B, 1, H, W).
    """
    detail = box_mean(
        _gradient_length(luminance, VISIBLE_NOISE) - _gradient_length(infrared, INFRARED_NOISE), DETAIL_WINDOW
    )
    brightness = box_mean(luminance - infrared, BRIGHTNESS_WINDOW)
    detail = (DETAIL_WEIGHT * detail).clamp(-DETAIL_LIMIT, DETAIL_LIMIT)
    from_visible = (detail + brightness >= 0) & ~(salient & (infrared > luminance))
    common = box_mean(box_mean(torch.minimum(luminance, infrared), LIFT_WINDOW), LIFT_WINDOW)
    return torch.where(from_visible, luminance, infrared) + LIFT * F.relu(common - LIFT_THRESHOLD)


def detailed_intensity_loss(fused: Tensor, luminance: Tensor, infrared: Tensor, salient: Tensor) -> Tensor:
    """Mean w |f - t|, t = `detailed_target`, w = 4 where infrared is salient and brighter, else 1.

    Args:
        fused, luminance, infrared: (B, 1, H, W), about [0, 1].
        salient: (B, 1, H, W) bool, as from `saliency_mask`.
    """
    distance = (fused - detailed_target(luminance, infrared, salient)).abs()
    return torch.where(salient & (infrared > luminance), SALIENT_WEIGHT * distance, distance).mean()


def directional_gradient_loss(fused: Tensor, luminance: Tensor, infrared: Tensor) -> Tensor:
    """Mean of ||Sx f| - max(|Sx v|, |Sx i|)| + ||Sy f| - max(|Sy v|, |Sy i|)|, S the Sobel responses (MAFS).

    Unlike `gradient_loss`, it lets the fused image take the horizontal differences from one source and the vertical
    ones from the other. Source: MAFS as released; that the responses are absolute ones is our reading.

    Args:
        fused, luminance, infrared: (B, 1, H, W), about [0, 1].
    """
    pairs = zip(sobel_responses(fused), sobel_responses(luminance), sobel_responses(infrared), strict=True)
    x, y = (F.l1_loss(response, torch.maximum(visible, thermal)) for response, visible, thermal in pairs)
    return x + y


def local_variance(image: Tensor) -> Tensor:
    """Variance E[x²] - E[x]² under a Gaussian window of 9 x 9 pixels and σ = 1.5 (MAFS as released).

    The image is reflected at its borders, so that a border is no edge.

    Args:
        image: (B, 1, H, W), H and W at least 5.

    Returns:
        (B, 1, H, W).
    """
    mean, mean_of_squares = (gaussian_blur(x, [WINDOW, WINDOW], [VARIANCE_SIGMA]) for x in (image, image.square()))
    return mean_of_squares - mean.square()


def saliency_mask(infrared: Tensor, labels: Tensor) -> Tensor:
    """Pixels at which the infrared image is to be kept: warm objects (MAFS).

    The contrast is the infrared image minus its mean over the 97 x 97 pixels around. In a pair without labels, a pixel
    is salient if its contrast is above 0.15; in a pair with labels, if it is of a class other than the background and
    its contrast is above 0.05. The class alone does not make a pixel salient: traffic cones, kerbs, guardrails and
    parked cars are foreground too, and often show in the visible image only.

    The release reads this mask from files, and neither it nor the paper says how they were made: this is our reading.

    Args:
        infrared: (B, 1, H, W), about [0, 1].
        labels: (B, H, W) int64, class ids with 0 for the background, or 255 = ignore; all 255 if the pair has none.

    Returns:
        (B, 1, H, W) bool.
    """
    labels = labels[:, None]
    contrast = infrared - box_mean(infrared, SALIENCY_WINDOW)
    unlabelled = (labels == IGNORE).all(dim=(2, 3), keepdim=True)
    foreground = (labels > 0) & (labels != IGNORE)
    return torch.where(unlabelled, contrast > SALIENCY_THRESHOLD, foreground & (contrast > LABELLED_THRESHOLD))


def selected_intensity_loss(fused: Tensor, luminance: Tensor, infrared: Tensor, salient: Tensor) -> Tensor:
    """Squared error to one source per pixel: infrared where it varies more or is salient, else visible (MAFS).

    The map of each source's squared error is averaged over 9 x 9 boxes before the choice, and the mean is taken over
    the pixels. Infrared is chosen where its `local_variance` exceeds that of the luminance, or within `salient`. Boxes
    at the border average the pixels they have, so that an error counts there as much as inside.

    Source: MAFS as released, inherited from PSFusion, whose training passes (visible, infrared) to a function of
    (infrared, visible), and so prefers the visible image within the mask. Here it is infrared, as the mask's name and
    the function's signature intend.

    Args:
        fused, luminance, infrared: (B, 1, H, W), about [0, 1], H and W at least 5.
        salient: (B, 1, H, W) bool, as from `saliency_mask`.
    """
    from_infrared = salient | (local_variance(infrared) > local_variance(luminance))
    to_infrared, to_visible = (box_mean((fused - source).square(), WINDOW) for source in (infrared, luminance))
    return torch.where(from_infrared, to_infrared, to_visible).mean()


def _gradient_length(image: Tensor, noise: float) -> Tensor:
    """Length of the Sobel gradient, each response less `noise`; a border is no edge."""
    responses = sobel(F.pad(image, (1, 1, 1, 1), mode="replicate")[:, 0])
    horizontal, vertical = (F.relu(response.abs() - noise) for response in responses)
    return torch.hypot(horizontal, vertical)[:, None]
