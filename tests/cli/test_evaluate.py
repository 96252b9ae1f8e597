import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tectum.data.datasets import dataset_info
from tectum.data.pair import InputWarning, read_pair
from tectum.metrics import CalibrationScores
from tectum.metrics.functional import mutual_information, qabf
from tectum.predict import Predictor
from tectum.scenes import write_scenes


@pytest.fixture
def msrs(tmp_path):
    """Three small scenes in MSRS's test split, one in its training split."""
    root = tmp_path / "MSRS"
    write_scenes(root, 1, seed=50, size=(48, 64), split="train")
    return root, write_scenes(root, 3, seed=1, size=(48, 70), split="test")


def evaluate(run_tectum, root, weights, dataset="msrs", *more):
    report = root.parent / "report.json"
    result = run_tectum(
        "eval", "--model", weights, "--data", root, "--dataset", dataset, "--json", report, "--batch", 2, *more
    )
    return result, json.loads(report.read_text()) if report.exists() else None


def test_scores_are_those_of_predictor_and_metrics(msrs, weights, run_tectum):
    root, table = msrs
    with Image.open(table[0].label) as image:
        label = np.array(image)
    label[:5] = 255
    Image.fromarray(label).save(table[0].label)
    result, report = evaluate(run_tectum, root, weights)
    assert result.exit_code == 0, result.output

    predictor = Predictor(weights)
    confusion = np.zeros((9, 9), int)
    edges, information = [], []
    for paths in table:
        pair = read_pair(paths)
        out = predictor.batch([pair])[0]
        known = pair.label != 255
        np.add.at(confusion, (pair.label[known], out.labels[known]), 1)
        luma = [image @ np.array([0.299, 0.587, 0.114]) for image in (out.fused / 255, pair.visible)]
        images = [torch.from_numpy(np.asarray(x, np.float32))[None, None] for x in (*luma, pair.infrared)]
        edges.append(float(qabf(*images)))
        information.append(float(mutual_information(*images)))
    scores = report["segmentation"]
    assert np.array(scores["confusion_matrix"]).sum() == confusion.sum()
    np.testing.assert_allclose(scores["confusion_matrix"], confusion, atol=3)  # a batch may tip a tie
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    present = union > 0
    iou = np.diag(confusion)[present] / union[present]
    assert scores["miou_with_class_0"] == pytest.approx(iou.mean(), abs=1e-3)
    assert scores["miou_without_class_0"] == pytest.approx(iou[int(present[0]) :].mean(), abs=1e-3)
    assert [row["iou"] is None for row in scores["classes"]] == (~present).tolist()
    assert report["fusion"]["mean"]["qabf"] == pytest.approx(np.mean(edges), abs=2e-3)
    assert report["fusion"]["mean"]["mi"] == pytest.approx(np.mean(information), abs=2e-3)
    assert len(report["fusion"]["images"]) == 3


def test_what_must_be_known_is_stated(msrs, weights, run_tectum):
    root, table = msrs
    result, report = evaluate(run_tectum, root, weights)
    weights_hash = hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()
    names_hash = hashlib.sha256("\n".join(sorted(paths.name for paths in table)).encode()).hexdigest()
    assert report["weights"]["sha256"] == weights_hash
    assert report["data"]["names_sha256"] == names_hash
    assert report["data"]["split"] == "test"  # the training scene is left out
    assert report["data"]["images"] == report["data"]["labelled"] == 3
    assert report["segmentation"]["class_list"] == list(dataset_info("msrs").classes)
    for text in (
        weights_hash, names_hash, "split test", "3 images", "native size", "class 0 counted", "class 0 left out",
        "ignored ids: 255", "MI in bits", "one confusion matrix", "person", "Qabf",
    ):  # fmt: skip
        assert text in result.stdout
    assert "boxes" not in report


def test_another_split(msrs, weights, run_tectum):
    _, report = evaluate(run_tectum, msrs[0], weights, "msrs", "--split", "train")
    assert report["data"]["split"] == "train"
    assert report["data"]["images"] == 1
    result, _ = evaluate(run_tectum, msrs[0], weights, "msrs", "--split", "holdout")
    assert result.exit_code == 2
    assert "has no split 'holdout'" in result.stderr


@pytest.mark.slow
def test_boxes_are_scored_where_there_are_some(msrs, weights, run_tectum):
    root, table = msrs
    folder = root / "test" / "boxes"
    folder.mkdir()
    # The whole picture as a box of the class that the network gives most of it.
    labels = Predictor(weights).batch([read_pair(table[0])])[0].labels
    for index, paths in enumerate(table):
        (folder / f"{paths.name}.txt").write_text("2 0.5 0.5 1 1\n" if index == 0 else "")
    _, report = evaluate(run_tectum, root, weights)
    car = report["boxes"]["classes"][0]
    assert (car["name"], car["boxes"]) == ("car", 1)
    assert car["found"] == float((labels == 1).mean() >= 0.25)
    (folder / f"{table[1].name}.txt").write_text("17 0 0 1\n")
    result, report = evaluate(run_tectum, root, weights)
    assert result.exit_code == 1
    assert report["data"]["images"] == 2


def test_classes_that_do_not_fit(msrs, weights, run_tectum):
    for split in ("train", "test"):
        (msrs[0] / split / "Segmentation_labels").rename(msrs[0] / split / "label")
    result, report = evaluate(run_tectum, msrs[0], weights, "fmb")
    assert result.exit_code == 2
    assert "model 'random' has 9 classes and data set 'fmb' 15" in result.stderr
    assert report is None


def test_without_labels_the_fusion_alone_is_scored(msrs, weights, run_tectum):
    shutil.rmtree(msrs[0] / "test" / "Segmentation_labels")
    shutil.rmtree(msrs[0] / "train")
    result, report = evaluate(run_tectum, msrs[0], weights, "fmb")
    assert result.exit_code == 0, result.output
    assert "segmentation" not in report
    assert report["data"]["labelled"] == 0
    assert report["fusion"]["mean"].keys() == {"en", "sd", "sf", "ag", "mi", "vif", "qabf", "scd", "seam"}


def test_pairs_that_cannot_be_scored_are_left_out_and_listed(msrs, weights, run_tectum):
    root, table = msrs
    Image.fromarray(np.full((48, 70), 77, np.uint8)).save(table[0].label)
    table[1].visible.unlink()
    result, report = evaluate(run_tectum, root, weights)
    assert result.exit_code == 1
    assert report["data"]["images"] == 1
    assert sorted(problem["name"] for problem in report["problems"]) == sorted(paths.name for paths in table[:2])
    assert "unknown ids 77" in result.stderr


def test_images_too_small_for_the_metrics(tmp_path, weights, run_tectum):
    root = tmp_path / "MSRS"
    write_scenes(root, 1, size=(32, 40), split="test")
    result, report = evaluate(run_tectum, root, weights)
    assert result.exit_code == 1
    assert "fusion" not in report
    assert "segmentation" not in report


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--dataset", "cityscapes"), 2, "unknown data set 'cityscapes'; known are msrs"),
        (("--data", "nowhere"), 1, "'nowhere'"),
        (("--model", "nothing"), 2, "there are no weights 'nothing'"),
    ],
)
def test_wrong_arguments(arguments, code, message, msrs, weights, run_tectum):
    result = run_tectum("eval", "--model", weights, "--data", msrs[0], "--dataset", "msrs", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""


def test_label_maps_that_look_for_some_classes(msrs, weights, run_tectum):
    root, table = msrs
    result, report = evaluate(run_tectum, root, weights, "msrs", "--looked-for", "car,2", "--backend", "torch")
    assert result.exit_code == 0, result.output
    scores = report["segmentation"]
    assert scores["looked_for"] == ["car", "person"]
    matrix = np.zeros((9, 9), int)
    for paths in table:
        pair = read_pair(paths)
        labels = Predictor(weights, backend="torch").batch([pair])[0].labels
        np.add.at(matrix, (pair.label, np.where(np.isin(labels, (1, 2)), labels, 0)), 1)
    np.testing.assert_allclose(scores["confusion_matrix"], matrix, atol=3)
    others = matrix[[0, *range(3, 9)]]
    assert scores["flood"] == pytest.approx(others[:, 1:3].sum() / others.sum(), abs=1e-3)
    assert "flood" in result.stdout
    for wrong in ("cars", "0", "9", ""):
        result, _ = evaluate(run_tectum, root, weights, "msrs", "--looked-for", wrong)
        assert result.exit_code == 2
        assert "the classes are car, person" in result.stderr


def test_a_lost_camera(msrs, weights, run_tectum):
    root, table = msrs
    _, report = evaluate(run_tectum, root, weights, "msrs", "--without", "infrared", "--backend", "torch")
    assert report["without"] == "infrared"
    matrix = np.zeros((9, 9), int)
    for paths in table:
        pair = read_pair(paths)
        grey = replace(pair, infrared=np.full_like(pair.infrared, 0.5))
        with pytest.warns(InputWarning, match="constant"):
            labels = Predictor(weights, backend="torch").batch([grey])[0].labels
        np.add.at(matrix, (pair.label, labels), 1)
    np.testing.assert_allclose(report["segmentation"]["confusion_matrix"], matrix, atol=3)
    assert report["warnings"] == []  # it was asked for


def test_calibration_is_that_of_the_confidence(msrs, weights, run_tectum):
    root, table = msrs
    result, report = evaluate(run_tectum, root, weights, "msrs", "--backend", "torch")
    expected = CalibrationScores()
    for paths in table:
        pair = read_pair(paths)
        found = Predictor(weights, backend="torch").batch([pair])[0]
        expected.update(torch.from_numpy(found.confidence), torch.from_numpy(found.labels == pair.label))
    assert report["calibration"]["ece"] == pytest.approx(float(expected.compute()["ece"]), abs=1e-3)
    assert sum(report["calibration"]["pixels"]) == 3 * 48 * 70
    assert "ECE" in result.stdout
