"""Inference: from a pair to a fused picture and a label map. Importing it does not import torch."""

from tectum.predict.predictor import Predictor, Result

__all__ = ["Predictor", "Result"]
