"""`Step`: the result of a backward selection."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pandas as pd

from lmmjax.fitted import Fitted, ModelView, announce
from lmmjax.postestimation.comparison.deletion_tests import backward
from lmmjax.reports.cells import grid_of
from lmmjax.reports.markup import Grid, Markup
from lmmjax.reports.table import as_table


@dataclasses.dataclass(frozen=True, eq=False)
class Step(Markup):
    """A backward selection.

    Attributes
    ----------
    random : likelihood ratio tests of the random terms; the first row is the model that was begun with.
    fixed : F tests of the fixed terms. In both `eliminated` says in which order, 0 for what stays; a row is
        the test in the model from which the term was eliminated, or the last one.
    fit : the `Fit` found.
    """

    random: pd.DataFrame
    fixed: pd.DataFrame
    fit: Any

    def _tables(self) -> dict[str, pd.DataFrame]:
        """The tables that are not empty, by what they are of."""
        both = {"random": self.random, "fixed": self.fixed}
        return {f"Backward elimination of {name} terms": own for name, own in both.items() if len(own)}

    def _pieces(self) -> list[str | Grid]:
        tables = self._tables().items()
        made = [dataclasses.replace(grid_of(table), title=title) for title, table in tables]
        return [*made, f"Model found: {self.fit.fitted.data.formula}"]

    def __repr__(self) -> str:
        pieces = [f"{title}:\n{table!r}" for title, table in self._tables().items()]
        return "\n\n".join([*pieces, f"Model found: {self.fit.fitted.data.formula}"])


def step(
    model: ModelView,
    fitted: Fitted,
    ddf: str,
    alpha_random: float,
    alpha_fixed: float,
    keep: Iterable[str],
    reduce_random: bool,
    reduce_fixed: bool,
) -> Step:
    """See `Fit.step`."""
    found = backward(fitted, ddf, alpha_random, alpha_fixed, keep, reduce_random, reduce_fixed)
    announce(found.fitted)
    return as_table(Step(found.random, found.fixed, model._wrap(found.fitted)))
