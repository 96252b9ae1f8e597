"""What holds for every architecture, and for weights on disk."""

import json

import pytest
import torch
from safetensors.torch import save_file

import tectum
from tectum.errors import ConfigError, WeightsError

# Architectures small enough for every test, with a keyword that differs from its default.
SMALL = {"virmfs_b0": {"input_mean": 0.3}, "virmfs_b1": {"input_mean": 0.3}, "mafs_r18": {"gate": "first"}}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.slow
def test_saved_and_loaded_is_equal(name, tmp_path):
    torch.manual_seed(0)
    model = tectum.create_model(name, classes=5, **SMALL[name]).eval()
    model.metadata |= {"name": "mine", "class_names": list("abcde")}
    model.save(tmp_path, card="# mine\n")
    again = tectum.load(tmp_path)
    assert again.metadata == model.metadata
    assert again.arguments == model.arguments
    assert not again.training
    visible, infrared = torch.rand(1, 3, 32, 64), torch.rand(1, 1, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(visible, infrared).logits, model(visible, infrared).logits, atol=0, rtol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_half_precision_file_loads_as_float32(tmp_path):
    model = tectum.create_model("virmfs_b0").eval()
    model.save(tmp_path, dtype=torch.float16)
    again = tectum.load(tmp_path)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert (tmp_path / "model.safetensors").stat().st_size < 9.5e6
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_half_precision_file_keeps_what_it_cannot_hold_or_would_turn(tmp_path):
    model = tectum.create_model("virmfs_b0", selection=10)
    model.fusion_head.norm.running_var.fill_(1.8e5)  # beyond float16
    model.save(tmp_path, dtype=torch.float16)
    again = tectum.load(tmp_path)
    assert torch.equal(again.fusion_head.norm.running_var, model.fusion_head.norm.running_var)
    assert torch.equal(again.selection.detail.weight, model.selection.detail.weight)
    assert not torch.equal(again.fusion_head.fuse.weight, model.fusion_head.fuse.weight)


@pytest.mark.parametrize("name", SMALL)
def test_forward_and_backward_on_the_smallest_input(name):
    model = tectum.create_model(name, classes=2)
    output = model(torch.rand(2, 3, 32, 32), torch.rand(2, 1, 32, 32))
    assert output.fused.shape == (2, 1, 32, 32)
    assert output.logits.shape == (2, 2, 32, 32)
    (output.fused.mean() + output.logits.mean()).backward()


def test_a_role_that_names_no_module_is_an_error():
    model = tectum.create_model("virmfs_b0")
    assert "selection.lift" in tectum.create_model("virmfs_b0", selection=10).role("fusion")
    assert not any(name.startswith("selection") for name in model.role("fusion"))  # a network without one
    model.roles = model.roles | {"fusion": ("fusions", "blending_head"), "segmentation": ("selection",)}
    with pytest.raises(ValueError, match="has no 'blending_head'"):
        model.role("fusion")
    with pytest.raises(ValueError, match="the role segmentation of virmfs_b0 is empty"):
        model.role("segmentation")
    model.fusion_head = torch.nn.Identity()
    model.roles = model.roles | {"fusion": ("fusions", "fusion_head")}
    with pytest.raises(ValueError, match="'fusion_head', of the role fusion of virmfs_b0, has no parameters"):
        model.role("fusion")


def test_unknown_model_lists_the_options():
    with pytest.raises(ConfigError, match=r"no model 'virmfs_b9'; choose one of virmfs_b0"):
        tectum.create_model("virmfs_b9")


def test_unknown_weights_list_the_options():
    with pytest.raises(ConfigError, match="there are no weights 'nothing'; choose one of"):
        tectum.load("nothing")


def test_architecture_given_for_weights_says_so():
    with pytest.raises(ConfigError, match="architecture without weights"):
        tectum.load("virmfs_b0")


@pytest.fixture
def saved(tmp_path):
    tectum.create_model("virmfs_b0").save(tmp_path)
    return tmp_path


def test_saved_weights_are_as_readable_as_other_files(saved):
    (saved / "other").touch()
    assert (saved / "model.safetensors").stat().st_mode == (saved / "other").stat().st_mode


def test_truncated_weights_are_named(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"model\.safetensors' cannot be read as weights"):
        tectum.load(saved)


def test_missing_weights_are_named(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no weights file '.*model\.safetensors'"):
        tectum.load(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"architecture": "virmfs_b0"}'])
def test_damaged_config_is_named(saved, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json' is damaged"):
        tectum.load(saved)


def test_folder_without_config_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        tectum.load(tmp_path)


def test_left_over_and_missing_tensors_are_named(saved):
    save_file({"surplus": torch.zeros(1)}, saved / "model.safetensors")
    with pytest.raises(WeightsError, match=r"left over: surplus; missing: backbone"):
        tectum.load(saved)


def test_config_with_another_class_count_names_the_shape(saved):
    path = saved / "config.json"
    config = json.loads(path.read_text())
    config["arguments"]["classes"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"segmentation_head\.prediction\.\w+ is \(9"):
        tectum.load(saved)
