"""A scan without a kernel: `time × SNP` with random slopes, 5,000 people × 4 visits.

A block of markers is scanned with all tests (Wald with Satterthwaite's degrees of freedom, likelihood ratio,
score) of the marker, of its product with time and of both, and scaled to a million: blocks are alike, and the
model is prepared once. Beside it exact refits of some pairs, which are what a loop over lme4's fits does.
Both say the effect and standard error of the first product, by which the refits are judged. The same block is
also read from a file and written to Parquet, as a scan of any size is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness.isolated import isolated
from benchmarks.harness.processes import PeerError, numbers
from benchmarks.harness.text import count, duration, markdown, ratio
from benchmarks.harness.timing import timed
from benchmarks.harness.workload import Options, Record, Workload, register

MILLION, VISITS = 1_000_000, 4
MODEL = "y ~ t + (t | id)"

PER_MARKER = """
suppressMessages(library(lme4))
a <- commandArgs(TRUE); d <- read.csv(a[1]); d$id <- factor(d$id)
one <- function(k) {
  d$g <- d[[paste0("g", k)]]
  suppressMessages(suppressWarnings(lmer(y ~ t * g + (t | id), d)))
}
n <- as.integer(a[2])
s <- system.time(for (k in seq_len(n)) m <- one(k))
row <- coef(summary(one(1)))["t:g", ]
cat((s[["user.self"]] + s[["sys.self"]]) / n, row[["Estimate"]], row[["Std. Error"]])
"""


def simulated(people: int, markers: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Visits of people, with a growth of their own, and counts of an allele (people, markers)."""
    rng = np.random.default_rng(21)
    ids = np.repeat(np.arange(people), VISITS)
    data = pd.DataFrame({"id": ids, "t": np.tile(np.arange(VISITS) * 1.0, people)})
    own, growth = rng.normal(size=(2, people))
    data["y"] = 1.0 + 0.2 * data["t"] + own[ids] + 0.3 * growth[ids] * data["t"] + rng.normal(size=len(ids))
    return data, rng.binomial(2, rng.uniform(0.05, 0.5, markers), (people, markers)).astype(np.int8)


def measure(people: int, markers: int, refits: int, repeats: int | None) -> Record:
    """Times of the null fit, of a block, and of refits of the first markers."""
    import lmmjax as lj

    data, g = simulated(people, markers)
    ids = np.arange(people)
    begin = time.perf_counter()
    fit = lj.lmm(MODEL, data).fit()
    null = time.perf_counter() - begin
    found = timed(lambda: fit.scan(g, ids=ids, interaction="t"), repeats or 3, 120.0)
    exact = timed(
        lambda: fit.scan(g[:, :refits], ids=ids, interaction="t", ratio="refit", test="wald"),
        repeats or 3,
        120.0,
    )
    with tempfile.TemporaryDirectory(prefix="lmmjax-scan-") as folder:
        np.save(Path(folder) / "g.npy", g)
        out = Path(folder) / "scan.parquet"
        asked = {"ids": ids, "interaction": "t", "sink": out}
        sunk = timed(lambda: fit.scan(Path(folder) / "g.npy", **asked), repeats or 3, 120.0)
        size, same = out.stat().st_size, sunk.result.read()["effect"].to_numpy()
    assert np.allclose(same, found.result["effect"].to_numpy(), rtol=1e-9)
    row = exact.result.iloc[1]
    gap = found.result["effect"].iloc[1 : 2 * refits : 2].to_numpy() - exact.result["effect"].iloc[1::2]
    per = found.best / markers
    return {
        "null": null,
        "per_marker": per,
        "million": per * MILLION,
        "cpu_million": min(found.processor) / markers * MILLION,
        "sink_million": sunk.best / markers * MILLION,
        "sink_bytes": size / markers * MILLION,
        "per_refit": exact.best / refits,
        "effect": float(row["effect"]),
        "se": float(row["se"]),
        "held_gap": float(np.max(np.abs(gap) / exact.result["se"].iloc[1::2])),
    }


def run(options: Options) -> Iterator[Record]:
    people = 300 if options.small else 5_000
    markers = options.size(4_000, 100)
    refits, theirs = (4, 1) if options.small else (64, 5)
    options.say(f"scan: {markers:,} markers of {people:,} people")
    facts = {"people": people, "markers": markers}
    got = facts | isolated(measure, timeout=options.timeout, refits=refits, repeats=options.repeats, **facts)
    if options.r:
        options.say("scan: lme4, marker by marker")
        with tempfile.TemporaryDirectory(prefix="lmmjax-scan-") as folder:
            path = str(Path(folder) / "data.csv")
            data, g = simulated(people, markers)
            columns = {f"g{k + 1}": g[data["id"], k] for k in range(theirs)}
            data.assign(**columns).to_csv(path, index=False, float_format="%.17g")
            try:
                per, effect, se = numbers([options.r, "-e", PER_MARKER], path, theirs)
                got |= {"r": per, "r_million": per * MILLION, "r_effect": effect, "r_se": se}
            except PeerError as error:
                got["note"] = str(error)
    yield got


def table(records: list[Record]) -> str:
    """A million markers by the block, and a refit beside lme4's."""
    columns = (
        "people × visits",
        "markers timed:",
        "a million, wall:",
        "a million, CPU:",
        "a million to Parquet:",
        "GB of Parquet:",
        "a refit:",
        "lme4, a marker, CPU:",
        "lme4, a million:",
        "ratio of CPU:",
        "effect / se of t × SNP, and lme4's",
    )

    def cells(got: Record) -> list[str]:
        ours = f"{got['effect']:.5f} / {got['se']:.5f}"
        theirs = f"{got['r_effect']:.5f} / {got['r_se']:.5f}" if "r" in got else "–"
        return [
            f"{got['people']:,} × {VISITS}",
            count(got["markers"]),
            duration(got["million"]),
            duration(got["cpu_million"]),
            duration(got.get("sink_million")),
            f"{got['sink_bytes'] / 1e9:.2f}" if "sink_bytes" in got else "–",
            duration(got["per_refit"]),
            duration(got.get("r")),
            duration(got.get("r_million")),
            ratio(got.get("r_million"), got["cpu_million"]),
            f"{ours}, {theirs}",
        ]

    return markdown(columns, map(cells, records))


register(
    Workload(
        id="scan",
        title="time × SNP with random slopes, 5,000 people × 4 visits, a block scaled to 1,000,000 markers",
        goal="minutes for a million; lme4's 2 s a marker",
        run=run,
        table=table,
        counted="markers",
    )
)
