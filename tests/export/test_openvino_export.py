import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tectum.engines.openvino
import tectum.export.files
from tectum import Predictor, __version__, create_model
from tectum.data.pair import PairPaths
from tectum.engines.base import Raw
from tectum.engines.description import describe
from tectum.engines.open import open_export
from tectum.engines.openvino import OpenVinoEngine, has_bfloat16
from tectum.errors import ConfigError, InputError, MissingExtraError, WeightsError
from tectum.evaluation import precision_cost
from tectum.export import Check, ExportError, export
from tectum.export.check import require_equal
from tectum.scenes import render_scene

pytestmark = pytest.mark.slow  # exports

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    return export(network, tmp_path_factory.mktemp("openvino") / "b0.xml", format="openvino")


@pytest.fixture
def table(tmp_path):
    """Three rendered pairs, one of them larger than the others."""
    from PIL import Image

    from tectum.predict.colour import to_bytes

    pairs = []
    for seed, size in enumerate([(48, 64), (48, 64), (70, 90)]):
        scene = render_scene(seed, size)
        paths = PairPaths(f"scene{seed}", tmp_path / f"{seed}v.png", tmp_path / f"{seed}i.png")
        for file, image in ((paths.visible, scene.visible), (paths.infrared, scene.infrared)):
            Image.fromarray(to_bytes(image)).save(file)
        pairs.append(paths)
    return pairs


def assert_quality(report, network, table):
    """What the precision is said to cost is what running both shows."""
    differences, equal = [], []
    for one, other in zip(Predictor(network).stream(table), Predictor(report.file).stream(table), strict=True):
        differences.append(255 * np.abs(one.result.luminance - other.result.luminance).ravel())
        equal.append((one.result.labels == other.result.labels).ravel())
    quality = precision_cost(Predictor(network), Predictor(report.file), table)
    assert quality.pairs == len(table)
    assert quality.fused_max == pytest.approx(np.concatenate(differences).max(), rel=1e-4)
    assert quality.fused_mean == pytest.approx(np.concatenate(differences).mean(), rel=1e-4)
    assert quality.labels == pytest.approx(np.concatenate(equal).mean(), abs=1e-4)
    assert 0 < quality.fused_mean < quality.fused_max
    assert quality.before.keys() == quality.after.keys() == {"qabf", "mi"}
    assert quality.before != quality.after


def test_equals_torch_at_any_size_and_batch(written, assert_equals_torch):
    assert_equals_torch(written.file)


def test_each_way_of_compiling_gives_the_same(written, monkeypatch, inputs):
    """First size: its own network; second: the one for any size; in the end its own, in place of the first."""
    monkeypatch.setattr(OpenVinoEngine, "REPEATS", 2)
    monkeypatch.setattr(OpenVinoEngine, "KEPT", 1)
    backend = open_export(written.file)
    first, second = inputs(1, 32, 32), inputs(1, 32, 64)
    backend.run(*first)
    assert backend._any_size is None
    dynamic = backend.run(*second)
    assert list(backend._sized) == [(1, 3, 32, 32)]
    static = backend.run(*second)
    assert list(backend._sized) == [(1, 3, 32, 64)]
    np.testing.assert_allclose(dynamic.fused, static.fused, atol=1e-5)
    np.testing.assert_allclose(dynamic.logits, static.logits, atol=1e-4)


def test_results_outlive_the_next_run(written, inputs):
    backend = open_export(written.file)
    first = backend.run(*inputs(1, 32, 32))
    kept = first.fused.copy()
    backend.run(*inputs(1, 32, 32, seed=1))
    np.testing.assert_array_equal(first.fused, kept)


def test_report_and_files(written):
    assert sorted(path.name for path in written.file.parent.iterdir()) == ["b0.bin", "b0.xml"]
    random, scene = written.checks
    assert (random.content, random.size[0], scene.content, scene.size[0]) == ("random", 2, "rendered scene", 1)
    assert random.size[1:] != scene.size[1:]
    assert max(random.fused, scene.fused) < 0.02
    assert min(random.labels, scene.labels) > 0.999


def test_metadata_come_back(network, written):
    predictor = Predictor(written.file)
    assert predictor.name == "random"
    assert predictor.class_names == tuple(network.metadata["class_names"])
    assert predictor.palette.tolist() == network.metadata["palette"]
    metadata = predictor.engine.metadata
    assert (metadata["tectum"], metadata["licence"], metadata["precision"]) == (__version__, "CC-BY-4.0", "float32")
    assert (metadata["classes"], metadata["stride"], metadata["architecture"]) == (4, 32, "virmfs_b0")


def test_bfloat16(network, written, table, tmp_path):
    report = export(network, tmp_path / "b0.xml", format="openvino", pairs=table, precision="bfloat16")
    assert report.file.with_suffix(".bin").read_bytes() == written.file.with_suffix(".bin").read_bytes()
    assert Predictor(report.file).engine.metadata["precision"] == "bfloat16"
    if has_bfloat16():
        assert_quality(report, network, table)
        assert report.checks[0].fused > 0.02


def test_bfloat16_needs_no_pairs(network, tmp_path):
    report = export(network, tmp_path / "b0.xml", format="openvino", precision="bfloat16")
    assert [check.content for check in report.checks] == ["random", "rendered scene"]


def test_bfloat16_without_its_instructions_is_float32(network, table, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tectum.engines.openvino, "has_bfloat16", lambda: False)
    with caplog.at_level(logging.WARNING):
        report = export(network, tmp_path / "b0.xml", format="openvino", pairs=table[:1], precision="bfloat16")
    assert max(check.fused for check in report.checks) < 0.02
    assert "no instructions for bfloat16" in caplog.text
    assert "b0.xml' is compared in float32" in caplog.text


@pytest.mark.parametrize(
    ("precision", "native", "hint"),
    [
        ("float32", True, "f32"),
        ("bfloat16", True, "bf16"),
        ("bfloat16", False, "f32"),
        ("int8", True, None),
    ],
)
def test_what_is_computed_in(precision, native, hint, written, monkeypatch):
    """The options that a file is compiled with, whatever this processor makes of them."""
    monkeypatch.setattr(tectum.engines.openvino, "has_bfloat16", lambda: native)
    backend = open_export(written.file)
    backend.metadata["precision"] = precision
    asked = []
    backend._core = SimpleNamespace(compile_model=lambda network, device, options: asked.append(options))
    backend._compile((1, 3, 32, 32))
    assert asked[0].get("INFERENCE_PRECISION_HINT") == hint


def test_a_precision_of_a_newer_version_is_one_sentence(written, tmp_path):
    import openvino

    model = openvino.Core().read_model(written.file)
    description = json.loads(model.get_rt_info(["tectum"]).astype(str))
    model.set_rt_info(json.dumps(description | {"precision": "int4"}), ["tectum"])
    openvino.save_model(model, tmp_path / "b0.xml", compress_to_fp16=False)
    with pytest.raises(WeightsError, match=r"b0\.xml' is of precision 'int4', which tectum \S+ does not know: update"):
        open_export(tmp_path / "b0.xml")


def test_a_real_pair_is_in_the_check_where_there_is_one(network, table, tmp_path):
    report = export(network, tmp_path / "out" / "b0.xml", format="openvino", pairs=table[2:])
    assert (report.checks[1].content, report.checks[1].size) == ("scene2", (1, 96, 96))


def test_an_export_that_differs_leaves_what_was_there(network, tmp_path, monkeypatch):
    file = tmp_path / "b0.xml"
    file.write_text("old")
    run = OpenVinoEngine.run

    def wrong(self, visible, infrared):
        raw = run(self, visible, infrared)
        return Raw(raw.fused + np.float32(0.01), raw.logits)

    monkeypatch.setattr(OpenVinoEngine, "run", wrong)
    with pytest.raises(ExportError, match=r"differs from the one in torch \(random, 2 x 224x96: fused by 2\.5"):
        export(network, file, format="openvino")
    assert [path.name for path in tmp_path.iterdir()] == ["b0.xml"]
    assert file.read_text() == "old"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_not_a_number_fails_the_check(precision, tmp_path):
    broken = create_model("virmfs_b0", classes=4).eval()
    torch.nn.init.constant_(broken.fusion_head.prediction.bias, float("nan"))
    with pytest.raises(ExportError, match="fused by nan"):
        export(broken, tmp_path / "b0.xml", format="openvino", precision=precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("precision", "fused", "mean", "labels", "passes"),
    [
        ("float32", 0.09, 0.01, 1.0, True),
        ("float32", 0.11, 0.01, 1.0, False),
        ("float32", 0.0, 0.0, 0.998, False),
        ("bfloat16", 250.0, 15.0, 0.91, True),
        ("bfloat16", 250.0, 17.0, 1.0, False),
        ("bfloat16", 0.0, 0.0, 0.89, False),
        ("int8", 250.0, 100.0, 0.1, True),
        ("int8", float("nan"), float("nan"), 1.0, False),
    ],
)
def test_bounds_of_the_check(precision, fused, mean, labels, passes):
    checks = [Check("random", (2, 32, 64), fused, mean, labels)]
    if passes:
        require_equal(checks, precision)
        return
    with pytest.raises(ExportError, match="differs from the one in torch"):
        require_equal(checks, precision)


def test_what_cannot_be_converted_is_one_sentence(network, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no rule for aten::fuse\nsecond line")

    monkeypatch.setattr("tectum.export.openvino.write", fail)
    with pytest.raises(ExportError, match=r"'random' could not be exported to openvino by torch .*: RuntimeError, no"):
        export(network, tmp_path / "b0.xml", format="openvino")


@pytest.mark.parametrize(
    ("file", "more", "message"),
    [
        ("b0.xml", {"format": "tensorrt"}, "no export format 'tensorrt'; choose one of onnx, openvino"),
        ("b0.onnx", {"format": "openvino"}, "must end in .xml"),
        ("b0.xml", {"format": "openvino", "precision": "half"}, "'half'; choose one of float32, bfloat16, int8"),
        ("b0.onnx", {"format": "onnx", "precision": "bfloat16"}, "bfloat16 is for OpenVINO only: use the format"),
        ("b0.onnx", {"format": "onnx", "precision": "int8"}, "int8 is for OpenVINO only: use the format openvino"),
        ("b0.xml", {"format": "openvino", "precision": "int8"}, "calibrated on pairs"),
    ],
)
def test_wrong_requests(network, tmp_path, file, more, message):
    with pytest.raises(ConfigError, match=message):
        export(network, tmp_path / file, **more)


def test_a_missing_package_names_the_extra(network, tmp_path, monkeypatch):
    def absent(package):
        raise tectum.export.files.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(tectum.export.files.metadata, "version", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'tectum\[openvino\]'"):
        export(network, tmp_path / "b0.xml", format="openvino")


def test_a_calibration_pair_that_cannot_be_read_is_named(network, table, tmp_path):
    table[1].infrared.write_bytes(b"")
    with pytest.raises(InputError, match=r"1i\.png"):
        export(network, tmp_path / "out" / "b0.xml", format="openvino", pairs=table, precision="int8")
    assert list((tmp_path / "out").iterdir()) == []


def test_int8(network, table, tmp_path):
    report = export(network, tmp_path / "out" / "b0.xml", format="openvino", pairs=table, precision="int8")
    assert sorted(path.name for path in report.file.parent.iterdir()) == ["b0.bin", "b0.xml"]
    text = report.file.read_text()
    assert "FakeQuantize" in text or 'element_type="i8"' in text
    assert_quality(report, network, table)
    assert Predictor(report.file).engine.metadata["precision"] == "int8"


def test_int8_leaves_alone_what_amplifies_rounding(table, tmp_path):
    torch.manual_seed(0)
    mafs = create_model("mafs_r18", selection=10)
    report = export(mafs, tmp_path / "r18.xml", format="openvino", pairs=table[:1], precision="int8")
    quantised = [line for line in report.file.read_text().splitlines() if "/fq_" in line or "/quantized" in line]
    assert any("visible_encoder" in line for line in quantised)
    assert not any("fusion_decoder" in line or "selection" in line for line in quantised)


def test_description_is_json(network):
    assert json.loads(describe(network, "int8"))["precision"] == "int8"
