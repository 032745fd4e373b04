"""`Bootstrap` and `Permutation`: variations of a fit, with the batches they were refitted as."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.caller import stack_level
from lmmjax.fitted import (
    Fitted,
    ModelView,
    require_choice,
    require_function,
    require_level,
    require_rows,
)
from lmmjax.formula.labelled import labelled
from lmmjax.formula.matching import positions
from lmmjax.inference.bootstrap_intervals import KINDS, Range, within_range
from lmmjax.postestimation.simulation.resample import (
    bootstrap_fits,
    itself,
    parameters,
    permuted_fits,
    ranges,
)
from lmmjax.reports.table import prints_whole
from lmmjax.results.batch import BatchFit


@prints_whole
@dataclasses.dataclass(frozen=True, eq=False)
class Bootstrap:
    """Refits of responses simulated from a fit.

    Attributes
    ----------
    original : the statistics of the fit.
    replicates : those of the n refits, replicates × statistics.
    fits : the refits, a `BatchFit`.
    ranges : of the statistics; None for those of a function, whose ranges are not known.

    Intervals and standard errors leave out refits that did not converge, and for each statistic those
    that lack it (a correlation where a variance is 0).
    """

    original: pd.Series
    replicates: pd.DataFrame
    fits: BatchFit
    ranges: list[Range] | None = None

    @property
    def converged(self) -> pd.Series:
        """Whether each refit is certified."""
        return self.fits.converged

    @property
    def _used(self) -> pd.DataFrame:
        return self.replicates.loc[self.converged.to_numpy()]

    def _left_out(self, values: Any) -> np.ndarray | None:
        """(G, k) statistics without each group; ValueError if they are others than those of the bootstrap."""
        if values is None:
            return None
        given, k = labelled(values, "leave_out"), len(self.original)
        if given.values.ndim != 2 or given.values.shape[1] != k:
            raise ValueError(f"leave_out has shape {given.values.shape}: pass (G, {k}), a column a statistic")
        place = positions(given.columns, self.original.index, "leave_out", "the statistics", "columns")
        return given.values if place is None else given.values[:, place]

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
            accelerated. "basic" and "normal" are formed for the log of standard deviations and the logit of
            correlations, so that they stay inside the parameter space. Where replicates lie on its boundary
            (a variance of 0, a correlation of ±1) that is impossible: percentiles stand there instead, a
            warning and `attrs["percentile"]` name them. Statistics of your own are taken as they are.
        leave_out : for "bca": (G, k) statistics without each independent group, which give the acceleration;
            0 if None.
        level : of the intervals.

        Raises
        ------
        ValueError : an unknown kind, a level outside of (0, 1), `leave_out` of another shape or with other
            labels.

        Source: Davison & Hinkley (1997), ch. 5, doi:10.1017/CBO9780511802843.
        """
        require_level(level)
        require_choice("kind", kind, KINDS)
        options = {"leave_out": self._left_out(leave_out)} if kind == "bca" else {}
        values, original = self._used.to_numpy(dtype=float), self.original.to_numpy(dtype=float)
        if kind in ("basic", "normal") and self.ranges is not None:
            limits, instead = within_range(kind, values, original, level, self.ranges)
        else:
            limits, instead = KINDS[kind](values, original, level, **options), np.zeros(len(original), bool)
        frame = pd.DataFrame(limits, index=self.original.index, columns=["lower", "upper"])
        if instead.any():
            named = frame.attrs["percentile"] = [str(name) for name in self.original.index[instead]]
            warnings.warn(
                f"replicates of {', '.join(named)} lie on the boundary of the parameter space: "
                f"percentiles in place of {kind} limits",
                stacklevel=stack_level(),
            )
        return frame

    def __repr__(self) -> str:
        good = int(self.converged.sum())
        formula = self.fits.fitted.data.formula
        return f"Bootstrap({formula!r}, {len(self.replicates)} replicates, {good} converged)"


def bootstrap(
    model: ModelView, fitted: Fitted, key: Any, n: int = 1000, statistic: Callable | None = None
) -> Bootstrap:
    """Parametric bootstrap: simulate n responses from the fit and refit them as one batch.

    Parameters
    ----------
    key : `jax.random` key.
    n : number of replicates.
    statistic : function of a `BatchFit` with T responses that returns T values, (T, k) values or a frame
        with T rows; by default `parameters`. It is called on the refits and on the fit itself, T = 1.
    """
    require_rows(fitted.data, "bootstrap")
    if statistic is not None:
        require_function("statistic", statistic)
    refits = bootstrap_fits(fitted, key, n)
    fits, whole = BatchFit(model, refits), BatchFit(model, itself(fitted))
    compute = (lambda batch: parameters(batch.fitted)) if statistic is None else statistic
    known = ranges(fitted.data) if statistic is None else None
    known = ranges(fitted.data) if statistic is None else None
    original = _frame(compute(whole), whole.names).iloc[0].rename("original")
    return Bootstrap(original, _frame(compute(fits), fits.names), fits, known)


def _frame(values: Any, names: pd.Index) -> pd.DataFrame:
    """What a statistic returned, a row a response, which go by their labels where they have some."""
    n = len(names)
    if isinstance(values, pd.Series):
        values = values.rename("statistic" if values.name is None else values.name).to_frame()
    if not isinstance(values, pd.DataFrame):
        array = np.asarray(values, dtype=float)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise ValueError(f"statistic returned shape {array.shape}: return one row or value a response")
        columns = ["statistic"] if array.shape[1] == 1 else [f"statistic{k}" for k in range(array.shape[1])]
        values = pd.DataFrame(array, columns=columns)
    if len(values) != n:
        raise ValueError(f"statistic returned {len(values)} rows for {n} responses: return one for each")
    place = positions(values.index, names, "statistic", "the responses")
    return (values if place is None else values.iloc[place]).set_axis(names, axis=0)


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


def permutation(model: ModelView, fitted: Fitted, key: Any, term: str, n: int = 1000) -> Permutation:
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
    fits, statistic, null = permuted_fits(fitted, key, term, n)
    return Permutation(term, statistic, null, BatchFit(model, fits))
