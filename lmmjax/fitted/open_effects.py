"""Fixed effects of fits that the data leave open: along a flat direction of the variances β̂ moves."""

from __future__ import annotations

import jax
import numpy as np

from lmmjax.batch import open_along
from lmmjax.fitted.kept import kept
from lmmjax.fitted.records import Fitted, FittedMany
from lmmjax.inference.open_directions import inward_moves
from lmmjax.inference.open_effects import Along, effects_along_jit, moving_between, moving_effects


@kept
def _along(fitted: Fitted) -> Along:
    estimate = fitted.estimate
    with jax.enable_x64(True):
        problem = fitted.data.problem(fitted.y, fitted.reml)
        steps = inward_moves(problem, estimate.psi, estimate.moves)
        return jax.tree.map(np.asarray, effects_along_jit(problem, estimate.psi, steps))


def open_effects(fitted: Fitted, rows: np.ndarray) -> np.ndarray:
    """Which of the contrasts rows (k, p) of β̂ move along directions that the data leave open: (k,).

    By REML, where a random effect may take the place of a fixed one at no cost.
    """
    if not (fitted.reml and np.any(fitted.estimate.moves)) or not len(rows):
        return np.zeros(len(rows), bool)
    return moving_effects(_along(fitted), rows)


def identified_effects(fitted: Fitted) -> np.ndarray:
    """β̂ (p,), NaN where the data leave it open."""
    return combined(fitted, np.eye(fitted.data.design.p))


def combined(fitted: Fitted, rows: np.ndarray) -> np.ndarray:
    """Contrasts (k,) of β̂, rows (k, p), NaN where they move."""
    return np.where(open_effects(fitted, rows), np.nan, rows @ np.asarray(fitted.estimate.beta))


def identified_population(fitted: Fitted) -> np.ndarray:
    """Xβ̂ + offset (n,), NaN where the data leave it open."""
    return np.where(open_effects(fitted, fitted.data.frame.x), np.nan, fitted.population)


@kept
def along_many(fits: FittedMany) -> dict[int, tuple[np.ndarray, Along]]:
    """Of the responses that leave directions open: their columns of X, and β̂ and Φ along these."""
    if not (fits.reml and np.any(fits.estimate.moves)):
        # responses that lie on a device stay there
        return {}
    return open_along(fits.data.maker, fits.y, fits.weights, fits.reml, fits.estimate)


def open_effects_many(fits: FittedMany, rows: np.ndarray | None = None) -> np.ndarray:
    """`open_effects` of the contrasts rows (k, p) of many responses, (T, k); by default every coefficient."""
    rows = np.eye(fits.data.design.p) if rows is None else rows
    out = np.zeros((len(fits.names), len(rows)), bool)
    for j, (at, along) in along_many(fits).items():
        out[j] = moving_effects(along, rows[:, at])
    return out


def covariances_many(fits: FittedMany, rows: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Φ (p, p) of responses that leave directions open, and which covariances (k, k) of contrasts move.

    With zeros for what a response does not have. Rows (k, p).
    """
    out, p = {}, fits.data.design.p
    for j, (at, along) in along_many(fits).items():
        phi = np.zeros((p, p))
        phi[np.ix_(at, at)] = along.phi
        out[j] = phi, moving_between(along, rows[:, at])
    return out


def identified_effects_many(fits: FittedMany) -> np.ndarray:
    """β̂ (T, p), NaN where the data leave it open."""
    return np.where(open_effects_many(fits), np.nan, fits.estimate.beta)
