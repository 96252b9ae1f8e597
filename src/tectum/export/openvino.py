"""Writing a network as OpenVINO's IR: `NAME.xml` with the graph and, beside it, `NAME.bin` with the weights."""

import warnings
from pathlib import Path
from typing import Any

import torch

from tectum.engines.description import METADATA_KEY
from tectum.engines.openvino import import_openvino
from tectum.errors import MissingExtraError
from tectum.export.samples import Samples
from tectum.models.base import Deployed


def write(network: Deployed, description: str, file: Path, samples: Samples | None = None) -> None:
    """Write a deployed network with weights in float32 or, with `samples`, quantised to INT8.

    A bfloat16 file has float32 weights too: OpenVINO rounds them where it computes in bfloat16, and elsewhere the file
    still gives what the network gives.

    Args:
        network: what `model.deploy()` gives.
        description: text of `tectum.engines.description.describe`.
        file: the .xml file; the .bin file is written beside it.
        samples: what INT8 is calibrated on.

    Raises:
        MissingExtraError: OpenVINO, or for INT8 NNCF, is not installed.
    """
    openvino = import_openvino()
    height, width = 2 * network.stride, 3 * network.stride
    example = {"visible": torch.zeros(2, 3, height, width), "infrared": torch.zeros(2, 1, height, width)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # OpenVINO still traces by torch.jit
        model = openvino.convert_model(network.cpu(), example_input=example)
    model.reshape({name: openvino.PartialShape([-1, tensor.shape[1], -1, -1]) for name, tensor in example.items()})
    for output, name in zip(model.outputs, ("fused", "logits"), strict=True):
        output.get_tensor().set_names({name})
    if samples is not None:
        model = _quantise(model, samples, network.unquantised_modules)
    model.set_rt_info(description, [METADATA_KEY])
    openvino.save_model(model, file, compress_to_fp16=False)


def _quantise(model: Any, samples: Samples, unquantised: tuple[str, ...]) -> Any:
    try:
        import nncf
    except ModuleNotFoundError as error:
        if error.name != "nncf":
            raise
        raise MissingExtraError("INT8 quantisation", "openvino") from None
    return nncf.quantize(
        model,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
        # Not every network has all that its family declares.
        ignored_scope=nncf.IgnoredScope(patterns=[f".*{name}.*" for name in unquantised], validate=False),
    )
