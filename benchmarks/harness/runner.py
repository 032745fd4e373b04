"""A comparison: write the data, let every package measure itself in its own process, judge, and make rows."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness.judging import judge
from benchmarks.harness.processes import ROOT, Outcome, median, run, wall
from benchmarks.harness.rows import Row, table
from benchmarks.harness.spec import Comparison, Dataset, spread
from benchmarks.harness.workload import Options, Record, Workload
from benchmarks.peers import LMMJAX, PEERS, Peer

IMPORTS = "import jax, pandas, formulaic"
REPEATS = 5


def beside_peers(comparison: Comparison) -> Workload:
    """The workload that fits one model by lmmjax and by all peers that are asked for."""
    return Workload(
        id=comparison.id,
        title=comparison.title,
        goal=comparison.goal,
        run=partial(measure, comparison),
        table=partial(table, single=comparison.kind == "single"),
        counted="responses",
        about={
            "varied": comparison.varied,
            "formula": comparison.model.formula,
            "reml": comparison.model.reml,
        },
    )


def measure(w: Comparison, options: Options) -> Iterator[Record]:
    """The rows of a comparison: lmmjax first, then the peers; known when all of them have been judged."""
    count = options.size(w.responses, w.small)
    options.say(f"{w.id}: making {count:,} responses")
    data = w.generate(count)
    index = spread(count, w.checked)
    with tempfile.TemporaryDirectory(prefix="lmmjax-benchmark-") as name:
        folder = Path(name)
        _write(folder, data, index, batch=w.kind == "batch")
        options.say(f"{w.id}: lmmjax")
        rows = _lmmjax(w, options, folder, count, index)
        for package in options.peers:
            options.say(f"{w.id}: {package}")
            rows += _peer(PEERS[package], w, options, folder, count)
    options.say(f"{w.id}: judging {len(index)} responses")
    judge(w, data, index, rows)
    reference = next((r.per_fit for r in rows if (r.package, r.method) == ("lme4", "lmer")), None)
    for row in rows:
        if reference and row.per_fit:
            row.speedup = reference / row.per_fit
        yield row.public()


def _write(folder: Path, data: Dataset, index: np.ndarray, *, batch: bool) -> None:
    data.design.to_csv(folder / "design.csv", index=False)
    checked = pd.DataFrame(data.responses[index].T, columns=[f"r{i}" for i in index])
    checked.to_csv(folder / "checked.csv", index=False, float_format="%.17g")
    if batch:
        np.save(folder / "responses.npy", data.responses)
    if data.weights is not None:
        checked = pd.DataFrame(data.weights[index].T, columns=[f"r{i}" for i in index])
        checked.to_csv(folder / "checked_weights.csv", index=False, float_format="%.17g")
        np.save(folder / "weights.npy", data.weights)


def _lmmjax(w: Comparison, options: Options, folder: Path, count: int, index: np.ndarray) -> list[Row]:
    python, cache = sys.executable, folder / "cache"
    environment = _ours(cache)
    if w.kind == "single":
        rows = _each(LMMJAX, w, options, folder, count, python, environment)
        _fresh(LMMJAX, w, options, folder, python, rows[0])
        return rows

    def call(repeats: int, estimates: bool) -> Outcome:
        checked = ",".join(map(str, index))
        more = {"repeats": repeats, "budget": options.budget, "estimates": str(estimates).lower()}
        command = LMMJAX.command(python, "batch", w, folder, checked=checked, **more)
        return run(command, environment=environment, timeout=options.timeout)

    cold = call(0, estimates=False)
    if cold.result is None:
        return [Row.missing("lmmjax", cold.error, "fit_batch")]
    again = call(options.repeats or REPEATS, estimates=True)
    if again.result is None:
        return [Row.missing("lmmjax", again.error, "fit_batch")]
    got = again.result
    row = Row("lmmjax", "fit_batch", responses=count, timed=count, peak_mib=got["peak_mib"])
    row.cold, row.cached = cold.result["first"], got["first"]
    row.warm = median([c["total"] for c in got["calls"]])
    row.estimates = got["estimates"]
    build = median([c["build"] for c in got["calls"]])
    row.note = (
        f"{got['converged']:,} converged, {got['singular']:,} singular; formula {1e3 * build:.0f} ms of warm"
    )
    keys = ("import", "calls", "row_major", "device", "versions")
    row.detail = {k: got[k] for k in keys} | {"process_cold": cold.seconds, "process_cached": again.seconds}
    return [row]


def _ours(cache: Path) -> dict[str, str]:
    """The environment of lmmjax: the package beside these benchmarks, programs kept in `cache`."""
    return {"PYTHONPATH": ROOT, "LMMJAX_CACHE": str(cache)}


def _peer(peer: Peer, w: Comparison, options: Options, folder: Path, count: int) -> list[Row]:
    if not peer.can_fit(w):
        return [Row.missing(peer.name, peer.cannot(w))]
    interpreter = options.rscript if peer.language == "R" else options.peer_python
    if shutil.which(interpreter) is None:
        return [Row.missing(peer.name, f"not installed: no {Path(interpreter).name}")]
    rows = _each(peer, w, options, folder, count, interpreter, {})
    if w.kind == "single":
        _fresh(peer, w, options, folder, interpreter, rows[0])
    return rows


def _each(
    peer: Peer,
    w: Comparison,
    options: Options,
    folder: Path,
    count: int,
    interpreter: str,
    environment: dict[str, str],
) -> list[Row]:
    """Rows of a package that fits the checked responses one by one, scaled to all of them."""
    command = peer.command(interpreter, "each", w, folder, budget=options.budget)
    outcome = run(command, environment=environment, timeout=options.timeout)
    if outcome.result is None:
        return [Row.missing(peer.name, outcome.error)]
    rows = []
    for method, got in outcome.result["methods"].items():
        row = Row(peer.name, method, responses=count, timed=len(got["seconds"]), estimates=got["estimates"])
        row.peak_mib = outcome.result["peak_mib"]
        row.warm = median(got["seconds"]) * count
        failures = [e["error"] for e in row.estimates if "error" in e]
        stuck = sum(e.get("converged") is False for e in row.estimates)
        notes = [
            f"{row.timed} timed, scaled" if row.timed < count else "",
            f"{stuck} not converged" if stuck else "",
            f"{len(failures)} failed: {failures[0]}" if failures else "",
        ]
        row.note = "; ".join(note for note in notes if note)
        row.detail = {
            "first": got["first"],
            "total": sum(got["seconds"]),
            "mean": sum(got["seconds"]) / len(got["seconds"]),
            "versions": outcome.result["versions"],
            "device": outcome.result.get("device"),
        }
        rows.append(row)
    return rows


def _fresh(peer: Peer, w: Comparison, options: Options, folder: Path, interpreter: str, row: Row) -> None:
    """Whole processes that import, fit and print; for lmmjax with an empty and with a filled cache."""
    command = peer.command(interpreter, "fresh", w, folder)

    def once(environment: dict[str, str]) -> Outcome:
        outcome = run(command, environment=environment, timeout=options.timeout)
        if outcome.result is not None:
            row.peak_mib = outcome.result["peak_mib"]
            row.detail["fresh_estimate"] = outcome.result["estimate"]
        return outcome

    if peer is not LMMJAX:
        outcomes = [once({}) for _ in range((options.repeats or REPEATS) + 1)][1:]
        row.fresh = _median_wall(outcomes, row)
        return
    filled = _ours(folder / "filled")
    once(filled)
    imports, cold, cached = [], [], []
    for repeat in range(options.repeats or REPEATS):
        imports.append(wall([interpreter, "-c", IMPORTS]))
        cold.append(once(_ours(folder / f"empty{repeat}")))
        cached.append(once(filled))
    row.fresh, row.fresh_cached = _median_wall(cold, row), _median_wall(cached, row)
    row.detail["imports"] = median(imports)
    if row.fresh is not None and row.fresh_cached is not None:
        row.over_imports = row.fresh - median(imports)
        row.over_imports_cached = row.fresh_cached - median(imports)


def _median_wall(outcomes: Sequence[Outcome], row: Row) -> float | None:
    failed = [o.error for o in outcomes if o.result is None]
    if failed:
        row.note = row.failure = failed[0]
        return None
    return median([o.seconds for o in outcomes])
