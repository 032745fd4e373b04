"""Rows of streamed responses go by their labels, whatever holds them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

import lmmjax as lj
from lmmjax.cli import app
from lmmjax.stream.inputs import open_inputs

N, T = 32, 3
RNG = np.random.default_rng(1)
DATA = pd.DataFrame(
    {"id": np.repeat(list("abcdefgh"), 4), "x": np.tile([0.0, 1, 2, 3], 8)}, index=[f"S{k}" for k in range(N)]
)
Y = pd.DataFrame(RNG.normal(size=(N, T)), index=DATA.index, columns=["u", "v", "w"])
SHUFFLED = Y.sample(frac=1, random_state=0)
MODEL = lj.lmm("~ x + (1 | id)", DATA)


def observations(frame):
    return SimpleNamespace(
        X=frame.to_numpy(),
        obs=pd.DataFrame(index=frame.index),
        obs_names=frame.index,
        var_names=frame.columns,
    )


def h5ad(frame, path):
    anndata = pytest.importorskip("anndata")
    data = observations(frame)
    anndata.AnnData(data.X, obs=data.obs, var=pd.DataFrame(index=data.var_names)).write(path)
    return path


SOURCES = {
    "pandas": lambda frame, path: frame,
    "pandas, a column of labels": lambda frame, path: frame.rename_axis("s").reset_index(),
    "polars": lambda frame, path: pl.from_pandas(frame.rename_axis("s").reset_index()),
    "anndata": lambda frame, path: observations(frame),
    "parquet": lambda frame, path: frame.to_parquet(path / "y.parquet") or path / "y.parquet",
    "parquet, a column of labels": lambda frame, path: (
        frame.rename_axis("s").reset_index().to_parquet(path / "y.parquet", index=False) or path / "y.parquet"
    ),
    "h5ad": lambda frame, path: h5ad(frame, path / "y.h5ad"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_rows_go_by_label(tmp_path, kind):
    source = SOURCES[kind](SHUFFLED, tmp_path)
    assert_allclose(open_inputs(MODEL.data, source).read(0, T)[0], Y.to_numpy())
    # some rows left out of the model
    part = lj.lmm("~ x + (1 | id)", DATA.assign(x=DATA["x"].where(DATA["x"] != 2)))
    assert_allclose(open_inputs(part.data, source).read(1, 2)[0], Y[["v"]].to_numpy())
    with pytest.raises(ValueError, match="the labels of the rows of responses and of the design differ"):
        open_inputs(MODEL.data, SOURCES[kind](SHUFFLED.rename(index={"S3": "T3"}), tmp_path))


def test_rows_of_a_file_with_a_row_a_response(tmp_path):
    SHUFFLED.T.rename_axis("gene").reset_index().to_parquet(tmp_path / "y.parquet", index=False)
    read = open_inputs(MODEL.data, tmp_path / "y.parquet", rows=True).read(0, T)[0]
    assert_allclose(read, Y.to_numpy())


def test_weights_go_by_their_own_labels():
    inputs = open_inputs(MODEL.data, SHUFFLED, weights=Y**2, offset=SHUFFLED.iloc[::-1])
    values, weights, offset = inputs.read(0, T)
    assert_allclose(weights, values**2)
    assert_allclose(offset, values)
    with pytest.raises(ValueError, match="column 0 of the weights is called 'v'"):
        open_inputs(MODEL.data, SHUFFLED, weights=(Y**2)[["v", "u", "w"]])


def test_the_command_finds_the_column_of_the_labels(tmp_path):
    DATA.rename_axis("sample").reset_index().to_csv(tmp_path / "d.csv", index=False)
    results, said = {}, {}
    for name, frame in {"sorted": Y, "shuffled": SHUFFLED, "other": SHUFFLED.rename("T{}".format)}.items():
        frame.to_parquet(tmp_path / "y.parquet")
        command = [
            "batch",
            "~ x + (1 | id)",
            tmp_path / "d.csv",
            tmp_path / "y.parquet",
            "-o",
            tmp_path / name,
        ]
        ran = CliRunner().invoke(app, list(map(str, command)))
        assert ran.exit_code == 0, ran.output
        results[name], said[name] = pq.read_table(tmp_path / name).to_pandas(), ran.output
    pd.testing.assert_frame_equal(results["sorted"], results["shuffled"])
    assert "in the order they come" not in said["shuffled"]
    assert "no column of" in said["other"]
    assert "in the order they come" in said["other"]
