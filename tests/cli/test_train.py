import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tectum.cli import app
from tectum.data.synthetic import write_scenes

CONFIG = Path(__file__).parents[2] / "configs" / "virmfs_b0.yaml"
QUICK = (
    "data.augmentation.crop=64", "data.workers=0", "run.epochs=1", "run.batch=2", "run.monitor=qabf",
    "run.validate_every=1", "data.holdout=0.3", "run.precision=float32",
)  # fmt: skip


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 6, size=(72, 96))
    return root


def test_trains_and_resumes(scenes, tmp_path):
    root = f"data.train.0.root={scenes}"
    code, text = run("train", "virmfs", "--config", CONFIG, "--out", tmp_path / "run", root, *QUICK)
    assert code == 0, text
    assert (tmp_path / "run" / "last" / "model.safetensors").is_file()
    code, text = run("train", "virmfs", "--config", CONFIG, "--out", tmp_path / "run", root, *QUICK)
    assert code == 2
    assert "holds a run already: go on with --resume" in text
    code, text = run("train", "virmfs", "--resume", tmp_path / "run")
    assert code == 0, text
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
def test_wrong_usage_is_one_line_and_exit_code_2(scenes, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    if "--config" in arguments:
        arguments = (*arguments, f"data.train.0.root={scenes}")
    code, text = run("train", *arguments)
    assert code == 2, text
    assert message in text


def test_missing_data_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text = run("train", "virmfs", "--config", CONFIG)
    assert code == 1
    assert "data/MSRS" in text
