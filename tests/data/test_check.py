import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from tectum.data.check import check_dataset
from tectum.data.convert import drop_unknown_ids, ids_from_colours, scale_thermal, split_packed
from tectum.data.datasets import dataset_info, pair_table
from tectum.data.pair import read_pair
from tectum.data.statistics import dataset_stats, enet_weights, median_frequency_weights
from tectum.errors import ConfigError, InputError


def kinds(problems):
    return sorted((problem.kind, problem.name) for problem in problems)


def write(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "dataset"), [("msrs", "msrs"), ("mfnet", "mfnet"), ("fmb", "fmb"), ("pst900", "pst900"), ("tno", "folder")]
)
def test_sound_data_set(layout, name, dataset):
    report = check_dataset(layout(name), dataset)
    assert report.ok
    assert report.problems == report.notes == []
    assert report.sizes == {"16x12": report.pairs}
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_splits_and_modes(layout):
    report = check_dataset(layout("fmb"), "fmb")
    assert report.splits == {"train": 2, "test": 1}
    assert report.labelled == 3
    assert report.modes == {"visible": {"RGB": 3}, "infrared": {"RGB": 3}, "label": {"L": 3}}


def test_every_problem_is_found(layout):
    root = layout("msrs")
    source = root / "train"
    for name in ("10", "11", "12", "13", "14", "15", "16", "17"):
        for folder in ("vi", "ir", "Segmentation_labels"):
            image = np.array(Image.open(source / folder / "00001D.png"))
            if folder == "vi":
                image[0, 0] = int(name)
            write(image, source / folder / f"{name}.png")
    (source / "ir/10.png").unlink()
    write(np.zeros((5, 7), np.uint8), source / "ir/11.png")
    (source / "vi/12.png").write_bytes(b"")
    labels = source / "Segmentation_labels"
    write(np.full((12, 16), 9, np.uint8), labels / "13.png")
    write(np.full((12, 16), 255, np.uint8), labels / "14.png")
    write(np.full((12, 16, 3), (64, 0, 128), np.uint8), labels / "15.png")
    shutil.copy(source / "vi/16.png", root / "test/vi/00004N.png")
    (labels / "17.png").unlink()
    write(np.full((12, 16), 7000, np.uint16), source / "ir/17.png")

    report = check_dataset(root, "msrs")
    assert kinds(report.problems) == [
        ("duplicate between splits", "00004N"),
        ("empty label", "14"),
        ("missing twin", "10"),
        ("unequal sizes", "11"),
        ("unknown ids", "13"),
        ("unreadable file", "12"),
        ("wrong mode or values", "15"),
    ]
    assert kinds(report.notes) == [("missing label", "17"), ("suspicious image", "17")]
    assert not report.ok


def test_duplicate_within_a_split_is_a_note(layout):
    root = layout("msrs")
    for folder in ("vi", "ir", "Segmentation_labels"):
        shutil.copy(root / "train" / folder / "00001D.png", root / "train" / folder / "00002D.png")
    report = check_dataset(root, "msrs")
    assert report.ok
    assert kinds(report.notes) == [("duplicate within a split", "00001D")]


def test_a_packed_file_is_reported_once(layout):
    root = layout("mfnet")
    write(np.zeros((12, 16, 3), np.uint8), root / "images/00004N.png")
    report = check_dataset(root, "mfnet")
    assert kinds(report.problems) == [("wrong mode or values", "00004N")]


def test_fake_fmb_ids_are_explained(layout):
    root = layout("fmb")
    write(np.full((12, 16), 16, np.uint8), root / "train/Label/00001.png")
    (problem,) = check_dataset(root, "fmb").problems
    assert problem.kind == "unknown ids"
    assert "bicubic" in problem.message


def test_progress_is_told(layout):
    told = []
    check_dataset(layout("msrs"), "msrs", on_start=told.append, on_pair=lambda: told.append("pair"))
    assert told == [3, "pair", "pair", "pair"]


def test_weights_of_known_counts():
    # MFNet's published ENet weights, as used by EGFNet and LASNet, start with 1.5105 for id 0.
    assert enet_weights([9, 1]).tolist() == pytest.approx([1 / math.log(1.92), 1 / math.log(1.12)])
    assert enet_weights([0, 5])[0] == pytest.approx(1 / math.log(1.02))
    # Class 0 in images of 20 pixels, classes 1 and 2 in images of 10: f = 0.8, 0.3, 0.1; median 0.3.
    assert median_frequency_weights([16, 3, 1, 0], [20, 10, 10, 0]).tolist() == pytest.approx([0.375, 1, 3, 0])
    assert median_frequency_weights([0, 0], [0, 0]).tolist() == [0, 0]


def test_stats_count_what_is_there(tmp_path):
    for split, name, value, ids in [("train", "a", 51, [[0, 0], [1, 255]]), ("test", "b", 255, [[0, 2], [2, 2]])]:
        write(np.full((2, 2, 3), value, np.uint8), tmp_path / split / "vi" / f"{name}.png")
        write(np.full((2, 2), value // 3, np.uint8), tmp_path / split / "ir" / f"{name}.png")
        write(np.array(ids, np.uint8), tmp_path / split / "label" / f"{name}.png")
    stats = dataset_stats(tmp_path, "msrs")
    assert [row.pixels for row in stats.classes] == [3, 1, 3, 0, 0, 0, 0, 0, 0]
    assert [row.images for row in stats.classes[:4]] == [2, 1, 1, 0]
    assert stats.classes[0].frequency == pytest.approx(3 / 7)
    assert stats.classes[0].name == "unlabelled"
    # f = 3/7, 1/3, 3/4 -> median 3/7
    assert [row.median_frequency for row in stats.classes[:4]] == pytest.approx([1, 9 / 7, 4 / 7, 0])
    assert stats.ignored == pytest.approx(1 / 8)
    assert stats.sizes == {"2x2": 2}
    assert stats.visible == pytest.approx((0.6, 0.4, 0.2, 1.0))
    assert stats.infrared == pytest.approx((0.2, 0.4 / 3, 0.2 / 3, 1 / 3))
    assert json.loads(json.dumps(stats.to_dict()))["classes"][2]["id"] == 2
    assert dataset_stats(tmp_path, "msrs", "test").classes[1].pixels == 0
    assert [row.name for row in dataset_stats(tmp_path, "folder").classes] == ["id 0", "id 1", "id 2"]


def test_stats_go_on_past_a_bad_pair(layout):
    root = layout("msrs")
    (root / "train/vi/00001D.png").write_bytes(b"junk")
    stats = dataset_stats(root, "msrs")
    assert stats.pairs == 2
    assert kinds(stats.problems) == [("unreadable pair", "00001D")]


def test_stats_without_a_readable_pair(layout):
    root = layout("tno")
    for path in root.iterdir():
        path.write_bytes(b"junk")
    with pytest.raises(InputError, match="no pair"):
        dataset_stats(root)


def test_split_packed_keeps_every_value(layout, tmp_path):
    root, out = layout("mfnet"), tmp_path / "out"
    result = split_packed(root, out)
    assert result.problems == []
    assert len(result.written) == 12
    before, after = pair_table(root, "mfnet"), pair_table(out, "mfnet")
    assert [(p.name, p.split) for p in before] == [(p.name, p.split) for p in after]
    for one, other in zip(before, after, strict=True):
        a, b = read_pair(one), read_pair(other)
        assert not other.packed
        assert np.array_equal(a.visible, b.visible)
        assert np.array_equal(a.infrared, b.infrared)
        assert np.array_equal(a.label, b.label)
    assert Image.open(after[0].infrared).mode == "L"
    with pytest.raises(InputError, match="nothing to split"):
        split_packed(out, tmp_path / "again")


def test_split_packed_goes_on_past_a_bad_file(layout, tmp_path):
    root, out = layout("mfnet"), tmp_path / "out"
    (root / "images/00001D.png").write_bytes(b"junk")
    result = split_packed(root, out)
    assert kinds(result.problems) == [("not converted", "00001D")]
    assert len(result.written) == 9
    assert not list(out.rglob("00001D*"))


@pytest.mark.parametrize("dataset", ["msrs", "fmb", "pst900"])
@pytest.mark.parametrize("bgr", [False, True])
def test_ids_from_colours(tmp_path, dataset, bgr):
    palette = np.array(dataset_info(dataset).palette, np.uint8)
    ids = np.random.default_rng(1).integers(0, len(palette), (12, 16), dtype=np.uint8)
    colours = palette[ids]
    write(np.ascontiguousarray(colours[..., ::-1]) if bgr else colours, tmp_path / "in/a.png")
    result = ids_from_colours(tmp_path / "in", tmp_path / "out", dataset, bgr=bgr)
    assert result.problems == []
    assert np.array_equal(np.array(Image.open(tmp_path / "out/a.png")), ids)


def test_unknown_colours_are_named(tmp_path):
    palette = np.array(dataset_info("fmb").palette, np.uint8)
    write(np.full((4, 4, 3), (1, 2, 3), np.uint8), tmp_path / "in/bad.png")
    write(np.ascontiguousarray(palette[None, :, ::-1]), tmp_path / "in/bgr.png")
    write(palette[None], tmp_path / "in/good.png")
    result = ids_from_colours(tmp_path / "in", tmp_path / "out", "fmb")
    assert [path.name for path in result.written] == ["good.png"]
    bad, bgr = result.problems
    assert "(1, 2, 3) x 16" in bad.message
    assert "--bgr" in bgr.message
    with pytest.raises(ConfigError, match="no palette"):
        ids_from_colours(tmp_path / "in", tmp_path / "out", "folder")


def test_drop_unknown_ids(tmp_path):
    write(np.array([[0, 14, 15, 16, 255]], np.uint8), tmp_path / "in/a.png")
    result = drop_unknown_ids(tmp_path / "in/a.png", tmp_path / "out", "fmb")
    assert result.changed == 2
    assert np.array(Image.open(tmp_path / "out/a.png")).tolist() == [[0, 14, 255, 255, 255]]


def test_scale_thermal_uses_one_range(tmp_path):
    for name, values in (("a", [7000, 8000]), ("b", [8000, 9500])):
        write(np.array([values], np.uint16), tmp_path / f"in/{name}.tif")
    result = scale_thermal(tmp_path / "in", tmp_path / "out", (7000, 9000))
    assert [np.array(Image.open(path)).tolist() for path in result.written] == [[[0, 128]], [[128, 255]]]


def test_conversions_spare_the_originals(tmp_path):
    path = write(np.zeros((4, 4), np.uint8), tmp_path / "a.png")
    with pytest.raises(ConfigError, match="originals"):
        drop_unknown_ids(path, tmp_path, "fmb")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no image"):
        drop_unknown_ids(tmp_path / "none", tmp_path / "out", "fmb")
    write(np.zeros((4, 4), np.uint8), tmp_path / "a.bmp")
    result = drop_unknown_ids(tmp_path, tmp_path / "out", "fmb")
    assert kinds(result.problems) == [("ambiguous name", "a.bmp"), ("ambiguous name", "a.png")]
    assert not (tmp_path / "out").exists()


def test_real_consensus_labels(shared_data):
    report = check_dataset(shared_data / "MSRS-consensus", "msrs", "test")
    assert report.ok, report.problems
    assert report.notes == []
    assert report.labelled == report.pairs == 24
