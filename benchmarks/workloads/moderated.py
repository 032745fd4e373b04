"""How often moderated tests reject true hypotheses, for effects within and between groups.

`y ~ arm + x + (1 | g)`: `arm` differs between groups, `x` within them. Residual variances of the responses
are drawn from the prior of moderated tests, with four degrees of freedom; variances between groups are equal,
or multiples of the residual ones. "σ² alone" takes every variance for a multiple of σ²: standard errors times
√(s̃²/σ̂²), with d + d₀ degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, markdown
from benchmarks.harness.workload import Options, Record, Workload, register

DF_PRIOR, VARIANCE = 4.0, 0.5
EFFECTS = {"arm": "between groups", "x": "within groups"}
METHODS = ("not moderated", "moderated", "σ² alone")


@dataclass(frozen=True)
class Case:
    """Groups of so many rows, of which a third is missing at random unless balanced."""

    groups: int
    rows: int
    balanced: bool
    proportional: bool


CASES = [Case(8, 4, b, p) for b in (True, False) for p in (True, False)]
CASES += [Case(20, 6, False, p) for p in (True, False)]


def measure(responses: int, **facts: int | bool) -> Record:
    """Shares of p-values below 5 %, by effect and method."""
    import lmmjax as lj

    case = Case(**facts)  # pyright: ignore[reportArgumentType]
    rng = np.random.default_rng(5)
    n = case.groups * case.rows
    data = pd.DataFrame({"g": np.repeat(np.arange(case.groups), case.rows)})
    data = data.assign(arm=data["g"] % 2.0, x=np.tile(np.arange(case.rows) % 2.0, case.groups))
    data = data if case.balanced else data[rng.random(n) < 0.67]
    sigma2 = VARIANCE * DF_PRIOR / rng.chisquare(DF_PRIOR, responses)
    between = sigma2 if case.proportional else np.full(responses, VARIANCE)
    b = rng.normal(size=(case.groups, responses)) * np.sqrt(between)
    y = b[data["g"]] + rng.normal(size=(len(data), responses)) * np.sqrt(sigma2)
    fits = lj.lmm("~ arm + x + (1 | g)", data).fit_batch(pd.DataFrame(y, index=data.index))
    found = fits.moderate()
    plain, moderated = fits.t_tests(), found.table.set_index("coefficient")
    rates = {}
    for k, name in enumerate(EFFECTS, start=1):
        own = moderated.loc[name]
        alone = plain["t"][:, k] * np.sqrt(own["s2"] / own["s2_post"]).to_numpy()
        p = plain["p"][:, k], own["p"], 2 * stdtr(own["df"] + found.df_prior, -np.abs(alone))
        rates[name] = {method: float(np.mean(one < 0.05)) for method, one in zip(METHODS, p, strict=True)}
    return {"responses": responses, "df_prior": float(found.df_prior), "rates": rates}


def run(options: Options) -> Iterator[Record]:
    for case in CASES[:1] if options.small else CASES:
        options.say(f"moderated: {case}")
        facts = asdict(case)
        size = options.size(10_000, 200)
        yield facts | isolated(measure, timeout=options.timeout, responses=size, **facts)


def table(records: list[Record]) -> str:
    """A row a design and effect."""
    rows = []
    for got in records:
        kind = f"{got['groups']} × {got['rows']}{'' if got['balanced'] else ', a third missing'}"
        for name, place in EFFECTS.items():
            rates = [f"{100 * got['rates'][name][method]:.1f}" for method in METHODS]
            ratio = "equal" if got["proportional"] else "differ"
            rows.append([kind, ratio, place, count(got["responses"]), *rates])
    return markdown(["groups × rows", "ratios", "effect", "responses:", *(f"{m}, %:" for m in METHODS)], rows)


register(
    Workload(
        id="moderated",
        title="size of moderated tests, six small designs, 10,000 responses each",
        goal="5 % of the tests",
        run=run,
        table=table,
        counted="responses",
    )
)
