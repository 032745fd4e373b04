"""Levels of factors and grouping factors, in order, and columns as codes into them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

SAME = 1e-14
"""Relative difference of two labels that are doubles up to which rounding made two of one."""


def factorize(values: pd.Series, name: str) -> tuple[np.ndarray, pd.Index]:
    """Codes and levels, sorted (by their text if they cannot be compared)."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, levels = _categories(values)
        require_different_texts(np.asarray(levels), name)
        return codes, levels
    try:
        codes, uniques = pd.factorize(values)
    except TypeError:
        raise ValueError(
            f"column {name!r} has values that are no labels, such as lists: make them text or numbers"
        ) from None
    labels = _whole(np.asarray(uniques))
    require_told_apart(labels, f"column {name!r}")
    require_different_texts(labels, name)
    try:
        order = np.argsort(labels, kind="stable")
    except TypeError:
        order = np.argsort([str(label) for label in labels], kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], pd.Index(labels[order])


def _categories(values: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """Codes of the categories that occur, in their order; missing values get −1."""
    codes = values.cat.codes.to_numpy().astype(np.int64)
    used = np.bincount(codes[codes >= 0], minlength=len(values.cat.categories)) > 0
    rank = np.append(np.cumsum(used) - 1, -1)
    return rank[codes], pd.Index(_whole(np.asarray(values.cat.categories)[used]))


def require_different_texts(labels: np.ndarray, name: str) -> None:
    """ValueError if labels read the same, as 1 and "1"."""
    known: dict[str, Any] = {}
    for label in labels if labels.dtype == object else ():
        other = known.setdefault(str(label), label)
        if other is not label:
            raise ValueError(
                f"column {name!r} has the levels {other!r} and {label!r}, which read the same: make them one"
            )


def _whole(labels: np.ndarray) -> np.ndarray:
    """Labels that are whole numbers as integers."""
    if labels.dtype.kind == "f" and np.all(labels == np.round(labels)) and np.all(np.abs(labels) < 2**53):
        return labels.astype(np.int64)
    return labels


def require_told_apart(labels: np.ndarray, what: str) -> None:
    """ValueError if two labels that are doubles differ in their last digits only, as rounding makes them."""
    if labels.dtype.kind != "f" or len(labels) < 2:
        return
    ordered = np.sort(labels)
    close = np.flatnonzero(np.diff(ordered) <= SAME * np.abs(ordered[1:]))
    if close.size:
        two = " and ".join(repr(float(v)) for v in ordered[close[0] : close[0] + 2])
        raise ValueError(f"{what} has levels that differ by rounding, {two}: round it, or make it text")


def whole_labels(values: Any) -> Any:
    """Whole doubles as integers, whose levels read 1 and not 1.0; ValueError beyond 2⁵³, where they merge."""
    if getattr(getattr(values, "dtype", None), "kind", "") != "f" or not len(values):
        return values
    array = np.asarray(values)
    if not np.all(np.isfinite(array)) or np.any(array != np.round(array)):
        require_told_apart(np.unique(array), "a factor")
        return values
    if np.max(np.abs(array)) >= 2**53:
        raise ValueError(f"{BEYOND}: convert the column to text")
    return values.astype(np.int64)


BEYOND = "whole numbers beyond 2^53 are not told apart as levels"


@dataclass(frozen=True, eq=False)
class Levels:
    """Levels of a grouping factor a:b:c: those that occur, `a` varying slowest.

    `parts` are the levels of each factor; `labels` those of the interaction, joined by ":", in quotes where
    two would read the same (a single factor keeps its own, whole floats as integers). `steps[k]` are the keys
    (code so far)·(number of levels) + (code of factor k + 1) that occur, sorted.
    """

    names: tuple[str, ...]
    parts: tuple[pd.Index, ...]
    steps: tuple[np.ndarray, ...]
    labels: pd.Index

    def codes(self, columns: Sequence[pd.Series]) -> np.ndarray:
        """(m,) int32 codes of complete columns; −1 where the level does not occur."""
        key = _lookup(self.parts[0], columns[0])
        for part, step, column in zip(self.parts[1:], self.steps, columns[1:], strict=True):
            code = _lookup(part, column)
            wanted = key * len(part) + code
            found = np.minimum(np.searchsorted(step, wanted), len(step) - 1)
            key = np.where((step[found] == wanted) & (key >= 0) & (code >= 0), found, -1)
        return key.astype(np.int32)

    def only(self, present: np.ndarray) -> Levels:
        """Some of the levels, by their codes in increasing order, which are numbered anew."""
        parts, steps = self.parts, self.steps
        if steps:
            steps = (*steps[:-1], steps[-1][present])
        else:
            parts = (parts[0][present],)
        return Levels(self.names, parts, steps, self.labels[present])


def group_levels(names: Sequence[str], columns: Sequence[pd.Series]) -> tuple[np.ndarray, Levels]:
    """(n,) int32 codes and the levels of the interaction of complete columns."""
    coded = [factorize(column, name) for name, column in zip(names, columns, strict=True)]
    key, labels = coded[0]
    steps, members = [], [np.arange(len(labels))]
    for code, part in coded[1:]:
        step, key = np.unique(key * len(part) + code, return_inverse=True)
        members = [member[step // len(part)] for member in members] + [step % len(part)]
        steps.append(step)
    parts = tuple(part for _, part in coded)
    if steps:
        labels = _joined(parts, members)
    return key.astype(np.int32), Levels(tuple(names), parts, tuple(steps), labels)


def _joined(parts: Sequence[pd.Index], members: Sequence[np.ndarray]) -> pd.Index:
    """Labels a:b:c; where two of them would read the same, parts that have a colon are in quotes."""
    texts = [np.asarray(part.astype(str), dtype=object) for part in parts]
    chosen = [text[member] for text, member in zip(texts, members, strict=True)]
    labels = pd.Index([":".join(row) for row in zip(*chosen, strict=True)])
    if labels.is_unique:
        return labels
    rows = (
        [json.dumps(t, ensure_ascii=False) if ":" in t or '"' in t else t for t in row]
        for row in zip(*chosen, strict=True)
    )
    return pd.Index([":".join(row) for row in rows])


def require_levels(levels: Levels) -> None:
    """ValueError if a grouping factor has one level only."""
    if len(levels.labels) < 2:
        name = ":".join(levels.names)
        only = f" ({levels.labels[0]})" if len(levels.labels) else ""
        raise ValueError(f"grouping factor {name!r} has one level{only}: leave its random term out")


def row_labels(columns: Sequence[pd.Series], rows: np.ndarray) -> tuple[str, ...]:
    """Distinct labels, in order of appearance, of some rows of a grouping factor."""
    parts = [[str(value) for value in column.take(rows)] for column in columns]
    return tuple(dict.fromkeys(":".join(labels) for labels in zip(*parts, strict=True)))


def require_other_texts(unseen: Sequence[str], levels: Levels) -> None:
    """ValueError if labels that are no levels of the fit read like some: numbers that have become text."""
    known = set(map(str, levels.labels)) if unseen else set()
    if same := [label for label in unseen if label in known]:
        name = ":".join(levels.names)
        raise ValueError(
            f"{name!r} has {same[0]!r} in the new data, which reads like a level of the fit and is of "
            "another type: give the column the type that it had in the fit"
        )


def _as_dates(index: pd.Index) -> pd.Index:
    """Objects of dates as an index of dates, any other as it is."""
    dates = index.dtype == object and index.inferred_type == "date"
    return pd.to_datetime([str(day) for day in index]) if dates else index


def _lookup(levels: pd.Index, values: pd.Series) -> np.ndarray:
    plain = values.astype(values.cat.categories.dtype) if hasattr(values, "cat") else values
    wanted = pd.Index(plain)
    kinds = {levels.dtype.kind, wanted.dtype.kind}
    if kinds == {"M", "O"}:
        # dates, and objects of dates
        levels, wanted = _as_dates(levels), _as_dates(wanted)
    if "f" in kinds and kinds & {"i", "u"} and np.any(np.abs(np.asarray(plain, dtype=float)) >= 2**53):
        raise ValueError(f"{BEYOND}: give the column the type that it had in the fit")
    if levels.dtype.kind == "f" and wanted.dtype.kind == "f" and not wanted.hasnans:
        # 0.1 * 3 is 0.3 up to rounding
        near = SAME * np.abs(np.asarray(wanted))
        return levels.get_indexer(wanted, method="nearest", tolerance=near).astype(np.int64)
    return levels.get_indexer(wanted).astype(np.int64)
