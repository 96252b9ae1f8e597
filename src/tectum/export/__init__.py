"""Exported files: a network with all that is needed to run it, for ONNX Runtime or OpenVINO."""

from tectum.export.check import Check, ExportError
from tectum.export.files import Report, check_request, export

__all__ = ["Check", "ExportError", "Report", "check_request", "export"]
