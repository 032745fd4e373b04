"""W10: bootstrap refits, profile intervals and Kenward-Roger's degrees of freedom, beside lme4 and pbkrtest.

Every measurement is a process of its own; of the calls after the first the fastest counts, on both sides. The
fit itself is not timed. bootMer is timed with 200 replicates and scaled. pbkrtest forms n × n matrices,
sparse where groups are small; InstEval's, of crossed factors, would be dense, and are not asked of it.
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
from benchmarks.harness.real import insteval
from benchmarks.harness.text import count, duration, markdown, ratio
from benchmarks.harness.timing import timed
from benchmarks.harness.workload import Options, Record, Workload, register

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

SLOPES, RATINGS = "y ~ t * arm + (1 + t | patient)", "y ~ service + (1 | s) + (1 | d)"


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


def bootstrap(replicates: int, repeats: int | None) -> Record:
    """Refits of responses simulated from sleepstudy's model."""
    import jax

    fit = _sleepstudy()
    keys = iter(range(1_000))
    found = timed(lambda: fit.bootstrap(jax.random.key(next(keys)), replicates), repeats or 10, 30.0)
    return {**found.seconds, "converged": float(found.result.converged.mean())}


def profile(repeats: int | None) -> Record:
    """Profile intervals of sleepstudy's six parameters, model and fit not counted."""
    repeats = repeats or 10
    # a fit keeps its refit by maximum likelihood; `timed` calls once more than it times
    fits = [_sleepstudy() for _ in range(repeats + 2)]
    found = timed(lambda: fits.pop().conf_int("profile", which="all"), repeats, 30.0)
    return {**found.seconds, "limits": found.result.T.to_dict("list")}


def degrees_of_freedom(file: str, formula: str, repeats: int | None) -> Record:
    """`fit`, then `coef_table` by Kenward and Roger, and by Satterthwaite, of a model of a CSV file."""
    import lmmjax as lj

    data = pd.read_csv(file)
    methods, repeats = ("kenward-roger", "satterthwaite"), repeats or 3
    fits: list[Any] = []
    needed = (repeats + 2) * len(methods)
    fit = timed(lambda: fits.append(lj.lmm(formula, data).fit()), needed - 2)
    out: Record = {"rows": len(data), "fit": {"first": fit.first, "warm": fit.best}}
    for ddf in methods:
        found = timed(lambda ddf=ddf: fits.pop().coef_table(ddf), repeats)
        out[ddf] = {"first": found.first, "warm": found.best, **found.result[["df", "se"]].to_dict()}
    return out


def _sleepstudy() -> Any:
    import lmmjax as lj
    from lmmjax.datasets import load

    return lj.lmm("Reaction ~ Days + (Days | Subject)", load("sleepstudy")).fit()


def of_r(options: Options, program: str, *arguments: object) -> tuple[list[float], Record]:
    """What an R program printed, nothing without R; and a note if it could not run."""
    if not options.r:
        return [], {}
    try:
        return numbers([options.r, "-e", program], *arguments), {}
    except PeerError as error:
        return [], {"note": str(error)}


def bootstraps(options: Options) -> Iterator[Record]:
    """Every number of replicates, beside bootMer's time for as many."""
    each, note = of_r(options, BOOTMER, 20 if options.small else 200)
    for n in (100,) if options.small else (1_000, 10_000):
        options.say(f"W10: {n:,} bootstrap refits")
        own = isolated(bootstrap, timeout=options.timeout, replicates=n, repeats=options.repeats)
        theirs = {"bootmer": each[0] * n} if each else {}
        yield {"what": "bootstrap", "replicates": n} | own | theirs | note


def profiles(options: Options) -> Iterator[Record]:
    """Seconds of both; the largest difference of a limit, in widths of its interval."""
    options.say("W10: profile intervals")
    got = {"what": "profile"} | isolated(profile, timeout=options.timeout, repeats=options.repeats)
    theirs, note = of_r(options, CONFINT)
    if theirs and not got["error"]:
        limits = np.reshape(theirs[1:], (-1, 2))
        # lme4: sd, cor, sd, sigma, coefficients
        mine = np.array(list(got["limits"].values()))[[0, 2, 1, 3, 4, 5]]
        apart = np.abs(mine - limits) / np.diff(limits, axis=1)
        got |= {"confint": theirs[0], "largest_difference_in_widths": float(apart.max())}
    yield got | note


def kenward_roger(options: Options) -> Iterator[Record]:
    """Of a longitudinal design, by pbkrtest too, and of InstEval."""
    data = trial(3_000 if options.small else 70_000)
    frames = [(data[:rows], SLOPES) for rows in ((500, 3_000) if options.small else (1_000, 8_000, 70_000))]
    for frame, formula in [*frames, (insteval(small=options.small), RATINGS)]:
        options.say(f"W10: {formula}, {len(frame):,} rows")
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "data.csv")
            frame.to_csv(path, index=False, float_format="%.17g")
            call = {"file": path, "formula": formula, "repeats": options.repeats}
            got = isolated(degrees_of_freedom, timeout=options.timeout, **call)
            theirs, note = of_r(options, PBKRTEST, path, formula) if formula == SLOPES else ([], {})
        if theirs and not got["error"]:
            seconds, peak, *df = theirs
            own = np.array(list(got["kenward-roger"]["df"].values()))
            got |= {"pbkrtest": seconds, "pbkrtest_peak_mib": peak}
            got["df_apart"] = float(np.max(np.abs(own / np.array(df) - 1)))
        yield {"what": "degrees of freedom", "formula": formula} | got | note


def run(options: Options) -> Iterator[Record]:
    yield from bootstraps(options)
    yield from profiles(options)
    yield from kenward_roger(options)


def table(records: list[Record]) -> str:
    """A row a measurement."""
    columns = ("what", "first:", "warm:", "peak, MiB:", "R:", "R, peak MiB:", "ratio:", "agreement")
    return markdown(columns, map(_cells, records))


def _cells(got: Record) -> list[str]:
    times, peak, note = got, "", got.get("note", "")
    if got["what"] == "bootstrap":
        what, theirs = f"{got['replicates']:,} bootstrap refits of sleepstudy", got.get("bootmer")
    elif got["what"] == "profile":
        what, theirs = "profile intervals, six parameters of sleepstudy", got.get("confint")
        if theirs:
            note = f"limits {got['largest_difference_in_widths']:.0e} of the widths apart"
    else:
        what = f"Kenward-Roger, `{got['formula']}`, {got['rows']:,} rows"
        what += f" (the fit: {duration(got['fit']['warm'])})"
        times, theirs = got["kenward-roger"], got.get("pbkrtest")
        if theirs:
            note, peak = f"df {got['df_apart']:.0e} apart, relative", count(got["pbkrtest_peak_mib"])
    own = [duration(times["first"]), duration(times["warm"]), count(got["peak_mib"])]
    return [what, *own, duration(theirs), peak, ratio(theirs, times["warm"]), note]


register(
    Workload(
        id="W10",
        title="1,000 and 10,000 bootstrap refits, profile intervals, Kenward-Roger of up to 73,421 rows",
        goal="lme4's bootMer and confint, pbkrtest; limits and degrees of freedom beside theirs",
        run=run,
        table=table,
    )
)
