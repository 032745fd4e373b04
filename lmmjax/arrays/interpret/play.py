"""Playing a tape: steps one after the other, loops by playing their tapes again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lmmjax.arrays.interpret import indexing, linear, moves  # noqa: F401  register rules
from lmmjax.arrays.interpret.rules import make
from lmmjax.arrays.interpret.tape import Step, Tape


class TooLong(Exception):
    """More steps were played than allowed: compiling is faster."""


class Meter:
    """Steps played so far, and how many may be."""

    def __init__(self, most: float) -> None:
        self.steps, self.most = 0, most

    def count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > self.most:
            raise TooLong


def player(tape: Tape) -> Callable[[list[Any], float], tuple[list[np.ndarray], int]]:
    """A function (arrays, most steps) → arrays, steps played.

    It raises `TooLong` beyond the most steps; one of many elements counts as several.
    """
    run = _runner(tape)
    kinds = list(zip(tape.dtypes, tape.shapes, strict=True))

    def play(leaves: list[Any], most: float) -> tuple[list[np.ndarray], int]:
        meter = Meter(most)
        with np.errstate(all="ignore"):
            out = run([np.asarray(leaf)[()] for leaf in leaves], meter)
        return [
            np.array(o, dtype).reshape(shape) for o, (dtype, shape) in zip(out, kinds, strict=True)
        ], meter.steps

    return play


def _runner(tape: Tape) -> Callable[[list[Any], Meter], list[Any]]:
    # scalars of NumPy, not arrays without axes, which are slow
    slots = [tape.known[k][()] if k in tape.known else None for k in range(tape.slots)]
    steps = list(_orders(tape))
    inputs, outputs, weight = tape.inputs, tape.outputs, sum(step.weight for step in tape.steps)

    def run(given: list[Any], meter: Meter) -> list[Any]:
        meter.count(weight)
        values = slots.copy()
        for slot, value in zip(inputs, given, strict=True):
            values[slot] = value
        # this loop is most of the time that playing takes: nearly all steps read one or two values
        for function, first, second, write, others in steps:
            if second >= 0:
                values[write] = function(values[first], values[second])
            elif first >= 0:
                values[write] = function(values[first])
            elif write >= 0:
                values[write] = function(*[values[k] for k in others])
            elif function is _let_go:
                for slot in others:
                    values[slot] = None
            else:
                reads, writes = others
                found = function(meter, *[values[k] for k in reads])
                for slot, value in zip(writes, found, strict=True):
                    values[slot] = value
        return [values[k] for k in outputs]

    return run


def _let_go(*values: Any) -> None:
    """Stands where large arrays are read for the last time."""


def _orders(tape: Tape) -> Iterator[tuple[Callable, int, int, int, Any]]:
    """Steps as (function, the slots that it reads if one or two, the one it writes, others), −1 for none.

    `others` are the slots that are read if they are more, (reads, writes) of what writes several, and those
    that `_let_go` frees.
    """
    ends = _last_reads(tape)
    for k, step in enumerate(tape.steps):
        function, reads, write, writes = _prepared(step, tape)
        if writes is not None:
            yield function, -1, -1, -1, (reads, writes)
        elif len(reads) in (1, 2):
            yield function, reads[0], reads[1] if len(reads) == 2 else -1, write, None
        else:
            yield function, -1, -1, write, reads
        if k in ends:
            yield _let_go, -1, -1, -1, ends[k]


def _last_reads(tape: Tape) -> dict[int, list[int]]:
    """Slots of large arrays by the step after which nobody reads them."""
    large = {slot for step in tape.steps if step.weight > 1 for slot in step.writes} - set(tape.outputs)
    last = {slot: k for k, step in enumerate(tape.steps) for slot in step.reads if slot in large}
    ends: dict[int, list[int]] = {}
    for slot, k in last.items():
        ends.setdefault(k, []).append(slot)
    return ends


def _prepared(step: Step, tape: Tape) -> tuple[Callable, tuple[int, ...], int, tuple[int, ...] | None]:
    if step.name in LOOPS:
        return LOOPS[step.name](step.params), step.reads, -1, step.writes
    function = make(step.name, step.params, [tape.known.get(k) for k in step.reads])
    if len(step.writes) == 1:
        return function, step.reads, step.writes[0], None
    return (lambda meter, *arrays: function(*arrays)), step.reads, -1, step.writes


def _while(p: dict[str, Any]) -> Callable:
    ask, body = _runner(p["ask"]), _runner(p["body"])
    a, b = p["n_ask"], p["n_ask"] + p["n_body"]

    def loop(meter: Meter, *reads: Any) -> list[Any]:
        asking, fixed, carried = list(reads[:a]), list(reads[a:b]), list(reads[b:])
        while True:
            more = np.asarray(ask([*asking, *carried], meter)[0])
            if not more.any():
                return carried
            new = body([*fixed, *carried], meter)
            # of a mapped loop those that have ended stay as they are
            carried = new if more.all() else [_where(more, x, y) for x, y in zip(new, carried, strict=True)]

    return loop


def _where(which: np.ndarray, x: Any, y: Any) -> np.ndarray:
    """x or y by their first axes."""
    return np.where(which.reshape(which.shape + (1,) * (np.ndim(x) - which.ndim)), x, y)


def _scan(p: dict[str, Any]) -> Callable:
    body, n, c, length = _runner(p["body"]), p["n_body"], p["n_carry"], p["length"]
    order = range(length - 1, -1, -1) if p["reverse"] else range(length)
    kinds = list(zip(p["body"].dtypes[c:], p["body"].shapes[c:], strict=True))

    def loop(meter: Meter, *reads: Any) -> list[Any]:
        fixed, carried, rows = list(reads[:n]), list(reads[n : n + c]), reads[n + c :]
        stacked = [np.empty((length, *shape), dtype) for dtype, shape in kinds]
        for k in order:
            found = body([*fixed, *carried, *[a[k] for a in rows]], meter)
            carried = found[:c]
            for array, value in zip(stacked, found[c:], strict=True):
                array[k] = value
        return [*carried, *stacked]

    return loop


def _cond(p: dict[str, Any]) -> Callable:
    branches = [_runner(tape) for tape in p["branches"]]

    def choose(meter: Meter, which: Any, *reads: Any) -> list[Any]:
        k = min(max(int(which), 0), len(branches) - 1)
        return branches[k](list(reads), meter)

    return choose


LOOPS: dict[str, Callable[[dict[str, Any]], Callable]] = {"while": _while, "scan": _scan, "cond": _cond}
