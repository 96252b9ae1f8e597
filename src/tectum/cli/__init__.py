"""The `tectum` command line.

One module per command; each imports torch and the rest only when its command runs, so that `tectum --help` is quick.
Exit codes: 0 all done, 1 some inputs failed, 2 wrong usage, 130 interrupted.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tectum.cli import bench, data, demo, evaluate, export, fuse, metrics, models, train
from tectum.errors import ConfigError, MissingExtraError, TectumError


class _Group(TyperGroup):
    """Turns the errors that tectum raises on purpose into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TectumError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(2 if isinstance(error, ConfigError | MissingExtraError) else 1) from None
        except KeyboardInterrupt:
            print("interrupted; what was written until now is complete", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="tectum",
    help="Fuse an infrared and a visible image into one picture, and label every pixel.",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(asked: bool) -> None:
    if asked:
        from tectum import __version__

        typer.echo(f"tectum {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(fuse.fuse)
app.command("eval")(evaluate.evaluate)
app.command()(metrics.metrics)
app.command()(train.train)
app.command()(export.export)
app.command()(bench.bench)
app.command()(demo.demo)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line and exit."""
    app()
