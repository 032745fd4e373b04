"""Calls timed in this process: the first, of a newcomer, apart from later ones, of somebody who goes on."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Timed:
    """The last result, seconds of the first call and of the `later` ones, and their processor seconds."""

    result: Any = None
    first: float = 0.0
    later: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The fastest later call."""
        return min(self.later)

    @property
    def median(self) -> float:
        return statistics.median(self.later)

    @property
    def seconds(self) -> dict[str, Any]:
        """For a record: the first call, the fastest later one, and all of them."""
        return {"first": self.first, "warm": self.best, "calls": self.later}


def timed(call: Callable[[], Any], repeats: int, budget: float = float("inf")) -> Timed:
    """A call and `repeats` more, fewer if `budget` seconds are spent, but one at least."""
    return in_turns([call], repeats, budget)[0]


def in_turns(calls: list[Callable[[], Any]], repeats: int, budget: float = float("inf")) -> list[Timed]:
    """Several calls, each `repeats` times after its first, one after the other in every round.

    What lmmjax would play for a while is compiled before the later calls.
    """
    found = [Timed() for _ in calls]
    spent = 0.0
    own = sys.modules.get("lmmjax.arrays.compile")
    steady = own.compiled_at_once if own else contextlib.nullcontext
    for round_ in range(repeats + 1):
        if round_ > 1 and spent >= budget:
            break
        for call, one in zip(calls, found, strict=True):
            with steady() if round_ else contextlib.nullcontext():
                begin, used = time.perf_counter(), time.process_time()
                one.result = call()
                seconds, processor = time.perf_counter() - begin, time.process_time() - used
            if round_ == 0:
                one.first = seconds
                with steady():
                    call()
            else:
                spent += seconds
                one.later.append(seconds)
                one.processor.append(processor)
    return found
