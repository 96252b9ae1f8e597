"""Where a benchmark was run: what changes its numbers, and nothing that names the machine or its folders."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tectum
from tectum.predict.backends import cpu_threads

_PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Versions, processor, threads and date (UTC), for JSON; None for what is not known or not installed."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tectum": tectum.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in _PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        "logical_processors": os.cpu_count(),
        "threads": cpu_threads(),
        "precision": "float32, except openvino int8",
    }


def _commit() -> str | None:
    """Commit of the checkout that tectum runs from, with "-dirty" where files differ from it; None without one."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A folder of installed packages may lie in the checkout of another project.
    if git("ls-files", "--error-unmatch", "published.py") is None:
        return None
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
