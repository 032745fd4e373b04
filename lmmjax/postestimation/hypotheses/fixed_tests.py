"""Tests of the fixed effects of a fit: t and F, their degrees of freedom, analysis of variance."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import numpy as np
import pandas as pd
from scipy.special import chdtrc, fdtrc, stdtr

from lmmjax.arrays import sweep
from lmmjax.arrays.caller import stack_level
from lmmjax.core.far.fit import turn_where_far
from lmmjax.core.far.turn import Turn
from lmmjax.design import EstimabilityWarning
from lmmjax.fitted import Fitted, by_criterion, kept, open_effects, require_choice, require_level
from lmmjax.inference.ddf import (
    Adjusted,
    FTest,
    independent_rows,
    kenward_roger,
    kenward_roger_f,
    satterthwaite_f,
    single_df,
)
from lmmjax.inference.delta import t_quantile
from lmmjax.inference.natural import (
    Natural,
    at_estimate_jit,
    natural_bent_jit,
    natural_jit,
    outward_covariance,
)
from lmmjax.inference.open_directions import inward_moves, moving_covariances
from lmmjax.inference.robust.sandwich import hotelling_f
from lmmjax.postestimation.hypotheses.contrasts import hypothesis, written
from lmmjax.postestimation.hypotheses.estimability import lost_contrasts
from lmmjax.postestimation.hypotheses.robust import (
    Robust,
    lost_to_clusters,
    robust_choice,
    robust_covariance,
    robust_df,
    robust_joint,
)
from lmmjax.postestimation.hypotheses.terms import term_hypotheses

METHODS = {
    "satterthwaite": "Satterthwaite",
    "kenward-roger": "Kenward-Roger",
    "kenward-roger-sas": "Kenward-Roger (PROC MIXED)",
    "normal": "normal",
}
"""Values of `ddf` with their names in print; normal: infinitely many degrees of freedom."""

ALIASES = {"satt": "satterthwaite", "kr": "kenward-roger"}

ADJUSTED = ("kenward-roger", "kenward-roger-sas")
"""Those that adjust the covariance of β̂, and belong to REML."""

REFITTED = "Kenward-Roger needs REML: the model was refitted by REML for these tests"


def ddf_method(ddf: str) -> str:
    """The key of `METHODS` that is meant, in small letters or as R writes it; ValueError lists them."""
    small = ddf.lower() if isinstance(ddf, str) else ddf
    named = ALIASES.get(small, small)
    require_choice("ddf", named, METHODS)
    return named


def possessive(name: str) -> str:
    """A name of `METHODS` in a sentence: Kenward-Roger's (PROC MIXED)."""
    first, bracket, rest = name.partition(" (")
    return f"{first}'s{bracket}{rest}"


def coef_table(fitted: Fitted, ddf: str, robust: str | None = None, cluster: Any = None) -> pd.DataFrame:
    """See `Fit.coef_table`."""
    ddf = ddf_method(ddf)
    chosen = robust_choice(fitted.data, robust, cluster, ddf)
    p = fitted.data.design.p
    out = pd.DataFrame(t_table(fitted, np.eye(p), np.zeros(p), ddf, chosen), index=fitted.data.x_names)
    out.attrs.update(notes(fitted, ddf, chosen))
    return out


def cov_params(fitted: Fitted, robust: str | None, cluster: Any, ddf: str = "satterthwaite") -> pd.DataFrame:
    """See `Fit.cov_params`."""
    ddf = ddf_method(ddf)
    names, cov = fitted.data.x_names, fitted.estimate.cov_beta
    chosen = robust_choice(fitted.data, robust, cluster, ddf)
    if chosen is not None or ddf in ADJUSTED:
        cov = np.full(cov.shape, np.nan)
        if np.all(np.isfinite(fitted.estimate.psi)):
            lost = open_covariances(source(fitted, ddf), np.eye(len(names)))
            if chosen is not None:
                alone = lost_to_clusters(fitted.data, chosen, np.eye(len(names)))
                lost |= alone[:, None] | alone[None]
            cov = np.where(lost, np.nan, covariance_for(fitted, ddf, chosen))
    return pd.DataFrame(cov, index=names, columns=names)


def anova(
    fitted: Fitted, type: int | str, ddf: str, robust: str | None = None, cluster: Any = None
) -> pd.DataFrame:
    """See `Fit.anova`."""
    ddf = ddf_method(ddf)
    chosen = robust_choice(fitted.data, robust, cluster, ddf)
    kind, found = term_hypotheses(fitted.data.frame, type)
    gone = [name for name, l in found.items() if not len(l)]
    out = f_table(fitted, {name: l for name, l in found.items() if len(l)}, ddf, chosen)
    out.attrs["type"] = kind
    if gone:
        out.attrs["dropped"] = gone
    return out


def f_table(
    fitted: Fitted, rows: dict[str, np.ndarray], ddf: str, chosen: Robust | None = None
) -> pd.DataFrame:
    """F tests of Lβ = 0 by name, L (k, p): sum_sq, mean_sq, num_df, den_df, F, p; missing where k = 0."""
    tests = [f_test(fitted, l, np.zeros(len(l)), ddf, chosen) for l in rows.values()]
    scale = float(source(fitted, ddf).estimate.sigma2)
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
    out = pd.DataFrame(table, index=pd.Index(list(rows)))
    # a robust F is no ratio of sums of squares
    out = out if chosen is None else out.drop(columns=["sum_sq", "mean_sq"])
    out.attrs.update(notes(fitted, ddf, chosen))
    return out


def hypothesis_test(
    fitted: Fitted,
    l: Any,
    ddf: str,
    rhs: Any,
    level: float = 0.95,
    robust: str | None = None,
    cluster: Any = None,
) -> pd.DataFrame:
    """See `Fit.test`."""
    ddf, level = ddf_method(ddf), require_level(level)
    chosen = robust_choice(fitted.data, robust, cluster, ddf)
    rows, right, label = hypothesis(l, fitted.data.x_names, rhs, fitted.data.frame.aliased)
    test = f_test(fitted, rows, right, ddf, chosen)
    texts = [written(row, fitted.data.x_names) for row in rows]
    if lost_contrasts(fitted.data, rows, texts).any():
        single = ("estimate", "se", "lower", "upper", "t") if len(rows) == 1 else ()
        names = (*single, "F", "num_df", "den_df", "p")
        return pd.DataFrame(dict.fromkeys(names, np.nan), index=[label])
    columns: dict[str, Any] = {}
    if len(rows) == 1:
        table = t_table(fitted, rows, right, ddf, chosen)
        half = t_quantile(table["df"], level) * table["se"]
        limits = {"lower": table["estimate"] - half, "upper": table["estimate"] + half}
        columns = {"estimate": table["estimate"], "se": table["se"], **limits, "t": table["t"]}
    f, den_df = float(test.f), float(test.den_df)
    p = f_tail(np.array([f]), np.array([test.num_df]), np.array([den_df]))
    columns |= {"F": f, "num_df": test.num_df, "den_df": den_df, "p": p}
    out = pd.DataFrame(columns, index=[label])
    out.attrs.update(notes(fitted, ddf, chosen))
    return out


def source(fitted: Fitted, ddf: str) -> Fitted:
    """The fit that a test with these degrees of freedom is made from."""
    return by_criterion(fitted, True) if ddf in ADJUSTED else fitted


def notes(fitted: Fitted, ddf: str, robust: Robust | None = None) -> dict[str, str]:
    """What the tables say in their `attrs`."""
    said = {"ddf": METHODS[ddf]}
    if robust is not None:
        return said | {"robust": robust.kind, "cluster": robust.cluster, "note": robust.note(ddf)}
    return said | {"note": REFITTED} if source(fitted, ddf) is not fitted else said


@kept
def natural_at(fitted: Fitted) -> tuple[Natural, np.ndarray]:
    """Derivatives at the estimate, and the covariance of ψ̂, as NumPy arrays."""
    psi, cov, turn = fitted.estimate.psi, fitted.estimate.cov_relative, turn_at(fitted)
    if turn is not None:
        psi, cov = turn.inside(psi, cov)
    with jax.enable_x64(True):
        make = fitted.data.problem if turn is None else turn.maker
        at, inner = jax.tree.map(np.asarray, at_estimate_jit(make(fitted.y, fitted.reml), psi, cov))
    return (at if turn is None else dataclasses.replace(at, outward=turn.x @ at.outward)), inner


@kept
def turn_at(fitted: Fitted) -> Turn | None:
    """The coordinates of `natural_at` and `adjusted_at`, where they are not those of the design."""
    if fitted.estimate.moves.any():
        return None
    return turn_where_far(fitted.data.maker, fitted.estimate.psi)


def design_covariance(fitted: Fitted, cov: np.ndarray) -> np.ndarray:
    """A covariance (m + 1, m + 1) of ψ̂, as of `Adjusted`, in coordinates and units of `cov_relative`."""
    psi, turn = np.asarray(fitted.estimate.psi), turn_at(fitted)
    if turn is None:
        return outward_covariance(fitted.data.problem(fitted.y, fitted.reml), psi, cov)
    inside, _ = turn.inside(psi, cov)
    with jax.enable_x64(True):
        there = outward_covariance(turn.maker(fitted.y, fitted.reml), inside, cov)
    return turn.outward @ there @ turn.outward.T


@kept
def _inverse_at(fitted: Fitted) -> np.ndarray:
    """Φ (p, p) at the estimate, in internal coordinates."""
    return sweep(natural_at(fitted)[0].xx)[1]


@kept
def adjusted_at(fitted: Fitted, ddf: str) -> Adjusted:
    """Kenward & Roger's covariance of β̂ and what its degrees of freedom need."""
    sas = ddf == "kenward-roger-sas"
    at, cov_psi = natural_at(fitted)
    if not fitted.data.design.structure.linear:
        turn, psi = turn_at(fitted), fitted.estimate.psi
        psi = psi if turn is None else turn.inside(psi, fitted.estimate.cov_relative)[0]
        with jax.enable_x64(True):
            maker = fitted.data.maker if turn is None else turn.maker
            problem = maker.tangents(fitted.y, fitted.reml)
            at = (natural_bent_jit if sas else natural_jit)(problem, psi)
    return kenward_roger(jax.tree.map(np.asarray, at), cov_psi if sas else None)


def covariance_at(fitted: Fitted) -> np.ndarray:
    """Φ (p, p) at the estimate, also where it depends on what the data leave open."""
    if not np.isnan(fitted.estimate.cov_beta).any():
        return fitted.estimate.cov_beta
    at, _ = natural_at(fitted)
    return at.outward @ sweep(at.xx)[1] @ at.outward.T


def covariance_for(fitted: Fitted, ddf: str, robust: Robust | None = None) -> np.ndarray:
    """The covariance (p, p) of β̂ that tests use: Φ, Kenward & Roger's Φ_A, or a robust one."""
    if robust is not None:
        return robust_covariance(fitted, robust)
    made_from = source(fitted, ddf)
    if ddf not in ADJUSTED:
        return covariance_at(made_from)
    outward = natural_at(made_from)[0].outward
    return outward @ adjusted_at(made_from, ddf).cov_beta @ outward.T


def open_covariances(fitted: Fitted, rows: np.ndarray) -> np.ndarray:
    """Which covariances (k, k) of the contrasts rows (k, p) depend on what the data leave open."""
    if not np.isnan(fitted.estimate.cov_beta).any():
        return np.zeros((len(rows), len(rows)), bool)
    at, _ = natural_at(fitted)
    problem = fitted.data.problem(fitted.y, fitted.reml)
    moves = inward_moves(problem, fitted.estimate.psi, fitted.estimate.moves)
    return moving_covariances(at, moves, rows @ at.outward)


def t_table(
    fitted: Fitted, rows: np.ndarray, rhs: np.ndarray, ddf: str, robust: Robust | None = None
) -> dict[str, np.ndarray]:
    """Columns estimate, se, df, t, p for the rows (k, p) of L, each by itself."""
    made_from = source(fitted, ddf)
    beta = made_from.estimate.beta
    df = np.full(len(rows), np.inf)
    missing = not np.all(np.isfinite(made_from.estimate.psi))
    cov = made_from.estimate.cov_beta if missing else covariance_for(fitted, ddf, robust)
    if missing:
        df = np.full(len(rows), np.nan)
    elif robust is not None:
        df = df if ddf == "normal" or not len(rows) else robust_df(fitted, robust, rows)
    elif ddf != "normal" and len(rows):
        at, cov_psi = natural_at(made_from)
        inner = rows @ at.outward
        if ddf in ADJUSTED:
            cov_psi = adjusted_at(made_from, ddf).cov_psi
        df = single_df(at, cov_psi, inner, _inverse_at(made_from))
    se = np.sqrt(np.einsum("kp,pr,kr->k", rows, cov, rows))
    if not missing:
        lost = np.diagonal(open_covariances(made_from, rows))
        if robust is not None and len(rows):
            lost = lost | lost_to_clusters(fitted.data, robust, rows)
        se, df = np.where(lost, np.nan, se), np.where(lost, np.nan, df)
    gone = open_effects(made_from, rows)
    value, se, df = (np.where(gone, np.nan, a) for a in (rows @ beta, se, df))
    t = (value - rhs) / se
    p = 2.0 * stdtr(df, -np.abs(t))
    return {"estimate": value, "se": se, "df": df, "t": t, "p": p}


def f_test(
    fitted: Fitted, rows: np.ndarray, rhs: np.ndarray, ddf: str, robust: Robust | None = None
) -> FTest:
    """F test of Lβ = rhs, rows (k, p) of L that may depend on each other; k = 0 gives missing values."""
    made_from = source(fitted, ddf)
    missing = FTest(np.array(np.nan), 0, np.array(np.nan), np.array(np.nan))
    if not len(rows) or not np.all(np.isfinite(made_from.estimate.psi)):
        return missing
    phi = covariance_at(made_from)
    kept = independent_rows(rows, rhs, phi)
    rows, rhs = rows[kept], rhs[kept]
    if open_covariances(made_from, rows).any() or open_effects(made_from, rows).any():
        return missing
    difference = rows @ made_from.estimate.beta - rhs
    if robust is not None:
        return _robust_f(fitted, rows, difference, ddf, robust)
    if ddf == "normal":
        solved = np.linalg.solve(rows @ phi @ rows.T, difference)
        f = difference @ solved / len(rows)
        return FTest(f, len(rows), np.array(np.inf), f)
    at, cov_psi = natural_at(made_from)
    inner = rows @ at.outward
    if ddf in ADJUSTED:
        return kenward_roger_f(at, adjusted_at(made_from, ddf), inner, difference, _inverse_at(made_from))
    return satterthwaite_f(at, cov_psi, inner, difference, _inverse_at(made_from))


def _robust_f(fitted: Fitted, rows: np.ndarray, difference: np.ndarray, ddf: str, robust: Robust) -> FTest:
    """F test with a robust covariance of independent contrasts, rows (k, p); `difference` (k,) = Lβ̂ − rhs."""
    if lost_to_clusters(fitted.data, robust, rows).any():
        return FTest(np.array(np.nan), len(rows), np.array(np.nan), np.array(np.nan))
    test = hotelling_f(*robust_joint(fitted, robust, rows), difference, ddf)
    if np.isnan(test.f):
        warnings.warn(
            f"{robust.n_clusters} clusters of {robust.cluster!r} are too few to test {len(rows)} contrasts "
            "together: test fewer, or without robust=",
            EstimabilityWarning,
            stacklevel=stack_level(),
        )
    return test


def f_tail(f: np.ndarray, num_df: np.ndarray, den_df: np.ndarray) -> np.ndarray:
    """Upper tail of F; of χ²/k where den_df is infinite."""
    finite = np.where(np.isinf(den_df), 1.0, den_df)
    return np.where(np.isinf(den_df), chdtrc(num_df, num_df * f), fdtrc(np.maximum(num_df, 1), finite, f))
