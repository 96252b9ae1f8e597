"""What a benchmark runs in processes of its own: the rows, the machine's own limit, and what prepares them."""

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tectum.arrays import Float
from tectum.bench.process import peak_memory, status_bytes
from tectum.bench.results import Rates, Throughput
from tectum.data.pair import InputWarning, PairPaths, read_pair
from tectum.engines.base import Bands, Engine, Raw
from tectum.engines.openvino import has_bfloat16
from tectum.errors import ConfigError, InputError
from tectum.export import export
from tectum.machine import free_memory
from tectum.predict import Predictor, Result
from tectum.predict.tiling import round_up
from tectum.predict.writing import write_results
from tectum.weights import EXPORT_SUFFIXES, resolve

if TYPE_CHECKING:
    from tectum.models import FusionSegmenter

PUBLISHED, MODULE, BFLOAT16, INT8 = "published", "module", "openvino bfloat16", "openvino int8"
"""Rows beside the names of backends."""

_SEED = 0
_PRODUCT_SIDE = 1024
_CHANNELS, _IMAGE_SIDE = 128, 56
_LIMIT_CALLS = 5
# Of the free memory, for one row: other programs may ask for some meanwhile.
_MEMORY_SHARE = 0.9


class Run(NamedTuple):
    """One pair: seconds as a whole, seconds in the network, how many tiles it ran on, and whether it ran in bands."""

    seconds: float
    network: float
    tiles: int
    bands: bool


class Subject:
    """One row: a `Predictor` on the CPU with the pair that it is timed on.

    Args:
        row: "published", "module", a backend's name, "openvino bfloat16" or "openvino int8".
        source: what `tectum.load` reads; for the backends onnx and openvino an exported file.
        pair: is read once.
    """

    def __init__(self, row: str, source: str, pair: PairPaths) -> None:
        warnings.simplefilter("ignore", InputWarning)  # of tiles: their number is reported
        self.pair = read_pair(pair)
        self.predictor = _predictor(row, source)
        self._watch = _Stopwatch(self.predictor.engine)
        self.predictor.engine = cast(Engine, self._watch)
        self._result: Result | None = None
        _limit_memory()  # packages map far more than they use while they are loaded

    def run(self) -> Run:
        """Time one pair."""
        self._result = None  # its memory is not part of a run's
        self._watch.reset()
        started = time.perf_counter()
        self._result = self.predictor.batch([self.pair])[0]
        return Run(time.perf_counter() - started, self._watch.seconds, max(1, self._watch.runs), self._watch.runs == 0)

    def result(self) -> Result | None:
        """What the last run made of the pair."""
        return self._result

    def peak(self) -> int | None:
        """Most bytes that this process has held; None where the system does not tell."""
        return peak_memory()

    def folder(self, pairs: Sequence[PairPaths], count: int) -> Throughput:
        """Fuse `count` pairs, repeated if there are fewer, as `tectum fuse` does."""
        table = [replace(pair, name=f"{number}") for number, pair in enumerate(islice(cycle(pairs), count))]
        with tempfile.TemporaryDirectory() as out:
            started = time.perf_counter()
            written, failed = write_results(
                self.predictor,
                table,
                Path(out),
                ("fused", "labels"),
                batch=1,
                read=read_pair,
            )
            seconds = time.perf_counter() - started
        if failed:
            raise InputError(failed[0].message)
        return Throughput(len(written), len(written) / seconds)


class _Stopwatch:
    """An engine that measures the time in its network; in all else it is the other one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.reset()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def reset(self) -> None:
        self.seconds, self.runs = 0.0, 0

    def run(self, visible: Float, infrared: Float) -> Raw:
        started = time.perf_counter()
        raw = self._engine.run(visible, infrared)
        self.seconds += time.perf_counter() - started
        self.runs += 1
        return raw

    @property
    def bands(self) -> Bands | None:
        return self._bands if self._engine.bands else None

    def _bands(self, visible: Float, infrared: Float, rows: int) -> Iterator[Raw]:
        assert self._engine.bands is not None
        bands = iter(self._engine.bands(visible, infrared, rows))
        while True:
            started = time.perf_counter()
            raw = next(bands, None)
            self.seconds += time.perf_counter() - started
            if raw is None:
                return
            yield raw


class Limits:
    """The machine's own limit in torch, in float32, with as many threads as the rows in torch have.

    The library of matrix products does not reach the limit of every processor; that of convolutions, which are matrix
    products too, may come nearer.
    """

    def __init__(self) -> None:
        import torch

        self.threads = torch.get_num_threads()
        generator = torch.Generator().manual_seed(_SEED)
        self._a, self._b = (torch.randn(_PRODUCT_SIDE, _PRODUCT_SIDE, generator=generator) for _ in range(2))
        self._image = torch.randn(1, _CHANNELS, _IMAGE_SIDE, _IMAGE_SIDE, generator=generator)
        self._kernel = torch.randn(_CHANNELS, _CHANNELS, 3, 3, generator=generator)
        self.run()

    def run(self) -> Rates:
        """Measure both once."""
        import torch

        operations = 2 * _PRODUCT_SIDE**3, 2 * 9 * (_CHANNELS * _IMAGE_SIDE) ** 2
        with torch.inference_mode():
            return Rates(
                self.threads,
                operations[0] / _seconds(lambda: torch.mm(self._a, self._b)) / 1e9,
                operations[1] / _seconds(lambda: torch.conv2d(self._image, self._kernel, padding=1)) / 1e9,
            )


def _seconds(call: Callable[[], object]) -> float:
    """Of one call, in the mean of some."""
    started = time.perf_counter()
    for _ in range(_LIMIT_CALLS):
        call()
    return (time.perf_counter() - started) / _LIMIT_CALLS


@dataclass(frozen=True)
class Model:
    """A network to be measured: its name, what `tectum.load` reads, and where the weights come from."""

    name: str
    source: str
    weights: str


class Preparation:
    """Everything that rows need and that should not be seen in their processes.

    Args:
        folder: for random weights and exported files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def describe(self, model: str) -> Model:
        """Look a model up: a shipped name, what `tectum.load` reads, or an architecture, which gets random weights."""
        from tectum.models import list_models

        if model in list_models():
            _random(model).save(self.folder / model)
            return Model(model, str(self.folder / model), "random")
        name = _load(model).metadata["name"]
        return Model(name, model, "shipped" if resolve(model).kind == "shipped" else "saved")

    def gigaflops(self, source: str, size: tuple[int, int]) -> dict[str, float]:
        """10^9 operations of the network "published", as "module" and "folded", for a pair of (height, width)."""
        from tectum.bench.published import gigaflops, published

        model = _load(source)
        networks = {}
        with suppress(ValueError):  # options that were not published
            networks[PUBLISHED] = published(model)
        networks.update({MODULE: model, "folded": model.deploy()})
        height, width = (round_up(side, model.stride) for side in size)
        return {name: gigaflops(network, height, width) for name, network in networks.items()}

    def export(self, source: str, row: str, calibration: Sequence[PairPaths]) -> str:
        """Export for the row "onnx", "openvino", "openvino bfloat16" or "openvino int8"; gives the file.

        Raises:
            ConfigError: this processor would run the row of bfloat16 in float32.
        """
        if row == BFLOAT16 and not has_bfloat16():
            raise ConfigError("this processor has no instructions for bfloat16")
        format, _, precision = row.partition(" ")
        file = self.folder / f"{row.replace(' ', '_')}{EXPORT_SUFFIXES[format]}"
        export(source, file, format=format, pairs=calibration, precision=precision or "float32")
        return str(file)


def _predictor(row: str, source: str) -> Predictor:
    if row == MODULE:
        return Predictor(_load(source), "cpu", "torch", tile="off")
    if row == PUBLISHED:
        from tectum.bench.published import published

        model = _load(source)
        network = published(model)
        for attribute in ("classes", "stride", "metadata"):
            setattr(network, attribute, getattr(model, attribute))
        return Predictor(network, "cpu", "torch", tile="off")
    return Predictor(source, "cpu", row.split()[0])


def _load(source: str) -> "FusionSegmenter":
    from tectum.models import load

    return load(source)


def _random(architecture: str) -> "FusionSegmenter":
    import torch

    from tectum.models import create_model

    torch.manual_seed(_SEED)
    return create_model(architecture)


def _limit_memory() -> None:
    """Have what this machine cannot hold refused, before the system ends a process for it; only Linux can."""
    used = status_bytes("VmData")
    if used is not None:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (used + int(_MEMORY_SHARE * free_memory()), hard))
