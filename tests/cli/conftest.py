from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tectum import create_model
from tectum.cli import app
from tectum.data.datasets import dataset_info


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Folder of a saved network with random weights and the classes of MSRS."""
    torch.manual_seed(0)
    model = create_model("virmfs_b0", classes=9)
    info = dataset_info("msrs")
    model.metadata = {"name": "random", "class_names": list(info.classes), "palette": [list(c) for c in info.palette]}
    folder = tmp_path_factory.mktemp("weights") / "random"
    model.save(folder)
    return folder


@pytest.fixture
def run_tectum():
    """Run the command line in this process; the result has exit_code, stdout and stderr."""

    def run(*arguments: object):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert "Traceback" not in result.output
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def write_pair():
    """Write one random pair to FOLDER/vi/NAME and FOLDER/ir/NAME; returns the two files."""

    def write(folder: Path, name: str, size: tuple[int, int] = (32, 32), seed: int = 0):
        rng = np.random.default_rng(seed)
        files = []
        for kind, shape in (("vi", (*size, 3)), ("ir", size)):
            file = folder / kind / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(file)
            files.append(file)
        return tuple(files)

    return write
