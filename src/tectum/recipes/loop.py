"""The loop that all recipes share: a recipe says what a step is, and the loop does what is around it.

Everything random in step n is seeded by (seed, n), so a run that was interrupted anywhere goes on from its last
checkpoint to the very weights that it would have had without the interruption.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from tectum.data.datasets import DatasetInfo, dataset_info
from tectum.data.pair import PairPaths
from tectum.data.transforms import PairDataset, Sample
from tectum.errors import ConfigError, InputError
from tectum.evaluation import evaluate
from tectum.models import load
from tectum.models.base import FusionSegmenter
from tectum.predict import Predictor
from tectum.recipes.calibration import calibrate
from tectum.recipes.checkpoint import Checkpoint
from tectum.recipes.config import DataConfig, OptimiserConfig, RunConfig
from tectum.recipes.directory import open_directory
from tectum.recipes.log import Log, open_log
from tectum.recipes.optimisation import clip_and_step, make_average, make_optimiser, set_learning_rate
from tectum.recipes.pairs import batches, training_tables
from tectum.recipes.processes import average_buffers, average_gradients, make_accelerator


class Settings(Protocol):
    """What the loop reads of a recipe's config."""

    @property
    def data(self) -> DataConfig: ...

    @property
    def optimiser(self) -> OptimiserConfig: ...

    @property
    def run(self) -> RunConfig: ...

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


class Recipe:
    """What a recipe is to the loop: a model, and what a step of its training is.

    Args:
        config: of the recipe.
        model: what is trained, on this process's device.
        accelerator: of this process.

    Attributes:
        part: name of the model in checkpoints.
        monitor: validation score by which the best network is kept, higher is better; None keeps none.
        optimiser: the config's, over all parameters of the model.
    """

    part = "model"
    monitor: str | None = None

    def __init__(self, config: Settings, model: nn.Module, accelerator: Accelerator) -> None:
        self.settings, self.model, self.accelerator = config, model, accelerator
        self.optimiser = make_optimiser(config.optimiser, model.parameters())

    def step(self, batch: Sample, epoch: int) -> Mapping[str, Tensor]:
        """Train on this process's share of a batch; gives the terms of the loss, for the log."""
        raise NotImplementedError

    def descend(self, loss: Tensor) -> None:
        """One step of the optimiser against the gradient of a loss, averaged over all processes."""
        differentiate(self.model, loss, self.accelerator)
        clip_and_step(self.optimiser, self.settings.optimiser)

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds beside the model, its optimiser and its moving average, by name."""
        return {}

    def network(self, evaluated: nn.Module) -> FusionSegmenter:
        """The network that is saved, of the model or of its moving average."""
        assert isinstance(evaluated, FusionSegmenter)
        return evaluated

    def validate(
        self, evaluated: nn.Module, pairs: Sequence[PairPaths]
    ) -> tuple[dict[str, float], dict[str, Image.Image]]:
        """Scores of the model or of its moving average, and pictures, by their names. Here: `tectum.evaluate`.

        Raises:
            InputError: a pair that cannot be used.
        """
        # A score against label maps that look for some classes only would be wrong.
        scored = [pair if pair.use.looked_for is None else replace(pair, label=None) for pair in pairs]
        found = evaluate(Predictor(self.network(evaluated)), scored)
        for problem in found.problems:
            raise InputError(f"validation pair '{problem.name}' cannot be used: {problem.message}")
        return found.means(), {}


def differentiate(model: nn.Module, loss: Tensor, accelerator: Accelerator) -> None:
    """Leave the gradient of a loss, averaged over all processes, in the parameters of a model.

    The gradient is that of the whole batch, however many processes share it (but for batch statistics on CPUs, which
    each process takes of its own pairs).
    """
    model.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(model.parameters(), accelerator)


def train(make: Callable[[Any, DatasetInfo, Accelerator], Recipe], config: Settings, directory: Path) -> Path:
    """Train, or go on where the checkpoint in `directory` stands.

    Args:
        make: the recipe, of its config, the classes that are learned, and this process's accelerator.
        config: its checked configuration.
        directory: of the run: config, environment, logs, checkpoint, pictures, and the networks `best` and `last`.

    Returns:
        The directory of the last network.

    Raises:
        ConfigError, InputError: for data or settings that do not fit.
        WeightsError: for a checkpoint that does not.
    """
    accelerator = make_accelerator(config.run)
    info = dataset_info(config.data.classes_of)
    table, validation = training_tables(config.data, config.run)
    recipe = make(config, info, accelerator)
    average = make_average(recipe.model, config.run.ema)
    evaluated = recipe.model if average is None else average.module
    parts = {recipe.part: recipe.model, "optimiser": recipe.optimiser} | recipe.parts()
    if average is not None:
        parts["average"] = average

    steps_per_epoch = len(table) // config.run.batch
    total = config.run.epochs * steps_per_epoch
    checkpoint = Checkpoint(directory, parts, config.run.checkpoint_minutes, accelerator)
    progress = checkpoint.restore()
    if accelerator.is_main_process:
        open_directory(directory, config.model_dump(mode="json"), progress.step)
    accelerator.wait_for_everyone()

    dataset = PairDataset(table, len(info.classes), config.data.augmentation)
    with open_log(directory, progress, total, config.run.log_every, accelerator) as log:
        steps = range(progress.step, total)
        for step, batch in batches(dataset, config.run, steps, config.data.workers, accelerator):
            epoch = step // steps_per_epoch
            learning_rate = set_learning_rate(recipe.optimiser, config.optimiser, step, total)
            terms = recipe.step(batch, epoch)
            average_buffers(recipe.model, accelerator)
            if average is not None:
                average.update_parameters(recipe.model)
            progress.step = step + 1
            log.add(step, epoch, terms, learning_rate)
            if progress.step % (config.run.validate_every * steps_per_epoch) == 0 or progress.step == total:
                if accelerator.is_main_process and validation:
                    _validate(recipe, evaluated, validation, log, epoch)
                accelerator.wait_for_everyone()
            checkpoint.write_if_due(progress, last=progress.step == total)
        if accelerator.is_main_process:
            recipe.network(evaluated).save(directory / "last")
            if recipe.monitor is not None:
                _calibrate(directory, table, validation, config.data)
        accelerator.wait_for_everyone()
    return directory / "last"


def _calibrate(
    directory: Path, training: Sequence[PairPaths], validation: Sequence[PairPaths], data: DataConfig
) -> None:
    """Give the saved networks their temperature and what their training pairs are like, where labels are held out."""
    labelled = [pair for pair in validation if pair.label is not None]
    if not labelled:
        return
    distinct = list(dict.fromkeys(training))
    for name in ("best", "last"):
        if (directory / name).is_dir():
            network = load(directory / name)
            network.metadata["calibration"] = calibrate(network, labelled, distinct, data.augmentation.weather)
            network.save(directory / name)


def _validate(recipe: Recipe, evaluated: nn.Module, pairs: Sequence[PairPaths], log: Log, epoch: int) -> None:
    """Score, log, and keep the network as `best` when the score that is monitored is the highest so far."""
    progress = log.progress
    scores, pictures = recipe.validate(evaluated, pairs)
    log.add_validation(progress.step - 1, epoch, scores)
    for name, picture in pictures.items():
        log.add_picture(progress.step - 1, name, picture)
    if recipe.monitor is None:
        return
    score = scores.get(recipe.monitor)
    if score is None:
        raise ConfigError(
            f"run.monitor is {recipe.monitor}, but no validation pair has labels: "
            "monitor qabf, mi or vif, or validate on labelled pairs"
        )
    if score > progress.best:
        progress.best = score
        recipe.network(evaluated).save(log.directory / "best")
