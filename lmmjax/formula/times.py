"""Columns of times: what a distance between two rows is, and the lattice on which occasions lie.

Numbers, dates, spans and periods count by value: dates that are midnights of one time zone by its days,
others with a zone by the time that has passed. Ordered categories count by position, levels that do not occur
included. Text and unordered categories count by the number in their labels ("V6", "V10"); where that says
nothing of an order they are refused. What the fit made of a column is kept, so that new rows are read alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.columns import require_finite

NOISE = 1e-6
"""Distance from the lattice, in steps, that counts as rounding."""

SNAP = 1e-4
"""The same for new rows, whose numbers may have fewer digits."""

LONGEST = 10**5
"""Steps between typical neighbours from which fractional times are no lattice."""

_DAY = np.timedelta64(1, "D")
_AWARE = "date with a time zone"
_ISO = re.compile(r"\d{4}-\d{2}(-\d{2})?")
_ONE_NUMBER = re.compile(r"(\D*)(\d+)(\D*)")


@dataclass(frozen=True, eq=False)
class Clock:
    """How a column is read as times (n,): ticks since the earliest row of the fit, int64 where that is exact.

    Attributes
    ----------
    kind : "number", "date", "date with a time zone", "span", "period" or "category".
    origin : the earliest value, in the column's own type; of periods their number.
    per_unit : ticks of one unit: of a day, for dates and spans; 1 for others.
    labels : of categories, the time of each label; unit : the length of a tick, of a period.
    zone : the time zone whose days are counted; None where what counts is the time that has passed.
    """

    name: str
    kind: str
    origin: Any
    per_unit: float = 1.0
    labels: dict[str, float] | None = None
    unit: str = ""
    zone: Any = None

    def ticks(self, column: pd.Series) -> np.ndarray:
        """Times of other rows; ValueError if they are of another kind or have an unknown label."""
        if self.labels is not None:
            texts = _texts(_plain(column))
            unknown = list(dict.fromkeys(t for t in texts if t not in self.labels))
            if unknown:
                raise ValueError(
                    f"column {self.name!r} has times that the model was not fitted with: "
                    f"{', '.join(unknown[:8])}; drop those rows"
                )
            return _whole(np.array([self.labels[t] for t in texts]))
        kind, values, unit = _values(column, self.name, self.zone)
        if kind != self.kind or (kind == "period" and unit != self.unit):
            here, there = (
                f"period {u}" if k == "period" else k for k, u in ((kind, unit), (self.kind, self.unit))
            )
            raise ValueError(f"column {self.name!r} was a {there} in the fit and is a {here} here")
        return self.since(values)

    def since(self, values: np.ndarray) -> np.ndarray:
        """Values in the column's own type as ticks."""
        if values.dtype.kind not in "mM":
            return _difference(values, self.origin)
        difference, tick = values - self.origin, np.timedelta64(1, self.unit)
        if np.datetime_data(difference.dtype)[0] == self.unit:
            return difference.astype(np.int64)
        return _whole(difference / tick)


@dataclass(frozen=True, eq=False)
class TimeScale:
    """How the fit read its times or coordinates.

    `step` is one internal unit: in ticks where occasions lie on a lattice, `first` (G,) being the first of
    each group, and else in the units of the columns.
    """

    clocks: tuple[Clock, ...]
    step: float
    first: np.ndarray | None = None

    @property
    def unit(self) -> float:
        """One internal unit in the units of the columns, days for dates."""
        return self.step if self.first is None else self.step / self.clocks[0].per_unit

    def place(self, columns: Sequence[pd.Series], codes: np.ndarray) -> np.ndarray:
        """Places of other rows in groups `codes`, integers on the lattice; 0 where codes < 0."""
        ticks = [clock.ticks(column) for clock, column in zip(self.clocks, columns, strict=True)]
        if self.first is None:
            return points(ticks, self.clocks) / self.step
        place = np.where(codes < 0, 0.0, (ticks[0] - self.first[codes]) / self.step)
        whole = np.round(place)
        return whole.astype(np.int64) if np.all(np.abs(place - whole) <= SNAP) else place


def points(ticks: Sequence[np.ndarray], clocks: Sequence[Clock]) -> np.ndarray:
    """Coordinates (n,) or (n, k) in the units of the columns, days for dates."""
    columns = [t / clock.per_unit for t, clock in zip(ticks, clocks, strict=True)]
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def read_times(column: pd.Series, name: str, index: pd.Index) -> tuple[np.ndarray, Clock]:
    """Times (n,) in ticks since the earliest, and the clock that read them.

    Raises ValueError for text or categories whose order or distances are not known.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        if column.cat.ordered:
            labels = _positions(column.cat.categories, name)
            clock = Clock(name, "category", 0, labels=labels)
            return clock.ticks(column), clock
        column = _plain(column)
    zone = _days_of(column, name)
    kind, values, unit = _values(column, name, zone)
    if kind == "text":
        labels = _label_times(list(dict.fromkeys(_texts(values))), name)
        clock = Clock(name, "category", 0, labels=labels)
        return clock.ticks(column), clock
    if kind == "number" and values.dtype.kind == "f":
        require_finite(values, f"column {name!r}", index)
    origin = values.min()
    per_unit = float(_DAY / np.timedelta64(1, unit)) if values.dtype.kind in "mM" else 1.0
    clock = Clock(name, kind, origin, per_unit, unit=unit, zone=zone)
    return clock.since(values), clock


def on_lattice(
    times: np.ndarray, codes: np.ndarray, clock: Clock, family: str
) -> tuple[np.ndarray, float, np.ndarray]:
    """Occasions (n,) since the first of the group, the step in ticks, and the groups' first times (G,).

    The step is the greatest common divisor of all differences within groups. Times with rounding errors
    have one up to these; ValueError if fractional times have none.
    """
    first = np.full(int(codes.max()) + 1, times.max(), times.dtype)
    np.minimum.at(first, codes, times)
    since = times - first[codes]
    if since.dtype.kind == "f" and np.all(since == np.round(since)) and since.max() < 2.0**53:
        since = since.astype(np.int64)
    if since.dtype.kind != "f":
        step = int(np.gcd.reduce(np.unique(since))) or 1
        place = since // step
    else:
        step = _common_step(np.unique(since), np.abs(times).max(), clock, family)
        place = np.round(since / step).astype(np.int64)
    return place.astype(np.int32) if place.max() < 2**31 else place, step, first


def typical_gap(place: np.ndarray, codes: np.ndarray) -> float:
    """Median distance of neighbours within groups, as a power of two; 1 if no group has two places."""
    order = np.lexsort((place, codes))
    gap = np.diff(place[order])[np.diff(codes[order]) == 0]
    gap = gap[gap > 0]
    return float(2.0 ** np.round(np.log2(np.median(gap)))) if len(gap) else 1.0


def natural_order(labels: Sequence[Any]) -> np.ndarray:
    """Positions of labels in the order of the number in each, where all are one text around a number."""
    numbers = _numbers_in(_texts(labels))
    return np.arange(len(labels)) if numbers is None else np.argsort(numbers, kind="stable")


def _texts(labels: Iterable[Any]) -> list[str]:
    """Labels as text, whole numbers without a point."""
    return [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in labels]


def _plain(column: pd.Series) -> pd.Series:
    return column.astype(column.cat.categories.dtype) if hasattr(column, "cat") else column


def _values(column: pd.Series, name: str, zone: Any = None) -> tuple[str, np.ndarray, str]:
    """Kind, values, and the unit of dates, spans and periods; dates with a time zone as of `zone`, or UTC."""
    column, api = _plain(column), pd.api.types
    inferred = api.infer_dtype(column, skipna=False)
    if inferred == "period":
        periods = pd.PeriodIndex(column)
        return "period", periods.asi8, str(periods.freqstr)
    if inferred in ("date", "datetime", "datetime64"):
        dates = _dates(column, name)
        if dates.dt.tz is None:
            return "date", *_with_unit(dates.to_numpy())
        return _AWARE, *_with_unit(dates.dt.tz_convert(zone or "UTC").dt.tz_localize(None).to_numpy())
    if inferred in ("timedelta", "timedelta64"):
        return "span", *_with_unit(pd.to_timedelta(column).to_numpy())
    if inferred in ("boolean", "integer", "floating", "mixed-integer-float", "decimal"):
        if inferred == "integer":
            values = np.asarray(column)
            return "number", values if values.dtype.kind in "iu" else values.astype(np.int64), ""
        values = np.asarray(column, dtype=np.float32 if column.dtype == np.float32 else np.float64)
        return "number", values.astype(np.int64) if inferred == "boolean" else values, ""
    if inferred in ("string", "empty"):
        return "text", np.asarray(column, dtype=object), ""
    raise ValueError(
        f"column {name!r} holds {inferred} values, which are no times: convert it to numbers, dates or an "
        "ordered categorical"
    )


def _dates(column: pd.Series, name: str) -> pd.Series:
    """Dates of one time zone, UTC where they have several, or of none."""
    if column.dtype != object:
        return pd.to_datetime(column)
    zones = {str(getattr(value, "tzinfo", None)) for value in column}
    if len(zones) > 1 and "None" in zones:
        raise ValueError(f"column {name!r} has dates with and without a time zone: give all of them one")
    return pd.to_datetime(column, utc=len(zones) > 1)


def _days_of(column: pd.Series, name: str) -> Any:
    """The time zone of dates that are all its midnights; days of one zone may have 23 or 25 hours."""
    column = _plain(column)
    if pd.api.types.infer_dtype(column, skipna=False) not in ("datetime", "datetime64"):
        return None
    dates = _dates(column, name)
    zone = dates.dt.tz
    return zone if zone is not None and bool((dates == dates.dt.normalize()).all()) else None


def _with_unit(values: np.ndarray) -> tuple[np.ndarray, str]:
    return values, np.datetime_data(values.dtype)[0]


def _difference(values: np.ndarray, origin: Any) -> np.ndarray:
    """values − origin, exactly where both are integers whose differences are below 2⁶³."""
    if values.dtype.kind == "f" or not isinstance(origin, int | np.integer):
        return values.astype(np.float64) - float(origin)
    ends = [int(v) - int(origin) for v in (values.min(), values.max())] if len(values) else []
    if any(abs(end) >= 2**63 for end in ends):
        return values.astype(np.float64) - float(origin)
    if values.dtype.kind == "i" and int(origin) < 2**63:
        return values.astype(np.int64) - int(origin)
    return np.array([int(v) - int(origin) for v in values], dtype=np.int64)


def _whole(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int64) if np.all(values == np.round(values)) else values


def _numbers_in(labels: Sequence[str]) -> np.ndarray | None:
    """The numbers in labels that are one text around a number each; None if some are not."""
    try:
        return np.array([float(label) for label in labels])
    except ValueError:
        found = [_ONE_NUMBER.fullmatch(label.strip()) for label in labels]
    parts = [match.groups() for match in found if match]
    if len(parts) < len(labels) or len({(before, after) for before, _, after in parts}) > 1:
        return None
    return np.array([float(digits) for _, digits, _ in parts])


def _label_times(labels: list[str], name: str) -> dict[str, float]:
    """Times of the labels of text: the numbers in them; two labels are at distance 1 in either order."""
    numbers = _numbers_in(labels)
    if numbers is not None and np.all(np.isfinite(numbers)) and len(set(numbers)) == len(labels):
        return dict(zip(labels, (float(t) for t in numbers), strict=True))
    if len(labels) <= 2:
        return dict(zip(labels, (0.0, 1.0), strict=False))
    shown = ", ".join(sorted(labels)[:6]) + (", ..." if len(labels) > 6 else "")
    raise ValueError(
        f"column {name!r} is text or an unordered categorical ({shown}), of which no order is known: make it "
        f"pd.Categorical({name}, categories=[...], ordered=True), or a column of numbers or dates"
    )


def _positions(categories: pd.Index, name: str) -> dict[str, float]:
    """Positions of ordered categories; ValueError where the numbers in their labels say otherwise."""
    labels = _texts(categories)
    if isinstance(categories, pd.IntervalIndex):
        numbers: np.ndarray | None = np.asarray(categories.mid, dtype=float)
    elif isinstance(categories, pd.DatetimeIndex | pd.TimedeltaIndex | pd.PeriodIndex):
        kind, values, unit = _values(pd.Series(categories), name)
        least = values.min() if len(values) else 0
        numbers = np.asarray(Clock(name, kind, least, unit=unit).since(values), dtype=float)
    elif labels and all(_ISO.fullmatch(label) for label in labels):
        # text of days or months
        unit = "D" if len(labels[0]) == 10 else "M"
        numbers = np.array(labels, dtype=f"datetime64[{unit}]").astype(float)
    else:
        numbers = _numbers_in(labels)
    if numbers is not None and len(numbers) > 2:
        steps = np.diff(numbers)
        if np.any(np.abs(steps - steps[0]) > NOISE * np.abs(steps).max()):
            shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
            raise ValueError(
                f"column {name!r} is an ordered categorical whose labels are not equally spaced ({shown}): "
                "declare the levels between them too, pass the numbers to count by value, or the codes "
                f"({name}.cat.codes) to count levels as steps"
            )
    return {label: float(k) for k, label in enumerate(labels)}


def _common_step(since: np.ndarray, largest: float, clock: Clock, family: str) -> float:
    """Greatest common divisor of differences (k,), in ascending order, up to their rounding errors."""
    epsilon = float(np.finfo(clock.origin.dtype if isinstance(clock.origin, np.floating) else np.float64).eps)
    size = abs(float(clock.origin)) + float(largest) if clock.kind == "number" else float(largest)
    rounding = 4.0 * epsilon * size
    positive = since[since > rounding]
    step = _slope(positive, float(positive[0]))
    for _ in range(64):
        off = np.abs(positive / step - np.round(positive / step)) > NOISE + 2.0 * rounding / step
        if not np.any(off) or rounding > 1e-3 * step:
            break
        step = _slope(positive, _divisor(float(positive[np.argmax(off)]), step, rounding))
    gap = np.median(np.diff(since)) / step
    if np.any(off) or rounding > 1e-3 * step or gap > LONGEST:
        raise ValueError(
            f"{family}: the times in {clock.name!r} are not equally spaced, nor whole numbers of a common "
            "step: number the occasions, round the times, or use CAR1 for continuous time"
        )
    return step


def _divisor(a: float, b: float, rounding: float) -> float:
    """Euclid's algorithm up to rounding errors."""
    least = max(1e-4 * b, 2.0 * rounding)
    while b > least:
        a, b = b, abs(a - b * round(a / b))
    return a


def _slope(values: np.ndarray, step: float) -> float:
    """The step near `step` that whole multiples of fit best, the smaller values (k,) first."""
    reach = 4.0 * step
    while True:
        some = values[values <= reach]
        count = np.round(some / step)
        step = float(count @ some / (count @ count)) if np.any(count) else step
        if reach >= values[-1]:
            return step
        reach *= 4.0
