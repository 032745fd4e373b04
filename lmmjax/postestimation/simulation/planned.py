"""Parameters that a user gives for simulation, by name: coefficients, standard deviations, correlations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmmjax.fitted import ModelData, component_names, require_known, sd_scale
from lmmjax.fitted.components import Component


def planned_beta(data: ModelData, start: np.ndarray, given: Mapping[str, Any] | None) -> np.ndarray:
    """β (p,) with some coefficients as given; ValueError names one that is unknown or no number."""
    beta, names = np.array(start, float), data.x_names
    for name, value in (given or {}).items():
        if name in data.frame.aliased:
            raise ValueError(f"{name!r} was dropped from the model for linear dependence: it has no effect")
        require_known("coefficient", [name], names)
        beta[names.index(name)] = number(name, value)
    return beta


def planned_psi(data: ModelData, start: np.ndarray | None, given: Mapping[str, Any] | None) -> np.ndarray:
    """ψ (m + 1,) with some standard deviations, correlations and parameters as given.

    Parameters
    ----------
    start : ψ for those that are not given; None: all are, but for correlations of random effects, which are
        then 0.
    given : by the names of `conf_int`, as `sd_(Intercept)|g`, `cor_x.(Intercept)|g`, `sigma`.

    Raises
    ------
    ValueError : names what is missing, unknown or out of range.
    """
    rows, given = data.components, dict(given or {})
    names = component_names(rows)
    require_known("standard deviation or correlation", given, names)
    values = np.full(len(rows), np.nan)
    if start is not None:
        values = sd_scale(np.asarray(start), rows)[0]
        if not given:
            return np.asarray(start)
    for k, (name, row) in enumerate(zip(names, rows, strict=True)):
        if name in given:
            values[k] = number(name, given[name])
        elif row.kind == "covariance" and np.isnan(values[k]):
            values[k] = 0.0
        elif row.kind == "sigma" and start is None and data.design.known is not None:
            values[k] = np.sqrt(data.design.known)
    if missing := [name for name, value in zip(names, values, strict=True) if np.isnan(value)]:
        listed = ", ".join(f"{name!r}: …" for name in missing)
        raise ValueError(f"no data to estimate variances from: pass sdcor={{{listed}}}")
    for name, row, value in zip(names, rows, values, strict=True):
        _require_range(name, row, value)
    psi = _of_sds(values, rows)
    for term, matrix in zip(data.frame.random, data.design.structure.absolute(psi), strict=True):
        least = np.linalg.eigvalsh(np.asarray(matrix))
        if least[0] < -1e-8 * max(least[-1], 0.0):
            raise ValueError(f"sdcor: the correlations of ({term.text}) are those of no covariance matrix")
    return psi


def number(name: str, value: Any) -> float:
    """A finite number, or ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise ValueError(f"the value of {name!r} must be a finite number, not {value!r:.40}")
    return float(value)


def _require_range(name: str, row: Component, value: float) -> None:
    p = row.parameter
    if row.kind == "sigma" and not value > 0:
        raise ValueError(f"{name!r} must be above 0, not {value:g}")
    if row.kind == "variance" and value < 0:
        raise ValueError(f"{name!r} is a standard deviation: at least 0, not {value:g}")
    if row.kind == "covariance" and abs(value) > 1:
        raise ValueError(f"{name!r} is a correlation: between -1 and 1, not {value:g}")
    if row.kind == "parameter" and p is not None:
        if p.kind in ("positive", "variance") and value < 0:
            raise ValueError(f"{name!r} must be at least 0, not {value:g}")
        if p.kind == "interval" and not p.lower <= value <= p.upper:
            raise ValueError(f"{name!r} must lie between {p.lower:g} and {p.upper:g}, not {value:g}")


def _of_sds(values: np.ndarray, rows: list[Component]) -> np.ndarray:
    """ψ (m + 1,) of standard deviations, correlations and parameters: the inverse of `sd_scale`."""
    sd = {(r.term, r.i): v for r, v in zip(rows, values, strict=True) if r.kind == "variance"}
    psi = np.empty(len(rows))
    for k, (row, value) in enumerate(zip(rows, values, strict=True)):
        if row.kind == "covariance":
            psi[k] = value * sd[row.term, row.i] * sd[row.term, row.j]
        elif row.kind == "parameter":
            psi[k] = value if row.parameter is None else row.parameter.from_reported(value, row.unit)
        else:
            psi[k] = value**2
    return psi
