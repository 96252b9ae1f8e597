"""Networks by name: `create_model`, `list_models`, `load`."""

from tectum.models.architectures import create_model, list_models
from tectum.models.base import FusionSegmenter, Output
from tectum.models.loading import load
from tectum.weights import list_weights

__all__ = ["FusionSegmenter", "Output", "create_model", "list_models", "list_weights", "load"]
