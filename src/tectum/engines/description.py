"""What an exported file says of itself: one JSON text in its metadata."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tectum import __version__
from tectum.errors import WeightsError

if TYPE_CHECKING:
    from tectum.models.base import FusionSegmenter

METADATA_KEY = "tectum"
"""Where a file's description is: in ONNX's metadata_props, in OpenVINO's rt_info."""

PRECISIONS = ("float32", "bfloat16", "int8")
"""What a file can be computed in; all but the first for OpenVINO only."""


def describe(model: "FusionSegmenter", precision: str) -> str:
    """What an exported file says of itself: JSON of the network's metadata and of what is needed to run it.

    Next to the entries of `model.metadata` (`class_names` and `palette` among them) it has `name`, `classes`, `stride`,
    `architecture`, `precision` (of `PRECISIONS`), `tectum` (the version that wrote it), `bytes_per_pixel` and `licence`
    (of the weights; "not stated" where their metadata have none).
    """
    return json.dumps(
        {
            "licence": "not stated",
            "name": model.architecture,
            **model.metadata,
            "classes": model.classes,
            "stride": model.stride,
            "architecture": model.architecture,
            "bytes_per_pixel": dict(model.bytes_per_pixel),
            "precision": precision,
            "tectum": __version__,
        }
    )


def read_description(text: str | None, file: Path) -> dict[str, Any]:
    """The entries of `describe`, from the text in a file's metadata.

    Raises:
        WeightsError: there is no such text, it lacks what is needed to run the file, or the precision is unknown.
    """
    try:
        description = json.loads(text or "")
        ready = all(isinstance(description[key], int) for key in ("classes", "stride"))
        ready = ready and all(isinstance(description[key], str) for key in ("name", "precision"))
    except (ValueError, TypeError, KeyError):
        ready = False
    if not ready:
        raise WeightsError(f"'{file}' was not written by tectum export: its metadata do not describe a network")
    if description["precision"] not in PRECISIONS:
        raise WeightsError(
            f"'{file}' is of precision '{description['precision']}', which tectum {__version__} does not know: update "
            f"tectum, or export the weights again in one of {', '.join(PRECISIONS)}"
        )
    # Files of older versions do not say it.
    declared = description.get("bytes_per_pixel")
    description["bytes_per_pixel"] = declared if isinstance(declared, dict) else {}
    return description
