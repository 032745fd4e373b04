"""Expression from AnnData to AnnData, and sparse cells.

`genes`: counts of 20,000 genes in 200 samples of 50 donors, of which 10 % are missing; voom's weights by a
mixed model, a batch with weights, three contrasts, moderated, with Satterthwaite's or Kenward and Roger's
degrees of freedom, and the table back in `varm`. dream takes 200 s on 12 cores for such a matrix, and 10
minutes more for voom's weights.

`cells`: 500,000 cells of 50 donors × 2,000 genes, 5 % of them not zero, from a sparse matrix; memory beside
that of the non-zeros. AnnData is taken if it is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.workload import Options, Record, Workload, register

FORMULA = "~ 0 + arm + age + (1 | donor)"
CONTRASTS = {"b - a": "arm[b] - arm[a]", "c - a": "arm[c] - arm[a]", "c - b": "arm[c] - arm[b]"}


def annotated(x: Any, obs: pd.DataFrame, names: list[str]) -> Any:
    """AnnData, or what has its attributes where it is not installed."""
    try:
        import anndata
    except ImportError:
        index = pd.Index(names)
        own = {"X": x, "obs": obs, "obs_names": obs.index, "var_names": index, "varm": {}, "uns": {}}
        return SimpleNamespace(**own, layers={}, raw=None)
    return anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=names))


def stepwise(steps: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds of each step, in order."""
    out = {}
    for name, step in steps.items():
        begin = time.perf_counter()
        step()
        out[name] = time.perf_counter() - begin
    return out


def genes(responses: int, ddf: str) -> Record:
    """Seconds of every step, first and again, of the way from counts to the table."""
    import lmmjax as lj

    rng = np.random.default_rng(22)
    donors, n = 50, 200
    obs = pd.DataFrame(
        {
            "donor": np.repeat([f"d{k:02d}" for k in range(donors)], 4),
            "arm": pd.Categorical(rng.choice(list("abc"), n)),
            "age": np.repeat(rng.normal(size=donors), 4),
        },
        index=[f"s{k:03d}" for k in range(n)],
    )
    mean = np.exp(rng.uniform(2, 8, responses) + 0.4 * rng.normal(size=(donors, responses)).repeat(4, axis=0))
    mean[obs["arm"] == "c", : responses // 20] *= 1.6
    size = 8 * rng.chisquare(4, responses)
    counts = annotated(
        rng.negative_binomial(size, size / (size + mean)).astype(float),
        obs,
        [f"g{k}" for k in range(responses)],
    )
    gone, seconds, kept = rng.random((n, responses)) < 0.1, [], SimpleNamespace()

    def weigh() -> None:
        kept.model = lj.lmm(FORMULA, counts)
        kept.v = lj.voom(counts, kept.model)
        kept.y = kept.v.logcpm.mask(gone)

    def fit() -> None:
        kept.fits = kept.model.fit_batch(kept.y, weights=kept.v.weights)

    def moderate() -> None:
        kept.moderated = kept.fits.moderate(ddf=ddf)

    def back() -> None:
        kept.fits.to_anndata(counts, contrasts=CONTRASTS, moderated=kept.moderated)

    for _ in range(2):
        seconds.append(stepwise({"voom": weigh, "fit": fit, "moderate": moderate, "table": back}))
    q = counts.varm["lmm"]["q:c - a"].to_numpy()
    true = np.arange(responses) < responses // 20
    return {
        "kind": f"genes, {ddf}",
        "responses": responses,
        "first": seconds[0],
        "again": seconds[1],
        "converged": float(kept.fits.converged.mean()),
        "false_share": float(np.mean(~true[q < 0.05])) if np.any(q < 0.05) else 0.0,
    }


def cells(rows: int, responses: int) -> Record:
    """Seconds and memory of a batch of sparse responses."""
    import scipy.sparse as sp

    import lmmjax as lj

    rng = np.random.default_rng(23)
    obs = pd.DataFrame({"donor": rng.integers(0, 50, rows), "depth": rng.normal(size=rows)})
    obs["drug"] = (obs["donor"] + rng.integers(0, 2, rows)) % 2
    parts = []
    for _ in range(responses):
        at = np.sort(rng.choice(rows, rows // 20, replace=False, shuffle=False)).astype(np.int32)
        parts.append((at, rng.gamma(2.0, size=len(at)).astype(np.float32)))
    pointers = np.concatenate([[0], np.cumsum([len(at) for at, _ in parts])])
    entries, places = np.concatenate([v for _, v in parts]), np.concatenate([at for at, _ in parts])
    matrix = sp.csc_array((entries, places, pointers), shape=(rows, responses))
    del parts, entries, places
    data = annotated(
        matrix, obs.set_axis([f"c{k}" for k in range(rows)]), [f"g{k}" for k in range(responses)]
    )
    model = lj.lmm("~ drug + depth + (1 | donor)", data)
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        fits = model.fit_batch(data)
        fits.top("drug", 20)
        seconds.append({"fit and test": time.perf_counter() - begin})
    size = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    return {
        "kind": f"cells, {rows:,}",
        "responses": responses,
        "first": seconds[0],
        "again": seconds[1],
        "converged": float(fits.converged.mean()),
        "nonzeros_mib": size / 2**20,
    }


def run(options: Options) -> Iterator[Record]:
    for ddf in ("satterthwaite", "kenward-roger"):
        options.say(f"omics: genes, {ddf}")
        yield isolated(genes, timeout=options.timeout, responses=options.size(20_000, 600), ddf=ddf)
    options.say("omics: sparse cells")
    size = {"rows": options.size(500_000, 5_000), "responses": options.size(2_000, 40)}
    yield isolated(cells, timeout=options.timeout, **size)


def table(records: list[Record]) -> str:
    """A row a case: seconds of the first and of the second time, memory."""
    rows = []
    for got in records:
        if got["error"]:
            continue
        memory = f"{got['peak_mib']:,.0f} MiB"
        if "nonzeros_mib" in got:
            memory += f" (non-zeros {got['nonzeros_mib']:,.0f})"
        times = [duration(sum(got[name].values())) for name in ("first", "again")]
        rows.append([got["kind"], count(got["responses"]), *times, memory, f"{100 * got['converged']:.1f} %"])
    head = ["case", "responses:", "first time:", "again:", "peak memory:", "certified:"]
    return markdown(head, rows)


register(
    Workload(
        id="omics",
        title="20,000 genes × 200 samples from AnnData to AnnData; 500,000 sparse cells × 2,000 genes",
        goal="seconds again, under 2 GB; memory of the non-zeros",
        run=run,
        table=table,
        counted="responses",
    )
)
