from itertools import pairwise

import numpy as np
import pytest

from tectum.engines.base import Raw
from tectum.machine import free_memory
from tectum.predict.tiling import OVERLAP, SMALLEST_TILE, blend, cover, fit_tile

LENGTHS = [
    (64, 64),
    (160, 128),
    (192, 128),
    (256, 128),
    (544, 256),
    (1280, 1024),
    (2176, 512),
    (3840, 1440),
    (4000, 160),
]


@pytest.mark.parametrize(("length", "tile"), LENGTHS)
def test_weights_add_up_to_one_everywhere(length, tile):
    spans = cover(length, tile, 32)
    total = np.zeros(length)
    for span in spans:
        assert (span.weights > 0).all()
        total[span.window] += span.weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize(("length", "tile"), LENGTHS)
def test_tiles_lie_on_the_stride_and_overlap_enough(length, tile):
    spans = cover(length, tile, 32)
    starts = [span.start for span in spans]
    assert starts[0] == 0
    assert spans[-1].window.stop == length
    assert all(start % 32 == 0 for start in starts)
    overlaps = [span.window.stop - after.start for span, after in pairwise(spans)]
    assert all(overlap >= min(OVERLAP, tile // 2 // 32 * 32) for overlap in overlaps)
    assert max(overlaps, default=0) - min(overlaps, default=0) <= 32  # evenly spread


def test_no_more_tiles_than_needed():
    assert len(cover(1280, 1280, 32)) == len(cover(640, 1280, 32)) == 1
    assert [span.start for span in cover(1920, 1024, 32)] == [0, 896]  # overlapping by exactly 128
    assert len(cover(1952, 1024, 32)) == 3


def test_weights_fade_smoothly():
    first, second = cover(1920, 1024, 32)
    assert (first.weights[:896] == 1).all()
    steps = np.abs(np.diff(first.weights))
    assert steps.max() < 2 / OVERLAP
    assert max(steps[895], steps[-1]) < 0.002  # flat where the ramp begins and ends
    np.testing.assert_allclose(second.weights[:OVERLAP], first.weights[-OVERLAP:][::-1], atol=1e-6)


@pytest.mark.parametrize(("size", "tile"), [((64, 96), (64, 96)), ((256, 320), (128, 128)), ((160, 640), (160, 256))])
def test_bands_follow_each_other_and_give_the_whole(size, tile):
    rng = np.random.default_rng(0)
    whole = Raw(rng.random((2, *size), np.float32), rng.random((2, 3, *size), np.float32))

    def run(rows, columns):
        return Raw(*(part[..., rows, columns] for part in whole))

    bands = []
    for band in blend(cover(size[0], tile[0], 32), cover(size[1], tile[1], 32), run):
        assert band.top == sum(fused.shape[1] for fused, _ in bands)
        bands.append((band.fused.copy(), band.logits.copy()))
    np.testing.assert_allclose(np.concatenate([fused for fused, _ in bands], axis=1), whole.fused, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([logits for _, logits in bands], axis=2), whole.logits, atol=1e-6)


def test_what_differs_between_tiles_is_mixed():
    rows, columns = cover(128, 128, 32), cover(192, 128, 32)

    def run(_, window):
        value = float(window.start > 0)
        return Raw(np.full((1, 128, 128), value, np.float32), np.full((1, 2, 128, 128), value, np.float32))

    (band,) = blend(rows, columns, run)
    line = band.fused[0, 0]
    assert (line[:64] == 0).all()
    assert (line[128:] == 1).all()
    assert (np.diff(line[64:128]) > 0).all()
    assert (band.logits[0, 1] == line).all()


@pytest.mark.parametrize("size", [(2176, 3840), (3840, 2176), (1024, 1280), (32, 9984), (512, 512)])
@pytest.mark.parametrize("pixels", [0, 40_000, 500_000, 2**21])
def test_fitted_tiles_keep_to_the_pixels(size, pixels):
    tile = fit_tile(size, pixels, 32)
    assert all(side % 32 == 0 and side <= most for side, most in zip(tile, size, strict=True))
    assert all(side >= min(SMALLEST_TILE, most) for side, most in zip(tile, size, strict=True))
    assert np.prod(tile) <= max(pixels, SMALLEST_TILE**2)
    if np.prod(size) > pixels > SMALLEST_TILE * 256:
        assert np.prod(tile) > 0.85 * pixels  # as large as allowed


def test_free_memory_is_plausible():
    assert 2**20 < free_memory() < 2**46
