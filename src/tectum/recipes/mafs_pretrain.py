"""The `mafs_pretrain` recipe: stage I of MAFS, a masked autoencoder of both modalities.

Patches of either image are hidden under noise, never the same patch in both, and the network shows what was hidden:

    L = Σ over modalities m of   a mean |r_m - t_m| h_m + b mean |∇²r_m - ∇²t_m| h_m

with the reconstruction r, the luminance or infrared image t, and h = 1 where m was hidden (a = b = 5 as released). Two
things differ from the release unless the config asks for them: each modality has a reconstruction of its own, from
features of every depth, where the release has one image for both that only shallow layers feed (`decoder: shared`); and
a sample's gradient term is masked by its own patches alone (`mix_batch: true`).

`pretrain` is all of the recipe but the network, and serves `virmfs_pretrain` too.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from tectum.data.datasets import dataset_info
from tectum.data.masking import MaskedPair, mask_pair
from tectum.data.pair import PairPaths
from tectum.data.transforms import PairDataset, Sample, derive_seed
from tectum.errors import ConfigError
from tectum.losses.reconstruction import reconstruction_losses
from tectum.models.base import luminance
from tectum.models.mafs import MAFS, MaskedAutoencoder, Reconstruction
from tectum.recipes import run
from tectum.recipes.config import (
    AugmentationConfig,
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    Precision,
    RunConfig,
    Section,
)
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


class ReconstructionConfig(MaskingConfig):
    """Masks, decoder and loss.

    Attributes:
        decoder: "separate" or "shared", see `tectum.models.mafs.MaskedAutoencoder`.
        mix_batch: mask the gradient terms as the release does, see `tectum.losses.reconstruction`.
    """

    decoder: Reconstruction = "separate"
    mix_batch: bool = False


class PretrainConfig(Section):
    """What `pretrain` needs. Labels only serve foreground-centred crops and `data.holdout`."""

    model: ModelConfig
    data: DataConfig
    reconstruction: MaskingConfig = MaskingConfig()
    optimiser: OptimiserConfig
    run: RunConfig


class MafsPretrainConfig(PretrainConfig):
    """Config of the `mafs_pretrain` recipe."""

    model: ModelConfig = ModelConfig(name="mafs_r152")
    reconstruction: ReconstructionConfig = ReconstructionConfig()


def reconstruction_terms(
    shown: tuple[Tensor, Tensor], batch: Sample, masked: MaskedPair, config: MaskingConfig
) -> dict[str, Tensor]:
    """Weighted loss terms of the two reconstructions (each (B, 1, H, W)), by "modality_term"."""
    targets = (luminance(batch.visible), batch.infrared)
    mix_batch = isinstance(config, ReconstructionConfig) and config.mix_batch
    terms = {}
    for name, image, target, hidden in zip(("visible", "infrared"), shown, targets, masked[2:], strict=True):
        losses = reconstruction_losses(image.float(), target, hidden, mix_batch)
        terms[f"{name}_intensity"] = config.intensity * losses["intensity"]
        terms[f"{name}_gradient"] = config.gradient * losses["gradient"]
    return terms


def pretraining_step(
    autoencoder: nn.Module,
    batch: Sample,
    config: MaskingConfig,
    accelerator: Accelerator,
    precision: Precision = "float32",
) -> dict[str, Tensor]:
    """Leave the gradient of L, averaged over all processes, in the parameters; return the weighted loss terms."""
    masked = mask_pair(batch.visible, batch.infrared, config.patch)
    with run.autocast(precision, accelerator):
        shown = autoencoder(masked.visible, masked.infrared)
    terms = reconstruction_terms(shown, batch, masked, config)
    autoencoder.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    run.average_gradients(autoencoder.parameters(), accelerator)
    return {name: term.detach() for name, term in terms.items()}


@torch.no_grad()
def validate(
    autoencoder: nn.Module, pairs: Sequence[PairPaths], config: PretrainConfig, accelerator: Accelerator
) -> tuple[dict[str, float], Image.Image]:
    """Mean loss terms over `pairs`, and a picture of the first four.

    Crops and masks are the same at every call. The picture's columns: visible and infrared image, both as the network
    gets them, both as it shows them, with what was not hidden taken from the images.
    """
    augmentation = AugmentationConfig(crop=config.data.augmentation.crop)
    dataset = PairDataset(pairs, len(dataset_info(config.data.classes_of).classes), run.make_augmentation(augmentation))
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


def pretrain(
    config: PretrainConfig,
    directory: Path,
    recipe: str,
    kind: type[run.Network],
    wrap: Callable[[run.Network], nn.Module],
) -> Path:
    """Pretrain a network in its masked autoencoder, or go on where the checkpoint in `directory` stands.

    Args:
        config: checked configuration.
        directory: of the run: config, environment, logs, checkpoint, pictures, and the network `last`.
        recipe: its name, for messages.
        kind: of the networks that it trains.
        wrap: makes the autoencoder, which maps masked pairs as `tectum.models.mafs.MaskedAutoencoder` does and keeps
            the network as its `model`.

    Returns:
        The directory of the last model.

    Raises:
        ConfigError, InputError: for data or settings that do not fit.
    """
    if config.data.augmentation.crop is None:
        raise ConfigError(f"{recipe} needs crops of one size: set data.augmentation.crop to a multiple of 32")
    accelerator = run.make_accelerator(config.run)
    table, validation = run.training_tables(config.data, config.run)
    info = dataset_info(config.data.classes_of)
    model = run.create_network(config.model, kind, recipe, info, config.run.seed)
    autoencoder = run.place(wrap(model), accelerator)
    optimiser = run.make_optimiser(config.optimiser, autoencoder.parameters())
    average = run.make_average(autoencoder, config.run.ema)
    evaluated = autoencoder if average is None else average.module
    state = {"autoencoder": autoencoder, "optimiser": optimiser, "average": average}

    with run.Session(config, config.run, directory, state, len(table), accelerator) as session:
        dataset = PairDataset(table, len(info.classes), run.make_augmentation(config.data.augmentation))
        for step, epoch, batch in session.batches(dataset, config.data.workers):
            learning_rate = run.set_learning_rate(optimiser, config.optimiser, step, session.total)
            terms = pretraining_step(autoencoder, batch, config.reconstruction, accelerator, config.run.precision)
            run.clip_and_step(optimiser, config.optimiser)
            run.update_average(average, autoencoder, accelerator)
            session.log(step, epoch, terms, learning_rate)
            if session.validation_due(step) and validation and accelerator.is_main_process:
                scores, picture = validate(evaluated, validation, config, accelerator)
                session.log_validation(step, epoch, scores)
                session.log_picture(step, "reconstruction", picture)
            session.checkpoint_if_due(step)
        session.finish(evaluated.get_submodule("model"))
    return directory / "last"


def train(config: MafsPretrainConfig, directory: Path) -> Path:
    """`pretrain` a MAFS, from which `mafs_joint` starts (`pretrained:`). Its decoders are not trained."""
    decoder = config.reconstruction.decoder
    return pretrain(config, directory, "mafs_pretrain", MAFS, lambda model: MaskedAutoencoder(model, decoder))
