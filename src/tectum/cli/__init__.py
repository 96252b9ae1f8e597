"""The `tectum` command line, one module per command."""

from tectum.cli.commands import app, main

__all__ = ["app", "main"]
