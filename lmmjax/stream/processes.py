"""Several processes of `jax.distributed` that work on one thing: what each has to tell the others.

Messages go through the key-value store of the coordinator, so that nothing here needs a collective
operation between devices.
"""

from __future__ import annotations

import itertools
import json
import time
from types import TracebackType
from typing import Any

import jax

PATIENCE = 600.0
"""Seconds to wait for the message of a process that is alive, where all have about the same to do."""

POLL = 1.0
"""Seconds between two looks at whether another process has failed."""

_calls = itertools.count()


class ProcessError(RuntimeError):
    """Another process failed."""


class Processes:
    """The processes that take part, this one being `index` of `count`; alone without a `client`.

    As a context it tells the others of an exception that leaves it.

    Attributes
    ----------
    index, count : which process this is, of how many.
    """

    def __init__(self, index: int = 0, count: int = 1, client: Any = None):
        self.index, self.count, self._client = index, count, client
        # all processes make their calls in the same order
        self._prefix, self._step = f"lmmjax/{next(_calls) if client else 0}", 0

    def exchange(self, value: Any, patience: float = PATIENCE) -> list[Any]:
        """The values (of JSON) that all processes pass to the same call, by index.

        Raises
        ------
        ProcessError : another process failed, or passed nothing within `patience` seconds.
        """
        if self.count == 1:
            return [value]
        step, self._step = f"{self._prefix}/{self._step}", self._step + 1
        self._client.key_value_set(f"{step}/{self.index}", json.dumps(value))
        end = time.monotonic() + patience
        return [json.loads(self._wait(f"{step}/{k}", k, end)) for k in range(self.count)]

    def check(self) -> None:
        """Raise ProcessError if another process has failed."""
        if self.count > 1:
            message = self._get(f"{self._prefix}/failed", 0.0)
            if message is not None:
                raise ProcessError(message)

    def _wait(self, key: str, k: int, end: float) -> str:
        while (found := self._get(key, POLL)) is None:
            self.check()
            if time.monotonic() > end:
                raise ProcessError(f"process {k} sent nothing: all processes must make the same calls")
        return found

    def _get(self, key: str, seconds: float) -> str | None:
        """The value of a key; None if it has none within so many seconds."""
        try:
            if not seconds:
                return self._client.key_value_try_get(key)
            return self._client.blocking_key_value_get(key, int(1000 * seconds))
        except jax.errors.JaxRuntimeError as error:
            if not str(error).startswith(("NOT_FOUND", "DEADLINE_EXCEEDED")):
                raise
            return None

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.count > 1 and not isinstance(error, ProcessError):
            message = f"process {self.index} stopped: {error or type(error).__name__}"
            self._client.key_value_set(f"{self._prefix}/failed", message, allow_overwrite=True)


def processes() -> Processes:
    """All processes, where `jax.distributed.initialize` was called; else this one alone."""
    # JAX has no public name for the store
    from jax._src.distributed import global_state

    if global_state.client is None or global_state.num_processes == 1:
        return Processes()
    # processes find each other's devices here, each once: one that fits nothing must not be missing
    jax.local_devices()
    return Processes(global_state.process_id, global_state.num_processes, global_state.client)
