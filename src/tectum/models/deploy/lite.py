"""EfficientNet-Lite0 for inference: every batch norm is in the convolution before it, the input scale in the stem."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tectum.models.backbones.lite import EfficientNetLite0, InvertedResidual
from tectum.models.deploy.folding import fold_norms, for_scaled


class DeployedLite0(nn.Module):
    """Encoder of planes (B, 1, H, W), or of colours (B, 3, H, W) -> four maps (B, C_i, H/s, W/s), s = 4, 8, 16, 32."""

    def __init__(self, backbone: EfficientNetLite0, input_scale: float, colour: bool) -> None:
        super().__init__()
        stem = for_scaled(_folded(backbone.stem), input_scale, plane=not colour)
        stages = [stage for stage in backbone.stages if isinstance(stage, nn.Sequential)]
        self.stages = nn.ModuleList(DeployedStage(None if i else stem, stage) for i, stage in enumerate(stages))

    def forward(self, x: Tensor, rows: int | None = None) -> list[Tensor]:
        """The features; with `rows`, so many rows of the image are worked on at a time."""
        x = x.flip(2, 3)
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x, rows and rows >> (index + 2))
            features.append(x.flip(2, 3))
        return features


class DeployedStage(nn.Module):
    """The blocks that lead to one scale, of a feature and with a result that are turned by half a turn."""

    def __init__(self, stem: nn.Conv2d | None, blocks: nn.Sequential) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(DeployedBlock(block) for block in blocks if isinstance(block, InvertedResidual))

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """The stage's feature; with `rows`, each block works on so many rows of its result at a time."""
        if self.stem is not None:
            # On CPUs depth-wise convolutions are about twice as fast in this memory layout, which all layers keep.
            x = F.relu6(self.stem(x).contiguous(memory_format=torch.channels_last), inplace=True)
        for block in self.blocks:
            x = block(x, rows)
        return x


class DeployedBlock(nn.Module):
    """MBConv: (B, C, H, W) -> (B, C', H/s, W/s)."""

    def __init__(self, block: InvertedResidual) -> None:
        super().__init__()
        self.residual = block.residual
        self.expand = None if block.expand is None else _folded(block.expand)
        self.depthwise = _folded(block.depthwise)
        self.project = _folded(block.project)

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        if rows is None:
            y = self._project(self.depthwise(self._expand(x)))
            return x + y if self.residual else y
        height = x.shape[2] // self.depthwise.stride[0]
        strips = [self._strip(x, top, min(top + rows, height)) for top in range(0, height, rows)]
        return torch.cat(strips, dim=2)

    def _strip(self, x: Tensor, top: int, bottom: int) -> Tensor:
        """Rows of the result, from `top` to `bottom`."""
        layer = self.depthwise
        kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.kernel_size[0] // 2
        # Rows of the hidden feature that these depend on; zeros stand for those outside.
        first, last = top * stride - padding, (bottom - 1) * stride - padding + kernel
        hidden = self._expand(x[:, :, max(first, 0) : last])
        hidden = F.pad(hidden, (padding, padding, max(-first, 0), max(last - x.shape[2], 0)))
        y = self._project(F.conv2d(hidden, layer.weight, layer.bias, stride, groups=layer.groups))
        return y.add_(x[:, :, top:bottom]) if self.residual else y

    def _expand(self, x: Tensor) -> Tensor:
        return x if self.expand is None else F.relu6(self.expand(x), inplace=True)

    def _project(self, hidden: Tensor) -> Tensor:
        return self.project(F.relu6(hidden, inplace=True))


def _folded(layer: nn.Sequential) -> nn.Conv2d:
    """Convolution and batch norm as one; an activation behind them is left to the caller."""
    convolution, norm = layer[0], layer[1]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return fold_norms(convolution, norm)
