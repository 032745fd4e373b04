"""Batches larger than memory: responses from files and arrays in chunks, results to Parquet."""

from lmmjax.stream.executors import ShardError
from lmmjax.stream.run import Streamed, stream_batch
from lmmjax.stream.sources import Source, open_source

__all__ = ["ShardError", "Source", "Streamed", "open_source", "stream_batch"]
