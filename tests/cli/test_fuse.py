import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tectum.predict import Predictor, writing

SIZES = [(40, 56), (64, 32), (33, 47)]


@pytest.fixture
def pairs(tmp_path, write_pair):
    for index, size in enumerate(SIZES):
        write_pair(tmp_path, f"{index}.png", size, seed=index)
    return tmp_path


def read(path: Path):
    with Image.open(path) as image:
        return image.mode, np.asarray(image)


@pytest.mark.slow
def test_folders(pairs, weights, run_tectum):
    result = run_tectum(
        "fuse", "--visible", pairs / "vi", "--infrared", pairs / "ir", "--out", pairs / "out", "--model", weights,
        "--save", "fused,labels,overlay,panel", "--batch", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "fused 3 of 3 pairs with random" in result.stdout
    assert str(pairs / "out" / "fused") in result.stdout
    predictor = Predictor(weights)
    for index, size in enumerate(SIZES):
        expected = predictor(visible=pairs / "vi" / f"{index}.png", infrared=pairs / "ir" / f"{index}.png")
        mode, fused = read(pairs / "out" / "fused" / f"{index}.png")
        assert mode == "RGB"
        assert np.abs(fused.astype(int) - expected.fused).max() <= 1
        mode, labels = read(pairs / "out" / "labels" / f"{index}.png")
        assert mode == "L"
        assert (labels == expected.labels).mean() > 0.999
        assert read(pairs / "out" / "overlay" / f"{index}.png")[1].shape == (*size, 3)
        assert read(pairs / "out" / "panel" / f"{index}.png")[1].shape[1] == 4 * size[1] + 12
    assert sorted(path.name for path in (pairs / "out").iterdir()) == ["fused", "labels", "overlay", "panel"]


def test_only_what_is_asked_for_is_written(pairs, weights, run_tectum):
    out = pairs / "new" / "out"
    one = ("--visible", pairs / "vi" / "1.png", "--infrared", pairs / "ir" / "2.png")  # of unequal size
    assert run_tectum("fuse", *one, "--out", out, "--model", weights).exit_code == 1
    assert list((out / "fused").iterdir()) == []  # nor a half-written file
    one = ("--visible", pairs / "vi" / "1.png", "--infrared", pairs / "ir" / "1.png")
    assert run_tectum("fuse", *one, "--out", out, "--model", weights, "--save", "labels").exit_code == 0
    assert [path.name for path in (out / "labels").iterdir()] == ["1.png"]
    assert list((out / "fused").iterdir()) == []


def test_existing_results_are_replaced_and_others_kept(pairs, weights, run_tectum):
    fused = pairs / "out" / "fused"
    fused.mkdir(parents=True)
    (fused / "0.png").write_text("old")
    (fused / "mine.png").write_text("mine")
    arguments = ("fuse", "--visible", pairs / "vi", "--infrared", pairs / "ir", "--out", pairs / "out")
    assert run_tectum(*arguments, "--model", weights).exit_code == 0
    assert read(fused / "0.png")[1].shape == (40, 56, 3)
    assert (fused / "mine.png").read_text() == "mine"
    assert len(list(fused.iterdir())) == 4


def test_lists_and_globs_with_repeated_names(tmp_path, weights, run_tectum, write_pair):
    for folder in ("day", "night"):
        write_pair(tmp_path / folder, "1.png")
    (tmp_path / "v.txt").write_text("night/vi/1.png\nday/vi/1.png\n")
    (tmp_path / "i.txt").write_text("night/ir/1.png\nday/ir/1.png\n")
    sources = {
        "list": (tmp_path / "v.txt", tmp_path / "i.txt"),
        "glob": (tmp_path / "*" / "vi" / "*.png", tmp_path / "*" / "ir" / "*.png"),
    }
    for kind, (visible, infrared) in sources.items():
        out = tmp_path / kind
        result = run_tectum("fuse", "--visible", visible, "--infrared", infrared, "--out", out, "--model", weights)
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in (out / "fused").iterdir()) == ["day_vi_1.png", "night_vi_1.png"]


def test_json_says_what_was_done(pairs, weights, run_tectum):
    (pairs / "vi" / "lonely.png").write_bytes(b"")
    (pairs / "ir" / "1.png").write_bytes(b"")
    report = pairs / "reports" / "fuse.json"
    result = run_tectum(
        "fuse", "--visible", pairs / "vi", "--infrared", pairs / "ir", "--out", pairs / "out", "--model", weights,
        "--json", report,
    )  # fmt: skip
    assert result.exit_code == 1
    content = json.loads(report.read_text())
    assert content["model"] == "random"
    assert [row["name"] for row in content["results"]] == ["0", "2"]
    assert all(Path(row[item]).is_file() for row in content["results"] for item in ("visible", "fused", "labels"))
    assert sorted(problem["name"] for problem in content["problems"]) == ["1", "lonely"]
    assert content["pairs_per_second"] > 0


def test_infrared_range(tmp_path, weights, run_tectum, write_pair):
    visible, infrared = write_pair(tmp_path, "a.png")
    counts = np.asarray(Image.open(infrared)).astype(np.uint16) * 8 + 2000
    Image.fromarray(counts).save(tmp_path / "counts.png")
    common = ("fuse", "--visible", visible, "--model", weights, "--save", "fused")
    for name, source, more in (
        ("plain", infrared, ()),
        ("counts", tmp_path / "counts.png", ("--infrared-range", 2000, 4040)),
    ):
        result = run_tectum(*common, "--infrared", source, "--out", tmp_path / name, *more)
        assert result.exit_code == 0, result.output
    plain, scaled = (read(tmp_path / name / "fused" / "a.png")[1].astype(int) for name in ("plain", "counts"))
    assert np.abs(plain - scaled).max() <= 1


@pytest.mark.slow
def test_tiles(tmp_path, weights, run_tectum, write_pair):
    visible, infrared = write_pair(tmp_path, "a.png", (40, 200))
    common = ("fuse", "--visible", visible, "--infrared", infrared, "--out", tmp_path, "--model", weights)
    for tile in ("off", 128):
        assert run_tectum(*common, "--tile", tile).exit_code == 0
        expected = Predictor(weights, tile=tile)(visible=visible, infrared=infrared)
        fused = read(tmp_path / "fused" / "a.png")[1]
        assert np.abs(fused.astype(int) - expected.fused).max() <= 1
    for tile in ("large", "12.5", "100", "-1"):
        result = run_tectum(*common, "--tile", tile)
        assert result.exit_code == 2
        assert "auto, off" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_peak_memory_of_an_ultra_hd_pair(tmp_path, weights, write_pair):
    visible, infrared = write_pair(tmp_path, "a.png", (2160, 3840))
    code = """
import sys
from tectum.cli import app
try:
    app(sys.argv[1:])
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    arguments = (
        "fuse",
        "--visible",
        visible,
        "--infrared",
        infrared,
        "--out",
        tmp_path,
        "--model",
        weights,
        "--backend",
        "torch",
        "--device",
        "cpu",
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "fused 1 of 1 pairs" in run.stdout
    kibibytes = int(run.stdout.split("VmHWM:")[1].split()[0])
    assert kibibytes * 1024 < 2.5e9
    assert read(tmp_path / "labels" / "a.png")[1].shape == (2160, 3840)


def test_suspicious_inputs_are_reported_and_fused(tmp_path, weights, run_tectum, write_pair):
    visible, infrared = write_pair(tmp_path, "a.png")
    Image.fromarray(np.asarray(Image.open(infrared)).astype(np.uint16)).save(infrared)  # 16 bit, but dark
    result = run_tectum("fuse", "--visible", visible, "--infrared", infrared, "--out", tmp_path, "--model", weights)
    assert result.exit_code == 0
    assert "warning: " in result.stderr
    assert str(infrared) in result.stderr


def test_inputs_are_never_replaced(pairs, weights, run_tectum):
    os.rename(pairs / "vi", pairs / "fused")
    before = {file: file.read_bytes() for file in (pairs / "fused").iterdir()}
    result = run_tectum(
        "fuse", "--visible", pairs / "fused", "--infrared", pairs / "ir", "--out", pairs, "--model", weights
    )
    assert result.exit_code == 2
    assert "is an input and would be replaced" in result.stderr
    assert {file: file.read_bytes() for file in (pairs / "fused").iterdir()} == before


@pytest.mark.slow
def test_a_result_that_cannot_be_written_is_listed(pairs, weights, run_tectum):
    (pairs / "out" / "fused" / "1.png").mkdir(parents=True)  # a folder in the way
    result = run_tectum(
        "fuse", "--visible", pairs / "vi", "--infrared", pairs / "ir", "--out", pairs / "out", "--model", weights
    )
    assert result.exit_code == 1
    assert "fused 2 of 3 pairs" in result.stdout
    assert "could not be written" in result.stderr


@pytest.mark.slow
def test_interrupted(pairs, weights, run_tectum, monkeypatch):
    done = []

    def interrupt(predictor, one, out, items):
        done.append(one)
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "_write", interrupt)
    result = run_tectum(
        "fuse", "--visible", pairs / "vi", "--infrared", pairs / "ir", "--out", pairs / "out", "--model", weights
    )
    assert done
    assert result.exit_code == 130
    assert result.stderr.strip().count("\n") == 0
    assert "interrupted" in result.stderr


def damage(folder: Path, name: str, kind: int):
    """Break one of two good files in the kind-th of ten ways."""
    visible, infrared = (folder / side / f"{name}.png" for side in ("vi", "ir"))
    if kind == 0:
        infrared.unlink()
    elif kind == 1:
        visible.unlink()
    elif kind == 2:
        visible.write_bytes(b"")
    elif kind == 3:
        infrared.write_bytes(infrared.read_bytes()[:200])
    elif kind == 4:
        visible.write_text("this is no image")
    elif kind == 5:
        Image.new("L", (32, 31)).save(infrared)
    elif kind == 6:
        for file, mode in ((visible, "RGB"), (infrared, "L")):
            Image.new(mode, (12, 12)).save(file)
    elif kind == 7:
        infrared.unlink()
        Image.fromarray(np.full((32, 32), np.nan, np.float32)).save(infrared.with_suffix(".tif"))
    elif kind == 8:
        infrared.unlink()
        Image.fromarray(np.full((32, 32), 300.0, np.float32)).save(infrared.with_suffix(".tif"))  # kelvin
    else:
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 256, (32, 32, 4), np.uint8)).save(infrared)  # MFNet's packed file


@pytest.mark.slow
def test_a_thousand_pairs_of_which_ten_are_broken(tmp_path, weights, run_tectum, write_pair):
    for index in range(1000):
        write_pair(tmp_path, f"{index:04d}.png", seed=index)
    broken = [f"{99 * (index + 1):04d}" for index in range(10)]
    for kind, name in enumerate(broken):
        damage(tmp_path, name, kind)
    result = run_tectum(
        "fuse", "--visible", tmp_path / "vi", "--infrared", tmp_path / "ir", "--out", tmp_path / "out",
        "--model", weights, "--batch", 32,
    )  # fmt: skip
    assert result.exit_code == 1
    assert "fused 990 of 1000 pairs" in result.stdout
    good = sorted({f"{index:04d}.png" for index in range(1000)} - {f"{name}.png" for name in broken})
    for item in ("fused", "labels"):
        assert sorted(path.name for path in (tmp_path / "out" / item).iterdir()) == good
    assert "10 without a result" in result.stderr
    rows = [line.split("│")[1].strip() for line in result.stderr.splitlines() if line.startswith("│")]
    assert sorted(row for row in rows if row) == broken


def test_confidence_and_unknown_pixels(pairs, weights, run_tectum):
    one = ("--visible", pairs / "vi" / "1.png", "--infrared", pairs / "ir" / "1.png", "--model", weights)
    expected = Predictor(weights)(visible=one[1], infrared=one[3])
    least = float(np.median(expected.confidence))
    result = run_tectum("fuse", *one, "--out", pairs / "out", "--save", "labels,confidence", "--unknown", least)
    assert result.exit_code == 0, result.output
    mode, confidence = read(pairs / "out" / "confidence" / "1.png")
    assert mode == "L"
    assert np.abs(confidence / 255 - expected.confidence).max() < 0.01
    _, labels = read(pairs / "out" / "labels" / "1.png")
    assert 0.3 < (labels == 255).mean() < 0.7
    known = labels != 255
    assert (labels[known] == expected.labels[known]).mean() > 0.99
    result = run_tectum("fuse", *one, "--out", pairs / "out", "--unknown", 2)
    assert result.exit_code == 2
    assert "probability from 0 to 1" in result.stderr
