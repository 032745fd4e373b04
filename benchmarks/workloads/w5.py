"""W5: InstEval, 73,421 ratings of lecturers by students, crossed factors, beside lme4."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import large
from benchmarks.harness.isolated import isolated
from benchmarks.harness.real import insteval
from benchmarks.harness.workload import Options, Record, Workload, register

TWO = "y ~ 1 + (1 | s) + (1 | d)"
FOUR = "y ~ service + (1 | s) + (1 | d) + (1 | dept) + (0 + service | dept)"


def measure(formula: str, groups: str, reml: bool, small: bool, rscript: str, repeats: int | None) -> Record:
    """One model of InstEval."""
    data = insteval(small=small)
    return large.one(data, formula, reml=reml, groups=groups, rscript=rscript, repeats=repeats)


def run(options: Options) -> Iterator[Record]:
    for formula, groups in ((TWO, "s,d"), (FOUR, "s,d,dept")):
        for reml in (True, False):
            options.say(f"W5: {formula}, {'REML' if reml else 'ML'}")
            facts = {"formula": formula, "groups": groups, "reml": reml}
            more = {"small": options.small, "rscript": options.r, "repeats": options.repeats}
            yield facts | isolated(measure, timeout=options.timeout, **facts, **more)


register(
    Workload(
        id="W5",
        title="InstEval, 73,421 rows, two crossed factors, then three with slopes; REML and ML",
        goal="lme4; criteria at most 1e-6 (1e-9 of it) above its own",
        run=run,
        table=large.table,
    )
)
