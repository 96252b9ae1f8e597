import pytest
import torch

from tectum.data.masking import complementary_masks, mask_pair


def grey_pair(batch=1, height=64, width=64, value=2.0):
    """Images of a value that noise in [0, 1] cannot take."""
    return torch.full((batch, 3, height, width), value), torch.full((batch, 1, height, width), value)


@pytest.fixture(scope="module")
def kept():
    """Patches kept in each modality, over many samples of 8 x 8 patches: float (2, samples, 8, 8)."""
    torch.manual_seed(0)
    return torch.stack(complementary_masks(20000, 8, 8)).float()


def test_no_patch_is_hidden_in_both_modalities(kept):
    assert (kept.sum(0) >= 1).all()


def test_kept_shares_are_those_of_the_release(kept):
    """Over 20000 samples the standard error is about 0.002."""
    assert kept.mean().item() == pytest.approx(0.61, abs=0.01)
    assert kept.prod(0).mean().item() == pytest.approx(0.22, abs=0.01)


def test_kept_shares_vary_between_samples_as_in_the_release(kept):
    shares = kept.mean(dim=(2, 3)).flatten()
    assert shares.std().item() == pytest.approx(0.27, abs=0.01)
    quantiles = torch.quantile(shares, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    assert quantiles.tolist() == pytest.approx([0.06, 0.45, 0.67, 0.81, 0.95], abs=0.02)


def test_neither_modality_is_favoured(kept):
    visible, infrared = kept.mean(dim=(2, 3))
    assert visible.mean().item() == pytest.approx(infrared.mean().item(), abs=0.01)
    assert (visible > infrared).float().mean().item() == pytest.approx(
        (infrared > visible).float().mean().item(), abs=0.02
    )


def test_every_place_is_hidden_equally_often(kept):
    assert kept.mean(dim=(0, 1)).sub(kept.mean()).abs().max() < 0.015


def test_noise_replaces_what_is_hidden_and_nothing_else():
    torch.manual_seed(0)
    visible, infrared = grey_pair(batch=8)
    masked = mask_pair(visible, infrared, 16)
    for image, hidden in ((masked.visible, masked.hidden_visible), (masked.infrared, masked.hidden_infrared)):
        assert set(hidden.unique().tolist()) == {0, 1}
        where = hidden.bool().expand_as(image)
        assert (image[~where] == 2).all()
        noise = image[where]
        assert 0 <= noise.min() <= noise.max() <= 1
        assert noise.mean().item() == pytest.approx(0.5, abs=0.02)
        assert noise.std().item() == pytest.approx(12**-0.5, abs=0.02)  # of U(0, 1), not |N(0, 1)|
    red, green = masked.visible[:, 0], masked.visible[:, 1]
    assert not torch.equal(red, green)
    assert (visible == 2).all()


def test_patches_are_hidden_whole():
    torch.manual_seed(0)
    masked = mask_pair(*grey_pair(batch=8), patch=16)
    for hidden in (masked.hidden_visible, masked.hidden_infrared):
        patches = hidden.unfold(2, 16, 16).unfold(3, 16, 16).flatten(4)
        assert torch.equal(patches.amin(-1), patches.amax(-1))


@pytest.mark.parametrize("size", [(72, 90), (50, 33), (20, 20)])
def test_patches_at_the_edge_are_cut(size):
    torch.manual_seed(0)
    masked = mask_pair(*grey_pair(6, *size), patch=32)
    assert masked.visible.shape == (6, 3, *size)
    assert masked.hidden_visible.shape == masked.hidden_infrared.shape == masked.infrared.shape == (6, 1, *size)
    assert (masked.hidden_visible * masked.hidden_infrared == 0).all()
    # The last patch begins at a multiple of 32 and ends with the image.
    corner = masked.hidden_visible[..., size[0] // 32 * 32 :, size[1] // 32 * 32 :].flatten(1)
    assert torch.equal(corner.amin(1), corner.amax(1))


def test_same_seed_same_masks():
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(mask_pair(*grey_pair(4)))
    for first, again in zip(*results[:2], strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(results[0].hidden_visible, results[2].hidden_visible)


def test_samples_of_a_batch_are_masked_apart():
    torch.manual_seed(0)
    hidden = mask_pair(*grey_pair(4, 256, 256)).hidden_visible
    assert len({sample.numpy().tobytes() for sample in hidden}) == 4
