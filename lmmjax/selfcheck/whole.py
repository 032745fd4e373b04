"""What is more than one program: operations outside `jit`, random numbers, a fit and many."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr

from lmmjax.model import Model
from lmmjax.selfcheck.cases import WHOLE, Found, difference, listed, rounding

FEW = 4
"""Numbers in the arrays of most single operations, each of which is a program."""


@listed("operations one by one, outside programs", WHOLE)
def operations(rng: np.random.Generator) -> Found:
    """The pattern of jax#40633: kernels outside `jit` that keep a constant of the one before."""
    for n in (FEW, 4_097):
        worst = 0.0
        base = rng.uniform(1.0, 2.0, n)
        on_device = jnp.asarray(base)
        for constant in (512.0, 1.0, -3.5, 1e-3):
            pairs = [
                (jnp.sqrt(jnp.asarray(abs(constant))), np.sqrt(abs(constant))),
                (jnp.ones(n) + constant, np.ones(n) + constant),
                (on_device * constant, base * constant),
            ]
            if n == FEW:
                pairs += [
                    (jnp.full(n, constant) / on_device, constant / base),
                    (jnp.where(on_device > 1.5, on_device, constant), np.where(base > 1.5, base, constant)),
                    (jnp.arange(1.0 * n) * constant, np.arange(n) * constant),
                    (jnp.sum(on_device) - constant, np.sum(base) - constant),
                ]
            worst = max([worst, *(difference(got, expected) for got, expected in pairs)])
        yield n, worst, rounding(np.float64, 100)


@listed("random numbers and their distribution", WHOLE)
def random_numbers(rng: np.random.Generator) -> Found:
    n = 20_001
    key = jax.random.key(int(rng.integers(1 << 30)))
    grid = (np.arange(n) + 0.5) / n
    for draw, cdf in ((jax.random.uniform, lambda u: u), (jax.random.normal, ndtr)):
        values = np.sort(np.asarray(draw(key, (n,)), dtype=float))
        far = np.max(np.abs(cdf(values) - grid)) if np.all(np.isfinite(values)) else np.inf
        # Kolmogorov's distance; one in a thousand random samples exceeds 1.95/√n, this one is always the same
        yield n, float(far), 1.95 / np.sqrt(n)


@listed("a fit: criterion, and its minimum", WHOLE)
def fit_of_one(rng: np.random.Generator) -> Found:
    y, x, groups = _small(rng, 1)
    fit = Model.from_arrays(y[:, 0], x, groups).fit()
    found = fit.deviance, fit.estimate.psi[:1], fit.estimate.psi[1:]
    yield 1, _criterion_error(y, x, groups, *map(np.atleast_1d, found)), 1e-9


@listed("fits of many: criteria, and their minima", WHOLE)
def fit_of_many(rng: np.random.Generator) -> Found:
    y, x, groups = _small(rng, 600)
    # with a mean alone: the program is a quarter shorter
    x = x[:, :1]
    estimate = Model.from_arrays(None, x, groups).fit_batch(y).estimate
    error = _criterion_error(y, x, groups, estimate.deviance, estimate.psi[:, 0], estimate.psi[:, 1])
    yield 600, error, 1e-9


def _small(rng: np.random.Generator, responses: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses (n, T) with random intercepts, X and groups of 2 to 4 rows."""
    groups = np.repeat(np.arange(12), np.resize([2, 3, 4], 12))
    x = np.column_stack([np.ones(len(groups)), rng.normal(size=len(groups))])
    effects = rng.normal(size=(12, responses))
    y = 3.0 + x[:, 1:] + effects[groups] + rng.normal(size=(len(groups), responses))
    return y, x, groups


def _criterion_error(
    y: np.ndarray,
    x: np.ndarray,
    groups: np.ndarray,
    deviance: np.ndarray,
    tau2: np.ndarray,
    sigma2: np.ndarray,
) -> float:
    """Relative error of reported criteria (T,), or how far they lie above those of variances nearby."""
    z = (groups[:, None] == np.arange(groups.max() + 1)).astype(float)

    def criterion(tau2: np.ndarray, sigma2: np.ndarray) -> np.ndarray:
        """−2ℓᴿ = (n − p) log 2π + log|V| + log|XᵀV⁻¹X| + yᵀPy, V formed."""
        n, p = x.shape
        v = tau2[:, None, None] * (z @ z.T) + sigma2[:, None, None] * np.eye(n)
        solved = np.linalg.solve(v, np.broadcast_to(x, (len(v), n, p)))
        information, target = x.T @ solved, y.T[:, :, None]
        beta = np.linalg.solve(information, solved.transpose(0, 2, 1) @ target)
        r = target - x @ beta
        quadratic = np.sum(r * np.linalg.solve(v, r), axis=(1, 2))
        logs = np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1]
        return (n - p) * np.log(2 * np.pi) + logs + quadratic

    size = 1.0 + np.abs(deviance)
    worst = difference((deviance / size), criterion(tau2, sigma2) / size)
    for a, b in ((1.01, 1.0), (0.99, 1.0), (1.0, 1.01), (1.0, 0.99)):
        other = criterion(a * tau2 + (tau2 == 0) * 1e-4 * sigma2, b * sigma2)
        worst = max(worst, float(np.max((deviance - other) / size)))
    return worst
