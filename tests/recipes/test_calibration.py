from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import tectum
from tectum.data.datasets import pair_table
from tectum.data.pair import InputWarning, Use
from tectum.data.weather import Weather
from tectum.models import create_model
from tectum.predict import Predictor
from tectum.recipes.calibration import calibrate


@pytest.fixture
def network():
    torch.manual_seed(0)
    return create_model("virmfs_b0", classes=9)


def sharpened(network, factor):
    """Multiplies the logits."""
    with torch.no_grad():
        network.segmentation_head.prediction.weight *= factor
        network.segmentation_head.prediction.bias *= factor


def test_the_temperature_takes_back_what_the_logits_are_too_sharp(scenes, network):
    table = pair_table(scenes, "msrs", "train")
    # Labels that are drawn from the network's own probabilities: it is calibrated as it is.
    generator = np.random.default_rng(0)
    sharpened(network, 4)
    for paths in table:
        logits = Predictor(network, backend="torch").logits(tectum.data.pair.read_pair(paths))
        noise = generator.gumbel(size=logits.shape)
        drawn = scenes.parent / f"{paths.name}_drawn.png"
        Image.fromarray((logits + noise).argmax(axis=0).astype(np.uint8)).save(drawn)
    drawn = [replace(paths, label=scenes.parent / f"{paths.name}_drawn.png") for paths in table]
    assert calibrate(network, drawn, table, Weather())["temperature"] == pytest.approx(1, rel=0.1)
    sharpened(network, 3)
    found = calibrate(network, drawn, table, Weather())
    assert found["temperature"] == pytest.approx(3, rel=0.1)
    assert found["pairs"] == len(table)
    partly = [replace(paths, use=Use(looked_for=(1, 2, 3))) for paths in drawn]
    assert calibrate(network, partly, table, Weather())["temperature"] > 1.5


def test_pairs_of_training_are_familiar_and_others_are_not(scenes, network, recwarn):
    table = pair_table(scenes, "msrs", "train")
    network.metadata["calibration"] = calibrate(network, table, table, Weather(fog=0.5))
    predictor = Predictor(network)
    pairs = [tectum.data.pair.read_pair(paths) for paths in table]
    predictor.batch(pairs)
    assert not [one for one in recwarn if "unlike" in str(one.message)]
    noise = np.random.default_rng(0).random(pairs[0].infrared.shape, np.float32)
    with pytest.warns(InputWarning, match="unlike those"):
        predictor.batch([replace(pairs[0], infrared=noise)])
