"""One workload: write the data, let every package measure itself in its own process, judge, and make rows."""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.judge import Judge, tolerance
from benchmarks.peers import LMMJAX, PEERS, Peer
from benchmarks.processes import Outcome, compilation_cache, median, run, wall
from benchmarks.spec import Dataset, Workload

IMPORTS = "import jax, pandas, formulaic"


@dataclass(frozen=True)
class Settings:
    """How to run: interpreters, sizes, repeats and limits (seconds)."""

    peers: tuple[str, ...]
    peer_python: str
    rscript: str = "Rscript"
    small: bool = False
    responses: int | None = None
    repeats: int = 5
    budget: float = 60.0
    timeout: float = 1800.0


@dataclass
class Row:
    """One call of one package. Seconds, for `responses` responses scaled from the `timed` ones.

    `gap` is, over the `judged` responses, the largest excess of the criterion at the reported estimates over
    the best optimum known, or the largest error of the reported criterion, whichever is more; `passed` is the
    gate and `failed` counts the responses beyond it. `fresh` and `fresh_cached` are whole processes,
    `over_imports` the part of them that is not importing jax, pandas and formulaic.
    """

    package: str
    method: str
    responses: int = 0
    timed: int = 0
    cold: float | None = None
    cached: float | None = None
    warm: float | None = None
    fresh: float | None = None
    fresh_cached: float | None = None
    over_imports: float | None = None
    over_imports_cached: float | None = None
    gap: float | None = None
    judged: int = 0
    failed: int = 0
    passed: bool | None = None
    speedup: float | None = None
    peak_mib: float | None = None
    note: str = ""
    failure: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    estimates: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def per_fit(self) -> float | None:
        """Warm seconds per response."""
        return self.warm / self.responses if self.warm is not None and self.responses else None

    @classmethod
    def missing(cls, package: str, why: str, method: str = "") -> Row:
        """The row of a package that was not measured."""
        return cls(package, method, note=why, failure=why)

    def public(self) -> dict[str, Any]:
        """The row for the JSON file, without the single estimates and, if the gate failed, without times."""
        record = asdict(self) | {"per_fit": self.per_fit}
        del record["estimates"], record["failure"]
        if self.package == LMMJAX.name and self.passed is not True:
            times = ("cold", "cached", "warm", "per_fit", "speedup", "fresh", "fresh_cached")
            record |= dict.fromkeys((*times, "over_imports", "over_imports_cached"))
            kept = ("excess", "misreported", "gap_median", "device", "versions")
            record |= {"detail": {k: v for k, v in self.detail.items() if k in kept}, "note": self.failure}
        return record


def measure(workload: Workload, settings: Settings, say: Callable[[str], None]) -> list[Row]:
    """All rows of a workload: lmmjax first, then the peers."""
    count = settings.responses or (workload.small if settings.small else workload.responses)
    say(f"{workload.name}: making {count:,} responses")
    data = workload.generate(count)
    index = workload.checked_index(count)
    with tempfile.TemporaryDirectory(prefix="lmmjax-benchmark-") as name:
        folder = Path(name)
        _write(folder, data, index, batch=workload.kind == "batch")
        rows = []
        for package in ("lmmjax", *settings.peers):
            say(f"{workload.name}: {package}")
            if package == "lmmjax":
                rows += _lmmjax(workload, settings, folder, count, index)
            else:
                rows += _peer(PEERS[package], workload, settings, folder, count)
    say(f"{workload.name}: judging {len(index)} responses")
    _judge(workload, data, index, rows)
    reference = next((r.per_fit for r in rows if (r.package, r.method) == ("lme4", "lmer")), None)
    for row in rows:
        if reference and row.per_fit:
            row.speedup = reference / row.per_fit
    return rows


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


def _lmmjax(w: Workload, settings: Settings, folder: Path, count: int, index: np.ndarray) -> list[Row]:
    python, cache = sys.executable, folder / "cache"
    environment = _ours(cache)
    if w.kind == "single":
        rows = _each(LMMJAX, w, settings, folder, count, python, environment)
        _fresh(LMMJAX, w, settings, folder, python, rows[0])
        return rows

    def call(repeats: int, estimates: bool) -> Outcome:
        checked = ",".join(map(str, index))
        more = {"repeats": repeats, "budget": settings.budget, "estimates": str(estimates).lower()}
        command = LMMJAX.command(python, "batch", w, folder, checked=checked, **more)
        return run(command, environment=environment, timeout=settings.timeout)

    cold = call(0, estimates=False)
    if cold.result is None:
        return [Row.missing("lmmjax", cold.error, "fit_batch")]
    again = call(settings.repeats, estimates=True)
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
    return {"PYTHONPATH": str(Path(__file__).parents[1]), **compilation_cache(cache)}


def _peer(peer: Peer, w: Workload, settings: Settings, folder: Path, count: int) -> list[Row]:
    if not peer.can_fit(w):
        return [Row.missing(peer.name, peer.cannot(w))]
    interpreter = settings.rscript if peer.language == "R" else settings.peer_python
    if shutil.which(interpreter) is None:
        return [Row.missing(peer.name, f"not installed: no {Path(interpreter).name}")]
    rows = _each(peer, w, settings, folder, count, interpreter, {})
    if w.kind == "single":
        _fresh(peer, w, settings, folder, interpreter, rows[0])
    return rows


def _each(
    peer: Peer,
    w: Workload,
    settings: Settings,
    folder: Path,
    count: int,
    interpreter: str,
    environment: dict[str, str],
) -> list[Row]:
    """Rows of a package that fits the checked responses one by one, scaled to all of them."""
    command = peer.command(interpreter, "each", w, folder, budget=settings.budget)
    outcome = run(command, environment=environment, timeout=settings.timeout)
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


def _fresh(peer: Peer, w: Workload, settings: Settings, folder: Path, interpreter: str, row: Row) -> None:
    """Whole processes that import, fit and print; for lmmjax with an empty and with a filled cache."""
    command = peer.command(interpreter, "fresh", w, folder)

    def once(environment: dict[str, str]) -> Outcome:
        outcome = run(command, environment=environment, timeout=settings.timeout)
        if outcome.result is not None:
            row.peak_mib = outcome.result["peak_mib"]
            row.detail["fresh_estimate"] = outcome.result["estimate"]
        return outcome

    if peer is not LMMJAX:
        outcomes = [once({}) for _ in range(settings.repeats + 1)][1:]
        row.fresh = _median_wall(outcomes, row)
        return
    filled = _ours(folder / "filled")
    once(filled)
    imports, cold, cached = [], [], []
    for repeat in range(settings.repeats):
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


def _judge(w: Workload, data: Dataset, index: np.ndarray, rows: list[Row]) -> None:
    """Fill `gap`, `judged` and `passed` from the estimates, and from those of the fresh process."""
    if w.kind == "single":
        own = data.design[w.model.response].to_numpy()
        fresh = [Row(r.package, "fresh", estimates=[r.detail.get("fresh_estimate", {})]) for r in rows]
        _judge_responses(w, data, [own], [r for r in fresh if r.estimates[0]])
        _judge_responses(w, data, list(data.responses[index]), rows)
        for row, other in zip(rows, fresh, strict=True):
            if other.gap is not None and row.gap is not None:
                row.gap, row.failed = max(row.gap, other.gap), row.failed + other.failed
                row.judged += other.judged
                row.passed = bool(row.passed and other.passed)
    else:
        weights = None if data.weights is None else list(data.weights[index])
        _judge_responses(w, data, list(data.responses[index]), rows, weights)


def _judge_responses(
    w: Workload,
    data: Dataset,
    responses: list[np.ndarray],
    rows: list[Row],
    weights: list[np.ndarray] | None = None,
) -> None:
    rows = [row for row in rows if row.estimates]
    if not rows:
        return
    judge = Judge.of(w.model, data.design)
    shape = (len(rows), len(responses))
    found, reported = np.full(shape, np.nan), np.full(shape, np.nan)
    best = np.empty(len(responses))
    for i, y in enumerate(responses):
        response = judge.response(y) if weights is None else judge.weighted(weights[i]).response(y)
        for k, row in enumerate(rows):
            if i < len(row.estimates) and "error" not in row.estimates[i]:
                found[k, i] = response.at_estimate(row.estimates[i]["cov"], row.estimates[i]["sigma2"])
                reported[k, i] = row.estimates[i]["criterion"]
        best[i] = np.nanmin([response.best(response.starts()), *found[:, i]])
    for k, row in enumerate(rows):
        row.judged = len(row.estimates)
        excess, misreported = found[k] - best, np.abs(reported[k] - found[k])
        gap = np.maximum(excess, misreported)[: row.judged]
        failed = ~(gap <= tolerance(best[: row.judged]))
        row.gap = float(np.nanmax(gap)) if np.isfinite(gap).any() else math.nan
        row.failed, row.passed = int(failed.sum()), not failed.any()
        row.detail |= {
            "excess": float(np.nanmax(excess, initial=0.0)),
            "misreported": float(np.nanmax(misreported, initial=0.0)),
            "gap_median": float(np.nanmedian(gap)) if np.isfinite(gap).any() else math.nan,
        }
