import numpy as np
import pytest
import torch
from golden import state_dict
from networks import random_pair, randomised

import tectum
from tectum.errors import ConfigError, InputError
from tectum.models.base import luminance
from tectum.models.virmfs.layers import MLPHead, MultiScaleWaveletFusion


@pytest.mark.parametrize("wiring", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("size", ["b0", "b1"])
def test_equals_the_authors_network(golden, tmp_path, size, wiring):
    torch.save(state_dict(golden, f"virmfs_{size}"), tmp_path / "authors.pth")
    arrays = np.load(golden / "virmfs.npz")
    model = tectum.load(tmp_path / "authors.pth", wiring=wiring)
    luminance = torch.from_numpy(arrays["luminance"]).repeat(1, 3, 1, 1)
    with torch.no_grad():
        output = model(luminance, torch.from_numpy(arrays["infrared"]))
    np.testing.assert_allclose(output.fused, arrays[f"{size}_{wiring}_fused"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(output.logits, arrays[f"{size}_{wiring}_logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("wiring", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("high_frequency", ["visible", "infrared", "mean", "sum", "learned"])
@pytest.mark.parametrize("levels", [1, 3])
def test_every_parameter_gets_a_gradient(wiring, high_frequency, levels):
    torch.manual_seed(0)
    model = tectum.create_model("virmfs_b0", wiring=wiring, high_frequency=high_frequency, levels=levels, drop_path=0.0)
    output = model(*random_pair(batch=2))
    (output.fused.sum() + output.logits.square().sum()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    if high_frequency == "learned" and wiring == "symmetric":
        # Both orders are summed, so the two weights of a band always add up to one: nothing is left to learn.
        without = [name for name in without if not name.endswith("mix_logits")]
    assert not without


def test_symmetric_wiring_is_the_sum_of_both_orders():
    torch.manual_seed(0)
    one = MultiScaleWaveletFusion(8, "asymmetric", 2, "visible").eval()
    both = MultiScaleWaveletFusion(8, "symmetric", 2, "visible").eval()
    both.load_state_dict(one.state_dict())
    x, y = torch.randn(2, 8, 6, 10), torch.randn(2, 8, 6, 10)
    torch.testing.assert_close(both(x, y), one(x, y) + one(y, x), atol=1e-5, rtol=1e-5)


def test_high_frequency_bands_come_from_the_chosen_source():
    torch.manual_seed(0)
    x, y = torch.randn(1, 8, 8, 8), torch.randn(1, 8, 8, 8)
    outputs = {}
    for source in ("visible", "infrared", "mean", "sum"):
        torch.manual_seed(1)
        module = MultiScaleWaveletFusion(8, "asymmetric", 1, source).eval()
        outputs[source] = module(x, y)
    # The mixing is linear, everything else is shared.
    torch.testing.assert_close(outputs["mean"], (outputs["visible"] + outputs["infrared"]) / 2)
    assert not torch.allclose(outputs["visible"], outputs["sum"])
    torch.manual_seed(1)
    learned = MultiScaleWaveletFusion(8, "asymmetric", 1, "learned").eval()
    weight = torch.sigmoid(torch.tensor(8.0))
    torch.testing.assert_close(
        learned(x, y), weight * outputs["visible"] + (1 - weight) * outputs["infrared"], atol=1e-5, rtol=1e-4
    )


def test_head_equals_its_unfolded_form():
    torch.manual_seed(0)
    widths = (4, 6, 8, 10)
    head = MLPHead(widths, 16, 3).eval()
    features = [torch.randn(2, width, 16 >> i, 24 >> i) for i, width in enumerate(widths)]
    projected = [
        torch.nn.functional.interpolate(linear(x.movedim(1, -1)).movedim(-1, 1), (16, 24), mode="bilinear")
        for x, linear in zip(features, head.linears, strict=True)
    ]
    expected = head.prediction(torch.relu(head.norm(head.fuse(torch.cat(projected[::-1], dim=1)))))
    torch.testing.assert_close(head(features), expected, atol=1e-5, rtol=1e-5)


def test_batch_and_single_give_the_same():
    model = tectum.create_model("virmfs_b0").eval()
    visible, infrared = random_pair(batch=3)
    with torch.no_grad():
        together = model(visible, infrared)
        for i in range(3):
            alone = model(visible[i : i + 1], infrared[i : i + 1])
            torch.testing.assert_close(together.fused[i : i + 1], alone.fused, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together.logits[i : i + 1], alone.logits, atol=1e-5, rtol=1e-5)


def test_fused_is_the_weighted_sum_of_the_sources():
    model = tectum.create_model("virmfs_b0").eval()
    visible, infrared = random_pair()
    with torch.no_grad():
        output = model(visible, infrared)
    red, green, blue = visible[0]
    weights = output.aux["weights"][0]
    expected = weights[0] * (0.299 * red + 0.587 * green + 0.114 * blue) + weights[1] * infrared[0, 0]
    torch.testing.assert_close(output.fused[0, 0], expected)


def test_input_centring_changes_only_what_the_backbone_sees():
    torch.manual_seed(0)
    plain = tectum.create_model("virmfs_b0").eval()
    centred = tectum.create_model("virmfs_b0", input_mean=0.5, input_scale=2.0).eval()
    centred.load_state_dict(plain.state_dict())
    visible, infrared = random_pair()
    with torch.no_grad():
        plain_logits = plain((visible - 0.5) * 2, (infrared - 0.5) * 2).logits
        torch.testing.assert_close(centred(visible, infrared).logits, plain_logits, atol=1e-5, rtol=1e-5)


def test_colour_is_seen_only_where_asked_for():
    visible, infrared = random_pair()
    grey = luminance(visible).expand_as(visible)
    for colour in (False, True):
        model = randomised("virmfs_b0", colour=colour, selection=10)
        with torch.no_grad():
            alike = torch.allclose(model(visible, infrared).logits, model(grey, infrared).logits, atol=1e-5)
        assert alike != colour


def test_a_selection_sees_the_weighted_sum():
    model = randomised("virmfs_b0", selection=10)
    visible, infrared = random_pair()
    seen = []
    model.selection.register_forward_hook(lambda module, args, result: seen.append((*args, result)))
    with torch.no_grad():
        output = model(visible, infrared)
    weights, light = output.aux["weights"], luminance(visible)
    torch.testing.assert_close(seen[0][0], weights[:, :1] * light + weights[:, 1:] * infrared)
    assert output.fused is seen[0][3]


def test_wrong_size_error_says_what_to_pad_to():
    model = tectum.create_model("virmfs_b0")
    with pytest.raises(InputError, match=r"multiples of 32.*\(33, 64\).*pad to \(64, 64\)"):
        model(*random_pair(33, 64))


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 3, 64, 64), (1, 1, 64, 32)])
def test_wrong_shapes_are_named(shape):
    model = tectum.create_model("virmfs_b0")
    visible = torch.rand(1, 3, 64, 64) if shape != (1, 1, 64, 64) else torch.rand(1, 1, 64, 64)
    with pytest.raises(InputError, match="visible must be"):
        model(visible, torch.rand(shape))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"wiring": "crossed"}, "wiring must be one of asymmetric, symmetric"),
        ({"high_frequency": "both"}, "high_frequency must be one of visible"),
        ({"backbone": "b9"}, "backbone must be one of b0"),
        ({"classes": 0}, "at least 1"),
        ({"selection": 9}, "selection must be at least 10 channels"),
        ({"depth": 3}, "takes no keyword depth; it takes classes, backbone"),
    ],
)
def test_wrong_keywords_list_the_options(keywords, message):
    with pytest.raises(ConfigError, match=message):
        tectum.create_model("virmfs_b0", **keywords)


def test_presets_build_every_size_with_its_wiring():
    names = [name for name in tectum.list_models() if name.startswith("virmfs")]
    assert names == [*(f"virmfs_b{i}" for i in range(6)), "virmfs_lite0"]
    assert tectum.create_model("virmfs_b0").arguments["wiring"] == "asymmetric"
    large = tectum.create_model("virmfs_b3", classes=15)
    assert large.arguments["wiring"] == "symmetric"
    assert sum(p.numel() for p in large.parameters()) == pytest.approx(51.19e6, rel=0.01)


def test_gradients_in_mixed_precision_are_finite():
    torch.manual_seed(0)
    model = tectum.create_model("virmfs_lite0", band_fusion=8).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(*random_pair(256, 256, 2))
    output.fused.square().mean().backward()
    assert output.fused.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
