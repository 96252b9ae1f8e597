"""Invertible layers: an LU-parameterised 1x1 convolution and the affine coupling block built on it.

The convolution is that of Glow (Kingma and Dhariwal, NeurIPS 2018, arXiv:1807.03039, section 3.2, equation 10), the
coupling follows CDDFuse (Zhao et al., CVPR 2023, arXiv:2211.14491, equation 10) and, for its bounded scale, the
invertible networks for image restoration from which that comes; the half instance norm is HINet's (Chen et al., CVPRW
2021, arXiv:2105.06086). Both layers keep the shape, and each has an `inverse`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InvertibleConv1x1(nn.Module):
    """1x1 convolution whose matrix W = P L (U + diag(s)) cannot become singular.

    P is a fixed permutation, L unit lower and U strictly upper triangular; of s the signs are fixed and the logarithms
    of the magnitudes are learned. It starts as a random rotation.

    Shape:
        (B, channels, H, W) -> the same.
    """

    permutation: Tensor
    sign_s: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign_s", diagonal.sign())
        self.lower = nn.Parameter(lower)
        self.log_s = nn.Parameter(diagonal.abs().log())
        self.upper = nn.Parameter(upper)

    def _triangles(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.eye(len(self.lower), dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + torch.diag(self.sign_s * self.log_s.exp())
        return lower, upper

    def forward(self, x: Tensor) -> Tensor:
        lower, upper = self._triangles()
        return F.conv2d(x, (self.permutation @ lower @ upper)[:, :, None, None])

    def inverse(self, y: Tensor) -> Tensor:
        """The x for which `forward(x)` is y, by two triangular solves."""
        lower, upper = self._triangles()
        columns = self.permutation.T @ y.flatten(2)  # (B, C, H*W)
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, columns, upper=True).view_as(y)


class HalfInstanceNormBlock(nn.Module):
    """Two 3x3 convolutions with LeakyReLU beside a 1x1 one; half of the channels between them are instance-normalised.

    Shape:
        (B, channels, H, W) -> the same.
    """

    def __init__(self, channels: int, slope: float = 0.1) -> None:
        super().__init__()
        self.identity = nn.Conv2d(channels, channels, 1)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.InstanceNorm2d(channels // 2, affine=True)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        normalised, plain = self.first(x).chunk(2, dim=1)
        y = F.leaky_relu(torch.cat((self.norm(normalised), plain), dim=1), self.slope)
        return F.leaky_relu(self.second(y), self.slope) + self.identity(x)


def _subnetwork(channels: int) -> nn.Sequential:
    return nn.Sequential(
        HalfInstanceNormBlock(channels), nn.LeakyReLU(0.2), HalfInstanceNormBlock(channels), nn.LeakyReLU(0.2)
    )


class InvertibleBlock(nn.Module):
    """Invertible 1x1 convolution, then an affine coupling of the two halves of the channels.

    With (x1, x2) the halves after the convolution:

        y1 = x1 + F(x2),   s = clamp (2 sigmoid(H(y1)) - 1),   y2 = x2 exp(s) + G(y1)

    where F, G, H are pairs of `HalfInstanceNormBlock`, each followed by LeakyReLU. |s| stays below `clamp`.

    Shape:
        (B, channels, H, W) -> the same; `channels` even.
    """

    def __init__(self, channels: int, clamp: float = 0.8) -> None:
        super().__init__()
        half = channels // 2
        self.clamp = clamp
        self.mixing = InvertibleConv1x1(channels)
        self.additive = _subnetwork(half)
        self.shift = _subnetwork(half)
        self.scale = _subnetwork(half)

    def _log_scale(self, y1: Tensor) -> Tensor:
        return self.clamp * (2 * torch.sigmoid(self.scale(y1)) - 1)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = self.mixing(x).chunk(2, dim=1)
        y1 = x1 + self.additive(x2)
        y2 = x2 * self._log_scale(y1).exp() + self.shift(y1)
        return torch.cat((y1, y2), dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        """The x for which `forward(x)` is y."""
        y1, y2 = y.chunk(2, dim=1)
        x2 = (y2 - self.shift(y1)) * (-self._log_scale(y1)).exp()
        x1 = y1 - self.additive(x2)
        return self.mixing.inverse(torch.cat((x1, x2), dim=1))
