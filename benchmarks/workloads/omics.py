"""Expression from AnnData to AnnData, and sparse cells.

`genes`: counts of 20,000 genes in 200 samples of 50 donors, of which 10 % are missing; voom's weights by a
mixed model, a batch with weights, three contrasts, moderated, with Satterthwaite's or Kenward and Roger's
degrees of freedom, and the table back in `varm`. dream takes 200 s on 12 cores for such a matrix, and 10
minutes more for voom's weights. A twentieth of the genes differ by a factor of 1.6, as many up as down: the
share of false discoveries at q < 0.05 should be about that. If all go up, library sizes grow with them, and
TMM, which takes most genes to be the same and has to tell the others by their ratios, leaves a shift of
almost half a standard error in all genes, and twice the false discoveries; with the true library sizes it is
5 % again. The cases of one direction show it.

`cells`: 500,000 cells of 50 donors × 2,000 genes, 5 % of them not zero, from a sparse matrix by columns (CSC)
or rows (CSR), with the memory that each step adds to that of the matrix. AnnData is taken if it is installed.

Both also without the random effect of donors: weighted least squares, as limma's lmFit.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.workload import Options, Record, Workload, register

FIXED, DONORS = "~ 0 + arm + age", " + (1 | donor)"
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


SIZES = {"TMM": "tmm", "true sizes": None}


def genes(responses: int, ddf: str, down: bool = True, sizes: str = "TMM", random: bool = True) -> Record:
    """Seconds of every step, first and again, of the way from counts to the table.

    Parameters
    ----------
    down : half of the genes that differ go down, else all go up. sizes : library sizes, a key of `SIZES`.
    random : whether donors are a random effect of the model; they are in the data.
    """
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
    level = np.exp(rng.uniform(2, 8, responses))
    mean = level * np.exp(0.4 * rng.normal(size=(donors, responses)).repeat(4, axis=0))
    change = np.full(responses // 20, 1.6)
    if down:
        change[::2] = 1 / 1.6
    mean[obs["arm"] == "c", : len(change)] *= change
    size = 8 * rng.chisquare(4, responses)
    counts = annotated(
        rng.negative_binomial(size, size / (size + mean)).astype(float),
        obs,
        [f"g{k}" for k in range(responses)],
    )
    gone, seconds, kept = rng.random((n, responses)) < 0.1, [], SimpleNamespace()
    # what all samples would have without effects and noise
    library = None if SIZES[sizes] else pd.Series(level.sum(), index=obs.index)

    def weigh() -> None:
        kept.model = lj.lmm(FIXED + DONORS * random, counts)
        kept.v = lj.voom(counts, kept.model, lib_size=library, norm_factors=SIZES[sizes])
        kept.y = kept.v.logcpm.mask(gone)

    def fit() -> None:
        kept.fits = kept.model.fit_batch(kept.y, weights=kept.v.weights)

    def moderate() -> None:
        kept.moderated = kept.fits.moderate(ddf=ddf)

    def back() -> None:
        kept.fits.to_anndata(counts, contrasts=CONTRASTS, moderated=kept.moderated)

    for _ in range(2):
        seconds.append(stepwise({"voom": weigh, "fit": fit, "moderate": moderate, "table": back}))
    table = counts.varm["lmm"]
    q, p = (table[f"{name}:c - a"].to_numpy() for name in "qp")
    true = np.arange(responses) < len(change)
    return {
        "kind": f"genes, {ddf if random else 'least squares'}" + ("" if down else f", all up, {sizes}"),
        "through": type(counts).__name__,
        "responses": responses,
        "first": seconds[0],
        "again": seconds[1],
        "converged": float(kept.fits.converged.mean()),
        "found": int(np.sum(q < 0.05)),
        "power": float(np.mean(q[true] < 0.05)),
        "false_share": float(np.mean(~true[q < 0.05])) if np.any(q < 0.05) else 0.0,
        "false_rate": float(np.mean(p[~true] < 0.05)),
    }


def resident() -> float:
    """MiB of memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def cells(rows: int, responses: int, form: str = "csc", random: bool = True) -> Record:
    """Seconds and memory of a batch of sparse responses, stored by columns ("csc") or rows ("csr")."""
    import scipy.sparse as sp

    import lmmjax as lj

    rng = np.random.default_rng(23)
    obs = pd.DataFrame({"donor": rng.integers(0, 50, rows), "depth": rng.normal(size=rows)})
    obs["drug"] = (obs["donor"] + rng.integers(0, 2, rows)) % 2
    obs = obs.set_axis([f"c{k}" for k in range(rows)])
    # programs and what JAX itself needs are there before the matrix is
    formula, few = "~ drug + depth" + DONORS * random, rng.normal(size=(rows, 3))
    lj.lmm(formula, obs).fit_batch(few).top("drug", 1)
    before = resident()
    each = rows // 20
    entries = np.empty(each * responses, np.float32)
    places = np.empty(each * responses, np.int32)
    for k in range(responses):
        part = slice(k * each, (k + 1) * each)
        places[part] = np.sort(rng.choice(rows, each, replace=False, shuffle=False))
        entries[part] = rng.gamma(2.0, size=each)
    # pointers of the same integers, without which SciPy makes all of them wider
    pointers = np.arange(0, len(entries) + 1, each, dtype=np.int32)
    matrix = sp.csc_array((entries, places, pointers), shape=(rows, responses))
    size = (matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes) / 2**20
    del entries, places, pointers
    if form == "csr":
        # half at a time, so that the peak is that of the fit
        halves = [matrix[:, part].tocsr() for part in (slice(responses // 2), slice(responses // 2, None))]
        del matrix
        matrix = sp.hstack(halves, format="csr")
        del halves
    data = annotated(matrix, obs, [f"g{k}" for k in range(responses)])
    made, seconds = resident(), []
    with Watched() as watched:
        for _ in range(2):
            begin = time.perf_counter()
            fits = lj.lmm(formula, data).fit_batch(data)
            fits.top("drug", 20)
            seconds.append({"fit and test": time.perf_counter() - begin})
    return {
        "kind": f"cells, {rows:,}, {form.upper()}" + ("" if random else ", least squares"),
        "through": type(data).__name__,
        "responses": responses,
        "first": seconds[0],
        "again": seconds[1],
        "converged": float(fits.converged.mean()),
        "nonzeros_mib": size,
        "before_mib": before,
        "matrix_mib": made - before,
        "added_mib": watched.most - made,
    }


class Watched:
    """The most memory of this process meanwhile: `most`, in MiB."""

    def __enter__(self) -> Watched:
        self.most, self._end = resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            self.most = max(self.most, resident())

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def run(options: Options) -> Iterator[Record]:
    for case in (
        {"ddf": "satterthwaite"},
        {"ddf": "kenward-roger"},
        {"ddf": "satterthwaite", "down": False},
        {"ddf": "satterthwaite", "down": False, "sizes": "true sizes"},
        {"ddf": "satterthwaite", "random": False},
    ):
        options.say("omics: genes, " + ", ".join(map(str, case.values())))
        yield isolated(genes, timeout=options.timeout, responses=options.size(20_000, 600), **case)
    size = {"rows": options.size(500_000, 5_000), "responses": options.size(2_000, 40)}
    for form, random in (("csc", True), ("csr", True), ("csc", False)):
        options.say(f"omics: sparse cells, {form}" + ("" if random else ", least squares"))
        yield isolated(cells, timeout=options.timeout, **size, form=form, random=random)


def table(records: list[Record]) -> str:
    """A row a case: seconds of the first and of the second time, memory, discoveries that are false."""
    rows = []
    for got in records:
        if got["error"]:
            continue
        memory = f"{got['peak_mib']:,.0f} MiB"
        if "nonzeros_mib" in got:
            memory += f" (non-zeros {got['nonzeros_mib']:,.0f}, beside them {got['added_mib']:,.0f})"
        times = [duration(sum(got[name].values())) for name in ("first", "again")]
        false = [f"{100 * got[name]:.1f} %" if name in got else "" for name in ("false_share", "false_rate")]
        certified = f"{100 * got['converged']:.1f} %"
        rows.append([got["kind"], count(got["responses"]), *times, memory, certified, *false])
    head = ["case", "responses:", "first time:", "again:", "peak memory:", "certified:"]
    return markdown([*head, "false at q < 0.05:", "true hypotheses at p < 0.05:"], rows)


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
