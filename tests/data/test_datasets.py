import shutil

import numpy as np
import pytest
from PIL import Image

from tectum.data import datasets
from tectum.data.datasets import DATASETS, dataset_info, list_images, match_pairs, pair_table, scan_pairs
from tectum.data.pair import read_pair
from tectum.errors import ConfigError, InputError

# layout, data set, names by split, folder of the infrared image of the first pair
CASES = [
    ("msrs", "msrs", {"train": ["00001D", "00003N"], "test": ["00004N"]}, "train/ir"),
    ("msrs_virmfs", "msrs", {"train": ["00001D", "00003N"], "test": ["00004N"]}, "ir/train"),
    ("msrs_mafs", "msrs", {"train": ["00001D", "00003N"], "test": ["00004N"]}, "train/ir"),
    ("msrs_flat", "msrs", {None: ["00001D", "00003N"]}, "ir"),
    ("mfnet", "mfnet", {"train": ["00001D", "00003N"], "val": ["00006N"], "test": ["00004N"]}, "images"),
    ("mfnet_separated", "mfnet", {"train": ["00001D", "00003N"], "val": ["00006N"], "test": ["00004N"]}, "Thermal"),
    (
        "mfnet_suffixed",
        "mfnet",
        {"train": ["00001D", "00003N"], "val": ["00006N"], "test": ["00004N"]},
        "seperated_images",
    ),
    ("fmb", "fmb", {"train": ["00001", "00002"], "test": ["01221"]}, "train/Infrared"),
    ("fmb_virmfs", "fmb", {"train": ["00001", "00002"], "test": ["01221"]}, "ir/train"),
    (
        "pst900",
        "pst900",
        {"train": ["31_bag1a_rect_rgb_frame0000000007"], "test": ["62_bag25_rect_rgb_frame0000001571"]},
        "train/thermal",
    ),
    ("llvip", "folder", {"train": ["010001"], "test": ["190001"]}, "infrared/train"),
    ("tno", "folder", {None: ["VIS00", "VIS01"]}, "."),
    ("msrs", "folder", {"train": ["00001D", "00003N"], "test": ["00004N"]}, "train/ir"),
]
IDS = [f"{name}-as-{dataset}" for name, dataset, _, _ in CASES]


@pytest.mark.parametrize(("name", "dataset", "expected", "infrared"), CASES, ids=IDS)
def test_layout(layout, name, dataset, expected, infrared):
    root = layout(name)
    table = pair_table(root, dataset)
    assert [pair.name for pair in table] == sorted(n for names in expected.values() for n in names)
    assert {split: [p.name for p in table if p.split == split] for split in expected} == expected
    assert table[0].infrared.parent == root / infrared
    for split, names in expected.items():
        if split is not None:
            assert [pair.name for pair in pair_table(root, dataset, split)] == names
    for paths in table:
        pair = read_pair(paths, classes=len(dataset_info(dataset).classes) or None)
        assert pair.infrared.shape == (12, 16)
        assert (pair.label is None) == (name in ("llvip", "tno"))


def test_no_pixel_is_read(layout, monkeypatch):
    root = layout("msrs")
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("a pixel was read"))
    assert len(pair_table(root, "msrs")) == 3


def test_the_right_twins_are_together(layout):
    plain, packed, suffixed = (pair_table(layout(name), "mfnet") for name in ("mfnet", "mfnet", "mfnet_suffixed"))
    assert plain == packed
    for one, other in zip(packed, suffixed, strict=True):
        a, b = read_pair(one), read_pair(other)
        assert one.packed
        assert not other.packed
        assert np.array_equal(a.visible, b.visible)
        assert np.array_equal(a.infrared, b.infrared)
        assert np.array_equal(a.label, b.label)


def test_boxes_and_further_lists(layout):
    assert all(pair.boxes.read_text().startswith("0 ") for pair in pair_table(layout("msrs"), "msrs"))
    assert [p.name for p in pair_table(layout("mfnet"), "mfnet", "test_night")] == ["00004N"]
    assert pair_table(layout("msrs"), "msrs", "detection")[0].name == "1"


def test_flipped_copies_are_left_out(layout):
    root = layout("mfnet")
    assert (root / "images/00001D_flip.png").exists()
    assert all(not pair.name.endswith("_flip") for pair in pair_table(root, "mfnet"))


def test_folder_names_and_suffixes_in_any_case(layout):
    root = layout("msrs_flat")
    (root / "vi").rename(root / "VI")
    (root / "ir").rename(root / "IR")
    for path in (root / "VI").iterdir():
        path.rename(path.with_suffix(".PNG"))
    assert [pair.name for pair in pair_table(root, "folder")] == ["00001D", "00003N"]


def test_missing_twins_raise_and_can_be_had_as_problems(layout):
    root = layout("msrs")
    (root / "train/ir/00003N.png").unlink()
    (root / "test/vi/00004N.png").rename(root / "test/vi/00005N.png")
    with pytest.raises(InputError, match=r"3 files.*00003N\.png.*no infrared twin"):
        pair_table(root, "msrs")
    pairs, problems = scan_pairs(root, "msrs", "train")
    assert [pair.name for pair in pairs] == ["00001D"]
    assert [(p.kind, p.name) for p in problems] == [("missing twin", "00003N")]


def test_name_listed_in_vain(layout):
    root = layout("mfnet")
    (root / "val.txt").write_text("00006N\n00099N\n")
    with pytest.raises(InputError, match=r"val\.txt' lists '00099N'"):
        pair_table(root, "mfnet", "val")
    assert len(scan_pairs(root, "mfnet", "val").pairs) == 1


def test_missing_label_is_no_problem(layout):
    root = layout("msrs")
    (root / "train/Segmentation_labels/00001D.png").unlink()
    assert [pair.label is None for pair in pair_table(root, "msrs", "train")] == [True, False]


def test_wrong_root_says_what_was_looked_for_and_found(layout):
    root = layout("fmb")
    with pytest.raises(InputError, match=r"not laid out as .*'msrs'.*SPLIT/vi.*found test/, train/.*'fmb'"):
        pair_table(root, "msrs")
    with pytest.raises(InputError, match="Did you mean"):
        pair_table(root.parent, "fmb")
    with pytest.raises(InputError, match="is not a folder"):
        pair_table(root / "nowhere", "fmb")


def test_unknown_split_and_data_set(layout):
    with pytest.raises(ConfigError, match="no split 'vall'; its splits: train, test"):
        pair_table(layout("msrs"), "msrs", "vall")
    with pytest.raises(ConfigError, match="its splits: test, test_night, train, val"):
        pair_table(layout("mfnet"), "mfnet", "nights")
    with pytest.raises(ConfigError, match="has no split"):
        pair_table(layout("msrs_flat"), "msrs", "test")
    with pytest.raises(ConfigError, match=r"unknown data set 'kaist'.*msrs, mfnet, fmb, pst900, folder"):
        pair_table(layout("msrs"), "kaist")


def test_empty_folders(tmp_path):
    for folder in ("vi", "ir"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match="holds no pair"):
        pair_table(tmp_path, "folder")


def test_list_images_passes_over_other_files(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG"]


@pytest.mark.parametrize(
    ("visible", "infrared"),
    [
        ("a.png", "a.jpg"),
        ("a_vis.png", "a_ir.png"),
        ("a-RGB.png", "a-thermal.png"),
        ("VIS01.bmp", "IR01.bmp"),
        ("visible_7.png", "infrared_7.png"),
        ("a.png", "a_ir.png"),
        ("Scene 3.png", "scene 3.PNG"),
    ],
)
def test_match_pairs(visible, infrared):
    pairs, problems = match_pairs([visible, "other.png"], ["other.tif", infrared])
    assert problems == []
    assert {(str(p.visible), str(p.infrared)) for p in pairs} == {(visible, infrared), ("other.png", "other.tif")}


def test_match_pairs_is_silent_about_nothing():
    pairs, problems = match_pairs(["a.png", "b.png", "c_vis.png", "c.png"], ["a.png", "d.png", "c_ir.png"])
    assert [pair.name for pair in pairs] == ["a"]
    assert sorted((p.kind, p.name) for p in problems) == [
        ("ambiguous name", "c"),
        ("missing twin", "b"),
        ("missing twin", "d"),
    ]


def test_equal_stems_on_one_side_are_ambiguous():
    pairs, problems = match_pairs(["a.png", "a.jpg", "b.png"], ["a.png", "b.png"])
    assert [pair.name for pair in pairs] == ["b"]
    assert [(p.kind, p.name) for p in problems] == [("ambiguous name", "a")]


def test_words_are_not_taken_for_marks():
    pairs, problems = match_pairs(["visitor.png"], ["itor.png"])
    assert pairs == []
    assert len(problems) == 2


def test_labels_follow_either_name():
    pairs, _ = match_pairs(["a_vis.png"], ["a_ir.png"], ["a.png"])
    assert pairs[0].label.name == "a.png"


@pytest.mark.parametrize("name", DATASETS)
def test_palette_and_classes_fit(name):
    info = dataset_info(name)
    assert info.name == name
    assert len(info.classes) == len(info.palette) == len(set(info.palette)) == len(set(info.classes))
    assert all(0 <= value <= 255 for colour in info.palette for value in colour)
    assert info.ignore == (255,)


def test_class_counts():
    counts = {name: len(info.classes) for name, info in DATASETS.items()}
    assert counts == {"msrs": 9, "mfnet": 9, "fmb": 15, "pst900": 5, "folder": 0}
    assert dataset_info("fmb").classes[0] == "background"
    assert dataset_info("msrs").palette is dataset_info("mfnet").palette
    assert dataset_info("msrs").classes.index("person") == 2


def test_every_data_set_is_described():
    assert all(f"(`{name}`)" in datasets.__doc__ for name in DATASETS)


def test_real_folders(shared_data):
    counts = {
        (name, dataset): len(pair_table(shared_data / name, dataset))
        for name, dataset in [
            ("MSRS-consensus", "msrs"),
            ("MSRS-unlabelled", "msrs"),
            ("RoadScene", "folder"),
            ("TNO", "folder"),
            ("LLVIP", "folder"),
            ("FMB-sample", "fmb"),
            ("VIFB", "folder"),
        ]
    }
    assert list(counts.values()) == [119, 60, 221, 42, 44, 7, 21]
    pair = read_pair(pair_table(shared_data / "MSRS-consensus", "msrs", "test")[0], classes=9)
    assert pair.visible.shape == (480, 640, 3)
    assert pair.label.shape == pair.infrared.shape == (480, 640)


def test_root_inside_a_data_set(layout):
    root = layout("msrs") / "train"
    assert [pair.split for pair in pair_table(root, "msrs")] == [None, None]
    shutil.rmtree(root / "ir")
    with pytest.raises(InputError, match="looked for"):
        pair_table(root, "msrs")
