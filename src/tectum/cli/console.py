"""What the commands show in the same way: progress, tables of problems, warnings, JSON files."""

import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tectum.data.datasets import Problem
from tectum.data.pair import InputWarning
from tectum.errors import ConfigError
from tectum.files import write_text


def output() -> Console:
    """Standard output: results. Not wrapped at 80 columns when it goes to a file or a pipe."""
    return _console(stderr=False)


def messages() -> Console:
    """Standard error: progress, warnings and problems."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = 200
    return console


class _Speed(ProgressColumn):
    """Pairs per second over the last seconds."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} pairs/s", style="cyan")


@contextmanager
def progress(title: str, total: int, console: Console) -> Iterator["Advance"]:
    """A bar with pairs per second and the time left, on a terminal; nothing elsewhere. Yields what advances it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        yield Advance(bar, bar.add_task(title, total=total))


class Advance:
    """Called once for every finished pair."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar, self._task = bar, task

    def __call__(self) -> None:
        self._bar.advance(self._task)


def show_problems(problems: Sequence[Problem], console: Console) -> None:
    """One row for each problem: name and reason."""
    table = Table(title=f"{len(problems)} without a result", title_justify="left", title_style="bold red")
    table.add_column("pair", overflow="fold")
    table.add_column("reason", overflow="fold")
    for problem in problems:
        table.add_row(escape(problem.name), escape(problem.message))
    console.print(table)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the texts of `InputWarning`s, those of reading threads too, instead of printing each where it happens."""
    texts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        usual = warnings.showwarning

        def collect(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, InputWarning):
                texts.append(str(message))
            else:
                usual(message, category, *rest, **more)

        warnings.showwarning = collect
        yield texts


def show_warnings(texts: Sequence[str], console: Console) -> None:
    """The first five warnings, and how many more there are."""
    for text in texts[:5]:
        console.print(f"[yellow]warning:[/] {escape(text)}")
    if len(texts) > 5:
        console.print(f"[yellow]warning:[/] {len(texts) - 5} more of this kind")


def require_writable(folder: Path) -> None:
    """Make `folder`, and raise a ConfigError unless files can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"cannot write to '{folder}' ({os.strerror(error.errno or 0)}); choose another output folder"
        ) from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, its keys in the given order. NaN becomes null, which every reader knows."""
    write_text(path, json.dumps(_without_nan(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
