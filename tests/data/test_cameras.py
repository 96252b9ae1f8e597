import pytest
import torch

from tectum.data.cameras import Cameras, with_part, with_tones
from tectum.data.transforms import Augmentation, PairDataset, Sample
from tectum.data.truth import box_label
from tectum.errors import InputError
from tectum.scenes import write_scenes


def images(side=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, side, side, generator=generator), torch.rand(1, side, side, generator=generator)


def sample(seed=0, label=0):
    return Sample.of_clean(*images(seed=seed), torch.full((48, 48), label, dtype=torch.int64))


def test_zeros_change_nothing():
    pair = images()
    assert all(torch.equal(*both) for both in zip(Cameras().see(*pair), pair, strict=True))
    assert Cameras().mix(sample(), lambda: pytest.fail("no other pair is needed")) is not None


def test_grey_takes_the_colour_and_leaves_the_infrared_image():
    visible, infrared = images()
    grey, same = Cameras(grey=1).see(visible, infrared)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])
    assert grey[0].std() > 0.05
    assert torch.equal(same, infrared)


def test_inversion_gamma_and_stretch_are_of_the_infrared_image_alone():
    visible, infrared = images()
    same, black_hot = Cameras(inversion=1).see(visible, infrared)
    torch.testing.assert_close(black_hot, 1 - infrared)
    assert torch.equal(same, visible)
    torch.manual_seed(0)
    _, darker_or_brighter = Cameras(gamma=1).see(visible, infrared)
    power = darker_or_brighter.log() / infrared.log()
    assert 0.5 <= power.median() <= 2
    assert power.std() < 1e-2
    torch.manual_seed(0)
    _, stretched = Cameras(stretch=0.2).see(visible, infrared)
    assert 0.01 < (stretched == 0).float().mean() < 0.25
    assert 0.01 < (stretched == 1).float().mean() < 0.25


def test_sharpness_goes_both_ways():
    visible, infrared = images()
    detail = [Cameras(sharpness=1).see(visible, infrared)[1].diff(dim=2).abs().mean().item() for _ in range(40)]
    own = infrared.diff(dim=2).abs().mean().item()
    assert min(detail) < 0.9 * own
    assert max(detail) > 1.05 * own


def test_tones_become_those_of_the_other_image():
    image, other = torch.rand(1, 64, 64) ** 3, 0.5 + 0.2 * torch.rand(1, 80, 70)
    matched = with_tones(image, other)
    shares = torch.linspace(0.05, 0.95, 7)
    torch.testing.assert_close(
        torch.quantile(matched.flatten(), shares), torch.quantile(other.flatten(), shares), atol=0.03, rtol=0
    )
    order = image.flatten().argsort()
    assert (matched.flatten()[order].diff() >= -1e-6).all()


def test_a_part_comes_with_its_labels_and_its_whole_boxes():
    torch.manual_seed(0)
    for seed in range(20):
        below, above = sample(seed, label=1), sample(100 + seed, label=2)
        boxes = torch.zeros(48, 48, dtype=torch.int64)
        boxes[20:24, 20:24] = 3 + 256
        boxes[2:46, 30:44] = 3 + 2 * 256
        mixed = with_part(below._replace(boxes=boxes), above._replace(boxes=boxes))
        pasted = mixed.labels == 2
        assert 0.05 < pasted.float().mean() < 0.55
        assert (mixed.visible != below.visible).any(dim=0)[pasted].float().mean() > 0.95
        assert torch.equal(mixed.visible[:, ~pasted], below.visible[:, ~pasted])
        for box in mixed.boxes.unique().tolist():
            if box:
                inside = (mixed.boxes == box).sum()
                assert inside in ((boxes == 3 + 256).sum(), (boxes == 3 + 512).sum())  # no box is cut
        assert set(box_label(mixed.boxes).unique().tolist()) <= {0, 3}


def test_pairs_of_different_sizes_need_a_crop():
    for key in ("tones", "parts"):
        with pytest.raises(ValueError, match="crop"):
            Augmentation(cameras=Cameras(**{key: 0.5}))


def test_the_other_pair_is_drawn_from_the_table_by_the_seed(tmp_path):
    write_scenes(tmp_path, 3, size=(64, 80))
    from tectum.data.datasets import pair_table

    table = pair_table(tmp_path, "msrs")
    plain = PairDataset(table, 9, Augmentation(crop=48))
    mixed = PairDataset(table, 9, Augmentation(crop=48, cameras=Cameras(parts=1, tones=1)))
    first, again, other = mixed[0, 5], mixed[0, 5], mixed[0, 6]
    assert all(torch.equal(*both) for both in zip(first, again, strict=True))
    assert not torch.equal(first.visible, other.visible)
    assert not torch.equal(first.visible, plain[0, 5].visible)
    assert torch.equal(first.clean, torch.cat((first.visible, first.infrared)))


def test_boxes_half_size_and_weight_come_with_the_pair(tmp_path):
    from dataclasses import replace

    from tectum.data.datasets import pair_table
    from tectum.data.pair import Use

    write_scenes(tmp_path, 1, size=(64, 80))
    (pair,) = pair_table(tmp_path, "msrs")
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("0 0.5 0.25 0.2 0.3\n")
    alone = replace(pair, label=None, boxes=boxes, use=Use(looked_for=(1, 2, 3), boxes=True, weight=0.5, scale=2))
    found = PairDataset([alone], 9, Augmentation())[0, 0]
    assert found.visible.shape == (3, 128, 160)
    assert found.weight == 0.5
    assert (box_label(found.boxes) == 2).sum() == pytest.approx(0.2 * 160 * 0.3 * 128, rel=0.1)
    assert len(found.labels.unique()) == 2  # a set within the box, and one outside
    boxes.write_text("nonsense\n")
    with pytest.raises(InputError, match=r"boxes\.txt, line 1"):
        PairDataset([alone], 9, Augmentation())[0, 0]
