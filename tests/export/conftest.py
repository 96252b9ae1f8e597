import pytest
import torch

from tectum import create_model


@pytest.fixture(scope="session")
def network():
    """Random weights that say of themselves what a file format might trip over."""
    torch.manual_seed(0)
    model = create_model("virmfs_b0", classes=4).eval()
    model.metadata = {
        "name": "random",
        "class_names": ["none", '<car> & "bike"', "person", "Straße"],
        "palette": [[0, 0, 0], [1, 2, 3], [250, 0, 0], [0, 9, 255]],
        "licence": "CC-BY-4.0",
    }
    return model
