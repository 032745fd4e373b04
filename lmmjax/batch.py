"""Many responses with one design: chunks of lanes through the same `estimate`."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from lmmjax._types import Array
from lmmjax.estimate import Estimate, estimate
from lmmjax.optimize import Status
from lmmjax.problem import Problem, ProblemMaker, response_axes

CHUNK = 4096
"""Responses fitted by one call; fewer are padded to a power of two, so that sizes share programs."""


def estimate_many(maker: ProblemMaker, y: np.ndarray, reml: bool = True, max_iter: int = 100) -> Estimate:
    """Fit every response of y (T, n); arrays of the result lead with T.

    Responses with a missing or infinite value get `Status.NOT_FINITE` and missing results.
    """
    usable = np.isfinite(y).all(axis=1)
    clean = np.where(usable[:, None], y, 0.0)
    pieces = []
    with jax.enable_x64(True):
        for first in range(0, len(y), CHUNK):
            chunk = clean[first : first + CHUNK]
            size = min(CHUNK, 1 << max(len(chunk) - 1, 0).bit_length())
            padded = np.concatenate([chunk, np.repeat(chunk[:1], size - len(chunk), axis=0)])
            result = _lanes(maker(padded, reml), max_iter=max_iter)
            pieces.append(jax.tree.map(lambda a, k=len(chunk): np.asarray(a)[:k], result))
    return blank(jax.tree.map(lambda *arrays: np.concatenate(arrays), *pieces), usable)


def _mapped(problem: Problem, max_iter: int) -> Estimate:
    def one(problem: Problem) -> Estimate:
        return estimate(problem, max_iter=max_iter)

    return jax.vmap(one, in_axes=(response_axes(problem),))(problem)


_lanes = jax.jit(_mapped, static_argnames=("max_iter",))


def blank(result: Estimate, usable: np.ndarray) -> Estimate:
    """Missing values in the lanes (T,) that are not usable, and their status."""
    bad = ~usable | (result.status == Status.PERFECT_FIT) | (result.status == Status.NOT_FINITE)

    def mask(a: Array) -> Array:
        if not np.issubdtype(a.dtype, np.floating):
            return a
        return np.where(bad.reshape((-1,) + (1,) * (a.ndim - 1)), np.nan, a)

    masked = jax.tree.map(mask, result)
    status = np.where(usable, result.status, Status.NOT_FINITE)
    return dataclasses.replace(masked, status=status)
