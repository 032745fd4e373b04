"""Writes files of the format of now, which later versions have to read: `python tests/saving/make_format.py`.

Run when `archive.FORMAT` was raised; files of earlier formats stay as they are.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import lmmjax as lj
from lmmjax.saving.archive import FORMAT


def models():
    """A fit with columns of several types, weights, an array and a residual structure; a batch."""
    rng = np.random.default_rng(20)
    d = pd.DataFrame({"id": np.repeat(np.arange(8), 4), "t": np.tile(np.arange(4), 8)})
    d["arm"] = pd.Categorical(np.where(d["id"] % 2, "b", "a"), ["b", "a", "c"])
    d["dose"] = pd.array(rng.integers(1, 4, 32), dtype="Int64")
    d["w"], d["site"] = rng.uniform(1, 2, 32), [f"s {k % 3}" for k in d["id"]]
    d["y"] = rng.normal(size=32) + rng.normal(size=8)[d["id"]] + 0.3 * d["t"]
    d.loc[5, "dose"] = pd.NA
    residual = lj.AR1("t", group="id") * lj.VarIdent("arm")
    options = {"weights": "w", "offset": rng.normal(size=32), "residual": residual}
    yield "fit", lj.lmm("y ~ scale(t) * arm + dose + (1 | site)", d, **options).fit()
    responses = pd.DataFrame({"one": d["y"], "none": np.nan, "some": d["y"].where(d["t"] > 0)})
    yield "batch", lj.lmm("~ t + (1 | id)", d).fit_batch(responses)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name, made in models():
        made.save(Path(__file__).parent / f"format_{FORMAT}_{name}.lmm")
        print(name, made.llf, np.asarray(made.params).tolist(), sep="\n")
