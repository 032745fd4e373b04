"""W11: the gradient through a fit beside the fit itself, for one problem and for many.

    python -m benchmarks.gradients [--problems 10000] [--small] [--json FILE]

The model is `Reaction ~ Days + (Days | Subject)` on problems of the size of sleepstudy: 180 rows, 18 groups.
The number differentiated is the sum of β̂, ψ̂ and the standard errors of β̂; the gradient costs what it and its
value take together. A time is shown only if derivatives along random directions agree with differences of
refits to 1e-6.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lmmjax as lj
from benchmarks.machine import describe
from benchmarks.processes import pin
from lmmjax._compile import quick_jit

GROUPS, ROWS = 18, 10
CODES = np.repeat(np.arange(GROUPS), ROWS)
REPEATS, STEP, TOL, CHECKED = 7, 1e-4, 1e-6, 5
GOAL = 3.0


@dataclass
class Result:
    """Seconds of a fit and of the value with its gradient, warm medians; `error` is the largest one found."""

    what: str
    problems: int
    compile_fit: float
    compile_gradient: float
    fit: float
    gradient: float
    error: float

    @property
    def ratio(self) -> float:
        return self.gradient / self.fit


def simulated(problems: int, own: bool) -> tuple[jax.Array, jax.Array]:
    """Days (T, n), of its own for every problem or the same ten, and responses (T, n)."""
    rng = np.random.default_rng(11)
    days = np.tile(np.arange(float(ROWS)), GROUPS)
    t = days + (0.3 * rng.normal(size=(problems, GROUPS * ROWS)) if own else np.zeros((problems, 1)))
    b = rng.normal(size=(problems, GROUPS, 2)) * [24.0, 6.0]
    y = 251.0 + 10.0 * t + b[:, CODES, 0] + b[:, CODES, 1] * t + 25.0 * rng.normal(size=t.shape)
    return jnp.asarray(t), jnp.asarray(y)


def summed(fit: lj.Estimate) -> jax.Array:
    """What is differentiated."""
    return jnp.sum(fit.beta) + jnp.sum(fit.psi) + jnp.sum(jnp.sqrt(jnp.diagonal(fit.cov_beta)))


def own_design(t: jax.Array, y: jax.Array) -> lj.Estimate:
    x = jnp.stack([jnp.ones_like(t), t], axis=1)
    return lj.estimate(lj.problem_from_arrays(y, x, CODES, x))


def shared_design() -> Callable[[jax.Array, jax.Array], lj.Estimate]:
    """The same fit with a design that is known beforehand: its groups are one pattern."""
    days = np.tile(np.arange(float(ROWS)), GROUPS)
    x = np.column_stack([np.ones_like(days), days])
    model = lj.Model.from_arrays(np.arange(len(days)) % 7.0, x, CODES, x)
    return lambda _, y: lj.estimate(model.problem(y))


def timed(*calls: Callable[[], Any]) -> list[tuple[Any, float, float]]:
    """Of each call its result, seconds the first time, and the median of later ones, all called in turns."""
    results: list[Any] = [None] * len(calls)
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(REPEATS + 1):
        for k, call in enumerate(calls):
            begin = time.perf_counter()
            results[k] = jax.block_until_ready(call())
            seconds[k].append(time.perf_counter() - begin)
    return [(r, s[0], statistics.median(s[1:])) for r, s in zip(results, seconds, strict=True)]


def error(function: Callable, gradients: Any, at: tuple, arguments: tuple[int, ...]) -> float:
    """Largest relative error of derivatives along a random direction, of evenly spread problems."""
    rng = np.random.default_rng(12)
    worst = 0.0
    compiled = quick_jit(function)
    for k in np.unique(np.linspace(0, len(at[0]) - 1, CHECKED).astype(int)):
        point = [a[k] for a in at]
        moves = [
            jnp.asarray(rng.normal(size=a.shape)) if i in arguments else 0.0 * a for i, a in enumerate(point)
        ]

        def central(h: float, point=point, moves=moves) -> float:
            up, down = (
                compiled(*(a + s * h * v for a, v in zip(point, moves, strict=True))) for s in (1, -1)
            )
            return float(up - down) / (2 * h)

        expected = (4 * central(STEP) - central(2 * STEP)) / 3
        mine = [gradients[arguments.index(i)][k] for i in arguments]
        pairs = [(g, moves[i]) for g, i in zip(mine, arguments, strict=True)]
        got = sum(float(jnp.vdot(g, v)) for g, v in pairs)
        size = np.sqrt(sum(float(jnp.vdot(g, g) * jnp.vdot(v, v)) for g, v in pairs))
        worst = max(worst, float(abs(got - expected) / size))
    return worst


def measure(what: str, fit: Callable, problems: int, arguments: tuple[int, ...], own: bool) -> Result:
    """One row: `fit` of (t, y), differentiated in `arguments`."""
    at = simulated(problems, own)

    def number(t: jax.Array, y: jax.Array) -> jax.Array:
        return summed(fit(t, y))

    slope = jax.value_and_grad(number, arguments)
    mapped = problems > 1
    plain, both = (jax.jit(jax.vmap(f) if mapped else f) for f in (fit, slope))
    point = at if mapped else tuple(a[0] for a in at)
    (_, compile_fit, seconds), ((_, gradients), compile_gradient, more) = timed(
        lambda: plain(*point), lambda: both(*point)
    )
    gradients = gradients if mapped else jax.tree.map(lambda a: a[None], gradients)
    worst = error(number, gradients, at, arguments)
    row = Result(what, problems, compile_fit, compile_gradient, seconds, more, worst)
    times = f"{1e3 * seconds:.3g} | {1e3 * more:.3g} | {row.ratio:.2f}" if worst < TOL else "– | – | –"
    print(f"| {what} | {problems:,} | {times} | {worst:.0e} |", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--small", action="store_true", help="few problems: a rehearsal")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    cores = pin(options.cores, 1)
    jax.config.update("jax_enable_x64", True)
    many = 50 if options.small else options.problems
    shared = shared_design()
    print("| W11 | problems | fit (ms) | value and gradient (ms) | ratio | error |")
    print("|---|---|---|---|---|---|")
    rows = [
        measure("one fit; gradient in y", shared, 1, (1,), False),
        measure("one fit, X and Z traced; gradient in X, Z and y", own_design, 1, (0, 1), True),
        measure("many responses, one design; gradient in y", shared, many, (1,), False),
        measure("many problems, each its X and Z; gradient in X, Z and y", own_design, many, (0, 1), True),
    ]
    if options.json is not None:
        record = [asdict(r) | {"ratio": r.ratio, "passed": bool(r.error < TOL)} for r in rows]
        described = {"machine": describe(cores, 1), "small": options.small, "goal": GOAL, "rows": record}
        options.json.write_text(json.dumps(described, indent=1) + "\n")


if __name__ == "__main__":
    main()
