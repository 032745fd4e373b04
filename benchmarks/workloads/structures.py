"""AR(1) residuals: one long model, and thousands of responses beside nlme.

The long model has 1,000 subjects × 1,000 times. The batch has 5,000 responses of 50 subjects × 10 times, by
generalised least squares and with a random intercept; nlme's gls and lme are timed on the first 20 and
scaled, and judge their criteria. Of the calls after the first the fastest counts.
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
from benchmarks.harness.text import count, duration, markdown, ratio, small_number
from benchmarks.harness.timing import Timed, timed
from benchmarks.harness.workload import Options, Record, Workload, register
from benchmarks.peers.exchange import peak_mib

NLME = """
suppressMessages(library(nlme)); options(digits = 15)
a <- commandArgs(TRUE); d <- read.csv(a[1]); d$id <- factor(d$id)
y <- as.matrix(read.csv(a[2], header = FALSE)); ar <- corAR1(form = ~ t | id)
one <- function(k) {d$y <<- y[, k]; if (a[3] == "gls") gls(y ~ t, d, correlation = ar) else
  lme(y ~ t, d, random = ~ 1 | id, correlation = ar)}
s <- system.time(f <- sapply(seq_len(ncol(y)), function(k) -2 * as.numeric(logLik(one(k)))))[["elapsed"]]
cat(s / ncol(y), f)
"""
JUDGED, REPEATS = 20, 5


def series(seed: int, subjects: int, times: int, responses: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of subjects at equal times; responses (n, T) with a subject effect and AR(1) errors, ρ = 0.5."""
    rng = np.random.default_rng(seed)
    e = rng.normal(size=(subjects, times, responses))
    for t in range(1, times):
        e[:, t] = 0.5 * e[:, t - 1] + np.sqrt(0.75) * e[:, t]
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(subjects), times), "t": np.tile(np.arange(times), subjects)}
    )
    y = 1 + 0.1 * frame["t"].to_numpy()[:, None] + e.reshape(-1, responses)
    return frame, y + 0.7 * np.repeat(rng.normal(size=(subjects, responses)), times, axis=0)


def long(times: int, repeats: int | None) -> Record:
    """One model of a thousand subjects."""
    import lmmjax as lj

    frame, y = series(0, 1000, times, 1)
    formula = "y ~ t + (1 | id)"
    begin = time.perf_counter()
    model = lj.lmm(formula, frame.assign(y=y[:, 0]), residual=lj.AR1("t", group="id"))
    built = time.perf_counter() - begin
    found = timed(model.fit, repeats or REPEATS)
    more = {"evaluations": found.result.n_iter, "peak_gib": peak_mib() / 1024}
    return {"formula": formula, "rows": len(frame), "build_s": built, **_seconds(found), **more}


def many(formula: str, responses: int, rscript: str, repeats: int | None) -> Record:
    """Thousands of responses, beside nlme."""
    import lmmjax as lj

    frame, y = series(1, 50, 10, responses)
    model = lj.lmm(formula, frame, residual=lj.AR1("t", group="id"))
    found = timed(lambda: model.fit_batch(y), repeats or REPEATS)
    out = {"formula": formula, "rows": len(frame), "responses": responses, **_seconds(found)}
    if not rscript:
        return out
    kind = "lme" if "|" in formula else "gls"
    with tempfile.TemporaryDirectory() as folder:
        rows, values = Path(folder) / "rows.csv", Path(folder) / "values.csv"
        frame.to_csv(rows, index=False)
        np.savetxt(values, y[:, :JUDGED], delimiter=",", fmt="%.17g")
        try:
            each, *theirs = numbers([rscript, "-e", NLME], rows, values, kind)
        except PeerError as error:
            return out | {"note": str(error)}
    gap = float(np.max(found.result.estimate.deviance[:JUDGED] - np.array(theirs)))
    times = {f"{kind}_s_each": each, "times_nlme": each * responses / found.best}
    return out | {"largest_excess_over_nlme": gap} | times


def _seconds(found: Timed) -> Record:
    return {"first_s": found.first, "warm_s": found.best}


def run(options: Options) -> Iterator[Record]:
    times, responses = 100 if options.small else 1000, options.size(5000, 600)
    options.say(f"structures: 1,000 subjects × {times:,} times")
    yield isolated(long, timeout=options.timeout, times=times, repeats=options.repeats)
    for formula in ("~ t", "~ t + (1 | id)"):
        options.say(f"structures: {responses:,} responses, {formula}")
        facts = {"formula": formula, "responses": responses}
        more = {"rscript": options.r, "repeats": options.repeats}
        yield facts | isolated(many, timeout=options.timeout, **facts, **more)


def table(records: list[Record]) -> str:
    """A row a model; nlme's time for all responses."""
    columns = ("formula", "rows:", "responses:", "build:", "first:", "warm:", "nlme:", "× nlme:", "gap:")

    def cells(got: Record) -> list[str]:
        responses = got.get("responses", 1)
        each = got.get("gls_s_each", got.get("lme_s_each"))
        theirs = each * responses if each else None
        times = [duration(got.get("build_s")), duration(got["first_s"]), duration(got["warm_s"])]
        gap = small_number(got.get("largest_excess_over_nlme"))
        compared = [*times, duration(theirs), ratio(theirs, got["warm_s"]), gap]
        return [got["formula"], count(got.get("rows")), count(responses), *compared, got.get("note", "")]

    return markdown([*columns, "note"], map(cells, records))


register(
    Workload(
        id="structures",
        title="AR(1) residuals: a million rows once; 5,000 responses of 500 rows, without and with (1 | id)",
        goal="nlme's gls and lme, 20 responses timed and scaled",
        run=run,
        table=table,
        counted="responses",
    )
)
