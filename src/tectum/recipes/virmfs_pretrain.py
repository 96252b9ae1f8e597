"""The `virmfs_pretrain` recipe: masked pretraining of the shared backbone and the wavelet fusion of ViR-MFS.

Not in the paper: it carries stage I of MAFS over, with the masks and the loss of `tectum.recipes.mafs_pretrain`. A head
that only this recipe knows shows both images from the fused features; no labels are needed. `virmfs` starts from the
result (`model.weights`), whose heads are not trained.
"""

from pathlib import Path
from typing import Literal

from accelerate import Accelerator

from tectum.data.datasets import DatasetInfo
from tectum.models.virmfs import MaskedAutoencoder
from tectum.recipes import loop
from tectum.recipes.config import ModelConfig
from tectum.recipes.mafs_pretrain import PretrainConfig, Pretraining, reconstruction_network


class VirmfsPretrainConfig(PretrainConfig):
    """Config of the `virmfs_pretrain` recipe."""

    model: ModelConfig = ModelConfig(name="virmfs_b0")
    recipe: Literal["virmfs_pretrain"] = "virmfs_pretrain"


class VirmfsPretraining(Pretraining):
    """The recipe as the loop runs it."""

    def __init__(self, config: VirmfsPretrainConfig, info: DatasetInfo, accelerator: Accelerator) -> None:
        network = reconstruction_network(config, "virmfs", "virmfs_pretrain", info)
        super().__init__(config, MaskedAutoencoder(network), accelerator)


def train(config: VirmfsPretrainConfig, directory: Path) -> Path:
    """Pretrain, or go on with the run in `directory`; see `tectum.recipes.loop.train`."""
    return loop.train(VirmfsPretraining, config, directory)
