"""Configs from YAML, checked by pydantic: an unknown key is an error with one readable line."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tectum.errors import ConfigError

CONFIGS = Path(__file__).parent / "configs"
"""The configs that come with tectum."""


def read_config(kind: type[BaseModel], path: str | Path, overrides: Sequence[str] = ()) -> Any:
    """Read a YAML file and `key=value` overrides into `kind`.

    The key `base` of a file names another config, or a list of them, whose keys it starts from: files, relative to this
    one, or names of `tectum train --list`. A config in the list goes over those before it. Sections are merged key by
    key, lists and values replaced.

    Args:
        kind: the recipe's config class.
        path: YAML file.
        overrides: dotted keys, list items by number: "run.epochs=3", "data.train.0.root=data/MSRS".

    Raises:
        ConfigError: naming the file or override, the key, and the keys there are.
    """
    return check(kind, read_content(Path(path)), overrides, path)


def check(kind: type[BaseModel], content: dict[str, Any], overrides: Sequence[str], source: str | Path) -> Any:
    """The content of `source` with overrides as a `kind`.

    Raises:
        ConfigError: as `read_config`.
    """
    for text in overrides:
        override(content, text)
    try:
        return kind(**content)
    except ValidationError as error:
        raise ConfigError(f"config '{source}': " + "; ".join(_explain(kind, item) for item in error.errors())) from None


def _locate(base: str, folder: Path) -> Path:
    """The file that `base` names: one in the folder of its user, or a config that comes with tectum."""
    packaged = CONFIGS / f"{base}.yaml"
    return packaged if packaged.is_file() and not (folder / base).exists() else folder / base


def read_content(path: Path, users: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Keys of a YAML file on top of those of its bases; `users` are the files that led to it, the nearest last.

    Raises:
        ConfigError: it is missing, no YAML mapping, or its own base.
    """
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
        merged = merge(merged, read_content(_locate(base, path.parent), (*users, path)))
    return merge(merged, content)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Sections merged key by key, lists and values of `above` in place of those of `below`."""
    merged = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = merge(below[key], above[key])
    return merged


def override(content: dict[str, Any], text: str) -> None:
    """Set what `key=value` says in a config's content."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{text}' is no override: write key=value, for example run.epochs=3")
    *parents, last = key.split(".")
    place: Any = content
    try:
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
        place[int(last) if isinstance(place, list) else last] = yaml.safe_load(value)
    except (IndexError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        raise ConfigError(f"override '{text}' points to nothing in the config: check its dotted key") from None


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
