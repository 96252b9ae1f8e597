"""Running a benchmark: the rows of one model at one size in turn, each in its own process. It does not import torch."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tectum.bench.process import Remote, RemoteError
from tectum.bench.results import REFERENCES, Agreement, Group, Rates, Row, Throughput, Timing, limit_share
from tectum.bench.subjects import BFLOAT16, INT8, MODULE, PUBLISHED, Limits, Model, Preparation, Run, Subject
from tectum.data.pair import PairPaths, read_pair
from tectum.engines.base import EXTRAS
from tectum.errors import ConfigError, MissingExtraError, TectumError
from tectum.machine import free_memory
from tectum.predict import Result
from tectum.predict.tiling import BYTES_PER_PIXEL, WHOLE_PIXELS
from tectum.scenes import write_scenes

RUNTIMES = ("torch", "compile", "onnx", "openvino")
"""Backends that can be measured, in the order of their rows."""

PRECISIONS = {"bfloat16": BFLOAT16, "int8": INT8}
"""Rows of OpenVINO by their precision, in order after those of `RUNTIMES`."""

LEAST_REPEATS = 3
ROW_SECONDS = 30.0
FOLDER_SECONDS = 20.0

_CALIBRATION_SCENES = 8
_FOLDER_SCENES = 4
_FIRST_SCENE = 9  # a street by day with people, cars and bikes
# Threads of some runtimes look for work in a loop for some milliseconds after a run.
_PAUSE = 0.05

_PACKAGES = {
    "onnx": ("onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    BFLOAT16: ("openvino",),
    INT8: ("openvino", "nncf"),
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is measured for every model and size.

    Attributes:
        rows: names of the rows, in order, of `choose_rows`.
        repeats: rounds at most. There are at least `LEAST_REPEATS` if it allows them, and no more once the slowest row
            has taken `ROW_SECONDS`.
        warm_up: rounds before these that are not counted, 1 or more.
        folder: pairs of folder mode at most, 0 for none. Fewer, but at least 2, where they would take more than
            `FOLDER_SECONDS`.
    """

    rows: tuple[str, ...]
    repeats: int = 20
    warm_up: int = 2
    folder: int = 8


def choose_rows(backends: Sequence[str], precisions: Sequence[str], *, with_published: bool) -> tuple[str, ...]:
    """The rows for some backends, by default all that are installed but "compile", and precisions of OpenVINO.

    "module" is always one of them.

    Raises:
        ConfigError: a backend that is not in `RUNTIMES`, or a precision that is not in `PRECISIONS`.
        MissingExtraError: one that is not installed.
    """
    for backend in backends:
        if backend not in RUNTIMES:
            raise ConfigError(f"there is no backend '{backend}' to measure; choose from {', '.join(RUNTIMES)}")
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ConfigError(f"there is no row of precision '{precision}'; choose from {', '.join(PRECISIONS)}")
    asked = [*(backends or (name for name in RUNTIMES if name != "compile" and _installed(name)))]
    asked += [PRECISIONS[precision] for precision in precisions]
    for row in asked:
        if not _installed(row):
            backend, _, precision = row.partition(" ")
            raise MissingExtraError(f"precision {precision}" if precision else f"backend {backend}", EXTRAS[backend])
    ordered = (*RUNTIMES, *PRECISIONS.values())
    return (*([PUBLISHED] * with_published), MODULE, *(row for row in ordered if row in asked))


def _installed(row: str) -> bool:
    return all(find_spec(package) for package in _PACKAGES.get(row, ()))


def benchmark(
    models: Sequence[str], sizes: Sequence[tuple[int, int]], plan: Plan, pairs: Sequence[PairPaths], say: Say
) -> Iterator[Group]:
    """Measure models at sizes.

    Args:
        models: shipped names, what `tectum.load` reads, or architectures, which get seeded random weights.
        sizes: (height, width) of rendered scenes.
        plan: what is measured.
        pairs: real ones instead of scenes of `sizes`: the first is timed and compared at its own size; all of them
            calibrate INT8 and are read in folder mode.
        say: is told what is going on.

    Yields:
        One group for each model and size.

    Raises:
        ConfigError: a model that does not exist, before anything is measured.
        InputError: a pair that cannot be read.
        WeightsError: weights that cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="tectum-bench-", ignore_cleanup_errors=True) as temporary:
        root = Path(temporary)
        if pairs:
            sizes = [read_pair(pairs[0]).infrared.shape]
        described = _describe(models, root)
        for model in described:
            jobs, gigaflops = _prepare(model, sizes, plan, pairs, root, say)
            for size in sizes:
                scenes = list(pairs) or _scenes(root, size, _FOLDER_SCENES if plan.folder else 1, "day")
                yield _group(model, size, jobs, gigaflops[size], plan, scenes, say)


def _describe(models: Sequence[str], folder: Path) -> list[Model]:
    with Remote(Preparation, folder) as preparation:
        try:
            return [preparation.call("describe", model) for model in models]
        except RemoteError as error:
            raise (ConfigError if error.usage else TectumError)(str(error)) from None


def _scenes(root: Path, size: tuple[int, int], count: int, condition: str | None) -> list[PairPaths]:
    height, width = size
    return write_scenes(root / f"{width}x{height}", count, _FIRST_SCENE, size, condition=condition)


@dataclass(frozen=True)
class _Job:
    """A row's name, and either the source of its process or the reason why it has none."""

    row: str
    source: str = ""
    reason: str | None = None


def _prepare(
    model: Model, sizes: Sequence[tuple[int, int]], plan: Plan, pairs: Sequence[PairPaths], folder: Path, say: Say
) -> tuple[list[_Job], dict[tuple[int, int], dict[str, float]]]:
    jobs = []
    with Remote(Preparation, folder) as preparation:
        gigaflops = {size: preparation.call("gigaflops", model.source, size) for size in sizes}
        for row in plan.rows:
            if row not in _PACKAGES:
                jobs.append(_Job(row, model.source))
                continue
            say(f"{model.name}: exporting for {row}")
            calibration: list[PairPaths] = []
            if row == INT8:
                calibration = list(pairs) or _scenes(folder / "calibration", (480, 640), _CALIBRATION_SCENES, None)
            try:
                jobs.append(_Job(row, preparation.call("export", model.source, row, calibration)))
            except RemoteError as error:
                jobs.append(_Job(row, reason=str(error)))
    return jobs, gigaflops


class _Entry:
    """A row's process and what it gave; after a failure it is asked no more."""

    def __init__(self, job: _Job, pair: PairPaths, stack: ExitStack) -> None:
        self.row = job.row
        self.failure = RemoteError(job.reason) if job.reason is not None else None
        self.warm: list[Run] = []
        self.runs: list[Run] = []
        self.peak: int | None = None
        self.result: Result | None = None
        self.throughput: Throughput | None = None
        self._remote = None if self.failure else stack.enter_context(Remote(Subject, job.row, job.source, pair))

    def run(self, runs: list[Run]) -> None:
        """Time the pair once more, into `runs`."""
        if self._remote is not None:
            time.sleep(_PAUSE)
        run = self._ask("run")
        if run is not None:
            runs.append(run)

    def warm_up(self, rounds: int) -> None:
        for _ in range(rounds):
            self.run(self.warm)
        self.peak = self._ask("peak")

    def finish(self, pairs: Sequence[PairPaths], folder: int) -> None:
        """Fetch what is not timed, and run folder mode."""
        self.peak, self.result = self._ask("peak"), self._ask("result")
        if folder and self.runs:
            fitting = int(FOLDER_SECONDS / statistics.median(run.seconds for run in self.runs))
            self.throughput = self._ask("folder", pairs, max(min(2, folder), min(folder, fitting)))

    def _ask(self, method: str, *arguments: Any) -> Any:
        """The answer of its process, or None."""
        if self._remote is None:
            return None
        try:
            return self._remote.call(method, *arguments)
        except RemoteError as error:
            self.failure = error
            self._remote.close()
            self._remote = None
            return None


def _group(
    model: Model,
    size: tuple[int, int],
    jobs: Sequence[_Job],
    gigaflops: dict[str, float],
    plan: Plan,
    pairs: Sequence[PairPaths],
    say: Say,
) -> Group:
    height, width = size
    with Remote(Limits) as limits:
        measuring = _Measuring(
            plan, pairs, height * width, limits, lambda text: say(f"{model.name}, {width}x{height}: {text}")
        )
        entries, in_turn = measuring.measure(jobs)
    threads, products, convolutions = zip(*(astuple(rates) for rates in measuring.rates), strict=True)
    rates = Rates(threads[0], statistics.median(products), statistics.median(convolutions))
    least = gigaflops["folded"] / rates.highest
    reference = next((entry for entry in entries if entry.row in REFERENCES and entry.failure is None), None)
    return Group(
        model=model.name,
        weights=model.weights,
        width=width,
        height=height,
        pair=pairs[0].name,
        in_turn=in_turn,
        reference=reference.row if reference else None,
        gigaflops=gigaflops,
        rates=rates,
        least_seconds=least,
        rows=tuple(_row(entry, reference, least) for entry in entries),
    )


class _Measuring:
    """The measurement of a group; `rates` are the machine's, of all rounds."""

    def __init__(self, plan: Plan, pairs: Sequence[PairPaths], pixels: int, limits: Remote, say: Say) -> None:
        self.plan, self.pairs, self.pixels, self.limits, self.say = plan, pairs, pixels, limits, say
        self.rates: list[Rates] = []

    def measure(self, jobs: Sequence[_Job]) -> tuple[list[_Entry], bool]:
        """Measure the rows in turn and say True; or, where memory would not do for that, one by one and say False."""
        entries: list[_Entry] = []
        with ExitStack() as stack:
            for job in jobs:
                self.say(f"warming up {job.row}")
                entries.append(_Entry(job, self.pairs[0], stack))
                entries[-1].warm_up(self.plan.warm_up)
                if len(jobs) > 1 and self._short(entries):
                    break
            else:
                self._rounds(entries)
                return entries, True
        self.say("memory is short, so the rows are measured one after another")
        return [self.measure([job])[0][0] for job in jobs], False

    def _short(self, entries: Sequence[_Entry]) -> bool:
        """Whether rows might get less memory than they would have alone."""
        # Predictor cuts an image of which a whole run might take more than half of the free memory.
        needed = max(2 * BYTES_PER_PIXEL * min(self.pixels, WHOLE_PIXELS), *(entry.peak or 0 for entry in entries))
        refused = len(entries) > 1 and entries[-1].failure is not None and entries[-1].failure.memory
        return refused or free_memory() < needed

    def _rounds(self, entries: Sequence[_Entry]) -> None:
        self.say("measuring")
        for number in range(self.plan.repeats):
            slowest = max(sum(run.seconds for run in entry.runs) for entry in entries)
            if number >= LEAST_REPEATS and slowest >= ROW_SECONDS:
                break
            self.rates.append(self.limits.call("run"))
            for entry in entries:
                entry.run(entry.runs)
        for entry in entries:
            entry.finish(self.pairs, self.plan.folder)


def _row(entry: _Entry, reference: _Entry | None, least_seconds: float) -> Row:
    if entry.failure is not None:
        return Row(entry.row, str(entry.failure), entry.failure.memory)
    latency = Timing.of([run.seconds for run in entry.runs])
    tiles = entry.runs[0].tiles
    row = Row(
        entry.row,
        first_seconds=entry.warm[0].seconds,
        latency=latency,
        outside=statistics.median(1 - run.network / run.seconds for run in entry.runs),
        tiles=tiles,
        bands=entry.runs[0].bands,
        peak_bytes=entry.peak,
        throughput=entry.throughput,
        limit_share=limit_share(least_seconds, latency.median, tiles),
    )
    if reference is None:
        return row
    return replace(
        row,
        speed_up=statistics.median(run.seconds for run in reference.runs) / latency.median,
        agreement=Agreement.of(entry.result, reference.result) if entry.result and reference.result else None,
    )
