"""Inference: from a pair to a fused picture and a label map. Importing it does not import torch."""

from tectum.predict.predictor import Prediction, Predictor, Result
from tectum.predict.sources import find_pairs

__all__ = ["Prediction", "Predictor", "Result", "find_pairs"]
