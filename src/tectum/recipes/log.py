"""The log of a training: lines of JSON, TensorBoard, a progress bar, pictures."""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from tectum.errors import InputError
from tectum.files import atomic_path
from tectum.recipes import checkpoint

LOG = "log.jsonl"


@contextmanager
def open_log(
    directory: Path, progress: checkpoint.Progress, total: int, every: int, accelerator: Accelerator
) -> Iterator["Log"]:
    """The log of a run, closed in the end.

    Args:
        directory: of the run.
        progress: how far it is; the log keeps `seconds` and `sums` of it.
        total: steps of the whole run.
        every: steps between two lines.
        accelerator: only its main process writes.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    main = accelerator.is_main_process
    board = SummaryWriter(str(directory / "tensorboard"), purge_step=progress.step) if main else None
    with Progress(*columns, disable=not (main and sys.stderr.isatty())) as bar:
        try:
            yield Log(directory, progress, total, every, accelerator, bar, board)
        finally:
            if board is not None:
                board.close()


class Log:
    """Made by `open_log`."""

    def __init__(
        self,
        directory: Path,
        progress: checkpoint.Progress,
        total: int,
        every: int,
        accelerator: Accelerator,
        bar: Progress,
        board: SummaryWriter | None,
    ) -> None:
        self.directory, self.progress, self.total, self.every = directory, progress, total, every
        self.accelerator, self.bar, self.board = accelerator, bar, board
        self.task = bar.add_task("training", total=total, completed=progress.step)
        self.started = time.monotonic() - progress.seconds

    def add(self, step: int, epoch: int, terms: Mapping[str, Tensor], learning_rate: float) -> None:
        """Add the loss terms of a step; every `every` steps write their means over steps and processes.

        A name with a slash ("weight/fusion") is a curve of its own group, not a loss.

        Raises:
            TrainingDivergedError: a mean is not finite.
        """
        sums = self.progress.sums
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.item()
        self.bar.advance(self.task)
        seconds = self._seconds()
        if (step + 1) % self.every:
            return
        values = self.accelerator.reduce(
            torch.tensor(list(sums.values()), device=self.accelerator.device), "mean"
        ).tolist()
        means = {name: value / self.every for name, value in zip(sums, values, strict=True)}
        sums.clear()
        if not all(math.isfinite(value) for value in means.values()):
            raise TrainingDivergedError(step, means, self.directory)
        record = {"step": step + 1, "epoch": epoch, "seconds": seconds, "lr": learning_rate, **means}
        curves = {name if "/" in name else f"loss/{name}": value for name, value in means.items()}
        self._write(record, curves | {"lr": learning_rate})
        shown = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        self.bar.update(self.task, description=shown)
        if self.bar.disable and self.accelerator.is_main_process:
            print(f"step {step + 1}/{self.total}  {shown}", file=sys.stderr, flush=True)

    def add_validation(self, step: int, epoch: int, scores: Mapping[str, float]) -> None:
        """Write the scores of a validation."""
        self._write(
            {"step": step + 1, "epoch": epoch, "seconds": self._seconds(), "validation": dict(scores)},
            {f"validation/{name}": value for name, value in scores.items()},
        )

    def add_picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Keep a picture as `pictures/NAME_STEP.png`, and in TensorBoard."""
        if self.board is not None:
            with atomic_path(self.directory / "pictures" / f"{name}_{step + 1:06d}.png") as temporary:
                picture.save(temporary)
            self.board.add_image(name, np.asarray(picture), step + 1, dataformats="HWC")

    def _seconds(self) -> float:
        """Training time so far, over all interruptions; kept in the progress, for the next checkpoint."""
        self.progress.seconds = round(time.monotonic() - self.started, 1)
        return self.progress.seconds

    def _write(self, record: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
        if self.board is None:
            return
        with (self.directory / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in scalars.items():
            self.board.add_scalar(name, value, record["step"])


class TrainingDivergedError(InputError):
    """A loss is no longer finite."""

    def __init__(self, step: int, means: Mapping[str, float], directory: Path) -> None:
        bad = ", ".join(name for name, value in means.items() if not math.isfinite(value))
        super().__init__(
            f"the loss {bad} is not finite at step {step + 1} of '{directory}': lower optimiser.lr, set "
            "optimiser.gradient_clip, or check the data with 'tectum data check'"
        )
