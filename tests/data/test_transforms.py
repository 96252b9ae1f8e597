from collections import Counter

import pytest
import torch

from tectum.data.pair import PairPaths
from tectum.data.transforms import Augmentation, PairDataset, Sample, StepSampler
from tectum.data.weather import Weather
from tectum.scenes import write_scenes


def sample(height=40, width=56):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    visible = torch.stack((rows / height, columns / width, torch.zeros(height, width)))
    labels = (columns // 8).to(torch.int64)
    return Sample.of_clean(visible, (columns / width)[None], labels)


def test_none_leaves_the_pair_as_it_is():
    for before, after in zip(sample(), Augmentation()(sample()), strict=True):
        torch.testing.assert_close(after, before)


@pytest.mark.parametrize("augmentation", [Augmentation(crop=32), Augmentation(crop=32, scale=(0.5, 2), flip=1.0)])
def test_crop_keeps_images_and_labels_aligned(augmentation):
    torch.manual_seed(0)
    for _ in range(20):
        out = augmentation(sample())
        assert out.visible.shape == (3, 32, 32)
        assert out.labels.shape == (32, 32)
        torch.testing.assert_close(out.infrared[0], out.visible[1])  # both hold the column
        # Where the label is c, the column lies within [8c, 8c + 8) of 56, up to the blur of resizing.
        column = out.infrared[0] * 56
        assert (column >= out.labels * 8 - 2).all()
        assert (column < out.labels * 8 + 10).all()


def test_resizing_invents_no_class():
    pair = sample()
    labels = torch.where(pair.labels > 2, 14, 0)
    for seed in range(10):
        torch.manual_seed(seed)
        out = Augmentation(crop=24, scale=(0.5, 3))(pair._replace(labels=labels))
        assert set(out.labels.unique().tolist()) <= {0, 14}
    assert set(Augmentation(resize=(64, 33))(pair._replace(labels=labels)).labels.unique().tolist()) == {0, 14}


def test_images_smaller_than_the_crop_are_enlarged():
    assert Augmentation(crop=64, scale=(0.5, 0.6))(sample()).visible.shape == (3, 64, 64)


def test_foreground_crops_hold_a_labelled_pixel():
    labels = torch.zeros(200, 200, dtype=torch.int64)
    labels[5, 190] = 7
    labels[100:, :] = 255
    pair = Sample.of_clean(torch.rand(3, 200, 200), torch.rand(1, 200, 200), labels)
    torch.manual_seed(0)
    assert all((Augmentation(crop=32, foreground=1.0)(pair).labels == 7).any() for _ in range(20))
    assert sum(bool((Augmentation(crop=32)(pair).labels == 7).any()) for _ in range(20)) < 10


def test_modalities_change_brightness_apart_and_stay_in_range():
    torch.manual_seed(0)
    pair = Sample.of_clean(torch.full((3, 8, 8), 0.5), torch.full((1, 8, 8), 0.5), torch.zeros(8, 8, dtype=torch.int64))
    out = Augmentation(brightness=0.5, gamma=0.5, noise=0.1)(pair)
    assert abs(out.visible.mean() - out.infrared.mean()) > 0.01
    assert min(x.min() for x in out[:2]) >= 0
    assert max(x.max() for x in out[:2]) <= 1


def test_blur_spreads_a_point_but_not_the_labels():
    point = torch.zeros(1, 33, 33)
    point[0, 16, 16] = 1
    pair = Sample.of_clean(point.expand(3, 33, 33).clone(), point, torch.randint(9, (33, 33)))
    torch.manual_seed(0)
    spread = []
    for _ in range(50):
        out = Augmentation(blur=2.0)(pair)
        assert torch.equal(out.labels, pair.labels)
        for image in (out.visible[:1], out.infrared):
            assert image.sum() == pytest.approx(1, abs=1e-4)
            spread.append((image * (torch.arange(33) - 16).square()).sum().sqrt().item())
        assert spread[-1] != spread[-2]  # each modality has its own
    assert 1.7 < max(spread) <= 2.01
    assert min(spread) < 0.4


def test_dropout_greys_either_modality_but_never_both():
    torch.manual_seed(0)
    found = [Augmentation(dropout=0.5)(sample()) for _ in range(300)]
    varied = [tuple(bool(image.min() < image.max()) for image in one[:2]) for one in found]
    assert set(varied) == {(True, True), (False, True), (True, False)}
    assert 120 < varied.count((True, True)) < 180
    assert varied.count((False, True)) > 30
    assert varied.count((True, False)) > 30
    greys = [one.infrared[0, 0, 0].item() for one, (_, seen) in zip(found, varied, strict=True) if not seen]
    assert min(greys) == 0
    assert max(greys) == 1
    assert sum(0 < grey < 1 for grey in greys) > 5
    for one in found:
        assert torch.equal(one.clean, sample().clean)


def test_weather_leaves_the_clean_pair_and_the_labels():
    torch.manual_seed(0)
    pair = sample(64, 64)
    out = Augmentation(weather=Weather(fog=1, inversion=1))(pair)
    torch.testing.assert_close(out.infrared, 1 - pair.infrared)
    assert out.visible.std() < 0.7 * pair.visible.std()
    assert torch.equal(out.clean, pair.clean)
    assert torch.equal(out.labels, pair.labels)


def test_flip_and_turn_together_reach_all_eight_orientations():
    """Flip none, horizontal or vertical, then turn by 0 to 270 degrees, each equally likely (MAFS, stage I)."""
    corners = torch.tensor([[0, 1], [3, 2]])
    turned = [tuple(torch.rot90(corners, quarters).flatten().tolist()) for quarters in range(4)]
    mirrored = [tuple(torch.rot90(corners.T, quarters).flatten().tolist()) for quarters in range(4)]
    augmentation = Augmentation(crop=2, flip=2 / 3, turn=3 / 4)
    images = corners / 4.0
    pair = Sample.of_clean(images.expand(3, 2, 2).clone(), images[None].clone(), corners)
    torch.manual_seed(0)
    count = 3000
    found = Counter()
    for _ in range(count):
        out = augmentation(pair)
        torch.testing.assert_close(out.visible, (out.labels / 4.0).expand(3, 2, 2))
        torch.testing.assert_close(out.infrared[0], out.labels / 4.0)
        found[tuple(out.labels.flatten().tolist())] += 1
    assert set(found) == {*turned, *mirrored}
    for orientations, share in ((turned, 1 / 12), (mirrored, 1 / 6)):
        # Three to five standard deviations.
        assert [found[one] / count for one in orientations] == pytest.approx([share] * 4, rel=0.2)


def test_turn_alone_never_mirrors_and_zero_never_turns():
    torch.manual_seed(0)
    pair = sample(32, 32)
    turns = [pair.labels.rot90(quarters) for quarters in (1, 2, 3)]
    for _ in range(20):
        out = Augmentation(crop=32, turn=1.0)(pair).labels
        assert any(torch.equal(out, turned) for turned in turns)
        assert torch.equal(Augmentation(crop=32)(pair).labels, pair.labels)


def test_same_key_same_sample_and_a_missing_label_is_ignored(tmp_path):
    pairs = write_scenes(tmp_path, 1, size=(64, 80))
    unlabelled = PairPaths("x", pairs[0].visible, pairs[0].infrared)
    dataset = PairDataset([pairs[0], unlabelled], 9, Augmentation(crop=32, scale=(0.5, 2), noise=0.1))
    state = torch.get_rng_state()
    first, again, other = dataset[0, 5], dataset[0, 5], dataset[0, 6]
    torch.testing.assert_close(first.visible, again.visible, atol=0, rtol=0)
    assert not torch.equal(first.visible, other.visible)
    assert torch.equal(torch.get_rng_state(), state)
    assert (dataset[1, 5].labels == 255).all()
    torch.testing.assert_close(dataset[1, 5].visible, first.visible, atol=0, rtol=0)


def test_an_epoch_shows_every_pair_once_and_the_next_in_another_order():
    batches = list(StepSampler(10, 5, 3, range(4)))
    rows = [[row for row, _ in batch] for batch in batches]
    assert sorted(rows[0] + rows[1]) == sorted(rows[2] + rows[3]) == list(range(10))
    assert rows[:2] != rows[2:]
    seeds = [seed for batch in batches for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("start", [1, 2, 3])
def test_a_resumed_order_is_the_uninterrupted_one(start):
    assert list(StepSampler(7, 2, 0, range(start, 8))) == list(StepSampler(7, 2, 0, range(8)))[start:]


def test_processes_share_each_batch():
    whole = list(StepSampler(9, 4, 1, range(5)))
    shares = [list(StepSampler(9, 4, 1, range(5), rank, 2)) for rank in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    assert all(len(share) == 2 for share in shares[0])


def test_seeds_differ_between_runs():
    assert list(StepSampler(8, 4, 0, range(2))) != list(StepSampler(8, 4, 1, range(2)))
