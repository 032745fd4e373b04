"""Degrees of freedom of many responses.

With a shared design, F = XᵀV⁻¹X and log|V| depend on a response only through ψ̂, so that its products are not
needed: one problem, mapped over ψ̂ and its covariance. Responses with a design of their own need products of
their own.
"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from lmmjax.arrays import Array, namespace, sweep
from lmmjax.batch.lanes import lane_count
from lmmjax.batch.sources import OwnDesigns, SharedDesign, Source, is_apart, mapped_axes
from lmmjax.core import Problem, ProblemMaker
from lmmjax.inference.ddf import kenward_roger, single_df
from lmmjax.inference.natural import (
    Natural,
    at_estimate_jit,
    inward_covariance,
    natural,
    natural_bent_jit,
    natural_jit,
)


def single_tests(
    maker: ProblemMaker,
    y: np.ndarray,
    psi: np.ndarray,
    cov: np.ndarray,
    rows: np.ndarray,
    *,
    reml: bool,
    method: str,
    weights: np.ndarray | None = None,
    kept: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom and standard errors (T, k) of single contrasts of every response.

    Parameters
    ----------
    y : (n, T) responses; a missing value leaves its row out.
    psi, cov : (T, m + 1) and (T, m + 1, m + 1), `psi` and `cov_relative` of an `Estimate`.
    rows : (k, p) contrasts L.
    method : "satterthwaite", "kenward-roger", or "kenward-roger-sas" with W and R of PROC MIXED.
    weights : (n, T) of the responses, as for `estimate_many`.
    kept : (T, p) fixed effects that each has; None for all.

    Responses whose ψ is missing have missing results.
    """
    df, se = np.full((2, len(psi), len(rows)), np.nan)
    fitted = np.asarray(np.isfinite(psi).all(axis=1))
    alike = [np.ones(maker.design.p, bool)] if kept is None or kept.all() else np.unique(kept[fitted], axis=0)
    for columns in alike:
        those = fitted if len(alike) == 1 else np.asarray(fitted & np.all(kept == columns, axis=1))
        part, l = maker.with_columns(np.flatnonzero(columns)), rows[:, columns]
        found = _tests_of(part, those, y, psi, cov, l, reml=reml, method=method, weights=weights)
        df[those], se[those] = (a[those] for a in found)
    return df, se


def _tests_of(
    maker: ProblemMaker,
    those: np.ndarray,
    y: np.ndarray,
    psi: np.ndarray,
    cov: np.ndarray,
    rows: np.ndarray,
    *,
    reml: bool,
    method: str,
    weights: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """`single_tests` of the responses `those` (T,), which have the same fixed effects."""
    adjust = method != "satterthwaite"
    if adjust and not maker.design.structure.linear:
        maker = maker.tangents
    whole = np.full(len(psi), weights is None) & ~np.isnan(y).any(axis=0)
    df, se = np.full((2, len(psi), len(rows)), np.nan)

    def run(chosen: np.ndarray, source: Source) -> None:
        which = np.flatnonzero(chosen)
        if not len(which):
            return
        few = len(which) <= source.few or is_apart(source)
        function = _one_by_one if few else _mapped
        df[which], se[which] = function(method, source, which, psi[which], cov[which], rows)

    with jax.enable_x64(True), np.errstate(all="ignore"):
        # where σ² = 1 no power of it can over- or underflow
        sigma2, unscaled = psi[:, -1].copy(), psi
        psi = psi / sigma2[:, None] ** np.append(maker.design.structure.powers, 1.0)
        run(those & whole, SharedDesign(maker, reml))
        se *= np.sqrt(sigma2)[:, None]
        psi = unscaled
        run(those & ~whole, OwnDesigns(maker, y, weights, reml, adjust))
    return df, se


def _one_by_one(
    method: str,
    source: Source,
    which: np.ndarray,
    psi: np.ndarray,
    cov_psi: np.ndarray,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Results (T, k) by the programs of a single fit."""
    out, problem = [], None
    for k, own, cov in zip(which, psi, cov_psi, strict=True):
        if problem is None or not isinstance(source, SharedDesign):
            problem = source.one(int(k))
        bent = not problem.structure.linear
        if bent and method == "kenward-roger":
            at, inner = natural_jit(problem, own), cov
        else:
            at, inner = at_estimate_jit(problem, own, cov)
        if bent and method == "kenward-roger-sas":
            at = natural_bent_jit(problem, own)
        at, inner = jax.tree.map(np.asarray, (at, inner))
        out.append(_tests(at, inner, rows, method))
    df, se = zip(*out, strict=True)
    return np.stack(df), np.stack(se)


def _mapped(
    method: str,
    source: Source,
    which: np.ndarray,
    psi: np.ndarray,
    cov_psi: np.ndarray,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Results (T, k) by blocks of lanes; the last is padded, so that all share a program."""
    shared = source.maker.prepared.shared
    size = lane_count(shared.vector, len(which))
    out = []
    for first in range(0, len(which), size):
        part = np.arange(first, min(first + size, len(which)))
        padded = np.resize(part, size)
        problem = source.lanes(which[padded])
        lanes = np.moveaxis(psi[padded], 0, -1), np.moveaxis(cov_psi[padded], 0, -1)
        results = _mapped_tests(problem, *lanes, rows, method)
        out.append([np.asarray(a)[: len(part)] for a in results])
    df, se = (np.concatenate(pieces) for pieces in zip(*out, strict=True))
    return df, se


@partial(jax.jit, static_argnums=4)
def _mapped_tests(
    problem: Problem, psi: Array, cov_psi: Array, rows: Array, method: str
) -> tuple[Array, Array]:
    """Tests over lanes, results (T, k); not unrolled, which gains nothing here."""

    def one(problem: Problem, psi: Array, cov_psi: Array, rows: Array) -> tuple[Array, Array]:
        at = natural(problem, psi, method != "satterthwaite", method == "kenward-roger-sas")
        inner = inward_covariance(problem, psi, cov_psi)
        return _tests(at, inner, rows, method)

    return jax.vmap(one, in_axes=(mapped_axes(problem), -1, -1, None))(problem, psi, cov_psi, rows)


def _tests(at: Natural, cov_psi: Array, rows: Array, method: str) -> tuple[Array, Array]:
    """df and standard errors (k,)."""
    inner = rows @ at.outward
    _, cov_beta = sweep(at.xx)
    if method != "satterthwaite":
        adjusted = kenward_roger(at, None if method == "kenward-roger" else cov_psi)
        cov_beta, cov_psi = adjusted.cov_beta, adjusted.cov_psi
    variance = namespace(inner, cov_beta).sum((inner @ cov_beta) * inner, axis=1)
    return single_df(at, cov_psi, inner), variance**0.5
