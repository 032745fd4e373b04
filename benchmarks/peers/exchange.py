"""What the Python peer scripts share: options, the data files, timed loops and the JSON they leave.

The harness uses it too, for processes of our own.

Run from the interpreter of the peer, so nothing but the standard library, NumPy and pandas is used, and the
last two only where a script has imported them anyway.
"""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

OPTIONS: dict[str, str] = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
DATA = Path(OPTIONS.get("data", "."))


def load_design():
    """The covariates, the grouping factors as strings."""
    import pandas as pd

    return pd.read_csv(DATA / "design.csv", dtype=dict.fromkeys(OPTIONS["groups"].split(","), str))


def load_checked() -> list:
    """The responses to fit, each of length n."""
    import pandas as pd

    frame = pd.read_csv(DATA / "checked.csv", float_precision="round_trip")
    return [frame[name].to_numpy() for name in frame]


def each(fit: Callable[[Any], Any], estimate: Callable[[Any], dict], responses: Iterable) -> dict[str, Any]:
    """Time `fit(y)` response by response, until all are done or the budget in seconds is spent.

    `estimate` turns a fit into `criterion`, `cov` (lower triangles by row), `sigma2` and `beta`; it is not
    timed. The first call, which warms up, is `first` and is run again.
    """
    responses = list(responses)
    budget = float(OPTIONS.get("budget", "60"))
    result: dict[str, Any] = {"seconds": [], "estimates": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        try:
            fit(responses[0])
        except Exception as error:
            result["first_error"] = f"{type(error).__name__}: {error}"
        begun = time.perf_counter()
        result["first"] = begun - start
        for y in responses:
            start = time.perf_counter()
            try:
                done = fit(y)
                result["seconds"].append(time.perf_counter() - start)
                result["estimates"].append(estimate(done))
            except Exception as error:
                result["seconds"].append(time.perf_counter() - start)
                result["estimates"].append({"error": f"{type(error).__name__}: {error}"})
            if time.perf_counter() - begun > budget:
                break
    return result


def lower_triangle(matrix) -> list[float]:
    """The lower triangle by row."""
    return [float(matrix[i][j]) for i in range(len(matrix)) for j in range(i + 1)]


def mixedlm_estimate(fit) -> dict[str, Any]:
    """The estimates of a fit that has statsmodels' names, as `each` wants them."""
    import numpy as np

    return {
        "criterion": -2.0 * float(fit.llf),
        "cov": lower_triangle(np.asarray(fit.cov_re)),
        "sigma2": float(fit.scale),
        "beta": [float(b) for b in fit.fe_params],
        "converged": bool(fit.converged),
    }


def peak_mib(process: object = "self") -> float:
    """Peak resident memory of this process since it began executing, or of the one that has a number."""
    status = Path(f"/proc/{process}/status")
    try:
        lines = status.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    if process != "self":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def versions(*packages: str) -> dict[str, str]:
    """Versions of `packages` and of the interpreter."""
    from importlib.metadata import version

    found = {"python": platform.python_version()}
    for name in packages:
        module = sys.modules.get(name.replace("-", "_"))
        found[name] = getattr(module, "__version__", None) or version(name)
    return found


def write(result: dict[str, Any]) -> None:
    """Leave the result where the harness looks for it."""
    Path(OPTIONS["out"]).write_text(json.dumps({"peak_mib": peak_mib(), **result}))


def write_missing(error: ImportError) -> None:
    """Say that the package is not installed here."""
    write({"missing": error.name or str(error)})
    raise SystemExit(0)
