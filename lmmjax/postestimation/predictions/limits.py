"""Standard errors of predictions, and the degrees of freedom of their limits.

The limits are fit ± t √v, where v is the variance of the prediction error, of a new response for a prediction
interval. As for contrasts (Satterthwaite), t has

    df = 2v²/(∂vᵀA∂v)

degrees of freedom, ∂v the derivatives of v in ψ and A the covariance of ψ̂. `kenward-roger` adds to v what
the estimation of ψ costs (`core.prediction_bias`), and takes for A the inverse expected information. What
is added counts in df, too, where random effects are predicted: it may be most of v. For functions of β alone
df is that of Kenward and Roger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmjax.core.kriging import NewResiduals
from lmmjax.core.mixed_equations import MixedEquations, mixed_equations
from lmmjax.core.prediction_bias import estimation_errors
from lmmjax.core.prediction_error import Errors, marginal_errors, prediction_errors
from lmmjax.core.targets import Targets
from lmmjax.fitted import Fitted, kept
from lmmjax.formula import NewFrame, NewRandom
from lmmjax.inference.open_directions import moving_values
from lmmjax.postestimation.hypotheses.fixed_tests import (
    ADJUSTED,
    adjusted_at,
    covariance_at,
    design_covariance,
    natural_at,
)

ROUNDING = 1e-12
"""Share of a residual's variance below which that of its prediction error is rounding."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is predicted: some `rows` of new ones, complete.

    `residuals` are theirs; with `kriging` they are part of what is predicted; a `response` is a new one, with
    random terms that are left out and its residual unknown.
    """

    new: NewFrame
    rows: np.ndarray
    residuals: NewResiduals | None
    kriging: bool
    response: bool


@kept
def equations_at(fitted: Fitted) -> MixedEquations:
    """The mixed-model equations at the estimate, in units of σ̂, of which no power is then too large."""
    data, cov = fitted.data, covariance_at(fitted) / fitted.estimate.psi[-1]
    return mixed_equations(data.design, data.maker.basis, relative_psi(fitted), cov)


def relative_psi(fitted: Fitted) -> np.ndarray:
    """ψ̂ (m + 1,) in units of σ̂: the last is 1."""
    psi = np.asarray(fitted.estimate.psi)
    return psi / fitted.data.design.structure.units(psi[-1:])


def standard_errors(fitted: Fitted, wanted: Wanted, ddf: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard errors (k,) of x'β + z'b, those that the limits are made of, and degrees of freedom.

    NaN where they depend on what the data leave open.
    """
    rows, k = wanted.rows, len(wanted.rows)
    if not np.all(np.isfinite(fitted.estimate.psi)):
        return np.full(k, np.nan), np.full(k, np.nan), np.full(k, np.nan)
    e = equations_at(fitted)
    targets = _targets(e, wanted)
    errors = prediction_errors(e, targets)
    seen = _seen(errors, targets)
    errors = Errors(np.where(seen, 0.0, errors.variance), np.where(seen[:, None], 0.0, errors.slopes))
    for term in wanted.new.random:
        z = term.z[rows]
        if not wanted.response:
            z = z * term.columns
        unknown = np.where((term.codes[rows] < 0)[:, None], z, z * ~term.columns)
        if unknown.any():
            errors = errors + marginal_errors(e, term.term, unknown * _lengths(e, term, rows)[:, None])
    total, own = errors, wanted.residuals
    if wanted.response and own is not None and not wanted.kriging:
        slopes = np.zeros_like(errors.slopes)
        slopes[:, e.design.structure.tail] = own.variance_slopes
        total = errors + Errors(own.variance, slopes)
    added, cov_psi = _of_estimation(fitted, targets, ddf)
    added = np.where(seen, 0.0, added)
    df = np.full(k, np.inf)
    gradient = total.gradient(e.psi, e.design.structure.powers)
    if ddf != "normal":
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.einsum("kc,cd,kd->k", gradient, cov_psi, gradient)
            v = total.variance + np.where(_random(targets), added, 0.0)
            df = np.where(spread > 0.0, 2.0 * v**2 / spread, np.inf)
    sigma = np.sqrt(fitted.estimate.psi[-1])
    se, limit = sigma * np.sqrt(errors.variance + added), sigma * np.sqrt(total.variance + added)
    own = errors.gradient(e.psi, e.design.structure.powers)
    return (
        np.where(_moving(fitted, own, errors.variance), np.nan, se),
        np.where(_moving(fitted, gradient, total.variance), np.nan, limit),
        df,
    )


def _seen(errors: Errors, targets: Targets) -> np.ndarray:
    """Which targets (k,) are residuals that were seen: what is left of their variance is rounding."""
    if targets.variance is None:
        return np.zeros(len(targets), bool)
    return errors.variance <= ROUNDING * targets.variance


def _lengths(e: MixedEquations, term: NewRandom, rows: np.ndarray) -> np.ndarray:
    """√K_gg (k,) of the levels of rows; NaN where the kernel of the term does not know them."""
    kernel, codes = e.design.terms[term.term].kernel, term.codes[rows]
    if kernel is None:
        return np.ones(len(rows))
    return np.where(codes < 0, np.nan, np.sqrt(kernel.diagonal[codes]))


def _targets(e: MixedEquations, wanted: Wanted) -> Targets:
    import scipy.sparse as sp

    rows, values, at = wanted.rows, [], []
    for term in wanted.new.random:
        codes = term.codes[rows]
        there = np.flatnonzero(codes >= 0)
        z = (term.z[rows[there]] * term.columns) @ e.outward[term.term]
        own = e.design.terms[term.term].expand(z, codes[there]).tocoo()
        values.append(own.data)
        at.append((there[own.coords[0]], e.starts[term.term] + own.coords[1]))
    places = tuple(np.concatenate([a[k] for a in at]) for k in (0, 1)) if at else (np.zeros(0, int),) * 2
    entries = np.concatenate(values) if values else np.zeros(0)
    a = sp.coo_array((entries, places), shape=(len(rows), e.n_columns)).tocsr()
    x, own = e.inner_x(wanted.new.x[rows]), wanted.residuals
    if not wanted.kriging or own is None:
        return Targets(x, a)
    return Targets(x, a, own.cross, own.variance, own.cross_slopes, own.variance_slopes)


def _random(targets: Targets) -> np.ndarray:
    """Which targets (k,) have random effects, or residuals of a group that was seen."""
    there = np.diff(targets.a.indptr) > 0
    return there if targets.cross is None else there | (np.diff(targets.cross.indptr) > 0)


def _of_estimation(fitted: Fitted, targets: Targets, ddf: str) -> tuple[np.ndarray, np.ndarray]:
    """What the estimation of ψ adds to variances (k,), and the covariance A (m + 1, m + 1) of ψ̂.

    Both in units of σ̂.
    """
    e, none = equations_at(fitted), np.zeros(len(targets))
    observed = np.asarray(fitted.estimate.cov_relative)
    if ddf not in ADJUSTED:
        return none, observed
    adjusted = adjusted_at(fitted, ddf)
    if ddf == "kenward-roger-sas" and not e.design.structure.linear:
        if targets.a.nnz or targets.cross is not None:
            raise ValueError(
                "kenward-roger-sas is for fixed effects only where the covariance is not linear in its "
                "parameters: use ddf='kenward-roger', or re='none'"
            )
        outward = e.x_factor @ natural_at(fitted)[0].outward
        change = outward @ adjusted.cov_beta @ outward.T / fitted.estimate.psi[-1] - e.phi
        return np.einsum("kp,pr,kr->k", targets.x, change, targets.x), observed
    cov_psi = observed
    if ddf == "kenward-roger":
        cov_psi = design_covariance(fitted, adjusted.cov_psi)
    return estimation_errors(e, targets, cov_psi), cov_psi


def _moving(fitted: Fitted, gradient: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Which variances (k,) move along directions of ψ that the data leave open."""
    structure, moves = fitted.data.design.structure, np.asarray(fitted.estimate.moves)
    return moving_values(structure, relative_psi(fitted), moves, gradient, variance)
