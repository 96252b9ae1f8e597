"""What an interrupted training needs to go on to the same weights."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator

from tectum.errors import WeightsError
from tectum.files import atomic_path

CHECKPOINT = "checkpoint.pt"


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        step: steps that are done.
        best: highest validation score so far.
        seconds: training time, over all interruptions.
        sums: of the loss terms since the last line of the log.
    """

    step: int = 0
    best: float = -math.inf
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


class Checkpoint:
    """The checkpoint of a run's directory.

    Args:
        directory: of the run.
        parts: what a checkpoint holds beside the progress, by name: objects with `state_dict` and `load_state_dict`.
        minutes: longest time between two checkpoints.
        accelerator: only its main process writes.
    """

    def __init__(self, directory: Path, parts: Mapping[str, Any], minutes: float, accelerator: Accelerator) -> None:
        self.path, self.parts, self.minutes, self.accelerator = directory / CHECKPOINT, parts, minutes, accelerator
        self.written = time.monotonic()

    def restore(self) -> Progress:
        """Give all parts the state of the checkpoint, if there is one.

        Raises:
            WeightsError: it is damaged or of another run.
        """
        if not self.path.exists():
            return Progress()
        try:
            content = torch.load(self.path, map_location=self.accelerator.device, weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(content[name])
            return Progress(**{name: content[name] for name in asdict(Progress())})
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError) as error:
            raise WeightsError(
                f"the checkpoint '{self.path}' does not fit this run ({type(error).__name__}): "
                "start anew in another directory"
            ) from error

    def write_if_due(self, progress: Progress, *, last: bool) -> None:
        """Write when the last checkpoint is `minutes` old, or this was the last step."""
        due = last or time.monotonic() - self.written > 60 * self.minutes
        if self.accelerator.is_main_process and due:
            with atomic_path(self.path) as temporary:
                torch.save({name: part.state_dict() for name, part in self.parts.items()} | asdict(progress), temporary)
            self.written = time.monotonic()
