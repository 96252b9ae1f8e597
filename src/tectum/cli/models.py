"""`tectum models`: what networks there are; `tectum models convert`: make a backbone file from a local copy."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tectum.cli.console import output, require_writable

if TYPE_CHECKING:
    from torch import nn

app = typer.Typer(invoke_without_command=True, help="List networks and shipped weights, or convert a backbone.")


@app.callback()
def models(context: typer.Context) -> None:
    """List the architectures and the shipped weights, or run a subcommand."""
    if context.invoked_subcommand:
        return
    import torch

    from tectum.models import create_model, list_models, list_weights, load

    console = output()
    table = Table(title="Architectures: tectum.create_model(NAME, classes=K)", title_justify="left")
    table.add_column("name")
    table.add_column("parameters", justify="right")
    for name in list_models():
        with torch.device("meta"):  # counts without allocating
            table.add_row(name, _millions(create_model(name)))
    console.print(table)

    table = Table(title="Shipped weights: --model NAME, tectum.load(NAME)", title_justify="left")
    for column in ("name", "architecture", "classes"):
        table.add_column(column)
    table.add_column("parameters", justify="right")
    for name in list_weights():
        model = load(name)
        classes = ", ".join(model.metadata.get("class_names", []))
        table.add_row(name, model.architecture, f"{model.classes}: {classes}", _millions(model))
    console.print(table)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="Folder of a local copy of nvidia/mit-b0 to -b5, or its weights file.")
    ],
    out: Annotated[Path, typer.Option(help="Safetensors file to write.")],
) -> None:
    """Turn a local copy of NVIDIA's MiT into a backbone file for training.

    The weights are NVIDIA's and licensed for non-commercial use only; so is what is trained from them.
    """
    from tectum.models.backbones.mit_weights import convert_mit

    require_writable(out.absolute().parent)
    typer.echo(f"wrote MiT-{convert_mit(source, out)} to {out}")


def _millions(model: "nn.Module") -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} M"
