"""Transformations of data that may not change an answer: to which models each applies, and what moves."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from meta_models import Case
from meta_reports import degree, fit_report

import lmmjax as lj


def unchanged(table: pd.DataFrame) -> pd.DataFrame:
    return table


@dataclasses.dataclass(frozen=True)
class Moved:
    """The case to fit; `back` puts what is reported in the terms of the first model.

    Only quantities that begin as one of `only` are compared, no row whose "quantity: label" has `lost` in it.
    `columns` says that X has other columns that span the same space: the REML criterion moves by the change
    of log|XᵀX|.
    """

    case: Case
    back: Callable[[pd.DataFrame], pd.DataFrame] = unchanged
    only: tuple[str, ...] | None = None
    lost: str | None = None
    columns: bool = False
    report: Callable[[Case], pd.DataFrame] = fit_report


@dataclasses.dataclass(frozen=True)
class Move:
    """`make` takes any case for which `applies` holds."""

    applies: Callable[[Case], bool]
    make: Callable[[Case], Moved]


MOVES: dict[str, Move] = {}


def move(name: str, applies: Callable[[Case], bool] = lambda case: True) -> Callable:
    """Put a function Case -> Moved into the registry."""

    def register(make: Callable[[Case], Moved]) -> Callable[[Case], Moved]:
        MOVES[name] = Move(applies, make)
        return make

    return register


def both(case: Case, change: Callable[[pd.DataFrame], pd.DataFrame], **changes: Any) -> Case:
    """The same change of data and of new rows."""
    return case.but(data=change(case.data), new=change(case.new), **changes)


def relabelled(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    keys = [(quantity, change(label)) for quantity, label in table.index]
    return table.set_axis(pd.MultiIndex.from_tuples(keys, names=table.index.names))


def shifted(table: pd.DataFrame, amount: float) -> pd.DataFrame:
    """With the criterion less an amount."""
    out = table.copy()
    out.loc[("criterion", "deviance"), "value"] -= amount
    return out


# --- rows and their order -----------------------------------------------------------------------------


@move("rows in another order")
def permuted(case: Case) -> Moved:
    """Residuals are made independent one after the other: in the order of time, or of the rows."""
    own = case.options.get("residual")
    ordered = "residuals" if isinstance(own, lj.CompoundSymmetry) else None
    return Moved(both(case, lambda d: d.sample(frac=1.0, random_state=4)), lost=ordered)


@move("index of labels, in no order")
def indexed(case: Case) -> Moved:
    rng = np.random.default_rng(3)
    return Moved(both(case, lambda d: d.set_axis(rng.permutation([f"S{9 * i}" for i in range(len(d))]))))


@move("index that repeats itself")
def repeated_index(case: Case) -> Moved:
    return Moved(both(case, lambda d: d.set_axis(np.zeros(len(d), int))))


@move("new rows one by one")
def one_by_one(case: Case) -> Moved:
    """And each beside a copy of the last."""

    def report(case: Case) -> pd.DataFrame:
        parts = [case.but(new=case.new.iloc[[i]]) for i in range(len(case.new))]
        whole = fit_report(case.but(new=case.new.iloc[::-1]))
        fit = case.model().fit(reml=case.reml)
        for part in parts:
            for name, options in (("all", {}), ("population", {"re": "none"})):
                own = fit.predict(part.new, new_levels="population", **options).iloc[0]
                whole.loc[(f"predicted, {name}", part.new["row"].iloc[0]), "value"] = own
        return whole

    return Moved(case, report=report)


# --- types --------------------------------------------------------------------------------------------


def typed(numbers: Callable[[pd.Series], Any], text: Callable[[pd.Series], Any] | None = None) -> Callable:
    """A change of the type of all numeric columns, and of all that are text."""

    def change(data: pd.DataFrame) -> pd.DataFrame:
        out = data.copy()
        for name in data:
            if data[name].dtype == object and text is not None and name != "row":
                out[name] = text(data[name])
            elif pd.api.types.is_numeric_dtype(data[name]) and not pd.api.types.is_bool_dtype(data[name]):
                out[name] = numbers(data[name])
        return out

    return change


def whole(values: pd.Series) -> bool:
    return pd.api.types.is_integer_dtype(values)


def decimals(values: pd.Series) -> list:
    return [None if pd.isna(v) else decimal.Decimal(str(v)) for v in values]


TYPES = {
    "single precision, 8 bits": typed(lambda v: v.astype("int8" if whole(v) else "float32")),
    "all doubles": typed(lambda v: v.astype("float64"), lambda v: v.astype("category")),
    "unsigned, and objects": typed(lambda v: v.astype("uint64" if whole(v) else object)),
    "nullable": typed(lambda v: v.astype("Int64" if whole(v) else "Float64"), lambda v: v.astype("string")),
    "pyarrow-backed": typed(
        lambda v: v.astype("int16[pyarrow]" if whole(v) else "double[pyarrow]"),
        lambda v: v.astype("string[pyarrow]"),
    ),
    "Decimal": typed(decimals),
}
for _name, _change in TYPES.items():
    move(f"type: {_name}")(lambda case, change=_change: Moved(both(case, change)))

CONTAINERS = {
    "polars": lambda frame: pl.DataFrame({name: frame[name].to_list() for name in frame}),
    "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "dict of arrays": lambda frame: {name: frame[name].to_numpy() for name in frame},
}
for _name, _container in CONTAINERS.items():
    move(f"frame: {_name}")(lambda case, make=_container: Moved(case.but(container=make)))


@move("a category of two for a bool", lambda case: case.uses("b"))
def two_categories(case: Case) -> Moved:
    def change(data: pd.DataFrame) -> pd.DataFrame:
        return data.assign(b=pd.Categorical(np.where(data["b"], "yes", "no"), ["no", "yes"]))

    def back(table: pd.DataFrame) -> pd.DataFrame:
        return relabelled(
            table,
            lambda s: s.replace("T.yes", "T.True").replace("[yes]", "[True]").replace("[no]", "[False]"),
        )

    return Moved(both(case, change), back)


# --- levels -------------------------------------------------------------------------------------------

GROUPINGS = ("g", "s", "h", "k")


def groups_named(case: Case, names: Callable[[list], list], values: Callable[[pd.Series], Any]) -> Moved:
    """New labels of all grouping factors; `values` gives the columns their type."""
    after = {name: {} for name in GROUPINGS}
    for name in GROUPINGS:
        old = sorted({*case.data[name], *case.new[name]})
        after[name] = dict(zip(old, names(old), strict=True))
    before = {name: {str(new): str(old) for old, new in after[name].items()} for name in GROUPINGS}

    def change(data: pd.DataFrame) -> pd.DataFrame:
        return data.assign(**{name: values(data[name].map(after[name])) for name in GROUPINGS})

    def label(text: str) -> str:
        group, _, rest = text.partition("|")
        level, _, term = rest.partition("|")
        # terms of one factor with several kernels are told apart by numbers
        parts, levels = re.sub(r"\[\d+\]", "", group).split(":"), level.split(":")
        if not term or not set(parts) <= set(GROUPINGS):
            return text
        found = ":".join(before[name][one] for name, one in zip(parts, levels, strict=True))
        return f"{group}|{found}|{term}"

    ids = case.ids
    if case.relatives in GROUPINGS and ids:
        # of those without rows too
        rest = [f"unseen {k}" if isinstance(names(["p00"])[0], str) else -k - 1 for k in range(len(ids))]
        spare = dict(zip(ids, rest, strict=True)) | after[case.relatives]
        ids = tuple(spare[one] for one in ids)
        before[case.relatives] |= {str(new): str(old) for old, new in spare.items()}
    return Moved(both(case, change, ids=ids), lambda table: relabelled(table, label))


@move("groups with other labels, in another order")
def other_labels(case: Case) -> Moved:
    return groups_named(
        case, lambda old: [f"{(7 * i) % 23:02d} of {len(old)}" for i in range(len(old))], lambda v: v
    )


@move("groups that are large numbers")
def numbered_groups(case: Case) -> Moved:
    return groups_named(
        case, lambda old: [2**53 + 1 - 3 * i for i in range(len(old))], lambda v: v.astype("int64")
    )


@move("categories in another order, some of them unused")
def categories(case: Case) -> Moved:
    """Of groups in any order; of factors of X with the levels that are there in theirs."""

    def change(data: pd.DataFrame) -> pd.DataFrame:
        out = data.copy()
        for name in GROUPINGS:
            levels = sorted({*case.data[name], *case.new[name]})
            out[name] = pd.Categorical(data[name], [*levels[::-1], *(["none"] if levels[0] != 1 else [-1])])
        out["f"] = pd.Categorical(data["f"], ["lo", "low", "mid", "up", "zero"])
        out["arm"] = pd.Categorical(data["arm"], ["0", "A", "B", "C"])
        return out

    return Moved(both(case, change))


@move(
    "kernels of all relatives nearer",
    lambda case: bool(case.kernels) and case.reml and "~ 0" not in case.formula,
)
def nearer(case: Case) -> Moved:
    """K + c 11ᵀ: by REML the intercept takes what all have in common."""
    apart = r"beta: Intercept|(se|df|F).*: Intercept"
    return Moved(
        case.but(common=0.7), only=("criterion", "beta", "se", "df", "F", "vcov", "sdcor"), lost=apart
    )


# --- units and origins --------------------------------------------------------------------------------


@move("units of y")
def units_of_y(case: Case, unit: float = 1e3) -> Moved:
    def change(data: pd.DataFrame) -> pd.DataFrame:
        out = data.copy()
        if "y" in data:
            out["y"] = unit * data["y"]
        known = not case.uses("v")
        return out.assign(
            v=data["v"] * (unit**2 if known else unit),
            **({} if case.offset is None else {"w": data["w"] * unit}),
        )

    def back(table: pd.DataFrame) -> pd.DataFrame:
        out = table.copy()
        out["value"] = table["value"] / unit ** table["y"].to_numpy(dtype=float)
        count = int(table.loc[("flags", "nobs"), "value"]) - case.reml * rank(case)
        return shifted(out, 2 * count * np.log(unit))

    return Moved(both(case, change), back)


def rank(case: Case) -> int:
    return case.model().design.p


@move("origin of y", lambda case: "~ 0" not in case.formula)
def origin_of_y(case: Case, origin: float = 4096.0) -> Moved:
    def back(table: pd.DataFrame) -> pd.DataFrame:
        at = [q.startswith(("fitted", "predicted")) for q in table.index.get_level_values(0)]
        at |= np.array(
            [
                q in ("beta", "lower of beta", "upper of beta") and name == "Intercept"
                for q, name in table.index
            ]
        )
        return table.assign(value=table["value"] - origin * np.asarray(at))

    return Moved(case.but(data=case.data.assign(y=case.data["y"] + origin)), back)


@move("units of covariates", lambda case: bool(case.covariates))
def units_of_covariates(case: Case, unit: float = 1024.0) -> Moved:
    def change(data: pd.DataFrame) -> pd.DataFrame:
        return data.assign(**{name: data[name] * (unit if k % 2 == 0 else 1 / unit) for k, name in listed})

    listed = list(enumerate(sorted(case.covariates)))

    def back(table: pd.DataFrame) -> pd.DataFrame:
        """A coefficient is divided by the unit; log|XᵀV⁻¹X| grows by two logarithms of it."""
        power = sum(degree(table, name) * (1 if k % 2 == 0 else -1) for k, name in listed)
        columns = table.loc["beta"]
        moved = sum(degree(columns, name).sum() * (1 if k % 2 == 0 else -1) for k, name in listed)
        return shifted(table.assign(value=table["value"] * unit**power), 2 * case.reml * moved * np.log(unit))

    return Moved(both(case, change), back)


@move("origins of covariates", lambda case: bool(case.origins))
def origins_of_covariates(case: Case, origin: float = 100.0) -> Moved:
    """Coefficients of other columns stay; intercepts are those at the old origin."""
    names = sorted(case.origins)

    def change(data: pd.DataFrame) -> pd.DataFrame:
        return data.assign(**{name: data[name] + origin for name in names})

    def back(table: pd.DataFrame) -> pd.DataFrame:
        out = table.copy()
        for quantity, label in table.index:
            if quantity == "beta" and label == "Intercept":
                out.loc[(quantity, label), "value"] += origin * sum(
                    table.loc[("beta", n), "value"] for n in names
                )
            if quantity == "modes" and label.endswith("|(Intercept)"):
                slopes = [(quantity, label.replace("(Intercept)", name)) for name in names]
                found = [table.loc[s, "value"] for s in slopes if s in table.index]
                out.loc[(quantity, label), "value"] += origin * sum(found)
        return out

    inner = any(re.search(rf"\({name} \|", case.formula) for name in names)
    random = r"|(vcov|sdcor): .*\(Intercept\)" if inner else ""
    return Moved(both(case, change), back, lost=rf"(se|df|lower|upper).*: Intercept{random}")


# --- time ---------------------------------------------------------------------------------------------


def retimed(case: Case, change: Callable[[pd.Series], Any], unit: float = 1.0) -> Moved:
    """Times of residuals in another way and column; `unit` of the new ones are one of the old."""
    name = case.time

    def moved(data: pd.DataFrame) -> pd.DataFrame:
        return data.assign(time=change(data[name]))

    def back(table: pd.DataFrame) -> pd.DataFrame:
        """Correlations at distance 1 are those at the old distance 1 to the power 1/unit."""
        out = table.copy()
        for quantity, label in table.index:
            if label == "Phi" and unit != 1.0:
                value = table.loc[(quantity, label), "value"]
                phi = table.loc[("sdcor", "Phi"), "value"]
                slope = unit * phi ** (unit - 1.0)
                out.loc[(quantity, label), "value"] = (
                    value * slope if quantity.startswith("se") else value**unit
                )
        return out

    return Moved(both(case, moved, time="time"), back)


def timed(case: Case) -> bool:
    return case.time is not None


EPOCH = datetime.datetime(2024, 2, 26)


@move("units of time", timed)
def units_of_time(case: Case) -> Moved:
    return retimed(case, lambda t: 3600 * t, 3600.0)


@move("origin of time", timed)
def origin_of_time(case: Case) -> Moved:
    return retimed(case, lambda t: t + 1_700_000_000)


@move("time as dates", timed)
def dates(case: Case) -> Moved:
    return retimed(case, lambda t: pd.Timestamp(EPOCH) + pd.to_timedelta(t, unit="D"))


@move("time as objects of datetime", timed)
def date_objects(case: Case) -> Moved:
    return retimed(
        case,
        lambda t: pd.Series([EPOCH + datetime.timedelta(days=float(v)) for v in t], t.index, dtype=object),
    )


@move("time as ordered categories", lambda case: case.time == "t")
def occasions(case: Case) -> Moved:
    labels = [f"visit {k}" for k in range(12)]
    return retimed(case, lambda t: pd.Categorical([labels[v] for v in t], labels, ordered=True))


@move("units of places", lambda case: getattr(case.residual, "columns", ()) == ("lon", "lat"))
def units_of_places(case: Case) -> Moved:
    def back(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(
            value=table["value"] / np.where(table.index.get_level_values(1) == "range", 1e3, 1.0)
        )

    return Moved(both(case, lambda d: d.assign(lon=1e3 * d["lon"] - 7, lat=1e3 * d["lat"])), back)


# --- weights and columns ------------------------------------------------------------------------------


@move("all prior weights times 7", lambda case: "KnownVariance" not in repr(case.residual))
def sevenfold(case: Case) -> Moved:
    """σ² is per unit of weight."""

    def back(table: pd.DataFrame) -> pd.DataFrame:
        own = own_scale(table)
        return table.assign(value=table["value"] / np.sqrt(7.0) ** (own * table["y"].to_numpy(dtype=float)))

    return Moved(
        both(case, lambda d: d.assign(w7=7 * (1.0 if case.weights is None else d["w"])), weights="w7"), back
    )


def own_scale(table: pd.DataFrame) -> np.ndarray:
    """Which rows are of the residuals' components."""
    quantities = table.index.get_level_values(0).str.contains("vcov|sdcor")
    return quantities & ~table.index.get_level_values(1).str.contains("|", regex=False)


@move("a column of X that depends on others", lambda case: case.uses("x"))
def aliased(case: Case) -> Moved:
    columns = f" + I(3 * x{' - 2' if '~ 0' not in case.formula else ''})"
    at = case.formula.find(" + (")
    at = len(case.formula) if at < 0 else at
    return Moved(case.but(formula=case.formula[:at] + columns + case.formula[at:]))
