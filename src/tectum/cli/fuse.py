"""`tectum fuse`: fuse and label files, folders, globs or lists of pairs."""

import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from tectum import DEFAULT_WEIGHTS
from tectum.cli.console import (
    collected_warnings,
    messages,
    output,
    progress,
    require_writable,
    show_problems,
    show_warnings,
    write_json,
)
from tectum.cli.options import Backend, Batch, Device, InfraredRange, Json, Model, Out
from tectum.data.pair import PairPaths, read_pair
from tectum.errors import ConfigError
from tectum.predict import Predictor, find_pairs
from tectum.predict.predictor import Tile
from tectum.predict.writing import ITEMS, write_results


def fuse(
    visible: Annotated[str, typer.Option(help="Visible images: file, folder, quoted glob, or .txt list of paths.")],
    infrared: Annotated[str, typer.Option(help="Infrared images, given in the same way.")],
    out: Out,
    model: Model = DEFAULT_WEIGHTS,
    save: Annotated[str, typer.Option(help="What to write, by commas: fused, labels, confidence, overlay, panel.")] = (
        "fused,labels"
    ),
    device: Device = "auto",
    backend: Backend = "auto",
    batch: Batch = 1,
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|off|PIXELS",
            help="Height of the bands (ViR-MFS in torch, exact) or side of the overlapping tiles in which large images "
            "run; auto: above 2 megapixels, or where memory is short.",
        ),
    ] = "auto",
    infrared_range: InfraredRange = None,
    unknown: Annotated[
        float,
        typer.Option(metavar="P", help="Pixels whose class has a probability below P get the label 255."),
    ] = 0.0,
    json: Json = None,
) -> None:
    """Fuse pairs and label every pixel, at the pairs' own size.

    Writes OUT/fused/NAME.png (colour), OUT/labels/NAME.png (8-bit class ids), OUT/confidence/NAME.png (0 to 255),
    OUT/overlay/NAME.png and OUT/panel/NAME.png; NAME is the visible file's. Pairs that cannot be used are skipped and
    listed at the end.
    """
    items = _items(save)
    pairs, unmatched = find_pairs(visible, infrared)
    _protect_inputs(pairs, out, items)
    for folder in [out / item for item in items] + ([json.parent] if json else []):
        require_writable(folder)

    predictor = Predictor(model, device, backend, tile=_tile(tile), unknown=unknown)
    console = messages()
    with collected_warnings() as warned, progress("fusing", len(pairs), console) as advance:
        started = time.perf_counter()
        read = partial(read_pair, value_range=infrared_range)
        written, failed = write_results(predictor, pairs, out, items, batch=batch, read=read, advance=advance)
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
                "backend": predictor.engine.runtime,
                "seconds": round(seconds, 3),
                "pairs_per_second": round(rate, 3),
                "results": [_row(paths, out, items) for paths in written],
                "problems": [problem._asdict() for problem in problems],
                "warnings": warned,
            },
        )
    if problems:
        raise typer.Exit(1)


def _tile(text: str) -> Tile:
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


def _protect_inputs(pairs: Iterable[PairPaths], out: Path, items: Iterable[str]) -> None:
    """Refuse an output folder where a result would replace one of the inputs."""
    pairs = list(pairs)
    inputs = {file.resolve() for pair in pairs for file in (pair.visible, pair.infrared)}
    for item in items:
        for pair in pairs:
            target = out / item / f"{pair.name}.png"
            if target.resolve() in inputs:
                raise ConfigError(f"'{target}' is an input and would be replaced; choose another --out")


def _row(paths: PairPaths, out: Path, items: Iterable[str]) -> dict[str, Any]:
    return {
        "name": paths.name,
        "visible": str(paths.visible),
        "infrared": str(paths.infrared),
        **{item: str(out / item / f"{paths.name}.png") for item in items},
    }
