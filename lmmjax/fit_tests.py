"""Tests of the fixed effects of a fit: `FixedTests`, which `Fit` inherits."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from scipy.special import chdtrc, fdtrc, stdtr

from lmmjax.contrasts import hypothesis
from lmmjax.inference import hypotheses
from lmmjax.inference.ddf import (
    Adjusted,
    FTest,
    independent_rows,
    kenward_roger,
    kenward_roger_f,
    satterthwaite_f,
    single_df,
)
from lmmjax.inference.natural import (
    Natural,
    at_estimate_jit,
    boundary_covariance_jit,
    natural_jit,
    on_inner_boundary,
)

if TYPE_CHECKING:
    from lmmjax.core import Estimate
    from lmmjax.formula import ModelFrame
    from lmmjax.model import Model
    from lmmjax.results import Fit

METHODS = {"satterthwaite": "Satterthwaite", "kenward-roger": "Kenward-Roger", "normal": "normal"}
"""Values of `ddf` with their names in print; normal: infinitely many degrees of freedom."""

TYPES = {"1": 1, "2": 2, "3": 3, "I": 1, "II": 2, "III": 3}

REFITTED = "Kenward-Roger needs REML: the model was refitted by REML for these tests"


class FixedTests:
    """Degrees of freedom, t and F tests of a fit."""

    if TYPE_CHECKING:
        model: Model
        y: np.ndarray
        estimate: Estimate
        reml: bool

        def _series(self, values: Any, name: str) -> pd.Series: ...

        def refit(self, y: Any = None, *, reml: bool | None = None) -> Fit: ...

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p-values of t with Satterthwaite's degrees of freedom; others by `coef_table(ddf=)`."""
        return self._series(self.coef_table()["p"], "p")

    def coef_table(self, ddf: str = "satterthwaite") -> pd.DataFrame:
        """Columns estimate, se, df, t, p, a row a coefficient.

        Parameters
        ----------
        ddf : degrees of freedom. "satterthwaite", for a fit by maximum likelihood from that criterion;
            "kenward-roger", with the adjusted standard errors, for a fit by maximum likelihood those of the
            same model refitted by REML, with its estimates; "normal", infinite.
        """
        check_ddf(ddf)
        table = t_table(self, np.eye(self.model.design.p), np.zeros(self.model.design.p), ddf)
        out = pd.DataFrame(table, index=list(self.model.frame.x_names))
        out.attrs.update(self._notes(ddf))
        return out

    def anova(self, type: int | str = 3, ddf: str = "satterthwaite") -> pd.DataFrame:
        """F tests of the fixed terms: columns sum_sq, mean_sq, num_df, den_df, F, p, a row a term.

        Parameters
        ----------
        type : 1 or "I", each term given those before it; 2 or "II", given those that do not contain it;
            3 or "III", averaged over the levels of the terms that contain it, however factors are coded.
            The hypotheses are those of lmerTest (and SAS); see `lmmjax.inference.hypotheses`.
        ddf : as in `coef_table`. With Kenward & Roger's, F is scaled; sums of squares are not.

        A term all of whose columns are aliased has no test: num_df is 0, the rest is missing.
        """
        check_ddf(ddf)
        kind = TYPES.get(str(type).upper())
        if kind is None:
            raise ValueError(f"unknown type {type!r}; choose one of: 1, 2, 3")
        frame = self.model.frame
        terms = _terms(frame)
        levels = {name: len(labels) for name, labels in frame.factor_levels.items()}
        rows = hypotheses.contrasts(kind, frame.x, terms, frame.factor_values, levels)
        tests = [f_test(self, l, np.zeros(len(l)), ddf) for l in rows]
        source = self._source(ddf)
        scale = float(source.estimate.sigma2)
        mean_sq = np.array([float(test.unscaled) for test in tests]) * scale
        num_df = np.array([test.num_df for test in tests], int)
        table = {
            "sum_sq": mean_sq * num_df,
            "mean_sq": mean_sq,
            "num_df": num_df,
            "den_df": np.array([float(test.den_df) for test in tests]),
            "F": np.array([float(test.f) for test in tests]),
        }
        table["p"] = f_tail(table["F"], num_df, table["den_df"])
        out = pd.DataFrame(table, index=[term.name for term in terms])
        out.attrs.update(self._notes(ddf) | {"type": kind})
        return out

    def test(self, l: Any, ddf: str = "satterthwaite", rhs: Any = None) -> pd.DataFrame:
        """Test of Lβ = rhs: one row with F, num_df, den_df, p; for one contrast estimate, se and t as well.

        Parameters
        ----------
        l : text such as "Days = 10", "a - 0.5 * b", "a = b = 0"; a list of texts, tested together; a
            dict {coefficient: weight} or list of them; an array (p,) or (k, p).
        ddf : as in `coef_table`. For several rows F is scaled as Kenward & Roger propose, or has the
            degrees of freedom of Fai & Cornelius.
        rhs : number or (k,), 0 by default; part of the text where l is an equation.

        Rows that depend on others are left out, num_df counts the rest.

        Raises
        ------
        ValueError : an unknown coefficient, a wrong shape, or equations that contradict each other.
        """
        check_ddf(ddf)
        rows, right, label = hypothesis(l, list(self.model.frame.x_names), rhs)
        test = f_test(self, rows, right, ddf)
        columns: dict[str, Any] = {}
        if len(rows) == 1:
            table = t_table(self, rows, right, ddf)
            columns = {name: table[name] for name in ("estimate", "se", "t")}
        f, den_df = float(test.f), float(test.den_df)
        p = f_tail(np.array([f]), np.array([test.num_df]), np.array([den_df]))
        columns |= {"F": f, "num_df": test.num_df, "den_df": den_df, "p": p}
        out = pd.DataFrame(columns, index=[label])
        out.attrs.update(self._notes(ddf))
        return out

    def _notes(self, ddf: str) -> dict[str, str]:
        """What the tables say in their `attrs`."""
        notes = {"ddf": METHODS[ddf]}
        return notes | {"note": REFITTED} if self._source(ddf) is not self else notes

    def _source(self, ddf: str) -> FixedTests:
        """The fit that a test with these degrees of freedom is made from."""
        return self._by_reml if ddf == "kenward-roger" else self

    @cached_property
    def _by_reml(self) -> FixedTests:
        return self if self.reml else self.refit(reml=True)

    @cached_property
    def _natural(self) -> tuple[Natural, np.ndarray]:
        """Derivatives at the estimate, and the covariance of ψ̂, as NumPy arrays."""
        with jax.enable_x64(True):
            problem, estimate = self.model.problem(self.y, self.reml), self.estimate
            at, cov_psi = at_estimate_jit(problem, estimate.psi, estimate.cov_psi)
            if on_inner_boundary(problem.structure, estimate.cov_psi):
                cov_psi = boundary_covariance_jit(problem, estimate.psi)
            return jax.tree.map(np.asarray, (at, cov_psi))

    @cached_property
    def _adjusted(self) -> Adjusted:
        if self.model.design.structure.linear:
            return kenward_roger(self._natural[0])
        with jax.enable_x64(True):
            problem = self.model.maker.tangents(self.y, self.reml)
            return kenward_roger(jax.tree.map(np.asarray, natural_jit(problem, self.estimate.psi)))


def check_ddf(ddf: str) -> None:
    if ddf not in METHODS:
        raise ValueError(f"unknown ddf {ddf!r}; choose one of: {', '.join(METHODS)}")


def t_table(fit: FixedTests, rows: np.ndarray, rhs: np.ndarray, ddf: str) -> dict[str, np.ndarray]:
    """Columns estimate, se, df, t, p for the rows (k, p) of L, each by itself."""
    source = fit._source(ddf)
    beta, cov = source.estimate.beta, source.estimate.cov_beta
    df = np.full(len(rows), np.inf)
    if not np.all(np.isfinite(source.estimate.psi)):
        df = np.full(len(rows), np.nan)
    elif ddf != "normal" and len(rows):
        at, cov_psi = source._natural
        inner = rows @ at.outward
        if ddf == "kenward-roger":
            cov_psi = source._adjusted.cov_psi
            cov = at.outward @ source._adjusted.cov_beta @ at.outward.T
        df = single_df(at, cov_psi, inner)
    se = np.sqrt(np.einsum("kp,pr,kr->k", rows, cov, rows))
    t = (rows @ beta - rhs) / se
    p = 2.0 * stdtr(df, -np.abs(t))
    return {"estimate": rows @ beta, "se": se, "df": df, "t": t, "p": p}


def f_test(fit: FixedTests, rows: np.ndarray, rhs: np.ndarray, ddf: str) -> FTest:
    """F test of Lβ = rhs, rows (k, p) of L that may depend on each other; k = 0 gives missing values."""
    source = fit._source(ddf)
    missing = FTest(np.array(np.nan), 0, np.array(np.nan), np.array(np.nan))
    if not len(rows) or not np.all(np.isfinite(source.estimate.psi)):
        return missing
    rows, rhs = independent_rows(rows, rhs, source.estimate.cov_beta)
    difference = rows @ source.estimate.beta - rhs
    if ddf == "normal":
        solved = np.linalg.solve(rows @ source.estimate.cov_beta @ rows.T, difference)
        f = difference @ solved / len(rows)
        return FTest(f, len(rows), np.array(np.inf), f)
    at, cov_psi = source._natural
    inner = rows @ at.outward
    if ddf == "kenward-roger":
        return kenward_roger_f(at, source._adjusted, inner, difference)
    return satterthwaite_f(at, cov_psi, inner, difference)


def f_tail(f: np.ndarray, num_df: np.ndarray, den_df: np.ndarray) -> np.ndarray:
    """Upper tail of F; of χ²/k where den_df is infinite."""
    finite = np.where(np.isinf(den_df), 1.0, den_df)
    return np.where(np.isinf(den_df), chdtrc(num_df, num_df * f), fdtrc(np.maximum(num_df, 1), finite, f))


def _terms(frame: ModelFrame) -> list[hypotheses.Term]:
    """The fixed terms other than the intercept."""
    out = []
    for name, columns in frame.term_slices.items():
        factors = frozenset(frame.term_factors[name])
        if not factors:
            continue
        categorical = factors & frozenset(frame.factor_levels)
        out.append(hypotheses.Term(name, columns, categorical, factors - categorical))
    return out
