import numpy as np
import pytest

from tectum.data.datasets import dataset_info
from tectum.errors import InputError
from tectum.viz.overlay import default_palette, display_colours, legend, overlay

PALETTE = [(0, 0, 0), (255, 0, 0), (0, 0, 255)]


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def test_background_and_ignored_pixels_stay_as_they_are(picture):
    labels = np.zeros((40, 60), np.uint8)
    labels[:20] = 255
    assert np.array_equal(overlay(picture, labels, PALETTE), picture)


def test_classes_are_blended_and_outlined(picture):
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 10:30] = 1
    labels[10:30, 30:50] = 2
    result = overlay(picture, labels, PALETTE, opacity=0.5).astype(int)
    inside = result[12:28, 12:28]
    np.testing.assert_array_equal(inside, np.rint(picture[12:28, 12:28] / 2 + np.array([127.5, 0, 0])))
    assert (result[10, 10:30] == (255, 128, 128)).all()  # its outline, halfway to white
    assert (result[12:28, 29] == (255, 128, 128)).all()  # and between two classes, on both sides
    assert (result[12:28, 30] == (128, 128, 255)).all()
    outside = labels == 0
    np.testing.assert_array_equal(result[outside], picture[outside])


def test_the_arguments_are_not_changed(picture):
    before = picture.copy()
    overlay(picture, np.ones((40, 60), np.uint8), PALETTE)
    assert np.array_equal(picture, before)


def test_labels_without_a_colour(picture):
    with pytest.raises(InputError, match=r"3 colours and none for the label ids \[3, 7\]"):
        overlay(picture, np.repeat(np.array([[1, 3, 7]], np.uint8), 40, 0).repeat(20, 1), PALETTE)


def test_sizes_that_differ(picture):
    with pytest.raises(InputError, match=r"\(40, 60, 3\), \(40, 59\)"):
        overlay(picture, np.zeros((40, 59), np.uint8), PALETTE)


def test_default_palette_is_black_then_distinct():
    palette = default_palette(20)
    assert palette[0].tolist() == [0, 0, 0]
    distances = np.abs(palette[:, None].astype(int) - palette[None]).sum(-1)
    assert distances[~np.eye(20, dtype=bool)].min() > 20
    assert len(default_palette(1)) == 1


def test_dark_colours_are_lightened_and_stay_distinct():
    palette = dataset_info("msrs").palette
    shown = display_colours(palette)
    assert len(np.unique(shown, axis=0)) == len(palette)
    assert shown[2].tolist() == [111, 111, 0]
    assert display_colours([(0, 255, 255)]).tolist() == [[0, 255, 255]]


def test_legend_wraps_to_the_width():
    classes = ["background", *[f"some long class name {index}" for index in range(8)]]
    wide, narrow = (legend(classes, default_palette(9), width) for width in (2000, 300))
    assert wide.width == 2000
    assert narrow.width == 300
    assert narrow.height > wide.height
    colours = {tuple(colour) for colour in np.asarray(narrow).reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in display_colours(default_palette(9))[1:].tolist()} <= colours
    assert len({legend(classes, default_palette(9), 2000, ids=[]).height, wide.height}) == 1
