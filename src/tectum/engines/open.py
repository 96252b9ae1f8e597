"""Opening an exported file in the engine that runs it."""

from pathlib import Path

from tectum.engines.base import Engine
from tectum.engines.onnx import OnnxEngine
from tectum.engines.openvino import OpenVinoEngine
from tectum.errors import ConfigError
from tectum.weights import EXPORT_SUFFIXES


def open_export(file: Path) -> Engine:
    """The engine of a file that `tectum export` wrote.

    Raises:
        ConfigError: there is no such file.
        MissingExtraError: its runtime is not installed.
        WeightsError: the file is damaged, or of another origin.
    """
    if not file.is_file():
        raise ConfigError(f"there is no file '{file}'; tectum export writes such files")
    return OnnxEngine(file) if file.suffix.lower() == EXPORT_SUFFIXES["onnx"] else OpenVinoEngine(file)
