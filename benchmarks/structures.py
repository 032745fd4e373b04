"""AR(1) residuals: one long model, and thousands of responses beside nlme.

    python -m benchmarks.structures [--small] [--json FILE] [--rscript Rscript]

The long model has 1,000 subjects × 1,000 times. The batch has 5,000 responses of 50 subjects × 10 times, by
generalised least squares and with a random intercept; nlme's gls and lme are timed on the first 20 and
scaled, and judge their criteria. Of the calls after the first the fastest counts.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lmmjax as lj
from benchmarks.machine import describe
from benchmarks.table import save

NLME = """
suppressMessages(library(nlme)); options(digits = 15)
a <- commandArgs(TRUE); d <- read.csv(a[1]); d$id <- factor(d$id)
y <- as.matrix(read.csv(a[2], header = FALSE)); ar <- corAR1(form = ~ t | id)
one <- function(k) {d$y <<- y[, k]; if (a[3] == "gls") gls(y ~ t, d, correlation = ar) else
  lme(y ~ t, d, random = ~ 1 | id, correlation = ar)}
s <- system.time(f <- sapply(seq_len(ncol(y)), function(k) -2 * as.numeric(logLik(one(k)))))[["elapsed"]]
cat(s / ncol(y), f)
"""
JUDGED = 20


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


def timed(call: Callable[[], Any], repeats: int = 5) -> tuple[dict[str, float], Any]:
    """Seconds of the first call and of the fastest later one, and the result."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - begin)
    return {"first_s": seconds[0], "warm_s": min(seconds[1:])}, result


def long(small: bool) -> dict[str, Any]:
    """One model of a million rows."""
    frame, y = series(0, 1000, 100 if small else 1000, 1)
    begin = time.perf_counter()
    model = lj.lmm("y ~ t + (1 | id)", frame.assign(y=y[:, 0]), residual=lj.AR1("t", group="id"))
    built = time.perf_counter() - begin
    found, fit = timed(model.fit)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"rows": len(frame), "build_s": built, **found, "evaluations": fit.n_iter, "peak_gib": peak}


def many(small: bool, rscript: str) -> list[dict[str, Any]]:
    """Thousands of responses, beside nlme."""
    frame, y = series(1, 50, 10, 600 if small else 5000)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        rows, values = Path(folder) / "rows.csv", Path(folder) / "values.csv"
        frame.to_csv(rows, index=False)
        np.savetxt(values, y[:, :JUDGED], delimiter=",", fmt="%.17g")
        for formula, kind in (("~ t", "gls"), ("~ t + (1 | id)", "lme")):
            model = lj.lmm(formula, frame, residual=lj.AR1("t", group="id"))
            seconds, fits = timed(lambda model=model: model.fit_batch(y))
            command = [rscript, "-e", NLME, str(rows), str(values), kind]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            each, *theirs = (float(v) for v in done.stdout.split())
            gap = float(np.max(fits.estimate.deviance[:JUDGED] - np.array(theirs)))
            found.append(
                {"formula": formula, "responses": y.shape[1], **seconds, "largest_excess_over_nlme": gap}
                | {f"{kind}_s_each": each, "times_nlme": each * y.shape[1] / seconds["warm_s"]}
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rscript", default="Rscript")
    options = parser.parse_args()
    results = {"long": long(options.small), "many": many(options.small, options.rscript)}
    for row in (results["long"], *results["many"]):
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if options.json:
        save(options.json, {"machine": describe(2, 1), **results})


if __name__ == "__main__":
    main()
