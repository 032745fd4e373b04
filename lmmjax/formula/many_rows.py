"""What is known of all rows of a model whose frame has few rows that stand for them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.text.safety import read_expression


@dataclass(frozen=True, eq=False)
class ManyRows:
    """Rows that have the products of many, and of the many what products do not tell.

    P columns of X are all those of the formula, of which a frame keeps p.

    Attributes
    ----------
    shown : the `ModelFrame` of some of the many, with all levels and the row space of X.
    codes (k, f), z (k, q), w (k, P + 1) : of the rows that stand for the others, levels, Z and [X y].
    n : how many there are; logdet : −Σ log w of their prior weights.
    dropped : how many have missing values; missing : by column.
    triangle : (P, P) R of X = QR, without weights; covariance : (P, P) of the columns of X.
    squares : by random term (q, q) the mean of zzᵀ over the rows; noise : that of 1/w.
    cells : the predictors of means, as expressions see them: their combinations of levels with the means of
        covariates there, then the least and largest values of these; counts : rows of each, 0 for the last;
        None where there are too many combinations. spread : standard deviations of covariates.
    """

    shown: Any
    codes: np.ndarray
    z: np.ndarray
    w: np.ndarray
    n: int
    logdet: float
    dropped: int
    missing: dict[str, int]
    triangle: np.ndarray
    covariance: np.ndarray
    squares: tuple[np.ndarray, ...]
    noise: float
    cells: pd.DataFrame | None
    counts: np.ndarray
    spread: dict[str, float]


def row_space(frame: Any) -> Any:
    """The frame itself, or rows of the data that have its levels and relations between its columns."""
    return frame.base.shown if isinstance(frame.base, ManyRows) else frame


def x_products(frame: Any) -> np.ndarray:
    """Rows (k, p) with the products XᵀX of all rows of the data, without weights."""
    if not isinstance(frame.base, ManyRows):
        return frame.x
    return frame.base.triangle[:, frame._recipe.kept]


def counts_of(frame: Any) -> np.ndarray | None:
    """How many rows of the data each of the frame's `columns` stands for; None: one."""
    return frame.base.counts if isinstance(frame.base, ManyRows) else None


def factor_columns(frame: Any) -> set[str]:
    """Columns that are factors by a call, as in factor(dose) or C(dose, contr.poly)."""
    out = set()
    for expr in frame.factor_levels:
        if frame.columns is None or expr in frame.columns:
            continue
        expression = read_expression(expr)
        call = expression.tree.body
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Name):
            out.add(expression.shown(call.args[0].id))
    return out
