"""Training configuration: YAML checked by pydantic, where an unknown key is an error with one readable line."""

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tectum.errors import ConfigError

Precision = Literal["float32", "bf16"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Section):
    """Pairs of one dataset.

    Attributes:
        dataset: layout, a key of `tectum.data.datasets.DATASETS`.
        root: folder of the dataset.
        split: "train" for example; None where the layout has none.
        labels: False leaves the labels of these pairs unused; a pair without labels trains fusion alone.
        repeat: how often each pair occurs in an epoch.
    """

    dataset: str = "folder"
    root: Path
    split: str | None = None
    labels: bool = True
    repeat: int = Field(1, ge=1)


class AugmentationConfig(Section):
    """Fields of `tectum.data.transforms.Augmentation`, where they are explained."""

    resize: tuple[int, int] | None = None
    crop: int | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    foreground: float = Field(0.0, ge=0, le=1)
    flip: float = Field(0.0, ge=0, le=1)
    turn: float = Field(0.0, ge=0, le=1)
    brightness: float = Field(0.0, ge=0, lt=1)
    gamma: float = Field(0.0, ge=0)
    blur: float = Field(0.0, ge=0)
    noise: float = Field(0.0, ge=0)
    dropout: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _turned_images_stay_one_size(self) -> "AugmentationConfig":
        if self.turn and self.crop is None:
            raise ValueError("turn needs crop, since a turned image that is not square has another size")
        return self


class DataConfig(Section):
    """Training and validation pairs.

    Attributes:
        classes_of: dataset whose class list the network learns.
        train: sources of training pairs.
        validation: sources of validation pairs; never the split that results are reported on.
        holdout: share of the labelled training pairs, chosen by a hash of their names, that is kept out of training and
            validated on, for datasets that have no validation split.
        workers: loader processes.
    """

    classes_of: str = "msrs"
    train: list[Source] = Field(min_length=1)
    validation: list[Source] = []
    holdout: float = Field(0.0, ge=0, lt=1)
    augmentation: AugmentationConfig = AugmentationConfig()
    workers: int = Field(1, ge=0)


class ModelConfig(Section):
    """Network: `name` and `arguments` go to `tectum.create_model`; the number of classes comes from the data.

    Attributes:
        weights: to start from, all of them: a shipped name or a directory, of the same architecture. Where the number
            of classes or the argument `selection` differs, the layers that depend on it start anew. None: from random
            weights.
        frozen: modules of the network that keep their weights and statistics: backbone, segmentation_head, ...
    """

    name: str
    arguments: dict[str, Any] = Field({})
    weights: str | None = None
    frozen: list[str] = []


class SelfTrainingConfig(Section):
    """Labels for the training pairs that have none, predicted by a frozen segmenter for each augmented pair.

    Attributes:
        model: goes to `tectum.load`: shipped weights or a directory; with the same classes.
        confidence: a pixel gets the class with the highest probability, if that is at least this; otherwise it counts
            nowhere.
    """

    model: str
    confidence: float = Field(0.9, ge=0, le=1)


class OptimiserConfig(Section):
    """Optimiser of the full steps.

    Attributes:
        name: "adam", "adamw", or "sgd" with `momentum`.
        schedule: "constant", "cosine" down to zero at the last step, or "poly", (1 - done)^0.9.
        warmup_steps: warm-up before the schedule: linear from zero or, if `warmup_from` is set, exponential from that
            learning rate.
        gradient_clip: largest gradient norm; None does not clip.
    """

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "poly"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    warmup_from: float | None = Field(None, gt=0)
    gradient_clip: float | None = None


class RunConfig(Section):
    """How long, how large, how often.

    Attributes:
        seed: of everything random.
        epochs: passes over the training table.
        batch: pairs per step, over all processes together.
        ema: decay of the exponential moving average of the weights, which is then validated and saved; 0 for none.
        precision: "float32", or "bf16" for mixed precision.
        validate_every: epochs between validations.
        checkpoint_minutes: longest time between two checkpoints.
        log_every: steps between two lines of the log.
    """

    seed: int = Field(0, ge=0)
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    ema: float = Field(0.0, ge=0, lt=1)
    precision: Precision = "float32"
    validate_every: int = Field(1, ge=1)
    checkpoint_minutes: float = Field(3.0, gt=0)
    log_every: int = Field(20, ge=1)


class ScoredRunConfig(RunConfig):
    """Of a recipe whose network fuses and segments.

    Attributes:
        monitor: validation score by which the best checkpoint is chosen, higher is better.
    """

    monitor: Literal["miou", "qabf", "mi", "vif"] = "miou"


def read_config(kind: type[BaseModel], path: str | Path, overrides: list[str] | None = None) -> Any:
    """Read a YAML file and `key=value` overrides into `kind`.

    The key `base` of a file names another file, or a list of them, whose keys it starts from; paths are relative to the
    file, and a file in the list goes over those before it. Sections are merged key by key, lists and values replaced.

    Args:
        kind: the recipe's config class.
        path: YAML file.
        overrides: dotted keys, list items by number: "run.epochs=3", "data.train.0.root=data/MSRS".

    Raises:
        ConfigError: naming the file or override, the key, and the keys there are.
    """
    content = _content(Path(path))
    for override in overrides or []:
        _override(content, override)
    try:
        return kind(**content)
    except ValidationError as error:
        raise ConfigError(f"config '{path}': " + "; ".join(_explain(kind, item) for item in error.errors())) from None


def _content(path: Path, users: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Keys of a file on top of those of its bases; `users` are the files that led to it, the nearest last."""
    if path.resolve() in (user.resolve() for user in users):
        raise ConfigError(f"config '{path}' is its own base: {' -> '.join(map(str, (*users, path)))}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        named = f", which '{users[-1]}' names as its base" if users else ""
        raise ConfigError(f"there is no config file '{path}'{named}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"config '{path}' is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"config '{path}' must be a mapping of keys, but holds {type(content).__name__}")
    bases = content.pop("base", [])
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"config '{path}': base must be a file name or a list of them, but is {bases!r}")
    merged: dict[str, Any] = {}
    for base in bases:
        merged = _merge(merged, _content(path.parent / base, (*users, path)))
    return _merge(merged, content)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merge(below[key], above[key])
    return merged


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{override}' is no override: write key=value, for example run.epochs=3")
    *parents, last = key.split(".")
    place: Any = content
    try:
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
        place[int(last) if isinstance(place, list) else last] = yaml.safe_load(text)
    except (IndexError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        raise ConfigError(f"override '{override}' points to nothing in the config: check its dotted key") from None


def _explain(kind: type[BaseModel], item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg']}"
    *parents, key = item["loc"]
    known = _keys_at(kind, parents)
    close = difflib.get_close_matches(str(key), known, 1)
    hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
    return f"unknown key '{where}'; {hint}"


def _keys_at(kind: Any, location: list[Any]) -> list[str]:
    """Field names of the section at `location` below `kind`."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = kind.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        kind = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return list(kind.model_fields)
