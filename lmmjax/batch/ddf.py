"""Degrees of freedom of many responses.

With a shared design, F = XᵀV⁻¹X and log|V| depend on a response only through ψ̂, so that its products are not
needed: one problem, mapped over ψ̂ and its covariance. Responses with a design of their own need products of
their own.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array, namespace, sweep
from lmmjax.batch.estimate_many import FEW, own_problem
from lmmjax.batch.lanes import lane_count
from lmmjax.core import Problem, ProblemMaker, response_axes
from lmmjax.design import take_rows
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
) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom and standard errors (T, k) of single contrasts of every response.

    Parameters
    ----------
    y : (n, T) responses; a missing value leaves its row out.
    psi, cov : (T, m + 1) and (T, m + 1, m + 1), `psi` and `cov_relative` of an `Estimate`.
    rows : (k, p) contrasts L.
    method : "satterthwaite", "kenward-roger", or "kenward-roger-sas" with W and R of PROC MIXED.
    weights : (n, T) of the responses, as for `estimate_many`.

    Responses whose ψ is missing have missing results.
    """
    adjust = method != "satterthwaite"
    if adjust and not maker.design.structure.linear:
        maker = maker.tangents
    fitted = np.isfinite(psi).all(axis=1)
    whole = np.full(len(psi), weights is None) & ~np.isnan(y).any(axis=0)
    df, se = np.full((2, len(psi), len(rows)), np.nan)

    def run(chosen: np.ndarray, source: _Shared | _Own) -> None:
        which = np.flatnonzero(chosen)
        if not len(which):
            return
        shared = maker.prepared.shared
        apart = shared.sequential or (isinstance(source, _Own) and not shared.individual)
        few = len(which) <= source.few or apart
        function = _one_by_one if few else _mapped
        df[which], se[which] = function(method, source, which, psi[which], cov[which], rows)

    with jax.enable_x64(True), np.errstate(all="ignore"):
        # where σ² = 1 no power of it can over- or underflow
        sigma2, unscaled = psi[:, -1].copy(), psi
        psi = psi / sigma2[:, None] ** np.append(maker.design.structure.powers, 1.0)
        run(fitted & whole, _Shared(maker, reml))
        se *= np.sqrt(sigma2)[:, None]
        psi = unscaled
        run(fitted & ~whole, _Own(maker, y, weights, reml, adjust))
    return df, se


@dataclasses.dataclass(frozen=True)
class _Shared:
    """The design without a response: the same problem for all."""

    maker: ProblemMaker
    reml: bool
    few = FEW

    def one(self, _: int) -> Problem:
        return self.lanes(np.zeros(1, int))

    def lanes(self, _: np.ndarray) -> Problem:
        return self.maker(np.zeros(self.maker.design.n), self.reml)


class _Own:
    """Responses with designs of their own."""

    few = FEW // 8

    def __init__(
        self, maker: ProblemMaker, y: np.ndarray, weights: np.ndarray | None, reml: bool, tangents: bool
    ):
        self.tangents = tangents
        self.maker, self.y, self.weights, self.reml = maker, y, weights, reml
        self.made: tuple[bytes, ProblemMaker | None] = (b"", None)
        self.products: Any = None

    def _weights(self, which: Any) -> np.ndarray:
        y = self.y[:, which]
        return np.where(np.isnan(y), 0.0, 1.0 if self.weights is None else self.weights[:, which])

    def one(self, k: int) -> Problem:
        w = self._weights(k)
        key, maker = self.made
        if maker is None or key != w.tobytes():
            maker = ProblemMaker(take_rows(self.maker.design, w > 0, w), self.maker.backend)
            maker = maker.tangents if self.tangents else maker
            self.made = w.tobytes(), maker
        return maker(np.asarray(self.y[w > 0, k], float), self.reml)

    def lanes(self, which: np.ndarray) -> Problem:
        if self.products is None:
            from lmmjax.gram.grouped.own_weights import OwnWeights

            self.products = OwnWeights(self.maker.design, self.maker.basis)
        return own_problem(self.products, self.y[:, which], self._weights(which), self.reml)[0]


def _one_by_one(
    method: str,
    source: Any,
    which: np.ndarray,
    psi: np.ndarray,
    cov_psi: np.ndarray,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Results (T, k) by the programs of a single fit."""
    out, problem = [], None
    for k, own, cov in zip(which, psi, cov_psi, strict=True):
        if problem is None or not isinstance(source, _Shared):
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
    source: Any,
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


def _axes(problem: Problem) -> Problem:
    """Trailing axes of lanes: of all arrays but κ, of those of the response, or of none."""
    if problem.n.ndim:
        return dataclasses.replace(jax.tree.map(lambda _: -1, problem), reml=None)
    return response_axes(problem, -1 if problem.origin.scale.ndim else None)


@partial(jax.jit, static_argnums=4)
def _mapped_tests(
    problem: Problem, psi: Array, cov_psi: Array, rows: Array, method: str
) -> tuple[Array, Array]:
    """Tests over lanes, results (T, k); not unrolled, which gains nothing here."""

    def one(problem: Problem, psi: Array, cov_psi: Array, rows: Array) -> tuple[Array, Array]:
        at = natural(problem, psi, method != "satterthwaite", method == "kenward-roger-sas")
        inner = inward_covariance(problem, psi, cov_psi)
        return _tests(at, inner, rows, method)

    return jax.vmap(one, in_axes=(_axes(problem), -1, -1, None))(problem, psi, cov_psi, rows)


def _tests(at: Natural, cov_psi: Array, rows: Array, method: str) -> tuple[Array, Array]:
    """df and standard errors (k,)."""
    inner = rows @ at.outward
    _, cov_beta = sweep(at.xx)
    if method != "satterthwaite":
        adjusted = kenward_roger(at, None if method == "kenward-roger" else cov_psi)
        cov_beta, cov_psi = adjusted.cov_beta, adjusted.cov_psi
    variance = namespace(inner, cov_beta).sum((inner @ cov_beta) * inner, axis=1)
    return single_df(at, cov_psi, inner), variance**0.5
