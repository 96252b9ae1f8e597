import json
from pathlib import Path

import pytest

from tectum.data.synthetic import write_scenes

CONFIG = Path(__file__).parents[2] / "configs" / "virmfs_b0.yaml"
QUICK = (
    "data.augmentation.crop=64", "data.workers=0", "run.epochs=1", "run.batch=2", "run.monitor=qabf",
    "run.validate_every=1", "data.holdout=0.3", "run.precision=float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 6, size=(72, 96))
    return root


def test_trains_and_resumes(scenes, tmp_path, run_tectum):
    root = f"data.train.0.root={scenes}"
    result = run_tectum("train", "virmfs", "--config", CONFIG, "--out", tmp_path / "run", root, *QUICK)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "last" / "model.safetensors").is_file()
    result = run_tectum("train", "virmfs", "--config", CONFIG, "--out", tmp_path / "run", root, *QUICK)
    assert result.exit_code == 2
    assert "holds a run already: go on with --resume" in result.output
    result = run_tectum("train", "virmfs", "--resume", tmp_path / "run")
    assert result.exit_code == 0, result.output
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("virmfs",), "give either --config FILE for a new run or --resume DIR"),
        (("unknown", "--config", CONFIG), "there is no recipe 'unknown'; choose one of virmfs"),
        (("virmfs", "--config", "none.yaml"), "there is no config file 'none.yaml'"),
        (("virmfs", "--config", CONFIG, "run.epoch=3"), "unknown key 'run.epoch'; did you mean 'epochs'?"),
        (("virmfs", "--config", CONFIG, "model.name=virmfs_b9"), "there is no model 'virmfs_b9'"),
        (("virmfs", "--config", CONFIG, "data.classes_of=cityscapes"), "unknown data set 'cityscapes'"),
        (("virmfs", "--resume", "nowhere"), "'nowhere' is no run to resume"),
        (("virmfs", "--resume", "nowhere", "run.epochs=3"), "a resumed run keeps its config"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(scenes, tmp_path, monkeypatch, run_tectum, arguments, message):
    monkeypatch.chdir(tmp_path)
    if "--config" in arguments:
        arguments = (*arguments, f"data.train.0.root={scenes}")
    result = run_tectum("train", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_missing_data_is_named(tmp_path, monkeypatch, run_tectum):
    monkeypatch.chdir(tmp_path)
    result = run_tectum("train", "virmfs", "--config", CONFIG)
    assert result.exit_code == 1
    assert "data/MSRS" in result.output
