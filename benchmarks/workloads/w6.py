"""W6: crossed factors with heavy-tailed activity, and pupils in classes across items; a million rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from benchmarks.harness import large
from benchmarks.harness.isolated import isolated
from benchmarks.harness.workload import Options, Record, Workload, register

CROSSED = "y ~ x + (1 | user) + (1 | item)"
NESTED = "y ~ x + (1 | klass) + (1 | pupil) + (1 | item)"


def heavy_tailed(rows: int, users: int, items: int) -> pd.DataFrame:
    """Users and items with Zipf-like activity."""
    rng = np.random.default_rng(6)
    draw = [
        rng.choice(k, rows, p=(w := 1 / np.arange(1, k + 1) ** a) / w.sum())
        for k, a in ((users, 0.7), (items, 0.8))
    ]
    x = rng.normal(size=rows)
    y = 1 + 0.5 * x + 0.6 * rng.normal(size=users)[draw[0]] + 0.8 * rng.normal(size=items)[draw[1]]
    return pd.DataFrame({"y": y + rng.normal(size=rows), "x": x, "user": draw[0], "item": draw[1]})


def pupils(rows: int) -> pd.DataFrame:
    """Pupils in classes of 20 on average; each answers 10 of 60 items."""
    rng = np.random.default_rng(9)
    count = rows // 10
    pupil, item = np.repeat(np.arange(count), 10), rng.integers(0, 60, rows)
    klass = rng.integers(0, count // 20, count)[pupil]
    x = rng.normal(size=rows)
    y = 1 + 0.3 * x + 0.6 * rng.normal(size=count)[pupil] + 0.4 * rng.normal(size=count // 20)[klass]
    y += 0.5 * rng.normal(size=60)[item] + rng.normal(size=rows)
    return pd.DataFrame({"y": y, "x": x, "klass": klass, "pupil": pupil, "item": item})


def measure(formula: str, sizes: list[int], rscript: str, repeats: int | None) -> Record:
    """One model by REML: users and items without a peer, pupils beside lme4."""
    data = heavy_tailed(*sizes) if formula == CROSSED else pupils(*sizes)
    rscript = "" if formula == CROSSED else rscript
    return large.one(data, formula, reml=True, groups="klass,pupil,item", rscript=rscript, repeats=repeats)


def run(options: Options) -> Iterator[Record]:
    full = [
        (CROSSED, [200_000, 20_000, 2_000]),
        (CROSSED, [1_000_000, 50_000, 5_000]),
        (NESTED, [1_000_000]),
    ]
    for formula, sizes in [(CROSSED, [20_000, 2_000, 300]), (NESTED, [20_000])] if options.small else full:
        options.say(f"W6: {formula}, {sizes[0]:,} rows")
        facts = {"formula": formula, "sizes": sizes}
        more = {"rscript": options.r, "repeats": options.repeats}
        yield facts | isolated(measure, timeout=options.timeout, **facts, **more)


register(
    Workload(
        id="W6",
        title="50,000 users × 5,000 items; 100,000 pupils in 5,000 classes × 60 items: a million rows each",
        goal="pupils: lme4, criterion at most 1e-9 of it above; users and items: the certificate, no peer",
        run=run,
        table=large.table,
    )
)
