"""What every recipe needs around its own steps: tables, order, seeds, optimisers, processes, logs, checkpoints.

Everything random in step n is seeded by (seed, n), so a run that was interrupted anywhere goes on from its last
checkpoint to the very weights that it would have had without the interruption.
"""

import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from PIL import Image
from pydantic import BaseModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from tectum.data.datasets import DatasetInfo, pair_table
from tectum.data.pair import IGNORE, PairPaths
from tectum.data.transforms import Augmentation, PairDataset, Sample, StepSampler, derive_seed
from tectum.errors import ConfigError, InputError, WeightsError
from tectum.evaluation import evaluate
from tectum.files import atomic_path, write_text
from tectum.models import create_model, load
from tectum.models.base import FusionSegmenter
from tectum.predict.predictor import Predictor
from tectum.provenance import commit, package_version
from tectum.recipes.config import (
    AugmentationConfig,
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    Precision,
    RunConfig,
    SelfTrainingConfig,
    Source,
)

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
Model = TypeVar("Model", bound=nn.Module)
Network = TypeVar("Network", bound=FusionSegmenter)


def make_accelerator(config: RunConfig) -> Accelerator:
    """The devices and processes of this run: CPU, GPU, or what `accelerate launch` started.

    Raises:
        ConfigError: when the batch cannot be shared out evenly.
    """
    accelerator = Accelerator()
    if config.batch % accelerator.num_processes:
        raise ConfigError(
            f"run.batch={config.batch} cannot be shared by {accelerator.num_processes} processes: make it a multiple"
        )
    return accelerator


def autocast(precision: Precision, accelerator: Accelerator) -> torch.autocast:
    """Context of a forward pass; not accelerate's own, which fixes one precision for the whole process."""
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16")


def training_tables(data: DataConfig, config: RunConfig) -> tuple[list[PairPaths], list[PairPaths]]:
    """(training pairs with repeats, validation pairs), built without reading pixels."""
    training: list[PairPaths] = []
    validation = [pair for source in data.validation for pair in _source_table(source)]
    for source in data.train:
        for pair in _source_table(source):
            held_out = pair.label is not None and _hash_fraction(pair.name) < data.holdout
            if held_out:
                validation.append(pair)
            else:
                training += [pair] * source.repeat
    if len(training) < config.batch:
        raise ConfigError(f"there are {len(training)} training pairs, fewer than run.batch={config.batch}: add data")
    return training, validation


def _source_table(source: Source) -> list[PairPaths]:
    table = pair_table(source.root, source.dataset, source.split)
    if source.labels:
        return table
    return [replace(pair, label=None) for pair in table]


def _hash_fraction(name: str) -> float:
    """A number in [0, 1) that depends on the name alone, so that a pair stays on its side when others come or go."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


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


def create_network(config: ModelConfig, kind: type[Network], recipe: str, info: DatasetInfo, seed: int) -> Network:
    """The network of the config with the dataset's classes; random weights are drawn from `seed`.

    Raises:
        ConfigError: when it is none of the kind that the recipe trains, its `weights` are of another architecture, or
            it has no module that is to be frozen.
        WeightsError: when these cannot be read.
    """
    torch.manual_seed(seed)
    model = create_model(config.name, classes=len(info.classes), **config.arguments)
    if not isinstance(model, kind):
        raise ConfigError(f"the recipe {recipe} trains the {kind.__name__.lower()}_* networks, not '{config.name}'")
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
    own = {"classes": source.classes, "selection": source.arguments["selection"]}
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


def make_augmentation(config: AugmentationConfig) -> Augmentation:
    return Augmentation(**config.model_dump())


def place(model: Model, accelerator: Accelerator) -> Model:
    """Move to this process's device; batch statistics span all processes where the device can (GPUs)."""
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model.to(accelerator.device)


def make_optimiser(config: OptimiserConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser of the config; weight decay spares biases, norm scales and other vectors."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr)


def set_learning_rate(optimiser: Optimizer, config: OptimiserConfig, step: int, total: int) -> float:
    """Set and return the learning rate of `step` (from 0) of `total`: the warm-up, then the schedule."""
    factor = 1.0
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    if step < config.warmup_steps and config.warmup_from is not None:
        factor = (config.warmup_from / config.lr) ** (1 - step / config.warmup_steps)
    elif step < config.warmup_steps:
        factor = (step + 1) / config.warmup_steps
    elif config.schedule == "cosine":
        factor = (1 + math.cos(math.pi * done)) / 2
    elif config.schedule == "poly":
        factor = (1 - done) ** 0.9
    for group in optimiser.param_groups:
        group["lr"] = config.lr * factor
    return config.lr * factor


def clip_and_step(optimiser: Optimizer, config: OptimiserConfig) -> None:
    if config.gradient_clip is not None:
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
    optimiser.step()


def make_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Exponential moving average of parameters and buffers, or None for decay 0."""
    if decay == 0:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def update_average(average: AveragedModel | None, model: nn.Module, accelerator: Accelerator) -> None:
    """After a step: one set of running statistics for all processes, then the moving average, if there is one."""
    average_buffers(model, accelerator)
    if average is not None:
        average.update_parameters(model)


def average_gradients(parameters: Iterable[nn.Parameter], accelerator: Accelerator) -> None:
    """Mean of the gradients over all processes, in place. A parameter without a gradient counts as zero.

    Done here rather than by DistributedDataParallel, which has no second-order gradients and stops at a parameter that
    some process did not use (a share of the batch without labels).
    """
    if accelerator.num_processes == 1:
        return
    used = [p for p in parameters if p.requires_grad]
    for p in used:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = accelerator.reduce(nn.utils.parameters_to_vector([p.grad for p in used if p.grad is not None]), "mean")
    at = 0
    for p in used:
        p.grad = flat[at : at + p.numel()].view_as(p)
        at += p.numel()


def average_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Mean of the running statistics over all processes, in place, so that every process keeps the same network."""
    if accelerator.num_processes == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(accelerator.reduce(buffer, "mean"))


def mean_over_processes(total: Tensor, weight: Tensor, accelerator: Accelerator) -> Tensor:
    """This process's share of sum(total) / sum(weight): the mean of the shares over the processes is that quotient."""
    if accelerator.num_processes > 1:
        weight = accelerator.reduce(weight.detach(), "mean")
    return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)


def batches(
    dataset: PairDataset, config: RunConfig, steps: range, workers: int, accelerator: Accelerator
) -> Iterator[tuple[int, Sample]]:
    """(step, this process's share of its batch), with the global generators seeded for that step."""
    sampler = StepSampler(
        len(dataset.table), config.batch, config.seed, steps, accelerator.process_index, accelerator.num_processes
    )
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if workers else None,
        pin_memory=accelerator.device.type == "cuda",
    )
    for step, batch in zip(steps, loader, strict=True):
        torch.manual_seed(derive_seed(config.seed, step, 0, accelerator.process_index))
        yield step, Sample(*(x.to(accelerator.device, non_blocking=True) for x in batch))


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def validation_scores(model: FusionSegmenter, pairs: Sequence[PairPaths]) -> dict[str, float]:
    """Mean fusion metrics and mIoU (classes present, class 0 included) of `pairs`, as `tectum.evaluate` gives them.

    Returns:
        {"qabf", "mi", "vif", ..., "miou"}; no "miou" where no pair has labels.
    """
    found = evaluate(Predictor(model), pairs)
    for problem in found.problems:
        raise InputError(f"validation pair '{problem.name}' cannot be used: {problem.message}")
    return found.means()


class Session:
    """The run's directory: resumes from its checkpoint on entry, keeps its logs, shows progress.

    Args:
        config: the whole resolved config, saved as `config.yaml`.
        run_config: its section `run`.
        directory: of the run.
        state: what a checkpoint holds, by name: objects with `state_dict` and `load_state_dict`, or None.
        rows: training pairs of an epoch, of which as many whole batches are taken as there are.
        accelerator: only its main process writes.
    """

    def __init__(
        self,
        config: BaseModel,
        run_config: RunConfig,
        directory: Path,
        state: Mapping[str, Any],
        rows: int,
        accelerator: Accelerator,
    ) -> None:
        self.run_config, self.directory, self.accelerator = run_config, directory, accelerator
        self.steps_per_epoch = rows // run_config.batch
        self.total = run_config.epochs * self.steps_per_epoch
        self.state = {name: value for name, value in state.items() if value is not None}
        self.best = -math.inf
        self.first_step = 0
        self.elapsed = 0.0
        self.sums: dict[str, float] = {}
        self.main = accelerator.is_main_process
        self._restore()
        if self.main:
            write_text(directory / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
            write_text(directory / "environment.json", json.dumps(environment(), indent=2) + "\n")
            _cut_log(directory / LOG, self.first_step)
        accelerator.wait_for_everyone()

    def __enter__(self) -> "Session":
        self.started = self.saved = time.monotonic()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            disable=not (self.main and sys.stderr.isatty()),
        )
        self.progress.start()
        self.task = self.progress.add_task("training", total=self.total, completed=self.first_step)
        if self.main:
            self.board = SummaryWriter(str(self.directory / "tensorboard"), purge_step=self.first_step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        if self.main:
            self.board.close()

    def batches(self, dataset: PairDataset, workers: int) -> Iterator[tuple[int, int, Sample]]:
        """(step, epoch, this process's share of the batch) for the steps that are left, seeded as `batches` does."""
        steps = range(self.first_step, self.total)
        for step, batch in batches(dataset, self.run_config, steps, workers, self.accelerator):
            yield step, step // self.steps_per_epoch, batch

    def validation_due(self, step: int) -> bool:
        """Whether `validate_every` epochs, or the whole run, end with this step."""
        return (step + 1) % (self.run_config.validate_every * self.steps_per_epoch) == 0 or step + 1 == self.total

    def log(self, step: int, epoch: int, terms: Mapping[str, Tensor], learning_rate: float) -> None:
        """Add the loss terms of a step; every `log_every` steps write their means over steps and processes.

        A name with a slash ("weight/fusion") is a curve of its own group, not a loss.
        """
        every = self.run_config.log_every
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + term.item()
        self.progress.advance(self.task)
        if (step + 1) % every:
            return
        sums = torch.tensor(list(self.sums.values()), device=self.accelerator.device)
        values = self.accelerator.reduce(sums, "mean").tolist()
        means = {name: value / every for name, value in zip(self.sums, values, strict=True)}
        self.sums = {}
        if not all(math.isfinite(value) for value in means.values()):
            raise TrainingDivergedError(step, means, self.directory)
        record = {"step": step + 1, "epoch": epoch, "seconds": self._seconds(), "lr": learning_rate, **means}
        curves = {name if "/" in name else f"loss/{name}": value for name, value in means.items()}
        self._write(record, curves | {"lr": learning_rate})
        shown = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        self.progress.update(self.task, description=shown)
        if self.progress.disable and self.main:
            print(f"step {step + 1}/{self.total}  {shown}", file=sys.stderr, flush=True)

    def log_validation(self, step: int, epoch: int, scores: Mapping[str, float]) -> None:
        """Write the scores of a validation."""
        self._write(
            {"step": step + 1, "epoch": epoch, "seconds": self._seconds(), "validation": dict(scores)},
            {f"validation/{name}": value for name, value in scores.items()},
        )

    def log_picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Keep a picture as `pictures/NAME_STEP.png`, and in TensorBoard."""
        if self.main:
            with atomic_path(self.directory / "pictures" / f"{name}_{step + 1:06d}.png") as temporary:
                picture.save(temporary)
            self.board.add_image(name, np.asarray(picture), step + 1, dataformats="HWC")

    def validate(self, step: int, epoch: int, model: nn.Module, pairs: Sequence[PairPaths], monitor: str) -> None:
        """Score `model` on `pairs`, log, and keep it as `best` when the score `monitor` is the highest so far."""
        assert isinstance(model, FusionSegmenter)
        if self.main and pairs:
            scores = validation_scores(model, pairs)
            self.log_validation(step, epoch, scores)
            score = scores.get(monitor)
            if score is None:
                raise ConfigError(
                    f"run.monitor is {monitor}, but no validation pair has labels: "
                    "monitor qabf, mi or vif, or validate on labelled pairs"
                )
            if score > self.best:
                self.best = score
                model.save(self.directory / "best")
        self.accelerator.wait_for_everyone()

    def checkpoint_if_due(self, step: int) -> None:
        """Write the checkpoint when the last one is `checkpoint_minutes` old, or this was the last step."""
        due = time.monotonic() - self.saved > 60 * self.run_config.checkpoint_minutes or step + 1 == self.total
        if self.main and due:
            content = {name: value.state_dict() for name, value in self.state.items()}
            content |= {"step": step + 1, "best": self.best, "seconds": self._seconds(), "sums": self.sums}
            with atomic_path(self.directory / CHECKPOINT) as temporary:
                torch.save(content, temporary)
            self.saved = time.monotonic()

    def finish(self, model: nn.Module) -> None:
        """Save the final model as `last`."""
        assert isinstance(model, FusionSegmenter)
        if self.main:
            model.save(self.directory / "last")
        self.accelerator.wait_for_everyone()

    def _seconds(self) -> float:
        """Training time so far, over all interruptions."""
        return round(self.elapsed + time.monotonic() - self.started, 1)

    def _write(self, record: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
        if not self.main:
            return
        with (self.directory / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in scalars.items():
            self.board.add_scalar(name, value, record["step"])

    def _restore(self) -> None:
        path = self.directory / CHECKPOINT
        if not path.exists():
            return
        try:
            content = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            for name, value in self.state.items():
                value.load_state_dict(content[name])
            self.first_step, self.best = content["step"], content["best"]
            self.elapsed, self.sums = content["seconds"], content["sums"]
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError) as error:
            raise WeightsError(
                f"the checkpoint '{path}' does not fit this run ({type(error).__name__}): "
                "start anew in another directory"
            ) from error


class TrainingDivergedError(InputError):
    """A loss is no longer finite."""

    def __init__(self, step: int, means: Mapping[str, float], directory: Path) -> None:
        bad = ", ".join(name for name, value in means.items() if not math.isfinite(value))
        super().__init__(
            f"the loss {bad} is not finite at step {step + 1} of '{directory}': lower optimiser.lr, set "
            "optimiser.gradient_clip, or check the data with 'tectum data check'"
        )


def _cut_log(path: Path, steps: int) -> None:
    """Drop the lines that an interrupted run wrote after its last checkpoint."""
    if path.exists():
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= steps:
                    lines.append(line + "\n")
            except ValueError:  # the line that the interruption cut short
                continue
        write_text(path, "".join(lines))


def environment() -> dict[str, Any]:
    """Versions and machine, as saved beside every run."""
    packages = ("tectum", "torch", "torchvision", "accelerate", "numpy", "pillow")
    return {
        "packages": {package: package_version(package) or "not installed" for package in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit(),
        "command": sys.argv,
    }
