"""Results of scans as columns, a row a marker and response."""

from __future__ import annotations

from typing import Any

import pandas as pd

TESTS = ("wald", "lrt", "score", "f")

COLUMNS = {
    None: ("effect", "se", "t", "p_wald", "p_lrt", "p_score", "lod", "ratio", "loglik"),
    "wald": ("effect", "se", "t", "p_wald", "ratio", "loglik"),
    "lrt": ("effect", "se", "t", "p_lrt", "lod", "ratio", "loglik"),
    "score": ("effect", "se", "t", "p_score", "ratio", "loglik"),
    "f": ("effect", "se", "t", "f", "df", "p_wald", "ratio", "loglik"),
}
"""Columns of each test beside marker and response."""


def frame(columns: dict[str, Any], **attrs: Any) -> pd.DataFrame:
    """The table, with what holds for all of it in `attrs`."""
    out = pd.DataFrame(columns)
    out.attrs.update(attrs)
    return out
