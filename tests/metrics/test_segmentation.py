import math
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from PIL import Image
from torch import Tensor

from tectum.errors import ConfigError, InputError
from tectum.metrics import (
    BoundaryScores,
    Box,
    BoxAgreement,
    SegmentationScores,
    boundary_f_score,
    box_agreement,
    box_counts,
    confusion_matrix,
    read_boxes,
    segmentation_scores,
)


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    """Predicted labels and targets (3, 20, 30) of 5 classes, of which class 4 occurs nowhere; 255 is ignored."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (3, 20, 30), generator=generator, dtype=torch.uint8)
    labels = torch.where(torch.rand(3, 20, 30, generator=generator) < 0.6, target, (target + 1) % 4)
    target[:, :4] = 255
    return labels, target


# --- confusion matrix


def test_confusion_matrix_is_that_of_scikit_learn(maps: tuple[Tensor, Tensor]) -> None:
    labels, target = maps
    matrix = confusion_matrix(labels, target, 5)
    valid = target != 255
    expected = sklearn.metrics.confusion_matrix(target[valid], labels[valid], labels=range(5))
    assert matrix.dtype == torch.int64
    assert np.array_equal(matrix.numpy(), expected)


def test_rows_are_true_classes() -> None:
    matrix = confusion_matrix(torch.tensor([1, 1, 0]), torch.tensor([0, 1, 0]), 2)
    assert matrix.tolist() == [[1, 1], [0, 1]]


def test_ignored_ids(maps: tuple[Tensor, Tensor]) -> None:
    labels, target = maps
    assert confusion_matrix(labels, target, 5, ignore=(255, 2)).sum() == ((target != 255) & (target != 2)).sum()
    with pytest.raises(InputError, match="target: ids 255"):
        confusion_matrix(labels, target, 5, ignore=())
    # What was predicted where the target is ignored does not matter.
    labels = torch.where(target == 255, 255, labels)
    assert confusion_matrix(labels, target, 5).sum() == (target != 255).sum()
    assert confusion_matrix(labels, torch.full_like(target, 255), 5).sum() == 0


def test_ignored_id_outside_the_type(maps: tuple[Tensor, Tensor]) -> None:
    labels, target = maps
    signed = torch.where(target == 255, -1, target.to(torch.int16))
    assert torch.equal(confusion_matrix(labels, signed, 5, ignore=-1), confusion_matrix(labels, target, 5))
    assert torch.equal(confusion_matrix(labels, target, 5, ignore=(255, 1000)), confusion_matrix(labels, target, 5))


def test_unknown_ids_are_errors() -> None:
    ids = torch.tensor([0, 1, 2, 7])
    with pytest.raises(InputError, match="target: ids 7 "):
        confusion_matrix(torch.zeros_like(ids), ids, 3)
    with pytest.raises(InputError, match="labels: ids 2, 7 "):
        confusion_matrix(ids, torch.zeros_like(ids), 2)


def test_wrong_types_and_shapes() -> None:
    ids = torch.zeros(2, 4, 4, dtype=torch.uint8)
    with pytest.raises(InputError, match="argmax"):
        confusion_matrix(torch.zeros(2, 4, 4), ids, 3)
    with pytest.raises(InputError, match=r"\(1, 4, 4\).*\(2, 4, 4\)"):
        confusion_matrix(ids[:1], ids, 3)
    with pytest.raises(InputError, match=r"torch\.bool"):
        confusion_matrix(ids, ids > 0, 3)
    with pytest.raises(ConfigError, match="at least one class"):
        confusion_matrix(ids, ids, 0)


# --- scores


def test_scores_are_those_of_scikit_learn(maps: tuple[Tensor, Tensor]) -> None:
    labels, target = maps
    scores = segmentation_scores(confusion_matrix(labels, target, 5))
    valid = target != 255
    true, predicted = target[valid], labels[valid]
    iou = sklearn.metrics.jaccard_score(true, predicted, average=None)  # of the classes that occur: 0 to 3
    precision, recall, _, _ = sklearn.metrics.precision_recall_fscore_support(true, predicted)
    assert scores["iou"][:4].tolist() == pytest.approx(iou)
    assert scores["precision"][:4].tolist() == pytest.approx(precision)
    assert scores["recall"][:4].tolist() == pytest.approx(recall)
    for key in ("iou", "precision", "recall"):
        assert scores[key].shape == (5,)
        assert scores[key][4].isnan()
    assert scores["miou"].item() == pytest.approx(iou.mean())
    assert scores["miou_without_0"].item() == pytest.approx(iou[1:].mean())
    assert scores["class_accuracy"].item() == pytest.approx(recall.mean())
    assert scores["pixel_accuracy"].item() == pytest.approx(sklearn.metrics.accuracy_score(true, predicted))


def test_a_class_that_is_only_predicted_counts_against_the_mean() -> None:
    # Class 2 occurs in no target; claiming it is an IoU of 0, not an absent class.
    scores = segmentation_scores(confusion_matrix(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), 3))
    assert scores["iou"].tolist() == [1, 0.5, 0]
    assert scores["miou"].item() == 0.5
    assert scores["recall"][2].isnan()
    assert scores["class_accuracy"].item() == 0.75


def test_perfect_and_empty() -> None:
    ids = torch.tensor([0, 1, 1, 3])
    scores = segmentation_scores(confusion_matrix(ids, ids, 4))
    assert scores["miou"] == scores["miou_without_0"] == scores["pixel_accuracy"] == scores["class_accuracy"] == 1
    empty = segmentation_scores(torch.zeros(4, 4, dtype=torch.int64))
    assert all(value.isnan().all() for value in empty.values())
    with pytest.raises(InputError, match="square"):
        segmentation_scores(torch.zeros(4, 3))


def test_accumulated_scores_are_those_of_all_pixels_at_once(maps: tuple[Tensor, Tensor]) -> None:
    labels, target = maps
    scores = SegmentationScores(5)
    for image, truth in zip(labels, target, strict=True):
        scores.update(image, truth)
    whole = confusion_matrix(labels, target, 5)
    assert torch.equal(scores.matrix, whole)
    for key, value in segmentation_scores(whole).items():
        assert torch.equal(scores.compute()[key].nan_to_num(-1), value.nan_to_num(-1))
    scores.reset()
    assert scores.matrix.sum() == 0


def test_accumulated_scores_pass_the_ignored_ids_on(maps: tuple[Tensor, Tensor]) -> None:
    labels, target = maps
    scores = SegmentationScores(5, ignore=(0, 255))
    scores.update(labels, target)
    assert torch.equal(scores.matrix, confusion_matrix(labels, target, 5, ignore=(0, 255)))
    assert scores.matrix[0].sum() == 0


# --- boundaries


def square(left: int) -> Tensor:
    """A square of 8 x 8 pixels of class 1 on class 0, (1, 24, 24)."""
    labels = torch.zeros(1, 24, 24, dtype=torch.uint8)
    labels[:, 8:16, left : left + 8] = 1
    return labels


def test_boundary_f_score_of_a_shifted_square() -> None:
    target = square(8)
    assert boundary_f_score(target, target, 2).tolist() == [[1, 1]]
    # Shifted by one pixel: within one pixel, all of the boundary; at the same place, the two horizontal sides but
    # for a corner pixel each, 14 of 28 pixels.
    assert boundary_f_score(square(9), target, 2, tolerance=1).tolist()[0][1] == 1
    assert boundary_f_score(square(9), target, 2, tolerance=0.5).tolist()[0][1] == pytest.approx(14 / 28)
    assert boundary_f_score(square(12), target, 2, tolerance=1)[0, 1] < 0.7


def test_boundary_tolerance_is_euclidean() -> None:
    target, labels = torch.zeros(2, 1, 21, 21, dtype=torch.int64)
    target[0, 10, 10], labels[0, 13, 14] = 1, 1  # five pixels apart
    assert boundary_f_score(labels, target, 2, tolerance=5)[0, 1] == 1
    assert boundary_f_score(labels, target, 2, tolerance=4.9)[0, 1] == 0


def test_boundary_is_where_classes_meet() -> None:
    target = square(8)
    # Neither the image's border nor an ignored region is a boundary; without any, there is no score.
    assert boundary_f_score(torch.ones_like(target), torch.ones_like(target), 2).isnan().all()
    half = torch.ones_like(target)
    half[:, :, 12:] = 255
    assert boundary_f_score(torch.ones_like(target), half, 2).isnan().all()
    # A boundary in only one of the two is a failure.
    assert boundary_f_score(torch.zeros_like(target), target, 3).nan_to_num(-1).tolist() == [[0, 0, -1]]
    # What is predicted in an ignored region does not count.
    target[:, :4], labels = 255, square(8)
    labels[:, :3] = torch.randint(0, 2, (1, 3, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert boundary_f_score(labels, target, 2).tolist() == [[1, 1]]


def test_boundary_scores_average_the_images_that_have_the_class() -> None:
    target = torch.cat((square(8), square(8), torch.zeros_like(square(8))))
    labels = torch.cat((square(8), square(16), torch.zeros_like(square(8))))
    scores = BoundaryScores(3, tolerance=1)
    scores.update(labels[:1], target[:1])
    scores.update(labels[1:], target[1:])
    expected = boundary_f_score(labels, target, 3, tolerance=1)
    result = scores.compute()
    assert scores.images.tolist() == [2, 2, 0]
    assert result["bf"][:2].tolist() == pytest.approx(expected[:2, :2].mean(0).tolist())
    assert result["bf"][2].isnan()
    assert result["mean_bf"].item() == pytest.approx(expected[:2, :2].mean().item())


def test_boundaries_of_wrong_input() -> None:
    with pytest.raises(InputError, match=r"\(B, H, W\)"):
        boundary_f_score(square(8)[0], square(8)[0], 2)
    with pytest.raises(InputError, match="ids 1 are neither"):
        boundary_f_score(square(8), square(8), 1)
    with pytest.raises(ConfigError, match="tolerance"):
        boundary_f_score(square(8), square(8), 2, tolerance=0)


# --- boxes


def test_read_boxes(tmp_path: Path) -> None:
    file = tmp_path / "00001N.txt"
    file.write_text("0  0.5 0.25 0.1 0.2  \n\n2 0.1 0.9 1 0.05")
    assert read_boxes(file) == [Box(2, 0.5, 0.25, 0.1, 0.2), Box(1, 0.1, 0.9, 1.0, 0.05)]
    assert read_boxes(file, classes={0: 7, 2: 9})[1].label == 9
    file.write_text("")
    assert read_boxes(str(file)) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.1", "4 fields"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 fields"),
        ("person 0.5 0.5 0.1 0.1", "an integer and four numbers"),
        ("0 0.5 0.5 0.1 wide", "an integer and four numbers"),
        ("5 0.5 0.5 0.1 0.1", "unknown id 5; the known ones are 0, 1, 2"),
        ("0 320 240 64 48", "shares"),
        ("0 0.5 0.5 0 0.1", "shares"),
        ("0 0.5 nan 0.1 0.1", "shares"),
        ("0 0.5 -0.1 0.1 0.1", "shares"),
    ],
)
def test_malformed_lines_name_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "00002D.txt"
    file.write_text(f"1 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(InputError, match=reason) as error:
        read_boxes(file)
    assert f"{file}, line 2:" in str(error.value)


def test_unreadable_box_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.txt: the box file does not exist"):
        read_boxes(tmp_path / "missing.txt")
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(InputError, match=r"picture\.txt: the box file cannot be read as text"):
        read_boxes(tmp_path / "picture.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_boxes(tmp_path)


def test_box_counts_by_hand() -> None:
    labels = torch.zeros(8, 16, dtype=torch.uint8)
    labels[2:4, 4:8] = 2  # half of the first box
    labels[0, 15] = 2  # outside every box
    labels[6, 0] = 1  # a car in no box
    boxes = [
        Box(2, x=6 / 16, y=4 / 8, width=4 / 16, height=4 / 8),  # rows 2..5, columns 4..7
        Box(2, x=13 / 16, y=6 / 8, width=2 / 16, height=2 / 8),  # nothing in it
        Box(3, x=6 / 16, y=4 / 8, width=4 / 16, height=4 / 8),  # the first one's place, another class
    ]
    counts = box_counts(labels, boxes, classes=(1, 2, 3))
    assert counts.tolist() == [[0, 0, 1, 0], [2, 1, 9, 8], [1, 0, 0, 0]]
    scores = box_agreement(counts)
    assert scores["found"].nan_to_num(-1).tolist() == [-1, 0.5, 0]
    assert scores["inside"].nan_to_num(-1).tolist() == [0, pytest.approx(8 / 9), -1]
    assert scores["found_all"].item() == pytest.approx(1 / 3)
    assert scores["inside_all"].item() == pytest.approx(8 / 10)


@pytest.mark.parametrize(("carried", "found"), [(4, 1), (3, 0)])
def test_a_quarter_of_the_box_suffices(carried: int, found: int) -> None:
    labels = torch.zeros(4, 4, dtype=torch.int64)
    labels.view(-1)[:carried] = 1
    assert box_counts(labels, [Box(1, 0.5, 0.5, 1.0, 1.0)], [1])[0, :2].tolist() == [1, found]


def test_overlapping_boxes_count_a_pixel_once() -> None:
    labels = torch.ones(4, 4, dtype=torch.int64)
    assert box_counts(labels, [Box(1, 0.5, 0.5, 1.0, 1.0)] * 2, [1]).tolist() == [[2, 2, 16, 16]]


@pytest.mark.parametrize(
    ("box", "pixel"), [(Box(1, 1.0, 1.0, 0.001, 0.001), (9, 9)), (Box(1, 0.32, 0.0, 0.01, 0.01), (0, 3))]
)
def test_a_box_smaller_than_a_pixel_has_the_pixel_of_its_centre(box: Box, pixel: tuple[int, int]) -> None:
    labels = torch.zeros(10, 10, dtype=torch.uint8)
    labels[pixel] = 1
    assert box_counts(labels, [box], [1]).tolist() == [[1, 1, 1, 1]]


def test_a_box_that_leaves_the_image_is_cut() -> None:
    labels = torch.zeros(10, 10, dtype=torch.uint8)
    labels[:, :2] = 1
    # Only its right half, columns 0 and 1, lies in the image.
    assert box_counts(labels, [Box(1, 0.0, 0.5, 0.4, 1.0)], [1]).tolist() == [[1, 1, 20, 20]]


def test_box_agreement_accumulates() -> None:
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[0, :4], labels[1, 4:] = 1, 2
    boxes = [[Box(1, 0.5, 0.25, 1.0, 0.5)], [Box(2, 0.5, 0.25, 1.0, 0.5)]]
    scores = BoxAgreement()
    scores.update(labels, boxes)
    scores.update(labels[:1], [[]])
    assert scores.counts.tolist() == [[1, 1, 64, 32], [1, 0, 32, 0], [0, 0, 0, 0]]
    result = scores.compute()
    assert result["found"][:2].tolist() == [1, 0]
    assert result["inside"][0].item() == 0.5
    assert math.isnan(result["found"][2].item())
    with pytest.raises(InputError, match="2 label maps do not fit the boxes of 1 images"):
        scores.update(labels, boxes[:1])


def test_box_counts_needs_a_label_map() -> None:
    with pytest.raises(InputError, match="label map"):
        box_counts(torch.zeros(1, 4, 4, dtype=torch.uint8), [], [1])
    with pytest.raises(InputError, match="label map"):
        box_counts(torch.zeros(4, 4), [], [1])


def test_consensus_labels_agree_with_the_human_boxes(shared_data: Path) -> None:
    folder = shared_data / "MSRS-consensus" / "test"
    scores = BoxAgreement()
    for file in sorted((folder / "boxes").glob("*.txt")):
        with Image.open(folder / "Segmentation_labels" / f"{file.stem}.png") as image:
            labels = torch.from_numpy(np.array(image))
        scores.update(labels[None], [read_boxes(file)])
    # The labels lack some distant people and cars. With ids or axes mixed up, next to nothing would be found.
    assert scores.compute()["found"].min() > 0.7
    assert scores.compute()["inside"].min() > 0.8
