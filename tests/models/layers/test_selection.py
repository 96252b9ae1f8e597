import pytest
import torch

from tectum.losses.fusion import detailed_target
from tectum.models.base import luminance
from tectum.models.layers.selection import DETAIL_LIMIT, LIFT, LIFT_THRESHOLD, REACH, RULE_CHANNELS, SourceSelection
from tectum.scenes import render_scene


def planes(height=32, width=48):
    return torch.rand(3, 2, 1, height, width, generator=torch.Generator().manual_seed(0))


def without_lift():
    selection = SourceSelection(RULE_CHANNELS + 2).requires_grad_(False).eval()
    selection.lift[0] = 0
    return selection


def flat(*values, size=(32, 48)):
    return [torch.full((1, 1, *size), value) for value in values]


@pytest.mark.parametrize("training", [False, True])
def test_a_new_one_takes_the_brighter_source_where_neither_has_detail(training):
    selection = without_lift().train(training)
    for visible, infrared in ((0.5, 0.3), (0.3, 0.5)):
        torch.testing.assert_close(selection(*flat(0.1, visible, infrared)), flat(0.5)[0], atol=1e-4, rtol=0)


def test_a_new_one_takes_the_source_of_detail_though_it_is_darker():
    stripes = torch.where(torch.arange(48) % 4 < 2, 0.0, 0.08).expand(1, 1, 32, 48)
    smooth, bright, black = flat(0.12, 0.8, 0.0)
    selection = without_lift()
    for expected, other in ((stripes, smooth), (bright, stripes)):
        for pair in ((expected, other), (other, expected)):
            torch.testing.assert_close(selection(black, *pair), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("condition", ["day", "night"])
def test_a_new_one_and_the_target_of_training_agree(condition):
    """But where the preference is slight: the target has the exact length of the gradient."""
    scene = render_scene(3, (240, 320), condition)
    visible = luminance(torch.from_numpy(scene.visible).permute(2, 0, 1)[None])
    infrared = torch.from_numpy(scene.infrared)[None, None]
    selected = SourceSelection(RULE_CHANNELS).requires_grad_(False).eval()(visible, visible, infrared)
    target = detailed_target(visible, infrared, torch.zeros_like(visible, dtype=torch.bool))
    distances = [
        (image - target).abs().mean() for image in (selected, visible, infrared, torch.maximum(visible, infrared))
    ]
    assert distances[0] < 0.2 * min(distances[1:])


@pytest.mark.parametrize(("bias", "source"), [(2.0, 1), (-2.0, 2)])
def test_a_preference_takes_one_source(bias, source):
    selection = without_lift()
    selection.preference.bias[1] = bias
    torch.testing.assert_close(selection(*planes()), planes()[source])


def test_detail_makes_up_for_no_more_than_its_limit():
    selection = without_lift()
    selection.preference.bias[0] = 100
    for more, source in ((DETAIL_LIMIT - 0.02, 0.5), (DETAIL_LIMIT + 0.02, 0.5 + DETAIL_LIMIT + 0.02)):
        fused = selection(*flat(0.0, 0.5, 0.5 + more))
        torch.testing.assert_close(fused, torch.full_like(fused, source), atol=1e-3, rtol=0)


def test_the_lift_is_a_share_of_what_both_sources_have_above_a_threshold():
    selection = SourceSelection(RULE_CHANNELS).requires_grad_(False).eval()
    for darker, lift in ((LIFT_THRESHOLD + 0.2, 0.2 * LIFT), (LIFT_THRESHOLD - 0.01, 0)):
        torch.testing.assert_close(selection(*flat(0.0, 0.5, darker)), flat(0.5 + lift)[0])


def test_what_the_rule_does_not_need_can_be_learned_from_the_first_fused_image():
    torch.manual_seed(0)
    selection = SourceSelection(RULE_CHANNELS + 2)
    fused, luminance, infrared = planes()
    selection(fused, luminance, infrared).sum().backward()
    assert selection.preference.weight.grad[1, RULE_CHANNELS:].abs().min() > 0


def test_reach_and_borders():
    torch.manual_seed(0)
    selection = without_lift()
    torch.nn.init.normal_(selection.preference.weight)
    fused, luminance, infrared = planes(40, 40)
    changed = luminance.clone()
    changed[..., 16, 16] += 1e-3  # so that the sigmoid is not saturated at the farthest pixels
    before, after = (
        selection.preference(selection.gather(torch.relu(selection.detail(torch.cat((fused, x, infrared), dim=1)))))
        for x in (luminance, changed)
    )
    touched = (after - before).abs().amax(dim=(0, 1)).nonzero() + REACH
    assert (touched - 16).abs().max() == REACH

    flats = flat(0.2, 0.5, 0.49, size=(16, 16))
    selected = selection(*flats)  # a border is no edge
    torch.testing.assert_close(selected, selected[:, :, :1, :1].expand_as(selected))
