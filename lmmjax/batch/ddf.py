"""Degrees of freedom and F tests of many responses.

With a shared design, F = XᵀV⁻¹X and log|V| depend on a response only through ψ̂, so that its products are not
needed: one problem, mapped over ψ̂ and its covariance. Responses with a design of their own need products of
their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array, namespace, quick_jit, sweep
from lmmjax.arrays.sparse_columns import Columns, complete_columns
from lmmjax.batch.device import placed
from lmmjax.batch.lanes import lane_count
from lmmjax.batch.least_squares import is_linear, own_least_squares
from lmmjax.batch.sources import OwnDesigns, SharedDesign, Source, is_apart, mapped_axes
from lmmjax.core import Problem, ProblemMaker
from lmmjax.core.far.fit import can_turn, far_variances
from lmmjax.core.far.turn import Turn, own_at, shared_turns, turn_of
from lmmjax.inference.ddf import kenward_roger, kenward_roger_joint, satterthwaite_joint, single_df
from lmmjax.inference.natural import (
    Natural,
    at_estimate_jit,
    inward_covariance,
    natural,
    natural_bent_jit,
    natural_jit,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Responses:
    """T responses and their estimates, of which something is to be tested.

    Attributes
    ----------
    maker : of problems of the design.
    y : (n, T) responses; a missing value leaves its row out.
    psi, cov : (T, m + 1) and (T, m + 1, m + 1), `psi` and `cov_relative` of an `Estimate`.
    reml : whether they were fitted by REML.
    weights : (n, T) of the responses, as for `estimate_many`.
    kept : (T, p) fixed effects that each has; None for all.
    """

    maker: ProblemMaker
    y: Columns
    psi: np.ndarray
    cov: np.ndarray
    reml: bool
    weights: np.ndarray | None = None
    kept: np.ndarray | None = None

    def with_columns(self, at: np.ndarray) -> Responses:
        """The same with the columns of X at some positions, which all that are asked for have."""
        return dataclasses.replace(self, maker=self.maker.with_columns(at), kept=None)


def single_tests(of: Responses, rows: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom and standard errors (T, k) of single contrasts of every response.

    Parameters
    ----------
    rows : (k, p) contrasts L.
    method : "satterthwaite", "kenward-roger", or "kenward-roger-sas" with W and R of PROC MIXED.

    Responses whose ψ is missing have missing results.
    """
    df, se = np.full((2, len(of.psi), len(rows)), np.nan)
    fitted, kept = np.asarray(np.isfinite(of.psi).all(axis=1)), of.kept
    alike = [np.ones(of.maker.design.p, bool)]
    alike = alike if kept is None or kept.all() else list(np.unique(kept[fitted], axis=0))
    for columns in alike:
        one = len(alike) == 1 or kept is None
        those = fitted if one else np.asarray(fitted & np.all(kept == columns, axis=1))
        part = of.with_columns(np.flatnonzero(columns))
        for at, unit, (own_df, own_se), _ in _over(_tests, part, those, rows[:, columns], method):
            df[at], se[at] = own_df, own_se * unit[:, None]
    return df, se


def joint_tests(
    of: Responses,
    those: np.ndarray,
    rows: np.ndarray,
    difference: np.ndarray,
    sets: Sequence[np.ndarray],
    method: str,
) -> tuple[np.ndarray, np.ndarray]:
    """F and its denominator degrees of freedom (T, h) of h sets of contrasts of the responses `those` (T,).

    Parameters
    ----------
    of : responses of which all of `those` have all columns of X.
    rows, method : as in `single_tests`; difference : (T, k) Lβ̂ − rhs.
    sets : positions of the rows of L, independent ones, that are tested together.
    """
    f, den_df = np.full((2, len(of.psi), len(sets)), np.nan)
    for at, unit, own in covariances(of, those, rows, method):
        apart = difference[at] / unit[:, None]
        for j, used in enumerate(sets):
            block = np.ix_(used, used)
            one, moved = own.phi[:, *block], own.adjusted[:, *block]
            there = np.isfinite(one).all(axis=(1, 2)) & np.isfinite(moved).all(axis=(1, 2))
            one, slope = one[there], own.slopes[there][:, :, *block]
            w, off = own.cov_psi[there], apart[there][:, used]
            if method == "satterthwaite":
                test = satterthwaite_joint(one, slope, w, off)
            else:
                test = kenward_roger_joint(one, slope, w, moved[there], off)
            f[at[there], j], den_df[at[there], j] = test.f, test.den_df
    return f, den_df


@dataclasses.dataclass(frozen=True, eq=False)
class Covariances:
    """Of k contrasts of t responses, with what tests are made of; ψ in internal coordinates.

    Attributes
    ----------
    phi, adjusted : (t, k, k) LΦLᵀ, and with the covariance that the method adjusts.
    slopes : (t, m + 1, k, k) LΦP_iΦLᵀ, less the derivatives of LΦLᵀ in ψ.
    cov_psi : (t, m + 1, m + 1) A or W.
    sigma2 : (t,) the last element of ψ.
    outward : (m + 1, m + 1) takes ψ in these coordinates, relative to σ², to that of the design.
    """

    phi: np.ndarray
    slopes: np.ndarray
    cov_psi: np.ndarray
    adjusted: np.ndarray
    sigma2: np.ndarray
    outward: np.ndarray


def covariances(
    of: Responses, those: np.ndarray, rows: np.ndarray, method: str
) -> Iterator[tuple[np.ndarray, np.ndarray, Covariances]]:
    """Yields positions of some of the responses `those` (T,), units (t,) of their errors, and covariances.

    Parameters are those of `joint_tests`.
    """
    for at, unit, own, outward in _over(_products, of, those, rows, method):
        yield at, unit, Covariances(*own, outward=outward)


def _over(
    wanted: Callable[..., tuple[Array, ...]], of: Responses, those: np.ndarray, rows: np.ndarray, method: str
) -> Iterator[Part]:
    """Yields positions of some of the responses `those` (T,), units, what is `wanted`, and `outward`.

    Standard errors are in these units (t,): where σ² = 1 no power of it can over- or underflow. Those whose
    variances are far are in coordinates of their own.
    """
    maker, psi, adjust, place = of.maker, of.psi, method != "satterthwaite", placed()
    if is_linear(maker):
        yield from _linear(wanted, of, those, rows)
        return
    maker = _tangent(maker, adjust)
    whole = np.full(len(psi), of.weights is None) & complete_columns(of.y)
    with np.errstate(all="ignore"):
        unit = np.sqrt(psi[:, -1])
        relative = psi / maker.design.structure.units(psi[:, -1:])
    far = those & can_turn(maker.design)
    far[far] = far_variances(maker.design, psi[far])
    apart = OwnDesigns(maker, of.y, of.weights, of.reml, adjust)
    for turn, which in _turns(maker, apart, relative, far & whole, far & ~whole):
        inside, cov = turn.inside(relative[which], of.cov[which])
        source, ways = SharedDesign(_tangent(turn.maker, adjust), of.reml), (_one_by_one, _mapped)
        pieces = ways[len(which) > source.few](
            wanted, method, source, np.arange(len(which)), inside, cov, rows @ turn.x
        )
        outward = turn.outward @ _outward(turn.maker)
        for at, found in _in_x64(pieces):
            yield which[at], unit[which[at]], found, outward
    outward = _outward(maker)
    for chosen, source, at, own in (
        (those & whole & ~far, SharedDesign(maker, of.reml), relative, unit),
        (those & ~whole & ~far, apart, psi, np.ones(len(psi))),
    ):
        which = np.flatnonzero(chosen)
        if not len(which):
            continue
        # on devices every launch of a single fit is waited for
        least = source.few if place is None else min(source.few, place.few)
        few = len(which) <= least or is_apart(source)
        pieces = (_one_by_one if few else _mapped)(wanted, method, source, which, at, of.cov, rows)
        for piece in _in_x64(pieces):
            yield piece[0], own[piece[0]], piece[1], outward


def _turns(
    maker: ProblemMaker, apart: OwnDesigns, psi: np.ndarray, whole: np.ndarray, others: np.ndarray
) -> Iterator[tuple[Turn, np.ndarray]]:
    """Coordinates for responses whose variances are far, and positions of those that they are for.

    Parameters
    ----------
    psi : (T, m + 1) relative to σ².
    whole : (T,) those of the design; others : (T,) those of designs of their own, which go one by one.
    """
    yield from shared_turns(maker, {int(k): own_at(maker, psi[k]) for k in np.flatnonzero(whole)})
    for k in np.flatnonzero(others):
        own = apart.maker_of(int(k))
        yield turn_of(own, own_at(own, psi[k])), np.array([k])


def _tangent(maker: ProblemMaker, adjust: bool) -> ProblemMaker:
    return maker.tangents if adjust and not maker.design.structure.linear else maker


def _outward(maker: ProblemMaker) -> np.ndarray:
    """The matrix (m + 1, m + 1) that takes ψ, relative to σ², from internal coordinates."""
    structure = maker.design.structure
    out = np.eye(structure.n_params + 1)
    out[:-1, :-1] = np.asarray(structure.entry_map(maker.basis.outward))
    return out


def _in_x64(pieces: Found) -> Found:
    """What a generator yields, in double precision: settings of the thread, which hold for it only."""
    while True:
        with jax.enable_x64(True), np.errstate(all="ignore"):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


def _linear(
    wanted: Callable[..., tuple[Array, ...]], of: Responses, those: np.ndarray, rows: np.ndarray
) -> Iterator[Part]:
    """`_over` for models of fixed effects and σ², where every method is exact: df = 2σ̂⁴/Var(σ̂²) = n − p."""
    whole = np.full(len(of.psi), of.weights is None) & complete_columns(of.y)
    for chosen, shared in ((those & whole, True), (those & ~whole, False)):
        which = np.flatnonzero(chosen)
        if not len(which):
            continue
        if shared:
            half = rows @ np.linalg.inv(np.asarray(of.maker.basis.x_factor))
            phi = np.broadcast_to(half @ half.T, (len(which), len(rows), len(rows)))
        else:
            weights = None if of.weights is None else of.weights[:, which]
            phi = own_least_squares(of.maker, np.asarray(of.y[:, which], float), weights).products(rows)
        with np.errstate(all="ignore"):
            unit, spread = np.sqrt(of.psi[which, -1]), of.cov[which, -1, -1]
            if wanted is _tests:
                variance = np.diagonal(phi, axis1=1, axis2=2)
                found = np.broadcast_to(2.0 / spread[:, None], variance.shape), np.sqrt(variance)
            else:
                found = phi, -phi[:, None], spread[:, None, None], phi, np.ones(len(which))
        yield which, unit, found, np.eye(1)


Found = Iterator[tuple[np.ndarray, tuple[np.ndarray, ...]]]
Part = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...], np.ndarray]


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
        results = _mapped_lanes(problem, *lanes, rows, method=method, wanted=wanted)
        yield part, tuple(np.asarray(a)[: len(part)] for a in results)


@partial(quick_jit, short=0, plays=False, static_argnames=("method", "wanted"))
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


def _products(at: Natural, cov_psi: Array, rows: Array, method: str) -> tuple[Array, ...]:
    """The parts of `Covariances` of one response."""
    inner = rows @ at.outward
    moved = inner @ sweep(at.xx)[1]
    cov_beta, cov_psi = _covariance(at, cov_psi, method)
    slopes = moved[None] @ at.first @ moved.T[None]
    return moved @ inner.T, slopes, cov_psi, inner @ cov_beta @ inner.T, at.sigma2


def _covariance(at: Natural, cov_psi: Array, method: str) -> tuple[Array, Array]:
    """Covariances of β̂ and of ψ̂ that a method uses."""
    if method == "satterthwaite":
        return sweep(at.xx)[1], cov_psi
    adjusted = kenward_roger(at, None if method == "kenward-roger" else cov_psi)
    return adjusted.cov_beta, adjusted.cov_psi
