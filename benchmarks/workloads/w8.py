"""W8: a panel of inbred lines of the BXD's size: exact REML of every trait, and all markers against it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.workload import Options, Record, Workload, register

LINES, MARKERS, TRAITS = 79, 7_321, 35_554
THRESHOLD = 3.5
"""LOD from which on pairs are hits."""


def panel(markers: int, traits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Genotypes 0 or 2 (lines, markers) in blocks of linkage, relationships, traits of h² from 0 to 0.9."""
    from lmmjax import grm

    rng = np.random.default_rng(8)
    blocks = rng.integers(0, 2, (LINES, markers // 20 + 1)) * 2.0
    g = np.repeat(blocks, 20, axis=1)[:, :markers]
    g = np.where(rng.random(g.shape) < 0.02, 2.0 - g, g)
    k = grm(g).to_numpy()
    root = np.linalg.cholesky(k + 1e-6 * np.eye(LINES))
    h = rng.uniform(0.0, 0.9, traits)
    u, e = root @ rng.normal(size=(LINES, traits)), rng.normal(size=(LINES, traits))
    return g, k, np.sqrt(h) * u + np.sqrt(1.0 - h) * e


def ten_values(g: np.ndarray, k: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The largest LOD (T,) with h² of each trait from 0, 0.1, …, 0.9 by ML: an approximation."""
    mu, u = np.linalg.eigh(k)
    one, ry, rg = u.T @ np.ones(len(k)), (u.T @ y).T, (u.T @ g).T
    best = np.full(len(ry), np.inf)
    which = np.zeros(len(ry), int)
    weights = []
    for j, h in enumerate(np.arange(10) / 10.0):
        w = 1.0 / (h * np.maximum(mu, 0.0) + 1.0 - h)
        left = ry - np.outer((ry * w) @ one / (one @ (w * one)), one)
        f = -np.sum(np.log(w)) + len(k) * np.log(np.sum(w * left**2, axis=1))
        which, best = np.where(f < best, j, which), np.minimum(f, best)
        weights.append(w)
    out = np.empty(len(ry))
    for j, w in enumerate(weights):
        own, root = which == j, np.sqrt(w)
        x = (root * one) / np.linalg.norm(root * one)
        wy, wg = ry[own] * root, rg * root
        wy, wg = wy - np.outer(wy @ x, x), wg - np.outer(wg @ x, x)
        wy /= np.linalg.norm(wy, axis=1, keepdims=True)
        wg /= np.maximum(np.linalg.norm(wg, axis=1, keepdims=True), 1e-300)
        r = wy.astype(np.float32) @ wg.astype(np.float32).T
        out[own] = -len(k) / (2 * np.log(10)) * np.log1p(-np.minimum(np.max(r * r, axis=1), 0.9999999))
    return out


def measure(markers: int, traits: int, repeats: int) -> Record:
    """Warm wall time of the fits and of the scan, with the grid of ten values timed in the same run."""
    import lmmjax as lj
    from lmmjax.scan import Above, Top

    g, k, y = panel(markers, traits)
    data = pd.DataFrame({"line": np.arange(LINES)})
    model = lj.lmm("~ 1 + (1 | line)", data, kernels={"line": lj.Kernel(k, np.arange(LINES))})
    keep = [Top(1), Above(lod=THRESHOLD)]
    times: list[list[float]] = []
    fits: Any = None
    table: Any = None
    grid = np.zeros(0)
    for _ in range(repeats + 1):
        t0 = time.perf_counter()
        fits = model.fit_batch(y)
        t1 = time.perf_counter()
        table = fits.scan(g, keep=keep, test="lrt")
        t2 = time.perf_counter()
        grid = ten_values(g, k, y)
        times.append([t1 - t0, t2 - t1, time.perf_counter() - t2])
    fit, scan, peer = np.min(times[1:], axis=0)
    top = table.groupby("response")["lod"].max().to_numpy()
    return {
        "cold": sum(times[0][:2]),
        "fit": fit,
        "scan": scan,
        "warm": fit + scan,
        "peer": peer,
        "certified": int(fits.converged.sum()),
        "hits": int((table["lod"] >= THRESHOLD).sum()),
        "lod_off": float(np.max(np.abs(top - grid))),
    }


def run(options: Options) -> Iterator[Record]:
    markers, traits = options.size(MARKERS, 400), options.size(TRAITS, 300)
    options.say(f"W8: {traits:,} traits × {markers:,} markers of {LINES} lines")
    facts: dict[str, Any] = {"markers": markers, "traits": traits}
    got = isolated(measure, timeout=options.timeout, **facts, repeats=options.repeats or 3)
    yield facts | got


def table(records: list[Record]) -> str:
    """A row a size."""
    columns = (
        "traits:",
        "markers:",
        "certified:",
        "cold:",
        "fits:",
        "scan:",
        "warm:",
        "ten values:",
        "hits:",
    )

    def cells(got: Record) -> list[str]:
        front = [count(got[name]) for name in ("traits", "markers", "certified")]
        times = [duration(got[name]) for name in ("cold", "fit", "scan", "warm", "peer")]
        return [*front, *times, count(got["hits"])]

    return markdown(columns, map(cells, records))


register(
    Workload(
        id="W8",
        title="35,554 traits × 7,321 markers of 79 lines: exact REML fits, all pairs, top hits",
        goal="1.5 s warm on two cores, exact; beside it a grid of ten values of h²",
        run=run,
        table=table,
        counted="traits",
    )
)
