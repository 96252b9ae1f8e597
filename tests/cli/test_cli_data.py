import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tectum.cli import app

RNG = np.random.default_rng(5)


def write(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def msrs(tmp_path):
    root = tmp_path / "MSRS"
    for split, name in [("train", "00001D"), ("train", "00003N"), ("test", "00004N")]:
        write(RNG.integers(0, 256, (8, 10, 3), dtype=np.uint8), root / split / "vi" / f"{name}.png")
        write(RNG.integers(0, 256, (8, 10), dtype=np.uint8), root / split / "ir" / f"{name}.png")
        write(RNG.integers(0, 9, (8, 10), dtype=np.uint8), root / split / "Segmentation_labels" / f"{name}.png")
    return root


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_check_of_a_sound_data_set(msrs, tmp_path):
    result = run("check", msrs, "--dataset", "msrs", "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    assert "no problems" in result.output
    assert "train 2, test 1" in result.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["pairs"] == 3
    assert report["ok"]


def test_check_lists_problems_and_exits_with_1(msrs, tmp_path):
    (msrs / "train/ir/00003N.png").unlink()
    write(np.full((8, 10), 12, np.uint8), msrs / "test/Segmentation_labels/00004N.png")
    result = run("check", msrs, "--dataset", "msrs", "--json", tmp_path / "r.json")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "missing twin" in result.output
    problems = json.loads((tmp_path / "r.json").read_text())["problems"]
    assert [(p["kind"], p["name"]) for p in problems] == [("missing twin", "00003N"), ("unknown ids", "00004N")]
    assert "12" in problems[1]["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("check", "{root}", "--dataset", "kaist"), 2, "unknown data set 'kaist'"),
        (("check", "{root}", "--dataset", "msrs", "--split", "vall"), 2, "no split 'vall'"),
        (("check", "{root}", "--dataset", "fmb"), 0, "3 pairs"),
        (("check", "{root}/nowhere"), 1, "is not a folder"),
        (("check", "{root}/train/vi", "--dataset", "msrs"), 1, "is not laid out as"),
        (("stats", "{root}", "--dataset", "pst900"), 0, "3 pairs"),
        (("convert", "mfnet", "{root}", "--out", "{root}/out"), 1, "nothing to split"),
        (("convert", "ids", "{root}/train/vi", "--out", "{root}/train/vi", "--dataset", "fmb"), 2, "originals"),
        (("convert", "thermal", "{root}/x.png", "--out", "{root}/out", "--infrared-range", "5", "5"), 2, "low < high"),
        (("convert", "ids", "{root}/x.png", "--out", "{root}/out", "--dataset", "fmb"), 1, "does not exist"),
    ],
)
def test_wrong_usage_is_one_sentence(msrs, arguments, code, words):
    result = run(*(argument.format(root=msrs) for argument in arguments))
    assert result.exit_code == code, result.output
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_stats(msrs, tmp_path):
    result = run("stats", msrs, "--dataset", "msrs", "--split", "train", "--json", tmp_path / "s.json")
    assert result.exit_code == 0, result.output
    assert "colour cone" in result.output
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["pairs"] == 2
    assert sum(row["pixels"] for row in stats["classes"]) == 160
    assert {"enet", "median_frequency"} <= stats["classes"][0].keys()


def test_stats_with_a_broken_pair(msrs):
    (msrs / "train/vi/00001D.png").write_bytes(b"")
    result = run("stats", msrs, "--dataset", "msrs")
    assert result.exit_code == 1
    assert "2 pairs" in result.output
    assert "0 bytes" in result.output


def test_convert_mfnet(tmp_path):
    root = tmp_path / "MFNet"
    packed = RNG.integers(0, 256, (8, 10, 4), dtype=np.uint8)
    write(packed, root / "images/00001D.png")
    write(np.zeros((8, 10), np.uint8), root / "labels/00001D.png")
    (root / "train.txt").write_text("00001D\n")
    result = run("convert", "mfnet", root, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "3 files" in result.output
    assert np.array_equal(np.array(Image.open(tmp_path / "out/train/vi/00001D.png")), packed[..., :3])
    assert np.array_equal(np.array(Image.open(tmp_path / "out/train/ir/00001D.png")), packed[..., 3])


def test_convert_colours_ids_and_thermal(tmp_path):
    colours = write(np.array([[(0, 0, 255), (255, 255, 255)]], np.uint8), tmp_path / "in/a.png")
    for extra, expected in (((), [[3, 4]]), (("--bgr",), [[1, 4]])):
        result = run("convert", "colours", colours, "--out", tmp_path / "ids", "--dataset", "pst900", *extra)
        assert result.exit_code == 0, result.output
        assert np.array(Image.open(tmp_path / "ids/a.png")).tolist() == expected
    fake = write(np.array([[15, 3]], np.uint8), tmp_path / "fake/b.png")
    result = run("convert", "ids", fake, "--out", tmp_path / "ids", "--dataset", "fmb")
    assert "1 pixels changed" in result.output
    assert np.array(Image.open(tmp_path / "ids/b.png")).tolist() == [[255, 3]]
    raw = write(np.array([[7000, 9000]], np.uint16), tmp_path / "raw/c.png")
    result = run("convert", "thermal", raw, "--out", tmp_path / "grey", "--infrared-range", "7000", "9000")
    assert result.exit_code == 0, result.output
    assert np.array(Image.open(tmp_path / "grey/c.png")).tolist() == [[0, 255]]


def test_a_batch_goes_on_past_bad_files(tmp_path):
    for name in ("a", "b", "c"):
        write(np.zeros((4, 4), np.uint8), tmp_path / "in" / f"{name}.png")
    (tmp_path / "in/b.png").write_bytes(b"junk")
    result = run("convert", "ids", tmp_path / "in", "--out", tmp_path / "out", "--dataset", "fmb")
    assert result.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    assert "b.png" in result.output
