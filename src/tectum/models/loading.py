"""Trained networks from where they lie: `load`."""

import json
from pathlib import Path

from tectum.errors import ConfigError, WeightsError
from tectum.models.architectures import ARCHITECTURES, create_model
from tectum.models.base import FusionSegmenter
from tectum.models.mafs.checkpoint import load_mafs
from tectum.models.tensors import fill, read_tensors
from tectum.models.virmfs.checkpoint import load_virmfs
from tectum.weights import CONFIG_FILE, WEIGHTS_FILE, list_weights, no_weights, resolve


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
    if str(source) in ARCHITECTURES and not Path(source).exists():
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


def load_original(path: str | Path, wiring: str | None) -> FusionSegmenter:
    """An authors' checkpoint, ViR-MFS or MAFS by its keys, as a network of ours.

    Args:
        path: `.pth` file with the keys of the release, with or without `module.`.
        wiring: "asymmetric" or "symmetric" for ViR-MFS, whose files do not say it; None for MAFS, which has none.

    Raises:
        ConfigError: for ViR-MFS without a wiring, or MAFS with one.
        WeightsError: for a file that is neither, or does not fit.
    """
    path = Path(path)
    tensors = read_tensors(path)
    if not any(key.startswith("encoder.encoder_rgb_") for key in tensors):
        return load_virmfs(tensors, path, wiring)
    if wiring is not None:
        raise ConfigError(f"'{path}' is a MAFS checkpoint, which has no wiring: leave out wiring={wiring!r}")
    return load_mafs(tensors, path)
