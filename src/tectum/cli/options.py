"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(help="Shipped name (see `tectum models`), saved folder, exported file, or authors' .pth file."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Backend = Annotated[
    str, typer.Option(help="What runs the network: auto (the fastest), torch, compile, onnx or openvino.")
]
Batch = Annotated[int, typer.Option(min=1, help="Pairs of one size that go through the network together.")]
Out = Annotated[Path, typer.Option(help="Folder for the results; files of the same name are replaced.")]
Json = Annotated[Path | None, typer.Option(help="Also write the result to this JSON file.")]
InfraredRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH",
        help="Infrared values that become black and white, for raw counts; by default the range of the file's type.",
    ),
]
OptionalVisible = Annotated[str | None, typer.Option(help="Visible images, given as for `tectum fuse`.")]
OptionalInfrared = Annotated[str | None, typer.Option(help="Infrared images, given in the same way.")]
