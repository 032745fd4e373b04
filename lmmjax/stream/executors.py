"""Work on the workers of others: whatever has `submit`, as executors of `concurrent.futures` have.

What is submitted is a function and a number, and nothing comes back but that it is done: results are files.
So a worker that dies costs the shard that it was at, and a shard that is made twice is made the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

RETRIES = 5
"""How often a shard is tried again whose worker died or whose disk failed."""

SHORTEST, LONGEST = 0.002, 0.25
"""Seconds between two looks at whether something is done."""

FINAL = (ValueError, TypeError, ImportError, AttributeError)
"""Errors that would come again."""


class ShardError(RuntimeError):
    """A shard could not be made by any worker; what other workers have made stays."""


def require_executor(executor: Any) -> None:
    """ValueError unless `executor` has `submit`, returns at once, and has workers that can run JAX."""
    if not callable(getattr(executor, "submit", None)):
        raise ValueError(
            f"executor of type {type(executor).__name__} has no method submit: pass a Client of "
            "dask.distributed, an executor of concurrent.futures, or one of submitit"
        )
    if getattr(executor, "asynchronous", False) is True:
        raise ValueError("executor is an asynchronous client: pass Client(…, asynchronous=False)")
    method = getattr(getattr(executor, "_mp_context", None), "get_start_method", lambda: None)()
    if method == "fork":
        raise ValueError(
            "executor forks its workers, in which JAX can hang: pass "
            "ProcessPoolExecutor(…, mp_context=multiprocessing.get_context('spawn'))"
        )


def completed(
    executor: Any, function: Callable[..., Any], arguments: tuple[Any, ...], numbers: Iterable[int]
) -> Iterator[int]:
    """Call `function(*arguments, number)` on the workers for every number; yields those that are done.

    Parameters
    ----------
    function : of a module, since workers import it; arguments : small values that pickle.

    What is not done when the iteration is left is called off, as far as the executor can.

    Raises
    ------
    ShardError : a call failed `RETRIES` times, or the executor lost its workers for good.
    ValueError, TypeError, ImportError, AttributeError : of the function itself, at once.
    """
    # Dask takes equal calls for one, and a file that was deleted meanwhile for made
    options = {"pure": False} if type(executor).__module__.split(".")[0] == "distributed" else {}

    def submit(k: int) -> Any:
        return executor.submit(function, *arguments, k, **options)

    # the futures by their numbers: not all can be hashed
    pending, tried, pause = {k: submit(k) for k in numbers}, dict.fromkeys(numbers, 0), SHORTEST
    try:
        while pending:
            ready = [k for k, future in pending.items() if future.done()]
            pause = SHORTEST if ready else min(2 * pause, LONGEST)
            for k in ready:
                try:
                    pending[k].result()
                except FINAL:
                    raise
                except BrokenExecutor as error:
                    raise ShardError(
                        f"the workers are gone ({error}): what they have made is kept; resume with a new "
                        "executor"
                    ) from error
                except Exception as error:
                    tried[k] += 1
                    if tried[k] > RETRIES:
                        why = " ".join(str(error).split()) or type(error).__name__
                        raise ShardError(f"shard {k} failed {tried[k]} times, at last with: {why}") from error
                    pending[k] = submit(k)
                    continue
                del pending[k]
                yield k
            if not ready:
                time.sleep(pause)
    finally:
        for future in pending.values():
            with contextlib.suppress(Exception):
                future.cancel()
