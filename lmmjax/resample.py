"""Variations of one fit that are batches of responses: parametric bootstrap and permutation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd

from lmmjax import varcomp
from lmmjax.batch import estimate_many
from lmmjax.batchfit import BatchFit
from lmmjax.core import Estimate, ProblemMaker
from lmmjax.core.residuals import covariance
from lmmjax.design import Design
from lmmjax.formula.columns import nearest
from lmmjax.inference.bootstrap_intervals import KINDS
from lmmjax.influence import best_estimate, require_estimates

if TYPE_CHECKING:
    from lmmjax.results import Fit

# --- bootstrap ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Bootstrap:
    """Refits of responses simulated from a fit.

    Attributes
    ----------
    original : the statistics of the fit.
    replicates : those of the n refits, replicates × statistics.
    fits : the refits, a `BatchFit`.

    Intervals and standard errors leave out refits that did not converge, and for each statistic those
    that lack it (a correlation where a variance is 0).
    """

    original: pd.Series
    replicates: pd.DataFrame
    fits: BatchFit

    @property
    def converged(self) -> pd.Series:
        """Whether each refit is certified."""
        return self.fits.converged

    @property
    def _used(self) -> pd.DataFrame:
        return self.replicates.loc[self.converged.to_numpy()]

    @property
    def se(self) -> pd.Series:
        """Bootstrap standard errors."""
        return self._used.std().rename("se")

    @property
    def bias(self) -> pd.Series:
        """Mean of the replicates less the original."""
        return (self._used.mean() - self.original).rename("bias")

    def conf_int(
        self, level: float = 0.95, kind: str = "percentile", leave_out: np.ndarray | None = None
    ) -> pd.DataFrame:
        """Confidence intervals, columns lower and upper.

        Parameters
        ----------
        kind : "percentile", [q(α/2), q(1 − α/2)] of the replicates; "basic", the same reflected at the
            original t, [2t − q(1 − α/2), 2t − q(α/2)]; "normal", t − bias ± z·se; "bca", bias-corrected and
            accelerated.
        leave_out : for "bca": (G, k) statistics without each independent group, which give the acceleration;
            0 if None.

        Source: Davison & Hinkley (1997), ch. 5, doi:10.1017/CBO9780511802843.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {level}")
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; choose one of: {', '.join(KINDS)}")
        options = {"leave_out": leave_out} if kind == "bca" else {}
        values, original = self._used.to_numpy(dtype=float), self.original.to_numpy(dtype=float)
        limits = KINDS[kind](values, original, level, **options)
        return pd.DataFrame(limits, index=self.original.index, columns=["lower", "upper"])

    def __repr__(self) -> str:
        good = int(self.converged.sum())
        return f"Bootstrap({self.fits.model.formula!r}, {len(self.replicates)} replicates, {good} converged)"


def parameters(fits: BatchFit) -> pd.DataFrame:
    """All parameters, responses × (fixed effects, standard deviations and correlations, sigma)."""
    values, _ = varcomp.sd_scale(fits.estimate.psi, fits.model.components)
    names = [*fits.model.frame.x_names, *varcomp.names(fits.model.components)]
    return pd.DataFrame(np.hstack([fits.estimate.beta, values]), index=fits.names, columns=names)


def bootstrap(fit: Fit, key: Any, n: int = 1000, statistic: Callable | None = None) -> Bootstrap:
    """Parametric bootstrap: simulate n responses from the fit and refit them as one batch.

    Parameters
    ----------
    key : `jax.random` key.
    n : number of replicates.
    statistic : function of a `BatchFit` with T responses that returns T values, (T, k) values or a frame
        with T rows; by default `parameters`. It is called on the refits and on the fit itself, T = 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    model, compute = fit.model, parameters if statistic is None else statistic
    require_estimates(fit)
    draws = model.simulate(key, fit._population, fit.estimate.psi, n)
    refits = estimate_many(model.maker, draws, fit.reml)
    fits = BatchFit(model, pd.RangeIndex(n, name="replicate"), draws, refits, fit.reml)
    itself = BatchFit(
        model, pd.RangeIndex(1), fit.y[:, None], jax.tree.map(lambda a: a[None], fit.estimate), fit.reml
    )
    original = _frame(compute(itself), 1).iloc[0].rename("original")
    return Bootstrap(original, _frame(compute(fits), n).set_axis(fits.names, axis=0), fits)


def _frame(values: Any, n: int) -> pd.DataFrame:
    """What a statistic returned, as n rows."""
    if isinstance(values, pd.Series):
        values = values.rename("statistic" if values.name is None else values.name).to_frame()
    if not isinstance(values, pd.DataFrame):
        array = np.asarray(values, dtype=float)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise ValueError(f"statistic returned shape {array.shape}: return one row or value a response")
        names = ["statistic"] if array.shape[1] == 1 else [f"statistic{k}" for k in range(array.shape[1])]
        values = pd.DataFrame(array, columns=names)
    if len(values) != n:
        raise ValueError(f"statistic returned {len(values)} rows for {n} responses: return one for each")
    return values


# --- permutation -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Permutation:
    """A permutation test of a fixed term.

    Attributes
    ----------
    term : its name.
    statistic : Wald statistic β̂ₜᵀ Φₜₜ⁻¹ β̂ₜ of the fit (t² for one coefficient).
    null : (n,) the statistic of the permuted responses.
    fits : their fits, a `BatchFit`.
    """

    term: str
    statistic: float
    null: np.ndarray
    fits: BatchFit

    @property
    def pvalue(self) -> float:
        """(1 + #{null ≥ statistic})/(1 + n), over the permutations that could be fitted.

        Never 0: Phipson & Smyth (2010), doi:10.2202/1544-6115.1585.
        """
        usable = self.null[np.isfinite(self.null)]
        # refits of one response differ by rounding
        return float((1 + np.sum(usable >= self.statistic * (1 - 1e-9))) / (1 + len(usable)))

    def __repr__(self) -> str:
        values = f"statistic={self.statistic:.4g}, p={self.pvalue:.4g}"
        return f"Permutation({self.term!r}, {values}, n={len(self.null)})"


def permutation(fit: Fit, key: Any, term: str, n: int = 1000) -> Permutation:
    """Permutation test of a fixed term, with the design held fixed (Freedman & Lane).

    The model is fitted without the term: X₀, β̂₀, V̂₀. Its residuals, whitened to make them exchangeable, are
    permuted, given their covariance back and added to the fitted mean,

        y* = X₀β̂₀ + V̂₀^½ P V̂₀^−½ (y − X₀β̂₀),

    and the whole model is refitted to every y* as one batch. V̂₀^½ is the symmetric root. The test is
    exact when β₀ and V₀ are known, otherwise approximate, as all tests that permute residuals are.

    Parameters
    ----------
    key : `jax.random` key.
    term : a term of the fixed part ("Days", "age:Sex") or one of its coefficients.

    Source: Freedman & Lane (1983), doi:10.2307/1391660; whitened residuals in mixed models Lee & Braun
    (2012), doi:10.1111/j.1541-0420.2011.01675.x.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    require_estimates(fit)
    model = fit.model
    columns = _columns_of(fit, term)
    null = dataclasses.replace(model.design, x=np.delete(model.design.x, columns, axis=1))
    without = best_estimate(ProblemMaker(null, model._backend), fit.y, fit.reml, fit.estimate.theta)
    if not np.all(np.isfinite(without.psi)):
        raise ValueError(f"the model without {term!r} could not be fitted")
    keys = jax.random.split(key, n)
    orders = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, null.n))(keys))
    y = permuted_responses(null, without, fit.y, orders)
    fits = BatchFit(
        model,
        pd.RangeIndex(n, name="permutation"),
        y,
        estimate_many(model.maker, y, fit.reml),
        fit.reml,
    )
    whole = jax.tree.map(lambda a: a[None], fit.estimate)
    return Permutation(
        term, float(wald_statistic(whole, columns)[0]), wald_statistic(fits.estimate, columns), fits
    )


def _columns_of(fit: Fit, term: str) -> np.ndarray:
    """Columns of X of a term or a coefficient."""
    frame = fit.model.frame
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


def covariance_roots(design: Design, psi: np.ndarray):
    """Yields (rows, r, Q) for each block of rows independent of the others: V^½ = Q diag(r) Qᵀ there."""
    matrices = design.structure.absolute(psi)
    for rows in independent_blocks(design):
        v = covariance(design, psi, rows)
        for term, matrix in zip(design.terms, matrices, strict=True):
            codes, z = term.codes[rows], term.z[rows]
            v = v + (codes[:, None] == codes) * (z @ matrix @ z.T)
        values, vectors = np.linalg.eigh(v)
        yield rows, np.sqrt(np.maximum(values, 0.0)), vectors


def independent_blocks(design: Design) -> list[np.ndarray]:
    """Rows in groups that share no level of any grouping factor, nor a group of the residuals."""
    label = np.arange(design.n)
    while True:
        new = label
        factors = [(term.codes, term.n_groups) for term in design.terms]
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
