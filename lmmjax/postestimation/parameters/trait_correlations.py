"""Correlations of traits, or environments: genetic, of residuals, and of both."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.special import chdtrc, ndtri

from lmmjax.arrays import Array
from lmmjax.fitted import (
    Component,
    Fitted,
    component_names,
    require_level,
    require_switch,
    unidentified_names,
)
from lmmjax.postestimation.parameters.functions import deltas
from lmmjax.postestimation.parameters.profiles import surface
from lmmjax.postestimation.parameters.residual_cov import residual_cov

END = 1e-6
"""Correlations this near to ±1 are there."""

NOTHING = 1e-8
"""Share of the largest variance below which one is zero, and its correlations are none."""

TESTS = ("chisq_0", "p_0", "chisq_1", "p_1")


def genetic_correlation(fitted: Fitted, level: float, test: bool) -> pd.DataFrame:
    """See `Fit.genetic_correlation`."""
    require_level(level)
    require_switch("test", test)
    rows = fitted.data.components
    names = component_names(rows)
    pairs = [(k, row) for k, row in enumerate(rows) if row.kind == "covariance"]
    related = {k for k, term in enumerate(fitted.data.frame.random) if term.kernel is not None}
    if not any(row.term in related for _, row in pairs):
        raise ValueError(
            "no term with a kernel has two correlated columns: write (0 + trait | id), or use "
            "lj.multitrait('cbind(a, b) ~ x + (1 | id)', data, kernels={'id': K})"
        )
    between, labels = _residual(fitted)
    functions: list[Callable[[Array], Array]] = [_of_term(rows, k) for k, _ in pairs]
    functions += [lambda psi, i=i, j=j: _correlation(between(psi), i, j) for i, j in labels]

    def every(beta: Array, psi: Array) -> Array:
        return jnp.stack([f(psi) for f in functions])

    value, cov = deltas(fitted, every, None)
    value = np.where(_of_nothing(fitted, pairs, labels), np.nan, value)
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.diagonal(cov))
        ended = np.abs(value) >= 1 - END
    bound = np.where(value >= 1 - END, "upper", np.where(value <= END - 1, "lower", "")).astype(object)
    se = np.where(ended, np.nan, se)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Fisher's z
        centre = np.arctanh(np.where(ended, np.nan, value))
        half = ndtri(0.5 + level / 2) * se / (1 - value**2)
    out = pd.DataFrame(
        {
            "group": [row.group for _, row in pairs] + ["Residual"] * len(labels),
            "term1": [row.term1 for _, row in pairs] + [a for a, _ in labels.values()],
            "term2": [row.term2 for _, row in pairs] + [b for _, b in labels.values()],
            "estimate": value,
            "se": se,
            "lower": np.tanh(centre - half),
            "upper": np.tanh(centre + half),
            "bound": bound,
        }
    )
    if test:
        found = [_tests(fitted, names[k], value[i]) for i, (k, _) in enumerate(pairs)]
        found += [(np.nan,) * len(TESTS)] * len(labels)
        out[list(TESTS)] = np.array(found)
    return out


def _of_nothing(
    fitted: Fitted, pairs: list[tuple[int, Component]], labels: dict[tuple[int, int], tuple[str, str]]
) -> np.ndarray:
    """Which correlations are of a variance that is estimated as zero."""
    rows, psi = fitted.data.components, np.asarray(fitted.estimate.psi)
    at = {(r.term, r.i): c for c, r in enumerate(rows) if r.kind == "variance"}
    variances = [(psi[at[row.term, row.i]], psi[at[row.term, row.j]]) for _, row in pairs]
    if labels:
        table = residual_cov(fitted, None, False)
        own = dict(zip(map(str, table.index), np.diagonal(table), strict=True))
        variances += [(own[a], own[b]) for a, b in labels.values()]
    whole = psi[-1] + max(psi[c] for c in at.values())
    with np.errstate(invalid="ignore"):
        return np.array([not min(pair) > NOTHING * whole for pair in variances])


def _of_term(rows: list[Component], k: int) -> Callable[[Array], Array]:
    """The correlation that entry k of ψ is a covariance of."""
    row = rows[k]
    at = {(r.term, r.i): c for c, r in enumerate(rows) if r.kind == "variance"}
    one, two = at[row.term, row.i], at[row.term, row.j]
    return lambda psi: psi[k] / jnp.sqrt(psi[one] * psi[two])


def _correlation(matrix: Array, i: int, j: int) -> Array:
    return matrix[i, j] / jnp.sqrt(matrix[i, i] * matrix[j, j])


def _residual(fitted: Fitted) -> tuple[Callable[[Array], Array], dict[tuple[int, int], tuple[str, str]]]:
    """Correlations of the residuals of a group with all occasions, as a function of ψ, and whose they are."""
    columns, structure = fitted.data.frame.residual, fitted.data.design.structure
    own = None if columns is None else columns.design
    if own is None or columns is None or columns.visits is None or columns.by:
        return (lambda psi: psi), {}
    count = np.bincount(own.codes)
    rows = np.flatnonzero(own.codes == np.argmax(count))
    rows = rows[np.argsort(own.place[rows], kind="stable")]
    k, place = len(rows), own.place[rows]
    one, two = (a.ravel() for a in np.meshgrid(place, place, indexing="ij"))
    same = np.eye(k, dtype=bool).ravel()

    def between(psi: Array) -> Array:
        r = structure.relative(psi)[structure.tail]
        value = own.structure.correlation(r, jnp.asarray(one), jnp.asarray(two), jnp.asarray(same))
        return value.reshape(k, k)

    names = [str(columns.visits.labels[p]) for p in place]
    pairs = {(i, j): (names[j], names[i]) for j in range(k) for i in range(j + 1, k)}
    return between, pairs


def _tests(fitted: Fitted, name: str, value: float) -> tuple[float, ...]:
    """χ² and p of no correlation, and of ±1, to which the estimate is nearer, by the criterion of the fit."""
    if not np.isfinite(value) or name in unidentified_names(fitted):
        return (np.nan,) * len(TESTS)
    own = surface(fitted, [name], "reml" if fitted.reml else "ml")
    rises = []
    for at in (own.coordinate(0, 0.0), own.axes[0].bounds[1 if value >= 0 else 0]):
        found, _ = own.locate(np.array([at]))
        rises.append(own.zeta(found) ** 2)
    none, whole = rises
    # at the end of the range a mixture of χ²₀ and χ²₁
    p_whole = 1.0 if whole <= 1e-8 else 0.5 * float(chdtrc(1, whole))
    return none, float(chdtrc(1, none)), whole, p_whole
