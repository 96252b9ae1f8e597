"""What a trained network says of its own certainty: fitted once training is over, kept in its metadata.

The temperature makes probabilities of the logits that are right as often as they say, on held-out pairs. The ranges of
traits tell pairs that are unlike those of training; see `tectum.predict.familiar`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from tectum.data.pair import Pair, PairPaths, read_pair
from tectum.data.transforms import pair_tensors
from tectum.data.truth import partial_labels
from tectum.data.weather import Weather
from tectum.losses.segmentation import cross_entropy
from tectum.models.base import FusionSegmenter
from tectum.predict import Predictor
from tectum.predict.familiar import traits

_THINNED = 4  # every so many rows and columns are enough to fit one number
_PAIRS = 60
_OUTLIERS = 0.01  # share of the training pairs that lies beyond a range, before it is widened
_MARGIN = 0.15  # of a range, by which it is widened on either side


def calibrate(
    trained: FusionSegmenter, validation: Sequence[PairPaths], training: Sequence[PairPaths], weather: Weather
) -> dict[str, Any]:
    """Entries of the metadata's "calibration": `temperature`, the number of `pairs` behind it, and `ranges` of traits.

    Args:
        trained: the network.
        validation: held-out pairs with label maps, whatever part of the truth they say.
        training: pairs of training; some sixty of them, as they are and in weather, make the ranges.
        weather: of training.
    """
    network = trained.deploy()
    temperature = _temperature(Predictor(network), validation)
    network.metadata["calibration"] = {"temperature": temperature}
    predictor = Predictor(network)
    chosen = training[:: max(1, len(training) // _PAIRS)]
    found: dict[str, list[float]] = {}
    for number, paths in enumerate(chosen):
        pair = read_pair(paths, classes=predictor.classes)
        for one in (pair, _in_weather(pair, weather, number)):
            result = predictor.batch([one])[0]
            for name, value in traits(one, result.labels, result.confidence).items():
                found.setdefault(name, []).append(value)
    return {"temperature": temperature, "pairs": len(validation), "ranges": _ranges(found)}


def _temperature(predictor: Predictor, pairs: Sequence[PairPaths]) -> float:
    """The temperature T at which the cross-entropy of logits / T is smallest, over the labelled pixels of all pairs.

    Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks", ICML 2017.
    """
    logits, labels = [], []
    for paths in pairs:
        pair = read_pair(paths, classes=predictor.classes)
        assert pair.label is not None
        truth = torch.from_numpy(pair.label[::_THINNED, ::_THINNED].astype(np.int64))
        truth = partial_labels(truth, torch.zeros_like(truth), predictor.classes, paths.use.looked_for)
        scores = torch.from_numpy(predictor.logits(pair)[:, ::_THINNED, ::_THINNED].copy())
        logits.append(scores.flatten(1))
        labels.append(truth.flatten())
    scores, truth = torch.cat(logits, dim=1)[None, ..., None], torch.cat(labels)[None, :, None]

    def loss(logarithm: float) -> float:
        return float(cross_entropy(scores / float(np.exp(logarithm)), truth))

    return round(float(np.exp(minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x)), 4)


def _in_weather(pair: Pair, weather: Weather, seed: int) -> Pair:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        visible, infrared = weather(*pair_tensors(pair))
    return Pair(pair.name, np.ascontiguousarray(visible.numpy().transpose(1, 2, 0)), infrared[0].numpy())


def _ranges(found: dict[str, list[float]]) -> dict[str, list[float]]:
    ranges = {}
    for name, values in found.items():
        low, high = np.quantile(values, (_OUTLIERS / 2, 1 - _OUTLIERS / 2))
        margin = _MARGIN * (high - low)
        ranges[name] = [round(float(low - margin), 5), round(float(high + margin), 5)]
    return ranges
