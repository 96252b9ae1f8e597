import numpy as np
import pytest
import torch

from tectum.errors import InputError
from tectum.metrics import ContrastScores, object_contrasts, objects_in_boxes, objects_of_class
from tectum.metrics.objects import ObjectContrast
from tectum.metrics.segmentation import Box

PERSON = 2


def scene(*people, size=(80, 120), ground=0.3):
    """An image of one grey with people, (rows, columns, brightness) each, and its label map."""
    image, labels = np.full(size, ground, np.float32), np.zeros(size, np.uint8)
    for rows, columns, brightness in people:
        image[rows, columns], labels[rows, columns] = brightness, PERSON
    return image, labels


FIRST, SECOND = (slice(20, 50), slice(20, 32)), (slice(25, 50), slice(80, 90))


def test_contrast_is_the_difference_from_the_ring():
    infrared, labels = scene((*FIRST, 0.8), (*SECOND, 0.1))
    flat = np.full_like(infrared, 0.5)
    first, second = object_contrasts(infrared / 2, flat, infrared, objects_of_class(labels, PERSON))
    assert first == pytest.approx((0, 204 - 76, 102 - 38), abs=1e-9)
    assert second == pytest.approx((0, 76 - 26, 38 - 13), abs=1e-9)  # dark ones count like bright ones


@pytest.mark.parametrize(
    ("fused", "kept", "hidden"), [(70.0, True, False), (69.9, False, False), (10.0, False, False), (9.9, False, True)]
)
def test_kept_and_hidden_at_their_limits(fused, kept, hidden):
    contrast = ObjectContrast(visible=100.0, infrared=20.0, fused=fused)
    assert (contrast.kept, contrast.hidden) == (kept, hidden)


def test_what_stands_out_nowhere_or_is_small_counts_nowhere():
    faint, labels = scene((*FIRST, 0.3 + 14 / 255))
    assert object_contrasts(faint, faint, faint, objects_of_class(labels, PERSON)) == []
    small, labels = scene((slice(20, 27), slice(20, 28), 0.9))
    assert object_contrasts(small, small, small, objects_of_class(labels, PERSON)) == []


def test_neighbours_are_not_surroundings():
    beside = (FIRST[0], slice(36, 48))
    image, labels = scene((*FIRST, 0.8), (*beside, 0.8))
    found = object_contrasts(image, image, image, objects_of_class(labels, PERSON))
    assert [one.fused for one in found] == pytest.approx([204 - 76] * 2)


def test_an_object_at_the_border_has_the_ring_that_there_is():
    image, labels = scene((slice(0, 30), slice(0, 12), 0.8))
    assert len(object_contrasts(image, image, image, objects_of_class(labels, PERSON))) == 1


def test_boxes_are_objects_too():
    masks = objects_in_boxes([Box(PERSON, 0.25, 0.5, 0.1, 0.5), Box(1, 0.5, 0.5, 0.5, 0.5)], PERSON, (80, 120))
    assert len(masks) == 1
    assert masks[0].sum() == 40 * 12
    assert masks[0][20:60, 24:36].all()


def test_touching_boxes_of_several_people_count_each():
    boxes = [Box(PERSON, 0.25, 0.5, 0.1, 0.5), Box(PERSON, 0.34, 0.5, 0.1, 0.5)]
    masks = objects_in_boxes(boxes, PERSON, (80, 120))
    image = np.where(masks[0] | masks[1], 0.9, 0.2).astype(np.float32)
    assert len(object_contrasts(image, image, image, masks)) == 2


def test_shares_do_not_depend_on_how_images_are_grouped():
    contrasts = [ObjectContrast(100.0, 0.0, fused) for fused in (90.0, 75.0, 50.0, 5.0)]
    together, apart = ContrastScores(), ContrastScores()
    together.update(contrasts)
    for one in contrasts:
        apart.update([one])
    apart.update([])
    expected = {"objects": 4, "kept": 0.5, "hidden": 0.25}
    assert {key: value.item() for key, value in together.compute().items()} == expected
    assert {key: value.item() for key, value in apart.compute().items()} == expected


def test_without_objects_there_is_no_share():
    scores = ContrastScores()
    scores.update([])
    assert torch.isnan(scores.compute()["kept"])


def test_unequal_sizes_are_an_error():
    image, labels = scene((*FIRST, 0.8))
    with pytest.raises(InputError, match="one size"):
        object_contrasts(image[:40], image, image, objects_of_class(labels, PERSON))


def test_equals_the_shared_tool(shared_data):
    """The tool that others measure with, on real pairs."""
    import importlib.util

    from PIL import Image

    spec = importlib.util.spec_from_file_location("eyes", shared_data.parent / "tools" / "eyes.py")
    eyes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(eyes)
    root, count = shared_data / "MSRS-boxes", 0
    for path in sorted((root / "vi").iterdir())[::19]:
        visible, infrared = (eyes.grey(root / folder / path.name) for folder in ("vi", "ir"))
        labels = np.array(Image.open(root / "Segmentation_labels" / path.name))
        fused = np.maximum(visible, infrared)
        ours = object_contrasts(*(x / 255 for x in (fused, visible, infrared)), objects_of_class(labels, PERSON))
        theirs = list(eyes.objects(visible, infrared, fused, labels == PERSON))
        assert np.allclose(np.reshape(ours, (-1, 3)), np.reshape(theirs, (-1, 3)), atol=1e-3)
        count += len(ours)
    assert count > 2
