"""Tables of variance components."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmjax.fitted import (
    Component,
    Fitted,
    ModelData,
    component_names,
    identified_psi,
    identified_sds,
    psi_errors,
    reported,
    sd_errors,
    sd_limits,
    sd_scale,
)


def varcorr(fitted: Fitted) -> pd.DataFrame:
    """`varcorr_table` of a fit, with `note_on_times`; what the data do not identify is missing."""
    data, estimate = fitted.data, fitted.estimate
    structure = data.design.structure
    table = varcorr_table(data.components, identified_psi(estimate), psi_errors(structure, estimate))
    own = identified_sds(structure, data.components, estimate)
    table["sdcor"] = np.where(_of_visits(data.components), table["sdcor"], own)
    note = note_on_times(data, estimate.psi)
    table.attrs.update({"note": note} if note else {})
    return table


def varcorr_table(rows: list[Component], psi: np.ndarray, se: np.ndarray) -> pd.DataFrame:
    """Columns group, term1, term2, vcov, sdcor, se, from ψ (m + 1,) and its standard errors.

    Variances and covariances between visits stand in vcov, their roots and correlations in sdcor. The
    standard error is that of vcov; of other parameters, which have no vcov, of the parameter in sdcor.
    """
    values, _ = sd_scale(psi, rows)
    visits = _of_visits(rows)
    other = np.array([row.kind == "parameter" for row in rows]) & ~visits
    places = {0: len(rows) - 1}
    for k in np.flatnonzero(visits):
        p = rows[k].parameter
        if p is not None and p.place is not None:
            places[p.place] = int(k)
    with np.errstate(invalid="ignore"):
        for k in np.flatnonzero(visits):
            if (p := rows[k].parameter) is not None:
                pair = [int(k)] if p.pair is None else [places[place] for place in p.pair]
                root = np.prod(np.sqrt(np.asarray(psi)[pair]))
                values[k] = root if p.pair is None else psi[k] / root
    return pd.DataFrame(
        {
            "group": [row.group for row in rows],
            "term1": pd.Series([row.term1 for row in rows], dtype=object),
            "term2": pd.Series([row.term2 for row in rows], dtype=object),
            "vcov": np.where(other, np.nan, psi),
            "sdcor": values,
            "se": se * reported(psi, rows)[1],
        }
    )


def _of_visits(rows: list[Component]) -> np.ndarray:
    """Which entries of ψ are variances of visits and covariances between them."""
    return np.array(
        [row.group == "Residual" and row.parameter is not None and row.parameter.power == 1.0 for row in rows]
    )


def note_on_times(data: ModelData, psi: np.ndarray) -> str:
    """What parameters in time belong to, where occasions are not one unit apart; else ""."""
    own = data.frame.residual
    if own is None or own.scale is None or own.scale.first is None or own.unit == 1.0:
        return ""
    clock, rows = own.scale.clocks[0], data.components
    days = " days" if clock.kind in ("date", "span") else ""
    rates = [k for k, row in enumerate(rows) if row.per_unit]
    note = f"occasions in {clock.name!r} are whole steps of {own.unit:.10g}{days}"
    for k in rates:
        distance = "one step" if psi[k] < 0.0 else f"distance 1{days.rstrip('s')}"
        note += f"; {rows[k].term1} is the correlation at {distance}"
    return note if rates else f"{note}, which parameters count"


def sd_intervals(fitted: Fitted, level: float) -> pd.DataFrame:
    """Wald limits of standard deviations, correlations and parameters, rows as `component_names`."""
    rows, estimate = fitted.data.components, fitted.estimate
    se = sd_errors(fitted.data.design.structure, rows, estimate)
    lower, upper = sd_limits(rows, estimate.psi, se, level)
    return pd.DataFrame({"lower": lower, "upper": upper}, index=component_names(rows))


def structure_name(fitted: Fitted) -> str:
    """The residual structure as written: AR1 × VarIdent, Unstructured by arm."""
    columns = fitted.data.frame.residual
    assert columns is not None
    residual = columns.residual
    return " × ".join(part.name + (f" by {part.by}" if part.by else "") for part in residual.parts)
