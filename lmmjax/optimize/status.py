"""How a minimisation ended, and what to do about it."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
from jax.core import Tracer


class Status(enum.IntEnum):
    """Outcome of a fit; `Status(code).advice` says what it means and what to change."""

    CONVERGED = 0
    RUNNING = 1
    ITERATION_LIMIT = 2
    STALLED = 3
    NOT_FINITE = 4
    PERFECT_FIT = 5
    NOT_ESTIMABLE = 6
    LOCAL = 7
    FLAT = 8
    TOO_FEW_DIGITS = 9

    @property
    def advice(self) -> str:
        """What happened and what to do, in one sentence."""
        return _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "converged: gradient and Newton decrement are below tolerance at the reported point",
    Status.RUNNING: "still running",
    Status.ITERATION_LIMIT: "the iteration limit was reached before convergence: raise max_iter, or simplify "
    "the random effects",
    Status.STALLED: "no step decreases the criterion although its gradient is not zero: rescale extreme "
    "covariates, or compute in float64",
    Status.NOT_FINITE: "the criterion is not finite at the starting point: check the response for missing or "
    "infinite values, and for values beyond 1e150 or below 1e-150",
    Status.PERFECT_FIT: "the model fits the response perfectly (it is constant, or linear in X and Z): "
    "there is no residual variation to estimate",
    Status.NOT_ESTIMABLE: "too little is left of the response: its values do not determine the fixed "
    "effects, or fall into fewer than two groups",
    Status.LOCAL: "a local optimum: from another start the criterion fell below it without converging, "
    "towards the edge of the parameter space or without a bound: simplify the covariance structure",
    Status.FLAT: "the criterion has no slope and, along some direction, no curvature at the reported point: "
    "start elsewhere, or drop what the criterion does not depend on",
    Status.TOO_FEW_DIGITS: "variances differ by so many powers of ten, or residuals of a group depend on "
    "each other so nearly, that rounding hides where the criterion is lowest: let a fixed or random effect "
    "stand for what hardly varies within groups, or simplify the residual structure",
}


def advice(codes: Any) -> str | np.ndarray:
    """What `Status` codes mean and what to do: a sentence, or an array of them in the shape of the codes."""
    if isinstance(codes, Tracer):
        raise ValueError("the status is traced: ask for its advice outside of jit and vmap")
    codes = np.asarray(codes)
    said = np.array([Status(int(code)).advice for code in codes.ravel()], dtype=object).reshape(codes.shape)
    return said if codes.ndim else said.item()
