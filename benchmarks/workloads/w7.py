"""W7: 125,066 groups of four rows, random intercepts, then slopes too, beside lme4 and mixedlm-rs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import large
from benchmarks.harness.isolated import isolated
from benchmarks.harness.processes import numbers
from benchmarks.harness.workload import Options, Record, Workload, register

MIXEDLM_RS = """
import sys, time, pandas as pd, mixedlm_rs
d = pd.read_csv(sys.argv[1], dtype={"g": str})
best = 1e9
for _ in range(4):
    t = time.perf_counter()
    f = mixedlm_rs.mixedlm("y ~ x", d, groups="g", re_formula=sys.argv[2]).fit(reml=True)
    best = min(best, time.perf_counter() - t)
print(best, -2 * float(f.llf))
"""


def pairs(rows: int, groups: int) -> pd.DataFrame:
    """Groups of four rows, with a random intercept and slope."""
    rng = np.random.default_rng(7)
    g = np.sort(np.concatenate([np.arange(groups), rng.integers(0, groups, rows - groups)]))
    x = rng.normal(size=rows)
    y = 1 + 0.5 * x + rng.normal(size=groups)[g] + 0.3 * rng.normal(size=groups)[g] * x
    return pd.DataFrame({"y": y + rng.normal(size=rows), "x": x, "g": [f"g{k}" for k in g]})


def measure(
    effects: str, rows: int, groups: int, rscript: str, peer_python: str, repeats: int | None
) -> Record:
    """One model by REML; mixedlm-rs unless `peer_python` is empty."""

    def mixedlm_rs(path: Path) -> tuple[float, float]:
        seconds, criterion = numbers([peer_python, "-c", MIXEDLM_RS], path, f"~{effects}")
        return seconds, criterion

    return large.one(
        pairs(rows, groups),
        f"y ~ x + ({effects} | g)",
        reml=True,
        groups="g",
        rscript=rscript,
        repeats=repeats,
        peer=mixedlm_rs if peer_python else None,
    )


def run(options: Options) -> Iterator[Record]:
    rows, groups = (20_000, 5_000) if options.small else (500_264, 125_066)
    python = options.peer_python if "mixedlm-rs" in options.peers else ""
    for effects in ("1", "1 + x"):
        options.say(f"W7: ({effects} | g)")
        facts = {"effects": effects, "rows": rows, "groups": groups}
        more = {"rscript": options.r, "peer_python": python, "repeats": options.repeats}
        yield facts | isolated(measure, timeout=options.timeout, **facts, **more)


register(
    Workload(
        id="W7",
        title="500,264 rows, 125,066 groups, (1 | g), then (1 + x | g)",
        goal="lme4 and mixedlm-rs; criteria at most 1e-9 of it above lme4's",
        run=run,
        table=large.table,
    )
)
