"""Patterns of the engine, each a program, past the sizes at which versions of JAX were found wrong."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, psd_cholesky, sweep
from lmmjax.selfcheck.cases import PATTERNS, Case, listed, rounding

SIZES = {"float64": (16_385, 20_001, 40_001, 65_537), "float32": (32_769, 40_001, 65_537, 131_073)}
"""Rows past the sizes at which compilers change their way of work; 0.10.2 is wrong in a window of them."""

PRECISE = jax.lax.Precision.HIGHEST
"""Of products in float32: a GPU's tensor cores keep three digits unless asked for all."""


@listed("mapped matrix-vector product, then a sum", PATTERNS)
def mapped_products(rng: np.random.Generator, dtype: np.dtype) -> Iterator[Case]:
    """The pattern of jax#39103, at odd numbers of columns: with five it shows at twice the size."""
    for q, sizes in ((3, SIZES[dtype.name]), (5, SIZES[dtype.name][2:])):
        m = rng.normal(size=(q, q)).astype(dtype)
        for n in sizes:
            rows = rng.normal(size=(n, q)).astype(dtype)
            expected = np.sum((rows.astype(float) @ m.astype(float).T) ** 2, axis=1)

            def squares(rows: Array, m: Array) -> Array:
                return jax.vmap(lambda r: jnp.sum(jnp.matmul(m, r, precision=PRECISE) ** 2))(rows)

            # of the largest square, which is some hundred times the mean, single products cancel
            yield Case(n, squares, (rows, m), expected, rounding(dtype, 200), both=True)


@listed("cross-products of rows", PATTERNS)
def cross_products(rng: np.random.Generator, dtype: np.dtype) -> Iterator[Case]:
    for n in SIZES[dtype.name]:
        w = rng.normal(size=(n, 6)).astype(dtype)
        expected = w.astype(float).T @ w.astype(float)
        # sums of n terms of either sign, of size √n beside the n of the diagonal
        tolerance = rounding(dtype, 20 * np.sqrt(n))
        yield Case(n, lambda w: jnp.matmul(w.T, w, precision=PRECISE), (w,), expected, tolerance)


@listed("sums over the rows of a group", PATTERNS)
def sums_by_group(rng: np.random.Generator, dtype: np.dtype) -> Iterator[Case]:
    for n, ordered in zip(SIZES[dtype.name][1:3], (False, True), strict=True):
        values = rng.uniform(0.5, 1.5, size=(n, 3)).astype(dtype)
        groups = n // 20
        codes = rng.integers(0, groups, n)
        codes = np.sort(codes) if ordered else codes
        expected = np.stack([np.bincount(codes, v, groups) for v in values.astype(float).T], axis=1)

        def add(values: Array, codes: Array, groups: int = groups, ordered: bool = ordered) -> Array:
            return jax.ops.segment_sum(values, codes, groups, indices_are_sorted=ordered)

        yield Case(n, add, (values, codes), expected, rounding(dtype, 100))


@listed("small Cholesky factors, inverses over lanes", PATTERNS)
def small_blocks(rng: np.random.Generator, dtype: np.dtype) -> Iterator[Case]:
    n, q = SIZES[dtype.name][1], 3
    root = rng.normal(size=(n, q, q))
    a = (root @ root.transpose(0, 2, 1) + q * np.eye(q)).astype(dtype)
    exact = a.astype(float)
    # condition numbers stay below a few dozen
    tolerance = rounding(dtype, 500)
    if dtype.itemsize == 8:
        # of descents, which in single precision go by sweeps alone
        factors = np.linalg.cholesky(exact)
        yield Case(n, jax.vmap(lambda block: psd_cholesky(block, 0.0)), (a,), factors, tolerance)
    lanes = np.ascontiguousarray(a.transpose(1, 2, 0))
    expected = np.linalg.inv(exact).transpose(1, 2, 0) + np.linalg.slogdet(exact)[1]

    def swept(lanes: Array) -> Array:
        logdet, inverse = sweep(lanes)
        return inverse + logdet[None, None, :]

    yield Case(n, swept, (lanes,), expected, tolerance)


@listed("Cholesky factor and triangular solves", PATTERNS)
def factors(rng: np.random.Generator, dtype: np.dtype) -> Iterator[Case]:
    n = 385
    root = rng.normal(size=(n, 2 * n))
    a = (root @ root.T / n + np.eye(n)).astype(dtype)
    b = rng.normal(size=(n, 7)).astype(dtype)

    def solve(a: Array, b: Array) -> Array:
        factor = jnp.linalg.cholesky(a)
        half = jax.scipy.linalg.solve_triangular(factor, b, lower=True)
        return jax.scipy.linalg.solve_triangular(factor.T, half, lower=False)

    expected = np.linalg.solve(a.astype(float), b.astype(float))
    # the condition number is below 10
    yield Case(n, solve, (a, b), expected, rounding(dtype, 20 * np.sqrt(n)))


@listed("mapped loops that end at their own time", PATTERNS)
def loops(rng: np.random.Generator, dtype: np.dtype) -> Iterator[Case]:
    n = SIZES[dtype.name][1]
    a = np.exp(rng.uniform(-6.0, 6.0, n)).astype(dtype)

    def root(a: Array) -> Array:
        """√a by Newton's method, which doubles the digits: 1e-5 ends a step before double precision."""

        def going(state: tuple) -> Array:
            x, last, steps = state
            return (jnp.abs(x - last) > 1e-5 * x) & (steps < 60)

        def step(state: tuple) -> tuple:
            x, _, steps = state
            return 0.5 * (x + a / x), x, steps + 1

        x = jax.lax.while_loop(going, step, (0.5 * (1 + a), 2 + a, jnp.zeros((), jnp.int32)))[0]
        return 0.5 * (x + a / x)

    yield Case(n, jax.vmap(root), (a,), np.sqrt(a.astype(float)), rounding(dtype, 10))


@listed("recursions along rows in another order", PATTERNS)
def recursions(rng: np.random.Generator, dtype: np.dtype) -> Iterator[Case]:
    n = SIZES[dtype.name][1]
    e, order = rng.normal(size=n).astype(dtype), rng.permutation(n)
    expected, last = np.empty(n), 0.0
    for i, value in enumerate(e[order].astype(float)):
        last = expected[i] = 0.5 * last + value

    def walk(e: Array, order: Array) -> Array:
        def step(last: Array, value: Array) -> tuple[Array, Array]:
            return (now := jnp.asarray(0.5, e.dtype) * last + value), now

        return jax.lax.scan(step, jnp.zeros((), e.dtype), e[order])[1]

    yield Case(n, walk, (e, order), expected, rounding(dtype, 20))


@listed("derivatives of a criterion over lanes", PATTERNS)
def derivatives(rng: np.random.Generator, dtype: np.dtype) -> Iterator[Case]:
    n, d = SIZES[dtype.name][1], np.asarray(0.7, dtype)
    a, y = rng.uniform(0.5, 2.0, n).astype(dtype), rng.normal(size=(n, 2)).astype(dtype)

    def criterion(d: Array, a: Array, y: Array) -> Array:
        """log|H| + yᵀH⁻¹y, H = [[a + d, d], [d, a + d]]."""
        logdet, inverse = sweep(jnp.stack([jnp.stack([a + d, d]), jnp.stack([d, a + d])]))
        return logdet + jnp.sum(y * jnp.sum(inverse * y[None, :], axis=1))

    # log a + log h + (y₁ − y₂)²/2a + (y₁ + y₂)²/2h with h = a + 2d, differentiated
    h, s = a.astype(float) + 2 * float(d), y.astype(float).sum(axis=1) ** 2
    slope = jax.vmap(jax.grad(criterion), in_axes=(None, 0, 0))
    yield Case(n, slope, (d, a, y), 2 / h - s / h**2, rounding(dtype, 500))
