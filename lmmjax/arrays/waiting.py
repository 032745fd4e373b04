"""Calls of LAPACK that do not depend on each other, one after the other.

jaxlib 0.10 and 0.11.0 share the matrices of a large batched call of LAPACK out among the threads of XLA's
pool, and the thread that called waits until all are done. Calls that do not depend on each other run at the
same time: where as many wait as the pool has threads, nobody is left to work, and the program never ends. Two
calls are enough on two cores. No option of the compiler keeps them apart (it drops barriers, and what it is
told of threads is forgotten), so that a program gets what makes each call depend on the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxlib.version import __version__ as JAXLIB

SHARED_OUT = (0, 10, 0) <= tuple(int(p) for p in JAXLIB.split(".")[:3] if p.isdigit()) < (0, 11, 1)
"""Whether this jaxlib shares out the matrices of a call."""

LAPACK = frozenset(
    [
        "cholesky",
        "triangular_solve",
        "lu",
        "geqrf",
        "geqp3",
        "householder_product",
        "eig",
        "eigh",
        "hessenberg",
        "schur",
        "svd",
        "tridiagonal",
        "tridiagonal_solve",
    ]
)
"""Primitives of JAX that are LAPACK's on a CPU."""

LARGE = 10_000
"""Elements of the matrices of a call below which one thread works on them: measured, 33,000 were."""

NEVER = -1.2345e38
"""What no result of LAPACK is."""

INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}
"""Primitives that are programs of others -> the parameter that has it."""


def waits(jaxpr: Any) -> bool:
    """Whether two large batched calls of LAPACK may run at the same time."""
    found = _calls(jaxpr)
    return next(found, None) is not None and next(found, None) is not None


def in_turn(closed: Any) -> Callable[..., list[Any]]:
    """The function of a program, its calls of LAPACK each after the one before."""

    def function(*args: Any) -> list[Any]:
        return _play(closed.jaxpr, closed.consts, list(args), jnp.zeros((), jnp.float32))[0]

    return function


def _calls(jaxpr: Any) -> Iterator[Any]:
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield from _calls_of(equation)


def _calls_of(equation: Any) -> Iterator[Any]:
    """Large batched calls of LAPACK that an equation is or has within it."""
    if equation.primitive.name in LAPACK:
        shape = equation.invars[0].aval.shape
        if prod(shape[:-2]) > 1 and prod(shape) >= LARGE:
            yield equation
    for value in equation.params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                yield from _calls(inner)


def _play(jaxpr: Any, consts: Any, args: list[Any], turn: Any) -> tuple[list[Any], Any]:
    """What a program returns, and a number of its last call of LAPACK; `turn` is that of the one before."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(v: Any) -> Any:
        # a literal: `jax.extend.core` has the type, and imports Pallas with it
        return v.val if hasattr(v, "val") else values[v]

    for equation in jaxpr.eqns:
        given = [read(v) for v in equation.invars]
        if next(_calls_of(equation), None) is None:
            found = _apply(equation, given)
        else:
            found, turn = _take_turn(equation, given, turn)
        values.update(zip(equation.outvars, found, strict=True))
    return [read(v) for v in jaxpr.outvars], turn


def _apply(equation: Any, given: list[Any]) -> list[Any]:
    params = equation.primitive.get_bind_params(equation.params)
    functions, params = params if isinstance(params, tuple) else ((), params)
    found = equation.primitive.bind(*functions, *given, **params)
    return list(found) if equation.primitive.multiple_results else [found]


def _take_turn(equation: Any, given: list[Any], turn: Any) -> tuple[list[Any], Any]:
    name, params = equation.primitive.name, equation.params
    if name in LAPACK:
        # a[0, …, 0] of what it returns
        found = _apply(equation, [_after(given[0], turn), *given[1:]])
        return found, jnp.real(found[0][(0,) * found[0].ndim]).astype(np.float32)
    if name == "while":
        return _while(params, given, turn)
    if name == "scan":
        return _scan(params, given, turn)
    if name == "cond":
        return _cond(params, given, turn)
    if name == "custom_linear_solve":
        # the constants of Ax, xA, the solution and that with Aᵀ, then the right-hand sides
        lengths, inner = params["const_lengths"], params["jaxprs"].solve
        before = lengths.matvec + lengths.vecmat
        given = [*given[before : before + lengths.solve], *given[sum(lengths) :]]
    elif name in INLINED:
        inner = params[INLINED[name]]
    else:
        return _apply(equation, given), turn
    return _play(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), given, turn)


def _after(a: Any, turn: Any) -> Any:
    """The same matrices, once the call before has ended: an element waits for what it returned."""
    first = (0,) * a.ndim
    return a.at[first].set(jnp.where(turn == np.float32(NEVER), -a[first], a[first]))


def _while(params: dict[str, Any], given: list[Any], turn: Any) -> tuple[list[Any], Any]:
    ask, body = params["cond_jaxpr"], params["body_jaxpr"]
    a, b = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]

    def more(carry: tuple[list[Any], Any]) -> Any:
        return _play(ask.jaxpr, ask.consts, [*given[:a], *carry[0]], carry[1])[0][0]

    def step(carry: tuple[list[Any], Any]) -> tuple[list[Any], Any]:
        return _play(body.jaxpr, body.consts, [*given[a:b], *carry[0]], carry[1])

    return jax.lax.while_loop(more, step, (given[b:], turn))


def _scan(params: dict[str, Any], given: list[Any], turn: Any) -> tuple[list[Any], Any]:
    body, a = params["jaxpr"], params["num_consts"]
    b = a + params["num_carry"]

    def step(carry: tuple[list[Any], Any], row: list[Any]) -> tuple[tuple[list[Any], Any], list[Any]]:
        found, turn = _play(body.jaxpr, body.consts, [*given[:a], *carry[0], *row], carry[1])
        return (found[: b - a], turn), found[b - a :]

    kinds = {key: params[key] for key in ("length", "reverse", "unroll")}
    (carry, turn), rows = jax.lax.scan(step, (given[a:b], turn), given[b:], **kinds)
    return [*carry, *rows], turn


def _cond(params: dict[str, Any], given: list[Any], turn: Any) -> tuple[list[Any], Any]:
    def branch(closed: Any) -> Callable[..., tuple[list[Any], Any]]:
        return lambda *rest: _play(closed.jaxpr, closed.consts, list(rest[:-1]), rest[-1])

    branches = [branch(closed) for closed in params["branches"]]
    return jax.lax.switch(given[0], branches, *given[1:], turn)
