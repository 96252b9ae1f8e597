import json

import pytest

from tectum.recipes.reading import CONFIGS
from tectum.scenes import write_scenes

CONFIG = CONFIGS / "virmfs_b0.yaml"
QUICK = (
    "data.augmentation.crop=64", "data.workers=0", "run.epochs=1", "run.batch=2", "run.monitor=qabf",
    "run.validate_every=1", "data.holdout=0.3", "run.precision=float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 6, size=(72, 96))
    return root


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_packaged_config_by_name_and_a_resume_that_knows_its_recipe(scenes, tmp_path, run_tectum, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_tectum("train", "virmfs_b0", f"data.train.0.root={scenes}", *QUICK)
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "virmfs_b0"
    assert (run / "last" / "model.safetensors").is_file()
    result = run_tectum("train", "--resume", run)
    assert result.exit_code == 0, result.output


def test_several_configs_go_over_one_another(tmp_path, monkeypatch, run_tectum):
    monkeypatch.chdir(tmp_path)
    result = run_tectum("train", "virmfs_b0_paper", "datasets/fmb")
    assert result.exit_code == 1
    assert "data/FMB" in result.output  # which is not there


def test_list(run_tectum):
    result = run_tectum("train", "--list")
    assert result.exit_code == 0
    for text in ("virmfs_lite0_msrs", "mafs_pretrain", "datasets/fmb", "MAFS as published, stage I"):
        assert text in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --config FILE for a new run or --resume DIR"),
        (("virmfs_b7",), "there is no config file 'virmfs_b7'"),
        (("datasets/fmb",), "config 'datasets/fmb' names no recipe: add the key 'recipe' with one of virmfs"),
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
        arguments = (*arguments, f"data.train.0.root={scenes}", "run.batch=2")
    result = run_tectum("train", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_missing_data_is_named(tmp_path, monkeypatch, run_tectum):
    monkeypatch.chdir(tmp_path)
    result = run_tectum("train", "virmfs", "--config", CONFIG)
    assert result.exit_code == 1
    assert "data/MSRS" in result.output
