"""Batches larger than memory: responses from files and arrays in chunks, results to Parquet."""

from lmmjax.stream.processes import ProcessError
from lmmjax.stream.run import Streamed, stream_batch
from lmmjax.stream.sources import Source, open_source

__all__ = ["ProcessError", "Source", "Streamed", "open_source", "stream_batch"]
