"""Networks by name: `create_model`, `list_models`, `load`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tectum.errors import ConfigError, WeightsError
from tectum.models.base import FusionSegmenter, Output
from tectum.models.mafs import MAFS
from tectum.models.mafs import PRESETS as MAFS_PRESETS
from tectum.models.original import fill, load_original, read_tensors
from tectum.models.virmfs import PRESETS as VIRMFS_PRESETS
from tectum.models.virmfs import ViRMFS
from tectum.weights import CONFIG_FILE, WEIGHTS_FILE, list_weights, no_weights, resolve
from tectum.weights import shipped_folder as weights_folder

__all__ = ["FusionSegmenter", "Output", "create_model", "list_models", "list_weights", "load", "weights_folder"]

_ARCHITECTURES: dict[str, tuple[Callable[..., FusionSegmenter], dict[str, Any]]] = {
    **{name: (ViRMFS, preset) for name, preset in VIRMFS_PRESETS.items()},
    **{name: (MAFS, preset) for name, preset in MAFS_PRESETS.items()},
}


def list_models() -> list[str]:
    """Names of the architectures that `create_model` builds."""
    return list(_ARCHITECTURES)


def create_model(name: str, **arguments: Any) -> FusionSegmenter:
    """Build a network with random weights.

    Args:
        name: one of `list_models()`.
        arguments: constructor keywords that override the preset, `classes=15` for example.

    Raises:
        ConfigError: for an unknown name, keyword or value; the message lists what there is.
    """
    if name not in _ARCHITECTURES:
        hint = " (these are weights: use load)" if name in list_weights() else ""
        raise ConfigError(f"there is no model '{name}'{hint}; choose one of {', '.join(list_models())}")
    build, preset = _ARCHITECTURES[name]
    keywords = list(build.__init__.__kwdefaults__ or {})
    unknown = arguments.keys() - set(keywords)
    if unknown:
        raise ConfigError(f"{name} takes no keyword {', '.join(sorted(unknown))}; it takes {', '.join(keywords)}")
    return build(name, **{**preset, **arguments})


def load(source: str | Path, *, wiring: str | None = None) -> FusionSegmenter:
    """Load trained weights, in float32, in eval mode, on the CPU. Opens no connection and executes no pickle.

    Args:
        source: a name of `list_weights()`, a directory written by `model.save()`, or a `.pth` file of the authors of
            ViR-MFS or MAFS.
        wiring: for an authors' ViR-MFS file, which does not say how it is wired: "asymmetric" or "symmetric".

    Raises:
        ConfigError: for a name that is neither, or a missing wiring.
        WeightsError: for files that are damaged or do not fit.
    """
    if str(source) in _ARCHITECTURES and not Path(source).exists():
        raise ConfigError(
            f"'{source}' is an architecture without weights: use tectum.create_model('{source}') for random ones, "
            f"or load one of {', '.join(list_weights())}"
        )
    found = resolve(source)
    if found.kind == "exported":
        raise no_weights(source)
    model = load_original(found.path, wiring) if found.kind == "original" else _load_directory(found.path)
    return model.eval()


def _load_directory(path: Path) -> FusionSegmenter:
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        architecture, arguments, metadata = (config[key] for key in ("architecture", "arguments", "metadata"))
    except FileNotFoundError:
        raise WeightsError(f"'{path}' has no {CONFIG_FILE}: it is no directory written by model.save()") from None
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"'{path / CONFIG_FILE}' is damaged ({error!r}): save the model again") from error
    model = create_model(architecture, **arguments)
    fill(model, read_tensors(path / WEIGHTS_FILE), path / WEIGHTS_FILE)  # float16 is widened by the copy
    model.metadata = metadata
    return model
