"""A response alone, and in batches with others of which some cannot be fitted."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from meta_models import Case
from meta_moves import Moved, move
from meta_reports import DDF, Report, report

import lmmjax as lj
from lmmjax.fitted import component_names

OWN = "y"
NAMES: set[str] = set()


@functools.lru_cache(maxsize=1)
def batch(case: Case, others: Callable[[pd.DataFrame], dict[str, np.ndarray]]) -> lj.BatchFit:
    """The response in the middle of others, each with its own missing values; the last one is kept."""
    names = list(made := others(case.data))
    middle = len(names) // 2
    columns = (
        {k: made[k] for k in names[:middle]}
        | {OWN: case.data["y"].to_numpy()}
        | {k: made[k] for k in names[middle:]}
    )
    responses = pd.DataFrame(columns, index=case.data.index)
    model = case.but(formula=case.formula.replace(OWN, "", 1)).model()
    with warnings.catch_warnings():
        # one warning counts those that cannot be fitted
        warnings.simplefilter("ignore", UserWarning)
        return model.fit_batch(responses, reml=case.reml)


def noise(data: pd.DataFrame, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    y = data["y"].fillna(data["y"].mean()).to_numpy()
    made = {f"n{k}": y + rng.normal(size=len(y)) for k in range(count)}
    made["n1"][[1, 2, 30]] = np.nan
    return made


def pathological(data: pd.DataFrame) -> dict[str, np.ndarray]:
    """Of nothing, of one value, not finite, that X explains, that groups explain, of other scales."""
    y, n = data["y"].fillna(0.0).to_numpy(), len(data)
    few = np.where(np.arange(n) < 3, y, np.nan)
    infinite = np.where(np.arange(n) == 7, np.inf, y)
    group = data["g"].astype("category").cat.codes.to_numpy()
    return {
        "nothing": np.full(n, np.nan),
        "constant": np.full(n, 3.25),
        "infinite": infinite,
        "few": few,
        "line": 1.0 + 2.0 * data["x"].to_numpy(dtype=float),
        "groups": np.sin(group.astype(float)),
        "tiny": 1e-140 * y,
        "huge": 1e140 * y,
    }


def tables(case: Case, fits: lj.BatchFit) -> pd.DataFrame:
    """What the batch itself reports of the response, in the terms of `report`."""
    out = Report()
    names, at = list(fits.params.columns), fits.names.get_loc(OWN)
    out.put("criterion", ["deviance"], fits.deviance[at], 1.0)
    out.put("beta", names, fits.params.loc[OWN])
    for ddf, short in DDF.items():
        tests = fits.t_tests(ddf)
        out.put(f"se {short}", names, tests["se"][at])
        out.put(f"df {short}", names, tests["df"][at])
    components = component_names(fits.fitted.data.components)
    limits = fits.conf_int(which="all").loc[OWN]
    out.put("sdcor", components, fits.sdcor.loc[OWN].to_numpy())
    for side in ("lower", "upper"):
        out.put(f"{side} of beta", names, [limits[name, side] for name in names])
        out.put(f"{side}, vcov", components, [limits[name, side] for name in components])
    out.put("shares", ["icc", "marginal", "conditional"], [fits.icc()[OWN], *fits.r2().loc[OWN]])
    for group in dict.fromkeys(term.group for term in fits.model.frame.random):
        modes = fits.random_effects(group).loc[OWN]
        out.put("modes", [f"{group}|{level}|{term}" for level, term in modes.index], modes.to_numpy())
    return out.table()


ASKED = (
    "criterion",
    "beta",
    "se satt",
    "se kr",
    "df satt",
    "df kr",
    "sdcor",
    "lower",
    "upper",
    "shares",
    "modes",
)


LOST = r"[FB], |df (satt|kr), F|sdcor: (var|cov)\("
"""What tables of batches do not have, or have by other names: variances of visits, not their roots."""


def in_batch(name: str, others: Callable, applies: Callable[[Case], bool] = lambda case: True) -> None:
    """Both ways to ask for a response of a batch."""

    def whole(case: Case) -> pd.DataFrame:
        return report(batch(case, others)[OWN], case)

    def listed(case: Case) -> pd.DataFrame:
        return tables(case, batch(case, others))

    NAMES.update((f"{name}: its fit", f"{name}: its rows of the tables"))
    move(f"{name}: its fit", applies)(lambda case: Moved(case, report=whole))
    move(f"{name}: its rows of the tables", applies)(
        lambda case: Moved(case, report=listed, only=ASKED, lost=LOST)
    )


def plain(case: Case) -> bool:
    return case.offset is None


in_batch("in a batch of 3", lambda data: noise(data, 2), plain)
in_batch("in a batch of 700", lambda data: noise(data, 699), plain)
in_batch("beside what cannot be fitted", pathological, plain)
