import warnings

import numpy as np
import pytest
import torch

import tectum
from tectum.data.datasets import pair_table
from tectum.data.pair import InputWarning, Pair
from tectum.predict.blind import FrozenCameras, blindness, without_blind
from tectum.scenes import render_scene, write_scenes

SIZE = (96, 128)


def scene(seed=0, name="a"):
    found = render_scene(seed, SIZE)
    return Pair(name, found.visible, found.infrared)


def noise(spread, grey=0.5):
    return np.clip(grey + spread * np.random.default_rng(0).normal(size=SIZE), 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return tectum.Predictor(tectum.create_model("virmfs_b0", classes=9).eval(), backend="torch")


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.zeros(SIZE, np.float32), "constant"),
        (np.full(SIZE, 0.4, np.float32), "constant"),
        (noise(0.5 / 255), "nearly flat"),
        (noise(1.0, grey=3.5), "saturated"),
        (noise(4 / 255), None),
        (noise(0.2), None),
    ],
)
def test_what_shows_nothing(image, why):
    assert blindness(image) == why


def test_a_lamp_in_the_dark_is_seen():
    night = np.zeros(SIZE, np.float32)
    night[40:44, 60:64] = 0.9
    assert blindness(night) is None
    night[:] = 0
    night[40, 60:62] = 0.9  # two hot pixels are none
    assert blindness(night) == "nearly flat"


@pytest.mark.parametrize("seed", range(8))
def test_rendered_scenes_are_seen(seed):
    pair = scene(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert without_blind(pair) is pair


@pytest.mark.parametrize("level", [0.0, 0.37, 1.0])
def test_without_infrared_the_picture_is_the_visible_image(predictor, level):
    pair = scene()
    shutter = np.full(SIZE, level, np.float32)
    with pytest.warns(InputWarning, match="infrared image of pair 'pair' is constant: the other image alone makes"):
        result = predictor(visible=pair.visible, infrared=shutter)
    np.testing.assert_array_equal(result.fused, np.rint(pair.visible * 255).astype(np.uint8))


def test_without_visible_the_picture_is_the_infrared_image(predictor):
    pair = scene()
    black = np.zeros((*SIZE, 3), np.float32)
    with pytest.warns(InputWarning, match="visible image of pair 'pair' is constant"):
        result = predictor(visible=black, infrared=pair.infrared)
    np.testing.assert_array_equal(result.luminance, pair.infrared)
    np.testing.assert_array_equal(result.fused, np.rint(pair.infrared * 255).astype(np.uint8)[..., None].repeat(3, 2))


def test_without_both_it_says_so(predictor):
    with pytest.warns(InputWarning, match="neither image shows anything") as caught:
        predictor(visible=np.zeros((*SIZE, 3), np.float32), infrared=np.zeros(SIZE, np.float32))
    assert len(caught) == 2


def test_a_camera_that_stops_is_said_and_takes_no_part_once_the_scene_is_another():
    frozen = FrozenCameras()
    first, moved = scene(0, "a"), scene(0, "b")
    moved = Pair("b", np.clip(moved.visible * 0.9 + 0.01, 0, 1), first.infrared)
    elsewhere = Pair("c", scene(1).visible, first.infrared)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frozen(first) is first
    with pytest.warns(InputWarning, match="infrared image of pair 'b' is the same as that of 'a'") as caught:
        assert frozen(moved) is moved
    assert len(caught) == 1
    with pytest.warns(InputWarning, match="infrared image of pair 'c' has been frozen since 'a'") as caught:
        found = frozen(elsewhere)
    assert len(caught) == 1  # the first sentence comes once
    assert found.lost == "infrared"
    assert np.ptp(found.infrared) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recovered = scene(6, "d")
        assert frozen(recovered) is recovered


def test_a_visible_camera_can_stop_too():
    frozen = FrozenCameras()
    first = scene(0, "a")
    frozen(first)
    with pytest.warns(InputWarning):
        found = frozen(Pair("b", first.visible, scene(6).infrared))
    assert found.lost == "visible"


def test_the_same_pair_twice_is_no_frozen_camera():
    frozen = FrozenCameras()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frozen(scene(0, "a")).lost is None
        assert frozen(scene(0, "b")).lost is None
        assert frozen(Pair("c", np.zeros((32, 32, 3), np.float32), np.zeros((32, 32), np.float32))).lost is None


def test_weather_over_one_scene_is_no_frozen_camera():
    from tectum.data.weather import VISIBLE

    frozen, pair = FrozenCameras(), scene()
    frozen(pair)
    torch.manual_seed(0)
    for name in ("fog", "smoke", "glare", "darkness"):
        visible = VISIBLE[name](torch.from_numpy(pair.visible).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            assert frozen(Pair(name, visible, pair.infrared)).lost is None


@pytest.mark.parametrize("batch", [1, 3])
def test_a_stream_looks_for_them(predictor, tmp_path, batch):
    write_scenes(tmp_path, 7, size=SIZE, split="test")
    table = [pair_table(tmp_path, "msrs", "test")[index] for index in (0, 1, 6)]
    stopped = [table[0], *(type(row)(row.name, row.visible, table[0].infrared) for row in table[1:])]
    with pytest.warns(InputWarning, match="has been frozen since") as caught:
        found = list(predictor.stream(stopped, batch=batch))
    assert sum("frozen since" in str(warning.message) for warning in caught) == 2
    for one in found[1:]:
        np.testing.assert_allclose(one.result.fused, one.pair.visible * 255, atol=0.51)
        assert np.ptp(one.pair.infrared) > 0.1  # what is compared is what was read
