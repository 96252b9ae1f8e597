"""OpenVINO, on the CPU."""

import sys
from collections import Counter, OrderedDict
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from tectum.arrays import Float
from tectum.engines.base import FileEngine, Raw, memory_errors, missing_runtime, unreadable
from tectum.engines.description import METADATA_KEY
from tectum.machine import cpu_threads

Shape = tuple[int, ...]


class OpenVinoEngine(FileEngine):
    """Runs an OpenVINO file that `tectum export` wrote, on the CPU.

    A float32 file is computed in float32, and a bfloat16 file in bfloat16 where the processor has instructions for it,
    otherwise in float32. Of an INT8 file, what is not quantised is computed in what the processor is fastest in.

    A network compiled for one size runs faster than one for any size, and compiling takes a second or more. So the
    first size gets a network of its own, and each further size once it has come `REPEATS` times; until then one that
    takes any size runs it. At most `KEPT` of them are kept.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        WeightsError: the file is damaged, or of another origin.
    """

    runtime = "openvino"
    REPEATS = 4
    KEPT = 3

    def __init__(self, file: Path) -> None:
        openvino = import_openvino()
        self._core = openvino.Core()
        self._partial_shape = openvino.PartialShape
        try:
            self._network = self._core.read_model(file)
        except RuntimeError as error:
            raise unreadable(file, error) from None
        described = self._network.has_rt_info([METADATA_KEY])
        super().__init__(file, self._network.get_rt_info([METADATA_KEY]).astype(str) if described else None)
        self._lock = Lock()  # of all below
        self._sized: OrderedDict[Shape, _Compiled] = OrderedDict()  # least recently used first
        self._any_size: _Compiled | None = None
        self._seen: Counter[Shape] = Counter()

    def run(self, visible: Float, infrared: Float) -> Raw:
        inputs = {"visible": np.ascontiguousarray(visible), "infrared": np.ascontiguousarray(infrared)}
        with memory_errors("the CPU", visible):
            outputs = self._compiled(visible.shape)(inputs)
        return Raw(outputs["fused"][:, 0], outputs["logits"])

    def _compiled(self, shape: Shape) -> "_Compiled":
        """A compiled network for inputs of a size."""
        with self._lock:
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

    def _compile(self, shape: Shape) -> "_Compiled":
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
        return _Compiled(self._core.compile_model(network, "CPU", options))


class _Compiled:
    """A compiled network with as many requests as there are threads in it: one request serves one thread at a time."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._idle: list[Any] = []

    def __call__(self, inputs: dict[str, Float]) -> Any:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._network.create_infer_request()
        outputs = request.infer(inputs, share_inputs=True)  # copies: the next run may not change them
        self._idle.append(request)
        return outputs


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
        raise missing_runtime(error, "openvino", "openvino") from None
    return openvino


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16, as OpenVINO sees it.

    On some processors without them, OpenVINO computes in bfloat16 all the same if it is told to, but slowly.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
