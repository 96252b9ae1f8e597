"""Tensors from files into networks, and the renaming of those that others published.

Files are read without executing anything in them (`weights_only=True`, safetensors). A tensor that is left over or
missing is an error that names it.
"""

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tectum.errors import WeightsError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of a `.pth`, `.pt` or `.bin` file read with `weights_only=True`.

    A dictionary that holds the tensors one level down (`state_dict`, `model`) and the prefix `module.` of data-parallel
    training are unwrapped.

    Raises:
        WeightsError: for a file that is missing, damaged, holds no tensors, or would need pickle to execute code.
    """
    try:
        content: Any
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"there is no weights file '{path}'") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"'{path}' is damaged, or holds Python objects beside its tensors, which tectum never executes: "
            "re-save its state_dict alone with torch.save"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        raise WeightsError(f"'{path}' cannot be read as weights ({error}): fetch it again") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"'{path}' holds no dictionary of tensors: re-save the network's state_dict with torch.save")
    return {key.removeprefix("module."): value for key, value in content.items()}


def fill(model: torch.nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Load `tensors` into `model`; nothing may be left over or missing, and every shape must fit.

    Raises:
        WeightsError: naming the keys and `source`.
    """
    expected = model.state_dict()
    problems = []
    for title, keys in (("left over", tensors.keys() - expected.keys()), ("missing", expected.keys() - tensors.keys())):
        if keys:
            problems.append(f"{title}: {', '.join(sorted(keys)[:8])}{' ...' if len(keys) > 8 else ''}")
    problems += [
        f"{key} is {tuple(tensors[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    if problems:
        raise WeightsError(f"the weights in '{source}' do not fit {type(model).__name__}: {'; '.join(problems[:8])}")
    model.load_state_dict(dict(tensors))


def rename(key: str, rules: Sequence[tuple[str, str]], one_based: bool) -> str:
    """The first rule whose pattern starts `key` replaces that start; an unknown key is returned as it is."""
    for pattern, template in rules:
        match = re.match(pattern, key)
        if match:
            groups = list(match.groups())
            if one_based:
                # Only the stage counts from one: the first group that is a number.
                at = next(i for i, group in enumerate(groups) if group.isdigit())
                groups[at] = str(int(groups[at]) - 1)
            return template.format(*groups) + key[match.end() :]
    return key


def depths(tensors: Mapping[str, Tensor], prefix: str, stages: range) -> tuple[int, ...]:
    """Number of blocks of each stage, whose keys begin with `prefix` filled in, followed by the block's number."""
    return tuple(
        len({key.split(".")[2] for key in tensors if key.startswith(prefix.format(stage))}) for stage in stages
    )
