"""The `virmfs_pretrain` recipe: masked pretraining of the shared backbone and the wavelet fusion of ViR-MFS.

Not in the paper: it carries stage I of MAFS over, with the masks and the loss of `tectum.recipes.mafs_pretrain`. A head
that only this recipe knows shows both images from the fused features; no labels are needed.
"""

from pathlib import Path

from tectum.models.virmfs import MaskedAutoencoder, ViRMFS
from tectum.recipes.config import ModelConfig
from tectum.recipes.mafs_pretrain import PretrainConfig, pretrain


class VirmfsPretrainConfig(PretrainConfig):
    """Config of the `virmfs_pretrain` recipe."""

    model: ModelConfig = ModelConfig(name="virmfs_b0")


def train(config: VirmfsPretrainConfig, directory: Path) -> Path:
    """`pretrain` a ViR-MFS, from which `virmfs` starts (`model.weights`). Its heads are not trained."""
    return pretrain(config, directory, "virmfs_pretrain", ViRMFS, MaskedAutoencoder)
