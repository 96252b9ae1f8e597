"""Exported files: a network with all that is needed to run it, for ONNX Runtime or OpenVINO.

`export` writes one, and compares it with the network before the file gets its name. What the file says of itself
(`describe`) is one JSON text in its metadata, under the key "tectum". Importing this module does not import torch.
"""

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tectum import __version__
from tectum.data.pair import Pair, PairPaths, read_pair
from tectum.errors import ConfigError, InputError, MissingExtraError, TectumError, WeightsError

if TYPE_CHECKING:
    from tectum.models.base import FusionSegmenter
    from tectum.predict.backends import Backend

Float = npt.NDArray[np.float32]

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
"""Suffix of each format's files; the weights of an OpenVINO file lie beside it, with the suffix .bin."""

EXTRAS = {"onnx": "export", "openvino": "openvino"}
"""The optional extra that each format needs."""

PRECISIONS = ("float32", "bfloat16", "int8")
"""What a file can be computed in; all but the first for OpenVINO only."""

METADATA_KEY = "tectum"
"""Where a file's description is: in ONNX's metadata_props, in OpenVINO's rt_info."""

# Below float32 single pixels may differ by anything: a choice between the sources falls the other way, and the
# invertible blocks of MAFS amplify rounding, most of all with random weights. So the mean counts, and only gross faults
# can fail.
LARGEST_DIFFERENCE = {"float32": 0.1, "bfloat16": math.inf, "int8": math.inf}
"""Largest difference of the fused image, in grey levels of 1/255, with which a file of a precision passes its check."""

MEAN_DIFFERENCE = {"float32": 0.1, "bfloat16": 16.0, "int8": math.inf}
"""The same for the mean difference."""

SMALLEST_AGREEMENT = {"float32": 0.999, "bfloat16": 0.9, "int8": 0.0}
"""Smallest share of pixels with the same label with which a file of a precision passes its check."""

MOST_PAIRS = 300
"""At most so many pairs calibrate an INT8 file, and tell what a precision costs."""

# What writes and checks a file.
_EXPORTERS = {"onnx": ("torch", "onnx", "onnxscript", "onnxruntime"), "openvino": ("torch", "openvino")}

# Neither of them is the size that is traced, and their multiples of the stride are odd as well as even.
_RANDOM_CHECK, _SCENE_CHECK = (3, 7), (4, 5)
_SCENE_SEED = 9  # a street by day with people, cars and bikes
_CROP = (480, 640)  # of real pairs, for the check and the calibration

_log = logging.getLogger(__name__)


class ExportError(TectumError):
    """A network that cannot be exported, or whose export does not equal it."""


@dataclass(frozen=True)
class Check:
    """How an exported file differs from the network in torch, on one input.

    Attributes:
        content: "random", "rendered scene" or a pair's name.
        size: batch, height and width.
        fused: largest difference of the fused images, in grey levels of 1/255.
        fused_mean: mean difference of the fused images, in the same.
        labels: share of the pixels with the same label.
    """

    content: str
    size: tuple[int, int, int]
    fused: float
    fused_mean: float
    labels: float


@dataclass(frozen=True)
class Quality:
    """What a precision below float32 costs, on given pairs at their own size; for INT8 those that calibrated it.

    Attributes:
        pairs: how many.
        fused_max: largest difference of the fused luminance, in grey levels of 1/255.
        fused_mean: mean absolute difference, in the same.
        labels: share of the pixels with the same label.
        before: means of the fusion metrics `qabf` and `mi` of the network in torch.
        after: the same of the file.
    """

    pairs: int
    fused_max: float
    fused_mean: float
    labels: float
    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True)
class Report:
    """What `export` found out about the file that it wrote.

    Attributes:
        file: the file; the weights of an OpenVINO file lie beside it.
        checks: one for each input on which it was compared with the network.
        quality: what the precision costs; None for float32, and for bfloat16 without pairs.
    """

    file: Path
    checks: list[Check]
    quality: Quality | None = None


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
            300 spread evenly over them, and the same tell what bfloat16 or INT8 costs.
        precision: all but "float32" are for the format "openvino" only.
            "float32": computed in float32 on every processor. Passes its check with `LARGEST_DIFFERENCE`,
            `MEAN_DIFFERENCE` and `SMALLEST_AGREEMENT`, as do the others with theirs.
            "bfloat16": the file of "float32", computed in bfloat16 where the processor has instructions for it and in
            float32 elsewhere. Without such instructions here, float32 is what is compared, and a warning is logged.
            "int8": weights and activations quantised to 8 bits after training, by NNCF, except the invertible blocks of
            MAFS; what is not quantised is computed in what the processor is fastest in. Its differences are reported,
            and without a limit.

    Returns:
        The file, its differences from the network, and where pairs are given its loss of quality by the precision.

    Raises:
        ConfigError: an unknown model, format or precision, a wrong suffix, or INT8 without pairs.
        InputError: one of the pairs cannot be read.
        ExportError: the network cannot be exported, or the result differs from it; nothing is left of the file.
        MissingExtraError: the packages of the format are not installed.
        WeightsError: the weights cannot be read.
    """
    file = Path(file)
    check_request(file, format, precision, pairs=bool(pairs))
    _versions(format)  # before the weights are read
    from tectum.models import load
    from tectum.predict.backends import TorchBackend, has_bfloat16, open_export

    network = load(model) if isinstance(model, str | Path) else model
    reference = TorchBackend(network)
    table = _spread(pairs, MOST_PAIRS)
    example = _example_pair(table, network.stride)
    samples = Samples(table, network.stride) if precision == "int8" else None
    write = import_module(f"tectum.export.{format}").write
    with _staged(file) as temporary:
        try:
            write(network.deploy(), describe(network, precision), temporary, samples)
        except TectumError:
            raise
        except Exception as error:  # of the exporting packages, whatever it is
            found = ", ".join(f"{package} {version}" for package, version in _versions(format).items())
            raise ExportError(
                f"'{network.metadata['name']}' could not be exported to {format} by {found}: "
                f"{type(error).__name__}, {next(iter(str(error).strip().splitlines()), 'without a message')}"
            ) from error
        if precision == "bfloat16" and not has_bfloat16():
            _log.warning("this processor has no instructions for bfloat16, so '%s' is compared in float32", file)
        checks = _compare(reference, open_export(temporary), example)
        _require_equal(checks, precision)
        quality = _quality(network, temporary, table) if table and precision != "float32" else None
    return Report(file, checks, quality)


def check_request(file: Path, format: str, precision: str, *, pairs: bool) -> None:
    """Raise ConfigError for what `export` cannot write, before anything is read."""
    if format not in FORMATS:
        raise ConfigError(f"there is no export format '{format}'; choose one of {', '.join(FORMATS)}")
    if file.suffix.lower() != FORMATS[format]:
        raise ConfigError(f"'{file}' must end in {FORMATS[format]}, by which a file of format {format} is known")
    if precision not in PRECISIONS:
        raise ConfigError(f"there is no precision '{precision}'; choose one of {', '.join(PRECISIONS)}")
    if precision != "float32" and format != "openvino":
        raise ConfigError(f"the precision {precision} is for OpenVINO only: use the format openvino")
    if precision == "int8" and not pairs:
        raise ConfigError("INT8 is calibrated on pairs such as the network will see: give visible and infrared images")


def describe(model: "FusionSegmenter", precision: str) -> str:
    """What an exported file says of itself: JSON of the network's metadata and of what is needed to run it.

    Next to the entries of `model.metadata` (`class_names` and `palette` among them) it has `name`, `classes`, `stride`,
    `architecture`, `precision` (of `PRECISIONS`), `tectum` (the version that wrote it) and `licence` (of the
    weights; "not stated" where their metadata have none).
    """
    return json.dumps(
        {
            "licence": "not stated",
            "name": model.architecture,
            **model.metadata,
            "classes": model.classes,
            "stride": model.stride,
            "architecture": model.architecture,
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
    return description


def cache_file(model: str | Path, format: str) -> Path | None:
    """Where the export of a shipped name, a saved directory or a weights file is kept for the next time.

    It lies in $XDG_CACHE_HOME/tectum/exports, by default ~/.cache/tectum/exports, which can be deleted at any time. Its
    name holds a digest of the weights and of the versions of tectum and of the packages that write it, so that it is
    never out of date. None where there are no weights of that name.

    Raises:
        MissingExtraError: the packages of the format are not installed.
    """
    path = _weights_path(model)
    # By name, for tectum.models would import torch.
    sources = [path / "config.json", path / "model.safetensors"] if path.is_dir() else [path]
    if not all(source.is_file() for source in sources):
        return None
    digest = hashlib.sha256(json.dumps([__version__, _versions(format)]).encode())
    for source in sources:
        digest.update(str(source.stat().st_size).encode())
        with source.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tectum" / "exports"
    return folder / f"{path.stem}-{digest.hexdigest()[:16]}{FORMATS[format]}"


def _weights_path(model: str | Path) -> Path:
    """The folder of shipped weights, or the path itself; as `tectum.load` resolves it, but without importing torch."""
    shipped = Path(__file__).parents[1] / "models" / "weights" / str(model)
    return shipped if isinstance(model, str) and (shipped / "config.json").is_file() else Path(model)


def _versions(format: str) -> dict[str, str]:
    """Versions of the packages that write a format.

    Raises:
        MissingExtraError: one is not installed.
    """
    try:
        return {package: metadata.version(package) for package in _EXPORTERS[format]}
    except metadata.PackageNotFoundError:
        raise MissingExtraError(f"exporting to {format}", EXTRAS[format]) from None


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


class Samples:
    """Pairs as inputs {"visible": (1, 3, H, W), "infrared": (1, 1, H, W)}, read anew in each iteration."""

    def __init__(self, table: Sequence[PairPaths], stride: int) -> None:
        self.table, self.stride = table, stride

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[dict[str, Float]]:
        for paths in self.table:
            visible, infrared = _inputs(read_pair(paths), self.stride)
            yield {"visible": visible, "infrared": infrared}


def _inputs(pair: Pair, stride: int) -> tuple[Float, Float]:
    """The middle of a pair, at most 640x480 and mirrored up to multiples of `stride`: (1, 3, H, W), (1, 1, H, W)."""
    sides = [min(side, most // stride * stride) for side, most in zip(pair.infrared.shape, _CROP, strict=True)]
    top, left = ((whole - side) // 2 for whole, side in zip(pair.infrared.shape, sides, strict=True))
    margins = [(0, -side % stride) for side in sides]
    visible = np.pad(pair.visible[top : top + sides[0], left : left + sides[1]], [*margins, (0, 0)], mode="symmetric")
    infrared = np.pad(pair.infrared[top : top + sides[0], left : left + sides[1]], margins, mode="symmetric")
    return visible.transpose(2, 0, 1)[None], infrared[None, None]


def _spread(pairs: Sequence[PairPaths], most: int) -> list[PairPaths]:
    """At most `most` pairs, evenly spread."""
    count = min(len(pairs), most)
    return [pairs[index * len(pairs) // count] for index in range(count)]


def _example_pair(table: Sequence[PairPaths], stride: int) -> tuple[str, Float, Float]:
    """The first pair, or a rendered scene: what it is, visible (1, 3, H, W) and infrared (1, 1, H, W)."""
    if table:
        return table[0].name, *_inputs(read_pair(table[0]), stride)
    from tectum.data.synthetic import render_scene

    height, width = (side * stride for side in _SCENE_CHECK)
    return "rendered scene", *_inputs(render_scene(_SCENE_SEED, (height, width), "day"), stride)


def _compare(reference: "Backend", exported: "Backend", example: tuple[str, Float, Float]) -> list[Check]:
    """Run both on two random pairs at once and on one real or rendered pair."""
    rng = np.random.default_rng(0)
    height, width = (side * reference.stride for side in _RANDOM_CHECK)
    random = (
        "random",
        rng.random((2, 3, height, width), np.float32),
        rng.random((2, 1, height, width), np.float32),
    )
    checks = []
    for content, visible, infrared in (random, example):
        expected, found = reference.run(visible, infrared), exported.run(visible, infrared)
        difference = 255 * np.abs(found.fused - expected.fused)
        checks.append(
            Check(
                content,
                (len(visible), *visible.shape[2:]),
                float(difference.max()),
                float(difference.mean()),
                float((found.logits.argmax(1) == expected.logits.argmax(1)).mean()),
            )
        )
    return checks


def _require_equal(checks: Sequence[Check], precision: str) -> None:
    for check in checks:
        # Written so that NaN fails, whatever the precision.
        passes = check.fused <= LARGEST_DIFFERENCE[precision] and check.fused_mean <= MEAN_DIFFERENCE[precision]
        if not (passes and check.labels >= SMALLEST_AGREEMENT[precision]):
            batch, height, width = check.size
            raise ExportError(
                f"the exported network differs from the one in torch ({check.content}, {batch} x {width}x{height}: "
                f"fused by {check.fused_mean:.3g} of 255 in the mean, {check.fused:.3g} at most, "
                f"{100 * check.labels:.2f} % of the labels equal), so nothing was written: the weights may hold NaN, "
                "or the exporting packages may have a fault"
            )


def _quality(network: "FusionSegmenter", file: Path, table: Sequence[PairPaths]) -> Quality:
    """What a file's precision costs on `table`, by the whole path that a user's pair takes."""
    import torch

    from tectum.metrics.fusion import FusionScores
    from tectum.predict import Done, Predictor

    largest, total, equal, pixels = 0.0, 0.0, 0, 0
    scores = [FusionScores(metrics=("qabf", "mi")) for _ in range(2)]
    streams = (Predictor(network).stream(table), Predictor(file).stream(table))
    for both in zip(*streams, strict=True):
        results = []
        for done, means in zip(both, scores, strict=True):
            if not isinstance(done, Done):
                raise InputError(f"pair '{done.name}' cannot be used: {done.message}")
            results.append(done.result)
            means.update(*(torch.from_numpy(image)[None] for image in done.compared()))
        exact, rounded = results
        difference = 255 * np.abs(rounded.luminance - exact.luminance)
        largest, total = max(largest, float(difference.max())), total + float(difference.sum(dtype=np.float64))
        equal, pixels = equal + int((rounded.labels == exact.labels).sum()), pixels + exact.labels.size
    before, after = ({key: float(value) for key, value in means.compute().items()} for means in scores)
    return Quality(len(table), largest, total / pixels, equal / pixels, before, after)
