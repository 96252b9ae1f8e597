import warnings
from dataclasses import replace

import numpy as np
import pytest

from tectum.data.pair import InputWarning, Pair
from tectum.predict.familiar import TRAITS, say_if_unlike, traits


def pair(seed=0, size=(60, 80)):
    rng = np.random.default_rng(seed)
    return Pair("street", rng.random((*size, 3), np.float32), rng.random(size, np.float32))


def traits_of(one):
    shape = one.infrared.shape
    return traits(one, np.zeros(shape, np.uint8), np.full(shape, 0.9, np.float32))


def test_traits_say_what_they_are_called():
    one = pair()
    found = traits_of(one)
    assert set(found) == set(TRAITS)
    darker = traits_of(replace(one, infrared=one.infrared * 0.3))
    assert darker["infrared_brightness"] == pytest.approx(0.3 * found["infrared_brightness"], rel=1e-4)
    assert darker["infrared_contrast"] == pytest.approx(0.3 * found["infrared_contrast"], rel=1e-4)
    assert darker["visible_contrast"] == found["visible_contrast"]
    same = traits_of(replace(one, visible=np.repeat(one.infrared[..., None], 3, axis=2)))
    assert same["common_edges"] == pytest.approx(1, abs=1e-4)
    assert abs(found["common_edges"]) < 0.1
    labels = np.zeros((60, 80), np.uint8)
    labels[:, :20], labels[:, 20:40] = 2, 255
    assert traits(one, labels, np.ones((60, 80), np.float32))["foreground"] == pytest.approx(0.25)


def test_of_a_lost_image_nothing_is_said():
    assert not [name for name in traits_of(replace(pair(), lost="visible")) if name.startswith("visible")]
    assert "common_edges" not in traits_of(replace(pair(), lost="visible"))


def test_the_sentence_names_what_is_beyond_the_range():
    one = pair()
    found = traits_of(one)
    ranges = {name: [value - 0.1, value + 0.1] for name, value in found.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_if_unlike(one, found, ranges, "net")
        say_if_unlike(one, found, {}, "net")
    ranges["infrared_contrast"] = [0.9, 1.0]
    with pytest.warns(InputWarning, match=r"'street' is unlike .*'net'.* infrared image is flatter than theirs"):
        say_if_unlike(one, found, ranges, "net")
    ranges["confidence"] = [0.95, 1.0]
    with pytest.warns(InputWarning, match="and its labels are less certain"):
        say_if_unlike(one, found, ranges, "net")
