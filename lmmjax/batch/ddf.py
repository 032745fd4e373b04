"""Degrees of freedom and F tests of many responses.

With a shared design, F = XᵀV⁻¹X and log|V| depend on a response only through ψ̂, so that its products are not
needed: one problem, mapped over ψ̂ and its covariance. Responses with a design of their own need products of
their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array, namespace, sweep
from lmmjax.batch.lanes import lane_count
from lmmjax.batch.sources import OwnDesigns, SharedDesign, Source, is_apart, mapped_axes
from lmmjax.core import Problem, ProblemMaker
from lmmjax.inference.ddf import kenward_roger, kenward_roger_joint, satterthwaite_joint, single_df
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
        found = _over(_tests, part, those, y, psi, cov, l, reml=reml, method=method, weights=weights)
        for at, unit, (own_df, own_se) in found:
            df[at], se[at] = own_df, own_se * unit[:, None]
    return df, se


def joint_tests(
    maker: ProblemMaker,
    those: np.ndarray,
    y: np.ndarray,
    psi: np.ndarray,
    cov: np.ndarray,
    rows: np.ndarray,
    difference: np.ndarray,
    sets: Sequence[np.ndarray],
    *,
    reml: bool,
    method: str,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """F and its denominator degrees of freedom (T, h) of h sets of contrasts of the responses `those` (T,).

    Parameters
    ----------
    y, psi, cov, rows, method, weights : as in `single_tests`; all of `those` have all columns of X.
    difference : (T, k) Lβ̂ − rhs.
    sets : positions of the rows of L, independent ones, that are tested together.
    """
    f, den_df = np.full((2, len(psi), len(sets)), np.nan)
    found = _over(_products, maker, those, y, psi, cov, rows, reml=reml, method=method, weights=weights)
    for at, unit, (phi, slopes, cov_psi, adjusted) in found:
        apart = difference[at] / unit[:, None]
        for j, used in enumerate(sets):
            block = np.ix_(used, used)
            one, moved = phi[:, *block], adjusted[:, *block]
            there = np.isfinite(one).all(axis=(1, 2)) & np.isfinite(moved).all(axis=(1, 2))
            one, slope = one[there], slopes[there][:, :, *block]
            w, off = cov_psi[there], apart[there][:, used]
            if method == "satterthwaite":
                test = satterthwaite_joint(one, slope, w, off)
            else:
                test = kenward_roger_joint(one, slope, w, moved[there], off)
            f[at[there], j], den_df[at[there], j] = test.f, test.den_df
    return f, den_df


def covariances(
    maker: ProblemMaker,
    those: np.ndarray,
    y: np.ndarray,
    psi: np.ndarray,
    cov: np.ndarray,
    rows: np.ndarray,
    *,
    reml: bool,
    method: str,
    weights: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields positions of some of the responses `those`, and covariances (t, k, k) of their contrasts.

    Parameters are those of `joint_tests`.
    """
    found = _over(_products, maker, those, y, psi, cov, rows, reml=reml, method=method, weights=weights)
    for at, unit, (_, _, _, adjusted) in found:
        yield at, adjusted * unit[:, None, None] ** 2


def _over(
    wanted: Callable[..., tuple[Array, ...]],
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
) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]]:
    """Yields positions of some of the responses `those` (T,), their units, and what is `wanted` of them.

    Standard errors are in these units (t,): where σ² = 1 no power of it can over- or underflow.
    """
    adjust = method != "satterthwaite"
    if adjust and not maker.design.structure.linear:
        maker = maker.tangents
    whole = np.full(len(psi), weights is None) & ~np.isnan(y).any(axis=0)
    with np.errstate(all="ignore"):
        unit = np.sqrt(psi[:, -1])
        relative = psi / psi[:, -1:] ** np.append(maker.design.structure.powers, 1.0)
    for chosen, source, at, own in (
        (those & whole, SharedDesign(maker, reml), relative, unit),
        (those & ~whole, OwnDesigns(maker, y, weights, reml, adjust), psi, np.ones(len(psi))),
    ):
        which = np.flatnonzero(chosen)
        if not len(which):
            continue
        few = len(which) <= source.few or is_apart(source)
        pieces = (_one_by_one if few else _mapped)(wanted, method, source, which, at, cov, rows)
        while True:
            # settings of the thread, which hold for this generator only
            with jax.enable_x64(True), np.errstate(all="ignore"):
                piece = next(pieces, None)
            if piece is None:
                break
            yield piece[0], own[piece[0]], piece[1]


Found = Iterator[tuple[np.ndarray, tuple[np.ndarray, ...]]]


def _one_by_one(
    wanted: Callable[..., tuple[Array, ...]],
    method: str,
    source: Source,
    which: np.ndarray,
    psi: np.ndarray,
    cov_psi: np.ndarray,
    rows: np.ndarray,
) -> Found:
    """Yields results by the programs of a single fit."""
    problem = None
    for k in which:
        if problem is None or not isinstance(source, SharedDesign):
            problem = source.one(int(k))
        bent = not problem.structure.linear
        if bent and method == "kenward-roger":
            at, inner = natural_jit(problem, psi[k]), cov_psi[k]
        else:
            at, inner = at_estimate_jit(problem, psi[k], cov_psi[k])
        if bent and method == "kenward-roger-sas":
            at = natural_bent_jit(problem, psi[k])
        at, inner = jax.tree.map(np.asarray, (at, inner))
        yield np.array([k]), tuple(a[None] for a in wanted(at, inner, rows, method))


def _mapped(
    wanted: Callable[..., tuple[Array, ...]],
    method: str,
    source: Source,
    which: np.ndarray,
    psi: np.ndarray,
    cov_psi: np.ndarray,
    rows: np.ndarray,
) -> Found:
    """Yields results of blocks of lanes; the last is padded, so that all share a program."""
    shared = source.maker.prepared.shared
    size = lane_count(shared.vector, len(which))
    for first in range(0, len(which), size):
        part = which[first : first + size]
        padded = np.resize(part, size)
        problem = source.lanes(padded)
        lanes = np.moveaxis(psi[padded], 0, -1), np.moveaxis(cov_psi[padded], 0, -1)
        results = _mapped_lanes(problem, *lanes, rows, method, wanted)
        yield part, tuple(np.asarray(a)[: len(part)] for a in results)


@partial(jax.jit, static_argnums=(4, 5))
def _mapped_lanes(
    problem: Problem, psi: Array, cov_psi: Array, rows: Array, method: str, wanted: Any
) -> tuple[Array, ...]:
    """What is `wanted` over lanes, results (T, ...); not unrolled, which gains nothing here."""

    def one(problem: Problem, psi: Array, cov_psi: Array, rows: Array) -> tuple[Array, ...]:
        at = natural(problem, psi, method != "satterthwaite", method == "kenward-roger-sas")
        inner = inward_covariance(problem, psi, cov_psi)
        return wanted(at, inner, rows, method)

    return jax.vmap(one, in_axes=(mapped_axes(problem), -1, -1, None))(problem, psi, cov_psi, rows)


def _tests(at: Natural, cov_psi: Array, rows: Array, method: str) -> tuple[Array, Array]:
    """df and standard errors (k,)."""
    inner = rows @ at.outward
    cov_beta, cov_psi = _covariance(at, cov_psi, method)
    variance = namespace(inner, cov_beta).sum((inner @ cov_beta) * inner, axis=1)
    return single_df(at, cov_psi, inner), variance**0.5


def _products(at: Natural, cov_psi: Array, rows: Array, method: str) -> tuple[Array, Array, Array, Array]:
    """LΦLᵀ (k, k), LΦP_iΦLᵀ (m + 1, k, k), A or W, and LΦ_ALᵀ: what F tests of contrasts are made of."""
    inner = rows @ at.outward
    moved = inner @ sweep(at.xx)[1]
    cov_beta, cov_psi = _covariance(at, cov_psi, method)
    return moved @ inner.T, moved[None] @ at.first @ moved.T[None], cov_psi, inner @ cov_beta @ inner.T


def _covariance(at: Natural, cov_psi: Array, method: str) -> tuple[Array, Array]:
    """Covariances of β̂ and of ψ̂ that a method uses."""
    if method == "satterthwaite":
        return sweep(at.xx)[1], cov_psi
    adjusted = kenward_roger(at, None if method == "kenward-roger" else cov_psi)
    return adjusted.cov_beta, adjusted.cov_psi
