"""Gaps of a comparison: every package's estimates against the best optimum known."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.harness.judge import Judge, tolerance
from benchmarks.harness.rows import Row
from benchmarks.harness.spec import Comparison, Dataset


def judge(w: Comparison, data: Dataset, index: np.ndarray, rows: list[Row]) -> None:
    """Fill `gap`, `judged` and `passed` from the estimates, and from those of the fresh process."""
    if w.kind == "single":
        own = data.design[w.model.response].to_numpy()
        fresh = [Row(r.package, "fresh", estimates=[r.detail.get("fresh_estimate", {})]) for r in rows]
        _responses(w, data, [own], [r for r in fresh if r.estimates[0]])
        _responses(w, data, list(data.responses[index]), rows)
        for row, other in zip(rows, fresh, strict=True):
            if other.gap is not None and row.gap is not None:
                row.gap, row.failed = max(row.gap, other.gap), row.failed + other.failed
                row.judged += other.judged
                row.passed = bool(row.passed and other.passed)
    else:
        weights = None if data.weights is None else list(data.weights[index])
        _responses(w, data, list(data.responses[index]), rows, weights)


def _responses(
    w: Comparison,
    data: Dataset,
    responses: list[np.ndarray],
    rows: list[Row],
    weights: list[np.ndarray] | None = None,
) -> None:
    rows = [row for row in rows if row.estimates]
    if not rows:
        return
    criterion = Judge.of(w.model, data.design)
    shape = (len(rows), len(responses))
    found, reported = np.full(shape, np.nan), np.full(shape, np.nan)
    best = np.empty(len(responses))
    for i, y in enumerate(responses):
        response = criterion.response(y) if weights is None else criterion.weighted(weights[i]).response(y)
        for k, row in enumerate(rows):
            if i < len(row.estimates) and "error" not in row.estimates[i]:
                found[k, i] = response.at_estimate(row.estimates[i]["cov"], row.estimates[i]["sigma2"])
                reported[k, i] = row.estimates[i]["criterion"]
        best[i] = np.nanmin([response.best(response.starts()), *found[:, i]])
    for k, row in enumerate(rows):
        row.judged = len(row.estimates)
        excess, misreported = found[k] - best, np.abs(reported[k] - found[k])
        gap = np.maximum(excess, misreported)[: row.judged]
        failed = ~(gap <= tolerance(best[: row.judged]))
        row.gap = float(np.nanmax(gap)) if np.isfinite(gap).any() else math.nan
        row.failed, row.passed = int(failed.sum()), not failed.any()
        row.detail |= {
            "excess": float(np.nanmax(excess, initial=0.0)),
            "misreported": float(np.nanmax(misreported, initial=0.0)),
            "gap_median": float(np.nanmedian(gap)) if np.isfinite(gap).any() else math.nan,
        }
