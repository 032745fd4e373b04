"""F tests of many responses: of hypotheses about the coefficients, and of all fixed terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.sparse_columns import complete_columns
from lmmjax.batch.ddf import joint_tests
from lmmjax.fitted import FittedMany, by_reml_many, covariances_many, open_effects_many, require_level
from lmmjax.formula import take_columns, take_rows
from lmmjax.inference.ddf import independent_rows
from lmmjax.inference.delta import t_quantile
from lmmjax.postestimation.hypotheses.batch_robust import robust_joint_of_many
from lmmjax.postestimation.hypotheses.batch_tests import adjust, estimable_combinations, responses_of, t_tests
from lmmjax.postestimation.hypotheses.contrasts import hypothesis, written
from lmmjax.postestimation.hypotheses.estimability import lost_contrasts
from lmmjax.postestimation.hypotheses.fixed_tests import ADJUSTED, ddf_method, f_tail
from lmmjax.postestimation.hypotheses.robust import Robust, robust_choice
from lmmjax.postestimation.hypotheses.terms import term_hypotheses

TABLE = ("F", "num_df", "den_df", "p")


def f_tests(
    fits: FittedMany,
    rows: np.ndarray,
    rhs: np.ndarray,
    sets: Sequence[np.ndarray],
    ddf: str,
    reported: np.ndarray,
    robust: Robust | None = None,
) -> dict[str, np.ndarray]:
    """Columns of `TABLE`, (T, h) each, of h hypotheses Lβ = rhs.

    Parameters
    ----------
    rows : (k, p) L; rhs : (k,).
    sets : positions of the rows of each hypothesis, which may depend on each other.
    ddf : a key of `fixed_tests.METHODS`.
    reported : (T, h) which to report.
    robust : the covariance, in place of the model's.
    """
    source = by_reml_many(fits) if ddf in ADJUSTED else fits
    estimate, kept, of = source.estimate, source.kept, responses_of(source)
    fitted = np.isfinite(estimate.psi).all(axis=1) & reported.any(axis=1)
    moves, cov = covariances_many(source, rows), np.array(estimate.cov_beta)
    open_ = open_effects_many(source, rows)
    for k, (phi, _) in moves.items():
        cov[k] = phi
    f, num_df, den_df = np.full((3, len(fits.names), len(sets)), np.nan)
    beta = np.where(kept, estimate.beta, 0.0)
    for columns in np.unique(kept[fitted], axis=0):
        those, at = fitted & (kept == columns).all(axis=1), np.flatnonzero(columns)
        l = rows[:, at]
        inverse = np.linalg.inv(np.asarray(fits.data.maker.with_columns(at).basis.x_factor))
        phi = inverse @ inverse.T
        used = [own[independent_rows(l[own], rhs[own], phi)] for own in sets]
        difference = beta[:, at] @ l.T - rhs
        if robust is not None:
            found = robust_joint_of_many(source, robust, those, rows, difference, used, ddf)
        elif ddf == "normal":
            found = _wald(cov[:, at[:, None], at], those, l, difference, used)
        else:
            found = joint_tests(of.with_columns(at), those, l, difference, used, ddf)
        for j, own in enumerate(used):
            needed = at[np.any(l[own] != 0, axis=0)]
            known = those & reported[:, j] & ~np.isnan(cov[:, needed[:, None], needed]).any((1, 2))
            known &= ~open_[:, own].any(axis=1)
            for k, (_, between) in moves.items():
                known[k] &= not between[np.ix_(own, own)].any()
            f[known, j], den_df[known, j], num_df[known, j] = found[0][known, j], found[1][known, j], len(own)
    with np.errstate(invalid="ignore"):
        return dict(zip(TABLE, (f, num_df, den_df, f_tail(f, num_df, den_df)), strict=True))


def _wald(
    cov: np.ndarray, those: np.ndarray, rows: np.ndarray, difference: np.ndarray, sets: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """χ²/k of the responses `those` (T,) by their covariances (T, p, p), with infinite df."""
    f = np.full((len(cov), len(sets)), np.nan)
    for j, own in enumerate(sets):
        needed = np.any(rows[own] != 0, axis=0)
        there = those & np.isfinite(cov[:, needed][:, :, needed]).all(axis=(1, 2))
        l, apart = rows[own][:, needed], difference[there][:, own]
        phi = l @ cov[there][:, needed][:, :, needed] @ l.T
        f[there, j] = np.sum(apart * np.linalg.solve(phi, apart[:, :, None])[:, :, 0], axis=1) / len(own)
    return f, np.where(np.isnan(f), np.nan, np.inf)


def test_frame(
    fits: FittedMany, l: Any, ddf: str, rhs: Any, level: float, robust: str | None, cluster: Any
) -> pd.DataFrame:
    """See `BatchFit.test`."""
    ddf, level, names = ddf_method(ddf), require_level(level), fits.data.x_names
    chosen = robust_choice(fits.data, robust, cluster, ddf)
    rows, right, _ = hypothesis(l, names, rhs, fits.data.frame.aliased)
    lost = lost_contrasts(fits.data, rows, [written(row, names) for row in rows])
    reported = estimable_combinations(fits, rows) & ~lost
    if len(rows) > 1:
        every = np.arange(len(rows))
        every_one = np.asarray(reported.all(axis=1, keepdims=True))
        table = f_tests(fits, rows, right, [every], ddf, every_one, chosen)
        table = {name: column[:, 0] for name, column in table.items()}
    else:
        own = {name: column[:, 0] for name, column in t_tests(fits, rows, ddf, reported, chosen).items()}
        half = t_quantile(own["df"], level) * own["se"]
        table = {"estimate": own["estimate"], "se": own["se"]}
        table |= {"lower": own["estimate"] - half, "upper": own["estimate"] + half}
        with np.errstate(divide="ignore", invalid="ignore"):
            table["t"] = (own["estimate"] - right[0]) / own["se"]
            table |= {"F": table["t"] ** 2, "num_df": np.where(np.isnan(table["t"]), np.nan, 1.0)}
            table |= {"den_df": own["df"], "p": f_tail(table["F"], np.ones(len(half)), own["df"])}
    return pd.DataFrame(table | {"q": adjust(table["p"])}, index=fits.names)


def anova(
    fits: FittedMany, type: int | str, ddf: str, robust: str | None = None, cluster: Any = None
) -> pd.DataFrame:
    """See `BatchFit.anova`."""
    ddf = ddf_method(ddf)
    chosen = robust_choice(fits.data, robust, cluster, ddf)
    kind, whole = term_hypotheses(fits.data.frame, type)
    whole = {name: rows for name, rows in whole.items() if len(rows)}
    out = {column: np.full((len(fits.names), len(whole)), np.nan) for column in TABLE}
    for those, found in _by_hypotheses(fits, kind, whole):
        rows = np.concatenate([np.zeros((0, fits.data.design.p)), *found.values()])
        ends = np.cumsum([len(own) for own in found.values()])
        sets = [np.arange(end - len(own), end) for end, own in zip(ends, found.values(), strict=True)]
        reported = np.broadcast_to(those[:, None], (len(those), len(sets)))
        table = f_tests(fits, rows, np.zeros(len(rows)), sets, ddf, reported, chosen)
        at = np.array([list(whole).index(name) for name in found], int)
        for column, values in table.items():
            out[column][np.ix_(those, at)] = values[those]
    index = pd.MultiIndex.from_product([list(whole), fits.names], names=["term", fits.names.name])
    out["q"] = adjust(out["p"])
    return pd.DataFrame({name: column.T.ravel() for name, column in out.items()}, index=index)


def _by_hypotheses(
    fits: FittedMany, kind: int, whole: dict[str, np.ndarray]
) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Responses (T,) with L (k, p) of their terms; those with missing values have that of their rows.

    Terms of which a response has no column are left out.
    """
    fitted, whole_weights = np.isfinite(fits.estimate.psi).all(axis=1), True
    if fits.weights is not None:
        whole_weights = np.all(fits.weights > 0, axis=0)
    complete = fitted & complete_columns(fits.y) & whole_weights
    known: dict[bytes, dict[str, np.ndarray]] = {}
    groups: dict[bytes, tuple[np.ndarray, dict[str, np.ndarray]]] = {b"": (complete, whole)}
    for k in np.flatnonzero(fitted & ~complete):
        at = np.flatnonzero(fits.kept[k])
        present = np.isfinite(fits.y[:, k]) & (True if fits.weights is None else fits.weights[:, k] > 0)
        key = np.packbits(present).tobytes() + at.tobytes()
        if key not in known:
            frame = take_columns(take_rows(fits.data.frame, present), at)
            own = {name: rows for name, rows in term_hypotheses(frame, kind)[1].items() if len(rows)}
            known[key] = {name: _spread(rows, at, fits.data.design.p) for name, rows in own.items()}
        own = known[key]
        if _same(own, whole):
            groups[b""][0][k] = True
            continue
        if key not in groups:
            groups[key] = (np.zeros(len(fitted), bool), own)
        groups[key][0][k] = True
    return [group for group in groups.values() if group[0].any()]


def _spread(rows: np.ndarray, at: np.ndarray, p: int) -> np.ndarray:
    out = np.zeros((len(rows), p))
    out[:, at] = rows
    return out


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return list(one) == list(other) and all(
        one[name].shape == other[name].shape and np.allclose(one[name], other[name], rtol=1e-10, atol=1e-12)
        for name in one
    )
