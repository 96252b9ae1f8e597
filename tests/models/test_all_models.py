"""What holds for every architecture of `tectum.list_models()`, at its smallest."""

import numpy as np
import pytest
import torch
from networks import random_pair

import tectum
from tectum.engines.open import open_export
from tectum.engines.torch import TorchEngine
from tectum.export import export

QUICK = ("virmfs_b0", "virmfs_lite0", "mafs_r18")
"""One of each family and backbone; the other sizes run the same code."""

NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in tectum.list_models()]


@pytest.fixture(scope="module", params=NAMES)
def network(request):
    """Random weights for two classes, in eval mode."""
    torch.manual_seed(0)
    return tectum.create_model(request.param, classes=2).eval()


def pair(batch=1, size=(32, 64)):
    return random_pair(*size, batch)


def test_shapes(network):
    with torch.no_grad():
        output = network(*pair(batch=2))
    assert output.fused.shape == (2, 1, 32, 64)
    assert output.logits.shape == (2, 2, 32, 64)
    assert output.fused.isfinite().all()


def test_a_pair_does_not_depend_on_its_batch(network):
    visible, infrared = pair(batch=2)
    with torch.no_grad():
        together = network(visible, infrared)
        for index in range(2):
            alone = network(visible[index : index + 1], infrared[index : index + 1])
            torch.testing.assert_close(alone.fused[0], together.fused[index], atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(alone.logits[0], together.logits[index], atol=1e-3, rtol=1e-3)


def test_any_size_in_the_same_size_out(network):
    rng = np.random.default_rng(0)
    result = tectum.Predictor(network)(visible=rng.random((37, 53, 3), np.float32), infrared=rng.random((37, 53)))
    assert (result.fused.shape, result.labels.shape) == ((37, 53, 3), (37, 53))
    assert result.labels.max() < 2


def test_every_parameter_gets_a_gradient(network):
    network.train()
    try:
        # Not on the smallest size, at which batch norms see two values, and the gradient before them is zero.
        output = network(*pair(batch=2, size=(64, 96)))
        sum((x * torch.rand_like(x)).sum() for x in (output.fused, output.logits, *output.aux.values())).backward()
        # Of a bias before a batch norm it is zero but for rounding.
        reached = {
            name: p.grad is not None and (p.ndim < 2 or p.grad.abs().sum() > 0)
            for name, p in network.named_parameters()
        }
    finally:
        network.zero_grad(set_to_none=True)
        network.eval()
    assert [name for name, found in reached.items() if not found] == []


def test_roles_are_disjoint_and_cover_all(network):
    roles = [network.role(role).keys() for role in ("backbone", "fusion", "segmentation")]
    assert sum(map(len, roles)) == len(set().union(*roles)) == len(list(network.parameters()))
    assert network.role("pretraining").keys() < {name for name, _ in network.named_parameters()}


def test_saved_and_loaded_is_equal(network, tmp_path):
    network.save(tmp_path)
    again = tectum.load(tmp_path)
    assert (again.architecture, again.arguments) == (network.architecture, network.arguments)
    with torch.no_grad():
        for one, other in zip(again(*pair())[:2], network(*pair())[:2], strict=True):
            assert torch.equal(one, other)


def test_folded_is_equal(network):
    folded = network.deploy()
    assert folded.deploy() is folded
    assert (folded.stride, folded.runs_in_bands) == (network.stride, network.runs_in_bands)
    with torch.no_grad():
        found, expected = folded(*pair()), network(*pair())
    torch.testing.assert_close(found[0], expected.fused, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found[1], expected.logits, atol=1e-2, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format", "suffix"),
    # virmfs_b0 in both formats: tests/export; virmfs_lite0 as ONNX: tests/engines. Writing MAFS as ONNX takes a minute;
    # its tracing is in test_deploy.
    [("virmfs_lite0", "openvino", ".xml"), ("mafs_r18", "openvino", ".xml")],
)
def test_exported_is_equal(name, format, suffix, tmp_path):
    pytest.importorskip({"onnx": "onnxscript", "openvino": "openvino"}[format])
    torch.manual_seed(0)
    network = tectum.create_model(name, classes=2).eval()
    inputs = [tensor.numpy() for tensor in pair(batch=2, size=(64, 96))]
    found = open_export(export(network, tmp_path / f"n{suffix}", format=format).file).run(*inputs)
    expected = TorchEngine(network).run(*inputs)
    assert np.abs(found.fused - expected.fused).max() < 1e-3
    assert (found.logits.argmax(1) == expected.logits.argmax(1)).mean() > 0.99


@pytest.mark.parametrize("name", QUICK)
def test_departures_name_what_is_not_published(name):
    network = tectum.create_model(name, selection=10)
    assert "it chooses between the sources pixel by pixel" in network.departures()
    published = tectum.create_model(
        {"virmfs": "virmfs_b1", "mafs": "mafs_r18"}[network.family],
        **({"gate": "first"} if network.family == "mafs" else {}),
    )
    expected = ["its encoders are smaller than ResNet-152"] if network.family == "mafs" else []
    assert published.departures() == expected
