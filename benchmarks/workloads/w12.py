"""W12: mixed models for repeated measures of trials, free covariances of the visits: fit and summary.

The trials are simulated in the shapes of mmrm's two data sets: 200 subjects with 4 visits, of which a third
is missing here and there, and 1,000 subjects with 10 visits, some 8,600 rows, from which subjects drop out
or visits are missed. Every measurement is a process of its own without stored programs, of model, fit and
printed summary: the first call finds nothing compiled, of later ones the fastest counts. nlme's gls, where R
has it, judges the criterion of the small trial.

mmrm's seconds are its own, for the fit of its data on its machine: 56.15 ms and 3.36 s, the medians of the
convergence times in its vignette "Comparison with other software", cran.r-project.org/package=mmrm.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.isolated import isolated
from benchmarks.harness.processes import PeerError, numbers
from benchmarks.harness.text import count, duration, markdown, ratio, small_number
from benchmarks.harness.timing import timed
from benchmarks.harness.workload import Options, Record, Workload, register

GLS = """
suppressMessages(library(nlme)); options(digits = 15)
d <- read.csv(commandArgs(TRUE)[1], stringsAsFactors = TRUE); d$v <- as.integer(d$visit)
s <- system.time(m <- gls(y ~ base + race + arm * visit, d, correlation = corSymm(form = ~ v | id),
  weights = varIdent(form = ~ 1 | visit)))[["elapsed"]]
cat(s, -2 * as.numeric(logLik(m)))
"""

FORMULA = "y ~ base + race + arm * visit"
TRIALS = {
    "FEV: 200 × 4, visits missed": (200, 4, "missed", 0.05615),
    "BCVA: 1,000 × 10, dropout": (1000, 10, "dropout", 3.36),
    "BCVA: 1,000 × 10, visits missed": (1000, 10, "missed", 3.36),
}
"""Subjects, visits, what is missing, and seconds that mmrm states."""


def trial(subjects: int, visits: int, missing: str) -> pd.DataFrame:
    """Two arms, three races, a baseline, and visits whose variances grow, correlated the more the nearer."""
    rng = np.random.default_rng(12)
    time = np.arange(visits)
    sd = 4.0 + 0.3 * time
    correlation = 0.3 + 0.7 * np.exp(-np.abs(np.subtract.outer(time, time)) / 4.0)
    e = rng.standard_normal((subjects, visits)) @ np.linalg.cholesky(correlation * np.outer(sd, sd)).T
    arm, race = rng.permutation(subjects) % 2, rng.choice(3, subjects, p=[0.5, 0.3, 0.2])
    base = 70.0 + 10.0 * rng.standard_normal(subjects)
    mean = 5.0 + 0.5 * time[None] + 0.2 * np.outer(arm, time)
    y = mean + (0.5 * race - 0.05 * (base - 70.0))[:, None] + e
    if missing == "dropout":
        last = np.where(rng.random(subjects) < 0.28, rng.integers(1, visits, subjects), visits)
        seen = time[None] < last[:, None]
    else:
        seen = rng.random((subjects, visits)) > (0.33 if visits < 10 else 0.14)
    who, when = np.nonzero(seen)
    return pd.DataFrame(
        {
            "id": who,
            "visit": np.array([f"v{k + 1:02d}" for k in time])[when],
            "arm": np.array(["control", "treated"])[arm[who]],
            "race": np.array(["a", "b", "c"])[race[who]],
            "base": base[who],
            "y": y[who, when],
        }
    )


def measured(subjects: int, visits: int, missing: str, ddf: str, repeats: int | None) -> Record:
    """Model, fit and printed summary with these degrees of freedom."""
    import lmmjax as lj

    data = trial(subjects, visits, missing)
    fits: list[Any] = []

    def call() -> str:
        model = lj.lmm(FORMULA, data, residual=lj.Unstructured("visit", group="id"))
        fits.append(model.fit())
        return str(fits[-1].summary(ddf=ddf))

    found = timed(call, repeats or 5)
    fit = fits[-1]
    again = timed(fit.model.fit, repeats or 5)
    facts = {"rows": len(data), "parameters": len(fit.estimate.psi), "deviance": fit.deviance}
    more = {"fit": again.best, "cpu": min(found.processor), "converged": bool(fit.converged)}
    return facts | found.seconds | more


def judged(rscript: str, subjects: int, visits: int, missing: str) -> Record:
    """Seconds and −2ℓᴿ of nlme's gls."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.csv"
        trial(subjects, visits, missing).to_csv(path, index=False, float_format="%.17g")
        try:
            seconds, deviance = numbers([rscript, "-e", GLS], path)
        except PeerError as error:
            return {"note": str(error)}
    return {"gls": seconds, "gls_deviance": deviance}


def run(options: Options) -> Iterator[Record]:
    for name, (subjects, visits, missing, stated) in TRIALS.items():
        if options.small and visits > 4:
            continue
        for ddf in ("satterthwaite", "kenward-roger"):
            options.say(f"W12: {name}, {ddf}")
            shape = {"subjects": subjects, "visits": visits, "missing": missing}
            got = isolated(measured, timeout=options.timeout, **shape, ddf=ddf, repeats=options.repeats)
            record: Record = {"trial": name, "ddf": ddf, "mmrm_states": stated} | shape | got
            if options.r and visits < 10 and ddf == "satterthwaite" and not got["error"]:
                record |= judged(options.r, **shape)
                if "gls" in record:
                    record["excess_over_gls"] = record["deviance"] - record["gls_deviance"]
            yield record


def table(records: list[Record]) -> str:
    """A row a trial and kind of degrees of freedom."""
    columns = ("trial", "df", "rows:", "parameters:", "first:", "warm:", "the fit:", "mmrm states:", "ratio:")

    def cells(got: Record) -> list[str]:
        own = [duration(got["first"]), duration(got["warm"]), duration(got["fit"])]
        note = got.get("note", "")
        if "gls" in got:
            note = f"gls {duration(got['gls'])}, criterion {small_number(got['excess_over_gls'])} from its"
        theirs = [duration(got["mmrm_states"]), ratio(got["mmrm_states"], got["fit"])]
        sizes = [count(got["rows"]), count(got["parameters"])]
        return [got["trial"], got["ddf"], *sizes, *own, *theirs, note]

    return markdown([*columns, "note"], map(cells, records))


register(
    Workload(
        id="W12",
        title="MMRM of 4 and of 10 visits, unstructured: model, fit and summary, first and warm",
        goal="10 visits: ≤ 6 s first, ≤ 0.3 s warm; mmrm states 3.36 s for the fit, on its machine",
        run=run,
        table=table,
    )
)
