"""What a network asks of its backbone, whichever it is."""

from typing import ClassVar

from torch import Tensor, nn

from tectum.errors import ConfigError


class Encoder(nn.Module):
    """Base of the backbones.

    Attributes:
        name: key in `tectum.models.backbones.BACKBONES`.
        widths: channels C_i of the four features.
        head_width: hidden channels of an all-MLP head for features of this size (SegFormer, section 4.1).

    Shape:
        (B, 3, H, W), or (B, 1, H, W) standing for a plane repeated three times, with H and W multiples of 32 -> four
        maps (B, C_i, H/s, W/s), s = 4, 8, 16, 32.
    """

    name: str
    widths: tuple[int, int, int, int]
    head_width: int = 256
    input_mean: ClassVar[float] = 0.0
    input_scale: ClassVar[float] = 1.0

    def forward(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def fold(self, input_scale: float, plane: bool) -> "FoldedEncoder":
        """This encoder folded for inference, on inputs times `input_scale`; `plane`: of one channel."""
        raise NotImplementedError

    def load_imagenet(self) -> None:
        """Fill with ImageNet weights that a package on this machine holds.

        Raises:
            ConfigError: there are none that are free to use.
        """
        raise ConfigError(
            f"imagenet=True is for the backbone lite0, not {self.name}: train from a copy of MiT's weights with "
            "model.backbone_weights, see 'tectum models convert'"
        )


class FoldedEncoder(nn.Module):
    """Base of the encoders folded for inference."""

    def forward(self, x: Tensor, rows: int | None = None) -> list[Tensor]:
        """The features; with `rows`, so many rows of the image are worked on at a time."""
        raise NotImplementedError
