"""100,000 people in families: fits of one kernel by its blocks, of a kernel beside households, and a scan."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.workload import Options, Record, Workload, register

PEOPLE, MARKERS = 100_000, 500


def people(n: int) -> tuple[pd.DataFrame, Any]:
    """Nuclear families of 2 to 6, a household of siblings each, and their sparse relationships."""
    import scipy.sparse as sp

    rng = np.random.default_rng(23)
    sizes = rng.integers(2, 7, n)
    sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), n)) + 1]
    sizes[-1] -= int(sizes.sum()) - n
    sizes = sizes[sizes > 0]
    blocks = []
    for s in sizes:
        k = np.full((s, s), 0.5) + 0.5 * np.eye(s)
        if s > 2:
            # the first two are the parents
            k[0, 1] = k[1, 0] = 0.0
        blocks.append(k)
    family = np.repeat(np.arange(len(sizes)), sizes)
    start = np.cumsum(sizes) - sizes
    parent = np.arange(n) - start[family] < 2
    u = np.concatenate([np.linalg.cholesky(k) @ rng.normal(size=len(k)) for k in blocks])
    data = pd.DataFrame({"id": np.arange(n), "age": rng.normal(size=n)})
    data["home"] = 2 * family + parent
    data["sex"] = rng.integers(0, 2, n).astype(float)
    shared = rng.normal(size=2 * len(sizes))[data["home"]]
    data["y"] = 0.6 * u + 0.4 * shared + 0.6 * rng.normal(size=n) + 0.1 * data["age"]
    return data, sp.block_diag(blocks, format="csr")


def measure(n: int, markers: int, repeats: int) -> Record:
    """Seconds of each step, warm but for the first."""
    import lmmjax as lj
    from lmmjax.scan import Top

    data, k = people(n)
    t0 = time.perf_counter()
    kernel = lj.Kernel(k, data["id"])
    t1 = time.perf_counter()
    one = lj.lmm("y ~ age + sex + (1 | id)", data, kernels={"id": kernel})
    fit = one.fit()
    t2 = time.perf_counter()
    two = lj.lmm("y ~ age + sex + (1 | id) + (1 | home)", data, kernels={"id": kernel})
    both = two.fit()
    t3 = time.perf_counter()
    rng = np.random.default_rng(4)
    traits = data["y"].to_numpy()[:, None] + rng.normal(size=(n, 10))
    gaps = np.where(rng.random(traits.shape) < 0.01, np.nan, traits)
    two.fit_batch(gaps)
    g = rng.binomial(2, 0.3, (n, markers)).astype(float)
    warm: list[list[float]] = []
    hits = refits = 0
    for _ in range(repeats):
        s0 = time.perf_counter()
        one.fit()
        s1 = time.perf_counter()
        two.fit()
        s2 = time.perf_counter()
        fits = one.fit_batch(traits)
        s3 = time.perf_counter()
        hits = len(fits.scan(g, keep=Top(2), test="wald"))
        s4 = time.perf_counter()
        refits = len(fits[:2].scan(g[:, :20], keep=Top(5), ratio="refit", test="wald"))
        s5 = time.perf_counter()
        several = two.fit_batch(gaps)
        s6 = time.perf_counter()
        warm.append([s1 - s0, s2 - s1, s3 - s2, s4 - s3, s5 - s4, s6 - s5])
    alone, home, ten, scan, refit, missing = np.min(warm, axis=0)
    assert several.converged.all()
    assert fit.converged
    assert both.converged
    assert hits == 20
    return {
        "backends": f"{one.structure().backend}, {two.structure().backend}",
        "kernel": t1 - t0,
        "first": t2 - t1,
        "first_home": t3 - t2,
        "fit": alone,
        "fit_home": home,
        "ten": ten,
        "gaps": missing,
        "scan": scan,
        "refit": refit / max(refits, 1),
        "shares": [round(float(v), 4) for v in both.heritability()["estimate"]],
    }


def run(options: Options) -> Iterator[Record]:
    n, markers = options.size(PEOPLE, 2_000), options.size(MARKERS, 40)
    options.say(f"families: {n:,} people, {markers} markers of ten traits")
    facts: dict[str, Any] = {"n": n, "markers": markers}
    yield facts | isolated(measure, timeout=options.timeout, **facts, repeats=options.repeats or 2)


def table(records: list[Record]) -> str:
    """A row a size."""
    columns = (
        "people:",
        "kernel:",
        "first fit:",
        "fit:",
        "fit with homes:",
        "ten traits:",
        "ten with homes and gaps:",
        "markers × ten:",
        "a refit:",
    )

    def cells(got: Record) -> list[str]:
        names = ("kernel", "first", "fit", "fit_home", "ten", "gaps", "scan", "refit")
        return [count(got["n"]), *(duration(got[name]) for name in names)]

    return markdown(columns, map(cells, records))


register(
    Workload(
        id="families",
        title="100,000 people in families: a kernel by its blocks, beside households, a scan of ten traits",
        goal="a fit of one kernel in 2 s, one beside households in 2 s, warm on two cores",
        run=run,
        table=table,
        counted="n",
    )
)
