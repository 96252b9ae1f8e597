import os

import pytest
import torch
from golden import state_dict

import tectum
from tectum.errors import ConfigError, WeightsError
from tectum.models.backbones.mit_weights import convert_mit


@pytest.fixture
def authors(golden):
    return state_dict(golden, "virmfs_b0")


@pytest.mark.parametrize("classes", [9, 15, 17])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("nested", [None, "state_dict"])
def test_reads_the_published_variants(authors, tmp_path, classes, prefix, nested):
    for key in ("weight", "bias"):
        tensor = authors[f"decode_head.linear_pred.{key}"]
        authors[f"decode_head.linear_pred.{key}"] = tensor.repeat(2, *[1] * (tensor.ndim - 1))[:classes]
    content = {prefix + key: value for key, value in authors.items()}
    torch.save({nested: content} if nested else content, tmp_path / "fmb_b0.pth")
    model = tectum.load(tmp_path / "fmb_b0.pth", wiring="asymmetric")
    assert (model.architecture, model.classes, model.arguments["wiring"]) == ("virmfs_b0", classes, "asymmetric")


def test_filter_banks_are_left_out_and_nothing_else(authors, tmp_path):
    authors["f0.wt_filter"] = torch.zeros(128, 1, 2, 2)
    authors["f3.surplus"] = torch.zeros(1)
    torch.save(authors, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth' do not fit ViRMFS: left over: deepest_fusion\.surplus$"):
        tectum.load(tmp_path / "a.pth", wiring="symmetric")


def test_wiring_must_be_given(authors, tmp_path):
    torch.save(authors, tmp_path / "a.pth")
    with pytest.raises(ConfigError, match=r"does not say how it is wired.*most likely 'asymmetric'"):
        tectum.load(tmp_path / "a.pth")


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_pickled_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="never executes"):
        tectum.load(tmp_path / "bad.pth", wiring="symmetric")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", {"epoch": 3}, [1, 2]])
def test_files_that_are_no_checkpoint_are_named(tmp_path, content):
    path = tmp_path / "a.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=r"a\.pth'"):
        tectum.load(path, wiring="symmetric")


def test_other_networks_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="is no ViR-MFS checkpoint, nor one of MAFS"):
        tectum.load(tmp_path / "a.pth", wiring="symmetric")


def test_mafs_is_recognised_by_its_keys(tmp_path):
    torch.save({"module.encoder.encoder_rgb_bn1.weight": torch.ones(64)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth' is no complete MAFS checkpoint: it has no tensor 'encoder"):
        tectum.load(tmp_path / "a.pth")
    with pytest.raises(ConfigError, match="is a MAFS checkpoint, which has no wiring"):
        tectum.load(tmp_path / "a.pth", wiring="symmetric")


def test_convert_mit_refuses_what_is_no_mit(tmp_path):
    with pytest.raises(WeightsError, match=r"holds neither model\.safetensors nor pytorch_model\.bin"):
        convert_mit(tmp_path, tmp_path / "out.safetensors")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="is no MixVisionTransformer"):
        convert_mit(tmp_path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
