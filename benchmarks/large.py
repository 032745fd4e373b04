"""W4 to W7: large designs with nested and crossed factors, against lme4 and mixedlm-rs.

    python -m benchmarks.large [W4 W5 W6 W7] [--small] [--json FILE] [--peer-python PYTHON]

One model at a time is fitted from the data frame to the estimates, in this process: first cold (programs are
compiled), then warm (median). lme4 fits the same frame in R. No time of ours is shown
unless its criterion is at most 1e-6, or 1e-9 of it, above lme4's; lme4's own distance from ours is shown.
The two crossed models of W6 have no peer here. InstEval comes from R's lme4.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.judge import tolerance
from benchmarks.machine import describe

REPEATS = 5

LMER = """
suppressMessages(library(lme4)); options(digits = 15)
a <- commandArgs(trailingOnly = TRUE)
d <- read.csv(a[1]); for (g in strsplit(a[3], ",")[[1]]) d[[g]] <- factor(d[[g]])
s <- system.time(m <- suppressMessages(lmer(as.formula(a[2]), d, REML = a[4] == "TRUE")))[["elapsed"]]
cat(sprintf("%.6f %.9f %d", s, if (a[4] == "TRUE") REMLcrit(m) else deviance(m), m@optinfo$feval))
"""

MIXEDLM_RS = """
import sys, time, pandas as pd, mixedlm_rs
d = pd.read_csv(sys.argv[1], dtype={"g": str})
best = 1e9
for _ in range(4):
    t = time.perf_counter()
    f = mixedlm_rs.mixedlm("y ~ x", d, groups="g", re_formula=sys.argv[2]).fit(reml=True)
    best = min(best, time.perf_counter() - t)
print(best, -2 * float(f.llf), 0)
"""


@dataclass
class Result:
    """Seconds and criteria of one model; `gap` is ours less lme4's criterion."""

    workload: str
    formula: str
    criterion: str
    rows: int
    cold: float | None = None
    warm: float | None = None
    evaluations: int = 0
    gap: float | None = None
    passed: bool | None = None
    lme4: float | None = None
    lme4_evaluations: int = 0
    mixedlm_rs: float | None = None
    mixedlm_rs_gap: float | None = None
    note: str = ""


def insteval(rscript: str, small: bool) -> pd.DataFrame:
    """InstEval with numeric 0/1 `service`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "insteval.csv"
        code = f'suppressMessages(library(lme4)); write.csv(InstEval, "{path}", row.names = FALSE)'
        subprocess.run([rscript, "-e", code], check=True, capture_output=True)
        data = pd.read_csv(path)[["y", "s", "d", "dept", "service"]]
    return data[data["s"] <= 300].reset_index(drop=True) if small else data


def pairs(rows: int, groups: int) -> pd.DataFrame:
    """Groups of four rows, with a random intercept and slope."""
    rng = np.random.default_rng(7)
    g = np.sort(np.concatenate([np.arange(groups), rng.integers(0, groups, rows - groups)]))
    x = rng.normal(size=rows)
    y = 1 + 0.5 * x + rng.normal(size=groups)[g] + 0.3 * rng.normal(size=groups)[g] * x
    return pd.DataFrame({"y": y + rng.normal(size=rows), "x": x, "g": [f"g{k}" for k in g]})


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


def one(workload: str, data: pd.DataFrame, formula: str, reml: bool, groups: str, options) -> Result:
    """A model by lmmjax and by its peers."""
    import lmmjax as lj

    out = Result(workload, formula, "REML" if reml else "ML", len(data))
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        fit = lj.lmm(formula, data).fit(reml=reml)
        times.append(time.perf_counter() - start)
    out.evaluations = fit.n_iter
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        data.to_csv(path, index=False, float_format="%.17g")
        if groups:
            arguments = [str(path), formula, groups, str(reml).upper()]
            got = _numbers([options.rscript, "-e", LMER, *arguments])
            out.lme4, theirs, out.lme4_evaluations = got[0], got[1], int(got[2])
            out.gap = fit.deviance - theirs
            out.passed = bool(fit.converged and out.gap <= tolerance(np.asarray(theirs)))
        else:
            out.passed, out.note = fit.converged, "no peer; certificate only"
        if workload == "W7" and options.peer_python:
            effects = "~1" if "(1 | g)" in formula else "~x"
            seconds, theirs, _ = _numbers([options.peer_python, "-c", MIXEDLM_RS, str(path), effects])
            out.mixedlm_rs, out.mixedlm_rs_gap = seconds, theirs - fit.deviance
    if out.passed:
        out.cold, out.warm = times[0], statistics.median(times[1:])
    return out


def trials(subjects: int, items: int) -> pd.DataFrame:
    """Nine tenths of all pairs of subjects and items, in one of two conditions."""
    rng = np.random.default_rng(8)
    pair = np.flatnonzero(rng.random(subjects * items) < 0.9)
    x = rng.integers(0, 2, len(pair)) - 0.5
    return pd.DataFrame({"subject": pair // items, "item": pair % items, "x": x})


def many(
    data: pd.DataFrame, formula: str, sds: dict[str, tuple[float, ...]], responses: int, options
) -> Result:
    """W4: many responses by `fit_batch`; lme4 fits three of them, scaled to all.

    `sds` has those of the intercepts of every factor and, if given, of the slopes of x.
    """
    import lmmjax as lj

    rng = np.random.default_rng(41)
    effects = [
        (sd * rng.normal(size=(data[group].max() + 1, responses)), group, slope)
        for group, both in sds.items()
        for slope, sd in enumerate(both)
    ]
    y = rng.normal(size=(len(data), responses))
    for effect, group, slope in effects:
        y += effect[data[group]] * (data[["x"]].to_numpy() if slope else 1.0)
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        fits = lj.lmm(formula, data).fit_batch(y)
        _ = fits.params, fits.deviance
        times.append(time.perf_counter() - start)
    out = Result("W4", formula, "REML", len(data), evaluations=int(np.mean(fits.estimate.n_iter)))
    seconds, gaps = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        for k in (0, responses // 2, responses - 1):
            data.assign(y=y[:, k]).to_csv(path, index=False, float_format="%.17g")
            got = _numbers([options.rscript, "-e", LMER, str(path), "y " + formula, ",".join(sds), "TRUE"])
            seconds.append(got[0])
            gaps.append(fits.deviance[k] - got[1])
    out.gap, out.lme4 = float(np.max(gaps)), float(np.median(seconds)) * responses
    out.passed = bool(out.gap <= 1e-6 and fits.converged.all())
    out.note = f"{responses:,} responses; lme4: 3 timed, scaled"
    if out.passed:
        out.cold, out.warm = times[0], statistics.median(times[1:])
    return out


def _numbers(command: list[str]) -> list[float]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(v) for v in done.stdout.split()[-3:]]


def w4(options) -> list[Result]:
    nested = families(1_000 if options.small else 10_000)
    intercepts, slopes = "~ x + (1 | subject) + (1 | item)", "~ x + (1 + x | subject) + (1 + x | item)"
    own = {"family": (0.7,), "subject": (1.0,)}
    crossed, both = {"subject": (0.5,), "item": (0.3,)}, {"subject": (0.5, 0.3), "item": (0.3, 0.2)}
    few = 600 if options.small else 2_000
    return [
        many(nested, "~ age + sex + (1 | family/subject)", own, 600 if options.small else 20_484, options),
        many(trials(30, 24), intercepts, crossed, 600 if options.small else 20_000, options),
        many(trials(30, 24), slopes, both, few, options),
        many(trials(100, 200), intercepts, crossed, few, options),
    ]


def w5(options) -> list[Result]:
    data = insteval(options.rscript, options.small)
    two = "y ~ 1 + (1 | s) + (1 | d)"
    four = "y ~ service + (1 | s) + (1 | d) + (1 | dept) + (0 + service | dept)"
    cases = [(f, g, reml) for f, g in ((two, "s,d"), (four, "s,d,dept")) for reml in (True, False)]
    return [one("W5", data, f, reml, g, options) for f, g, reml in cases]


def w6(options) -> list[Result]:
    sizes = (
        [(20_000, 2_000, 300)] if options.small else [(200_000, 20_000, 2_000), (1_000_000, 50_000, 5_000)]
    )
    crossed = "y ~ x + (1 | user) + (1 | item)"
    nested = "y ~ x + (1 | klass) + (1 | pupil) + (1 | item)"
    return [
        *(one("W6", heavy_tailed(*s), crossed, True, "", options) for s in sizes),
        one("W6", pupils(20_000 if options.small else 1_000_000), nested, True, "klass,pupil,item", options),
    ]


def w7(options) -> list[Result]:
    data = pairs(20_000, 5_000) if options.small else pairs(500_264, 125_066)
    return [one("W7", data, f"y ~ x + ({e} | g)", True, "g", options) for e in ("1", "1 + x")]


WORKLOADS: dict[str, Callable] = {
    "W4": w4,
    "W5": w5,
    "W6": w6,
    "W7": w7,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--peer-python", default="")
    parser.add_argument("--rscript", default="Rscript")
    options = parser.parse_args()
    results = []
    for name in options.workloads:
        for got in WORKLOADS[name.upper()](options):
            results.append(got)
            shown = {k: v for k, v in asdict(got).items() if v not in (None, "")}
            print(json.dumps(shown), flush=True)
    if options.json:
        record = {"machine": describe(cores=2, threads=2), "results": [asdict(r) for r in results]}
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
