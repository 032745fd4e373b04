"""Simulation-based calibration of `fit.posterior`: ranks of true parameters among posterior draws.

    python -m benchmarks.calibration [--runs N] [--json FILE] [--figure FILE]

Parameters are drawn from the priors and a response from the model at them; then the true value of every
parameter is uniformly distributed among exact posterior draws, whatever the data. Model: six groups of 3 to 8
observations, a covariate within groups, random intercepts. One chain, thinned to 99 draws, a data set. The
table is Markdown: counts of the ranks in 20 bins, and the p-value of a χ² test that they are equal.

Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv:1804.06788.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from scipy.special import chdtrc

import lmmjax as lj
from benchmarks.machine import describe
from lmmjax.bayes import HalfNormal, HalfT, Normal

SIZES = [3, 4, 5, 6, 7, 8]
PRIORS = {
    "nuts": {"sd": HalfNormal(1.0), "sigma": HalfNormal(1.0), "beta": Normal(0.0, 2.0)},
    "gibbs": {"sd": HalfT(5.0, 1.0), "sigma": HalfT(5.0, 1.0), "beta": Normal(0.0, 2.0)},
}
QUANTITIES = ["Intercept", "x", "sd", "sigma", "b of group 1", "b of group 6"]
KEPT, WARMUP, BINS = 99, 500, 20
THIN = {"nuts": 10, "gibbs": 50}
"""Every so many draws are kept: Gibbs sampling mixes slowly where the variance of the groups is small."""


def design() -> pd.DataFrame:
    """The rows of the model, y left empty."""
    groups = np.repeat(np.arange(len(SIZES)), SIZES)
    x = np.random.default_rng(1).normal(size=len(groups))
    return pd.DataFrame({"g": [f"g{k}" for k in groups], "x": x, "y": np.arange(len(x), dtype=float)})


def prior_draw(rng: np.random.Generator, method: str) -> tuple[np.ndarray, float, float]:
    """β (2,), the standard deviation of the groups and σ from the priors."""
    beta = rng.normal(0.0, 2.0, 2)
    sd, sigma = np.abs(rng.normal(size=2) if method == "nuts" else rng.standard_t(5.0, 2))
    return beta, float(sd), float(sigma)


def one_rank(model: lj.Model, data: pd.DataFrame, method: str, seed: int) -> np.ndarray:
    """Ranks of the true values of `QUANTITIES` among the draws that are kept, 0 … 99."""
    rng = np.random.default_rng(seed)
    beta, sd, sigma = prior_draw(rng, method)
    b = sd * rng.normal(size=len(SIZES))
    codes = data["g"].str[1:].astype(int).to_numpy()
    y = beta[0] + beta[1] * data["x"].to_numpy() + b[codes] + sigma * rng.normal(size=len(data))
    fit = model.fit_response(y)
    post = fit.posterior(
        jax.random.key(seed),
        PRIORS[method],
        draws=KEPT * THIN[method],
        warmup=WARMUP,
        chains=1,
        method=method,
    )
    draws = np.column_stack([post.values[0], post.b[0][0, :, [0, 5], 0].T])[:: THIN[method]]
    return np.sum(draws < np.array([*beta, sd, sigma, b[0], b[5]]), axis=0)


def counts(ranks: np.ndarray) -> np.ndarray:
    """(quantities, bins) histograms of ranks (runs, quantities)."""
    return np.stack([np.histogram(column, BINS, (0, KEPT + 1))[0] for column in ranks.T])


def table(histograms: np.ndarray) -> str:
    """Markdown: smallest and largest bin, χ² and its p-value, for every quantity."""
    lines = ["| quantity | fewest in a bin | most | χ²(19) | p |", "|---|---|---|---|---|"]
    for name, row in zip(QUANTITIES, histograms, strict=True):
        statistic = float(np.sum((row - row.mean()) ** 2) / row.mean())
        p = float(chdtrc(BINS - 1, statistic))
        lines.append(f"| {name} | {row.min()} | {row.max()} | {statistic:.1f} | {p:.2f} |")
    return "\n".join(lines)


def figure(histograms: dict[str, np.ndarray], path: Path) -> None:
    """Rank histograms with the band that holds 99 % of the bins if the sampler is right."""
    import matplotlib.pyplot as plt
    from scipy.stats import binom

    rows, columns = len(histograms), len(QUANTITIES)
    _, axes = plt.subplots(rows, columns, figsize=(2 * columns, 1.6 * rows), sharex=True, squeeze=False)
    for own, (method, counted) in zip(axes, histograms.items(), strict=True):
        for ax, name, row in zip(own, QUANTITIES, counted, strict=True):
            low, high = binom.ppf([0.005, 0.995], row.sum(), 1 / BINS)
            ax.axhspan(low, high, color="0.88")
            ax.bar(np.arange(BINS) * 100 / BINS, row, 100 / BINS, align="edge", color="C0")
            ax.set(title=f"{name} ({method})", yticks=[])
            ax.title.set_size(8)
            ax.tick_params(labelsize=7)
    plt.tight_layout()
    plt.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    data = design()
    model = lj.lmm("y ~ x + (1 | g)", data)
    histograms, seconds = {}, {}
    for method in PRIORS:
        begin = time.perf_counter()
        ranks = np.stack([one_rank(model, data, method, seed) for seed in range(options.runs)])
        seconds[method] = time.perf_counter() - begin
        histograms[method] = counts(ranks)
        print(
            f"\n{method}: {options.runs} runs in {seconds[method]:.0f} s\n\n{table(histograms[method])}",
            flush=True,
        )
    if options.json:
        record = {
            "machine": describe(cores=2, threads=2),
            "runs": options.runs,
            "seconds": seconds,
            "quantities": QUANTITIES,
        }
        record["counts"] = {method: rows.tolist() for method, rows in histograms.items()}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.figure:
        figure(histograms, options.figure)


if __name__ == "__main__":
    main()
