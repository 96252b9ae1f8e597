"""`tectum.evaluate`: what is counted, what is left out, and that its means are those of the torchmetrics classes."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import tectum
from tectum.data.datasets import pair_table
from tectum.data.pair import read_pair
from tectum.evaluation import precision_cost
from tectum.metrics.fusion import FusionScores
from tectum.metrics.segmentation import SegmentationScores
from tectum.predict.predictor import Prediction, Result
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


class Showing:
    """A stand-in for a predictor that shows one image of each pair, or a mean of both."""

    class_names = ("unlabelled", "car", "person")
    classes = 3

    def __init__(self, fuse):
        self.fuse = fuse

    def stream(self, table, *, batch, read):
        for paths in table:
            pair = read(paths)
            light = pair.visible.mean(axis=2)
            fused = np.rint(255 * self.fuse(light, pair.infrared)).astype(np.uint8)
            result = Result(
                paths.name,
                fused[..., None].repeat(3, 2),
                np.zeros(light.shape, np.uint8),
                np.ones(light.shape, np.float32),
                fused / 255,
            )
            yield Prediction(paths, pair, result)


@pytest.fixture
def warm_person(tmp_path):
    """A pair in MSRS's layout: a person in fog who is warm, as a mask and as a box."""
    rng = np.random.default_rng(0)
    images = {"vi": rng.integers(180, 190, (64, 80), np.uint8), "ir": rng.integers(40, 50, (64, 80), np.uint8)}
    images["Segmentation_labels"] = np.zeros((64, 80), np.uint8)
    person = (slice(16, 48), slice(30, 46))
    images["Segmentation_labels"][person] = 2
    images["ir"][person] = 150
    for name, image in images.items():
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "test" / name / "a.png")
    boxes = tmp_path / "test" / "boxes"
    boxes.mkdir()
    (boxes / "a.txt").write_text("0 0.475 0.5 0.2 0.5\n")
    return pair_table(tmp_path, "msrs", "test")


@pytest.mark.parametrize(("fuse", "kept", "hidden"), [(np.maximum, 0, 1), (lambda v, i: i, 1, 0)])
@pytest.mark.parametrize("by_boxes", [False, True])
def test_persons_kept_and_hidden(warm_person, fuse, kept, hidden, by_boxes):
    table = [replace(pair, label=None) for pair in warm_person] if by_boxes else warm_person
    found = tectum.evaluate(Showing(fuse), table, metrics=("seam",), boxes=by_boxes)
    assert found.contrast.counts.tolist() == [1, kept, hidden]


def test_a_class_that_the_model_does_not_know_has_no_objects(warm_person):
    found = tectum.evaluate(Showing(np.maximum), warm_person, metrics=("seam",), objects="dragon")
    assert found.contrast.counts.tolist() == [0, 0, 0]
