"""The networks that a training is about: the one that learns, and those that teach it."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from tectum.data.datasets import DatasetInfo
from tectum.data.pair import IGNORE
from tectum.data.transforms import Sample
from tectum.errors import ConfigError
from tectum.models import create_model, load
from tectum.models.base import FusionSegmenter
from tectum.recipes.config import ModelConfig, Precision, SelfTrainingConfig
from tectum.recipes.processes import autocast


def class_metadata(info: DatasetInfo) -> dict[str, Any]:
    """Entries of `FusionSegmenter.metadata` that say what the classes are."""
    return {"dataset": info.name, "class_names": list(info.classes), "palette": [list(rgb) for rgb in info.palette]}


def class_weights(weights: list[float] | None, info: DatasetInfo, device: torch.device) -> Tensor | None:
    """Class weights of the config as a tensor (K,)."""
    if weights is None:
        return None
    if len(weights) != len(info.classes):
        raise ConfigError(
            f"loss.class_weights has {len(weights)} values, but {info.name} has {len(info.classes)} classes: "
            f"{', '.join(info.classes)}"
        )
    return torch.tensor(weights, device=device)


def create_network(config: ModelConfig, family: str, recipe: str, info: DatasetInfo, seed: int) -> Any:
    """The network of the config with the dataset's classes; random weights are drawn from `seed`.

    Raises:
        ConfigError: when it is not of the family that the recipe trains, its `weights` are of another architecture, or
            it has no module that is to be frozen.
        WeightsError: when these cannot be read.
    """
    torch.manual_seed(seed)
    model = create_model(config.name, classes=len(info.classes), **config.arguments)
    if model.family != family:
        raise ConfigError(f"the recipe {recipe} trains the {family}_* networks, not '{config.name}'")
    model.metadata |= class_metadata(info)
    if config.weights is not None:
        _start_from(model, config.weights)
    modules = dict(model.named_modules())
    for name in config.frozen:
        if name not in modules:
            parts = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(f"model.frozen names '{name}', but {config.name} consists of {parts} and their parts")
        modules[name].requires_grad_(False).eval()
    return model


def _start_from(model: FusionSegmenter, weights: str) -> None:
    source = load(weights)
    state, trained = model.state_dict(), source.state_dict()
    own = {key: source.arguments[key] for key in model.restart_keywords if key in source.arguments}
    with torch.device("meta"):
        alike = create_model(model.architecture, **(model.arguments | own))
    if _shapes(alike.state_dict()) != _shapes(trained):
        raise ConfigError(
            f"model.weights '{weights}' are of {source.architecture}, which does not fit {model.architecture} "
            "with these arguments: set model.name and model.arguments to those of the weights"
        )
    fitting = {key: value for key, value in trained.items() if key in state and value.shape == state[key].shape}
    model.load_state_dict(state | fitting)


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def load_segmenter(key: str, source: str, classes: int, accelerator: Accelerator) -> FusionSegmenter:
    """The frozen segmenter that `key` of the config names, in eval mode on this process's device.

    Raises:
        ConfigError: when it knows other classes.
    """
    segmenter = load(source)
    if segmenter.classes != classes:
        raise ConfigError(
            f"{key} '{source}' has {segmenter.classes} classes, but {classes} are to be learned: "
            "name one trained on the same classes, or none"
        )
    return segmenter.requires_grad_(False).to(accelerator.device)


def make_labeller(
    config: SelfTrainingConfig | None, classes: int, precision: Precision, accelerator: Accelerator
) -> Callable[[Sample], Sample]:
    """Function that gives the pairs of a batch that have no labels those of the config's segmenter.

    Raises:
        ConfigError: when the segmenter knows other classes.
    """
    if config is None:
        return lambda batch: batch
    segmenter = load_segmenter("self_training.model", config.model, classes, accelerator)
    confidence = config.confidence

    def with_labels(batch: Sample) -> Sample:
        unlabelled = (batch.labels == IGNORE).flatten(1).all(dim=1)
        if not unlabelled.any():
            return batch
        with torch.no_grad(), autocast(precision, accelerator):
            logits = segmenter(batch.visible[unlabelled], batch.infrared[unlabelled]).logits
        probability, predicted = logits.float().softmax(dim=1).max(dim=1)
        labels = batch.labels.clone()
        labels[unlabelled] = torch.where(probability < confidence, IGNORE, predicted)
        return batch._replace(labels=labels)

    return with_labels
