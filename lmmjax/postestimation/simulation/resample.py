"""Variations of one fit that are batches of responses: parametric bootstrap and permutation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pandas as pd

from lmmjax.arrays import Array, quick_jit
from lmmjax.arrays.memory import require_memory
from lmmjax.batch.leave_out import best_from
from lmmjax.core import Estimate, ProblemMaker
from lmmjax.core.conditional import effects, normals
from lmmjax.core.residuals import coloured, covariance
from lmmjax.design import Design
from lmmjax.fitted import (
    Fitted,
    FittedMany,
    ModelData,
    component_names,
    fit_draws,
    identified_sds,
    require_count,
    require_estimates,
    require_key,
)
from lmmjax.formula import nearest
from lmmjax.inference.bootstrap_intervals import Range

_normals = quick_jit(normals, static_argnames="shapes")


def simulate(data: ModelData, key: Array, mean: np.ndarray, psi: np.ndarray, draws: int) -> np.ndarray:
    """Responses (n, draws) with fixed part mean (n,) and natural covariance parameters ψ (m + 1,)."""
    require_key(key)
    design = data.design
    draws = require_count("the number of draws", draws, 0)
    effects_each = sum(term.q * term.n_effects for term in design.terms)
    require_memory(f"{draws:,} draws of {design.n:,} rows", draws, design.n + effects_each)
    shapes = ((design.n, draws), *((t.q, t.n_effects, draws) for t in design.terms))
    with jax.enable_x64(True):
        white, *u = (np.asarray(a) for a in _normals(key, shapes))
        covariances = tuple(np.asarray(a) for a in design.structure.absolute(np.asarray(psi)))
    terms = design.terms
    drawn = effects(
        tuple(np.asarray(t.z) for t in terms),
        tuple(t.codes for t in terms),
        covariances,
        tuple(None if t.kernel is None else t.kernel.factor for t in terms),
        tuple(u),
    )
    return coloured(design, psi, white) + drawn + mean[:, None]


def require_psi(data: ModelData, psi: Any) -> np.ndarray:
    """ψ (m + 1,) if it is one of the model; ValueError names what it is not."""
    names = component_names(data.components)
    values = np.asarray(psi, dtype=float)
    if values.shape != (len(names),) or not np.all(np.isfinite(values)):
        raise ValueError(
            f"psi has shape {values.shape}: pass {len(names)} numbers, in the order of varcorr(): variances "
            f"and covariances behind {', '.join(names)}"
        )
    wrong = [
        name
        for name, row, v in zip(names, data.components, values, strict=True)
        if v < 0 and row.kind in ("variance", "sigma")
    ]
    if wrong or values[-1] <= 0:
        raise ValueError(
            f"psi has a variance that is not positive, behind {(wrong or names[-1:])[0]}: correct it"
        )
    return values


def parameters(fits: FittedMany) -> pd.DataFrame:
    """All parameters, responses × (fixed effects, standard deviations and correlations, sigma).

    What the data do not identify is missing.
    """
    values = identified_sds(fits.data.design.structure, fits.data.components, fits.estimate)
    names = [*fits.data.x_names, *component_names(fits.data.components)]
    return pd.DataFrame(np.hstack([fits.estimate.beta, values]), index=fits.names, columns=names)


def ranges(data: ModelData) -> list[Range]:
    """The range of each of `parameters`."""
    out = [Range()] * data.design.p
    for row in data.components:
        p = row.parameter
        if row.kind != "parameter" or p is None:
            out.append(Range(-1.0, 1.0) if row.kind == "covariance" else Range(0.0))
        elif p.kind == "interval":
            out.append(Range(p.lower, p.upper))
        else:
            out.append(Range(0.0) if p.kind in ("positive", "variance") else Range())
    return out


def bootstrap_fits(fitted: Fitted, key: Any, n: int) -> FittedMany:
    """Fits of n responses simulated from a fit."""
    n = require_count("n", n)
    require_estimates(fitted)
    draws = simulate(fitted.data, key, fitted.population, fitted.estimate.psi, n)
    return fit_draws(fitted.data, draws, fitted.reml, "replicate")


def itself(fitted: Fitted) -> FittedMany:
    """A fit as that of a batch of one response."""
    estimate = jax.tree.map(lambda a: a[None], fitted.estimate)
    reasons, ones = np.array([""], object), np.ones(1, int)
    y, names = fitted.y[:, None], pd.RangeIndex(1)
    return FittedMany(fitted.data, names, y, estimate, fitted.reml, reasons, ones, n_starts=ones)


def permuted_fits(fitted: Fitted, key: Any, term: str, n: int) -> tuple[FittedMany, float, np.ndarray]:
    """Fits of permuted responses, the Wald statistic of the fit, and those (n,) of them."""
    n = require_count("n", n)
    require_key(key)
    require_estimates(fitted)
    data = fitted.data
    columns = columns_of(data, term)
    null = dataclasses.replace(data.design, x=np.delete(data.design.x, columns, axis=1))
    maker = ProblemMaker(null, data.backend)
    without = best_from(maker, fitted.y, fitted.reml, fitted.estimate.theta)
    if not np.all(np.isfinite(without.psi)):
        raise ValueError(f"the model without {term!r} could not be fitted")
    require_memory(f"{n:,} permutations of {null.n:,} rows", n, null.n)
    keys = jax.random.split(key, n)
    orders = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, null.n))(keys))
    y = permuted_responses(null, without, fitted.y, orders)
    fits = fit_draws(data, y, fitted.reml, "permutation")
    statistic = wald_statistic(itself(fitted).estimate, columns)[0]
    return fits, float(statistic), wald_statistic(fits.estimate, columns)


def columns_of(data: ModelData, term: str) -> np.ndarray:
    """Columns of X of a term or a coefficient."""
    frame = data.frame
    columns = frame.term_slices.get(term)
    if columns is None and term in frame.x_names:
        columns = np.array([frame.x_names.index(term)])
    if columns is None:
        known = list(dict.fromkeys([*frame.term_slices, *frame.x_names]))
        raise ValueError(f"unknown fixed term {term!r}: {nearest(str(term), known)}")
    columns = np.atleast_1d(np.asarray(columns, dtype=int))
    if not len(columns):
        raise ValueError(f"all columns of {term!r} are aliased: there is nothing to test")
    return columns


def wald_statistic(estimate: Estimate, columns: np.ndarray) -> np.ndarray:
    """β̂ₜᵀ Φₜₜ⁻¹ β̂ₜ (T,) of the coefficients in `columns`."""
    beta = estimate.beta[:, columns]
    phi = estimate.cov_beta[np.ix_(np.arange(len(beta)), columns, columns)]
    return np.sum(beta * np.linalg.solve(phi, beta[..., None])[..., 0], axis=1)


def permuted_responses(design: Design, estimate: Estimate, y: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Responses (n, T) from a fit of `design` to y (n,), its whitened residuals taken in `orders` (T, n)."""
    mean = design.x @ estimate.beta + (0.0 if design.offset is None else design.offset)
    white, out = np.empty(design.n), np.empty((design.n, len(orders)))
    roots = list(covariance_roots(design, estimate.psi))
    for rows, values, vectors in roots:
        white[rows] = vectors @ ((vectors.T @ (y - mean)[rows]) / values)
    for rows, values, vectors in roots:
        out[rows] = mean[rows, None] + vectors @ (values[:, None] * (vectors.T @ white[orders[:, rows]].T))
    return out


def covariance_roots(design: Design, psi: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (rows, r, Q) for each block of rows independent of the others: V^½ = Q diag(r) Qᵀ there."""
    matrices = design.structure.absolute(psi)
    for rows in independent_blocks(design):
        v = covariance(design, psi, rows)
        for term, matrix in zip(design.terms, matrices, strict=True):
            z = term.z[rows]
            v = v + term.relation(rows) * (z @ matrix @ z.T)
        values, vectors = np.linalg.eigh(v)
        yield rows, np.sqrt(np.maximum(values, 0.0)), vectors


def independent_blocks(design: Design) -> list[np.ndarray]:
    """Rows in groups that share no level of any grouping factor, nor a group of the residuals."""
    label = np.arange(design.n)
    while True:
        new = label
        factors = [(term.blocks, term.n_groups) for term in design.terms]
        if design.residual is not None:
            factors.append((design.residual.codes, design.residual.n_groups))
        for codes, groups in factors:
            least = np.full(groups, design.n)
            np.minimum.at(least, codes, new)
            new = least[codes]
        if np.array_equal(new, label):
            break
        label = new
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
