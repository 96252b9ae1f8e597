import pytest
import torch

from tectum.models.layers.selection import REACH, SourceSelection


def planes(height=32, width=48):
    return torch.rand(3, 2, 1, height, width, generator=torch.Generator().manual_seed(0))


def without_lift():
    selection = SourceSelection(4).requires_grad_(False)
    selection.lift[0] = 0
    return selection


def test_a_new_one_gives_the_pixelwise_maximum():
    fused, luminance, infrared = planes()
    selected = without_lift()(fused, luminance, infrared)
    # The sigmoid is soft where the sources are nearly equal: by 0.28 / 200 at most.
    torch.testing.assert_close(selected, torch.maximum(luminance, infrared), atol=0.0015, rtol=0)


@pytest.mark.parametrize(("bonus", "source"), [(2.0, 1), (-2.0, 2)])
def test_a_bonus_takes_one_source(bonus, source):
    selection = without_lift()
    torch.nn.init.constant_(selection.bonus.bias, bonus)
    torch.testing.assert_close(selection(*planes()), planes()[source])


def test_the_lift_is_a_share_of_what_both_sources_have_above_a_threshold():
    selection = SourceSelection(4).requires_grad_(False)
    values = (0.0, 0.58, 0.28), (0.0, 0.5, 0.07)
    for (fused, luminance, infrared), lift in zip(values, (0.2 * 0.18, 0), strict=True):
        flat = [torch.full((1, 1, 32, 48), value) for value in (fused, luminance, infrared)]
        torch.testing.assert_close(selection(*flat), flat[1] + lift)


def test_reach_and_borders():
    torch.manual_seed(0)
    selection = without_lift()
    torch.nn.init.normal_(selection.bonus.weight)
    fused, luminance, infrared = planes(32, 32)
    changed = fused.clone()
    changed[..., 12, 12] += 1
    difference = (
        (selection(changed, luminance, infrared) - selection(fused, luminance, infrared)).abs().amax(dim=(0, 1))
    )
    touched = difference.nonzero()
    assert (touched - 12).abs().max() == REACH

    flat = [torch.full((1, 1, 16, 16), value) for value in (0.2, 0.5, 0.49)]
    selected = selection(*flat)  # a border is no edge
    torch.testing.assert_close(selected, selected[:, :, :1, :1].expand_as(selected))
