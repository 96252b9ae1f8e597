"""`tectum.evaluate`: what is counted, what is left out, and that its means are those of the torchmetrics classes."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

import tectum
from tectum.data.datasets import pair_table
from tectum.data.pair import read_pair
from tectum.evaluation import precision_cost
from tectum.metrics.fusion import FusionScores
from tectum.metrics.segmentation import SegmentationScores
from tectum.scenes import write_scenes


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return tectum.Predictor(tectum.create_model("virmfs_b0", classes=9).eval(), backend="torch")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("MSRS")
    write_scenes(root, 3, size=(48, 64), split="test")
    return pair_table(root, "msrs", "test")


def test_means_are_those_of_the_accumulating_classes(predictor, pairs):
    fusion, segmentation = FusionScores(), SegmentationScores(9)
    for one in predictor.stream(pairs, read=partial(read_pair, classes=9)):
        fusion.update(*(torch.from_numpy(image)[None] for image in one.compared()))
        segmentation.update(torch.from_numpy(one.result.labels), torch.from_numpy(one.pair.label))
    expected = {key: float(value) for key, value in fusion.compute().items()}
    expected["miou"] = float(segmentation.compute()["miou"])
    done = []
    found = tectum.evaluate(predictor, pairs, advance=lambda: done.append(1))
    assert found.means() == expected  # to the last bit: the best checkpoint of a training is chosen by them
    assert list(found.images) == [pair.name for pair in pairs]
    assert (found.labelled, found.problems, len(done)) == (3, [], 3)


def test_what_cannot_be_scored_counts_nowhere(predictor, pairs, tmp_path):
    broken, boxes = tmp_path / "broken.png", tmp_path / "boxes.txt"
    broken.write_bytes(b"")
    boxes.write_text("not a box\n")
    table = [pairs[0], replace(pairs[1], visible=broken), replace(pairs[2], boxes=boxes)]
    found = tectum.evaluate(predictor, table, boxes=True)
    assert [problem.name for problem in found.problems] == [pairs[1].name, pairs[2].name]
    assert found.images == tectum.evaluate(predictor, pairs[:1]).images
    assert found.labelled == 1
    assert found.segmentation.matrix.sum() == 48 * 64


def test_names_of_several_splits_are_told_apart(predictor, pairs):
    table = [replace(pairs[0], split=split) for split in ("train", "test")]
    assert list(tectum.evaluate(predictor, table).images) == [f"{split}/{pairs[0].name}" for split in ("train", "test")]


def test_without_labels_and_without_pairs(predictor, pairs):
    found = tectum.evaluate(predictor, [replace(pair, label=None) for pair in pairs], metrics=("mi",))
    assert found.means().keys() == {"mi"}
    assert found.labelled == 0
    assert tectum.evaluate(predictor, []).means() == {}


def test_a_predictor_costs_nothing_against_itself(predictor, pairs):
    cost = precision_cost(predictor, predictor, pairs)
    assert (cost.pairs, cost.fused_max, cost.fused_mean, cost.labels) == (3, 0, 0, 1)
    assert cost.before == cost.after
    assert all(math.isfinite(value) for value in cost.before.values())
