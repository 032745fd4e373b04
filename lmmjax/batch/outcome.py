"""What the fits of many responses gave: estimates, why some have none, how many optima there were."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from lmmjax.arrays import Array
from lmmjax.core import Estimate
from lmmjax.optimize import Status

INFINITE = "not finite: a value of the response is infinite, or too large to be squared"


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """Fits of T responses.

    Attributes
    ----------
    estimate : record of arrays that lead with T. Where a response does not determine all fixed effects, those
        that are left out are NaN.
    reasons : (T,) texts, why a response has no estimates; empty where it has.
    optima : (T,) how many different optima its descents ended at; starts : (T,) how many descents it had.
    """

    estimate: Estimate
    reasons: np.ndarray
    optima: np.ndarray
    starts: np.ndarray

    def put(self, where: np.ndarray, part: Outcome) -> None:
        """Replace the responses `where`."""
        for old, new in zip(jax.tree.leaves(self.estimate), jax.tree.leaves(part.estimate), strict=True):
            old[where] = new
        self.reasons[where], self.optima[where] = part.reasons, part.optima
        self.starts[where] = part.starts

    def some(self, where: np.ndarray) -> Outcome:
        """The outcome of some responses."""
        estimate = jax.tree.map(lambda a: a[where], self.estimate)
        return Outcome(estimate, self.reasons[where], self.optima[where], self.starts[where])

    def without(self, bad: np.ndarray, status: Status, reason: str) -> Outcome:
        """The same with missing values, a status and a reason for the responses `bad` (T,)."""
        if not bad.any():
            return self
        reasons = np.where(bad, reason, self.reasons).astype(object)
        estimate, optima = blank(self.estimate, bad, status), np.where(bad, 0, self.optima)
        return Outcome(estimate, reasons, optima, self.starts)

    def widened(self, kept: np.ndarray, p: int) -> Outcome:
        """The same with p fixed effects, of which these are those at positions `kept`."""
        if len(kept) == p:
            return self
        old, lanes = self.estimate, len(self.optima)
        beta, cov = np.full((lanes, p), np.nan), np.full((lanes, p, p), np.nan)
        beta[:, kept], cov[:, kept[:, None], kept] = old.beta, old.cov_beta
        return dataclasses.replace(self, estimate=dataclasses.replace(old, beta=beta, cov_beta=cov))


def outcome(estimate: Estimate, optima: np.ndarray, starts: int | np.ndarray = 1) -> Outcome:
    """Fits of which nothing else is to be said, after descents from `starts` points."""
    return Outcome(estimate, np.full(len(optima), "", object), optima, np.full(len(optima), starts))


def failed(lanes: int, p: int, m: int, reason: str) -> Outcome:
    """Responses that cannot be estimated, all for one reason."""
    none = np.zeros(lanes, int)
    return Outcome(not_estimable(lanes, p, m), np.full(lanes, reason, object), none, none.copy())


def not_estimable(lanes: int, p: int, m: int) -> Estimate:
    """Missing results of responses that cannot be estimated, with p fixed effects and m parameters."""

    def void(*shape: int) -> np.ndarray:
        return np.full((lanes, *shape), np.nan)

    return Estimate(
        theta=void(m),
        psi=void(m + 1),
        beta=void(p),
        sigma2=void(),
        cov_beta=void(p, p),
        cov_psi=void(m + 1, m + 1),
        cov_relative=void(m + 1, m + 1),
        deviance=void(),
        status=np.full(lanes, Status.NOT_ESTIMABLE, np.int32),
        grad_norm=void(),
        decrement=void(),
        n_iter=np.zeros(lanes, np.int32),
        singular=np.zeros(lanes, bool),
        moves=np.zeros((lanes, m + 1, m)),
    )


def blank(estimate: Estimate, bad: np.ndarray, status: Status) -> Estimate:
    """Missing values and a status in the lanes `bad` (T,); nothing is singular or unidentified there."""

    def mask(a: Array) -> Array:
        if not np.issubdtype(a.dtype, np.floating):
            return a
        return np.where(bad.reshape((-1,) + (1,) * (a.ndim - 1)), np.nan, a)

    masked = jax.tree.map(mask, estimate)
    return dataclasses.replace(
        masked,
        status=np.where(bad, int(status), estimate.status).astype(np.int32),
        singular=estimate.singular & ~bad,
        moves=np.where(bad[:, None, None], 0.0, estimate.moves),
    )
