"""The sections that the configs of several recipes have in common."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tectum.data.transforms import Augmentation
from tectum.section import Section

Precision = Literal["float32", "bf16"]


class Source(Section):
    """Pairs of one dataset.

    Attributes:
        dataset: layout, a key of `tectum.data.datasets.DATASETS`.
        root: folder of the dataset.
        split: "train" for example; None where the layout has none.
        labels: False leaves the labels of these pairs unused; a pair without labels trains fusion alone.
        labelled_only: leave out the pairs that have no label map.
        looked_for: ids of the only classes that the label maps look for: where they are 0, the pixel may be of any
            other class. None: of all classes.
        boxes: the box files count, too: an object that has a box and no mask is somewhere in its box. A pair with boxes
            and no label map counts as labelled; `looked_for` must then say which classes have boxes.
        weight: of the labels of these pairs in the losses.
        scale: factor by which the pairs are resized when read, 2 for pictures stored at half size.
        repeat: how often each pair occurs in an epoch.
    """

    dataset: str = "folder"
    root: Path
    split: str | None = None
    labels: bool = True
    labelled_only: bool = False
    looked_for: tuple[int, ...] | None = None
    boxes: bool = False
    weight: float = Field(1.0, gt=0)
    scale: float = Field(1.0, gt=0)
    repeat: int = Field(1, ge=1)


class DataConfig(Section):
    """Training and validation pairs.

    Attributes:
        classes_of: dataset whose class list the network learns.
        train: sources of training pairs.
        validation: sources of validation pairs; never the split that results are reported on.
        holdout: share of the training pairs with a label map, chosen by a hash of their names, that is kept out of
            training and validated on, for datasets that have no validation split. Of a source with `labels: false` or
            `looked_for`, only the pictures are validated.
        workers: loader processes.
    """

    classes_of: str = "msrs"
    train: list[Source] = Field(min_length=1)
    validation: list[Source] = Field([])
    holdout: float = Field(0.0, ge=0, lt=1)
    augmentation: Augmentation = Augmentation()
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
    frozen: list[str] = Field([])


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
