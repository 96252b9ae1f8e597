"""`tectum bench`: time, memory and agreement of every way to run a network, against the network as published."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tectum.bench.environment import environment
from tectum.bench.measure import Plan, benchmark, choose_rows
from tectum.bench.results import FORMAT, Group, Row
from tectum.cli.console import messages, output, require_writable, show_problems, write_json
from tectum.cli.options import Json, OptionalInfrared, OptionalVisible
from tectum.cli.pairs import optional_pairs
from tectum.data.datasets import Problem
from tectum.errors import ConfigError

_SMALLEST = 32  # of rendered scenes
_COLUMNS = (
    "row", "median\nms", "quartiles\nms", "least\nms", "speed\nx", "limit\n%", "outside\n%", "pairs/s", "memory\nMB",
    "fused\nmax", "fused\n99.9 %", "labels\n%",
)  # fmt: skip


def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Shipped name, saved folder, or architecture (it gets random weights); again for more.",
            show_default="virmfs_b0_msrs",
        ),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Pixels of a pair; again for more.", show_default="640x480"),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="torch, compile, onnx or openvino; again for more.", show_default="installed ones but compile"
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Also measure OpenVINO in bfloat16 or int8; again for both.", show_default="float32 only"),
    ] = None,
    published: Annotated[
        bool, typer.Option(help="Compare with the network as published; otherwise with tectum's unfolded one.")
    ] = True,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds at most; slow rows get fewer.")] = 20,
    warm_up: Annotated[int, typer.Option(min=1, help="Rounds that are not counted.")] = 2,
    folder: Annotated[int, typer.Option(min=0, help="Pairs of folder mode at most; 0 leaves it out.")] = 8,
    visible: OptionalVisible = None,
    infrared: OptionalInfrared = None,
    json: Json = None,
) -> None:
    """Measure every way to run a network on this machine's CPU, in one run.

    Each row has a process of its own, and the rows are asked in turn. Of given pairs the first is timed and compared,
    and all serve folder mode and calibrate int8. What is measured and how: benchmarks/README.md.
    """
    if size and visible is not None:
        raise ConfigError("given pairs are measured at their own size: leave --size or the pairs out")
    rows = choose_rows(backend or [], precision or [], with_published=published)
    sizes = list(dict.fromkeys(map(_size, size or ["640x480"])))
    console = messages()
    pairs = optional_pairs(visible, infrared)
    if json:
        require_writable(json.absolute().parent)

    models = list(dict.fromkeys(model or ["virmfs_b0_msrs"]))
    plan = Plan(rows, repeats, warm_up, folder)
    groups = []
    for group in benchmark(models, sizes, plan, pairs, lambda text: console.print(escape(text), style="dim")):
        groups.append(group)
        _show(group, output())
        if json:  # after each group, since the next one may take long
            content = {"format": FORMAT, "environment": environment(), "plan": asdict(plan)}
            write_json(json, {**content, "groups": [asdict(group) for group in groups]})
    problems = [
        Problem("failed", f"{group.model}, {group.width}x{group.height}, {row.name}", row.reason or "")
        for group in groups
        for row in group.rows
        if row.failed
    ]
    if problems:
        show_problems(problems, console)
        raise typer.Exit(1)


def _size(text: str) -> tuple[int, int]:
    """Height and width of WIDTHxHEIGHT."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if match is None or min(width := int(match[1]), height := int(match[2])) < _SMALLEST:
        raise ConfigError(
            f"--size cannot be '{text}'; give WIDTHxHEIGHT in pixels, each {_SMALLEST} or more, 640x480 for example"
        )
    return height, width


def _show(group: Group, console: Console) -> None:
    random = ", random weights" if group.weights == "random" else ""
    table = Table(title=escape(f"{group.model}{random}, {group.width}x{group.height}"), title_justify="left")
    for index, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in group.rows:
        table.add_row(*_cells(row))
    console.print()
    console.print(table)
    console.print("\n".join(_notes(group)), style="dim", markup=False, soft_wrap=True)


def _cells(row: Row) -> list[str]:
    latency, agreement = row.latency, row.agreement
    if latency is None:
        return [row.name, "no memory" if row.skipped else "failed"]
    return [
        row.name,
        _milliseconds(latency.median),
        f"{_milliseconds(latency.lower_quartile)}-{_milliseconds(latency.upper_quartile)}",
        _milliseconds(latency.minimum),
        "-" if row.speed_up is None else f"{row.speed_up:.2f}",
        "-" if row.limit_share is None else f"{100 * row.limit_share:.0f}",
        "-" if row.outside is None else f"{100 * row.outside:.0f}",
        "-" if row.throughput is None else f"{row.throughput.pairs_per_second:.2f}",
        "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
        *(
            ("-", "-", "-")
            if agreement is None
            else (f"{agreement.fused_max:.3f}", f"{agreement.fused_p999:.3f}", f"{100 * agreement.labels:.2f}")
        ),
    ]


def _notes(group: Group) -> list[str]:
    counts = ", ".join(f"{name} {count:.2f}" for name, count in group.gigaflops.items())
    rates = group.rates
    measured = [len(row.latency.samples) for row in group.rows if row.latency]
    order = "in turn" if group.in_turn else "one after another, since memory was short"
    cut = [f"{row.name} in {row.tiles} tiles" for row in group.rows if row.tiles is not None and row.tiles > 1]
    cut += [f"{row.name} in bands of rows" for row in group.rows if row.bands]
    lines = [
        f"rounds: {_span(measured)}, rows {order}; speed: times that of {group.reference or 'none'}",
        f"compared with it on {group.pair}: fused in 1/255, labels equal",
        f"10^9 operations: {counts}",
        f"limit: matrix products {rates.product:.1f}, convolutions {rates.convolution:.1f} x 10^9 operations/s with "
        f"{rates.threads} threads, so that folded takes {_milliseconds(group.least_seconds)} ms at least",
    ]
    return [*lines, f"not in one piece: {', '.join(cut)}"] if cut else lines


def _span(counts: Sequence[int]) -> str:
    return "none" if not counts else "-".join(map(str, sorted({min(counts), max(counts)})))


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:.0f}"
