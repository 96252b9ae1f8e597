"""tectum: fuse an infrared and a visible image into one picture for people, and label every pixel for machines.

The names below are imported on first use, so that `import tectum` is quick and pulls in no optional package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tectum.errors import TectumError
    from tectum.evaluation import evaluate
    from tectum.models import create_model, list_models, load
    from tectum.models.base import Output
    from tectum.predict.predictor import Predictor, Result
    from tectum.weights import list_weights

__version__ = "0.2.0.dev0"

DEFAULT_WEIGHTS = "virmfs_lite0_street"
"""The weights that commands and `Predictor` use unless told otherwise."""

_HOME = {
    "Output": "tectum.models.base",
    "Predictor": "tectum.predict.predictor",
    "Result": "tectum.predict.predictor",
    "TectumError": "tectum.errors",
    "create_model": "tectum.models",
    "evaluate": "tectum.evaluation",
    "list_models": "tectum.models",
    "list_weights": "tectum.weights",
    "load": "tectum.models",
}

__all__ = [
    "DEFAULT_WEIGHTS",
    "Output",
    "Predictor",
    "Result",
    "TectumError",
    "__version__",
    "create_model",
    "evaluate",
    "list_models",
    "list_weights",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tectum' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
