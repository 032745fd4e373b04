"""One model by several optimisers from several starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import pandas as pd
import scipy.optimize as so

from lmmjax.arrays import quick_jit
from lmmjax.core import METHODS, Estimate, Problem, best_of, further_starts, profiled_deviance
from lmmjax.fitted import Fitted, component_names, identified_sds, require_known
from lmmjax.optimize import Status

FREE = {"nelder-mead": "Nelder-Mead", "powell": "Powell"}
"""Optimisers of scipy that need no derivative."""

MOST = 20
"""Parameters up to which they are of use."""

SCALES = {0.01: "near zero", 0.0: "zero", 10.0: "large"}
"""Relative variances to start from, by name."""

_criterion = quick_jit(profiled_deviance)


def all_fits(fitted: Fitted, methods: Iterable[str] | None) -> pd.DataFrame:
    """See `Fit.allfit`."""
    data = fitted.data
    known = [*METHODS, *FREE]
    m = data.design.structure.n_params
    usual = known if 0 < m <= MOST else list(METHODS)
    chosen = usual if methods is None else [methods] if isinstance(methods, str) else list(methods)
    require_known("method", chosen, known)
    with jax.enable_x64(True):
        problem = data.problem(fitted.y, fitted.reml)
        further = further_starts(data.maker.in_units(fitted.y), tuple(SCALES))
    starts = {"moments": np.full(m, np.nan)}
    others = len(further) - len(SCALES) if len(further) >= len(SCALES) else len(further)
    names = [f"other {k + 1}" for k in range(others)] + list(SCALES.values())
    starts |= dict(zip(names, further, strict=False))
    ends, rows = [], []
    for method in chosen:
        for name, start in starts.items():
            if method in METHODS:
                ends.append(best_of(problem, [start], method=method))
            elif name == "moments" and m:
                ends.append(_without_derivatives(problem, start, FREE[method]))
            else:
                continue
            rows.append((method, name))
    return _table(fitted, rows, ends)


def _without_derivatives(problem: Problem, start: np.ndarray, method: str) -> Estimate:
    """The end of a search by scipy from the moment start, looked at by the criterion's own derivatives."""
    at = best_of(problem, [start], max_iter=0)

    def criterion(theta: np.ndarray) -> float:
        with jax.enable_x64(True):
            value = float(_criterion(np.asarray(theta), problem))
        return value if np.isfinite(value) else np.inf

    options: dict[str, Any] = {"maxiter": 2000 * len(start), "maxfev": 2000 * len(start)}
    tolerances = {"xatol": 1e-7, "fatol": 1e-9} if method == "Nelder-Mead" else {"xtol": 1e-7, "ftol": 1e-11}
    found = so.minimize(criterion, at.theta, method=method, options=options | tolerances)
    return best_of(problem, [found.x], max_iter=0)


def _table(fitted: Fitted, rows: list[tuple[str, str]], ends: list[Estimate]) -> pd.DataFrame:
    data = fitted.data
    criteria = np.array([float(end.deviance) for end in ends])
    finite = criteria[np.isfinite(criteria)]
    # a search without derivatives ends beside an optimum, which is no failure of it
    status = [
        "searched" if method in FREE else Status(int(end.status)).name.lower()
        for (method, _), end in zip(rows, ends, strict=True)
    ]
    table = {
        "method": [method for method, _ in rows],
        "start": [name for _, name in rows],
        "status": status,
        "criterion": criteria,
        "above": criteria - (finite.min() if len(finite) else np.nan),
        "singular": [bool(end.singular) for end in ends],
        "n_iter": [int(end.n_iter) for end in ends],
    }
    values = np.array(
        [
            np.concatenate([end.beta, identified_sds(data.design.structure, data.components, end)])
            for end in ends
        ]
    )
    names = [*data.x_names, *component_names(data.components)]
    return pd.concat([pd.DataFrame(table), pd.DataFrame(values, columns=pd.Index(names))], axis=1)
