"""The command line, a file a command: `lmmjax fit`, `lmmjax batch`, `lmmjax demo`."""

from lmmjax.cli.main import app, main

__all__ = ["app", "main"]
