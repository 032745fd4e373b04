"""Many responses on one grouped design, with and without random slopes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.harness.spec import Dataset

UNBALANCED = [*np.resize([6, 8, 10], 99).tolist(), 8]  # 100 groups, 800 rows
BALANCED = [8] * 100
SMALL_GROUPS = [4] * 100
CHUNK = 2000


def grouped_design(seed: int, sizes: list[int], *, balanced_time: bool) -> pd.DataFrame:
    """Columns `g`, `t`, `x1` (within groups) and `x2` (between groups).

    `t` is 0, 1, … within each group if `balanced_time`, else uniform on (0, 8) and different everywhere.
    """
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(len(sizes)), sizes)
    n = code.size
    time = np.concatenate([np.arange(s, dtype=float) for s in sizes])
    return pd.DataFrame(
        {
            "g": pd.Categorical([f"g{c:03d}" for c in code]),
            "t": time if balanced_time else rng.uniform(0.0, 8.0, n),
            "x1": rng.standard_normal(n),
            "x2": rng.standard_normal(len(sizes))[code],
        }
    )


def grouped_responses(seed: int, design: pd.DataFrame, responses: int, *, slopes: bool) -> np.ndarray:
    """T × n responses y = Xβ + Zb + ε, each with its own β, scale, intraclass correlation and slope.

    Every fifth response has no random effects at all; with `slopes`, every fifth of the others has no random
    slope and every fifth a correlation of ±1, so that singular optima are among those judged.
    """
    rng = np.random.default_rng(seed)
    code = design["g"].cat.codes.to_numpy()
    groups = int(code.max()) + 1
    time = design["t"].to_numpy()
    x = np.column_stack([np.ones(len(design)), time, design["x1"], design["x2"]])
    y = np.empty((responses, len(design)))
    for start in range(0, responses, CHUNK):
        index = np.arange(start, min(start + CHUNK, responses))
        m = index.size
        scale = np.exp(rng.normal(0.0, 1.0, (m, 1)))
        icc = rng.beta(1.5, 3.0, (m, 1)) * (index % 5 != 0)[:, None]
        sd = np.sqrt(icc / (1.0 - icc))
        beta = rng.normal(0.0, 1.0, (m, 4)) + np.array([5.0, 0.0, 0.0, 0.0])
        b0 = rng.standard_normal((m, groups))
        effects = (sd * b0)[:, code]
        if slopes:
            corr = rng.uniform(-0.9, 0.9, (m, 1))
            corr[index % 5 == 1] = np.sign(corr[index % 5 == 1])
            sd_slope = sd * rng.uniform(0.05, 0.3, (m, 1)) * (index % 5 != 2)[:, None]
            b1 = corr * b0 + np.sqrt(1.0 - corr**2) * rng.standard_normal((m, groups))
            effects += (sd_slope * b1)[:, code] * time
        y[index] = beta @ x.T + scale * (effects + rng.standard_normal(effects.shape))
    return y


def weighted(generate, seed: int):
    """`generate` with precision weights for every value, spread as those of voom: about 0.5 to 5."""

    def with_weights(responses: int) -> Dataset:
        data = generate(responses)
        rng = np.random.default_rng(seed)
        spread = rng.normal(0.0, 0.35, data.responses.shape)
        level = rng.normal(0.3, 0.4, (responses, 1))
        return Dataset(data.design, data.responses, np.exp(level + spread))

    return with_weights


def grouped(design_seed: int, seed: int, sizes: list[int], *, balanced_time: bool, slopes: bool):
    """The `generate` of a workload: T ↦ design and T responses."""

    def generate(responses: int) -> Dataset:
        design = grouped_design(design_seed, sizes, balanced_time=balanced_time)
        return Dataset(design, grouped_responses(seed, design, responses, slopes=slopes))

    return generate
