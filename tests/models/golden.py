"""The authors' networks as state dicts, rebuilt from the shared golden folder."""

import importlib.util
import json
from pathlib import Path

import torch


def state_dict(golden: Path, name: str) -> dict[str, torch.Tensor]:
    """Every tensor of `{name}_state_dict.json`, drawn from its key as the golden outputs were; constants left out."""
    spec = importlib.util.spec_from_file_location("golden_fill", golden / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = json.loads((golden / f"{name}_state_dict.json").read_text())
    values = {key: module.fill(key, tuple(shape)) for key, shape in shapes.items()}
    return {key: torch.as_tensor(value) for key, value in values.items() if value is not None}
