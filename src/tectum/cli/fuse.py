"""`tectum fuse`: fuse and label files, folders, globs or lists of pairs."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape

from tectum import DEFAULT_WEIGHTS
from tectum.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

    from tectum.data.datasets import Problem
    from tectum.data.pair import PairPaths
    from tectum.predict import Done, Predictor
    from tectum.predict.predictor import Tile

ITEMS = ("fused", "labels", "overlay", "panel")

_WRITERS = 2
# zlib's default of 6 takes more than twice as long and saves 2 % of the size.
_PNG_LEVEL = 4


def fuse(
    visible: Annotated[str, typer.Option(help="Visible images: file, folder, quoted glob, or .txt list of paths.")],
    infrared: Annotated[str, typer.Option(help="Infrared images, given in the same way.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; files of the same name are replaced.")],
    model: Annotated[
        str, typer.Option(help="Shipped name (see `tectum models`), saved folder, or exported file.")
    ] = DEFAULT_WEIGHTS,
    save: Annotated[str, typer.Option(help="What to write, by commas: fused, labels, overlay, panel.")] = (
        "fused,labels"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    backend: Annotated[
        str, typer.Option(help="What runs the network: auto (the fastest), torch, compile, onnx or openvino.")
    ] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Pairs of one size that go through the network together.")] = 1,
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|off|PIXELS",
            help="Height of the bands (ViR-MFS in torch, exact) or side of the overlapping tiles in which large images "
            "run; auto: above 2 megapixels, or where memory is short.",
        ),
    ] = "auto",
    infrared_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Infrared values that become black and white, for raw counts; by default the file type's range.",
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write what was done to this JSON file.")] = None,
) -> None:
    """Fuse pairs and label every pixel, at the pairs' own size.

    Writes OUT/fused/NAME.png (colour), OUT/labels/NAME.png (8-bit class ids), OUT/overlay/NAME.png and
    OUT/panel/NAME.png; NAME is the visible file's. Pairs that cannot be used are skipped and listed at the end.
    """
    from tectum.cli.console import (
        collected_warnings,
        messages,
        output,
        require_writable,
        show_problems,
        show_warnings,
        write_json,
    )
    from tectum.data.pair import read_pair
    from tectum.predict.sources import find_pairs

    items = _items(save)
    pairs, unmatched = find_pairs(visible, infrared)
    _protect_inputs(pairs, out, items)
    for folder in [out / item for item in items] + ([json.parent] if json else []):
        require_writable(folder)

    from tectum.predict import Predictor

    predictor = Predictor(model, device, backend, tile=_tile(tile))
    console = messages()
    with collected_warnings() as warned:
        started = time.perf_counter()
        read = partial(read_pair, value_range=infrared_range)
        written, failed = write_results(predictor, pairs, out, items, batch=batch, read=read, console=console)
        seconds = time.perf_counter() - started
    problems = [*unmatched, *failed]

    show_warnings(warned, console)
    rate = len(written) / seconds
    output().print(
        f"fused {len(written)} of {len(pairs) + len(unmatched)} pairs with {escape(predictor.name)} in {seconds:.1f} s "
        f"({rate:.1f} pairs/s)\nwrote {escape(', '.join(str(out / item) for item in items))}"
    )
    if problems:
        show_problems(problems, console)
    if json:
        write_json(
            json,
            {
                "model": predictor.name,
                "backend": predictor.backend.runtime,
                "seconds": round(seconds, 3),
                "pairs_per_second": round(rate, 3),
                "results": [_row(done, out, items) for done in written],
                "problems": [problem._asdict() for problem in problems],
                "warnings": warned,
            },
        )
    if problems:
        raise typer.Exit(1)


def write_results(
    predictor: "Predictor",
    pairs: "list[PairPaths]",
    out: Path,
    items: Iterable[str],
    *,
    batch: int,
    read: "Callable[[PairPaths], Any]",
    console: Console,
) -> "tuple[list[PairPaths], list[Problem]]":
    """Fuse `pairs` and write `items` of each to OUT/ITEM/NAME.png, encoding in threads beside the network.

    Returns:
        What was written completely and what failed, each in the order of `pairs`.
    """
    from tectum.cli.console import progress
    from tectum.data.datasets import Problem

    written: list[PairPaths] = []
    problems: list[Problem] = []
    pending: deque[tuple[PairPaths, Future[None]]] = deque()

    with progress("fusing", len(pairs), console) as advance, ThreadPoolExecutor(_WRITERS) as pool:

        def collect(limit: int) -> None:
            while len(pending) > limit:
                paths, future = pending.popleft()
                try:
                    future.result()
                except OSError as error:
                    problems.append(Problem("not written", paths.name, f"the result could not be written: {error}"))
                else:
                    written.append(paths)
                advance()

        for one in predictor.stream(pairs, batch=batch, read=read):
            if isinstance(one, Problem):
                problems.append(one)
                advance()
            else:
                pending.append((one.paths, pool.submit(_write, predictor, one, out, items)))
                collect(_WRITERS)  # what waits to be written lies in memory
        collect(0)
    return written, problems


def _write(predictor: "Predictor", done: "Done", out: Path, items: Iterable[str]) -> None:
    for item, picture in _pictures(predictor, done, items).items():
        write_png(picture, out / item / f"{done.paths.name}.png")


def write_png(picture: "Image.Image", path: Path) -> None:
    """Write a PNG file atomically."""
    from tectum.files import atomic_path

    with atomic_path(path) as temporary:
        picture.save(temporary, compress_level=_PNG_LEVEL)


def _pictures(predictor: "Predictor", done: "Done", items: Iterable[str]) -> "dict[str, Image.Image]":
    """The pictures called `items` of one result."""
    from PIL import Image

    from tectum.viz import overlay, panel

    result = done.result
    made: dict[str, Image.Image] = {}
    tinted = overlay(result.fused, result.labels, predictor.palette) if {"overlay", "panel"} & set(items) else None
    for item in items:
        if item == "fused":
            made[item] = Image.fromarray(result.fused)
        elif item == "labels":
            made[item] = Image.fromarray(result.labels)
        elif tinted is not None and item == "overlay":
            made[item] = Image.fromarray(tinted)
        elif tinted is not None:
            made[item] = panel(
                done.pair.visible,
                done.pair.infrared,
                result.fused,
                tinted,
                class_names=predictor.class_names,
                palette=predictor.palette,
            )
    return made


def _tile(text: str) -> "Tile":
    if text in ("auto", "off"):
        return cast("Tile", text)
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--tile cannot be '{text}'; give auto, off, or a number of pixels") from None


def _items(save: str) -> list[str]:
    asked = [item.strip() for item in save.split(",") if item.strip()]
    unknown = [item for item in asked if item not in ITEMS]
    if unknown or not asked:
        raise ConfigError(f"--save cannot write '{', '.join(unknown) or save}'; choose from {', '.join(ITEMS)}")
    return list(dict.fromkeys(asked))


def _protect_inputs(pairs: "Iterable[PairPaths]", out: Path, items: Iterable[str]) -> None:
    """Refuse an output folder where a result would replace one of the inputs."""
    pairs = list(pairs)
    inputs = {file.resolve() for pair in pairs for file in (pair.visible, pair.infrared)}
    for item in items:
        for pair in pairs:
            target = out / item / f"{pair.name}.png"
            if target.resolve() in inputs:
                raise ConfigError(f"'{target}' is an input and would be replaced; choose another --out")


def _row(paths: "PairPaths", out: Path, items: Iterable[str]) -> dict[str, Any]:
    return {
        "name": paths.name,
        "visible": str(paths.visible),
        "infrared": str(paths.infrared),
        **{item: str(out / item / f"{paths.name}.png") for item in items},
    }
