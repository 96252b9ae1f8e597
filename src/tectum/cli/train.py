"""`tectum train`: run a training recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tectum.errors import ConfigError, MissingExtraError


def train(
    recipe: Annotated[str, typer.Argument(help="virmfs, virmfs_pretrain, mafs_pretrain or mafs_joint")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, dotted: run.epochs=3 data.train.0.root=data/MSRS")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file, see configs/")] = None,
    out: Annotated[Path | None, typer.Option(help="directory of the run; default runs/CONFIG")] = None,
    resume: Annotated[Path | None, typer.Option(help="go on with the run in this directory")] = None,
) -> None:
    """Train a network. Several processes or machines: `accelerate launch -m tectum train ...`."""
    if (config is None) == (resume is None):
        raise ConfigError("give either --config FILE for a new run or --resume DIR to go on with one")
    if resume is not None and overrides:
        raise ConfigError("a resumed run keeps its config: leave the overrides out, or start a new run")
    try:
        from tectum.recipes import mafs_joint, mafs_pretrain, virmfs, virmfs_pretrain
        from tectum.recipes.config import read_config
    except ModuleNotFoundError as error:
        if error.name in ("accelerate", "tensorboard"):
            raise MissingExtraError("training", "train") from None
        raise
    recipes: dict[str, tuple[Any, Callable[[Any, Path], Path]]] = {
        "virmfs": (virmfs.VirmfsConfig, virmfs.train),
        "virmfs_pretrain": (virmfs_pretrain.VirmfsPretrainConfig, virmfs_pretrain.train),
        "mafs_pretrain": (mafs_pretrain.MafsPretrainConfig, mafs_pretrain.train),
        "mafs_joint": (mafs_joint.MafsJointConfig, mafs_joint.train),
    }
    if recipe not in recipes:
        raise ConfigError(f"there is no recipe '{recipe}'; choose one of {', '.join(recipes)}")
    kind, run = recipes[recipe]

    if resume is not None:
        directory = resume
        if not (directory / "config.yaml").is_file():
            raise ConfigError(f"'{directory}' is no run to resume: it has no config.yaml")
        settings = read_config(kind, directory / "config.yaml")
    else:
        assert config is not None
        directory = out or Path("runs") / config.stem
        settings = read_config(kind, config, overrides)
        if (directory / "checkpoint.pt").exists():
            raise ConfigError(
                f"'{directory}' holds a run already: go on with --resume {directory}, or choose another --out"
            )
    model = run(settings, directory)
    best = directory / "best"
    also = f"best by validation: {best}; " if best.is_dir() else ""
    typer.echo(f"trained: {model}  ({also}log: {directory / 'log.jsonl'})")
