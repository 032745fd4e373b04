"""What the inputs of `cases` name: data, a model, a fit, a batch, files."""

import gzip
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from typer.testing import CliRunner

import lmmjax as lj
from lmmjax.cli import app
from lmmjax.datasets import load

FILE = re.compile(r"\w+(\.\w+)+")


def setting(folder: Path) -> dict[str, Any]:
    """Names for `eval`; files are written to `folder`."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(8), 5), rng.normal(size=40)
    d = pd.DataFrame({"y": 1 + x + 2 * rng.normal(size=8)[g] + rng.normal(size=40), "x": x, "g": g})
    d["t"], d["f"], d["w"] = np.tile(range(5), 8), np.tile(list("abcde"), 8), rng.uniform(1, 2, 40)
    d["day"], d["one"] = pd.date_range("2020-01-01", periods=40), 1.0
    d["visit"] = np.tile(["base", "early", "mid", "late", "end"], 8)
    d["h"], d["my col"] = rng.permutation(g), x**2
    labelled = d.set_axis([f"S{k}" for k in range(40)])
    y = pd.DataFrame(rng.normal(size=(40, 3)), columns=["u", "v", "w"])
    fit = lj.lmm("y ~ x + (1 | g)", d).fit()
    model, codes = lj.lmm("~ x + (1 | g)", d), d["g"].to_numpy()
    names = {"np": np, "pd": pd, "jax": jax, "lj": lj, "lmm": lj.lmm, "Model": lj.Model, "load": load}
    names |= {"d": d, "labelled": labelled, "Y": y, "other": y.set_axis([f"T{k}" for k in range(40)])}
    names |= {"fit": fit, "model": model, "fits": model.fit_batch(y), "key": jax.random.key(0)}
    names |= {"codes": codes, "row": d.iloc[[0]], "here": folder, "out": folder / "o.parquet"}

    def put(column: str, k: int, value: Any) -> pd.DataFrame:
        return d.assign(**{column: _put(d[column], k, value)})

    def problem(groups: Any, **options: Any) -> Any:
        arrays = {"y": d["y"].to_numpy(), "x": np.ones((40, 1))} | options
        return lj.problem_from_arrays(groups=groups, **arrays)

    def run(*words: str) -> None:
        _run(folder, *words)

    names["gone"] = jax.numpy.ones((40, 3))
    names["gone"].delete()
    _files(folder, d, y)
    names |= {"by_chunk": lj.lmm("y ~ x + (1 | g)", lambda: [d[:20], d[20:]]).fit()}
    return names | {"put": put, "problem": problem, "run": run}


def _put(column: pd.Series, k: int, value: Any) -> pd.Series:
    changed = column.astype(object)
    changed.iloc[k] = value
    return changed if isinstance(value, str) else changed.infer_objects()


def _run(folder: Path, *words: str) -> None:
    """A command; what it says when it refuses is raised."""
    command = [str(folder / word) if FILE.fullmatch(word) else word for word in words]
    ran = CliRunner().invoke(app, command)
    if ran.exit_code == 2 and isinstance(ran.exception, SystemExit):
        # the frame that typer draws, as wide as the terminal
        said = " ".join(re.sub(r"[\u2500-\u257f]", " ", ran.output).split())
        raise ValueError(said.partition(" Error ")[2] or said.partition("lmmjax: ")[2])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception


def _files(folder: Path, d: pd.DataFrame, y: pd.DataFrame) -> None:
    d.to_csv(folder / "d.csv", index=False)
    y.to_parquet(folder / "y.parquet")
    y.set_axis(d["visit"].iloc[::-1], axis=0).to_csv(folder / "turned.csv")
    np.save(folder / "y.npy", y.to_numpy())
    np.save(folder / "short.npy", y.to_numpy()[:30])
    np.save(folder / "objects.npy", np.array([["a", None]], dtype=object))
    (folder / "fake.parquet").write_bytes(b"not a table")
    (folder / "fake.zarr.zip").write_bytes(b"PK no archive")
    (folder / "fake.h5").write_bytes(b"not a store")
    (folder / "fake.npy").write_bytes(b"not an array")
    (folder / "empty.csv").write_text("")
    (folder / "fake.csv.zip").write_bytes(b"PK no archive")
    (folder / "broken.csv.gz").write_bytes(gzip.compress(b"y,x,g\n" + b"1,2,3\n" * 999)[:40])
    (folder / "notes.txt").write_text("y x")
