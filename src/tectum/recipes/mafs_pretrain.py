"""The `mafs_pretrain` recipe: stage I of MAFS, a masked autoencoder of both modalities.

Patches of either image are hidden under noise, never the same patch in both, and the network shows what was hidden:

    L = Σ over modalities m of   a mean |r_m - t_m| h_m + b mean |∇²r_m - ∇²t_m| h_m

with the reconstruction r, the luminance or infrared image t, and h = 1 where m was hidden (a = b = 5 as released). Two
things differ from the release unless the config asks for them: each modality has a reconstruction of its own, from
features of every depth, where the release has one image for both that only shallow layers feed (`decoder: shared`); and
a sample's gradient term is masked by its own patches alone (`mix_batch: true`).

`Pretraining` is all of the recipe but the network, and serves `virmfs_pretrain` too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from tectum.data.datasets import DatasetInfo, dataset_info
from tectum.data.masking import MaskedPair, mask_pair
from tectum.data.pair import PairPaths
from tectum.data.transforms import Augmentation, PairDataset, Sample, derive_seed
from tectum.errors import ConfigError
from tectum.losses.reconstruction import reconstruction_losses
from tectum.models.base import FusionSegmenter, luminance
from tectum.models.mafs import MaskedAutoencoder, Reconstruction
from tectum.recipes import loop
from tectum.recipes.config import DataConfig, ModelConfig, OptimiserConfig, Precision, RunConfig
from tectum.recipes.networks import create_network
from tectum.recipes.processes import autocast, place
from tectum.section import Section
from tectum.viz.panel import grid


class MaskingConfig(Section):
    """Masks and loss.

    Attributes:
        patch: side of the hidden patches in pixels.
        intensity, gradient: weights of the two terms.
    """

    patch: int = Field(32, ge=1)
    intensity: float = Field(5.0, ge=0)
    gradient: float = Field(5.0, ge=0)

    def losses(self, shown: Tensor, target: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        """See `reconstruction_losses`."""
        return reconstruction_losses(shown, target, hidden)


class ReconstructionConfig(MaskingConfig):
    """Masks, decoder and loss.

    Attributes:
        decoder: "separate" or "shared", see `tectum.models.mafs.MaskedAutoencoder`.
        mix_batch: mask the gradient terms as the release does, see `tectum.losses.reconstruction`.
    """

    decoder: Reconstruction = "separate"
    mix_batch: bool = False

    def losses(self, shown: Tensor, target: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        return reconstruction_losses(shown, target, hidden, self.mix_batch)


class PretrainConfig(Section):
    """What `Pretraining` needs. Labels only serve foreground-centred crops and `data.holdout`."""

    model: ModelConfig
    data: DataConfig
    reconstruction: MaskingConfig = MaskingConfig()
    optimiser: OptimiserConfig
    run: RunConfig


class MafsPretrainConfig(PretrainConfig):
    """Config of the `mafs_pretrain` recipe."""

    model: ModelConfig = ModelConfig(name="mafs_r152")
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    recipe: Literal["mafs_pretrain"] = "mafs_pretrain"


def reconstruction_terms(
    shown: tuple[Tensor, Tensor], batch: Sample, masked: MaskedPair, config: MaskingConfig
) -> dict[str, Tensor]:
    """Weighted loss terms of the two reconstructions (each (B, 1, H, W)), by "modality_term"."""
    targets = (luminance(batch.visible), batch.infrared)
    terms = {}
    for name, image, target, hidden in zip(("visible", "infrared"), shown, targets, masked[2:], strict=True):
        losses = config.losses(image.float(), target, hidden)
        terms[f"{name}_intensity"] = config.intensity * losses["intensity"]
        terms[f"{name}_gradient"] = config.gradient * losses["gradient"]
    return terms


def pretraining_terms(
    autoencoder: nn.Module,
    batch: Sample,
    config: MaskingConfig,
    accelerator: Accelerator,
    precision: Precision = "float32",
) -> dict[str, Tensor]:
    """Mask a batch, have it shown, and give the weighted loss terms."""
    masked = mask_pair(batch.visible, batch.infrared, config.patch)
    with autocast(precision, accelerator):
        shown = autoencoder(masked.visible, masked.infrared)
    return reconstruction_terms(shown, batch, masked, config)


@torch.no_grad()
def validate(
    autoencoder: nn.Module, pairs: Sequence[PairPaths], config: PretrainConfig, accelerator: Accelerator
) -> tuple[dict[str, float], Image.Image]:
    """Mean loss terms over `pairs`, and a picture of the first four.

    Crops and masks are the same at every call. The picture's columns: visible and infrared image, both as the network
    gets them, both as it shows them, with what was not hidden taken from the images.
    """
    augmentation = Augmentation(crop=config.data.augmentation.crop)
    dataset = PairDataset(pairs, len(dataset_info(config.data.classes_of).classes), augmentation)
    sums: dict[str, float] = {}
    rows: list[list[np.ndarray]] = []
    modes = [(module, module.training) for module in autoencoder.modules()]
    autoencoder.eval()
    for index in range(len(pairs)):
        batch = Sample(*(x[None].to(accelerator.device) for x in dataset[index, derive_seed(index)]))
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(index))
            masked = mask_pair(batch.visible, batch.infrared, config.reconstruction.patch)
        shown = autoencoder(masked.visible, masked.infrared)
        for name, term in reconstruction_terms(shown, batch, masked, config.reconstruction).items():
            sums[name] = sums.get(name, 0.0) + term.item() / len(pairs)
        if len(rows) < 4:
            filled = [
                torch.where(hidden > 0, image, target)
                for image, target, hidden in zip(
                    shown, (luminance(batch.visible), batch.infrared), masked[2:], strict=True
                )
            ]
            images = (batch.visible, batch.infrared, masked.visible, masked.infrared, *filled)
            rows.append([image[0].permute(1, 2, 0).squeeze(-1).cpu().numpy() for image in images])
    for module, training in modes:  # not train(), which would wake what is frozen in eval mode
        module.training = training
    captions = ("visible", "infrared", "masked visible", "masked infrared", "shown visible", "shown infrared")
    return sums, grid(rows, captions)


def reconstruction_network(config: PretrainConfig, family: str, recipe: str, info: DatasetInfo) -> Any:
    """The network that is to be pretrained.

    Raises:
        ConfigError: it is of another family, or the crops are of several sizes.
    """
    if config.data.augmentation.crop is None:
        raise ConfigError(f"{recipe} needs crops of one size: set data.augmentation.crop to a multiple of 32")
    return create_network(config.model, family, recipe, info, config.run.seed)


class Pretraining(loop.Recipe):
    """Masked pretraining as the loop runs it, whatever the network.

    Args:
        config: checked configuration.
        autoencoder: maps masked pairs as `tectum.models.mafs.MaskedAutoencoder` does and keeps the network as its
            `model`.
        accelerator: of this process.
    """

    part = "autoencoder"

    def __init__(self, config: PretrainConfig, autoencoder: nn.Module, accelerator: Accelerator) -> None:
        super().__init__(config, place(autoencoder, accelerator), accelerator)
        self.config = config

    def step(self, batch: Sample, epoch: int) -> Mapping[str, Tensor]:
        config = self.config
        terms = pretraining_terms(self.model, batch, config.reconstruction, self.accelerator, config.run.precision)
        self.descend(torch.stack(list(terms.values())).sum())
        return {name: term.detach() for name, term in terms.items()}

    def network(self, evaluated: nn.Module) -> FusionSegmenter:
        return super().network(evaluated.get_submodule("model"))

    def validate(
        self, evaluated: nn.Module, pairs: Sequence[PairPaths]
    ) -> tuple[dict[str, float], dict[str, Image.Image]]:
        scores, picture = validate(evaluated, pairs, self.config, self.accelerator)
        return scores, {"reconstruction": picture}


class MafsPretraining(Pretraining):
    """The recipe as the loop runs it. `mafs_joint` starts from the result, whose decoders are not trained."""

    def __init__(self, config: MafsPretrainConfig, info: DatasetInfo, accelerator: Accelerator) -> None:
        network = reconstruction_network(config, "mafs", "mafs_pretrain", info)
        super().__init__(config, MaskedAutoencoder(network, config.reconstruction.decoder), accelerator)


def train(config: MafsPretrainConfig, directory: Path) -> Path:
    """Pretrain, or go on with the run in `directory`; see `tectum.recipes.loop.train`."""
    return loop.train(MafsPretraining, config, directory)
