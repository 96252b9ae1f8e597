"""torchvision's ResNets as feature stages, behind the convolutional stem that MAFS shares with PSFusion.

ResNet: He et al., CVPR 2016, arXiv:1512.03385. The stem replaces ResNet's 7x7 convolution by two blocks that also give
a feature at full size; its activation is FReLU (Ma et al., ECCV 2020, arXiv:2007.11824). ResNet's first batch norm, its
max pooling and its four stages are torchvision's.
"""

from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from tectum.errors import WeightsError

# Channels of the stem's two features, at full and at half size.
STEM_WIDTHS = (32, 64)
# Channels of the four stages, at 1/4, 1/8, 1/16 and 1/32.
RESNET_WIDTHS = {
    "r18": (64, 128, 256, 512),
    "r34": (64, 128, 256, 512),
    "r50": (256, 512, 1024, 2048),
    "r101": (256, 512, 1024, 2048),
    "r152": (256, 512, 1024, 2048),
}
# Blocks of the four stages.
RESNET_DEPTHS = {
    "r18": (2, 2, 2, 2),
    "r34": (3, 4, 6, 3),
    "r50": (3, 4, 6, 3),
    "r101": (3, 4, 23, 3),
    "r152": (3, 8, 36, 3),
}


class FReLU(nn.Module):
    """Funnel ReLU: the larger of a feature and its own batch-normalised 3x3 depth-wise convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.norm(self.convolution(x)))


class ResNetStages(nn.Module):
    """One modality's encoder. Its parts are called one by one, so that two encoders can exchange features in between.

    Args:
        size: a key of `RESNET_WIDTHS`.
        in_channels: channels of the input.
        imagenet: fetch torchvision's ImageNet weights (IMAGENET1K_V1) for everything behind the stem's convolutions.
            The only thing here that may open a connection; torchvision keeps the file in its cache.

    Raises:
        WeightsError: when the ImageNet weights can be neither found nor fetched.
    """

    def __init__(self, size: str, in_channels: int, imagenet: bool = False) -> None:
        super().__init__()
        self.widths = RESNET_WIDTHS[size]
        full, half = STEM_WIDTHS
        resnet = _torchvision_resnet(size, imagenet)
        self.stem_full = nn.Sequential(
            nn.Conv2d(in_channels, full, 7, padding=3),
            nn.BatchNorm2d(full),
            FReLU(full),
            nn.Conv2d(full, full, 3, padding=1),
            nn.BatchNorm2d(full),
            FReLU(full),
        )
        self.stem_half = nn.Sequential(
            nn.Conv2d(full, half, 3, stride=2, padding=1),
            nn.BatchNorm2d(half),
            FReLU(half),
            nn.Conv2d(half, half, 3, padding=1),
            resnet.bn1,
            nn.ReLU(),
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4])

    def stem(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_channels, H, W) -> features (B, 32, H, W) and (B, 64, H/2, W/2)."""
        full = self.stem_full(x)
        return full, self.stem_half(full)

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Stage `index`, 0 to 3: halves height and width of the feature before it (the stem's half one for 0)."""
        return self.stages[index](self.pool(x) if index == 0 else x)


def _torchvision_resnet(size: str, imagenet: bool) -> torchvision.models.ResNet:
    name = f"resnet{size.removeprefix('r')}"
    try:
        return torchvision.models.get_model(name, weights="IMAGENET1K_V1" if imagenet else None)
    except URLError as error:
        url = torchvision.models.get_weight(f"ResNet{size.removeprefix('r')}_Weights.IMAGENET1K_V1").url
        raise WeightsError(
            f"the ImageNet weights of {name} cannot be fetched ({error.reason}): "
            f"put {url} into '{torch.hub.get_dir()}/checkpoints', or build the network without imagenet=True"
        ) from error
