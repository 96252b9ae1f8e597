import hashlib

import numpy as np
import pytest
from PIL import Image

from tectum.data.datasets import dataset_info, pair_table
from tectum.data.pair import read_pair
from tectum.errors import ConfigError
from tectum.scenes import CONDITIONS, render_scene, write_scenes
from tectum.scenes.materials import PERSON

SIZE = (120, 160)


def _digest(pair):
    return hashlib.sha256(b"".join(a.tobytes() for a in (pair.visible, pair.infrared, pair.label))).hexdigest()


def _person_contrast(pair):
    """Mean infrared value of people minus that of the unlabelled pixels."""
    return pair.infrared[pair.label == PERSON].mean() - pair.infrared[pair.label == 0].mean()


def test_same_seed_same_bytes():
    assert _digest(render_scene(3, SIZE)) == _digest(render_scene(3, SIZE))


def test_other_seed_other_street():
    one, two = render_scene(3, SIZE, "day"), render_scene(4, SIZE, "day")
    assert np.abs(one.visible - two.visible).mean() > 0.02
    assert (one.label != two.label).mean() > 0.02


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("size", [(32, 32), (33, 57), (101, 64), (48, 200)])
def test_shapes_types_and_ranges(size, condition):
    scene = render_scene(5, size, condition)
    assert scene.visible.shape == (*size, 3)
    assert scene.infrared.shape == scene.label.shape == size
    assert scene.visible.dtype == scene.infrared.dtype == np.float32
    assert scene.label.dtype == np.uint8
    for image in (scene.visible, scene.infrared):
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert image.max() <= 1
        assert image.std() > 0.02
    assert scene.label.max() < len(dataset_info("msrs").classes)


def test_every_class_is_drawn_by_some_seed():
    seen = set()
    for seed in range(16):
        seen |= set(np.unique(render_scene(seed, (96, 128), "fog").label).tolist())
    assert seen == set(range(9))


def test_condition_is_drawn_from_the_seed():
    names = [render_scene(seed, (32, 32)).name for seed in range(16)]
    assert {name[-1] for name in names} == {"D", "N", "G", "F"}
    assert names[7].startswith("00007")


def test_one_seed_is_one_street_in_every_condition():
    day = render_scene(1, SIZE, "day")
    for condition in ("night", "fog"):
        np.testing.assert_array_equal(render_scene(1, SIZE, condition).label, day.label)


def test_heat_is_independent_of_light():
    for seed in (0, 2, 5, 9):
        night, day = render_scene(seed, SIZE, "night"), render_scene(seed, SIZE, "day")
        assert _person_contrast(night) > 0.15
        assert _person_contrast(night) == pytest.approx(_person_contrast(day), abs=0.08)


def test_night_is_darker_than_day_and_fog_flatter():
    for seed in range(3):
        day, night, fog = (render_scene(seed, SIZE, c).visible for c in ("day", "night", "fog"))
        assert night.mean() < 0.6 * day.mean()
        # Fog hides what is far away, around the horizon.
        far = slice(SIZE[0] // 3, SIZE[0] // 2)
        assert np.abs(np.diff(fog[far], axis=1)).mean() < 0.6 * np.abs(np.diff(day[far], axis=1)).mean()


def _around(mask, reach):
    near = mask.copy()
    for axis in (0, 1):
        for shift in (-reach, reach):
            near |= np.roll(mask, shift, axis)
    return near & ~mask


@pytest.mark.parametrize("seed", [0, 2, 3, 5])
def test_glare_hides_a_person_whom_infrared_shows(seed):
    night, glare = render_scene(seed, (240, 320), "night"), render_scene(seed, (240, 320), "glare")
    dazzled = (glare.label == PERSON) & (night.label != PERSON)
    assert dazzled.sum() > 100
    around = _around(dazzled, 4)
    assert abs(glare.visible[dazzled].mean() - glare.visible[around].mean()) < 0.1
    assert glare.infrared[dazzled].mean() - glare.infrared[around].mean() > 0.15


def test_labels_and_pictures_are_aligned():
    """The infrared edge of the people lies on the label's edge: shifting the labels makes people colder."""
    scene = next(
        s for s in (render_scene(k, (240, 320), "night") for k in range(10)) if (s.label == PERSON).sum() > 900
    )
    mask = scene.label == PERSON
    at_home = scene.infrared[mask].mean()
    for axis in (0, 1):
        for shift in (-2, 2):
            assert scene.infrared[np.roll(mask, shift, axis)].mean() < at_home - 0.01


def test_unknown_condition_lists_the_options():
    with pytest.raises(ConfigError, match=r"'rain'.*day, night, glare, fog"):
        render_scene(0, SIZE, "rain")


@pytest.mark.parametrize(("seed", "size"), [(-1, SIZE), (0, (31, 64)), (0, (64, 8))])
def test_impossible_seed_or_size(seed, size):
    with pytest.raises(ConfigError):
        render_scene(seed, size)


def test_written_scenes_are_an_msrs_dataset(tmp_path):
    written = write_scenes(tmp_path, 3, seed=7, size=(40, 48), split="test")
    table = pair_table(tmp_path, "msrs", split="test")
    assert [(p.name, p.visible, p.infrared, p.label) for p in table] == [
        (p.name, p.visible, p.infrared, p.label) for p in sorted(written, key=lambda p: p.name)
    ]
    scene, read = render_scene(7, (40, 48)), read_pair(table[0])
    np.testing.assert_array_equal(read.label, scene.label)
    np.testing.assert_allclose(read.visible, scene.visible, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(read.infrared, scene.infrared, atol=0.5 / 255 + 1e-6)
    with Image.open(table[0].label) as label:
        assert label.mode == "L"
    assert {p.name for p in tmp_path.rglob("*") if p.name.startswith(".")} == set()


def test_written_scenes_can_share_a_condition(tmp_path):
    assert [p.name for p in write_scenes(tmp_path, 2, size=(32, 32), condition="night")] == ["00000N", "00001N"]
