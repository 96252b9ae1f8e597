"""Backbones by name."""

from collections.abc import Callable
from functools import partial

from tectum.models.backbones.base import Encoder
from tectum.models.backbones.lite import EfficientNetLite0
from tectum.models.backbones.mit import MIT_SIZES, MixVisionTransformer

BACKBONES: dict[str, Callable[..., Encoder]] = {
    **{size: partial(MixVisionTransformer, size) for size in MIT_SIZES},
    "lite0": EfficientNetLite0,
}
"""What makes each backbone; takes `drop_path`, the stochastic depth rate of its last block."""
