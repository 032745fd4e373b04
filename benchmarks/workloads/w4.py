"""W4: many responses on nested and on crossed factors, beside lme4."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from benchmarks.harness import large
from benchmarks.harness.isolated import isolated
from benchmarks.harness.workload import Options, Record, Workload, register

NESTED = "~ age + sex + (1 | family/subject)"
INTERCEPTS, SLOPES = "~ x + (1 | subject) + (1 | item)", "~ x + (1 + x | subject) + (1 + x | item)"


def families(rows: int) -> pd.DataFrame:
    """Families of one to three members with one to four visits each."""
    rng = np.random.default_rng(4)
    members = rng.integers(1, 4, rows)
    family = np.repeat(np.arange(rows), members)
    visits = rng.integers(1, 5, len(family))
    member = np.repeat(np.arange(len(family)), visits)[:rows]
    sex = rng.integers(0, 2, len(family))[member]
    return pd.DataFrame(
        {"family": family[member], "subject": member, "age": rng.normal(size=rows), "sex": sex}
    )


def trials(subjects: int, items: int) -> pd.DataFrame:
    """Nine tenths of all pairs of subjects and items, in one of two conditions."""
    rng = np.random.default_rng(8)
    pair = np.flatnonzero(rng.random(subjects * items) < 0.9)
    x = rng.integers(0, 2, len(pair)) - 0.5
    return pd.DataFrame({"subject": pair // items, "item": pair % items, "x": x})


def simulated(data: pd.DataFrame, sds: dict[str, list[float]], count: int) -> np.ndarray:
    """y (n, T), σ = 1; `sds` are those of intercepts and, where there are two, of slopes of x, by factor."""
    rng = np.random.default_rng(41)
    effects = [
        (sd * rng.normal(size=(data[group].max() + 1, count)), group, slope)
        for group, both in sds.items()
        for slope, sd in enumerate(both)
    ]
    y = rng.normal(size=(len(data), count))
    for effect, group, slope in effects:
        y += effect[data[group]] * (data[["x"]].to_numpy() if slope else 1.0)
    return y


def measure(
    formula: str, sizes: list[int], sds: dict[str, list[float]], count: int, rscript: str, repeats: int | None
) -> Record:
    """A batch of `count` responses on `families` of one size, or on `trials` of two."""
    data = families(*sizes) if formula == NESTED else trials(*sizes)
    y = simulated(data, sds, count)
    return large.many(data, y, formula, groups=",".join(sds), rscript=rscript, repeats=repeats)


def run(options: Options) -> Iterator[Record]:
    many, some, few = options.size(20_484, 600), options.size(20_000, 600), options.size(2_000, 600)
    crossed = {"subject": [0.5], "item": [0.3]}
    for formula, sizes, sds, count in (
        (NESTED, [1_000 if options.small else 10_000], {"family": [0.7], "subject": [1.0]}, many),
        (INTERCEPTS, [30, 24], crossed, some),
        (SLOPES, [30, 24], {"subject": [0.5, 0.3], "item": [0.3, 0.2]}, few),
        (INTERCEPTS, [100, 200], crossed, few),
    ):
        options.say(f"W4: {formula}, {count:,} responses")
        facts = {"formula": formula, "sizes": sizes, "sds": sds, "count": count}
        got = isolated(measure, timeout=options.timeout, **facts, rscript=options.r, repeats=options.repeats)
        yield facts | got


register(
    Workload(
        id="W4",
        title="up to 20,484 responses on nested factors (10,000 rows) and crossed ones (665, 18,047 rows)",
        goal="lme4, three responses timed and scaled; criteria at most 1e-6 above its own",
        run=run,
        table=large.table,
        counted="responses",
    )
)
