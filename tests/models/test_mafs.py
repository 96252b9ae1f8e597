from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from golden import state_dict
from networks import random_pair

import tectum
from tectum.errors import ConfigError, InputError, WeightsError
from tectum.models.mafs import MaskedAutoencoder
from tectum.models.mafs.fusion import DynamicExtraction

AUX = {f"{kind}_{scale}" for kind in ("semantic", "two_class") for scale in (4, 8, 16)}


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return tectum.create_model("mafs_r18", classes=5).eval()


@pytest.mark.slow
def test_equals_the_authors_network(golden, tmp_path):
    authors = state_dict(golden, "mafs")
    torch.save(authors, tmp_path / "authors.pth")
    del authors
    model = tectum.load(tmp_path / "authors.pth")
    assert (model.architecture, model.classes) == ("mafs_r152", 15)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(127.9e6, rel=0.001)
    arrays = np.load(golden / "mafs.npz")
    with torch.no_grad():
        output = model(torch.from_numpy(arrays["visible"]), torch.from_numpy(arrays["infrared"]), auxiliary=True)
    np.testing.assert_allclose(output.fused, arrays["fused"], atol=1e-3, rtol=0)
    np.testing.assert_allclose(output.logits, arrays["logits"], atol=1e-4, rtol=0)
    assert output.aux.keys() == AUX
    for name, value in output.aux.items():
        np.testing.assert_allclose(value, arrays[f"aux_{name}"], atol=1e-4, rtol=0, err_msg=name)


@pytest.mark.slow
def test_every_parameter_gets_a_gradient_in_training():
    torch.manual_seed(0)
    model = tectum.create_model("mafs_r18")
    output = model(*random_pair(batch=3))
    loss = output.fused.square().mean() + output.logits.square().mean()
    (loss + sum(value.square().mean() for value in output.aux.values())).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_auxiliary_outputs_come_in_training_or_on_request(small):
    visible, infrared = random_pair(batch=2)
    with torch.no_grad():
        plain, asked = small(visible, infrared), small(visible, infrared, auxiliary=True)
    assert plain.aux == {}
    assert asked.aux.keys() == AUX
    torch.testing.assert_close(plain.logits, asked.logits, atol=0, rtol=0)
    for name, value in asked.aux.items():
        assert value.shape == (2, 5 if name.startswith("semantic") else 2, 64, 96)
    model = tectum.create_model("mafs_r18").train()
    assert model(visible, infrared).aux.keys() == AUX
    assert model(visible, infrared, auxiliary=False).aux == {}


@pytest.mark.parametrize("size", [(32, 32), (32, 96), (96, 160)])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_size_and_batch(small, size, batch):
    with torch.no_grad():
        output = small(*random_pair(*size, batch))
    assert output.fused.shape == (batch, 1, *size)
    assert output.logits.shape == (batch, 5, *size)
    assert 0 <= output.fused.min() <= output.fused.max() <= 1


@pytest.mark.parametrize("gate", ["paired", "first"])
def test_pairs_of_a_batch_do_not_mix(gate):
    torch.manual_seed(0)
    model = tectum.create_model("mafs_r18", gate=gate).eval()
    visible, infrared = random_pair(batch=2)
    with torch.no_grad():
        together = model(visible, infrared)
        alone = model(visible[1:], infrared[1:])
    torch.testing.assert_close(together.logits[1:], alone.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.fused[1:], alone.fused, atol=1e-4, rtol=1e-4)


def test_first_gate_is_the_diagonal_over_batch_and_channel():
    torch.manual_seed(0)
    module = DynamicExtraction(16, "first")
    paired = DynamicExtraction(16, "paired")
    paired.load_state_dict(module.state_dict())
    visible, infrared = torch.rand(1, 16, 8, 8), torch.rand(1, 16, 8, 8)
    v, t = (torch.nn.functional.normalize(module.agreement(x.mean(dim=(2, 3))), dim=1) for x in (visible, infrared))
    matrix = torch.sigmoid(module.temperature * v[:, :, None] @ t[:, None, :])  # (1, C, C)
    gates = {"first": torch.diagonal(matrix), "paired": torch.diagonal(matrix, dim1=1, dim2=2)}
    for name, layer in (("first", module), ("paired", paired)):
        gate = gates[name].reshape(1, 16, 1, 1)
        agreeing = torch.cat((gate * visible, gate * infrared), dim=1)
        weights = torch.sigmoid(module.recalibration(module.depthwise(agreeing).amax(dim=(2, 3))))[:, :, None, None]
        new_v = (1 - gate) * visible + weights[:, :16] * gate * visible
        new_t = (1 - gate) * infrared + weights[:, 16:] * gate * infrared
        scores = torch.cat((module.visible_score(new_v), module.infrared_score(new_t)), dim=1).softmax(dim=1)
        out_v, out_t = layer(visible, infrared)
        torch.testing.assert_close(out_t, scores[:, 1:] * new_t)
        torch.testing.assert_close(out_v, scores[:, :1] * new_v + scores[:, 1:] * new_t)
    assert not torch.allclose(gates["first"].flatten(), gates["paired"].flatten())


def test_training_needs_two_pairs():
    with pytest.raises(InputError, match="at least two pairs"):
        tectum.create_model("mafs_r18").train()(*random_pair())


def test_wrong_size_error_says_what_to_pad_to(small):
    with pytest.raises(InputError, match=r"multiples of 32.*pad to \(64, 96\)"):
        small(*random_pair(60, 96))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"backbone": "r20"}, "backbone must be one of r18, r34, r50, r101, r152"),
        ({"gate": "own"}, "gate must be one of paired, first"),
        ({"classes": 0}, "at least 1"),
        ({"selection": 9}, "selection must be at least 10 channels"),
        ({"wiring": "symmetric"}, "takes no keyword wiring; it takes classes, backbone"),
    ],
)
def test_wrong_keywords_list_the_options(keywords, message):
    with pytest.raises(ConfigError, match=message):
        tectum.create_model("mafs_r18", **keywords)


@pytest.mark.slow
def test_presets_are_the_five_resnets():
    names = [name for name in tectum.list_models() if name.startswith("mafs")]
    assert names == ["mafs_r18", "mafs_r34", "mafs_r50", "mafs_r101", "mafs_r152"]
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in tectum.create_model(name).parameters()) / 1e6 for name in names}
    assert counts["mafs_r18"] == pytest.approx(26.23, rel=0.001)
    assert counts["mafs_r152"] == pytest.approx(127.9, rel=0.001)


def test_weights_are_never_fetched_unasked(monkeypatch, tmp_path):
    def refuse(*args, **keywords):
        raise AssertionError("no connection may be opened")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    tectum.create_model("mafs_r18").save(tmp_path)
    assert "imagenet" not in tectum.load(tmp_path).arguments


def test_imagenet_weights_are_used_when_asked_for(monkeypatch):
    torch.manual_seed(0)
    published = torchvision.models.resnet18().state_dict()
    published["bn1.running_mean"] += 1
    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", lambda *args, **keywords: published)
    model = tectum.create_model("mafs_r18", imagenet=True)
    for encoder in (model.visible_encoder, model.infrared_encoder):
        torch.testing.assert_close(encoder.stages[2][1].conv2.weight, published["layer3.1.conv2.weight"])
        torch.testing.assert_close(encoder.stem_half[4].running_mean, published["bn1.running_mean"])


def test_imagenet_without_a_connection_says_what_to_do(monkeypatch):
    def offline(*args, **keywords):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(WeightsError, match=r"resnet18 cannot be fetched \(no network\): put https://.*pth into"):
        tectum.create_model("mafs_r18", imagenet=True)


def test_pretraining_parameters_are_those_that_reconstruction_reaches():
    torch.manual_seed(0)
    model = tectum.create_model("mafs_r18")
    autoencoder = MaskedAutoencoder(model)
    visible, infrared = autoencoder(*random_pair(batch=2))
    (visible.square().mean() + infrared.mean()).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == model.role("pretraining").keys()
    assert all(p.grad.abs().sum() > 0 for p in (autoencoder.projection.weight, *autoencoder.prediction.parameters()))
    assert any("pixel_decoder" in name for name in reached)
    assert not any("transformer" in name or "fusion_decoder" in name for name in reached)


@pytest.mark.slow
def test_shared_reconstruction_reaches_no_encoder_stage_beyond_the_first():
    torch.manual_seed(0)
    model = tectum.create_model("mafs_r18")
    visible, infrared = MaskedAutoencoder(model, "shared")(*random_pair(batch=2))
    (visible.square().mean() + infrared.mean()).backward()
    for encoder in (model.visible_encoder, model.infrared_encoder):
        assert all(p.grad.abs().sum() > 0 for p in encoder.stages[0].parameters())
        assert all(p.grad is None for p in encoder.stages[1:].parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.fusion_decoder.parameters())
    assert all(p.grad is None for p in model.segmentation_decoder.parameters())


def test_separate_reconstruction_shows_two_images():
    torch.manual_seed(0)
    autoencoder = MaskedAutoencoder(tectum.create_model("mafs_r18")).eval()
    with torch.no_grad():
        visible, infrared = autoencoder(*random_pair(64, 96, 2))
    assert visible.shape == infrared.shape == (2, 1, 64, 96)
    assert 0 <= min(visible.min(), infrared.min()) <= max(visible.max(), infrared.max()) <= 1
    assert not torch.allclose(visible, infrared, atol=0.01)


def test_shared_reconstruction_is_the_fused_image(small):
    autoencoder = MaskedAutoencoder(small, "shared").eval()
    with torch.no_grad():
        visible, infrared = autoencoder(*random_pair())
        fused = small(*random_pair()).fused
    assert torch.equal(visible, infrared)
    assert torch.equal(visible, fused)
    assert len(list(autoencoder.parameters())) == len(list(small.parameters()))


def test_reconstruction_checks_the_size(small):
    with pytest.raises(InputError, match="multiples of 32"):
        MaskedAutoencoder(small)(*random_pair(60, 96))


def test_initialise_copies_what_encodes_and_nothing_else(small):
    torch.manual_seed(1)
    pretrained = tectum.create_model("mafs_r18", classes=3).train()
    pretrained(*random_pair(batch=2))  # moves the statistics of the batch norms
    model = tectum.create_model("mafs_r18", classes=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.initialise(pretrained)
    source, after = pretrained.state_dict(), model.state_dict()
    decoders = ("fusion_decoder.", "segmentation_decoder.")
    encoding = {k for k in after if not k.startswith(decoders) or k.startswith("segmentation_decoder.pixel_decoder.")}
    assert model.role("pretraining").keys() == encoding & dict(model.named_parameters()).keys()
    assert "visible_encoder.stages.3.1.bn2.running_mean" in encoding
    for key, value in after.items():
        assert torch.equal(value, source[key] if key in encoding else before[key]), key
    changed = ("infrared_encoder.stem_full.0.weight", "attentions.2.reduction.1.running_var")
    assert not any(torch.equal(before[key], after[key]) for key in changed)
    assert model.classes == 5


def test_initialise_needs_the_same_size(small):
    with torch.device("meta"):
        larger = tectum.create_model("mafs_r34")
    with pytest.raises(ConfigError, match=r"pretrained network is mafs_r34, but mafs_r18 is to be trained"):
        small.initialise(larger)
