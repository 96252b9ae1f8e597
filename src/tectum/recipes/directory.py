"""The directory of a run, opened: what explains it, and no lines that it will write again."""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from tectum.files import write_text
from tectum.provenance import commit, package_version
from tectum.recipes.log import LOG


def open_directory(directory: Path, config: dict[str, Any], steps: int) -> None:
    """Write the resolved config and the environment, and cut the log to the steps that are done."""
    write_text(directory / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_text(directory / "environment.json", json.dumps(environment(), indent=2) + "\n")
    _cut_log(directory / LOG, steps)


def environment() -> dict[str, Any]:
    """Versions and machine, as saved beside every run."""
    packages = ("tectum", "torch", "torchvision", "accelerate", "numpy", "pillow")
    return {
        "packages": {package: package_version(package) or "not installed" for package in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit(),
        "command": sys.argv,
    }


def _cut_log(path: Path, steps: int) -> None:
    """Drop the lines that an interrupted run wrote after its last checkpoint."""
    if path.exists():
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= steps:
                    lines.append(line + "\n")
            except ValueError:  # the line that the interruption cut short
                continue
        write_text(path, "".join(lines))
