import pytest
from safetensors.torch import load_file
from transformers import SegformerConfig, SegformerModel

from tectum import list_models, list_weights


@pytest.mark.slow
def test_list(run_tectum):
    result = run_tectum("models")
    assert result.exit_code == 0
    for name in (*list_models(), *list_weights()):
        assert name in result.stdout
    assert "4.3" in result.stdout  # million parameters of virmfs_b0


def test_convert(tmp_path, run_tectum):
    config = SegformerConfig(
        hidden_sizes=[32, 64, 160, 256], depths=[2, 2, 2, 2], num_attention_heads=[1, 2, 5, 8], sr_ratios=[8, 4, 2, 1]
    )
    SegformerModel(config).save_pretrained(tmp_path / "mit-b0")
    result = run_tectum("models", "convert", tmp_path / "mit-b0", "--out", tmp_path / "new" / "b0.safetensors")
    assert result.exit_code == 0, result.output
    assert "MiT-b0" in result.stdout
    assert sum(value.numel() for value in load_file(tmp_path / "new" / "b0.safetensors").values()) > 3e6


@pytest.mark.parametrize(("source", "message"), [("absent", "'absent'"), (".", "holds neither")])
def test_convert_of_something_else(source, message, tmp_path, run_tectum, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_tectum("models", "convert", source, "--out", "b0.safetensors")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "b0.safetensors").exists()
