"""Loss of masked-autoencoder pretraining."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Sobel's second derivative is separable: binomial smoothing one way, the twice applied central difference the other.
_SMOOTHING = (1.0, 4.0, 6.0, 4.0, 1.0)
_SECOND = (-1.0, 0.0, 2.0, 0.0, -1.0)
_MIXED = (1.0, 2.0, 0.0, -2.0, -1.0)


def second_order_gradient(image: Tensor) -> Tensor:
    """|I_xx| + |I_xy| + |I_yy| by 5x5 Sobel kernels, each normalised to a sum of magnitudes of 1, edges replicated.

    Args:
        image: (B, 1, H, W).

    Returns:
        (B, 1, H, W).
    """
    smoothing, second, mixed = (image.new_tensor(taps) for taps in (_SMOOTHING, _SECOND, _MIXED))
    kernels = torch.stack((torch.outer(smoothing, second), torch.outer(mixed, mixed), torch.outer(second, smoothing)))
    kernels = kernels / kernels.abs().sum(dim=(1, 2), keepdim=True)
    derivatives = F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), kernels[:, None])
    return derivatives.abs().sum(dim=1, keepdim=True)


def reconstruction_losses(
    reconstruction: Tensor, target: Tensor, hidden: Tensor, mix_batch: bool = False
) -> dict[str, Tensor]:
    """How far a reconstruction is from the image it should show, where that image was hidden (MAFS, stage I).

    Means are taken over all pixels, not over the hidden ones alone, as released: a sample of which little is hidden
    weighs little.

    Args:
        reconstruction, target: (B, 1, H, W) in [0, 1].
        hidden: (B, 1, H, W), 1 on hidden patches.
        mix_batch: what the release computes: its gradient maps lack the channel dimension, so the product with the mask
            has the shape (B, B, H, W) and every map is masked by the patches of every sample in turn.

    Returns:
        {"intensity": mean |r - t| h, "gradient": mean |∇²r - ∇²t| h}, scalars.
    """
    intensity = (reconstruction - target).abs() * hidden
    gradient = (second_order_gradient(reconstruction) - second_order_gradient(target)).abs()
    if mix_batch:
        gradient = gradient[:, 0]
    return {"intensity": intensity.mean(), "gradient": (gradient * hidden).mean()}
