"""The command `lmmjax demo`: one model, then many responses simulated from its fit."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import Annotated

import jax
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import lmmjax
from lmmjax import BatchFit, Fit, Model
from lmmjax.cli.common import counting, one_line_errors, seconds, waiting
from lmmjax.datasets import SOURCES, load

EXAMPLES = """Examples

lmmjax demo

lmmjax demo --responses 100000"""

CHUNK = 2048
"""Most responses of the demonstration that are fitted between two moves of the progress bar."""


def demo(
    responses: Annotated[int, typer.Option(help="Responses to simulate and fit.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
) -> None:
    """Fit sleepstudy, then many responses simulated on its design, and say what happened."""
    console = Console(highlight=False)
    with one_line_errors():
        model, one = _demo_one(console)
        _demo_many(console, model, one, responses, seed)


def _demo_one(console: Console) -> tuple[Model, Fit]:
    data = load("sleepstudy")
    console.rule("One model")
    console.print(f"Data: {SOURCES['sleepstudy'].about}.\n")
    model = lmmjax.lmm("Reaction ~ Days + (Days | Subject)", data)
    begin = time.perf_counter()
    with waiting("fitting"):
        result = model.fit()
    first = time.perf_counter() - begin
    typer.echo(str(result.summary()))
    begin = time.perf_counter()
    model.fit()
    again = time.perf_counter() - begin
    console.print(
        f"\nThe first fit took {seconds(first)}, compilation included; the next {seconds(again)}.\n"
    )
    return model, result


def _demo_many(console: Console, model: Model, truth: Fit, responses: int, seed: int) -> None:
    console.rule("Many responses")
    console.print(
        f"Now {responses:,} new responses, simulated from this fit on the same subjects and days. "
        "The model is fitted by REML to every one of them, each to its own optimum.\n"
    )
    simulated = truth.simulate(jax.random.key(seed), responses)
    edges = np.linspace(0, responses, math.ceil(responses / CHUNK) + 1).astype(int)
    chunks = [simulated.iloc[:, a:b] for a, b in pairwise(edges)]

    def fit_all(what: str) -> tuple[list[BatchFit], float]:
        begin, batches = time.perf_counter(), []
        with counting(what) as show:
            for end, chunk in zip(edges[1:], chunks, strict=True):
                batches.append(model.fit_batch(chunk))
                show(int(end), responses)
        return batches, time.perf_counter() - begin

    _, first = fit_all("compiling and fitting")
    batches, again = fit_all("fitting again")
    console.print(
        f"{responses:,} fits took {seconds(first)} with compilation, and {seconds(again)} when done again: "
        f"{seconds(again / responses)} per fit."
    )
    converged = sum(int(b.converged.sum()) for b in batches)
    singular = sum(int(b.is_singular.sum()) for b in batches)
    console.print(
        f"{converged:,} of them converged: gradient and Newton decrement are below tolerance. "
        f"{singular:,} lie on the boundary (a variance estimated as 0, or a correlation as ±1).\n"
    )
    alone = model.fit_response(simulated[0].to_numpy())
    difference = abs(alone.deviance - float(batches[0].deviance[0]))
    console.print(
        f"The first response fitted by itself has the same REML criterion, {alone.deviance:.4f} "
        f"(difference {difference:.0e}).\n"
    )
    console.print("How the estimates agree with the truth that the responses were simulated from:\n")
    console.print(_recovery(truth, batches))
    groups = model.data.design.terms[0].n_groups
    console.print(
        "\nCoverage is the share of the intervals estimate ± 1.96 standard errors that hold the truth; "
        f"with {groups} groups the normal quantile is a little too small for 95 %."
    )


def _recovery(truth: Fit, batches: list[BatchFit]) -> Table:
    """Truth, mean and spread of the estimates, and coverage of the 95 % Wald intervals."""
    estimates = np.concatenate([b.estimate.beta for b in batches])
    errors = np.concatenate([b.bse.to_numpy() for b in batches])
    psi = np.concatenate([b.estimate.psi for b in batches])
    true_beta, true_psi = truth.params.to_numpy(), truth.estimate.psi
    covered = np.mean(np.abs(estimates - true_beta) <= 1.959964 * errors, axis=0)
    table = Table("", "truth", "mean of fits", "sd of fits", "coverage", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, value, fits, share in zip(truth.params.index, true_beta, estimates.T, covered, strict=True):
        table.add_row(
            str(name), *(f"{v:.3f}" for v in (value, np.nanmean(fits), np.nanstd(fits))), f"{share:.1%}"
        )
    parts = [
        ", ".join(name.strip("()") for name in (c.term1, c.term2) if name)
        for c in truth.model.data.components[:-1]
    ]
    names = [f"cov({part})" if "," in part else f"var({part})" for part in parts]
    for name, value, fits in zip([*names, "var(residual)"], true_psi, psi.T, strict=True):
        table.add_row(name, *(f"{v:.2f}" for v in (value, np.nanmean(fits), np.nanstd(fits))), "")
    return table
