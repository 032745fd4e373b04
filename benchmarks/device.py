"""Is a device right, and how fast is it? The self-check, fits beside those of the CPU, times and memory.

    python -m benchmarks.device -o device.json

Runs from a checkout that is not installed, where there are JAX, NumPy, SciPy, pandas, optax and formulaic.
Data are simulated. Every piece is fitted on the device that JAX would use and again in double precision on
the CPU, and what both report is compared; then come its times, the first call and later ones, and the peak
of memory. What matters most comes first, the JSON file is written after every piece, and a piece that fails
leaves the others running. The exit status is 1 if results are unequal, a piece failed, or time ran out.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import lmmjax as lj
from benchmarks.harness import machine, results, roofline
from benchmarks.harness.device_pieces import PIECES, Fitting, Piece, Results
from benchmarks.harness.spec import spread
from benchmarks.harness.text import count, duration, markdown, small_number
from benchmarks.harness.timing import timed

SINGLES = 4
"""Responses of a batch that are fitted alone, too."""

LIMITS = {
    "criterion": 1e-6,
    "beta": 1e-3,
    "se": 1e-3,
    "psi": 1e-3,
    "df": 1e-3,
    "gradient": 1e-6,
    "limits": 1e-3,
}
"""Largest differences: of criteria as they are; of β̂ in standard errors; of standard errors, df and limits by
profile relative to themselves; of ψ̂ relative to the larger of itself and σ²; of a gradient relative to its
norm. A criterion that is right to 1e-6 leaves a thousandth of a standard error to the estimates."""


def differences(got: Results, expected: Results) -> dict[str, float]:
    """The largest difference of each quantity, on the scale of `LIMITS`; inf where one is missing."""
    floor = {
        "criterion": np.ones(1),
        "beta": expected.get("se", np.ones(1)),
        "gradient": np.linalg.norm(expected.get("gradient", np.ones(1))),
    }
    if "psi" in expected:
        floor["psi"] = np.maximum(np.abs(expected["psi"]), expected["psi"][..., -1:])
    out = {}
    for name in got.keys() & expected.keys() & LIMITS.keys():
        a, b = got[name], expected[name]
        scale = floor.get(name, np.abs(b))
        same = np.isnan(a) == np.isnan(b)
        apart = np.where(np.isnan(b), 0.0, np.abs(a - b) / scale)
        out[name] = float(np.max(np.where(same, apart, np.inf), initial=0.0))
    return out


def measure(piece: Piece, responses: int, repeats: int, budget: float) -> dict[str, Any]:
    """Times and memory of a piece on the device, and its distance from the CPU and from single fits."""
    begin = time.perf_counter()
    fitting = piece.prepare(responses)
    built = time.perf_counter() - begin
    on_device = timed(fitting.call, repeats, budget)
    found = fitting.read(on_device.result)
    # a CPU beside itself needs no other programs
    same = jax.local_devices()[0].platform == "cpu"
    beside = jax.local_devices(backend="cpu")[0]
    with contextlib.nullcontext() if same else jax.default_device(beside):
        compared = {"the CPU": differences(found, fitting.read(fitting.call()))}
        if fitting.alone:
            chosen = spread(responses, SINGLES)
            singles = [fitting.alone(int(k)) for k in chosen]
            alike = found.keys() & singles[0].keys()
            joined = {k: np.stack([s[k] for s in singles]).reshape(found[k][chosen].shape) for k in alike}
            compared["single fits"] = differences({k: a[chosen] for k, a in found.items()}, joined)
    limits = LIMITS | dict(piece.limits)
    equal = all(value <= limits[name] for each in compared.values() for name, value in each.items())
    return {
        "responses": responses,
        "build": built,
        "first": on_device.first,
        "warm": on_device.best,
        "calls": on_device.later,
        "differences": compared,
        "limits": {name: limits[name] for name in compared["the CPU"]},
        "equal": bool(equal),
        "converged": int(np.sum(found.get("converged", 0))),
        "memory": memory(),
        "paper": paper(fitting, found, responses),
    }


def paper(fitting: Fitting, found: Results, responses: int) -> dict[str, float] | None:
    """Bytes and operations of a piece, and the least time of this card for them, if its figures are known."""
    done = fitting.work
    if fitting.model is not None and "evaluations" in found:
        done = roofline.work(fitting.model, responses, float(np.mean(found["evaluations"])) + 1.0)
    if done is None:
        return None
    card = jax.local_devices()[0].device_kind
    return dataclasses.asdict(done) | (roofline.seconds(done, card) if roofline.known(card) else {})


def memory() -> dict[str, float | None]:
    """MiB: the most the device held so far, if it says, and the most of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"device": None if peak is None else peak / 2**20, "process": resident}


def guarded(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A record, with the error and its traceback if there was one."""
    begin = time.perf_counter()
    try:
        record = call()
    except Exception as error:
        text = f"{type(error).__name__}: {error}".split("\n")[0]
        record = {"error": text, "traceback": traceback.format_exc(limit=-8)}
    return record | {"seconds": time.perf_counter() - begin}


def checked() -> dict[str, Any]:
    """The self-check as a record."""
    table = lj.self_check()
    failed = int((~table["passed"]).sum())
    return {"equal": failed == 0, "checks": table.to_dict("records"), "failed": failed}


def table(records: list[dict[str, Any]]) -> str:
    """A line a piece; differences are the largest of those from the CPU and from single fits."""

    def line(r: dict[str, Any]) -> list[str]:
        if r.get("error"):
            return [r["piece"], *[""] * 7, r["error"][:60]]
        apart = r.get("differences", {}).values()
        worst = [max((d[name] for d in apart if name in d), default=None) for name in ("criterion", "beta")]
        cells = [count(r.get("responses") or None), duration(r.get("first")), duration(r.get("warm"))]
        used = r.get("memory", {})
        cells += [*map(small_number, worst), count(used.get("device")), count(used.get("process"))]
        return [r["piece"], *cells, "equal" if r["equal"] else "UNEQUAL"]

    right = ("responses", "first", "warm", "Δ criterion", "Δ β̂/se", "device MiB", "process MiB")
    return markdown(["piece", *(f"{name}:" for name in right), ""], map(line, records))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__.split("\n")[0])
    add = top.add_argument
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the JSON file; by default device.json in $OUT, else in benchmarks/results/<kind of machine>",
    )
    add("--responses", type=int, metavar="N", help="another number of responses for every batch")
    add("--small", action="store_true", help="a twentieth of the responses: does everything run?")
    add("--repeats", type=int, default=7, help="warm calls of a piece (7)")
    add("--budget", type=float, default=4.0, help="seconds after which no more warm calls are made (4)")
    add("--limit", type=float, default=330.0, help="seconds after which no piece is begun (330)")
    add("--only", metavar="TEXT", help="pieces whose name has this text")
    return top


def main() -> None:
    given = parser().parse_args()
    begin = time.perf_counter()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    described = machine.describe(cores, cores, machine.device()["device"])
    described["packages"] = {**described["packages"], "lmmjax": lj.__version__}  # type: ignore[dict-item]
    folder = Path(os.environ["OUT"]) if os.environ.get("OUT") else results.RESULTS / str(described["kind"])
    file = given.output or folder / "device.json"
    print(f"{described['device']}, {described['cpu']}, {described['packages']}", flush=True)
    records: list[dict[str, Any]] = []

    def done(name: str, record: dict[str, Any]) -> None:
        records.append({"piece": name} | record)
        said = "equal" if record.get("equal") else record.get("error", "UNEQUAL")
        print(f"{time.perf_counter() - begin:6.1f} s  {name}: {said}", file=sys.stderr, flush=True)
        results.save(
            file, {"schema": results.SCHEMA, "id": "device", "machine": described, "records": records}
        )

    if not given.only:
        done("self-check", guarded(checked))
    for piece in PIECES:
        if given.only and given.only not in piece.name:
            continue
        if time.perf_counter() - begin > given.limit:
            done(piece.name, {"error": f"not begun: {given.limit:g} s were over"})
            continue
        usual = piece.responses // 20 if given.small else piece.responses
        responses = (given.responses or usual) if piece.responses else 0
        done(piece.name, guarded(lambda p=piece, n=responses: measure(p, n, given.repeats, given.budget)))
    print("\n" + table(records) + f"\n\n{time.perf_counter() - begin:.0f} s; {file}")
    sys.exit(not all(r.get("equal") for r in records))


if __name__ == "__main__":
    main()
