"""The recipes, and the configs that come with tectum. Importing it imports neither torch nor any recipe."""

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tectum.errors import ConfigError, MissingExtraError
from tectum.recipes.reading import CONFIGS, check, merge, read_content

RECIPES = {
    "virmfs": "VirmfsConfig",
    "virmfs_pretrain": "VirmfsPretrainConfig",
    "mafs_pretrain": "MafsPretrainConfig",
    "mafs_joint": "MafsJointConfig",
}
"""Each recipe's config class; both are in the module of the recipe's name."""


class Job(NamedTuple):
    """A training that can start: what runs it, its checked config, and a name for its directory."""

    train: Callable[[Any, Path], Path]
    config: Any
    name: str


class Listed(NamedTuple):
    """A config that comes with tectum: its name, its recipe, and what it is."""

    name: str
    recipe: str
    summary: str


def list_configs() -> list[Listed]:
    """The configs by name. Those in datasets/ have no recipe: they go on top of one that has."""
    files = sorted(CONFIGS.glob("**/*.yaml"), key=lambda file: (len(file.parts), file))
    return [
        Listed(
            file.relative_to(CONFIGS).with_suffix("").as_posix(), read_content(file).get("recipe", "-"), _summary(file)
        )
        for file in files
    ]


def _summary(file: Path) -> str:
    """The first sentence of the comment that a config begins with."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines).partition(". ")[0].rstrip(".")


def plan(configs: Sequence[str | Path], overrides: Sequence[str] = (), recipe: str | None = None) -> Job:
    """What `tectum train CONFIG ... KEY=VALUE ...` asks for.

    Args:
        configs: names of `list_configs()` or YAML files; each goes over those before it.
        overrides: see `tectum.recipes.reading.read_config`.
        recipe: for files that do not name theirs with the key `recipe`.

    Raises:
        ConfigError: a config that does not exist, is damaged, or names no recipe or an unknown one.
        MissingExtraError: the packages for training are not installed.
    """
    if not all(map(find_spec, ("accelerate", "tensorboard"))):
        raise MissingExtraError("training", "train")
    content: dict[str, Any] = {}
    for config in configs:
        content = merge(content, read_content(_file(config)))
    source = ", ".join(map(str, configs))
    chosen = recipe or content.get("recipe")
    if chosen is None:
        raise ConfigError(
            f"config '{source}' names no recipe: add the key 'recipe' with one of {', '.join(RECIPES)}, "
            "or begin with a config that has it"
        )
    if chosen not in RECIPES:
        raise ConfigError(f"there is no recipe '{chosen}'; choose one of {', '.join(RECIPES)}")
    module = import_module(f"tectum.recipes.{chosen}")
    return Job(
        module.train,
        check(getattr(module, RECIPES[chosen]), content, overrides, source),
        "_".join(Path(config).stem for config in configs),
    )


def _file(config: str | Path) -> Path:
    packaged = CONFIGS / f"{config}.yaml"
    if packaged.is_file() and not Path(config).exists():
        return packaged
    if not Path(config).suffix and not Path(config).exists():
        raise ConfigError(f"there is no config file '{config}', nor is it one of tectum train --list")
    return Path(config)
