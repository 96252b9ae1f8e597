"""Which engine runs a model: by what the model is, by the device, and by what is installed."""

import logging
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tectum.engines.base import Engine
from tectum.engines.open import open_export
from tectum.errors import ConfigError, MissingExtraError
from tectum.export import ExportError
from tectum.machine import keep_freed_memory
from tectum.predict.cache import cache_file, exported, open_kept
from tectum.weights import EXPORT_SUFFIXES, Source, resolve

if TYPE_CHECKING:
    from torch import nn

BACKENDS = ("auto", "torch", "compile", "onnx", "openvino")
"""What `Predictor(backend=...)` takes; see `create_engine`."""

_log = logging.getLogger(__name__)


def create_engine(model: "str | Path | nn.Module", device: str = "auto", backend: str = "auto") -> Engine:
    """The engine for a model.

    Args:
        model: a shipped name, a directory or file that `tectum.load` reads, a network, or a file that `tectum export`
            wrote (`.onnx`, or `.xml` with its `.bin` beside it), which runs without torch.
        device: as in `Predictor`; ONNX Runtime and OpenVINO run on the CPU.
        backend:
            "torch": PyTorch, eager; weights that are loaded run folded (`model.deploy()`).
            "compile": the same through `torch.compile`, which takes a minute for the first pair.
            "onnx", "openvino": ONNX Runtime or OpenVINO. Weights are exported when they are first run, which takes some
            seconds for OpenVINO and up to minutes for ONNX; the file is kept, see `tectum.predict.cache`.
            "auto": for an exported file its runtime, for a network handed in torch. For weights, torch where the device
            is a GPU, otherwise OpenVINO where it is installed, then ONNX Runtime where the export has been kept, then
            torch.

    Raises:
        ConfigError: an unknown model, device or backend, or three that do not go together.
        MissingExtraError: the runtime is not installed.
        WeightsError: weights that cannot be read, or a file that `tectum export` did not write.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"there is no backend '{backend}'; choose one of {', '.join(BACKENDS)}")
    if not isinstance(model, str | Path):
        return _handed_in(model, device, backend)
    source = _resolve(model)
    if source.engine is not None:
        if backend not in ("auto", source.engine):
            raise ConfigError(
                f"'{source.path}' runs in backend {source.engine}, not in {backend}; leave the backend out"
            )
        _require_cpu(device, source.engine)
        return open_export(source.path)
    if backend in EXPORT_SUFFIXES:
        _require_cpu(device, backend)
        return exported(source, backend)
    if backend == "auto" and (device == "cpu" or (device == "auto" and not _has_gpu())):
        fastest = _fastest_export(source)
        if fastest is not None:
            return fastest
    return _in_torch(source, device, compiled=backend == "compile")


def _resolve(model: str | Path) -> Source:
    try:
        return resolve(model)
    except ConfigError:
        from tectum.models import load  # which knows the architectures too, and so can say more

        load(model)
        raise


def _handed_in(network: "nn.Module", device: str, backend: str) -> Engine:
    """The engine of a network, which stays where it is unless a device is asked for."""
    if backend in EXPORT_SUFFIXES:
        raise ConfigError(
            f"a network handed in runs in torch, not in backend {backend}: write it to a file with "
            "tectum.export.export and give that file"
        )
    from tectum.engines.torch import TorchEngine, torch_device

    if device != "auto":
        network.to(torch_device(device))
    return TorchEngine(network, compiled=backend == "compile")


def _in_torch(source: Source, device: str, *, compiled: bool) -> Engine:
    """The engine of weights in torch, folded."""
    from tectum.engines.torch import TorchEngine, torch_device
    from tectum.models import load

    chosen = torch_device(device)  # before the weights are read: a wrong device should not cost a load
    network = load(source.path).deploy().to(chosen)
    if chosen.type == "cpu":
        keep_freed_memory()
    return TorchEngine(network, compiled=compiled)


def _fastest_export(source: Source) -> Engine | None:
    """The engine of the weights in the fastest runtime for a CPU that is installed; None where that is torch."""
    with suppress(MissingExtraError):
        try:
            return exported(source, "openvino")
        except ExportError as error:
            _log.warning("%s; running in torch", error)
            return None
    with suppress(MissingExtraError):
        # Only what has been exported before: writing ONNX takes longer than many a folder of pairs in torch.
        return open_kept(cache_file(source, "onnx"))
    return None


def _has_gpu() -> bool:
    """Whether torch has a GPU to run on. It is asked only where the system shows a sign of one: its import is slow."""
    drivers = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
    if sys.platform != "darwin" and not any(map(os.path.exists, drivers)) and shutil.which("nvidia-smi") is None:
        return False
    from tectum.engines.torch import torch_device

    return torch_device("auto").type != "cpu"


def _require_cpu(device: str, runtime: str) -> None:
    if device not in ("auto", "cpu"):
        raise ConfigError(f"backend {runtime} runs on the CPU, not on '{device}'; use the device cpu or backend torch")
