import shutil

import numpy as np
import yaml

from tectum.data.datasets import pair_table
from tectum.data.pair import read_pair
from tectum.models import create_model
from tectum.recipes.catalogue import plan
from tectum.recipes.packing import pack
from tectum.recipes.pairs import training_tables


def settings(scenes, *more):
    return [
        f"data.train=[{{dataset: msrs, root: '{scenes}', split: train, repeat: 2, boxes: true}}]",
        "data.holdout=0.4",
        "model.arguments.imagenet=false",
        "run.batch=2",
        *more,
    ]


def test_a_packed_training_has_the_same_pairs_on_the_same_sides(scenes, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    shutil.copytree(scenes, tmp_path / "own", dirs_exist_ok=True)
    (tmp_path / "own" / "train" / "boxes").mkdir()
    first = sorted((tmp_path / "own" / "train" / "vi").iterdir())[0].stem
    (tmp_path / "own" / "train" / "boxes" / f"{first}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    create_model("virmfs_lite0", classes=9).save(tmp_path / "start")
    job = plan(["virmfs_lite0"], settings(tmp_path / "own", f"model.weights={tmp_path / 'start'}"))
    before = training_tables(job.config.data, job.config.run)
    packed = pack(job.config, tmp_path / "packed")
    assert len(packed) == 6

    monkeypatch.chdir(tmp_path / "packed")
    shutil.rmtree(tmp_path / "own" / "train" / "vi")  # nothing outside is needed
    config = plan(["train.yaml"]).config
    after = training_tables(config.data, config.run)
    for old, new in zip(before, after, strict=True):
        assert old
        assert [(pair.name, pair.use) for pair in old] == [(pair.name, pair.use) for pair in new]
    assert config.model.weights == "weights0"
    assert (tmp_path / "packed" / "weights0" / "model.safetensors").is_file()
    assert yaml.safe_load((tmp_path / "packed" / "train.yaml").read_text())["data"]["train"][0]["root"] == "0"
    boxed = [pair for side in after for pair in side if pair.name == first]
    assert boxed[0].boxes.read_text() == "0 0.5 0.5 0.1 0.1\n"


def test_packed_pictures_are_nearly_the_same_and_labels_quite(scenes, tmp_path):
    job = plan(["virmfs_lite0"], settings(scenes))
    packed = pack(job.config, tmp_path)
    for old, new in zip(packed, pair_table(tmp_path / "0", "msrs", "train"), strict=True):
        first, second = read_pair(old), read_pair(new)
        assert np.abs(first.visible - second.visible).mean() < 0.02
        assert np.abs(first.infrared - second.infrared).mean() < 0.02
        assert np.array_equal(first.label, second.label)
