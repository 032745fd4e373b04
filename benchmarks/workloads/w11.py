"""W11: the gradient through a fit beside the fit itself, for one problem and for many.

The model is `Reaction ~ Days + (Days | Subject)` on problems of the size of sleepstudy: 180 rows, 18 groups.
The number differentiated is the sum of β̂, ψ̂ and the standard errors of β̂; the gradient costs what it and its
value take together. A time is shown only if derivatives along random directions agree with differences of
refits to 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness.isolated import isolated
from benchmarks.harness.spec import spread
from benchmarks.harness.text import count, markdown
from benchmarks.harness.timing import in_turns
from benchmarks.harness.workload import Options, Record, Workload, register

if TYPE_CHECKING:
    import jax

    import lmmjax as lj

GROUPS, ROWS = 18, 10
CODES = np.repeat(np.arange(GROUPS), ROWS)
DAYS = np.tile(np.arange(float(ROWS)), GROUPS)
REPEATS, STEP, TOL, CHECKED = 7, 1e-4, 1e-6, 5


def simulated(problems: int, own: bool) -> tuple[jax.Array, jax.Array]:
    """Days (T, n), of its own for every problem or the same ten, and responses (T, n)."""
    import jax.numpy as jnp

    rng = np.random.default_rng(11)
    t = DAYS + (0.3 * rng.normal(size=(problems, GROUPS * ROWS)) if own else np.zeros((problems, 1)))
    b = rng.normal(size=(problems, GROUPS, 2)) * [24.0, 6.0]
    y = 251.0 + 10.0 * t + b[:, CODES, 0] + b[:, CODES, 1] * t + 25.0 * rng.normal(size=t.shape)
    return jnp.asarray(t), jnp.asarray(y)


def own_design(t: jax.Array, y: jax.Array) -> lj.Estimate:
    """The fit of y with a design that is traced."""
    import jax.numpy as jnp

    import lmmjax as lj

    x = jnp.stack([jnp.ones_like(t), t], axis=1)
    return lj.estimate(lj.problem_from_arrays(y, x, CODES, x))


def shared_design() -> Callable[[jax.Array, jax.Array], lj.Estimate]:
    """The same fit with a design that is known beforehand: its groups are one pattern."""
    import lmmjax as lj

    x = np.column_stack([np.ones_like(DAYS), DAYS])
    model = lj.Model.from_arrays(np.arange(len(DAYS)) % 7.0, x, CODES, x)
    return lambda _, y: lj.estimate(model.problem(y))


def error(function: Callable, gradients: Any, at: tuple, arguments: tuple[int, ...]) -> float:
    """Largest relative error of derivatives along a random direction, of evenly spread problems."""
    import jax.numpy as jnp

    from lmmjax.arrays import quick_jit

    rng = np.random.default_rng(12)
    worst = 0.0
    compiled = quick_jit(function)
    for k in spread(len(at[0]), CHECKED):
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


def measure(problems: int, own: bool, repeats: int | None) -> Record:
    """A fit, its design its `own` or shared, and its gradient: in y, and in X and Z if they are its own.

    Seconds are medians of warm calls, in turns; `error` is the largest one found.
    """
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    fit, arguments = (own_design, (0, 1)) if own else (shared_design(), (1,))
    at = simulated(problems, own)

    def number(t: jax.Array, y: jax.Array) -> jax.Array:
        found = fit(t, y)
        return jnp.sum(found.beta) + jnp.sum(found.psi) + jnp.sum(jnp.sqrt(jnp.diagonal(found.cov_beta)))

    slope = jax.value_and_grad(number, arguments)
    mapped = problems > 1
    plain, both = (jax.jit(jax.vmap(f) if mapped else f) for f in (fit, slope))
    point = at if mapped else tuple(a[0] for a in at)
    alone, through = in_turns(
        [lambda: jax.block_until_ready(plain(*point)), lambda: jax.block_until_ready(both(*point))],
        repeats or REPEATS,
    )
    gradients = through.result[1]
    gradients = gradients if mapped else jax.tree.map(lambda a: a[None], gradients)
    worst = error(number, gradients, at, arguments)
    return {
        "compile_fit": alone.first,
        "compile_gradient": through.first,
        "fit": alone.median,
        "gradient": through.median,
        "wrong_by": worst,
        "ratio": through.median / alone.median,
        "passed": bool(worst < TOL),
    }


def run(options: Options) -> Iterator[Record]:
    many = options.size(10_000, 50)
    for what, problems, own in (
        ("one fit; gradient in y", 1, False),
        ("one fit, X and Z traced; gradient in X, Z and y", 1, True),
        ("many responses, one design; gradient in y", many, False),
        ("many problems, each its X and Z; gradient in X, Z and y", many, True),
    ):
        options.say(f"W11: {what}")
        facts = {"problems": problems, "own": own}
        got = isolated(measure, timeout=options.timeout, **facts, repeats=options.repeats)
        yield {"what": what} | facts | got


def table(records: list[Record]) -> str:
    """Milliseconds; none where a derivative is off."""

    def cells(got: Record) -> list[str]:
        times = [f"{1e3 * got['fit']:.3g}", f"{1e3 * got['gradient']:.3g}", f"{got['ratio']:.2f}"]
        shown = times if got["passed"] else ["–"] * 3
        return [got["what"], count(got["problems"]), *shown, f"{got['wrong_by']:.0e}"]

    columns = ("what", "problems:", "fit (ms):", "value and gradient (ms):", "ratio:", "error:")
    return markdown(columns, map(cells, records))


register(
    Workload(
        id="W11",
        title="the gradient through a fit, of one problem and of 10,000, 180 rows and 18 groups each",
        goal="value and gradient ≤ 3 × the fit; derivatives within 1e-6 of differences of refits",
        run=run,
        table=table,
        counted="problems",
    )
)
