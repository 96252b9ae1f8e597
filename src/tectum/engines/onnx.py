"""ONNX Runtime, on the CPU."""

import os
from pathlib import Path

import numpy as np

from tectum.arrays import Float
from tectum.engines.base import FileEngine, Raw, memory_errors, missing_runtime, unreadable
from tectum.engines.description import METADATA_KEY
from tectum.machine import cpu_threads


class OnnxEngine(FileEngine):
    """Runs an ONNX file that `tectum export` wrote.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        WeightsError: the file is damaged, or of another origin.
    """

    runtime = "onnx"

    def __init__(self, file: Path) -> None:
        # Its official builds would store an identifier of this machine and report to Microsoft.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise missing_runtime(error, "onnxruntime", self.runtime) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_threads()
        options.log_severity_level = 4  # what goes wrong comes as an exception
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise unreadable(file, error) from None
        super().__init__(file, self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))

    def run(self, visible: Float, infrared: Float) -> Raw:
        inputs = {"visible": np.ascontiguousarray(visible), "infrared": np.ascontiguousarray(infrared)}
        with memory_errors("the CPU", visible):
            fused, logits = self._session.run(["fused", "logits"], inputs)
        return Raw(fused[:, 0], logits)
