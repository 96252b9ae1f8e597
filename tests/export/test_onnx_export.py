import json
import sys
from pathlib import Path

import pytest

import tectum
from tectum import Predictor, __version__
from tectum.errors import MissingExtraError
from tectum.export import export

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.slow  # exports

pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    return export(network, tmp_path_factory.mktemp("onnx") / "b0.onnx", format="onnx")


def test_equals_torch_at_any_size_and_batch(written, assert_equals_torch):
    assert_equals_torch(written.file)


def test_one_file_that_onnx_itself_accepts(written):
    assert [path.name for path in written.file.parent.iterdir()] == ["b0.onnx"]
    model = onnx.load(written.file)
    onnx.checker.check_model(model)
    assert str(Path(tectum.__file__).parent).encode() not in written.file.read_bytes()  # nor where it was made
    names = [[value.name for value in values] for values in (model.graph.input, model.graph.output)]
    assert names == [["visible", "infrared"], ["fused", "logits"]]
    free = [not dimension.HasField("dim_value") for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    assert free == [True, False, True, True]


def test_report(written):
    assert [check.content for check in written.checks] == ["random", "rendered scene"]
    assert max(check.fused for check in written.checks) < 0.02
    assert min(check.labels for check in written.checks) > 0.999


def test_metadata_come_back(network, written):
    predictor = Predictor(written.file)
    assert predictor.engine.runtime == "onnx"
    assert predictor.name == "random"
    assert predictor.class_names == tuple(network.metadata["class_names"])
    assert predictor.palette.tolist() == network.metadata["palette"]
    (entry,) = (entry for entry in onnx.load(written.file).metadata_props if entry.key == "tectum")
    metadata = json.loads(entry.value)
    assert metadata == predictor.engine.metadata
    assert (metadata["tectum"], metadata["licence"], metadata["precision"]) == (__version__, "CC-BY-4.0", "float32")
    assert (metadata["classes"], metadata["stride"], metadata["architecture"]) == (4, 32, "virmfs_b0")


def test_without_onnxruntime_the_extra_is_named(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"backend onnx needs .*pip install 'tectum\[export\]'"):
        Predictor(written.file)
