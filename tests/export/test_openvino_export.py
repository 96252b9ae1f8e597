import json

import numpy as np
import pytest
import torch

import tectum.export
from tectum import Predictor, __version__, create_model
from tectum.data.pair import PairPaths
from tectum.data.synthetic import render_scene
from tectum.errors import ConfigError, InputError, MissingExtraError
from tectum.export import ExportError, export
from tectum.predict.backends import Raw, open_export

pytest.importorskip("openvino")
OpenVinoBackend = tectum.predict.backends.OpenVinoBackend


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


def test_equals_torch_at_any_size_and_batch(written, assert_equals_torch):
    assert_equals_torch(written.file)


def test_each_way_of_compiling_gives_the_same(written, monkeypatch, inputs):
    """First size: its own network; second: the one for any size; in the end its own, in place of the first."""
    monkeypatch.setattr(OpenVinoBackend, "REPEATS", 2)
    monkeypatch.setattr(OpenVinoBackend, "KEPT", 1)
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
    assert written.quality is None


def test_metadata_come_back(network, written):
    predictor = Predictor(written.file)
    assert predictor.name == "random"
    assert predictor.class_names == tuple(network.metadata["class_names"])
    assert predictor.palette.tolist() == network.metadata["palette"]
    metadata = predictor.backend.metadata
    assert (metadata["tectum"], metadata["licence"], metadata["precision"]) == (__version__, "CC-BY-4.0", "float32")
    assert (metadata["classes"], metadata["stride"], metadata["architecture"]) == (4, 32, "virmfs_b0")


def test_a_real_pair_is_in_the_check_where_there_is_one(network, table, tmp_path):
    report = export(network, tmp_path / "out" / "b0.xml", format="openvino", pairs=table[2:])
    assert (report.checks[1].content, report.checks[1].size) == ("scene2", (1, 96, 96))


def test_an_export_that_differs_leaves_what_was_there(network, tmp_path, monkeypatch):
    file = tmp_path / "b0.xml"
    file.write_text("old")
    run = OpenVinoBackend.run

    def wrong(self, visible, infrared):
        raw = run(self, visible, infrared)
        return Raw(raw.fused + np.float32(0.01), raw.logits)

    monkeypatch.setattr(OpenVinoBackend, "run", wrong)
    with pytest.raises(ExportError, match=r"differs from the one in torch \(random, 2 x 224x96: fused by 2\.5"):
        export(network, file, format="openvino")
    assert [path.name for path in tmp_path.iterdir()] == ["b0.xml"]
    assert file.read_text() == "old"


def test_not_a_number_fails_the_check(network, tmp_path):
    broken = create_model("virmfs_b0", classes=4).eval()
    torch.nn.init.constant_(broken.fusion_head.prediction.bias, float("nan"))
    with pytest.raises(ExportError, match="fused by nan"):
        export(broken, tmp_path / "b0.xml", format="openvino")
    assert list(tmp_path.iterdir()) == []


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
        ("b0.onnx", {"format": "onnx", "int8": True}, "use the format openvino"),
        ("b0.xml", {"format": "openvino", "int8": True}, "calibrated on pairs"),
    ],
)
def test_wrong_requests(network, tmp_path, file, more, message):
    with pytest.raises(ConfigError, match=message):
        export(network, tmp_path / file, **more)


def test_a_missing_package_names_the_extra(network, tmp_path, monkeypatch):
    def absent(package):
        raise tectum.export.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(tectum.export.metadata, "version", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'tectum\[openvino\]'"):
        export(network, tmp_path / "b0.xml", format="openvino")


def test_a_calibration_pair_that_cannot_be_read_is_named(network, table, tmp_path):
    table[1].infrared.write_bytes(b"")
    with pytest.raises(InputError, match=r"1i\.png"):
        export(network, tmp_path / "out" / "b0.xml", format="openvino", pairs=table, int8=True)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_int8(network, table, tmp_path):
    report = export(network, tmp_path / "out" / "b0.xml", format="openvino", pairs=table, int8=True)
    assert sorted(path.name for path in report.file.parent.iterdir()) == ["b0.bin", "b0.xml"]
    text = report.file.read_text()
    assert "FakeQuantize" in text or 'element_type="i8"' in text
    predictor = Predictor(report.file)
    assert predictor.backend.metadata["precision"] == "int8"
    exact = Predictor(network)
    differences, equal = [], []
    for done, quantised in zip(exact.stream(table), predictor.stream(table), strict=True):
        differences.append(255 * np.abs(done.result.luminance - quantised.result.luminance).ravel())
        equal.append((done.result.labels == quantised.result.labels).ravel())
    quality = report.quality
    assert quality.pairs == 3
    assert quality.fused_max == pytest.approx(np.concatenate(differences).max(), rel=1e-4)
    assert quality.fused_mean == pytest.approx(np.concatenate(differences).mean(), rel=1e-4)
    assert quality.labels == pytest.approx(np.concatenate(equal).mean(), abs=1e-4)
    assert 0 < quality.fused_mean < quality.fused_max
    assert quality.before.keys() == quality.after.keys() == {"qabf", "mi"}
    assert quality.before != quality.after


def test_description_is_json(network):
    assert json.loads(tectum.export.describe(network, "int8"))["precision"] == "int8"
