"""Everything that a fit reports as one long table, with the units of every number; how near is the same."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from meta_models import Case

import lmmjax as lj
from lmmjax.fitted import component_names

DIGITS = {"criterion": 1e-7, "df": 1e-4, "F": 1e-4}
OTHERWISE = 1e-5
"""How far two certified ends may be apart, in units of `scale`: a decrement of 1e-9 is 3e-5 standard errors,
and the last Newton step squares it. Degrees of freedom are of higher derivatives."""

DDF = {"satterthwaite": "satt", "kenward-roger": "kr"}


class Report:
    """Rows (quantity, label): value, scale of tolerance, power of the units of y, coefficients it is of."""

    def __init__(self) -> None:
        self.rows: list[tuple] = []

    def put(
        self, quantity: str, labels: Any, values: Any, scale: Any = None, y: Any = 0.0, of: Any = None
    ) -> None:
        labels, values = [str(label) for label in labels], np.atleast_1d(np.asarray(values, dtype=float))
        scale = np.abs(values) if scale is None else np.broadcast_to(scale, values.shape)
        powers = np.broadcast_to(y, values.shape)
        of = [()] * len(labels) if of is None else of
        self.rows += [
            ((quantity, label), *row) for label, *row in zip(labels, values, scale, powers, of, strict=True)
        ]

    def table(self) -> pd.DataFrame:
        keys, *columns = zip(*self.rows, strict=True)
        index = pd.MultiIndex.from_tuples(keys, names=["quantity", "label"])
        assert index.is_unique, index[index.duplicated()].tolist()
        return pd.DataFrame(dict(zip(("value", "scale", "y", "of"), columns, strict=True)), index=index)


def degree(table: pd.DataFrame, name: str) -> np.ndarray:
    """How often a covariate divides a number: x twice in the variance of its coefficients."""
    return np.array([sum(term.split(":").count(name) for term in of) for of in table["of"]])


def fit_report(case: Case) -> pd.DataFrame:
    """Of the model fitted alone."""
    return report(case.model().fit(reml=case.reml), case)


def report(fit: lj.Fit, case: Case) -> pd.DataFrame:
    """All that is reported of a fit; labels of rows are those of the column `row`."""
    out = Report()
    sigma = np.sqrt(fit.estimate.psi[-1]) if fit.model.design.known is None else 1.0
    out.put("criterion", ["deviance"], fit.deviance, 1.0)
    out.put("flags", ["n_params", "nobs", "converged", "singular"], flags(fit), 1.0)
    fixed(out, fit)
    components(out, fit)
    for group, frame in fit.random_effects.items():
        names = [f"{group}|{level}|{term}" for level in frame.index for term in frame.columns]
        of = [(str(term),) for _ in frame.index for term in frame.columns]
        spread = np.tile(np.maximum(frame.abs().mean().to_numpy(), 1e-6), len(frame))
        out.put("modes", names, frame.to_numpy().ravel(), spread, 1.0, of)
    kept = case.data["row"][case.data[case.response].notna()]
    out.put("fitted", kept, fit.fittedvalues, sigma, 1.0)
    out.put("residuals", kept, fit.normalized_resid, 1.0)
    predictions(out, fit, case, sigma)
    shares = fit.r2()
    out.put("shares", ["icc", *shares.index], [fit.icc(), *shares], 1.0)
    return out.table()


def flags(fit: lj.Fit) -> list[float]:
    return [fit.n_params, fit.nobs, float(fit.converged), float(fit.is_singular)]


def fixed(out: Report, fit: lj.Fit) -> None:
    names = list(fit.params.index)
    of = [(name,) for name in names]
    out.put("beta", names, fit.params, fit.bse, 1.0, of)
    for ddf, short in DDF.items():
        table = fit.coef_table(ddf)
        out.put(f"se {short}", names, table["se"], None, 1.0, of)
        out.put(f"df {short}", names, table["df"])
        tests = fit.anova(ddf=ddf)
        out.put(f"F {short}", tests.index, tests["F"], 1 + tests["F"].abs())
        out.put(f"df {short}, F", tests.index, tests["den_df"])
    limits = fit.conf_int().loc[names]
    for side in ("lower", "upper"):
        out.put(f"{side} of beta", names, limits[side], fit.bse, 1.0, of)


def components(out: Report, fit: lj.Fit) -> None:
    """Variance components as in `varcorr`, and their intervals."""
    rows = fit.fitted.data.components
    known = fit.model.design.known is not None
    table, names = fit.varcorr(), component_names(rows)
    limits = fit.conf_int(which="all").loc[names]
    for k, (row, name) in enumerate(zip(rows, names, strict=True)):
        p = row.parameter
        visits = row.group == "Residual" and p is not None and p.power == 1.0
        power = 2.0 * (1.0 if row.kind != "parameter" else p.power) * (not (known and row.kind == "sigma"))
        of = (
            tuple(term for term in (row.term1, row.term2 or row.term1) if term)
            if row.kind != "parameter"
            else ()
        )
        root = {"covariance": 0.0, "parameter": float(p.pair is None) if visits else power}.get(
            row.kind, power / 2
        )
        half = {"covariance": (), "parameter": ()}.get(row.kind, of[:1])
        value, sdcor, se = table.loc[k, ["vcov", "sdcor", "se"]]
        size = np.nanmax([abs(value), 0.0 if np.isnan(se) else se, 1e-8])
        out.put("vcov", [name], value, size, power, [of])
        out.put("sdcor", [name], sdcor, max(abs(sdcor), 1e-4), root, [half])
        out.put("se of vcov", [name], se, None, power, [of])
        for side in ("lower", "upper"):
            limit = limits.loc[name, side]
            # limits of a variance near zero are ratios of small numbers
            out.put(f"{side}, vcov", [name], limit, max(abs(limit), 1e-2), power if visits else root, [half])


def predictions(out: Report, fit: lj.Fit, case: Case, sigma: float) -> None:
    labels, new = case.new["row"], case.container(case.new)
    for name, options in (("all", {}), ("population", {"re": "none"}), ("kriging", {"kriging": True})):
        if case.kriging or name != "kriging":
            values = fit.predict(new, new_levels="population", **options)
            out.put(f"predicted, {name}", labels, values, sigma, 1.0)


def without(table: pd.DataFrame, only: tuple[str, ...] | None, lost: str | None) -> pd.DataFrame:
    """Rows of quantities that begin as one of `only`, none whose "quantity: label" has the pattern `lost`."""
    keep = np.ones(len(table), bool)
    for k, (quantity, label) in enumerate(table.index):
        keep[k] = only is None or quantity.startswith(only)
        keep[k] &= lost is None or not re.search(lost, f"{quantity}: {label}")
    return table[keep]


def assert_same(got: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same labels, at the same values."""
    assert len(expected)
    missing = set(expected.index) ^ set(got.index)
    assert not missing, f"in one of both only: {sorted(missing)[:6]}"
    got = got.loc[expected.index]
    a, b = got["value"].to_numpy(), expected["value"].to_numpy()
    digits = np.array([digits_of(q) for q in expected.index.get_level_values(0)])
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b) / np.maximum(expected["scale"].to_numpy(), 1e-12)
        apart = np.where(a == b, 0.0, apart) / digits
    apart[np.isnan(a) & np.isnan(b)] = 0.0
    apart = np.where(np.isnan(apart), np.inf, apart)
    worst = np.argsort(-apart)[:6]
    lines = [
        f"{expected.index[i]}: {b[i]:.10g} became {a[i]:.10g} ({apart[i]:.3g} tolerances)" for i in worst
    ]
    assert apart.max() <= 1.0, "\n".join(lines)


def digits_of(quantity: str) -> float:
    return DIGITS.get(quantity.split(" ")[0], OTHERWISE)
