"""The application: its commands, and what holds for all of them."""

from __future__ import annotations

from typing import Annotated

import typer

import lmmjax
from lmmjax.cli import batch, bench, demo, fit, grm, info, scan, shards

COMMANDS = {
    fit.fit: fit.EXAMPLES,
    batch.batch: batch.EXAMPLES,
    scan.scan: scan.EXAMPLES,
    grm.grm: grm.EXAMPLES,
    demo.demo: demo.EXAMPLES,
    bench.bench: bench.EXAMPLES,
    info.info: info.EXAMPLES,
}
"""Each is called as its function is, in the order of `lmmjax --help`, which ends with its examples."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 a fit did not converge, or a check failed; 2 formula, options or data are wrong, "
    "and nothing was fitted."
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Linear mixed models by ML and REML, one fit or thousands.",
    epilog=f"{EXIT_CODES}\n\nCOMMAND --help has examples.",
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


for command, examples in COMMANDS.items():
    app.command(epilog=f"{examples}\n\n{EXIT_CODES}")(command)
app.add_typer(shards.shards, name="shards", epilog=shards.EXAMPLES)
