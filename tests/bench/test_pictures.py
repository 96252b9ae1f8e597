import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

import tectum
from tectum.recipes.pairs import hash_fraction
from tectum.scenes import write_scenes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 4, size=(96, 128))
    return folder / "train"


@pytest.mark.filterwarnings("ignore:.*is constant")  # the lost camera
def test_pictures_are_scored_in_weather_and_with_random_weights(scenes, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    tectum.create_model("virmfs_lite0", band_fusion=8).save(tmp_path / "network")
    folders = ",".join(str(scenes / name) for name in ("vi", "ir", "Segmentation_labels"))
    arguments = [f"scenes={folders}", "--model", str(tmp_path / "network"), "--random", "--weather", "scenes"]
    arguments += ["--kinds", "fog 0.2,glare", "--lost", "scenes", "--json", str(tmp_path / "scores.json")]
    monkeypatch.setattr(sys, "argv", ["pictures.py", *arguments])
    script("pictures").main()
    report = json.loads((tmp_path / "scores.json").read_text())
    assert list(report) == ["scenes", "scenes, fog 0.2", "scenes, glare"]
    network = str(tmp_path / "network")
    methods = [network, f"{network}, random weights", "maximum", "Laplacian pyramid", "guided filter"]
    assert all(list(rows) == methods for rows in report.values())
    assert report["scenes"]["maximum"]["seam"] < 0.01
    # In fog the maximum is the fog: what it shares with the sources changes.
    assert report["scenes, fog 0.2"]["maximum"]["qabf"] != report["scenes"]["maximum"]["qabf"]
    assert "gradient energy kept {'visible lost':" in capsys.readouterr().out


def test_held_out_pairs_are_those_of_the_recipes(scenes, tmp_path, monkeypatch):
    held_out = script("held_out")
    monkeypatch.setattr(sys, "argv", ["held_out.py", str(scenes), str(tmp_path), "--share", "0.5"])
    held_out.main()
    sides = {side: {file.stem for file in (tmp_path / side / "vi").glob("*")} for side in ("train", "held")}
    assert len(sides["train"] | sides["held"]) == 4
    assert not sides["train"] & sides["held"]
    assert all((hash_fraction(name) < 0.5) == (name in sides["held"]) for name in sides["train"] | sides["held"])
