"""Inference: from a pair to a fused picture and a label map. Importing it does not import torch."""

from tectum.data.pairing import find_pairs
from tectum.predict.predictor import Prediction, Predictor, Result

__all__ = ["Prediction", "Predictor", "Result", "find_pairs"]
