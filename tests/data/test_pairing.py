from pathlib import Path

import pytest

from tectum.data.pairing import find_pairs, source_images, unique_names
from tectum.errors import InputError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Empty files: nothing here reads pixels."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()

    return make


def names(paths):
    return [(pair.name, pair.visible.as_posix(), pair.infrared.as_posix()) for pair in paths]


def test_folders_are_paired_by_name_whatever_the_suffix(tree):
    tree("vi/b.png", "vi/a.PNG", "vi/notes.md", "vi/.hidden.png", "vi/deep/c.png", "ir/a.jpg", "ir/b.tif")
    pairs, problems = find_pairs("vi", "ir")
    assert names(pairs) == [("a", "vi/a.PNG", "ir/a.jpg"), ("b", "vi/b.png", "ir/b.tif")]
    assert problems == []


def test_missing_twins_of_both_sides_are_problems(tree):
    tree("vi/a.png", "vi/b.png", "ir/a.png", "ir/c.png")
    pairs, problems = find_pairs("vi", "ir")
    assert [pair.name for pair in pairs] == ["a"]
    assert sorted(problem.name for problem in problems) == ["b", "c"]
    assert "vi/b.png" in " ".join(problem.message for problem in problems)


def test_two_files_are_a_pair_whatever_their_names(tree):
    tree("v.png", "other.tif")
    assert names(find_pairs("v.png", "other.tif").pairs) == [("v", "v.png", "other.tif")]


def test_chosen_files_find_their_twins_in_a_folder(tree):
    tree("vi/a.png", "ir/a.png", "ir/b.png")
    pairs, problems = find_pairs("vi/a.png", "ir")
    assert names(pairs) == [("a", "vi/a.png", "ir/a.png")]
    assert problems == []
    assert [problem.name for problem in find_pairs("ir/b.png", "vi").problems] == ["b"]
    assert find_pairs("vi/*.png", "ir").problems == []
    assert [problem.name for problem in find_pairs("vi", "ir/*.png").problems] == ["b"]
    assert [problem.name for problem in find_pairs("vi/*", "ir/*").problems] == ["b"]


def test_globs(tree):
    tree("vi/a.png", "vi/b.jpg", "ir/a.png", "ir/b.png", "vi/c.txt")
    assert [pair.name for pair in find_pairs("vi/*", "ir/*.png").pairs] == ["a", "b"]
    assert [pair.name for pair in find_pairs("v?/[a].*", "ir/a*").pairs] == ["a"]
    assert len(source_images("**/*.png")) == 3


def test_names_that_repeat_are_paired_within_the_nearest_folders(tree):
    tree("day/vi/1.png", "day/ir/1.png", "night/vi/1.png", "night/ir/1.png", "night/vi/2.png", "night/ir/2.png")
    pairs, problems = find_pairs("*/vi/*.png", "*/ir/*.png")
    assert names(pairs) == [
        ("day_vi_1", "day/vi/1.png", "day/ir/1.png"),
        ("night_vi_1", "night/vi/1.png", "night/ir/1.png"),
        ("2", "night/vi/2.png", "night/ir/2.png"),
    ]
    assert problems == []


def test_names_that_cannot_be_told_apart_are_problems(tree):
    tree("vi/1.png", "vi/1.jpg", "ir/1.png", "vi/2.png", "ir/2.png")
    pairs, problems = find_pairs("vi", "ir")
    assert [pair.name for pair in pairs] == ["2"]
    assert any("'vi/1.jpg'" in problem.message and "'vi/1.png'" in problem.message for problem in problems)


def test_list_files_are_paired_line_by_line(tree, tmp_path):
    tree("lists/a/1.png", "lists/b/1.png", "lists/x.png", "lists/y.png")
    Path("lists/v.txt").write_text("# visible\na/1.png\n\nb/1.png\n", encoding="utf-8")
    Path("lists/i.txt").write_text(f"x.png\n{tmp_path / 'lists' / 'y.png'}\n", encoding="utf-8")
    pairs, problems = find_pairs("lists/v.txt", "lists/i.txt")
    assert [pair.name for pair in pairs] == ["a_1", "b_1"]
    assert pairs[0].infrared.samefile("lists/x.png")
    assert pairs[1].infrared.samefile("lists/y.png")
    assert problems == []


def test_list_files_of_unequal_length(tree):
    Path("v.txt").write_text("1.png\n2.png\n", encoding="utf-8")
    Path("i.txt").write_text("1.png\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"'v.txt' names 2 images and 'i.txt' 1"):
        find_pairs("v.txt", "i.txt")


def test_list_file_and_folder_are_paired_by_name(tree):
    tree("vi/a.png", "vi/b.png", "ir/a.png", "ir/b.png")
    Path("v.txt").write_text("vi/b.png\n", encoding="utf-8")
    pairs, problems = find_pairs("v.txt", "ir")
    assert names(pairs) == [("b", "vi/b.png", "ir/b.png")]
    assert problems == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", "'absent' does not exist"),
        ("empty", "'empty' holds no images.*subfolders are not searched"),
        ("vi/*.bmp", "no image matches"),
        ("empty.txt", "names no images"),
        ("binary.txt", "not UTF-8"),
    ],
)
def test_sources_without_images(tree, source, message):
    tree("vi/a.png", "empty/readme", "empty.txt")
    Path("binary.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=message):
        source_images(source)


def test_unique_names():
    files = ["a/1.png", "b/1.png", "b/2.png", "c/3.png", "c/3.jpg", "x/y/4.png", "z/y/4.png", "q/5.png", "q/5.png"]
    assert unique_names([Path(file) for file in files]) == [
        "a_1", "b_1", "2", "3_png", "3_jpg", "x_y_4", "z_y_4", "5", "5-2",
    ]  # fmt: skip


def test_unique_names_where_case_is_ignored():
    assert unique_names([Path("a/X.png"), Path("b/x.png")]) == ["a_X", "b_x"]
