import numpy as np
import torch

from tectum.data.boxes import Box
from tectum.data.truth import any_of, box_label, partial_labels, renumbered, unmasked_boxes, whole_boxes


def test_zero_is_any_class_that_was_not_looked_for():
    labels = torch.tensor([[0, 1, 255, 5]])
    none = torch.zeros_like(labels)
    assert partial_labels(labels, none, 6, None).tolist() == [[0, 1, 255, 5]]
    assert partial_labels(labels, none, 6, (1, 2)).tolist() == [[any_of({0, 3, 4, 5}), 1, 255, 5]]


def test_within_a_box_without_a_mask_its_class_is_possible_and_outside_it_is_not():
    label = np.zeros((10, 10), np.uint8)
    label[0, 0], label[1, 1] = 255, 3
    label[6:9, 6:9] = 2  # fills its box
    drawn = unmasked_boxes([Box(1, 0.2, 0.2, 0.4, 0.4), Box(2, 0.75, 0.75, 0.3, 0.3)], label)
    assert (box_label(drawn) == torch.tensor(np.pad(np.ones((4, 4), int), (0, 6)))).all()
    labels = torch.from_numpy(label.astype(np.int64))
    known = partial_labels(labels, drawn, 4, None)
    assert known[0, 0] == 255
    assert known[1, 1] == 3
    assert known[3, 3] == any_of({0, 1})
    assert known[4, 4] == 0
    assert known[7, 7] == 2
    assert partial_labels(labels, drawn, 4, (1, 2))[3, 3] == any_of({0, 1, 3})


def test_of_boxes_that_overlap_the_smaller_one_lies_on_top_and_each_has_its_number():
    drawn = unmasked_boxes([Box(2, 0.5, 0.5, 0.2, 0.2), Box(1, 0.5, 0.5, 1, 1)], np.zeros((10, 10), np.uint8))
    assert box_label(drawn)[5, 5] == 2
    assert box_label(drawn)[0, 0] == 1
    assert len(drawn.unique()) == 2
    assert not set(renumbered(drawn).unique().tolist()) & set(drawn.unique().tolist())
    assert torch.equal(box_label(renumbered(drawn)), box_label(drawn))


def test_boxes_that_something_lies_over_are_dropped():
    drawn = unmasked_boxes([Box(1, 0.2, 0.5, 0.2, 0.4), Box(2, 0.8, 0.5, 0.2, 0.4)], np.zeros((10, 10), np.uint8))
    covered = drawn.clone()
    covered[5, 2] = 0
    assert box_label(whole_boxes(covered, drawn)).unique().tolist() == [0, 2]
