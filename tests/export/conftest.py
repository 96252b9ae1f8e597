import numpy as np
import pytest
import torch

from tectum import create_model
from tectum.engines.open import open_export


@pytest.fixture(scope="session")
def network():
    """Random weights that say of themselves what a file format might trip over."""
    torch.manual_seed(0)
    model = create_model("virmfs_b0", classes=4, band_fusion=8).eval()
    model.metadata = {
        "name": "random",
        "class_names": ["none", '<car> & "bike"', "person", "Straße"],
        "palette": [[0, 0, 0], [1, 2, 3], [250, 0, 0], [0, 9, 255]],
        "licence": "CC-BY-4.0",
    }
    return model


def _inputs(batch, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random((batch, channels, height, width), np.float32) for channels in (3, 1)]


@pytest.fixture(scope="session")
def inputs():
    """Function for random visible and infrared images as a backend takes them."""
    return _inputs


@pytest.fixture(scope="module", params=[(1, 64, 64), (2, 64, 96), (3, 96, 32), (1, 32, 160)], ids=str)
def assert_equals_torch(request, network):
    """Function that fails unless an exported file of `network` computes what it does, at several sizes and batches."""

    def check(file):
        visible, infrared = _inputs(*request.param)
        found = open_export(file).run(visible, infrared)
        with torch.inference_mode():
            expected = network(torch.from_numpy(visible), torch.from_numpy(infrared))
        assert found.fused.dtype == found.logits.dtype == np.float32
        assert found.fused.shape == (len(visible), *visible.shape[2:])
        assert np.abs(found.fused - expected.fused[:, 0].numpy()).max() < 1e-4
        assert (found.logits.argmax(1) == expected.logits.argmax(1).numpy()).mean() > 0.999

    return check
