"""A traced program as plain data: calls inlined, what is known evaluated, what is not used left out."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from lmmjax.arrays.interpret.rules import PARAMETERS, SCALARWISE, Unsupported, dtype_of, make

SAME = frozenset({"optimization_barrier", "stop_gradient", "copy", "copy_p", "reshard"})
"""Primitives that return what they are given."""

INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
CALLS = frozenset(
    {
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "checkpoint",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "custom_lin",
    }
)
"""Primitives that only call a program, by the names that versions of JAX have for the program."""

SMALL = 64
"""Elements of the largest constant that is kept once, however often a program has it."""

LARGEST_KNOWN = 4096
"""Elements of the largest array that is worked out while writing a tape."""


ONE_BY_ONE = frozenset({"cholesky", "triangular_solve", "lu"})
"""Operations that are played for one matrix after the other."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation: a primitive with parameters (plain data or tapes), and the slots it reads and writes.

    Its weight is one, and one more for every 250 elements that it writes, and for every matrix of a
    factorisation.
    """

    name: str
    params: dict[str, Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    weight: int = 1


@dataclasses.dataclass(frozen=True)
class Tape:
    """Operations in their order, on numbered slots.

    Attributes
    ----------
    slots : how many; known : values of those that do not depend on the inputs.
    inputs, outputs : slots; dtypes : of the outputs; shapes : theirs.
    """

    slots: int
    known: dict[int, np.ndarray]
    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def length(self) -> int:
        """How many steps are written down, those of loops and branches once."""
        inner = [p for step in self.steps for p in step.params.values()]
        branches = [tape for p in inner for tape in (p if isinstance(p, tuple) else (p,))]
        return len(self.steps) + sum(tape.length for tape in branches if isinstance(tape, Tape))

    @property
    def least(self) -> int:
        """What a run is sure to weigh: loops of known length as often as they run, others not at all."""
        total = sum(step.weight for step in self.steps)
        scans = (step.params for step in self.steps if step.name == "scan")
        return total + sum(p["length"] * p["body"].least for p in scans)


def record_tape(traced: Any) -> Tape:
    """The tape of a program.

    Raises
    ------
    Unsupported
        for a primitive that NumPy has no rule for here, or a type that NumPy does not have.
    """
    for atom in (*traced.jaxpr.invars, *traced.jaxpr.outvars):
        if dtype_of(atom) != atom.aval.dtype:
            raise Unsupported(f"NumPy has no {atom.aval.dtype}")
    return _sub(traced, [None] * len(traced.jaxpr.invars))


def _sub(traced: Any, given: list[np.ndarray | None]) -> Tape:
    """The tape of a program some of whose inputs are known; the others are the inputs of the tape."""
    writer = _Writer()
    slots = [writer.constant(value) if value is not None else writer.slot() for value in given]
    outputs = writer.inline(traced.jaxpr, traced.consts, slots)
    kept, used = [], set(outputs)
    for step in reversed(writer.steps):
        if used.intersection(step.writes):
            kept.append(step)
            used.update(step.reads)
    avals = [v.aval for v in traced.jaxpr.outvars]
    return Tape(
        slots=writer.count,
        known={k: v for k, v in writer.known.items() if k in used},
        inputs=tuple(s for s, value in zip(slots, given, strict=True) if value is None),
        steps=tuple(reversed(kept)),
        outputs=tuple(outputs),
        dtypes=tuple(np.dtype(a.dtype).str for a in avals),
        shapes=tuple(tuple(a.shape) for a in avals),
    )


class _Writer:
    """Steps and known values of one tape, while it is written."""

    def __init__(self) -> None:
        self.count = 0
        self.known: dict[int, np.ndarray] = {}
        self.steps: list[Step] = []
        self.thin: dict[int, int] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        # slots of what has been written, by what it is
        self.written: dict[tuple, list[int]] = {}

    def slot(self) -> int:
        self.count += 1
        return self.count - 1

    def constant(self, value: Any) -> int:
        array = np.asarray(value)
        same = (array.dtype.str, array.shape, array.tobytes()) if array.size <= SMALL else None
        if same is not None and same in self.written:
            return self.written[same][0]
        place = self.slot()
        self.known[place] = array
        if same is not None:
            self.written[same] = [place]
        return place

    def inline(self, jaxpr: Any, consts: list[Any], slots: list[int]) -> list[int]:
        """Write the steps of a program on these slots; the slots of what it returns."""
        where: dict[Any, int] = dict(zip(jaxpr.invars, slots, strict=True))
        for variable, value in zip(jaxpr.constvars, consts, strict=True):
            where[variable] = self.constant(value)

        def read(atom: Any) -> int:
            if hasattr(atom, "val"):
                return self.constant(np.asarray(atom.val, dtype_of(atom)))
            return where[atom]

        for eqn in jaxpr.eqns:
            if eqn.effects:
                raise Unsupported(f"{eqn.primitive.name} has effects")
            outs = self.equation(eqn, [read(atom) for atom in eqn.invars])
            where.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn: Any, reads: list[int]) -> list[int]:
        name, params = eqn.primitive.name, eqn.params
        if name in SAME or (
            name == "convert_element_type" and dtype_of(eqn.invars[0]) == dtype_of(eqn.outvars[0])
        ):
            return reads
        if name in CALLS:
            inner = next(params[key] for key in INNER if key in params)
            closed = hasattr(inner, "consts")
            return self.inline(inner.jaxpr if closed else inner, inner.consts if closed else [], reads)
        if name == "custom_vmap_call":
            return self.inline(params["call"].jaxpr, params["call"].consts, reads)
        if name == "custom_linear_solve":
            # consts of Ax, xA, the solution and that with Aᵀ, then the right-hand sides
            lengths, solve = params["const_lengths"], params["jaxprs"].solve
            first = lengths.matvec + lengths.vecmat
            consts = reads[first : first + lengths.solve]
            return self.inline(solve.jaxpr, solve.consts, [*consts, *reads[sum(lengths) :]])
        if name == "platform_index":
            chosen = [k for k, p in enumerate(params["platforms"]) if p is None or "cpu" in p]
            return [self.constant(np.int32(chosen[0]))]
        if name in ("while", "scan", "cond"):
            return {"while": self._while, "scan": self._scan, "cond": self._cond}[name](eqn, reads)
        if name not in PARAMETERS:
            raise Unsupported(f"no rule for {name}")
        return self.step(name, PARAMETERS[name](eqn), reads, eqn.outvars)

    def step(self, name: str, params: dict[str, Any], reads: list[int], outvars: Any) -> list[int]:
        """Write a step, unless it is written, or all it reads is known and what it returns is small."""
        size = sum(math.prod(v.aval.shape) for v in outvars)
        values = [self.known.get(s) for s in reads]
        if all(v is not None for v in values) and size <= LARGEST_KNOWN:
            with np.errstate(all="ignore"):
                out = make(name, params, values)(*values)
            out = out if len(outvars) != 1 else (out,)
            return [
                self.constant(np.asarray(o, dtype_of(v)).reshape(v.aval.shape))
                for o, v in zip(out, outvars, strict=True)
            ]
        if name in SCALARWISE:
            reads = self.thinned(reads, outvars[0].aval.shape)
        same = (name, tuple(params.items()), tuple(reads))
        if same in self.written:
            return self.written[same]
        writes = self.written[same] = self._write(name, params, reads, outvars)
        if name == "broadcast_in_dim" and values[0] is None and outvars[0].aval.shape:
            self.thin[writes[0]] = self.narrow(params, reads[0])
        return writes

    def narrow(self, params: dict[str, Any], source: int) -> int:
        """A slot with what is broadcast, its axes in place and of length one where it has none."""
        narrow, places = [1] * len(params["shape"]), params["broadcast_dimensions"]
        if not places:
            return source
        for place, size in zip(places, params["sizes"], strict=True):
            narrow[place] = size
        slot = self.slot()
        self.steps.append(Step("reshape", {"new_sizes": tuple(narrow)}, (source,), (slot,)))
        return slot

    def thinned(self, reads: list[int], shape: tuple[int, ...]) -> list[int]:
        """What is read by an operation on elements, not broadcast, as long as one operand has the shape."""
        full = [s not in self.thin for s in reads]
        if not any(f and self.full(s, shape) for f, s in zip(full, reads, strict=True)):
            return reads
        return [s if f else self.thin[s] for f, s in zip(full, reads, strict=True)]

    def full(self, slot: int, shape: tuple[int, ...]) -> bool:
        if slot in self.known:
            return self.known[slot].shape == shape
        return self.shapes.get(slot) == shape

    def program(self, traced: Any, reads: list[int], free: int) -> tuple[Tape, list[int]]:
        """The tape of a program in a loop, of which the first inputs are the same every time: (tape, slots of
        those that are not known while writing)."""
        fixed = [self.known.get(s) for s in reads]
        return _sub(traced, [*fixed, *[None] * free]), [
            s for s, value in zip(reads, fixed, strict=True) if value is None
        ]

    def _while(self, eqn: Any, reads: list[int]) -> list[int]:
        p = eqn.params
        a, b = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
        carried = reads[b:]
        ask, ask_reads = self.program(p["cond_jaxpr"], reads[:a], len(carried))
        body, body_reads = self.program(p["body_jaxpr"], reads[a:b], len(carried))
        params = {"ask": ask, "body": body, "n_ask": len(ask_reads), "n_body": len(body_reads)}
        return self._write("while", params, [*ask_reads, *body_reads, *carried], eqn.outvars)

    def _scan(self, eqn: Any, reads: list[int]) -> list[int]:
        p = eqn.params
        fixed, rest = reads[: p["num_consts"]], reads[p["num_consts"] :]
        body, body_reads = self.program(p["jaxpr"], fixed, len(rest))
        params = {"body": body, "n_body": len(body_reads), "n_carry": p["num_carry"]}
        params |= {"length": int(p["length"]), "reverse": bool(p["reverse"])}
        return self._write("scan", params, [*body_reads, *rest], eqn.outvars)

    def _cond(self, eqn: Any, reads: list[int]) -> list[int]:
        branches, (which, *rest) = eqn.params["branches"], reads
        if which in self.known:
            chosen = branches[int(np.clip(self.known[which], 0, len(branches) - 1))]
            return self.inline(chosen.jaxpr, chosen.consts, rest)
        tapes = tuple(_sub(branch, [None] * len(rest)) for branch in branches)
        return self._write("cond", {"branches": tapes}, reads, eqn.outvars)

    def _write(self, name: str, params: dict[str, Any], reads: list[int], outvars: Any) -> list[int]:
        writes = [self.slot() for _ in outvars]
        self.shapes.update({s: tuple(v.aval.shape) for s, v in zip(writes, outvars, strict=True)})
        size = sum(math.prod(v.aval.shape) for v in outvars)
        matrices = math.prod(self.shapes[writes[0]][:-2]) if name in ONE_BY_ONE else 0
        self.steps.append(Step(name, params, tuple(reads), tuple(writes), 1 + size // 250 + matrices))
        return writes
