"""Pairs of a marker and a response with their statistics: all of a block, or those that may be kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.scan.evaluate import Values


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Q pairs.

    Attributes
    ----------
    place, at : (Q,) places of the marker and of the response.
    strength : (Q,) likelihood ratio of all columns of the marker, or what is like it.
    terms : statistics (Q,) by name of each of the s columns of a marker.
    """

    place: np.ndarray
    at: np.ndarray
    strength: np.ndarray
    terms: list[Values]

    def __len__(self) -> int:
        return len(self.place)

    def some(self, which: np.ndarray) -> Pairs:
        """Some of the pairs."""
        terms = [{name: value[which] for name, value in own.items()} for own in self.terms]
        return Pairs(self.place[which], self.at[which], self.strength[which], terms)

    def ordered(self) -> Pairs:
        """The pairs by marker, then response."""
        step = np.diff(self.place)
        if np.all((step > 0) | (step == 0) & (np.diff(self.at) > 0)):
            return self
        return self.some(np.lexsort((self.at, self.place)))

    def rows(self, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Columns (Q s,) of the places, the number of the term and the statistics, a row a pair and term."""
        s = len(self.terms)
        front = {
            "place": np.repeat(self.place, s),
            "at": np.repeat(self.at, s),
            "term": np.tile(np.arange(s), len(self)),
        }
        return front | {name: np.stack([own[name] for own in self.terms], axis=-1).ravel() for name in wanted}


def joined(found: list[Pairs]) -> Pairs:
    """All of them, one after the other."""
    if len(found) == 1:
        return found[0]
    terms = [
        {name: np.concatenate([one.terms[j][name] for one in found]) for name in own}
        for j, own in enumerate(found[0].terms)
    ]
    place, at, strength = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("place", "at", "strength")
    )
    return Pairs(place, at, strength, terms)


def no_pairs(wanted: tuple[str, ...], s: int) -> Pairs:
    """None."""
    none = np.zeros(0, int)
    return Pairs(none, none, np.zeros(0), [{name: np.zeros(0) for name in wanted} for _ in range(s)])


def labelled(
    rows: dict[str, np.ndarray], markers: pd.Index, labels: pd.Index, terms: list[str]
) -> dict[str, Any]:
    """Columns of the table, from rows as `Pairs.rows` gives them."""
    rows = dict(rows)
    front: dict[str, Any] = {
        "marker": np.asarray(markers)[rows.pop("place")],
        "response": np.asarray(labels)[rows.pop("at")],
    }
    number = rows.pop("term")
    if len(terms) > 1:
        front["term"] = np.array(terms, dtype=object)[number]
    return front | rows
