import inspect
import logging
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from processes import run_python
from tectum import Predictor, create_model
from tectum.engines.torch import TorchEngine
from tectum.errors import ConfigError, MissingExtraError, WeightsError
from tectum.export import ExportError, export
from tectum.predict import cache as kept_exports
from tectum.predict import choice
from tectum.predict.cache import cache_file
from tectum.predict.choice import BACKENDS, create_engine
from tectum.weights import list_weights, resolve, shipped_folder

pytestmark = pytest.mark.slow  # exports

openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_model("virmfs_b0", classes=4).eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "random"
    network.save(folder)
    return folder


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    return export(network, tmp_path_factory.mktemp("exported") / "b0.xml", format="openvino").file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "_has_gpu", lambda: False)
    return tmp_path / "cache" / "tectum" / "exports"


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return {"visible": rng.random((40, 60, 3), np.float32), "infrared": rng.random((40, 60), np.float32)}


@pytest.fixture
def fast_export(file, monkeypatch):
    """Replace the export of any weights by a copy of `file`; returns where they went to."""
    made = []

    def copy(model, target, *, format):
        for source in (file, file.with_suffix(".bin")):
            target.with_suffix(source.suffix).write_bytes(source.read_bytes())
        made.append(target)

    monkeypatch.setattr(kept_exports, "export", copy)
    return made


# Of the modules that take long to import or report to their makers, those that are loaded.
PRINT_HEAVY = """
import sys
heavy = {"matplotlib", "nncf", "openvino_telemetry", "scipy", "skimage", "torch", "torchmetrics", "torchvision"}
print(sorted(name for name in heavy & set(sys.modules) if sys.modules[name]))
"""


def close(one, other):
    assert np.abs(one.luminance - other.luminance).max() < 1e-4
    assert (one.labels == other.labels).mean() > 0.999


def test_an_exported_file_runs_without_torch(network, file, tmp_path, pair):
    np.savez(tmp_path / "pair.npz", **pair)
    code = (
        "import numpy as np\n"
        "from tectum import Predictor\n"
        f"pair = np.load({str(tmp_path / 'pair.npz')!r})\n"
        f"predictor = Predictor({str(file)!r})\n"
        "result = predictor(visible=pair['visible'], infrared=pair['infrared'])\n"
        f"np.savez({str(tmp_path / 'result.npz')!r}, fused=result.fused, labels=result.labels)\n"
        "print(predictor.name, predictor.class_names[3], len(predictor.palette))\n"
    )
    assert run_python(code + PRINT_HEAVY) == "virmfs_b0 class 3 4\n[]\n"
    with np.load(tmp_path / "result.npz") as found:
        expected = Predictor(network)(**pair)
        assert np.abs(found["fused"].astype(int) - expected.fused).max() <= 1
        assert (found["labels"] == expected.labels).mean() > 0.999


@pytest.mark.parametrize("source", ["file", "weights"])
def test_tectum_fuse_starts_without_torch(source, file, weights, fast_export, tmp_path):
    """A file that has been exported, and weights whose export has been kept."""
    images = {side: tmp_path / f"a_{side}.png" for side in ("vis", "ir")}
    for image in images.values():
        Image.new("L", (60, 40), 90).save(image)
    if source == "weights":
        create_engine(weights, backend="openvino")
    arguments = [
        "fuse", "--model", str(file if source == "file" else weights), "--backend", "openvino",
        "--visible", str(images["vis"]), "--infrared", str(images["ir"]), "--out", str(tmp_path),
    ]  # fmt: skip
    code = f"from tectum.cli import app\napp({arguments!r}, standalone_mode=False)\n"
    printed = run_python(code + PRINT_HEAVY)
    assert "fused 1 of 1 pairs" in printed
    assert printed.splitlines()[-1] == "[]"


def test_weights_run_folded_and_a_network_as_it_is(network, weights, pair):
    loaded = create_engine(weights, backend="torch")
    assert loaded.name == "virmfs_b0"
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in loaded.model.modules())
    assert TorchEngine(network).model is network
    close(Predictor(weights, backend="torch")(**pair), Predictor(network)(**pair))


def test_weights_are_exported_once_and_kept(network, weights, cache, pair, caplog):
    with caplog.at_level(logging.WARNING):
        first = Predictor(weights, backend="openvino")
    assert "exporting 'virmfs_b0' for backend openvino, once" in caplog.text
    assert str(cache) in caplog.text
    written = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert sorted(path.suffix for path in written) == [".bin", ".xml"]
    caplog.clear()
    second = Predictor(weights, backend="openvino")
    assert caplog.text == ""
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == written
    for predictor in (first, second):
        assert predictor.engine.runtime == "openvino"
        close(predictor(**pair), Predictor(network)(**pair))


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_damaged_file_in_the_cache_is_made_again(weights, cache, fast_export, suffix):
    create_engine(weights, backend="openvino")
    (damaged,) = cache.glob(f"*{suffix}")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    create_engine(weights, backend="openvino")
    assert damaged.read_bytes() == whole
    assert len(fast_export) == 2


def test_without_a_cache_it_is_exported_to_a_temporary_folder(weights, tmp_path, fast_export, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    backend = create_engine(weights, backend="openvino")
    assert backend.classes == 4
    assert not fast_export[0].parent.exists()
    inputs = np.zeros((1, 3, 32, 32), np.float32), np.zeros((1, 1, 32, 32), np.float32)
    assert np.isfinite(backend.run(*inputs).fused).all()  # the weights are still there


def test_the_cache_knows_weights_metadata_and_versions(network, weights, tmp_path, monkeypatch):
    files = [cache_file(resolve(weights), "openvino"), cache_file(resolve(weights), "onnx")]
    for change in ({"metadata": {"name": "other"}}, {"arguments": {**network.arguments}}):
        other = create_model("virmfs_b0", classes=4)
        other.load_state_dict(network.state_dict())
        if "metadata" in change:
            other.metadata = change["metadata"]
        else:
            torch.nn.init.zeros_(other.fusion_head.prediction.bias)
        folder = tmp_path / str(len(files)) / "random"
        other.save(folder)
        files.append(cache_file(resolve(folder), "openvino"))
    monkeypatch.setattr("tectum.predict.cache.__version__", "0.0.1")
    files.append(cache_file(resolve(weights), "openvino"))
    assert len(set(files)) == len(files)
    assert all(file.name.startswith("random-") for file in files)
    assert cache_file(resolve(tmp_path / "nothing.pth"), "openvino") is None
    assert cache_file(resolve(tmp_path), "openvino") is None


@pytest.mark.parametrize("name", list_weights())
def test_the_cache_finds_shipped_weights_where_load_does(name):
    assert cache_file(resolve(name), "openvino") == cache_file(resolve(shipped_folder(name)), "openvino")


class TestAuto:
    def test_a_network_handed_in_runs_in_torch(self, network):
        assert create_engine(network).runtime == "torch"

    def test_a_file_runs_in_its_runtime(self, file):
        assert create_engine(str(file)).runtime == "openvino"

    @pytest.mark.usefixtures("fast_export")
    def test_openvino_on_a_cpu(self, weights):
        assert create_engine(weights).runtime == "openvino"
        assert create_engine(weights, "cpu").runtime == "openvino"

    def test_torch_on_a_gpu(self, weights, monkeypatch, fast_export):
        monkeypatch.setattr(choice, "_has_gpu", lambda: True)
        assert create_engine(weights).runtime == "torch"
        assert fast_export == []

    def test_torch_where_neither_runtime_is_installed(self, weights, monkeypatch, fast_export):
        def absent(package):
            raise PackageNotFoundError(package)

        monkeypatch.setattr("tectum.export.files.metadata.version", absent)
        assert create_engine(weights).runtime == "torch"
        assert fast_export == []

    def test_torch_where_the_export_fails(self, weights, monkeypatch, caplog):
        def fail(*_, **__):
            raise ExportError("it could not be exported")

        monkeypatch.setattr(kept_exports, "export", fail)
        assert create_engine(weights).runtime == "torch"
        assert "it could not be exported; running in torch" in caplog.text
        with pytest.raises(ExportError):
            create_engine(weights, backend="openvino")

    def test_weights_that_are_not_there(self, tmp_path):
        with pytest.raises(ConfigError, match="there are no weights 'virmfs_b9'"):
            create_engine("virmfs_b9")
        with pytest.raises(WeightsError, match=r"has no config\.json"):
            create_engine(tmp_path)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_gpu_is_looked_for_only_where_it_is_asked_for(device, weights, monkeypatch, fast_export):
    monkeypatch.setattr(choice, "_has_gpu", lambda: pytest.fail("asked") if device == "cpu" else False)
    assert create_engine(weights, device).runtime == "openvino"


def test_every_backend_name_but_no_other(network):
    assert BACKENDS == ("auto", "torch", "compile", "onnx", "openvino")
    with pytest.raises(ConfigError, match="no backend 'tensorrt'; choose one of auto, torch"):
        create_engine(network, backend="tensorrt")


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_network_handed_in_is_not_exported_behind_the_scenes(network, backend):
    with pytest.raises(ConfigError, match=r"a network handed in runs in torch.*tectum\.export\.export"):
        create_engine(network, backend=backend)


@pytest.mark.parametrize("backend", ["torch", "compile", "onnx"])
def test_the_wrong_backend_for_a_file(file, backend):
    with pytest.raises(ConfigError, match=rf"b0\.xml' runs in backend openvino, not in {backend}"):
        create_engine(file, backend=backend)


def test_the_wrong_device_for_a_file(file):
    with pytest.raises(ConfigError, match="backend openvino runs on the CPU, not on 'cuda'"):
        create_engine(file, "cuda")


def test_the_weights_of_an_openvino_file_alone(file):
    with pytest.raises(ConfigError, match=r"give the \.xml file beside it"):
        create_engine(file.with_suffix(".bin"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*none\.onnx"):
        create_engine(tmp_path / "none.onnx")


def truncated_graph(folder, file):
    (folder / "b0.xml").write_bytes(file.read_bytes()[:-5000])


def truncated_weights(folder, file):
    (folder / "b0.xml").write_bytes(file.read_bytes())
    (folder / "b0.bin").write_bytes(file.with_suffix(".bin").read_bytes()[:-5000])


def no_weights(folder, file):
    (folder / "b0.xml").write_bytes(file.read_bytes())


def no_graph(folder, file):
    (folder / "b0.xml").write_text("hello")


def empty(folder, file):
    (folder / "b0.xml").write_text("")


@pytest.mark.parametrize("damage", [truncated_graph, truncated_weights, no_weights, no_graph, empty])
def test_a_damaged_openvino_file(damage, file, tmp_path):
    damage(tmp_path, file)
    with pytest.raises(WeightsError, match=r"b0\.xml' cannot be read \([^\n]+\): it is damaged, incomplete, or not"):
        create_engine(tmp_path / "b0.xml")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x0a\x12\x07pytorch" * 100])
def test_a_damaged_onnx_file(content, tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "b0.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"b0\.onnx' cannot be read \([^\n]+\): it is damaged"):
        create_engine(tmp_path / "b0.onnx")


def test_a_file_of_another_origin(tmp_path):
    node = openvino.opset13.parameter([1, 3], np.float32)
    openvino.save_model(openvino.Model([node], [node], "other"), tmp_path / "other.xml")
    with pytest.raises(WeightsError, match=r"other\.xml' was not written by tectum export"):
        create_engine(tmp_path / "other.xml")


def write_other_onnx(file):
    onnx = pytest.importorskip("onnx")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["a"], ["b"])], "g", values[:1], values[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), file)


def test_an_onnx_file_of_another_origin(tmp_path):
    pytest.importorskip("onnxruntime")
    write_other_onnx(tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match=r"other\.onnx' was not written by tectum export"):
        create_engine(tmp_path / "other.onnx")


def test_onnx_runtime_reports_to_nobody(tmp_path):
    pytest.importorskip("onnxruntime")
    write_other_onnx(tmp_path / "other.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "from tectum.errors import WeightsError\n"
        "from tectum.predict.choice import create_engine\n"
        "try:\n"
        f"    create_engine({str(tmp_path / 'other.onnx')!r})\n"
        "except WeightsError as error:\n"
        "    print(error)\n"
    )
    assert "was not written by tectum export" in run_python(code, HOME=str(home), XDG_CACHE_HOME=str(home))
    assert list(home.iterdir()) == []  # where what is to be sent would wait, with the machine's identifier


def test_freed_memory_is_kept_only_where_weights_are_loaded_for_the_cpu(network, weights, monkeypatch):
    made = []
    monkeypatch.setattr(choice, "keep_freed_memory", lambda: made.append(1))
    TorchEngine(network)
    assert made == []  # a process that has a network of its own has settings of its own
    create_engine(weights, "meta", "torch")
    assert made == []
    create_engine(weights, backend="torch")
    assert made == [1]


def test_without_openvino_the_extra_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"backend openvino needs .*pip install 'tectum\[openvino\]'"):
        create_engine(file)


def test_compile_calls_the_compiled_network(network, monkeypatch, pair):
    seen = []

    def compiled(model):
        return lambda *inputs: seen.append(1) or model(*inputs)

    monkeypatch.setattr(torch, "compile", compiled)
    predictor = Predictor(network, backend="compile")
    assert predictor.engine.runtime == "compile"
    close(predictor(**pair), Predictor(network)(**pair))
    assert seen == [1]


class Tiny(nn.Module):
    """A network that is compiled in seconds."""

    classes, stride, metadata = 2, 1, {}

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, visible, infrared):
        return torch.sigmoid(visible.mean(1, keepdim=True) + infrared), torch.relu(self.convolution(visible)) + infrared


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")
def test_compile_at_several_sizes(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    network = Tiny()
    eager, compiled = TorchEngine(network), TorchEngine(network, compiled=True)
    rng = np.random.default_rng(0)
    for batch, height, width in ((1, 32, 48), (1, 40, 56), (2, 32, 48)):
        pair = [rng.random((batch, channels, height, width), np.float32) for channels in (3, 1)]
        expected, found = eager.run(*pair), compiled.run(*pair)
        np.testing.assert_allclose(found.fused, expected.fused, atol=1e-6)
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-6)
    assert any(tmp_path.rglob("*.so"))


def test_compile_without_a_compiler_is_one_sentence(tmp_path):
    code = (
        "import numpy as np, torch\n"
        "from torch import nn\n"
        "from tectum.errors import ConfigError\n"
        "from tectum.engines.torch import TorchEngine\n"
        f"{inspect.getsource(Tiny)}\n"
        "try:\n"
        "    TorchEngine(Tiny(), compiled=True).run(np.zeros((1, 3, 8, 8), 'f'), np.zeros((1, 1, 8, 8), 'f'))\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    (printed,) = run_python(code, PATH=str(tmp_path), CXX="none", TORCHINDUCTOR_CACHE_DIR=str(tmp_path)).splitlines()
    assert printed.startswith("torch.compile does not work here (No working C++ compiler found")
    assert printed.endswith("); use the backend torch")


@pytest.mark.parametrize("nested", [False, True])
def test_a_compiler_that_fails_is_one_sentence(nested, network, monkeypatch, pair):
    def compiled(model):
        def fail(*_):
            error = torch._dynamo.exc.TorchDynamoException("no C++ compiler found\n\nSet TORCH_LOGS for more.")
            if nested:
                raise torch._dynamo.exc.BackendCompilerFailed("inductor", error, [])
            raise error

        return fail

    monkeypatch.setattr(torch, "compile", compiled)
    with pytest.raises(ConfigError, match=r"torch\.compile does not work here \(no C\+\+ compiler found\); use the"):
        Predictor(network, backend="compile")(**pair)
