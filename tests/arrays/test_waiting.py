"""Calls of LAPACK one after the other: the same numbers, and each waits for the one before."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmmjax.arrays.waiting import LAPACK, in_turn, waits

N, Q = 200, 8
SPREAD = np.random.default_rng(1).normal(size=(3, N, Q, 3 * Q))
PARTS = [a @ a.transpose(0, 2, 1) for a in SPREAD]


def apart(a, b, c):
    return [jnp.linalg.cholesky(part).sum() for part in (a, b, c)]


def in_a_loop(a, b, c):
    return jax.lax.fori_loop(0, 3, lambda _, s: s + sum(apart(a + s * 1e-6, b, c)), 0.0)


def in_a_while(a, b, c):
    """Where the question asks LAPACK too."""

    def more(s):
        return jnp.linalg.cholesky(a).sum() * s < jnp.linalg.cholesky(b).sum() * 4.0

    return jax.lax.while_loop(more, lambda s: s + 1.0 + 1e-9 * sum(apart(a, b, c)), 1.0)


def in_a_scan(a, b, c):
    return jax.lax.scan(lambda s, x: (s + sum(apart(a, b, x)), s), 0.0, jnp.stack([a, b, c]), reverse=True)


def in_a_branch(a, b, c):
    return jax.lax.cond(a[0, 0, 0] > 0, lambda: sum(apart(a, b, c)), lambda: jnp.linalg.inv(a).sum())


def solved(a, b, c):
    half = jax.vmap(lambda a, b: jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(a), True), b))(a, b)
    return half, jax.vmap(jnp.linalg.solve)(b, c), jnp.linalg.eigh(c)[0]


def slopes(a, b, c):
    return jax.grad(lambda a: sum(apart(a, b, c)) * 2.0)(a)


@jax.custom_batching.custom_vmap
def mapped_its_own_way(a, b, c):
    return sum(apart(a, b, c))


@mapped_its_own_way.def_vmap
def _(size, mapped, a, b, c):
    return jnp.zeros(size), True


@pytest.mark.parametrize(
    "function",
    [apart, in_a_loop, in_a_while, in_a_scan, in_a_branch, solved, slopes, mapped_its_own_way],
)
def test_the_numbers_are_the_same(function):
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(function)(*PARTS)
        assert waits(closed)
        turned = jax.jit(in_turn(closed))(*PARTS)
        plain = [np.asarray(jnp.asarray(value)) for value in jax.tree.leaves(eager(function))]
        for found, expected in zip(turned, plain, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-11)


def eager(function):
    """Programs of one call each."""
    with jax.disable_jit():
        return function(*map(jnp.asarray, PARTS))


@pytest.mark.parametrize("function", [apart, in_a_loop, in_a_scan, in_a_branch, slopes, mapped_its_own_way])
def test_every_call_depends_on_the_one_before(function):
    with jax.enable_x64(True):
        chained(jax.make_jaxpr(in_turn(jax.make_jaxpr(function)(*PARTS)))(*PARTS).jaxpr)


def chained(jaxpr):
    """Whether what a call is given is made, at any distance, of what the last call or loop before it gave."""
    made_of, last = {}, None
    for k, equation in enumerate(jaxpr.eqns):
        seen = set()
        for v in equation.invars:
            seen |= made_of.get(v, set()) if not hasattr(v, "val") else set()
        inner = [
            getattr(p, "jaxpr", p) for p in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr)
        ]
        inner = [p for p in inner if hasattr(p, "eqns")]
        turns = equation.primitive.name in LAPACK or any(calls(p) for p in inner)
        if turns:
            assert last is None or last in seen
            last = k
        for p in inner:
            chained(p)
        for v in equation.outvars:
            made_of[v] = seen | ({k} if turns else set())


def is_jaxpr(value):
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def calls(jaxpr):
    return any(e.primitive.name in LAPACK for e in jaxpr.eqns)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a: jnp.linalg.cholesky(a).sum(), False),
        (lambda a: jnp.linalg.cholesky(a[:9]).sum() + jnp.linalg.cholesky(a[9:18]).sum(), False),
        (lambda a: jax.lax.map(lambda one: jnp.linalg.inv(one).sum(), a).sum(), False),
        (lambda a: jax.vmap(jnp.linalg.inv)(a).sum(), True),
        (lambda a: (a @ a).sum(), False),
    ],
)
def test_which_programs_wait(function, expected):
    """Those with two calls for many matrices."""
    assert waits(jax.make_jaxpr(function)(np.asarray(PARTS[0], np.float32))) == expected


def test_a_program_with_several_calls_ends():
    """In a process of its own: on two cores jaxlib 0.10.1 alone never returns."""
    script = """
import numpy as np, jax, jax.numpy as jnp
from lmmjax.arrays import quick_jit
with jax.enable_x64(True):
    parts = [np.broadcast_to(k * np.eye(8), (20_000, 8, 8)).copy() for k in (2.0, 3.0, 4.0)]
    found = quick_jit(lambda *parts: sum(jnp.linalg.cholesky(part).sum() for part in parts))(*parts)
    print(float(found) / 160_000 - sum(np.sqrt([2.0, 3.0, 4.0])))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert abs(float(done.stdout)) < 1e-10, done.stderr
