import pytest
import torch

from tectum.models.layers.selection import REACH, SourceSelection


def planes(height=12, width=16):
    return torch.rand(3, 2, 1, height, width, generator=torch.Generator().manual_seed(0))


def test_a_new_one_gives_the_pixelwise_maximum():
    fused, luminance, infrared = planes()
    with torch.no_grad():
        selected = SourceSelection(4)(fused, luminance, infrared)
    # The sigmoid is soft where the sources are nearly equal: by 0.28 / 200 at most.
    torch.testing.assert_close(selected, torch.maximum(luminance, infrared), atol=0.0015, rtol=0)


@pytest.mark.parametrize(("bonus", "source"), [(2.0, 1), (-2.0, 2)])
def test_a_bonus_takes_one_source(bonus, source):
    selection = SourceSelection(4)
    torch.nn.init.constant_(selection.bonus.bias, bonus)
    with torch.no_grad():
        torch.testing.assert_close(selection(*planes()), planes()[source])


def test_reach_and_borders():
    torch.manual_seed(0)
    selection = SourceSelection(4).requires_grad_(False)
    torch.nn.init.normal_(selection.bonus.weight)
    fused, luminance, infrared = planes(24, 24)
    changed = fused.clone()
    changed[..., 12, 12] += 1
    difference = (
        (selection(changed, luminance, infrared) - selection(fused, luminance, infrared)).abs().amax(dim=(0, 1))
    )
    touched = difference.nonzero()
    assert (touched - 12).abs().max() == REACH

    flat = [torch.full((1, 1, 6, 8), value) for value in (0.2, 0.5, 0.49)]
    selected = selection(*flat)  # a border is no edge
    torch.testing.assert_close(selected, selected[:, :, :1, :1].expand_as(selected))
