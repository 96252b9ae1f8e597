import numpy as np
import pytest
from PIL import Image

import tectum.cli.export
import tectum.evaluation
from tectum.engines.openvino import OpenVinoEngine
from tectum.evaluation import PrecisionCost
from tectum.export import Check, Report

pytestmark = pytest.mark.slow  # exports

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    """A file written by the command, and what the command printed."""
    from typer.testing import CliRunner

    from tectum.cli import app

    file = tmp_path_factory.mktemp("exported") / "sub" / "b0.xml"
    result = CliRunner().invoke(
        app, ["export", "--model", str(weights), "--format", "openvino", "--out", str(file)], catch_exceptions=False
    )
    return file, result


def test_writes_and_says_what_was_compared(exported):
    file, result = exported
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in file.parent.iterdir()) == ["b0.bin", "b0.xml"]
    for text in (
        f"wrote {file}",
        "random, 2 x 224x96",
        "rendered scene, 1 x 160x128",
        "100.00 % of the labels",
        "fused",
    ):
        assert text in result.stdout
    assert f"tectum fuse --model {file}" in result.stdout


def test_fuse_runs_the_file(exported, weights, tmp_path, run_tectum, write_pair):
    visible, infrared = write_pair(tmp_path, "a.png", (40, 56))
    pictures = {}
    for name, more in (("file", ("--model", exported[0])), ("torch", ("--model", weights, "--backend", "torch"))):
        out = tmp_path / name
        result = run_tectum(
            "fuse", "--visible", visible, "--infrared", infrared, "--out", out, "--save", "fused,labels,panel", *more
        )
        assert result.exit_code == 0, result.output
        assert "with random in" in result.stdout
        pictures[name] = [np.asarray(Image.open(out / item / "a.png")).astype(int) for item in ("fused", "labels")]
    assert np.abs(pictures["file"][0] - pictures["torch"][0]).max() <= 1
    assert (pictures["file"][1] == pictures["torch"][1]).mean() > 0.999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "tensorrt"), "no export format 'tensorrt'"),
        (("--out", "b0.onnx"), "must end in .xml"),
        (("--precision", "half"), "no precision 'half'"),
        (("--format", "onnx", "--out", "b0.onnx", "--precision", "int8"), "use the format openvino"),
        (("--precision", "int8"), "calibrated on pairs"),
        (("--visible", "vi"), "need both --visible and --infrared"),
        (("--model", "b0.xml"), "is an exported file already"),
        (("--model", "virmfs_b9"), "there are no weights 'virmfs_b9'"),
        (("--out", "file/b0.xml"), "cannot write to"),
    ],
)
def test_wrong_usage(arguments, message, weights, tmp_path, run_tectum, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    given = {"--model": weights, "--format": "openvino", "--out": "b0.xml"}
    options = [option for pair in given.items() if pair[0] not in arguments for option in pair]
    result = run_tectum("export", *options, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_check_writes_nothing(weights, tmp_path, run_tectum, monkeypatch):
    run = OpenVinoEngine.run
    monkeypatch.setattr(
        OpenVinoEngine, "run", lambda self, *inputs: run(self, *inputs)._replace(fused=np.zeros((1, 1, 1)))
    )
    result = run_tectum("export", "--model", weights, "--format", "openvino", "--out", tmp_path / "b0.xml")
    assert result.exit_code == 1
    assert "differs from the one in torch" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_pairs_and_the_loss_of_quality(weights, tmp_path, run_tectum, write_pair, monkeypatch):
    for name in ("a.png", "b.png"):
        write_pair(tmp_path, name)
    (tmp_path / "vi" / "lonely.png").write_bytes(b"")
    asked = {}

    def write(model, file, **more):
        asked.update(more)
        return Report(file, [Check("a", (1, 32, 32), 3.0, 0.2, 0.98)])

    def cost(exact, rounded, pairs):
        assert (str(exact), str(rounded)) == (str(weights), str(tmp_path / "b0.xml"))
        return PrecisionCost(len(pairs), 3.25, 0.5, 0.97, {"qabf": 0.6, "mi": 4.0}, {"qabf": 0.59, "mi": 3.9})

    monkeypatch.setattr(tectum.cli.export, "write", write)
    monkeypatch.setattr(tectum.cli.export, "Predictor", lambda model, **_: model)
    monkeypatch.setattr(tectum.evaluation, "precision_cost", cost)
    result = run_tectum(
        "export", "--model", weights, "--format", "openvino", "--out", tmp_path / "b0.xml",
        "--precision", "int8", "--visible", tmp_path / "vi", "--infrared", tmp_path / "ir",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert asked["precision"] == "int8"
    assert [pair.name for pair in asked["pairs"]] == ["a", "b"]
    assert "lonely" in result.stderr
    for text in (
        "by int8, on 2 pairs", "0.5 of 255 in the mean, 3.2 at most", "97.00 % of the labels are equal",
        "Qabf: 0.6000 in float32, 0.5900 in int8", "MI: 4.0000 in float32, 3.9000 in int8",
    ):  # fmt: skip
        assert text in result.stdout


def test_an_unknown_backend(weights, tmp_path, run_tectum, write_pair):
    visible, infrared = write_pair(tmp_path, "a.png")
    result = run_tectum(
        "fuse", "--visible", visible, "--infrared", infrared, "--out", tmp_path, "--model", weights, "--backend", "gpu"
    )
    assert result.exit_code == 2
    assert "no backend 'gpu'; choose one of auto, torch, compile, onnx, openvino" in result.stderr


def test_pairs_that_do_not_match(weights, tmp_path, run_tectum, write_pair):
    _, infrared = write_pair(tmp_path, "a.png")
    infrared.rename(infrared.with_name("b.png"))
    result = run_tectum(
        "export", "--model", weights, "--format", "openvino", "--out", tmp_path / "b0.xml",
        "--visible", tmp_path / "vi", "--infrared", tmp_path / "ir",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "have no pair" in result.stderr
