"""Scans of models without a kernel, or with terms beside one, from the records of their fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lmmjax.batch import estimate_many
from lmmjax.batch.added_columns import fit_added
from lmmjax.core import Estimate, ProblemMaker
from lmmjax.fitted import Fitted, FittedMany, by_criterion, require_choice
from lmmjax.fitted.mean_variance import by_mean
from lmmjax.inference.scan.candidates import Candidates
from lmmjax.inference.scan.general import DDF, GeneralScan, NullFits, Values
from lmmjax.postestimation.alike import alike
from lmmjax.scan.evaluate import How

NUMBERS = 1 << 22
"""Numbers of the columns of pairs that are refitted at a time."""

Own = tuple[np.ndarray, np.ndarray, np.ndarray]
"""ψ, `cov_relative` and the criterion of responses."""


def general_scans(
    fits: Fitted | FittedMany, ddf: str | None
) -> Iterator[tuple[np.ndarray, GeneralScan, np.ndarray | None]]:
    """Yields places (t,) of responses that share a design, their scan, and their rows if not all."""
    method = "satterthwaite" if ddf in (None, "satt") else ddf
    require_choice("ddf", method, DDF)
    if isinstance(fits, Fitted):
        yield (
            np.zeros(1, int),
            _scan(fits.data.maker, fits.y[:, None], _of(fits.estimate, None), fits, method),
            None,
        )
        return
    for group in alike(fits):
        at = group.which
        y = fits.y[np.ix_(group.rows, at)]
        rows = None if group.rows.all() else np.flatnonzero(group.rows)
        yield at, _scan(group.data.maker, y, _of(fits.estimate, at), fits, method), rows


def _of(e: Estimate, at: Any) -> Own:
    return np.asarray(e.psi)[at], np.asarray(e.cov_relative)[at], np.asarray(e.deviance)[at]


def _scan(
    maker: ProblemMaker,
    y: np.ndarray,
    own: Own,
    fits: Fitted | FittedMany,
    method: str,
) -> GeneralScan:
    null = NullFits(maker, y, *own, fits.reml)

    def by_ml() -> NullFits:
        if isinstance(fits, Fitted):
            return NullFits(maker, y, *_of(by_criterion(fits, False).estimate, None), False)
        return NullFits(maker, y, *_of(estimate_many(maker, y, False).estimate, slice(None)), False)

    def refit(maker: ProblemMaker, y: np.ndarray, g: np.ndarray, reml: bool) -> Estimate:
        return fit_added(maker, y, g, reml).estimate

    return GeneralScan(null, by_ml, refit, method)


def require_refits(fits: Fitted | FittedMany) -> None:
    """ValueError for models that candidates cannot be added to and refitted."""
    if by_mean(fits.data):
        raise ValueError(
            'ratio="refit": the residual variance depends on the fitted values, which a marker changes; '
            'scan with ratio="null", and add the markers that matter to the formula'
        )


def marker_values(
    scan: GeneralScan, g: np.ndarray, codes: np.ndarray, carriers: np.ndarray, rows: Any, how: How
) -> list[Values]:
    """Statistics (M, t) of every column of markers g (N, M) of the individuals `codes` (n,)."""
    found = Candidates(g, codes, carriers)
    found = found if rows is None else found.on(rows)
    tests = {"lrt": how.wants("lrt"), "score": how.wants("score")}
    out = scan.at_null(found, **tests)
    if how.ratio == "refit":
        marker, response = (a.ravel() for a in np.indices(out[0]["effect"].shape))
        again = refitted_pairs(scan, found, marker, response, how)
        for values, own in zip(out, again, strict=True):
            values.update({name: value.reshape(values[name].shape) for name, value in own.items()})
    return out


def refitted_pairs(
    scan: GeneralScan, found: Candidates, marker: np.ndarray, response: np.ndarray, how: How
) -> list[Values]:
    """What exact fits of pairs (Q,) of candidates and responses say of every column."""
    size, out = max(1, NUMBERS // found.carriers.size), []
    for first in range(0, len(marker), size):
        at = slice(first, first + size)
        out.append(scan.refitted(found.some(marker[at]).rows, response[at], how.wants("lrt")))
    return [
        {name: np.concatenate([one[j][name] for one in out]) for name in own} for j, own in enumerate(out[0])
    ]


def own_values(scan: GeneralScan, g: np.ndarray, carriers: np.ndarray, rows: Any, how: How) -> list[Values]:
    """Statistics (1, t) of every column of covariates g (n, t), one for each response."""
    g = _filled(g if rows is None else g[rows])
    carriers = carriers if rows is None else carriers[rows]
    columns = carriers[:, :, None] * g[:, None]
    tests = {"lrt": how.wants("lrt"), "score": how.wants("score")}
    out = scan.own_at_null(columns, **tests)
    if how.ratio == "refit":
        size = max(1, NUMBERS // carriers.size)
        for first in range(0, g.shape[1], size):
            at = np.arange(first, min(first + size, g.shape[1]))
            pairs = scan.refitted(columns[:, :, at], at, tests["lrt"])
            for values, own in zip(out, pairs, strict=True):
                for name, value in own.items():
                    values[name][0, at] = value
    return out


def _filled(g: np.ndarray) -> np.ndarray:
    """Columns (n, t) with their means in the place of missing values."""
    missing = np.isnan(g)
    if not missing.any():
        return g
    count = np.maximum(len(g) - missing.sum(axis=0), 1)
    return np.where(missing, np.where(missing, 0.0, g).sum(axis=0) / count, g)
