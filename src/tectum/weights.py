"""What a model may be named by: shipped weights, saved folders, authors' checkpoints, exported files. Without torch.

Every room that takes a model (`tectum.load`, `Predictor`, the commands) resolves it here, so that one name means one
thing everywhere.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tectum.errors import ConfigError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

EXPORT_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
"""Suffix of an exported file by the engine that runs it; the weights of OpenVINO's lie beside it, with .bin."""

_SHIPPED = Path(__file__).parent / "models" / "weights"
_REPLACED = {"virmfs_lite0_msrs": "virmfs_lite0_street"}
_CHECKPOINT_SUFFIXES = (".pth", ".pt")


@dataclass(frozen=True)
class Source:
    """Where a model lies.

    Attributes:
        kind: "shipped" and "saved" are folders written by `model.save()`, "original" is a checkpoint of a paper's
            authors, "exported" a file that `tectum export` wrote.
        path: the folder or the file. Of the two last kinds it may not exist.
        engine: "onnx" or "openvino" for an exported file, which runs in no other; None for all else.
    """

    kind: Literal["shipped", "saved", "original", "exported"]
    path: Path
    engine: str | None = None

    @property
    def weights(self) -> Path:
        """The file that holds the tensors."""
        if self.kind in ("shipped", "saved"):
            return self.path / WEIGHTS_FILE
        return self.path.with_suffix(".bin") if self.engine == "openvino" else self.path

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that make the model what it is, for a digest."""
        if self.kind in ("shipped", "saved"):
            return self.path / CONFIG_FILE, self.weights
        return (self.path, self.weights) if self.engine == "openvino" else (self.path,)


def list_weights() -> list[str]:
    """Names of the weights that come with tectum, for `load`."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{CONFIG_FILE}"))


def shipped_folder(name: str) -> Path:
    """Folder of the shipped weights `name`: `model.safetensors`, `config.json` and the card `README.md`."""
    return _SHIPPED / name


def resolve(model: str | Path) -> Source:
    """Find out what a model's name or path stands for, without reading it.

    Args:
        model: a name of `list_weights()`, a folder, or a file, known by its suffix. For the name of a set that another
            has replaced it is that other one, with a FutureWarning.

    Raises:
        ConfigError: it is none of these; the message lists what there is.
    """
    if isinstance(model, str) and model in _REPLACED and not Path(model).exists():
        warnings.warn(f"the weights {model} have been replaced: these are {_REPLACED[model]}", FutureWarning, 2)
        model = _REPLACED[model]
    if isinstance(model, str) and model in list_weights():
        return Source("shipped", shipped_folder(model))
    path = Path(model)
    suffix = path.suffix.lower()
    if path.is_dir():
        return Source("saved", path)
    if suffix in _CHECKPOINT_SUFFIXES:
        return Source("original", path)
    for engine, known in EXPORT_SUFFIXES.items():
        if suffix == known:
            return Source("exported", path, engine)
    if suffix == ".bin":
        raise ConfigError(f"'{path}' holds only the weights of an OpenVINO file; give the .xml file beside it")
    raise no_weights(model)


def no_weights(model: str | Path) -> ConfigError:
    """The error that there are no trained weights under a name or path."""
    return ConfigError(
        f"there are no weights '{model}'; choose one of {', '.join(list_weights())}, "
        "a directory written by model.save(), or an authors' .pth file"
    )
