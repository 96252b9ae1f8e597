import numpy as np

from tectum.predict.colour import luminance, recolour, to_bytes

# Full-range BT.601, as in JPEG: Y, Cb, Cr from R, G, B.
YCBCR = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772],
        [0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402],
    ]
)


def test_recolouring_replaces_y_in_ycbcr():
    rng = np.random.default_rng(0)
    visible = 0.35 + 0.3 * rng.random((20, 30, 3), np.float32)
    fused = 0.4 + 0.2 * rng.random((20, 30), np.float32)
    expected = visible @ YCBCR.T
    expected[..., 0] = fused
    np.testing.assert_allclose(recolour(visible, fused), expected @ np.linalg.inv(YCBCR).T, atol=1e-6)


def test_the_visible_luminance_gives_the_visible_image():
    visible = np.random.default_rng(0).random((20, 30, 3), np.float32)
    np.testing.assert_allclose(recolour(visible, luminance(visible)), visible, atol=1e-6)


def test_grey_stays_grey_and_exact_to_the_level():
    levels = np.arange(256, dtype=np.float32).reshape(16, 16) / 255
    grey = np.repeat(levels[..., None], 3, axis=2)
    fused = levels[::-1].copy()
    assert (to_bytes(recolour(grey, fused)) == np.round(fused * 255)[..., None]).all()


def test_out_of_range_is_clamped():
    visible = np.full((2, 2, 3), 0.5, np.float32)
    assert recolour(visible, np.full((2, 2), 7, np.float32)).max() == 1
    assert recolour(visible, np.full((2, 2), -7, np.float32)).min() == 0


def test_bytes_are_rounded_not_truncated():
    assert to_bytes(np.array([-1, 0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1, 2], np.float32)).tolist() == [
        0, 0, 0, 1, 255, 255, 255,
    ]  # fmt: skip
