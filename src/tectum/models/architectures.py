"""Networks by name: `create_model`, `list_models`."""

from collections.abc import Callable
from typing import Any

from tectum.errors import ConfigError
from tectum.models import mafs, virmfs
from tectum.models.base import FusionSegmenter
from tectum.weights import list_weights

ARCHITECTURES: dict[str, tuple[Callable[..., FusionSegmenter], dict[str, Any]]] = {
    **{name: (virmfs.ViRMFS, preset) for name, preset in virmfs.PRESETS.items()},
    **{name: (mafs.MAFS, preset) for name, preset in mafs.PRESETS.items()},
}


def list_models() -> list[str]:
    """Names of the architectures that `create_model` builds."""
    return list(ARCHITECTURES)


def create_model(name: str, **arguments: Any) -> FusionSegmenter:
    """Build a network with random weights.

    Args:
        name: one of `list_models()`.
        arguments: constructor keywords that override the preset, `classes=15` for example.

    Raises:
        ConfigError: for an unknown name, keyword or value; the message lists what there is.
    """
    if name not in ARCHITECTURES:
        hint = " (these are weights: use load)" if name in list_weights() else ""
        raise ConfigError(f"there is no model '{name}'{hint}; choose one of {', '.join(list_models())}")
    build, preset = ARCHITECTURES[name]
    keywords = list(build.__init__.__kwdefaults__ or {})
    unknown = arguments.keys() - set(keywords)
    if unknown:
        raise ConfigError(f"{name} takes no keyword {', '.join(sorted(unknown))}; it takes {', '.join(keywords)}")
    return build(name, **{**preset, **arguments})
