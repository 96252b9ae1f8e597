"""Where a benchmark was run: what changes its numbers, and nothing that names the machine or its folders."""

import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tectum
from tectum.machine import cpu_threads
from tectum.provenance import commit, package_version

_PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Versions, processor, threads and date (UTC), for JSON; None for what is not known or not installed."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tectum": tectum.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {package: package_version(package) for package in _PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        "logical_processors": os.cpu_count(),
        "threads": cpu_threads(),
        "precision": "float32, except in rows named by another",
    }


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
