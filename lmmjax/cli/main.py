"""The application: its commands, and what holds for all of them."""

from __future__ import annotations

from typing import Annotated

import typer

import lmmjax
from lmmjax.cli.batch import batch
from lmmjax.cli.demo import demo
from lmmjax.cli.fit import fit
from lmmjax.cli.info import info

COMMANDS = (fit, batch, demo, info)
"""Each is called as its function is, in the order of `lmmjax --help`."""

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Linear mixed models."
)


def main() -> None:
    """Entry point of the command `lmmjax`."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lmmjax {lmmjax.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for command in COMMANDS:
    app.command()(command)
