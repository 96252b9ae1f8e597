"""Small scenes, batches and runs that the tests of several recipes share."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import tectum
from tectum.data.transforms import Sample
from tectum.scenes import write_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Folder in MSRS's layout: six training and two test pairs, 72 x 96."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 6, size=(72, 96))
    write_scenes(root, 2, seed=6, size=(72, 96), split="test")
    return root


@pytest.fixture(scope="session")
def random_batch():
    """Function for a batch of noise with random labels, ignored in the top four rows."""

    def make(size=2, side=64, classes=9):
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, classes, (size, side, side), generator=generator)
        labels[:, :4] = 255
        return Sample.of_clean(
            torch.rand(size, 3, side, side, generator=generator),
            torch.rand(size, 1, side, side, generator=generator),
            labels,
        )

    return make


def _log_of(directory):
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def log_of():
    """Function for the records of a run's log."""
    return _log_of


@pytest.fixture(scope="session")
def assert_same_weights():
    """Function that fails unless two saved networks are equal bit by bit."""

    def check(first, second):
        first, second = (tectum.load(directory).state_dict() for directory in (first, second))
        assert first.keys() == second.keys()
        for key, value in first.items():
            torch.testing.assert_close(value, second[key], atol=0, rtol=0, msg=key)

    return check


RUN = """
import sys
from importlib import import_module
from pathlib import Path
import torch
torch.set_num_threads(1)
from tectum.recipes.reading import read_config
recipe = import_module(sys.argv[1])
recipe.train(read_config(getattr(recipe, sys.argv[2]), sys.argv[3]), Path(sys.argv[4]))
"""


@pytest.fixture
def whole_and_broken(tmp_path):
    """Function that trains a config twice: in one go, and killed after the given numbers of logged steps."""

    def run(config, kills):
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        (tmp_path / "c.yaml").write_text(json.dumps(config.model_dump(mode="json")))
        kind = type(config)

        def start(directory):
            arguments = (kind.__module__, kind.__name__, tmp_path / "c.yaml", directory)
            return subprocess.Popen([sys.executable, "-c", RUN, *map(str, arguments)])

        assert start(whole).wait() == 0
        for wanted in kills:
            process = start(broken)
            while not ((broken / "log.jsonl").exists() and _lines(broken / "log.jsonl") > wanted):
                assert process.poll() is None, "finished before it could be killed"
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (broken / "last").exists()
        assert start(broken).wait() == 0
        scores = [
            [{k: v for k, v in record.items() if k != "seconds"} for record in _log_of(d)] for d in (whole, broken)
        ]
        assert scores[0] == scores[1]
        return whole, broken

    yield run
    shutil.rmtree(tmp_path)  # checkpoints are large


def _lines(path):
    """Lines so far; the last one may be half written."""
    return len(path.read_text().splitlines())


@pytest.fixture
def on_processes(tmp_path):
    """Function that runs a script on a number of CPU processes and loads what it saves at the path it is given."""

    def run(script, count):
        (tmp_path / "script.py").write_text(script)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE")}
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={count}", "--master_port=0",
             "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0", str(tmp_path / "script.py"),
             str(tmp_path / f"{count}.pt")],
            check=True, env=environment | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        )  # fmt: skip
        return torch.load(tmp_path / f"{count}.pt", weights_only=True)

    return run
