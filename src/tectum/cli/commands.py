"""The commands by name. Each one's module is imported when it runs or is asked for help, so that a start is quick.

Exit codes: 0 all done, 1 some inputs failed, 2 wrong usage, 130 interrupted.
"""

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tectum import __version__
from tectum.errors import ConfigError, MissingExtraError, TectumError

COMMANDS = {
    "fuse": "Fuse pairs and label every pixel, at the pairs' own size.",
    "eval": "Score a model on a data set: segmentation, fusion, agreement with boxes where there are boxes.",
    "metrics": "Score fused images against their sources, per image and on average, the best of each column marked.",
    "train": "Train a network.",
    "export": "Write a network as one file that `tectum fuse --model FILE` runs without torch.",
    "bench": "Measure every way to run a network on this machine's CPU, in one run.",
    "demo": "Render four street scenes (day, night, glare, fog), fuse and label them.",
    "models": "List networks and shipped weights, or convert a backbone.",
    "data": "Check, count and convert data sets.",
}
"""What each command does: the first sentence of its help."""

_MODULES = {"eval": "evaluate"}  # where the module is not called as its command is


class _Group(TyperGroup):
    """Loads commands when they are needed, and turns errors that tectum raises on purpose into a line and a code."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        # The plain form of the classes below Typer's, which needs neither the commands' modules nor rich.
        super(TyperGroup, self).format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TectumError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(2 if isinstance(error, ConfigError | MissingExtraError) else 1) from None
        except KeyboardInterrupt:
            print("interrupted; what was written until now is complete", file=sys.stderr)
            raise typer.Exit(130) from None


def load(name: str) -> TyperCommand | TyperGroup:
    """The command of that name, its module imported: the module's `app`, or its function of the module's name."""
    module = import_module(f"tectum.cli.{_MODULES.get(name, name)}")
    commands = getattr(module, "app", None)
    if commands is None:
        commands = typer.Typer(rich_markup_mode="markdown")
        commands.command(name)(getattr(module, _MODULES.get(name, name)))
    command: Any = typer.main.get_command(commands)
    command.name = name
    return command


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
        typer.echo(f"tectum {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit."""
    app()
