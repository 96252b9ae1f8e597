"""Shipped weights: complete, documented, and as good as they say."""

import hashlib
import json

import pytest
import torch
from typer.testing import CliRunner

import tectum
from tectum.cli import app
from tectum.weights import resolve, shipped_folder

NAMES = tectum.list_weights()
LARGEST = 60e6  # bytes: a wheel with all sets should stay below 100 MB
LEAST = {
    "virmfs_lite0_street": {"qabf": 0.7, "mi": 5.0, "vif": 1.06, "sf": 11.0, "ag": 3.4, "miou": 0.5},
    "virmfs_b0_msrs": {"qabf": 0.66, "mi": 3.5, "vif": 0.95},
    "mafs_r18_msrs": {},
}
"""What the scores of each set must not fall below, whatever its card says."""


def test_the_default_of_every_command_is_shipped():
    assert tectum.DEFAULT_WEIGHTS in NAMES


def test_the_name_of_a_replaced_set_leads_to_its_successor_and_says_so():
    with pytest.warns(FutureWarning, match="virmfs_lite0_msrs have been replaced: these are virmfs_lite0_street"):
        source = resolve("virmfs_lite0_msrs")
    assert source == resolve("virmfs_lite0_street")


@pytest.mark.parametrize("name", NAMES)
def test_card_states_what_must_be_known(name):
    folder = shipped_folder(name)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() in card
    for heading in ("## Data", "## Licence", "## Training", "## Numbers", "## Limits"):
        assert heading in card
    assert (folder / "model.safetensors").stat().st_size < LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_gives_finite_output(name):
    model = tectum.load(name)
    assert model.metadata["name"] == name
    assert len(model.metadata["class_names"]) == len(model.metadata["palette"]) == model.classes
    with torch.no_grad():
        output = model(torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64))
    assert torch.isfinite(output.fused).all()
    assert torch.isfinite(output.logits).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_the_card_come_out_again(name, shared_data, tmp_path):
    """`scores` in the weights' config are what `tectum eval` prints for MSRS-consensus/test."""
    arguments = ["eval", "--model", name, "--data", str(shared_data / "MSRS-consensus"), "--dataset", "msrs"]
    result = CliRunner().invoke(app, [*arguments, "--split", "test", "--json", str(tmp_path / "scores.json")])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "scores.json").read_text())
    measured = report["fusion"]["mean"] | {"miou": report["segmentation"]["miou_with_class_0"]}
    stated = tectum.load(name).metadata["scores"]
    assert stated == pytest.approx({key: measured[key] for key in stated}, rel=0.01)
    for key, least in LEAST[name].items():
        assert measured[key] > least, key
