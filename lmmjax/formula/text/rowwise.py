"""Whether the value of an expression in a row depends on that row alone, as it must for new rows.

`x - np.mean(x)` or `x / max(x)` are other numbers for new rows than for the rows of the fit. Arithmetic,
functions of numbers, and transforms that keep their state (`center`, `poly`) are known to be sound; all else
is evaluated again on single rows and on parts of the data, and compared with what the fit used.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.text.safety import Expression

STATEFUL = frozenset(("bs", "cc", "center", "cr", "cs", "ns", "poly", "scale", "standardize"))
"""Transforms whose state is that of the fit."""

_BY_ROW = frozenset(("C", "I", "Q", "abs", "exp10", "factor", "hashed", "round"))
_NUMPY = frozenset(("clip", "isclose", "nan_to_num", "round", "where"))
_CONTRASTS = frozenset(("Diff", "Helmert", "Poly", "Sum", "Treatment", "contr"))
_SYNTAX = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Name, ast.Constant, ast.Load),
    *(ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.List, ast.Tuple, ast.Dict, ast.keyword),
)

SINGLE_ROWS, ROWS_TOGETHER = 12, 20_000
"""Rows that are evaluated alone; most rows of which halves are."""

TOLERANCE = 1e-9
"""Difference that counts as rounding, beside the largest value of a column."""


def is_by_row(expression: Expression, known: Mapping[str, Any]) -> bool:
    """Whether the syntax alone shows that no other row is read; `known` is what names stand for."""
    stateful = 0
    for node in ast.walk(expression.tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", "")
            stateful += name in STATEFUL
            sound = name in _BY_ROW | _CONTRASTS | STATEFUL or isinstance(known.get(name), np.ufunc)
            if not (sound or isinstance(node.func, ast.Attribute)):
                return False
        elif isinstance(node, ast.Attribute):
            owner, value = getattr(node.value, "id", ""), getattr(np, node.attr, None)
            numeric = isinstance(value, np.ufunc | float) or node.attr in _NUMPY
            if not (owner == "contr" or (owner == "np" and numeric)):
                return False
        elif not isinstance(node, _SYNTAX) or isinstance(node, ast.MatMult | ast.In | ast.NotIn):
            return False
    return stateful < 2


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Columns `frame` (n rows) of a part of a formula, and the values (n, k) that the fit made of them."""

    frame: pd.DataFrame
    values: np.ndarray

    def moved(self, apply: Callable[[pd.DataFrame], np.ndarray]) -> np.ndarray:
        """(k,) bool: columns that are others where rows are evaluated apart from the rest by `apply`."""
        moved = np.zeros(self.values.shape[1], bool)
        if not len(self.frame):
            return moved
        slack = TOLERANCE * np.max(np.abs(self.values), axis=0, initial=0)
        for rows in self._parts():
            part = self.frame.take(rows).reset_index(drop=True)
            for name, column in part.items():
                if isinstance(column.dtype, pd.CategoricalDtype):
                    part[name] = column.cat.remove_unused_categories()
            try:
                apart = apply(part)
            except ValueError:
                return np.ones_like(moved)
            moved |= ~np.all(np.abs(apart - self.values[rows]) <= slack, axis=0)
        return moved

    def _parts(self) -> Iterator[np.ndarray]:
        """Rows with extreme values and some between them, one by one; then two halves."""
        n = len(self.frame)
        single = [0, n - 1, n // 2]
        for _, column in self.frame.items():
            order = np.argsort(np.asarray(column.cat.codes if hasattr(column, "cat") else column))
            single += [int(order[k]) for k in (0, -1, n // 4)]
        yield from (np.array([k]) for k in list(dict.fromkeys(single))[:SINGLE_ROWS])
        some = np.unique(np.linspace(0, n - 1, min(n, ROWS_TOGETHER)).astype(int))
        if n > 1:
            yield from (some[::2], some[1::2])
