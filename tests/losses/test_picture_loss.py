import pytest
import torch
import torch.nn.functional as F

from tectum.losses.picture import (
    KEPT,
    LEAST_GRADIENT,
    PictureLoss,
    contrast_loss,
    difference_loss,
    edge_loss,
    local_contrast_loss,
    seam_loss,
    useful_strength,
    worth_keeping,
)
from tectum.metrics import qabf, scd
from tectum.models.layers.bands import split_bands


def texture(seed, size=(96, 96)):
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.2 * torch.rand(1, 1, *size, generator=generator)


def person(brightness, size=(96, 96)):
    """A bright or dark bar, and its mask."""
    mask = torch.zeros(1, 1, *size)
    mask[..., 30:66, 40:54] = 1
    return mask * brightness, mask


def test_strength_is_what_of_the_clean_band_is_still_shown():
    clean = texture(0) - 0.4
    strength = useful_strength(clean, clean, 7, 0.0).mean()
    torch.testing.assert_close(useful_strength(0.25 * clean, clean, 7, 0.0).mean(), strength / 4)
    torch.testing.assert_close(useful_strength(-clean, clean, 7, 0.0).mean(), strength)
    # What is independent of the clean band counts for little, however strong.
    assert useful_strength(4 * (texture(1) - 0.4), clean, 7, 0.0).mean() < 0.7 * strength
    assert (useful_strength(clean, clean, 7, 1.0) == 0).all()


def test_the_source_that_shows_more_is_worth_keeping():
    flat, rich = torch.full((1, 1, 96, 96), 0.5), texture(0)
    for visible, infrared, share in ((rich, flat, 0), (flat, rich, 1)):
        bands = split_bands(torch.cat((visible, infrared), dim=1))
        kept = worth_keeping(bands, bands, tone=1.5)
        assert all((part.mean() - share).abs() < 0.02 for part in kept.details[:1])
        assert (kept.base.mean() - share).abs() < 0.05


def test_rain_is_not_worth_keeping():
    visible, infrared = torch.full((1, 1, 96, 96), 0.5), texture(0)
    streaks = visible + 0.5 * (texture(3) > 0.48)
    clean = split_bands(torch.cat((visible, infrared), dim=1))
    kept = worth_keeping(split_bands(torch.cat((streaks, infrared), dim=1)), clean, tone=1.5)
    assert kept.details[0].mean() > 0.95


@pytest.mark.parametrize("brightness", [0.4, -0.3])
def test_contrast_asked_for_is_that_of_the_source_that_has_more(brightness):
    bar, mask = person(brightness)
    grey = torch.full_like(bar, 0.5)
    thermal, empty = grey + bar, grey.clone()
    assert contrast_loss(thermal, empty, thermal, mask) == 0
    assert contrast_loss(grey + 0.9 * bar, empty, thermal, mask) == 0
    assert contrast_loss(grey + KEPT / 2 * bar, empty, thermal, mask) > 0
    assert contrast_loss(empty, empty, thermal, mask) > contrast_loss(grey + bar / 2, empty, thermal, mask)
    assert contrast_loss(grey - bar, empty, thermal, mask) > contrast_loss(empty, empty, thermal, mask)
    assert contrast_loss(empty, empty, empty, mask) == 0  # nothing to keep
    assert contrast_loss(empty, empty, thermal, torch.zeros_like(mask)) == 0  # nobody there


def test_contrast_that_is_cut_off_at_white_is_missing():
    bar, mask = person(0.4)
    thermal, fog = 0.3 + bar, torch.full_like(bar, 0.9)
    assert contrast_loss(fog + bar, fog, thermal, mask) > 0.1


def test_objects_count_alike_whatever_their_size():
    small, large = (torch.zeros(1, 1, 128, 128) for _ in range(2))
    small[..., 60:72, 60:68] = 1
    large[..., 40:88, 56:76] = 1
    grey = torch.full_like(small, 0.5)
    losses = [contrast_loss(grey, grey, grey + 0.3 * mask, mask) for mask in (small, large)]
    assert losses[0] > losses[1] / 4  # of a tenth of the area


@pytest.mark.parametrize("visible_has", [-0.3, 0.2])
def test_what_is_dark_in_one_source_and_bright_in_the_other_must_not_vanish(visible_has):
    bar, _ = person(1.0)
    grey = torch.full_like(bar, 0.5)
    sources = (grey + visible_has * bar, grey + (0.1 - visible_has) * bar)
    more = max(sources, key=lambda source: (source - grey).abs().max())
    assert local_contrast_loss(more, sources, sources) == 0
    assert local_contrast_loss(sum(sources) / 2, sources, sources) > 0.01
    assert local_contrast_loss(1 - more, sources, sources) > local_contrast_loss(grey, sources, sources)


def test_glare_does_not_stand_out():
    glare, _ = person(0.45)
    thermal = torch.full_like(glare, 0.3)
    thermal[..., 60:90, 60:90] = 0.6
    street = torch.full_like(glare, 0.5)
    dazzled, clean = (street + glare, thermal), (street, thermal)
    assert local_contrast_loss(thermal, dazzled, clean) == 0
    assert local_contrast_loss(street + glare, dazzled, clean) > 0


def test_seams_are_edges_that_neither_source_has():
    visible, infrared = texture(0), texture(1)
    assert seam_loss(visible, visible, infrared) == 0
    assert seam_loss(torch.maximum(visible, infrared) * 0.5, visible, infrared) == 0
    flat = torch.full_like(visible, 0.4)
    cut = flat.clone()
    cut[..., 48:] = 0.6
    mean = 2 * (0.1 - 0.5 / 255) / 96
    assert seam_loss(cut, flat, flat) == pytest.approx(mean / LEAST_GRADIENT, rel=1e-3)
    # What matters is the share: among stronger edges the same seam counts less.
    textures = [flat + gain * (texture(0) - 0.4) for gain in (0.5, 1.0)]
    weak, strong = (seam_loss(source + cut - flat, source, flat) for source in textures)
    assert weak > strong > 0


def test_edges_and_differences_follow_the_metrics():
    visible, infrared = texture(0), texture(1)
    smooth = F.avg_pool2d(F.pad(infrared, (4, 4, 4, 4), mode="replicate"), 9, stride=1)
    pictures = [visible, (visible + infrared) / 2, smooth, torch.maximum(visible, infrared)]
    for loss, metric in ((edge_loss, qabf), (difference_loss, scd)):
        ours = [loss(picture, visible, infrared).item() for picture in pictures]
        theirs = [metric(picture, visible, infrared, data_range=1.0).item() for picture in pictures]
        if loss is difference_loss:
            assert [2 - value for value in ours] == pytest.approx(theirs, abs=0.02)
        else:
            # Qabf counts two orientations apart that meet at its arctangent's end; on noise that is often.
            assert sorted(range(4), key=ours.__getitem__) == sorted(range(4), key=theirs.__getitem__)[::-1]


def test_terms_are_finite_and_reach_the_picture_and_the_weights():
    torch.manual_seed(0)
    sources = (texture(0), texture(1))
    fused, weights = (x.requires_grad_() for x in (torch.rand(1, 1, 96, 96), torch.rand(1, 7, 96, 96)))
    labels = torch.zeros(1, 96, 96, dtype=torch.int64)
    labels[:, 30:66, 40:54] = 2
    terms = PictureLoss()(fused, weights, sources, sources, labels)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert total.isfinite()
    assert fused.grad.isfinite().all()
    assert fused.grad.abs().mean() > 0
    assert weights.grad.abs().min(dim=-1).values.mean() > 0


def test_flat_images_give_finite_gradients():
    flat = torch.full((1, 1, 64, 64), 0.5)
    fused = flat.clone().requires_grad_()
    weights = torch.full((1, 7, 64, 64), 0.5, requires_grad=True)
    terms = PictureLoss()(fused, weights, (flat, flat), (flat, flat), torch.full((1, 64, 64), 2))
    torch.stack(list(terms.values())).sum().backward()
    assert fused.grad.isfinite().all()
