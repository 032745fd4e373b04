"""W10: bootstrap refits, profile intervals and Kenward-Roger's degrees of freedom, beside lme4 and pbkrtest.

    python -m benchmarks.inference [--small] [--json FILE] [--rscript Rscript]

Every measurement is a process of its own; of the calls after the first the fastest counts, on both sides. The
fit itself is not timed. bootMer is timed with 200 replicates and scaled. pbkrtest forms n × n matrices,
sparse where groups are small; InstEval's, of crossed factors, would be dense, and are not asked of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.large import insteval
from benchmarks.machine import describe
from benchmarks.processes import pin, run
from benchmarks.table import duration, save

BOOTMER = """
suppressMessages(library(lme4))
m <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
f <- function(m) c(fixef(m), as.data.frame(VarCorr(m))$sdcor)
n <- as.integer(commandArgs(TRUE)[1])
s <- replicate(2, system.time(suppressMessages(suppressWarnings(bootMer(m, f, n))))[["elapsed"]])
cat(min(s) / n)
"""

CONFINT = """
suppressMessages(library(lme4)); options(digits = 15)
m <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
s <- replicate(3, system.time(ci <<- suppressMessages(confint(m, oldNames = FALSE)))[["elapsed"]])
cat(min(s), t(ci))
"""

PBKRTEST = """
suppressMessages({library(lme4); library(pbkrtest)}); options(digits = 15)
a <- commandArgs(TRUE); d <- read.csv(a[1])
m <- lmer(as.formula(a[2]), d)
invisible(gc(reset = TRUE))
s <- system.time({v <- vcovAdj(m); df <- sapply(seq_along(fixef(m)), function(i)
  get_Lb_ddf(m, replace(numeric(length(fixef(m))), i, 1)))})[["elapsed"]]
cat(s, sum(gc()[, 6]), df)
"""


def trial(rows: int) -> pd.DataFrame:
    """Three to eleven visits of each patient, in two arms, with random intercepts and slopes."""
    rng = np.random.default_rng(10)
    visits = rng.integers(3, 12, rows)
    patient = np.repeat(np.arange(rows), visits)[:rows]
    arm = rng.integers(0, 2, rows)[patient]
    t = rng.uniform(0, 5, rows)
    b = rng.normal(size=(2, rows))
    y = 1 + 0.1 * t + 0.05 * arm * t + b[0, patient] + 0.3 * b[1, patient] * t + rng.normal(size=rows)
    return pd.DataFrame({"y": y, "t": t, "arm": arm, "patient": patient})


def ours(what: str, **options: object) -> dict[str, Any]:
    """A measurement of `benchmarks.measured`."""
    command = [sys.executable, "-m", "benchmarks.measured", f"what={what}", "data=."]
    outcome = run([*command, *(f"{k}={v}" for k, v in options.items())], timeout=900.0)
    return {"load": os.getloadavg()[0], "error": outcome.error} | (outcome.result or {})


def numbers(rscript: str, program: str, *arguments: object) -> list[float]:
    """What an R program printed."""
    command = [rscript, "-e", program, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900.0)
    return [float(v) for v in done.stdout.split()]


def bootstrap(options: argparse.Namespace) -> dict[str, Any]:
    each = numbers(options.rscript, BOOTMER, 20 if options.small else 200)[0]
    return {
        str(n): ours("bootstrap", replicates=n) | {"bootmer": each * n}
        for n in ((100,) if options.small else (1_000, 10_000))
    }


def profile(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both; the largest difference of a limit, in widths of its interval."""
    got = ours("profile")
    theirs = numbers(options.rscript, CONFINT)
    limits = np.reshape(theirs[1:], (-1, 2))
    # lme4: sd, cor, sd, sigma, coefficients
    mine = np.array(list(got["limits"].values()))[[0, 2, 1, 3, 4, 5]]
    apart = np.abs(mine - limits) / np.diff(limits, axis=1)
    return got | {"confint": theirs[0], "largest_difference_in_widths": float(apart.max())}


def degrees_of_freedom(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Of a longitudinal design, by pbkrtest too, and of InstEval."""
    data = trial(3_000 if options.small else 70_000)
    slopes = "y ~ t * arm + (1 + t | patient)"
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"

        def measure(frame: pd.DataFrame, formula: str, *, peer: bool = False) -> None:
            frame.to_csv(path, index=False, float_format="%.17g")
            found.append({"formula": formula} | ours("degrees_of_freedom", file=path, formula=formula))
            if peer:
                seconds, peak, *df = numbers(options.rscript, PBKRTEST, path, formula)
                own = np.array(list(found[-1]["kenward-roger"]["df"].values()))
                found[-1] |= {"pbkrtest": seconds, "pbkrtest_peak_mib": peak}
                found[-1]["df_apart"] = float(np.max(np.abs(own / np.array(df) - 1)))

        for rows in (500, 3_000) if options.small else (1_000, 8_000, 70_000):
            measure(data[:rows], slopes, peer=True)
        measure(insteval(options.rscript, options.small), "y ~ service + (1 | s) + (1 | d)")
    return found


def show(got: dict[str, Any]) -> str:
    """The Markdown table."""
    rows = [
        "| what | first | warm | peak, MiB | R | R, peak MiB | ratio | agreement |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]

    def add(what: str, own: dict[str, Any], times: dict[str, Any], theirs: str, peak: str, note: str) -> None:
        ratio = f"{own[theirs] / times['warm']:,.0f}" if theirs in own else ""
        other = duration(own.get(theirs))
        cells = [what, duration(times["first"]), duration(times["warm"]), f"{own['peak_mib']:,.0f}"]
        rows.append(f"| {' | '.join([*cells, other, peak, ratio, note])} |")

    for n, own in got.get("bootstrap", {}).items():
        add(f"{int(n):,} bootstrap refits of sleepstudy", own, own, "bootmer", "", "")
    if "profile" in got:
        own = got["profile"]
        note = f"limits {own['largest_difference_in_widths']:.0e} of the widths apart"
        add("profile intervals, six parameters of sleepstudy", own, own, "confint", "", note)
    for own in got.get("degrees_of_freedom", []):
        formula = own["formula"].replace("|", "\\|")
        what = f"Kenward-Roger, `{formula}`, {own['rows']:,} rows (the fit: {duration(own['fit']['warm'])})"
        note = f"df {own['df_apart']:.0e} apart, relative" if "pbkrtest" in own else ""
        peak = f"{own['pbkrtest_peak_mib']:,.0f}" if "pbkrtest" in own else ""
        add(what, own, own["kenward-roger"], "pbkrtest", peak, note)
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rscript", default="Rscript")
    options = parser.parse_args()
    cores = pin(2, 1)
    got: dict[str, Any] = {"machine": describe(cores, 1)}
    for part in (bootstrap, profile, degrees_of_freedom):
        got[part.__name__] = part(options)
        if options.json:
            save(options.json, got)
    print(show(got))


if __name__ == "__main__":
    main()
