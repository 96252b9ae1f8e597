"""`tectum train`: run a training recipe."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from tectum.cli.console import output
from tectum.errors import ConfigError
from tectum.recipes.catalogue import RECIPES, list_configs, plan


def train(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG]... [KEY=VALUE]...",
            help="Names of --list or YAML files, each going over those before it, and settings by dotted keys: "
            "run.epochs=3 data.train.0.root=data/MSRS",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file without the key 'recipe'; then the argument is the recipe.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run; by default runs/CONFIG.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this directory.")] = None,
    show: Annotated[bool, typer.Option("--list", help="List the configs that come with tectum, and end.")] = False,
) -> None:
    """Train a network. Several processes or machines: `accelerate launch -m tectum train ...`."""
    if show:
        _list()
        return
    overrides = [text for text in what or [] if "=" in text]
    names: list[str | Path] = [text for text in what or [] if "=" not in text]
    recipe = str(names.pop(0)) if names and (config is not None or resume is not None) else None
    if config is not None:
        names.append(config)
    if bool(names) == (resume is not None):
        raise ConfigError("give either --config FILE for a new run or --resume DIR to go on with one")
    if resume is not None:
        if overrides:
            raise ConfigError("a resumed run keeps its config: leave the overrides out, or start a new run")
        if not (resume / "config.yaml").is_file():
            raise ConfigError(f"'{resume}' is no run to resume: it has no config.yaml")
        names = [resume / "config.yaml"]
    elif config is None and str(names[0]) in RECIPES and not Path(names[0]).exists() and len(names) == 1:
        raise ConfigError(
            f"'{names[0]}' is a recipe: give either --config FILE for a new run or --resume DIR to go on with one, or "
            "name a config of tectum train --list in its place"
        )
    job = plan(names, overrides, recipe)
    directory = resume or out or Path("runs") / job.name
    if resume is None and (directory / "checkpoint.pt").exists():
        raise ConfigError(
            f"'{directory}' holds a run already: go on with --resume {directory}, or choose another --out"
        )
    model = job.train(job.config, directory)
    best = directory / "best"
    also = f"best by validation: {best}; " if best.is_dir() else ""
    typer.echo(f"trained: {model}  ({also}log: {directory / 'log.jsonl'})")


def _list() -> None:
    table = Table(title="tectum train CONFIG ... KEY=VALUE ...", title_justify="left")
    for column in ("config", "recipe", "what it is"):
        table.add_column(column, overflow="fold")
    for listed in list_configs():
        table.add_row(escape(listed.name), listed.recipe, escape(listed.summary))
    output().print(table)
