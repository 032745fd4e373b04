"""The table of all checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pandas as pd

from lmmjax.arrays import quick_jit
from lmmjax.selfcheck.cases import PATTERNS, WHOLE, Found, difference
from lmmjax.selfcheck.patterns import SIZES


def self_check(seed: int = 0) -> pd.DataFrame:
    """Patterns that the engine uses, computed on the device that JAX would use and compared with NumPy.

    Most of its seconds are compilation. Nothing is raised: what fails has `passed` False.

    Returns
    -------
    A row a pattern and dtype, of its worst comparison: `check`; `dtype`; `size` (rows, lanes or responses);
    `error`, the largest relative one (inf where nothing finite came back); `tolerance`; `passed`; `detail`,
    the message of an exception, else empty.
    """
    rows = []
    with jax.enable_x64(True):
        for name, cases in PATTERNS.items():
            for dtype in SIZES:
                rows.append(_worst(name, dtype, lambda c=cases, d=dtype: _compiled(c, seed, np.dtype(d))))
        for name, found in WHOLE.items():
            rows.append(_worst(name, "float64", lambda f=found: f(np.random.default_rng(seed))))
    return pd.DataFrame(rows)


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
    """Every case as JAX compiles by itself, and with the options of the engine."""
    for case in cases(np.random.default_rng(seed), dtype):
        for compiler in (jax.jit, quick_jit):
            got = compiler(case.function)(*case.arguments)
            yield case.size, difference(got, case.expected), case.tolerance
