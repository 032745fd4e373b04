"""Calls timed in this process: the first, which compiles, apart from later ones."""

from __future__ import annotations

import statistics
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
    """Several calls, each `repeats` times after its first, one after the other in every round."""
    found = [Timed() for _ in calls]
    spent = 0.0
    for round_ in range(repeats + 1):
        if round_ > 1 and spent >= budget:
            break
        for call, one in zip(calls, found, strict=True):
            begin, used = time.perf_counter(), time.process_time()
            one.result = call()
            seconds, processor = time.perf_counter() - begin, time.process_time() - used
            if round_ == 0:
                one.first = seconds
            else:
                spent += seconds
                one.later.append(seconds)
                one.processor.append(processor)
    return found
