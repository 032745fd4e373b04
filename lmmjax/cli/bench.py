"""The command `lmmjax bench`: how long fits take on this machine, the first and the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import jax
import numpy as np
import pandas as pd
import typer

import lmmjax
from lmmjax.cli.common import FAILED, JsonFile, one_line_errors, seconds, waiting, write_json
from lmmjax.fitted import require_known
from lmmjax.stream.files import target

EXAMPLES = """Examples

lmmjax bench

lmmjax bench --only intercepts --only slopes --responses 20000 --json bench.json"""

REPEATS = 3
"""Calls after the first, of which the fastest counts."""


def _repeated(groups: int, rows: int, responses: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Groups with rows at times 0, 1, …, and responses (n, T) with random intercepts and slopes."""
    rng = np.random.default_rng(1)
    g, t = np.repeat(np.arange(groups), rows), np.tile(np.arange(float(rows)), groups)
    b = rng.normal(size=(2, groups, responses))
    y = 1.0 + 0.5 * t[:, None] + b[0, g] + 0.3 * t[:, None] * b[1, g]
    return pd.DataFrame({"t": t, "g": g}), y + rng.normal(size=y.shape)


def _one(formula: str, responses: int) -> Callable[[], np.ndarray]:
    data, y = _repeated(18, 10, 1)
    model = lmmjax.lmm(f"y {formula}", data.assign(y=y[:, 0]))
    return lambda: np.array([model.fit().converged])


def _many(formula: str, responses: int) -> Callable[[], np.ndarray]:
    data, y = _repeated(100, 8, responses)
    model = lmmjax.lmm(formula, data)
    return lambda: np.asarray(model.fit_batch(y).converged)


def _crossed(formula: str, responses: int) -> Callable[[], np.ndarray]:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 500, 10_000), rng.integers(0, 100, 10_000)
    y = rng.normal(size=500)[a] + rng.normal(size=100)[b] + rng.normal(size=10_000)
    model = lmmjax.lmm(f"y {formula}", {"y": y, "a": a, "b": b})
    return lambda: np.array([model.fit().converged])


WORKLOADS: dict[str, tuple[str, str, Callable[[str, int], Callable[[], np.ndarray]]]] = {
    "one": ("one fit, 180 rows in 18 groups", "~ t + (t | g)", _one),
    "crossed": ("one fit, 10,000 rows, 500 and 100 groups crossed", "~ 1 + (1 | a) + (1 | b)", _crossed),
    "intercepts": ("many fits, 800 rows in 100 groups", "~ t + (1 | g)", _many),
    "slopes": ("many fits, 800 rows in 100 groups", "~ t + (t | g)", _many),
}
"""By name: what it is, the formula, and from the formula and a number of responses to what is timed."""


def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"One of: {', '.join(WORKLOADS)}. Repeatable; by default all.", metavar="NAME"),
    ] = None,
    responses: Annotated[int, typer.Option(help="Responses of the workloads with many.", min=1)] = 2000,
    json_file: JsonFile = None,
) -> None:
    """Time fits of simulated data on this machine: the first call, with compilation, and the next.

    Programs that were compiled before and kept make the first call short:
    LMMJAX_CACHE=0 lmmjax bench times it without.
    Benchmarks beside lme4 and others are in the repository, in benchmarks/.
    """
    with one_line_errors():
        require_known("workload", only or [], WORKLOADS)
        json_file = None if json_file is None else target(json_file, [], "--json")
        device = jax.local_devices()[0]
        typer.echo(f"lmmjax {lmmjax.__version__}, jax {jax.__version__}, {device.device_kind}\n")
        typer.echo(f"{'':12}{'formula':26}{'fits':>8}{'first':>10}{'next':>10}{'a fit':>10}{'converged':>11}")
        found = []
        for name in only or WORKLOADS:
            row = _timed(name, responses)
            found.append(row)
            times = [seconds(row[key]) for key in ("first_s", "next_s", "per_fit_s")]
            typer.echo(
                f"{name:12}{row['formula']:26}{row['fits']:8,}"
                + "".join(f"{t:>10}" for t in times)
                + f"{row['converged']:>11.1%}"
            )
        if json_file is not None:
            write_json(
                json_file, {"lmmjax": lmmjax.__version__, "device": device.device_kind, "workloads": found}
            )
    if any(row["converged"] < 1 for row in found):
        raise typer.Exit(FAILED)


def _timed(name: str, responses: int) -> dict[str, Any]:
    """Seconds of the first call and of the fastest after it, and the share of fits that converged."""
    what, formula, make = WORKLOADS[name]
    with waiting(f"{name}: {what}"):
        call, times = make(formula, responses), []
        for _ in range(1 + REPEATS):
            begin = time.perf_counter()
            converged = call()
            times.append(time.perf_counter() - begin)
    best, fits = min(times[1:]), len(converged)
    return {
        "name": name,
        "what": what,
        "formula": formula,
        "fits": fits,
        "first_s": times[0],
        "next_s": best,
        "per_fit_s": best / fits,
        "converged": float(np.mean(converged)),
    }
