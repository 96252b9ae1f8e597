"""`tectum data`: look a data set over, count what is in it, convert it."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tectum.cli.console import (
    collected_warnings,
    messages,
    output,
    progress,
    require_writable,
    show_warnings,
    write_json,
)
from tectum.cli.options import InfraredRange, Json
from tectum.data.check import check_dataset
from tectum.data.convert import Conversion, drop_unknown_ids, ids_from_colours, scale_thermal, split_packed
from tectum.data.datasets import Problem
from tectum.data.statistics import dataset_stats

app = typer.Typer(help="Check, count and convert data sets.", no_args_is_help=True)
convert = typer.Typer(help="Convert files of a data set; the originals stay as they are.", no_args_is_help=True)
app.add_typer(convert, name="convert")

Root = Annotated[Path, typer.Argument(help="Root folder of the data set.")]
Dataset = Annotated[str, typer.Option(help="msrs, mfnet, fmb, pst900, or folder (any two folders of images).")]
Split = Annotated[str | None, typer.Option(help="train, val, test, ...; by default all there are.")]
Source = Annotated[Path, typer.Argument(help="A file, or a folder of files.")]
Out = Annotated[Path, typer.Option(help="Folder for the new files; those of the same name are replaced.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Threads; by default one per processor, at most 8.")]

_SHOWN = 5
"""Messages printed of each kind; the JSON file has them all."""


@app.command()
def check(
    root: Root,
    dataset: Dataset = "folder",
    split: Split = None,
    infrared_range: InfraredRange = None,
    workers: Workers = None,
    json: Json = None,
) -> None:
    """Read every file and list what is wrong.

    Finds missing twins, unequal sizes, unreadable files, wrong modes, unknown ids, empty label maps, and pictures that
    occur in two splits. Ends with exit code 1 if there is any such problem; notes are only reported.
    """
    console = output()
    if json is not None:
        require_writable(json.absolute().parent)
    report = _with_progress(
        "checking", check_dataset, root, dataset, split, value_range=infrared_range, workers=workers
    )
    splits = ", ".join(f"{name} {count}" for name, count in report.splits.items() if name)
    console.print(
        f"[bold]{escape(str(root))}[/] as '{report.dataset}': {report.pairs} pairs, {report.labelled} labelled"
    )
    if splits:
        console.print(f"splits: {splits}")
    console.print(f"sizes: {_counts(report.sizes)}")
    for role, modes in report.modes.items():
        console.print(f"{role}: {_counts(modes)}")
    if report.labelled and dataset == "folder":
        console.print("ids are not checked in plain folders; name the data set with --dataset to have them checked")
    _show(report.problems, "problem", "red", console)
    _show(report.notes, "note", "yellow", console)
    if report.ok:
        console.print("[green]no problems[/]")
    if json is not None:
        write_json(json, report.to_dict())
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def pack(
    what: Annotated[
        list[str],
        typer.Argument(metavar="CONFIG... [KEY=VALUE]...", help="As for `tectum train`."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for pairs, weights and config; files of the same name go.")],
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEGs.")] = 95,
) -> None:
    """Put a training into one folder, to be run elsewhere: cd OUT, then `tectum train train.yaml`."""
    from tectum.recipes.catalogue import plan
    from tectum.recipes.packing import CONFIG, pack

    require_writable(out)
    job = plan([text for text in what if "=" not in text], [text for text in what if "=" in text])
    pairs = _with_progress("packing", pack, job.config, out, quality=quality)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    output().print(f"packed {len(pairs)} pairs, {size / 2**20:.1f} MiB: cd {escape(str(out))}; tectum train {CONFIG}")


@app.command()
def stats(
    root: Root,
    dataset: Dataset = "folder",
    split: Split = None,
    infrared_range: InfraredRange = None,
    workers: Workers = None,
    json: Json = None,
) -> None:
    """Count pixels and images of each class, class weights, image sizes and brightness.

    Ignored pixels (id 255) are left out. Weights: ENet's 1 / ln(1.02 + frequency), and median-frequency balancing.
    Ends with exit code 1 if some pair could not be read; the others are counted.
    """
    console = output()
    if json is not None:
        require_writable(json.absolute().parent)
    with collected_warnings() as warned:
        result = _with_progress(
            "counting", dataset_stats, root, dataset, split, value_range=infrared_range, workers=workers
        )
    show_warnings(warned, messages())
    console.print(
        f"[bold]{escape(str(root))}[/] as '{result.dataset}': {result.pairs} pairs, {result.labelled} labelled"
    )
    console.print(f"sizes: {_counts(result.sizes)}")
    if result.classes:
        table = _right_aligned(("id", "class"), ("pixels", "frequency", "images", "ENet weight", "median-freq. weight"))
        for index, row in enumerate(result.classes):
            numbers = (f"{row.pixels:,}", f"{row.frequency:.6f}", str(row.images), f"{row.enet:.4f}")
            table.add_row(str(index), escape(row.name), *numbers, f"{row.median_frequency:.4f}")
        console.print(table)
        console.print(f"ignored: {result.ignored:.2%} of the labelled pixels")
    else:
        console.print("no label maps")
    table = _right_aligned(("brightness, 0 to 1",), ("mean", "std", "darkest image", "brightest image"))
    for name, row in (("visible (luminance)", result.visible), ("infrared", result.infrared)):
        table.add_row(name, *(f"{value:.4f}" for value in row))
    console.print(table)
    _show(result.problems, "problem", "red", console)
    if json is not None:
        write_json(json, result.to_dict())
    if result.problems:
        raise typer.Exit(1)


@convert.command()
def mfnet(
    root: Annotated[Path, typer.Argument(help="MFNet's root folder, with images/, labels/ and the lists.")],
    out: Out,
    workers: Workers = None,
) -> None:
    """Split MFNet's four-channel PNGs into OUT/SPLIT/vi, ir and Segmentation_labels."""
    _convert(out, split_packed, root, out, workers=workers)


@convert.command()
def colours(
    source: Source,
    out: Out,
    dataset: Annotated[str, typer.Option(help="Whose palette the colours are of: msrs, mfnet, fmb or pst900.")],
    bgr: Annotated[bool, typer.Option("--bgr", help="Red and blue are exchanged in the files.")] = False,
    workers: Workers = None,
) -> None:
    """Turn colour-coded label maps into class ids; a colour that is not in the palette is an error."""
    _convert(out, ids_from_colours, source, out, dataset, bgr=bgr, workers=workers)


@convert.command()
def ids(
    source: Source,
    out: Out,
    dataset: Annotated[str, typer.Option(help="Whose classes the ids are of: msrs, mfnet, fmb or pst900.")],
    workers: Workers = None,
) -> None:
    """Turn ids that the data set does not have into 255 (ignore), such as FMB's 15 and 16."""
    _convert(out, drop_unknown_ids, source, out, dataset, workers=workers)


@convert.command()
def thermal(
    source: Source,
    out: Out,
    infrared_range: Annotated[
        tuple[float, float],
        typer.Option(metavar="LOW HIGH", help="Counts that become 0 and 255, in all files."),
    ],
    workers: Workers = None,
) -> None:
    """Turn 16-bit thermal counts into 8-bit grey."""
    _convert(out, scale_thermal, source, out, infrared_range, workers=workers)


def _with_progress(title: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call `function` with a progress bar, whose length it says once it knows it."""
    with ExitStack() as stack:
        bars: list[Callable[[], None]] = []

        def start(total: int) -> None:
            bars.append(stack.enter_context(progress(title, total, messages())))

        return function(*args, **options, on_start=start, on_pair=lambda: bars[0]())


def _convert(out: Path, function: Callable[..., Conversion], *args: Any, **options: Any) -> None:
    """Run a conversion and report it."""
    console = output()
    require_writable(out)
    with collected_warnings() as warned:
        result = _with_progress("converting", function, *args, **options)
    changed = f", {result.changed:,} pixels changed" if result.changed else ""
    console.print(f"{len(result.written)} files written to [bold]{escape(str(out))}[/]{changed}")
    show_warnings(warned, messages())
    _show(result.problems, "problem", "red", console)
    if result.problems:
        raise typer.Exit(1)


def _show(problems: Sequence[Problem], word: str, colour: str, console: Console) -> None:
    """Table of how many of each kind, with the first messages."""
    if not problems:
        return
    kinds: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        kinds[problem.kind].append(problem.message)
    plural = "" if len(problems) == 1 else "s"
    title = f"{len(problems)} {word}{plural}"
    table = Table(title=title, title_justify="left", title_style=f"bold {colour}", show_lines=True)
    table.add_column("kind")
    table.add_column("count", justify="right")
    table.add_column("what and where", overflow="fold")
    for kind, texts in sorted(kinds.items(), key=lambda item: -len(item[1])):
        more = [f"and {len(texts) - _SHOWN} more (--json lists all)"] if len(texts) > _SHOWN else []
        table.add_row(kind, str(len(texts)), escape("\n".join([*texts[:_SHOWN], *more])))
    console.print(table)


def _right_aligned(words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table()
    for word in words:
        table.add_column(word)
    for number in numbers:
        table.add_column(number, justify="right")
    return table


def _counts(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{name} x {count}" for name, count in list(counts.items())[:6])
    return shown + (f" and {len(counts) - 6} others" if len(counts) > 6 else "")
