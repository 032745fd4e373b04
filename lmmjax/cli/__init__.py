"""The command line, a file a command: `lmmjax fit | batch | scan | grm | shards | demo | bench | info`."""

from lmmjax.cli.main import app, main

__all__ = ["app", "main"]
