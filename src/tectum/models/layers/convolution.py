"""What the encoders' convolutions have in common."""

import torch.nn.functional as F
from torch import Tensor, nn


def convolve_plane(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution of x (B, C, H, W), or of a plane (B, 1, H, W) that stands for one repeated C times."""
    weight = convolution.weight
    if x.shape[1] == 1 and weight.shape[1] > 1:
        # Convolving a repeated plane is convolving it once with the summed kernel: a third of the work.
        weight = weight.sum(1, keepdim=True)
    return F.conv2d(x, weight, convolution.bias, convolution.stride, convolution.padding)


def initialise_convolution(convolution: nn.Conv2d) -> None:
    """Random weights of a variance that keeps that of gradients, counted within a group; zeros for the bias."""
    fan_out = convolution.kernel_size[0] * convolution.kernel_size[1] * convolution.out_channels // convolution.groups
    nn.init.normal_(convolution.weight, std=(2 / fan_out) ** 0.5)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
