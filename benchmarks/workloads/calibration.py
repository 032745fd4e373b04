"""Simulation-based calibration of `fit.posterior`: ranks of true parameters among posterior draws.

Parameters are drawn from the priors and a response from the model at them; then the true value of every
parameter is uniformly distributed among exact posterior draws, whatever the data. Model: six groups of 3 to 8
observations, a covariate within groups, random intercepts; or, without these, residuals that are
autoregressive within groups. One chain, thinned to 99 draws, a data set. The table has counts of the ranks in
20 bins, and the p-value of a χ² test that they are equal.

Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv:1804.06788.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import markdown
from benchmarks.harness.workload import Options, Record, Workload, register

if TYPE_CHECKING:
    import lmmjax as lj

SIZES = [3, 4, 5, 6, 7, 8]
QUANTITIES = {
    "nuts": ["Intercept", "x", "sd", "sigma", "b of group 1", "b of group 6"],
    "gibbs": ["Intercept", "x", "sd", "sigma", "b of group 1", "b of group 6"],
    "nuts, AR1": ["Intercept", "x", "Phi", "sigma"],
}
NAMES = {"nuts": "NUTS", "gibbs": "Gibbs", "nuts, AR1": "NUTS, AR(1)"}
KEPT, WARMUP, BINS = 99, 500, 20
THIN = {"nuts": 10, "gibbs": 50, "nuts, AR1": 10}
"""Every so many draws are kept: Gibbs sampling mixes slowly where the variance of the groups is small."""


def design() -> pd.DataFrame:
    """The rows of the model, y left empty."""
    groups = np.repeat(np.arange(len(SIZES)), SIZES)
    x = np.random.default_rng(1).normal(size=len(groups))
    return pd.DataFrame({"g": [f"g{k}" for k in groups], "x": x, "y": np.arange(len(x), dtype=float)})


def priors(method: str) -> dict[str, Any]:
    """Those from which `prior_draw` draws."""
    from lmmjax.bayes import HalfNormal, HalfT, Normal

    scale = HalfT(5.0, 1.0) if method == "gibbs" else HalfNormal(1.0)
    # Phi has its default, uniform on (−1, 1)
    return {"sd": scale, "sigma": scale, "beta": Normal(0.0, 2.0)}


def prior_draw(rng: np.random.Generator, method: str) -> tuple[np.ndarray, float, float]:
    """β (2,), the standard deviation of the groups, or Phi, and σ from the priors."""
    beta = rng.normal(0.0, 2.0, 2)
    first, sigma = np.abs(rng.standard_t(5.0, 2) if method == "gibbs" else rng.normal(size=2))
    return beta, float(rng.uniform(-1.0, 1.0) if "AR1" in method else first), float(sigma)


def one_rank(model: lj.Model, data: pd.DataFrame, method: str, seed: int) -> np.ndarray:
    """Ranks of the true values of `QUANTITIES` among the draws that are kept, 0 … 99."""
    import jax

    rng = np.random.default_rng(seed)
    beta, second, sigma = prior_draw(rng, method)
    mean = beta[0] + beta[1] * data["x"].to_numpy()
    b = np.zeros(len(SIZES))
    if "AR1" in method:
        e = np.concatenate([autoregression(rng, second, size) for size in SIZES])
    else:
        b = second * rng.normal(size=len(SIZES))
        e = rng.normal(size=len(data))
    codes = data["g"].str[1:].astype(int).to_numpy()
    fit = model.fit_response(mean + b[codes] + sigma * e)
    post = fit.posterior(
        jax.random.key(seed),
        priors(method),
        draws=KEPT * THIN[method],
        warmup=WARMUP,
        chains=1,
        method=method.split(",")[0],
    )
    draws, truth = post.values[0], [*beta, second, sigma]
    if post.b:
        draws, truth = np.column_stack([draws, post.b[0][0, :, [0, 5], 0].T]), [*truth, b[0], b[5]]
    return np.sum(draws[:: THIN[method]] < np.array(truth), axis=0)


def autoregression(rng: np.random.Generator, phi: float, size: int) -> np.ndarray:
    """A stationary series (size,) of unit variance."""
    out = rng.normal(size=size)
    for k in range(1, size):
        out[k] = phi * out[k - 1] + np.sqrt(1.0 - phi**2) * out[k]
    return out


def counts(ranks: np.ndarray) -> np.ndarray:
    """(quantities, bins) histograms of ranks (runs, quantities)."""
    return np.stack([np.histogram(column, BINS, (0, KEPT + 1))[0] for column in ranks.T])


def measure(sampler: str, runs: int) -> Record:
    """Rank histograms of all quantities by one sampler."""
    import lmmjax as lj

    begin = time.perf_counter()
    data = design()
    model = lj.lmm("y ~ x + (1 | g)", data)
    if "AR1" in sampler:
        model = lj.lmm("y ~ x", data, residual=lj.AR1(group="g"))
    ranks = np.stack([one_rank(model, data, sampler, seed) for seed in range(runs)])
    histograms = counts(ranks)
    return {
        "seconds": time.perf_counter() - begin,
        "counts": dict(zip(QUANTITIES[sampler], histograms.tolist(), strict=True)),
    }


def run(options: Options) -> Iterator[Record]:
    records: list[Record] = []
    runs = options.size(1_000, 40)
    for sampler in THIN:
        options.say(f"calibration: {sampler}, {runs:,} data sets")
        facts = {"sampler": sampler, "runs": runs}
        records.append(facts | isolated(measure, timeout=options.timeout, **facts))
        yield records[-1]
    if options.extra["figure"] and not any(r["error"] for r in records):
        figure(records, options.extra["figure"])


def table(records: list[Record]) -> str:
    """Smallest and largest bin, χ² and its p-value, for every sampler and quantity."""
    rows = []
    for got in records:
        for quantity, bins in got["counts"].items():
            mean = np.mean(bins)
            statistic = float(np.sum((np.array(bins) - mean) ** 2) / mean)
            p = float(chdtrc(BINS - 1, statistic))
            shown = [f"{min(bins)} to {max(bins)}", f"{statistic:.1f}", f"{p:.2f}"]
            rows.append([NAMES[got["sampler"]], quantity, *shown])
    return markdown(("sampler", "quantity", "bins:", "χ²(19):", "p:"), rows)


def figure(records: list[Record], path: Path) -> None:
    """Rank histograms with the band that holds 99 % of the bins if the sampler is right."""
    import matplotlib.pyplot as plt
    from scipy.stats import binom

    rows, columns = len(records), max(map(len, QUANTITIES.values()))
    _, axes = plt.subplots(rows, columns, figsize=(2 * columns, 1.6 * rows), sharex=True, squeeze=False)
    for own, got in zip(axes, records, strict=True):
        for ax in own[len(got["counts"]) :]:
            ax.axis("off")
        for ax, (name, bins) in zip(own, got["counts"].items(), strict=False):
            low, high = binom.ppf([0.005, 0.995], sum(bins), 1 / BINS)
            ax.axhspan(low, high, color="0.88")
            ax.bar(np.arange(BINS) * 100 / BINS, bins, 100 / BINS, align="edge", color="C0")
            ax.set(title=f"{name} ({got['sampler']})", yticks=[])
            ax.title.set_size(8)
            ax.tick_params(labelsize=7)
    plt.tight_layout()
    plt.savefig(path)


register(
    Workload(
        id="calibration",
        title="ranks of the truth among posterior draws, NUTS (AR1 residuals too) and Gibbs, 1,000 data sets",
        goal="uniform ranks",
        run=run,
        table=table,
        counted="data sets",
        extras={"figure": {"type": Path, "metavar": "FILE", "help": "draw the rank histograms"}},
    )
)
