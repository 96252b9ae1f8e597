"""Writing a network as a file that runs without torch: with all that is needed to run it, and checked."""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tectum.data.pair import PairPaths
from tectum.engines import openvino
from tectum.engines.base import EXTRAS
from tectum.engines.description import PRECISIONS, describe
from tectum.engines.open import open_export
from tectum.errors import ConfigError, MissingExtraError, TectumError
from tectum.export.check import Check, ExportError, compare, example_pair, require_equal
from tectum.export.samples import Samples
from tectum.weights import EXPORT_SUFFIXES

if TYPE_CHECKING:
    from tectum.models.base import FusionSegmenter

MOST_PAIRS = 300
"""At most so many pairs calibrate an INT8 file, and tell what a precision costs."""

# What writes and checks a file.
_EXPORTERS = {"onnx": ("torch", "onnx", "onnxscript", "onnxruntime"), "openvino": ("torch", "openvino")}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What `export` found out about the file that it wrote.

    Attributes:
        file: the file; the weights of an OpenVINO file lie beside it.
        checks: one for each input on which it was compared with the network.
    """

    file: Path
    checks: list[Check]


def export(
    model: "str | Path | FusionSegmenter",
    file: str | Path,
    *,
    format: str,
    pairs: Sequence[PairPaths] = (),
    precision: str = "float32",
) -> Report:
    """Write a network as a file that runs without torch and at any batch, height and width.

    The network is folded (`model.deploy()`), exported, and compared with its trained form in torch on random images and
    on a pair, in two sizes and a batch of two. Only if that passes the file gets its name.

    Args:
        model: a shipped name, a directory or file that `tectum.load` reads, or a network.
        file: where to write, with the suffix of its format; an older file is replaced.
        format: "onnx", or "openvino" for OpenVINO's IR (`file` and, beside it, its weights in a .bin file).
        pairs: the first of them is in the check, in place of a rendered scene. INT8 is calibrated on them all, or on
            `MOST_PAIRS` spread evenly over them. `tectum.evaluation.precision_cost` tells what a precision costs.
        precision: all but "float32" are for the format "openvino" only.
            "float32": computed in float32 on every processor. Passes its check with `LARGEST_DIFFERENCE`,
            `MEAN_DIFFERENCE` and `SMALLEST_AGREEMENT`, as do the others with theirs.
            "bfloat16": the file of "float32", computed in bfloat16 where the processor has instructions for it and in
            float32 elsewhere. Without such instructions here, float32 is what is compared, and a warning is logged.
            "int8": weights and activations quantised to 8 bits after training, by NNCF, except the invertible blocks of
            MAFS; what is not quantised is computed in what the processor is fastest in. Its differences are reported,
            and without a limit.

    Returns:
        The file, and its differences from the network.

    Raises:
        ConfigError: an unknown model, format or precision, a wrong suffix, or INT8 without pairs.
        InputError: one of the pairs cannot be read.
        ExportError: the network cannot be exported, or the result differs from it; nothing is left of the file.
        MissingExtraError: the packages of the format are not installed.
        WeightsError: the weights cannot be read.
    """
    file = Path(file)
    check_request(file, format, precision, pairs=bool(pairs))
    versions(format)  # before the weights are read
    from tectum.engines.torch import TorchEngine
    from tectum.models import load

    network = load(model) if isinstance(model, str | Path) else model
    table = spread(pairs, MOST_PAIRS)
    example = example_pair(table, network.stride)
    samples = Samples(table, network.stride) if precision == "int8" else None
    write = import_module(f"tectum.export.{format}").write
    with _staged(file) as temporary:
        try:
            write(network.deploy(), describe(network, precision), temporary, samples)
        except TectumError:
            raise
        except Exception as error:  # of the exporting packages, whatever it is
            found = ", ".join(f"{package} {version}" for package, version in versions(format).items())
            raise ExportError(
                f"'{network.metadata['name']}' could not be exported to {format} by {found}: "
                f"{type(error).__name__}, {next(iter(str(error).strip().splitlines()), 'without a message')}"
            ) from error
        if precision == "bfloat16" and not openvino.has_bfloat16():
            _log.warning("this processor has no instructions for bfloat16, so '%s' is compared in float32", file)
        checks = compare(TorchEngine(network), open_export(temporary), example)
        require_equal(checks, precision)
    return Report(file, checks)


def check_request(file: Path, format: str, precision: str, *, pairs: bool) -> None:
    """Raise ConfigError for what `export` cannot write, before anything is read."""
    if format not in EXPORT_SUFFIXES:
        raise ConfigError(f"there is no export format '{format}'; choose one of {', '.join(EXPORT_SUFFIXES)}")
    if file.suffix.lower() != EXPORT_SUFFIXES[format]:
        raise ConfigError(
            f"'{file}' must end in {EXPORT_SUFFIXES[format]}, by which a file of format {format} is known"
        )
    if precision not in PRECISIONS:
        raise ConfigError(f"there is no precision '{precision}'; choose one of {', '.join(PRECISIONS)}")
    if precision != "float32" and format != "openvino":
        raise ConfigError(f"the precision {precision} is for OpenVINO only: use the format openvino")
    if precision == "int8" and not pairs:
        raise ConfigError("INT8 is calibrated on pairs such as the network will see: give visible and infrared images")


def versions(format: str) -> dict[str, str]:
    """Versions of the packages that write a format.

    Raises:
        MissingExtraError: one is not installed.
    """
    try:
        return {package: metadata.version(package) for package in _EXPORTERS[format]}
    except metadata.PackageNotFoundError:
        raise MissingExtraError(f"exporting to {format}", EXTRAS[format]) from None


def spread(pairs: Sequence[PairPaths], most: int) -> list[PairPaths]:
    """At most `most` pairs, evenly spread."""
    count = min(len(pairs), most)
    return [pairs[index * len(pairs) // count] for index in range(count)]


@contextmanager
def _staged(file: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder beside `file`; on success what was written there replaces what was here."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.stem}.") as folder:
        yield Path(folder) / file.name
        written = sorted(Path(folder).iterdir())  # .bin before .xml
        if len(written) > 1:
            # No reader may find the new weights beside the old graph.
            file.unlink(missing_ok=True)
        for path in written:
            os.replace(path, file.with_name(path.name))
