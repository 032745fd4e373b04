"""The command line, called in this process."""

from typer.testing import CliRunner

from lmmjax.cli import app


def run(*arguments, **options):
    """`lmmjax ARGUMENTS`: its output and exit code."""
    return CliRunner().invoke(app, [str(a) for a in arguments], **options)
