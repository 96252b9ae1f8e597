import numpy as np
import pytest

from tectum.errors import InputError
from tectum.viz.panel import grid, panel

HEIGHT, WIDTH = 60, 100


def pictures(count=4):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(count)]


def test_pictures_are_pasted_unchanged():
    first, second, third, fourth = pictures()
    sheet = np.asarray(grid([[first, second], [third, fourth]], gap=2))
    assert sheet.shape == (2 * HEIGHT + 2, 2 * WIDTH + 2, 3)
    np.testing.assert_array_equal(sheet[:HEIGHT, :WIDTH], first)
    np.testing.assert_array_equal(sheet[HEIGHT + 2 :, WIDTH + 2 :], fourth)


def test_grey_and_float_pictures():
    grey = np.linspace(-0.5, 1.5, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    sheet = np.asarray(grid([[grey]]))
    np.testing.assert_array_equal(sheet, np.rint(np.clip(grey, 0, 1) * 255)[..., None].repeat(3, -1))


def test_captions_get_a_strip_of_their_own():
    plain, captioned = grid([pictures(2)]), grid([pictures(2)], ["one", "two"])
    strip = np.asarray(captioned)[: captioned.height - HEIGHT]
    assert captioned.width == plain.width
    assert 0 < len(strip) < HEIGHT
    assert strip[:, :WIDTH].max() > 150
    assert strip[:, WIDTH + 4 :].max() > 150


def test_captions_that_do_not_fit_are_left_out():
    tiny = [picture[:16, :16] for picture in pictures(2)]
    strip = np.asarray(grid([tiny], ["visible light", "ok"]))[:10]
    assert strip[:, :16].max() < 50


def test_panel_shows_all_four_and_the_legend():
    visible, infrared, fused, labelled = pictures()
    bare = panel(visible, infrared[..., 0], fused, labelled)
    assert bare.width == 4 * WIDTH + 3 * 4
    np.testing.assert_array_equal(np.asarray(bare)[-HEIGHT:, -WIDTH:], labelled)
    full = panel(
        visible, infrared[..., 0], fused, labelled, class_names=["none", "car"], palette=[(0, 0, 0), (0, 255, 255)]
    )
    below = np.asarray(full)[bare.height :]
    assert (below == (0, 255, 255)).all(-1).any()


@pytest.mark.parametrize(
    ("rows", "captions"),
    [([[0, 1], [2]], []), ([[0, 1]], ["one"])],
)
def test_unequal_rows(rows, captions):
    four = pictures()
    with pytest.raises(InputError, match="rows of equal length"):
        grid([[four[index] for index in row] for row in rows], captions)


def test_unequal_sizes():
    first, second = pictures(2)
    with pytest.raises(InputError, match="one size, the first is 100x60"):
        grid([[first, second[:-1]]])
