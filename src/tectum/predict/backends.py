"""What runs the network for `Predictor`: arrays in, arrays out.

Only a backend knows its framework, and imports it when it is made; reading, padding, cropping and colour lie in
`tectum.predict.predictor` and need numpy alone.
"""

import ctypes
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tectum.errors import ConfigError, InputError, MissingExtraError, WeightsError
from tectum.export import EXTRAS, FORMATS, METADATA_KEY, ExportError, cache_file, export, read_description

if TYPE_CHECKING:
    import torch
    from torch import nn

Float = npt.NDArray[np.float32]

BACKENDS = ("auto", "torch", "compile", "onnx", "openvino")
"""What `Predictor(backend=...)` takes; see `create_backend`."""

_log = logging.getLogger(__name__)

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


class Raw(NamedTuple):
    """A network's output as arrays: `fused` float32 (B, H, W), not clamped, and `logits` float32 (B, K, H, W)."""

    fused: Float
    logits: Float


class Bands(Protocol):
    """Runs large images whole, in bounded memory."""

    def __call__(self, visible: Float, infrared: Float, rows: int) -> Iterator[Raw]:
        """What `Backend.run` gives, up to rounding, in bands of so many rows, from top to bottom.

        Args:
            visible, infrared: as for `Backend.run`.
            rows: height of a band, a multiple of `stride`. Memory grows with it; the last band may be less high.

        Raises:
            InputError: there is not enough memory.
        """


class Backend(Protocol):
    """Runs one network.

    Attributes:
        runtime: "torch", "compile", "onnx" or "openvino".
        name: what the network calls itself, for messages.
        classes: number of classes K.
        stride: height and width of the input must be multiples of it.
        metadata: what the weights say of themselves (`class_names`, `palette`, ...), and `architecture` where it is
            one of tectum's.
    """

    runtime: str
    name: str
    classes: int
    stride: int
    metadata: dict[str, Any]

    @property
    def bands(self) -> Bands | None:
        """The way to run large images whole; None where there is none, so that they have to be cut."""

    def run(self, visible: Float, infrared: Float) -> Raw:
        """Run visible (B, 3, H, W) and infrared (B, 1, H, W), float32 in [0, 1], H and W multiples of `stride`.

        Raises:
            InputError: there is not enough memory.
        """


def create_backend(model: "str | Path | nn.Module", device: str = "auto", backend: str = "auto") -> Backend:
    """The backend for a model.

    Args:
        model: a shipped name, a directory or file that `tectum.load` reads, a network, or a file that `tectum export`
            wrote (`.onnx`, or `.xml` with its `.bin` beside it), which runs without torch.
        device: as in `Predictor`; ONNX Runtime and OpenVINO run on the CPU.
        backend:
            "torch": PyTorch, eager; weights that are loaded run folded (`model.deploy()`).
            "compile": the same through `torch.compile`, which takes a minute for the first pair.
            "onnx", "openvino": ONNX Runtime or OpenVINO. Weights are exported when they are first run, which takes some
            seconds for OpenVINO and up to minutes for ONNX; the file is kept, see `tectum.export.cache_file`.
            "auto": for an exported file its runtime, for a network handed in torch. For weights, torch where the device
            is a GPU, otherwise OpenVINO where it is installed, then ONNX Runtime where the export has been kept, then
            torch.

    Raises:
        ConfigError: an unknown model, device or backend, or three that do not go together.
        MissingExtraError: the runtime is not installed.
        WeightsError: weights that cannot be read, or a file that `tectum export` did not write.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"there is no backend '{backend}'; choose one of {', '.join(BACKENDS)}")
    if not isinstance(model, str | Path):
        if backend in FORMATS:
            raise ConfigError(
                f"a network handed in runs in torch, not in backend {backend}: write it to a file with "
                "tectum.export.export and give that file"
            )
        return TorchBackend(model, device, compiled=backend == "compile")
    path = Path(model)
    suffix = path.suffix.lower()
    if suffix == ".bin":
        raise ConfigError(f"'{path}' holds only the weights of an OpenVINO file; give the .xml file beside it")
    for runtime, known in FORMATS.items():
        if suffix == known and not path.is_dir():
            if backend not in ("auto", runtime):
                raise ConfigError(f"'{path}' runs in backend {runtime}, not in {backend}; leave the backend out")
            _require_cpu(device, runtime)
            return open_export(path)
    if backend in FORMATS:
        _require_cpu(device, backend)
        return _exported(model, backend)
    if backend == "auto" and (device == "cpu" or (device == "auto" and not _has_gpu())):
        fastest = _fastest_export(model)
        if fastest is not None:
            return fastest
    return TorchBackend(model, device, compiled=backend == "compile")


def open_export(file: Path) -> Backend:
    """The backend of a file that `tectum export` wrote.

    Raises:
        ConfigError: there is no such file.
        MissingExtraError: its runtime is not installed.
        WeightsError: the file is damaged, or of another origin.
    """
    if not file.is_file():
        raise ConfigError(f"there is no file '{file}'; tectum export writes such files")
    return OnnxBackend(file) if file.suffix.lower() == FORMATS["onnx"] else OpenVinoBackend(file)


class TorchBackend:
    """Runs a `FusionSegmenter` in PyTorch, in inference mode.

    Args:
        model: a shipped name or a directory or file that `tectum.load` reads, which runs folded; or a network, which
            runs as it is.
        device: a torch device, or "auto": a network handed in stays where it is, a loaded one goes to the GPU where
            there is one.
        compiled: through `torch.compile`.

    A network handed in may be in training: each of its modules gets its own train or eval mode back after every run.
    Large images run in bands where the network is a ViR-MFS, which is folded for them if it is not yet.
    """

    def __init__(self, model: "str | Path | nn.Module", device: str = "auto", *, compiled: bool = False) -> None:
        import torch

        if isinstance(model, torch.nn.Module):
            self.model = model
            if device != "auto":
                self.model.to(torch_device(device))
        else:
            from tectum.models import load

            chosen = torch_device(device)  # before the weights are read: a wrong device should not cost a load
            self.model = load(model).deploy().to(chosen)
            if chosen.type == "cpu":
                keep_freed_memory()
        self.runtime = "compile" if compiled else "torch"
        self.metadata: dict[str, Any] = dict(self.model.metadata)  # type: ignore[arg-type]
        if isinstance(architecture := getattr(self.model, "architecture", None), str):
            self.metadata["architecture"] = architecture
        self.name = str(self.metadata.get("name", type(self.model).__name__))
        self.classes = int(self.model.classes)  # type: ignore[arg-type]
        self.stride = int(self.model.stride)  # type: ignore[arg-type]
        self._call: Any = torch.compile(self.model) if compiled else self.model

    def run(self, visible: Float, infrared: Float) -> Raw:
        import torch

        like = self._like()
        with _evaluating(self.model), torch.inference_mode(), self._failures(visible, like.device):
            return _raw(*self._call(_tensor(visible, like), _tensor(infrared, like))[:2])

    @property
    def bands(self) -> Bands | None:
        from tectum.models.virmfs import DeployedViRMFS, ViRMFS

        return self._bands if isinstance(self.model, DeployedViRMFS | ViRMFS) else None

    def _bands(self, visible: Float, infrared: Float, rows: int) -> Iterator[Raw]:
        from tectum.models.virmfs import DeployedViRMFS

        like = self._like()
        with self._failures(visible, like.device):
            network: Any = self.model
            if not isinstance(network, DeployedViRMFS):
                network = network.deploy().to(like)
            for fused, logits in network.bands(_tensor(visible, like), _tensor(infrared, like), rows):
                yield _raw(fused, logits)

    def _like(self) -> "torch.Tensor":
        """A tensor of the device and type that the network computes with."""
        import torch

        return next(chain(self.model.parameters(), self.model.buffers()), torch.empty(0))

    @contextmanager
    def _failures(self, visible: Float, device: "torch.device") -> Iterator[None]:
        """Raise errors of torch that are the machine's as those of `run`."""
        import torch

        try:
            with _memory_errors(str(device), visible):
                yield
        except RuntimeError as error:
            if self.runtime == "compile" and isinstance(error, torch._dynamo.exc.TorchDynamoException):
                cause = getattr(error, "inner_exception", error)
                raise ConfigError(
                    f"torch.compile does not work here ({_reason(cause, line=0)}); use the backend torch"
                ) from None
            raise


class OnnxBackend:
    """Runs an ONNX file that `tectum export` wrote, in ONNX Runtime on the CPU."""

    runtime = "onnx"
    bands = None

    def __init__(self, file: Path) -> None:
        # Its official builds would store an identifier of this machine and report to Microsoft.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise _missing(error, "onnxruntime", self.runtime) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_threads()
        options.log_severity_level = 4  # what goes wrong comes as an exception
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise _unreadable(file, error) from None
        self.metadata = read_description(self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), file)
        self.name: str = self.metadata["name"]
        self.classes: int = self.metadata["classes"]
        self.stride: int = self.metadata["stride"]

    def run(self, visible: Float, infrared: Float) -> Raw:
        inputs = {"visible": np.ascontiguousarray(visible), "infrared": np.ascontiguousarray(infrared)}
        with _memory_errors("the CPU", visible):
            fused, logits = self._session.run(["fused", "logits"], inputs)
        return Raw(fused[:, 0], logits)


class OpenVinoBackend:
    """Runs an OpenVINO file that `tectum export` wrote, on the CPU.

    A float32 file is computed in float32, and a bfloat16 file in bfloat16 where the processor has instructions for it,
    otherwise in float32. Of an INT8 file, what is not quantised is computed in what the processor is fastest in.

    A network compiled for one size runs faster than one for any size, and compiling takes a second or more. So the
    first size gets a network of its own, and each further size once it has come `REPEATS` times; until then one that
    takes any size runs it. At most `KEPT` of them are kept.
    """

    runtime = "openvino"
    bands = None
    REPEATS = 4
    KEPT = 3

    def __init__(self, file: Path) -> None:
        openvino = import_openvino()
        self._core = openvino.Core()
        self._partial_shape = openvino.PartialShape
        try:
            self._network = self._core.read_model(file)
        except RuntimeError as error:
            raise _unreadable(file, error) from None
        described = self._network.has_rt_info([METADATA_KEY])
        text = self._network.get_rt_info([METADATA_KEY]).astype(str) if described else None
        self.metadata = read_description(text, file)
        self.name: str = self.metadata["name"]
        self.classes: int = self.metadata["classes"]
        self.stride: int = self.metadata["stride"]
        self._sized: OrderedDict[tuple[int, ...], Any] = OrderedDict()  # least recently used first
        self._any_size: Any = None
        self._seen: Counter[tuple[int, ...]] = Counter()

    def run(self, visible: Float, infrared: Float) -> Raw:
        inputs = {"visible": np.ascontiguousarray(visible), "infrared": np.ascontiguousarray(infrared)}
        with _memory_errors("the CPU", visible):
            outputs = self._compiled(visible.shape)(inputs)
        return Raw(outputs["fused"][:, 0], outputs["logits"])

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        """A compiled network for inputs of a size."""
        self._seen[shape] += 1
        if shape in self._sized:
            self._sized.move_to_end(shape)
        elif not self._sized or self._seen[shape] >= self.REPEATS:
            if len(self._sized) == self.KEPT:
                self._sized.popitem(last=False)
            self._sized[shape] = self._compile(shape)
        else:
            if self._any_size is None:
                self._any_size = self._compile((-1, -1, -1, -1))
            return self._any_size
        return self._sized[shape]

    def _compile(self, shape: tuple[int, ...]) -> Any:
        batch, _, *size = shape
        network = self._network.clone()
        channels = {"visible": 3, "infrared": 1}
        network.reshape({name: self._partial_shape([batch, count, *size]) for name, count in channels.items()})
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": cpu_threads()}
        # Without a hint OpenVINO takes what the processor is fastest in.
        if self.metadata["precision"] == "float32":
            options["INFERENCE_PRECISION_HINT"] = "f32"
        elif self.metadata["precision"] == "bfloat16":
            options["INFERENCE_PRECISION_HINT"] = "bf16" if has_bfloat16() else "f32"
        return self._core.compile_model(network, "CPU", options)


def import_openvino() -> ModuleType:
    """The package openvino, without its telemetry, which would report conversions to Intel.

    Raises:
        MissingExtraError: it is not installed.
    """
    # OpenVINO and NNCF go without the package that sends where it cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise _missing(error, "openvino", "openvino") from None
    return openvino


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16, as OpenVINO sees it.

    On some processors without them, OpenVINO computes in bfloat16 all the same if it is told to, but slowly.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cpu_threads() -> int:
    """Threads for one network on the CPU: OMP_NUM_THREADS, or the physical cores that this process may use.

    A second thread on a core brings nothing to matrix products, and threads beyond a container's share wait.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    processors = os.sched_getaffinity(0)
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        cores = len({Path(topology.format(number)).read_text() for number in processors})
    except OSError:
        cores = len(processors)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        share = max(1, int(quota) // int(period))
    except (OSError, ValueError):  # not in a container, or one without a limit ("max")
        share = cores
    return min(cores, share)


@cache
def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, up to 1 GiB at a time, for what it allocates next.

    The C library of most Linux systems gives each large buffer back to the kernel, which clears every page anew when
    the next run needs it: at 640x480 a quarter to a half of the time of MAFS in torch. It is left as it is where the
    environment configures it, and on other systems nothing is done.
    """
    configured = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if sys.platform != "linux" or configured:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**30)


def torch_device(name: str) -> "torch.device":
    """The torch device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: torch does not know the name, or this machine lacks the device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)  # a device that torch can spell may still be absent
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"device '{name}' is not usable here; use auto, cpu, cuda, cuda:N or mps") from None
    return device


def _has_gpu() -> bool:
    """Whether torch has a GPU to run on. It is asked only where the system shows a sign of one: its import is slow."""
    drivers = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
    if sys.platform != "darwin" and not any(map(os.path.exists, drivers)) and shutil.which("nvidia-smi") is None:
        return False
    return torch_device("auto").type != "cpu"


def _require_cpu(device: str, runtime: str) -> None:
    if device not in ("auto", "cpu"):
        raise ConfigError(f"backend {runtime} runs on the CPU, not on '{device}'; use the device cpu or backend torch")


def _exported(model: str | Path, runtime: str) -> Backend:
    """The backend of exported weights; exports them if that has not been done, and keeps the file."""
    file = cache_file(model, runtime)
    kept = _open_kept(file) if file else None
    if kept is not None:
        return kept
    from tectum.models import load

    network = load(model)
    assert file is not None  # what can be loaded has a place in the cache
    with _writable(file.parent) as folder:
        _log.warning("exporting '%s' for backend %s, once; kept in %s", network.metadata["name"], runtime, folder)
        export(network, folder / file.name, format=runtime)
        return open_export(folder / file.name)


def _open_kept(file: Path) -> Backend | None:
    """The backend of a kept file; None where there is none, or a damaged one, which is removed."""
    try:
        return open_export(file) if file.is_file() else None
    except WeightsError:
        file.unlink()
        return None


@contextmanager
def _writable(folder: Path) -> Iterator[Path]:
    """Yield `folder`, or a temporary one where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
    else:
        yield folder


def _fastest_export(model: str | Path) -> Backend | None:
    """The backend of the weights in the fastest runtime for a CPU that is installed; None where that is torch."""
    with suppress(MissingExtraError):
        if cache_file(model, "openvino") is not None:
            try:
                return _exported(model, "openvino")
            except ExportError as error:
                _log.warning("%s; running in torch", error)
                return None
    with suppress(MissingExtraError):
        # Only what has been exported before: writing ONNX takes longer than many a folder of pairs in torch.
        file = cache_file(model, "onnx")
        return _open_kept(file) if file else None
    return None


def _missing(error: ModuleNotFoundError, package: str, runtime: str) -> Exception:
    return MissingExtraError(f"backend {runtime}", EXTRAS[runtime]) if error.name == package else error


def _unreadable(file: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"'{file}' cannot be read ({_reason(error)}): it is damaged, incomplete, or not written by tectum export; "
        "export it again"
    )


def _reason(error: Exception, line: int = -1) -> str:
    """One line of a message; by default the last, since the runtimes name their own sources in the lines before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[line].rstrip("!.") if lines else type(error).__name__


def _raw(fused: "torch.Tensor", logits: "torch.Tensor") -> Raw:
    return Raw(fused[:, 0].float().cpu().numpy(), logits.float().cpu().numpy())


def _tensor(array: Float, like: "torch.Tensor") -> "torch.Tensor":
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(device=like.device, dtype=like.dtype)


@contextmanager
def _evaluating(model: "nn.Module") -> Iterator[None]:
    # Not model.train() afterwards: parts of a network in training may be frozen in eval mode.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _memory_errors(device: str, visible: Float) -> Iterator[None]:
    """Raise a runtime's lack of memory as InputError; all else passes."""
    try:
        yield
    except Exception as error:  # the runtimes' exceptions have no common base
        if not _is_out_of_memory(error):
            raise
        raise _out_of_memory(device, visible) from None


def _is_out_of_memory(error: Exception) -> bool:
    # torch raises its own class on accelerators; the CPU's allocators are known by their messages alone.
    text = str(error).lower()
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or any(sign in text for sign in ("can't allocate memory", "failed to allocate", "bad_alloc"))


def _out_of_memory(device: str, visible: Float) -> InputError:
    count, _, height, width = visible.shape
    return InputError(
        f"out of memory on {device} for {count} pair(s) of {width}x{height}: "
        "use a smaller batch, smaller images, or another device"
    )
