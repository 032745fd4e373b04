"""How what enters beside the data is matched with its rows: by labels, by position where there are none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.numbers import plain


def first_index(columns: Iterable[Any]) -> pd.Index | None:
    """Labels of the first column or frame that has some; failing that, numbers of rows; or None."""
    found = [index for index in map(own_index, columns) if index is not None]
    return next((index for index in found if not is_default(index)), found[0] if found else None)


def without_labels(columns: Mapping[Any, Any], what: str) -> Any:
    """Name of a column that goes by position among others that have labels; None if there is none such.

    ValueError if labels put others in another order: it could belong to any of them.
    """
    found = {name: own_index(column) for name, column in columns.items()}
    ours = first_index(columns.values())
    if ours is None or is_default(ours):
        return None
    moved, loose = False, []
    for name, index in found.items():
        if index is not None and not index.equals(ours):
            # of other labels those who read the column tell
            moved = moved or (len(index) == len(ours) and _comparable(index).isin(_comparable(ours)).all())
        if index is None or (is_default(index) and not index.isin(ours).all()):
            loose.append(name)
    if moved and loose:
        raise ValueError(
            f"{what}: {str(loose[0])!r} has no labels of its rows, and others have them in several orders: "
            "make a frame of them, or give all of them labels"
        )
    return loose[0] if loose else None


def own_index(values: Any) -> pd.Index | None:
    """Labels of the rows of a Series, frame, table or AnnData object."""
    if hasattr(values, "obs_names"):
        return observations(values.obs_names)
    if hasattr(values, "coords") or type(values).__module__.startswith("pyarrow"):
        values = plain(values)
    return values.index if isinstance(values, pd.Series | pd.DataFrame) else None


def observations(names: Any) -> pd.Index | None:
    """Names of AnnData's observations; "0", "1", … are what it makes where there were none."""
    index = pd.Index(names)
    return None if index.equals(pd.Index([str(k) for k in range(len(index))])) else index


def is_default(index: pd.Index) -> bool:
    """Whether labels only count: 0, 1, … without a name."""
    integers = isinstance(index, pd.RangeIndex) or index.dtype.kind in "iu"
    return index.name is None and integers and np.array_equal(index, np.arange(len(index)))


def positions(
    theirs: pd.Index | None, ours: pd.Index | None, what: str, against: str = "the data", kind: str = "rows"
) -> np.ndarray | None:
    """Where in `theirs` each of `ours` is, or None: as they come.

    Equal labels in the same order, however often they occur, stay as they are; labels that are equal as sets
    are matched. Where only one side has labels (0, 1, … without a name are none) there is nothing to match.

    Parameters
    ----------
    theirs, ours : labels of as many rows (or columns, `kind`) of `what` and of `against`.

    Raises
    ------
    ValueError : both have labels and these differ, or occur several times in another order. It shows some.
    """
    if theirs is None or ours is None or theirs.equals(ours):
        return None
    left, right = _comparable(theirs), _comparable(ours)
    if left.is_unique and right.is_unique and len(left) == len(right):
        place = left.get_indexer(right)
        if np.all(place >= 0):
            return None if np.array_equal(place, np.arange(len(place))) else place
    if is_default(theirs) or is_default(ours):
        return None
    the_what = f"the {what}" if what == "offset" else what
    remedy = f"give {the_what} the labels of {against}, or pass an array to go by position"
    several = pd.Index(left[left.duplicated()]).append(right[right.duplicated()])
    if len(several) and left.isin(right).all() and right.isin(left).all():
        first = several[:1].tolist()[0]
        raise ValueError(
            f"the {kind} of {the_what} and of {against} come in another order, and {first!r} labels "
            f"several of them: {remedy}"
        )
    alone = [_few(a[~a.isin(b)].unique()) for a, b in ((left, right), (right, left))]
    of = "of" if kind == "labels" else f"of the {kind} of"
    raise ValueError(
        f"the labels {of} {the_what} and of {against} differ: {alone[0]} only in {the_what}, "
        f"{alone[1]} only in {against}: {remedy}"
    )


def given_labels(ids: Any, own: pd.Index | None, what: str) -> pd.Index:
    """Labels `ids` that rows are given, which had the labels `own` or None.

    ValueError if they have no order, or are those of the rows in another order: then one of both is wrong.
    """
    if isinstance(ids, set | frozenset):
        raise ValueError(f"ids of {what} are a set, which has no order: pass a list")
    labels = pd.Index(list(ids), dtype=object, tupleize_cols=False).infer_objects()
    if own is None or is_default(own) or len(own) != len(labels) or labels.nlevels > 1:
        return labels
    left, right = _comparable(labels), _comparable(own)
    if not left.equals(right) and left.is_unique and left.isin(right).all():
        at = int(np.argmax(left.to_numpy() != right.to_numpy()))
        one, two = (labels[at : at + 1].tolist()[0] for labels in (left, right))
        raise ValueError(
            f"ids and {what} have the same labels in another order: {one!r} and {two!r} in row "
            f"{at}: leave ids out, or pass an array to go by position"
        )
    return labels


def require_equal_lengths(columns: Mapping[Any, Any], what: str) -> None:
    """ValueError unless all columns have the same length."""
    lengths = {str(name): len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = dict(list(lengths.items())[:8])
        raise ValueError(f"the columns of {what} differ in length: {shown}")


def require_distinct_names(names: Iterable[Any], what: str) -> None:
    """ValueError if two names are equal, or read the same, as 2 and "2"."""
    known: dict[str, Any] = {}
    for name in names:
        other = known.setdefault(str(name), name)
        if other is not name and other != name:
            raise ValueError(
                f"there is a {what} {other!r} and a {what} {name!r}, which read the same: rename one"
            )
    index = pd.Index(list(names))
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise ValueError(f"there is more than one {what} {twice!r}: rename or drop one")


def _comparable(index: pd.Index) -> pd.Index:
    """Labels whose type does not tell apart what is equal: text of any storage, tuples, categories."""
    if isinstance(index, pd.MultiIndex):
        return index.to_flat_index()
    return index if index.dtype.kind in "iufM" else index.astype(object)


def _few(labels: pd.Index) -> str:
    shown = ", ".join(repr(label) for label in labels[:3].tolist())
    return f"{shown}{', …' if len(labels) > 3 else ''} ({len(labels)})" if len(labels) else "none"
