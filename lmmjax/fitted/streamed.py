"""What a fit says of rows that are read by the chunk."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmjax.fitted.open_effects import combined
from lmmjax.fitted.records import Fitted
from lmmjax.fitted.values import linear_part
from lmmjax.formula import nearest, new_frame

ROWS = (
    "needs all rows at once, and those of this fit are read by the chunk: rows() has fitted values and "
    "residuals; fit the rows that fit in memory for the rest"
)


def row_values(fitted: Fitted, piece: pd.DataFrame, columns: list[str]) -> dict[str, np.ndarray]:
    """`fitted` Xβ̂ + Zb̂ + offset, `population` without Zb̂, and `resid` of the rows of a chunk.

    NaN in rows with missing values in the `columns` of the model, whose levels it need not know; `resid` also
    where the response is no column of the chunk.

    Raises
    ------
    ValueError : a row without missing values has a level that the fit does not know; a column is not there.
    """
    known = all(name in piece for name in response_columns(fitted))
    columns = columns if known else [name for name in columns if name not in response_columns(fitted)]
    for name in columns:
        if name not in piece:
            raise ValueError(f"a chunk of the data has no column {name!r}: {nearest(name, map(str, piece))}")
    there = ~np.asarray(piece[columns].isna()).any(axis=1)
    out = {name: np.full(len(piece), np.nan) for name in ("fitted", "population", "resid")}
    if not there.any():
        return out
    new = new_frame(fitted.data.frame, piece.loc[there], require_response=known)
    if unseen := [(term.group, term.unseen[0]) for term in new.random if term.unseen]:
        raise ValueError(
            f"{unseen[0][0]}: the fit has no level {unseen[0][1]}: give the data that it was made from"
        )
    offset = 0.0 if new.offset is None else new.offset
    terms = [(term.term, term.z, term.codes) for term in new.random]
    population, own = combined(fitted, new.x) + offset, linear_part(fitted, new.x, terms) + offset
    out["fitted"][there], out["population"][there] = own, population
    if new.y is not None:
        out["resid"][there] = new.y - own
    return out


def response_columns(fitted: Fitted) -> list[str]:
    """The columns that nothing but the response reads."""
    parts = dict(fitted.data.frame._recipe.parts)
    response = parts.pop("response")
    others = {name for part in parts.values() for name in part.columns}
    return [name for name in response.columns if name not in others]
