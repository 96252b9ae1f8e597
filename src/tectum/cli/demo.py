"""`tectum demo`: fuse and label scenes that tectum renders itself."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from tectum import DEFAULT_WEIGHTS
from tectum.cli.console import messages, output, progress, require_writable
from tectum.cli.options import Backend, Model
from tectum.data.pair import PairPaths, read_pair
from tectum.predict import Predictor
from tectum.predict.colour import to_bytes
from tectum.predict.writing import ITEMS, write_png, write_results
from tectum.scenes import render_scene
from tectum.viz.panel import grid, with_legend

_SEEDS = {"day": 9, "night": 2, "glare": 10, "fog": 16}  # streets with people, cars and bikes in view


def demo(
    model: Model = DEFAULT_WEIGHTS,
    out: Annotated[Path, typer.Option(help="Folder for inputs and results.")] = Path("tectum-demo"),
    backend: Backend = "auto",
) -> None:
    """Render four street scenes (day, night, glare, fog), fuse and label them.

    Needs no data and no network connection.
    """
    require_writable(out)
    predictor = Predictor(model, backend=backend)
    pairs = []
    for condition, seed in _SEEDS.items():
        scene = render_scene(seed, condition=condition)
        paths = PairPaths(
            condition, out / "inputs" / "vi" / f"{condition}.png", out / "inputs" / "ir" / f"{condition}.png"
        )
        for file, image in ((paths.visible, scene.visible), (paths.infrared, scene.infrared)):
            write_png(Image.fromarray(to_bytes(image)), file)
        pairs.append(paths)
    with progress("fusing", len(pairs), messages()) as advance:
        _, problems = write_results(predictor, pairs, out, ITEMS, batch=1, read=read_pair, advance=advance)
    if problems:
        raise typer.Exit(1)

    rows = [
        [
            np.asarray(Image.open(file))
            for file in (
                paths.visible,
                paths.infrared,
                out / "fused" / f"{paths.name}.png",
                out / "overlay" / f"{paths.name}.png",
            )
        ]
        for paths in pairs
    ]
    sheet = grid(rows, ["visible", "infrared", "fused", "labels"])
    write_png(with_legend(sheet, predictor.class_names, predictor.palette), out / "demo.png")

    places = {
        "inputs/vi, inputs/ir": "the rendered visible and infrared images",
        "fused": "one picture for people",
        "labels": "8-bit class ids",
        "confidence": "how likely each of them is, 255 for certain",
        "overlay": "the labels in colour on the fused picture",
        "panel": "inputs and results side by side",
        "demo.png": "everything on one sheet",
    }
    width = max(map(len, places))
    lines = [f"  {place:{width}}  {meaning}" for place, meaning in places.items()]
    output().print(
        "\n".join([f"fused and labelled {len(pairs)} scenes with {predictor.name}; in {out}:", *lines]), markup=False
    )
