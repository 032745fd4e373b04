"""10,400 random fits of 20 designs: is every certificate an optimum, and does a batch find the best one?

Every design is a batch of responses with variance ratios from 1e-8 to 1e8; some designs have covariates far
from zero, weights from 1e-3 to 1e3, two to ten groups, missing values. A certificate is false if the
criterion, differentiated for itself, has a slope there or bends down along a direction; an optimum is missed
if a descent from one of twelve other starts ends below it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.workload import Options, Record, Workload, register

BELOW = 1e-5
"""Distance from the best optimum, in the criterion, from which one was missed."""

STEEP, BENT = 1e-5, 1e-6
"""A gradient, and a negative eigenvalue of the Hessian, that a certificate must not have: in units of the
largest eigenvalue, and at least 1; θ_j in internal coordinates in units of max(1, |θ_j|)."""

STARTS = 12


@dataclasses.dataclass(frozen=True)
class Design:
    """A model with what is random about its responses.

    Attributes
    ----------
    formula : without a response; residual : the name of a structure, empty for none.
    groups, least, most : how many, and of how many rows.
    offset : of the covariate from zero; spread : its standard deviation.
    weights : decades of the weights of every value; missing : share of the values.
    """

    name: str
    formula: str
    groups: int
    least: int
    most: int
    offset: float = 0.0
    spread: float = 1.0
    weights: float = 0.0
    missing: float = 0.0
    residual: str = ""
    decades: float = 8.0


DESIGNS = (
    Design("intercepts", "~ x + (1 | g)", 12, 6, 6),
    Design("two groups", "~ x + (1 | g)", 2, 4, 9),
    Design("five groups, unequal", "~ x + (1 | g)", 5, 2, 12),
    Design("many groups", "~ x + (1 | g)", 60, 2, 5),
    Design("weights", "~ x + (1 | g)", 9, 4, 8, weights=3.0),
    Design("missing", "~ x + (1 | g)", 9, 4, 8, missing=0.3),
    Design("far covariate", "~ x + (1 | g)", 10, 5, 8, offset=1e9, spread=1e3),
    Design("slopes, balanced", "~ t + (t | g)", 18, 6, 6, decades=4.0),
    Design("slopes, few groups", "~ x + (x | g)", 6, 3, 9, decades=4.0),
    Design("slopes far from zero", "~ x + (x | g)", 15, 5, 8, offset=1e9, spread=1e3, decades=3.0),
    Design("slopes, weights", "~ x + (x | g)", 9, 5, 9, weights=3.0, decades=4.0),
    Design("slopes, missing", "~ t + (t | g)", 10, 6, 6, missing=0.25, decades=4.0),
    Design("independent slopes", "~ x + (x || g)", 8, 4, 8),
    Design("three slopes", "~ x + t + (x + t | g)", 12, 6, 9, decades=3.0),
    Design("nested", "~ x + (1 | g / k)", 8, 6, 9),
    Design("nested, missing", "~ x + (1 | g / k)", 8, 6, 9, missing=0.2),
    Design("crossed", "~ x + (1 | g) + (1 | h)", 10, 5, 7),
    Design("crossed, few levels", "~ x + (1 | g) + (1 | h)", 4, 5, 7),
    Design("compound symmetry", "~ x + cs(0 + k | g)", 10, 6, 9, decades=3.0),
    Design("AR(1)", "~ x", 12, 6, 8, residual="AR1", decades=0.0),
)


def simulate(design: Design, responses: int, seed: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray | None]:
    """The rows, the responses (n, T) and their weights."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(design.least, design.most + 1, design.groups)
    g, n = np.repeat(np.arange(design.groups), sizes), int(sizes.sum())
    t = np.concatenate([np.arange(size) for size in sizes])
    x = rng.normal(size=n)
    data = pd.DataFrame({"g": g, "t": t.astype(float), "x": design.offset + design.spread * x})
    data["k"] = pd.Categorical(np.array(list("uvw"))[t % 3])
    data["h"] = (3 * g + t) % 7
    half = design.decades / 2.0

    def part(codes: np.ndarray, z: Any = 1.0) -> np.ndarray:
        # of standard deviation 10^-4 … 10^4 beside the residuals, or absent
        size = 10.0 ** rng.uniform(-half, half, responses) * (rng.random(responses) > 0.15)
        return size * rng.normal(size=(codes.max() + 1, responses))[codes] * np.reshape(z, (-1, 1))

    y = rng.normal(size=(n, responses)) + part(g, np.ones(n))
    if "x |" in design.formula or "x + t |" in design.formula:
        y += part(g, x)
    if "t |" in design.formula:
        y += part(g, t)
    if "k" in design.formula:
        y += part(3 * g + t % 3)
    if "h)" in design.formula:
        y += part(data["h"].to_numpy())
    weights = 10.0 ** rng.uniform(-design.weights, design.weights, y.shape) if design.weights else None
    y[rng.random(y.shape) < design.missing] = np.nan
    return data, y, weights


def other_starts(structure: Any, seed: int) -> np.ndarray:
    """θ (k, m) in the user's coordinates of columns with unit spread: variances over many decades."""
    rng, starts = np.random.default_rng(seed), []
    for k in range(STARTS):
        d = []
        for term in structure.terms:
            if term.family.linear:
                scale = np.diag(10.0 ** rng.uniform(-3.0, 3.0, term.q))
                root = scale @ np.linalg.cholesky(
                    np.eye(term.q) + 0.9 * (np.ones(term.q) - np.eye(term.q)) * (k % 2)
                )
                d += list(np.asarray(term.family.natural(root @ root.T)))
            else:
                d += [_within(p, rng) for p in term.parameters]
        if structure.residual is not None:
            d += [_within(p, rng) for p in structure.residual.parameters]
        starts.append(np.array(d))
    return np.stack(starts)


def _within(p: Any, rng: np.random.Generator) -> float:
    """A value of a parameter."""
    if p.kind == "interval":
        return float(rng.uniform(0.9 * p.lower + 0.1 * p.upper, 0.1 * p.lower + 0.9 * p.upper))
    return float(10.0 ** rng.uniform(-3.0, 3.0))


def measure(design: int, responses: int, seed: int) -> Record:
    """The counts of one design."""
    import jax

    import lmmjax as lj

    chosen = DESIGNS[design]
    data, y, weights = simulate(chosen, responses, seed)
    residual = lj.AR1("t", group="g") if chosen.residual else None
    model = lj.lmm(chosen.formula, data, residual=residual)
    begin = time.perf_counter()
    fits = model.fit_batch(y, weights=weights)
    taken = time.perf_counter() - begin
    structure, maker = model.design.structure, model.maker
    with jax.enable_x64(True):
        inside = other_starts(structure, seed + 1)
        outward = np.asarray(structure.entry_map(maker.basis.outward))
        starts = [np.asarray(structure.encode(outward @ d)) for d in inside]
    best, converged = fits.deviance.copy(), fits.converged.to_numpy()
    for start in starts:
        other = model.fit_batch(y, weights=weights, starts=start)
        best = np.where(other.converged & ~(best <= other.deviance), other.deviance, best)
    missed = converged & (fits.deviance > best + BELOW)
    false = [k for k in np.flatnonzero(converged) if not stationary(fits[int(k)])]
    ends = pd.Series(fits.status).value_counts()
    return {
        "seconds": taken,
        "all_seconds": time.perf_counter() - begin,
        "statuses": {str(k): int(v) for k, v in ends.items()},
        "singular": int(fits.is_singular.sum()),
        "unidentified": int(fits.unidentified.sum()),
        "several": int((fits.n_optima > 1).sum()),
        "missed": [[int(k), float(fits.deviance[k] - best[k])] for k in np.flatnonzero(missed)],
        "false": [int(k) for k in false],
    }


def stationary(fit: Any) -> bool:
    """Whether the criterion has neither slope nor a direction downwards at an estimate.

    By automatic derivatives of its value, which the fit does not use.
    """
    import jax

    problem = fit.model.problem(fit.fitted.y, fit.reml)
    with jax.enable_x64(True):
        gradient, hessian = (np.asarray(a) for a in _slopes()(problem, fit.theta))
    unit = np.maximum(1.0, np.abs(fit.theta))
    gradient, hessian = gradient * unit, hessian * np.outer(unit, unit)
    values = np.linalg.eigvalsh(hessian)
    size = max(1.0, float(np.max(np.abs(values))))
    return bool(np.max(np.abs(gradient)) <= STEEP * size and values.min() >= -BENT * size)


def _slopes() -> Any:
    """Gradient and Hessian in θ in internal coordinates, compiled once a shape."""
    import jax

    from lmmjax.core.estimate import value

    global _compiled
    if _compiled is None:

        def both(problem: Any, theta: Any) -> Any:
            from lmmjax.core.estimate import no_pivoting

            eyes = no_pivoting(problem)
            inner = problem.structure.change_basis(theta, problem.basis.inward)
            of = lambda t: value(problem, t, eyes)  # noqa: E731
            return jax.grad(of)(inner), jax.hessian(of)(inner)

        _compiled = jax.jit(both)
    return _compiled


_compiled: Any = None


def run(options: Options) -> Iterator[Record]:
    responses = options.size(520, 20)
    for k, design in enumerate(DESIGNS):
        options.say(f"random: {design.name}, {responses:,} responses")
        facts = {"design": k, "responses": responses, "seed": 100 + k}
        yield {"name": design.name} | facts | isolated(measure, timeout=options.timeout, **facts)


def table(records: list[Record]) -> str:
    """Counts of every design and of all."""
    rows, totals = [], np.zeros(6, int)
    for r in records:
        numbers = [
            r["responses"],
            r["statuses"].get("converged", 0),
            r["singular"],
            r["several"],
            len(r["missed"]),
            len(r["false"]),
        ]
        totals += numbers
        rows.append([r["name"], *map(count, numbers), duration(r["all_seconds"])])
    rows.append(["all", *map(count, totals.tolist()), duration(sum(r["all_seconds"] for r in records))])
    heads = ["design", "fits:", "converged:", "singular:", "several optima:", "missed:", "false:", "time:"]
    return markdown(heads, rows)


register(
    Workload(
        id="random",
        title="10,400 random fits of 20 designs: are certificates optima, and does a batch find the best?",
        goal="no certificate at a saddle or a flat place; less than 0.05 % of the best optima missed",
        run=run,
        table=table,
        counted="responses a design",
    )
)
