"""Writing a network as one ONNX file, its weights inside."""

import warnings
from pathlib import Path

import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch.export import Dim

from tectum.engines.description import METADATA_KEY
from tectum.models.base import Deployed

_MOST = 4096  # pairs of a batch, and multiples of the stride in height and width


def write(network: Deployed, description: str, file: Path, samples: None = None) -> None:
    """Write a deployed network in float32.

    Args:
        network: what `model.deploy()` gives.
        description: text of `tectum.engines.description.describe`.
        file: the .onnx file.
        samples: nothing, since ONNX files are not quantised.
    """
    stride = network.stride
    visible, infrared = (torch.zeros(2, channels, 2 * stride, 3 * stride) for channels in (3, 1))
    batch, rows, columns = (Dim(name, min=1, max=_MOST) for name in ("batch", "rows", "columns"))
    sizes = {0: batch, 2: stride * rows, 3: stride * columns}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            network.cpu(),
            (visible, infrared),
            input_names=["visible", "infrared"],
            output_names=["fused", "logits"],
            dynamic_shapes=(sizes, sizes),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # they quote the code that was traced, with its folder
    program.model.metadata_props[METADATA_KEY] = description
    program.save(file)
