"""Large designs, from the data frame to the estimates, beside lme4: its optimum is the judge.

One model at a time, or one batch of which lme4 fits three responses, each in a process of its own: the first
call compiles, of later ones the median counts. No time of ours is shown unless its criterion is at most 1e-6,
or 1e-9 of it, above lme4's; without lme4 a fit rests on its certificate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.judge import tolerance
from benchmarks.harness.processes import PeerError, median, numbers
from benchmarks.harness.spec import spread
from benchmarks.harness.text import count, duration, markdown, ratio, small_number
from benchmarks.harness.timing import Timed, timed
from benchmarks.harness.workload import Record

REPEATS = 5
TIMED = 3
"""Responses of a batch that lme4 fits."""

LMER = """
suppressMessages(library(lme4)); options(digits = 15)
a <- commandArgs(trailingOnly = TRUE)
d <- read.csv(a[1]); for (g in strsplit(a[3], ",")[[1]]) d[[g]] <- factor(d[[g]])
s <- system.time(m <- suppressMessages(lmer(as.formula(a[2]), d, REML = a[4] == "TRUE")))[["elapsed"]]
cat(sprintf("%.6f %.9f %d", s, if (a[4] == "TRUE") REMLcrit(m) else deviance(m), m@optinfo$feval))
"""


@dataclass
class Result:
    """Seconds and criteria of one model; `gap` is ours less lme4's criterion."""

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

    def record(self, ours: Timed) -> Record:
        """Plain data, with our times if the gate is passed."""
        if self.passed:
            self.cold, self.warm = ours.first, ours.median
        return asdict(self)


def one(
    data: pd.DataFrame,
    formula: str,
    *,
    reml: bool,
    groups: str,
    rscript: str,
    repeats: int | None,
    peer: Callable[[Path], tuple[float, float]] | None = None,
) -> Record:
    """A model by lmmjax, by lme4 unless `rscript` is empty, and by one more peer.

    `groups` are the factors, separated by commas. `peer` takes a CSV file and gives seconds and −2ℓ.
    """
    import lmmjax as lj

    ours = timed(lambda: lj.lmm(formula, data).fit(reml=reml), repeats or REPEATS)
    fit = ours.result
    out = Result(formula, "REML" if reml else "ML", len(data), evaluations=fit.n_iter)
    out.passed, out.note = bool(fit.converged), "no lme4; certificate only"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        data.to_csv(path, index=False, float_format="%.17g")
        try:
            if rscript:
                out.lme4, theirs, evaluations = _lmer(rscript, path, formula, groups, reml)
                out.gap, out.lme4_evaluations, out.note = fit.deviance - theirs, int(evaluations), ""
                out.passed = bool(fit.converged and out.gap <= tolerance(np.asarray(theirs)))
        except PeerError as error:
            out.note += f"; {error}"
        try:
            if peer:
                out.mixedlm_rs, theirs = peer(path)
                out.mixedlm_rs_gap = theirs - fit.deviance
        except PeerError as error:
            out.note = "; ".join(part for part in (out.note, str(error)) if part)
    return out.record(ours)


def many(
    data: pd.DataFrame,
    y: np.ndarray,
    formula: str,
    *,
    groups: str,
    rscript: str,
    repeats: int | None,
) -> Record:
    """Responses (n, T) by `fit_batch`; lme4 fits `TIMED` of them by REML, scaled to all."""
    import lmmjax as lj

    def call() -> Any:
        fits = lj.lmm(formula, data).fit_batch(y)
        _ = fits.params, fits.deviance
        return fits

    ours = timed(call, repeats or REPEATS)
    fits, responses = ours.result, y.shape[1]
    out = Result(formula, "REML", len(data), evaluations=int(np.mean(fits.estimate.n_iter)))
    out.passed, out.note = bool(fits.converged.all()), f"{responses:,} responses; certificate only"
    if not rscript:
        return out.record(ours)
    seconds, gaps = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        try:
            for k in spread(responses, TIMED):
                data.assign(y=y[:, k]).to_csv(path, index=False, float_format="%.17g")
                taken, theirs, _ = _lmer(rscript, path, "y " + formula, groups, reml=True)
                seconds.append(taken)
                gaps.append(fits.deviance[k] - theirs)
        except PeerError as error:
            out.note += f"; {error}"
            return out.record(ours)
    out.gap, out.lme4 = float(np.max(gaps)), median(seconds) * responses
    out.passed = bool(out.gap <= 1e-6 and out.passed)
    out.note = f"{responses:,} responses; lme4: {TIMED} timed, scaled"
    return out.record(ours)


def table(records: list[Record]) -> str:
    """A row a model."""
    columns = ("formula", "criterion", "rows:", "first:", "warm:", "lme4:", "× lme4:", "mixedlm-rs:")
    return markdown([*columns, "evaluations:", "lme4's:", "gap:", "gate", "note"], map(_cells, records))


def _cells(got: Record) -> list[str]:
    times = [duration(got[name]) for name in ("cold", "warm", "lme4")]
    return [
        *(got["formula"], got["criterion"], count(got["rows"]), *times),
        *(ratio(got["lme4"], got["warm"]), duration(got["mixedlm_rs"])),
        *(count(got["evaluations"]), count(got["lme4_evaluations"] or None)),
        *(small_number(got["gap"]), "pass" if got["passed"] else "FAIL", got["note"]),
    ]


def _lmer(rscript: str, path: Path, formula: str, groups: str, reml: bool) -> list[float]:
    """Seconds, criterion and evaluations of `lmer` on a CSV file."""
    return numbers([rscript, "-e", LMER], path, formula, groups, str(reml).upper())
