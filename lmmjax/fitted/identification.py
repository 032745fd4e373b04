"""What the data do not identify, by name, and what is singular: the words that go with a fit."""

from __future__ import annotations

import warnings

import numpy as np

from lmmjax.arrays.caller import stack_level
from lmmjax.core import Estimate
from lmmjax.design import Structure
from lmmjax.fitted.components import Component, component_names, sd_scale
from lmmjax.fitted.kernel_bounds import batch_bounds, fit_bound, unbounded
from lmmjax.fitted.open_effects import identified_effects
from lmmjax.fitted.records import Fitted, FittedMany
from lmmjax.inference.open_directions import moving

DEPENDENT = 1e-9
"""Share of the length of a column of Z that those before it leave, below which it depends on them."""


class FitWarning(UserWarning):
    """A fit that is singular, unidentified or not converged; given once, by `Model.fit`."""


def unidentified(structure: Structure, rows: list[Component], estimate: Estimate) -> np.ndarray:
    """Which of the standard deviations, correlations and parameters (..., m + 1) the data do not identify.

    A correlation is identified where its covariance and variances move together.
    """
    out = np.array(estimate.unidentified)
    if not out.any():
        return out
    with np.errstate(divide="ignore", invalid="ignore"):
        _, jacobian = sd_scale(estimate.psi / structure.units(estimate.psi[..., -1:]), rows)
        parts = jacobian[..., :, :, None] * estimate.moves[..., None, :, :]
        change, size = parts.sum(axis=-2), np.abs(parts).sum(axis=-2)
        steady = np.isfinite(size) & ~moving(change, size)
    correlation = np.array([row.kind == "covariance" for row in rows])
    return np.where(correlation, ~steady.all(axis=-1), out)


def identified_sds(structure: Structure, rows: list[Component], estimate: Estimate) -> np.ndarray:
    """The values of `sd_scale` (..., m + 1) at an estimate, NaN where the data do not identify them."""
    values, _ = sd_scale(estimate.psi, rows)
    return np.where(unidentified(structure, rows, estimate), np.nan, values)


def identified_psi(estimate: Estimate) -> np.ndarray:
    """ψ̂ (..., m + 1), NaN where the data do not identify it."""
    return np.where(estimate.unidentified, np.nan, estimate.psi)


def unidentified_names(fitted: Fitted) -> list[str]:
    """Names, as in `conf_int`, of the parameters that the data do not identify."""
    rows = fitted.data.components
    flags = unidentified(fitted.data.design.structure, rows, fitted.estimate)
    names = [name for name, flag in zip(component_names(rows), flags, strict=True) if flag]
    # β̂ moves along open directions of ψ only
    moving = np.isnan(identified_effects(fitted)) if names else np.zeros(0, bool)
    return names + [name for name, flag in zip(fitted.data.x_names, moving, strict=False) if flag]


def not_identified(fitted: Fitted) -> str:
    """What the data do not identify, as a sentence; empty where they identify everything."""
    names = unidentified_names(fitted)
    if not names:
        return ""
    shown = names if len(names) <= 12 else [*names[:11], f"{len(names) - 11} others"]
    remedy = "".join(
        f"; the columns of ({text}) depend on each other: drop {', '.join(columns)}"
        for text, columns in dependent_columns(fitted)
    )
    rest = "all else stands"
    if np.isnan(fitted.estimate.cov_beta).any():
        rest = "as are standard errors of fixed effects that depend on them"
    return (
        f"not identified by these data: {', '.join(shown)} (other values fit equally well; their "
        f"estimates and standard errors are NaN, {rest}): simplify the covariance structure{remedy}"
    )


def dependent_columns(fitted: Fitted) -> list[tuple[str, list[str]]]:
    """Random terms, as text, with the names of columns that depend on those before them."""
    out = []
    for term in fitted.data.frame.random:
        size = np.linalg.norm(term.z, axis=0)
        r = np.abs(np.diagonal(np.linalg.qr(term.z / np.where(size > 0, size, 1.0), mode="r")))
        if names := [name for name, left in zip(term.names, r, strict=False) if left < DEPENDENT]:
            out.append((term.text, names))
    return out


SINGULAR = "boundary (singular) fit: a variance is estimated as 0 or a correlation as ±1"


def status(fitted: Fitted) -> str:
    """How the optimisation ended, what to do about it, and what the data do not identify."""
    return "; ".join(text for text in (fitted.status, not_identified(fitted)) if text)


def remarks(fitted: Fitted) -> list[str]:
    """What a reader of the fit has to know before its numbers: nothing for most fits."""
    out = [not_identified(fitted)] if np.any(fitted.estimate.moves) else []
    if bool(fitted.estimate.singular):
        far = not fitted.reml and fit_bound(fitted) == "upper"
        out.append(unbounded(1, 1) if far else SINGULAR)
    if not fitted.converged:
        out.append(f"not converged: {fitted.status}")
    return out


def announce_many(fits: FittedMany) -> None:
    """Warn, once, of responses whose likelihood may have no maximum."""
    count = 0 if fits.reml else int(np.sum(batch_bounds(fits) == "upper"))
    if count:
        warnings.warn(unbounded(count, len(fits.names)), FitWarning, stacklevel=stack_level())


def announce(fitted: Fitted) -> None:
    """Warn of what `remarks` has to say, in one warning."""
    if said := remarks(fitted):
        warnings.warn("; ".join(said), FitWarning, stacklevel=stack_level())
