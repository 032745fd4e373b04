"""The table of all checks."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import pandas as pd

from lmmjax.arrays import quick_jit
from lmmjax.arrays.compile import compiled_at_once
from lmmjax.reports.table import prints_whole
from lmmjax.selfcheck.cases import PATTERNS, WHOLE, Found, difference
from lmmjax.selfcheck.patterns import SIZES


@prints_whole
def self_check(seed: int = 0) -> pd.DataFrame:
    """Patterns that the engine uses, computed on the device that JAX would use and compared with NumPy.

    Most of its seconds are compilation. Nothing is raised: what fails has `passed` False.

    Parameters
    ----------
    seed : of the numbers that are computed with.

    Returns
    -------
    A row a pattern and dtype, of its worst comparison: `check`; `dtype`; `size` (rows, lanes or responses);
    `error`, the largest relative one (inf where nothing finite came back); `tolerance`; `passed`; `detail`,
    the message of an exception, else empty.
    """
    calls = [
        (name, dtype, lambda c=cases, d=dtype: _compiled(c, seed, np.dtype(d)))
        for name, cases in PATTERNS.items()
        for dtype in SIZES
    ]
    calls += [
        (name, "float64", lambda f=found: f(np.random.default_rng(seed))) for name, found in WHOLE.items()
    ]
    device = getattr(jax.config, "jax_default_device", None)

    def row(call: tuple) -> dict[str, Any]:
        # a thread has settings of its own; what NumPy would play says nothing of the compiler
        with jax.enable_x64(True), jax.default_device(device), compiled_at_once():
            return _worst(*call)

    # fits, which take longest to compile, begin first
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        rows = list(pool.map(row, calls[::-1]))
    return pd.DataFrame(rows[::-1])


def _worst(name: str, dtype: str, call: Callable[[], Found]) -> dict[str, Any]:
    """The row of the comparison that is worst beside its tolerance, or of the exception that ended them."""
    detail = ""
    try:
        size, error, tolerance = max(call(), key=lambda found: found[1] / found[2])
    except Exception as failure:
        size, error, tolerance = 0, np.inf, 0.0
        detail = f"{type(failure).__name__}: {failure}".split("\n")[0]
    found = {"size": size, "error": error, "tolerance": tolerance, "passed": bool(error <= tolerance)}
    return {"check": name, "dtype": dtype} | found | {"detail": detail}


def _compiled(cases: Callable, seed: int, dtype: Any) -> Found:
    """Cases with the options of the engine in double precision, in single as JAX compiles by itself."""
    own = quick_jit if dtype.itemsize == 8 else jax.jit
    for case in cases(np.random.default_rng(seed), dtype):
        for compiler in (quick_jit, jax.jit) if case.both else (own,):
            got = compiler(case.function)(*case.arguments)
            yield case.size, difference(got, case.expected), case.tolerance
