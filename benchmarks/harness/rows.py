"""A row of a comparison, and the table of rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.harness.text import count, duration, markdown, ratio, small_number
from benchmarks.harness.workload import Record
from benchmarks.peers import LMMJAX

TIMES = ("cold", "cached", "warm", "per_fit", "speedup", "fresh", "fresh_cached")
OVER = ("over_imports", "over_imports_cached")
WITHHELD = "withheld"


@dataclass
class Row:
    """One call of one package. Seconds, for `responses` responses scaled from the `timed` ones.

    `gap` is, over the `judged` responses, the largest excess of the criterion at the reported estimates over
    the best optimum known, or the largest error of the reported criterion, whichever is more; `passed` is the
    gate and `failed` counts the responses beyond it. `fresh` and `fresh_cached` are whole processes,
    `over_imports` the part of them that is not importing jax, pandas and formulaic.
    """

    package: str
    method: str
    responses: int = 0
    timed: int = 0
    cold: float | None = None
    cached: float | None = None
    warm: float | None = None
    fresh: float | None = None
    fresh_cached: float | None = None
    over_imports: float | None = None
    over_imports_cached: float | None = None
    gap: float | None = None
    judged: int = 0
    failed: int = 0
    passed: bool | None = None
    speedup: float | None = None
    peak_mib: float | None = None
    note: str = ""
    failure: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    estimates: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def per_fit(self) -> float | None:
        """Warm seconds per response."""
        return self.warm / self.responses if self.warm is not None and self.responses else None

    @classmethod
    def missing(cls, package: str, why: str, method: str = "") -> Row:
        """The row of a package that was not measured."""
        return cls(package, method, note=why, failure=why)

    def public(self) -> Record:
        """The row as a record, without the single estimates and, if our gate failed, without times."""
        record = asdict(self) | {"per_fit": self.per_fit}
        del record["estimates"], record["failure"]
        if self.package == LMMJAX.name:
            # without it, this is no measurement
            record["error"] = self.failure
            if self.passed is not True:
                record |= dict.fromkeys((*TIMES, *OVER))
                kept = ("excess", "misreported", "gap_median", "device", "versions")
                record |= {
                    "detail": {k: v for k, v in self.detail.items() if k in kept},
                    "note": self.failure,
                }
        return record


def table(records: list[Record], *, single: bool) -> str:
    """The rows of a comparison; `single` with whole processes, else with batches."""
    times = (
        ("process", "over imports", "process, cached", "over imports, cached", "warm per fit")
        if single
        else ("cold", "cached", "warm", "per fit")
    )
    right = (*times, "× lmer", "gap", "gate", "peak MiB")
    return markdown(
        ["package", "call", *(f"{c}:" for c in right), "note"], [_cells(r, single) for r in records]
    )


def _cells(row: Record, single: bool) -> list[str]:
    shown = (
        ("fresh", "over_imports", "fresh_cached", "over_imports_cached", "per_fit")
        if single
        else ("cold", "cached", "warm", "per_fit")
    )
    printed = [*(duration(row[name]) for name in shown), ratio(row["speedup"], 1.0)]
    if row["package"] == LMMJAX.name and row["passed"] is not True:
        printed = [WITHHELD if row["gap"] is not None else ""] * len(printed)
    gate = {True: "pass", False: f"FAIL {row['failed']}/{row['judged']}", None: ""}[row["passed"]]
    return [
        *(row["package"], row["method"], *printed),
        *(small_number(row["gap"]), gate, count(row["peak_mib"]), row["note"]),
    ]
