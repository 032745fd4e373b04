"""How time and memory of a batch grow with responses, groups and random effects.

`y ~ t + x1 + x2 + (… | g)` by REML, groups of 6, 8 and 10 rows, or of 8 with the same covariates in every
group ("repeated"). Every cell is a process of its own: the first call compiles, of the later ones the fastest
counts, and the peak is of the whole process, responses included. Some responses of every cell are judged as
in the other benchmarks; no time is shown if one is off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.covariances import lower_triangles
from benchmarks.harness.isolated import isolated
from benchmarks.harness.judge import Judge
from benchmarks.harness.simulate import UNBALANCED
from benchmarks.harness.spec import Model, Term, spread
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.timing import timed
from benchmarks.harness.workload import Options, Record, Workload, register
from benchmarks.peers.exchange import peak_mib

AXES = ("responses", "groups", "effects")
COVARIATES = ["t", "x1", "x2"]
BUDGET = 30.0


@dataclass(frozen=True)
class Cell:
    """T responses on G groups with q random effects; `checked` of them are judged."""

    axis: str
    responses: int
    groups: int
    q: int = 1
    repeated: bool = False
    checked: int = 5
    repeats: int = 7

    @property
    def effects(self) -> list[str]:
        return ["1", *COVARIATES][: self.q]

    @property
    def term(self) -> Term:
        return Term(" + ".join(self.effects), "g")


def cells(*, small: bool) -> list[Cell]:
    """The table; `small` leaves out all but the least of each kind."""
    by_responses = [Cell("responses", 10**k, 100) for k in range(6)]
    by_groups = [
        Cell("groups", 100, 10**k, q, checked=2 if k < 5 else 1) for q in (1, 2) for k in range(1, 6)
    ]
    by_effects = [
        Cell("effects", 2_000, 100, q, repeated) for repeated in (False, True) for q in (1, 2, 3, 4)
    ]
    everything = [by_responses, by_groups, by_effects]
    return [cell for group in everything for cell in (group[:2] if small else group)]


def design(groups: int, *, repeated: bool) -> pd.DataFrame:
    """Groups of 6, 8 and 10 rows, or of 8 rows with the same covariates in each if `repeated`."""
    rng = np.random.default_rng(51)
    sizes = np.full(groups, 8) if repeated else np.resize(UNBALANCED[:3], groups)
    code = np.repeat(np.arange(groups), sizes)
    x = np.tile(rng.normal(size=(8, 3)), (groups, 1)) if repeated else rng.normal(size=(len(code), 3))
    return pd.DataFrame(x, columns=COVARIATES).assign(g=code)


def simulated(data: pd.DataFrame, effects: list[str], responses: int) -> np.ndarray:
    """y (n, T), Fortran order: the first random effect has sd 0.7, every further one 0.4; σ = 1."""
    rng = np.random.default_rng(52)
    code, groups = data["g"].to_numpy(), int(data["g"].max()) + 1
    y = np.empty((responses, len(data)))
    for one in y:
        one[:] = rng.normal(size=len(data))
        for k, effect in enumerate(effects):
            b = (0.4 if k else 0.7) * rng.normal(size=groups)
            one += b[code] * (1.0 if effect == "1" else data[effect].to_numpy())
    return y.T


def measure(**facts: Any) -> Record:
    """A cell, from `lmm(formula, data)` to its deviances, judged in at most `checked` of its responses."""
    import lmmjax as lj

    cell = Cell(**facts)
    data = design(cell.groups, repeated=cell.repeated)
    y = simulated(data, cell.effects, cell.responses)
    model = Model(fixed="t + x1 + x2", terms=(cell.term,))

    def call() -> Any:
        fits = lj.lmm(model.formula, data).fit_batch(y)
        _ = fits.params, fits.deviance
        return fits

    before = peak_mib()
    found = timed(call, cell.repeats, BUDGET)
    fits, peak = found.result, peak_mib()
    judge, gaps = Judge.of(model, data), []
    for k in spread(y.shape[1], cell.checked):
        cov = np.array(lower_triangles(fits[k].varcorr()))
        gaps.append(judge.response(y[:, k]).gap(cov, fits[k].scale, fits[k].deviance))
    return {
        "rows": len(data),
        **found.seconds,
        "iterations": float(np.mean(fits.estimate.n_iter)),
        "converged": float(fits.converged.mean()),
        "gap_in_tolerances": max(gaps),
        "data_mib": y.nbytes / 2**20,
        "before_mib": before,
        "peak_fit_mib": peak,
    }


def run(options: Options) -> Iterator[Record]:
    for cell in cells(small=options.small):
        if cell.axis in options.extra["axis"]:
            facts = asdict(cell) | ({"repeats": options.repeats} if options.repeats else {})
            options.say(f"growth: {cell.responses:,} responses, {cell.groups:,} groups, {cell.term}")
            yield facts | {"term": str(cell.term)} | isolated(measure, timeout=options.timeout, **facts)


def table(records: list[Record]) -> str:
    """A table for every axis."""
    columns = ["responses:", "groups:", "random", "rows:", "first:", "warm:", "per fit:", "iterations:"]
    columns += ["responses, MiB:", "peak, MiB:"]
    parts = [[r for r in records if r["axis"] == axis] for axis in AXES]
    return "\n\n".join(markdown(columns, map(_cells, part)) for part in parts if part)


def _cells(got: Record) -> list[str]:
    random = f"`{got['term']}`" + (", repeated" if got["repeated"] else "")
    head = [count(got["responses"]), count(got["groups"]), random, count(got["rows"])]
    if not (got["gap_in_tolerances"] <= 1 and got["converged"] == 1):
        return [*head, "off the optimum", *[""] * 5]
    times = (got["first"], got["warm"], got["warm"] / got["responses"])
    sizes = (got["data_mib"], got["peak_fit_mib"])
    return [*head, *map(duration, times), f"{got['iterations']:.1f}", *map(count, sizes)]


register(
    Workload(
        id="growth",
        title="time and memory by responses and groups (up to 100,000 each) and random effects (1 to 4)",
        goal="itself; the judge's optimum",
        run=run,
        table=table,
        extras={"axis": {"nargs": "+", "choices": AXES, "default": AXES, "help": "axes to measure"}},
    )
)
