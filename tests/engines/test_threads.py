"""Every engine, called from several threads at once with pairs of several sizes, gives what single calls give."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tectum import create_model
from tectum.engines.open import open_export
from tectum.engines.torch import TorchEngine
from tectum.export import export

SIZES = ((32, 32), (64, 32), (32, 96), (64, 64), (96, 32))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_model("virmfs_b0", classes=4)


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """Exported files, each written when it is first asked for."""
    folder, written = tmp_path_factory.mktemp("threads"), {}

    def file(format, suffix):
        pytest.importorskip({"onnx": "onnxscript", "openvino": "openvino"}[format])
        if format not in written:
            # What is written is compared with torch before it gets its name.
            exported = create_model("virmfs_lite0", classes=4).eval() if format == "onnx" else network
            written[format] = export(exported, folder / f"network{suffix}", format=format).file
        return written[format]

    return file


def pairs():
    rng = np.random.default_rng(0)
    return [[rng.random((1, channels, *size), np.float32) for channels in (3, 1)] for size in SIZES for _ in range(3)]


def assert_threads_change_nothing(engine, tolerance=0.0):
    inputs = pairs()
    expected = [engine.run(*pair) for pair in inputs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: engine.run(*inputs[index % len(inputs)]), range(4 * len(inputs))))
    for index, raw in enumerate(found):
        np.testing.assert_allclose(raw.fused, expected[index % len(inputs)].fused, rtol=0, atol=tolerance)
        np.testing.assert_allclose(raw.logits, expected[index % len(inputs)].logits, rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize(
    ("format", "suffix"), [pytest.param("onnx", ".onnx", marks=pytest.mark.slow), ("openvino", ".xml")]
)
@pytest.mark.slow
def test_exported_files(format, suffix, files):
    # A size gets a compiled network of its own after a while, which may round in another way.
    assert_threads_change_nothing(open_export(files(format, suffix)), 1e-5 if format == "openvino" else 0.0)


def test_folded_weights(network):
    assert_threads_change_nothing(TorchEngine(network.deploy()))


def test_a_network_in_training(network):
    network.train()
    network.segmentation_head.eval()  # frozen
    modes = [module.training for module in network.modules()]
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    assert_threads_change_nothing(TorchEngine(network))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in network.named_buffers())
