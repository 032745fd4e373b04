"""Rows of streamed responses go by their labels, whatever holds them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.cli.batch_options import read_design
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


def read(folder, design: pd.DataFrame, responses: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The design as `lmmjax batch` reads it, and the responses on the rows of its model."""
    design.to_csv(folder / "d.csv", index=False)
    responses.to_parquet(folder / "y.parquet")
    table, index = read_design(folder / "d.csv", str(folder / "y.parquet"), None, False)
    inputs = open_inputs(lj.lmm("~ x + (1 | id)", table).data, folder / "y.parquet", index=index)
    return table, inputs.read(0, T)[0]


def test_the_command_goes_by_the_column_of_the_labels(tmp_path, capsys):
    design = DATA.rename_axis("sample").reset_index()
    for order in (design, design[[*DATA.columns, "sample"]]):
        assert_allclose(read(tmp_path, order, SHUFFLED)[1], Y.to_numpy())
    # those of complete rows are enough
    gaps = design.assign(x=design["x"].where(design["x"] != 2))
    complete = gaps["sample"][gaps["x"].notna()]
    assert_allclose(read(tmp_path, gaps, SHUFFLED.loc[complete].iloc[::-1])[1], Y.loc[complete])
    # labels that occur several times stay as they are
    assert_allclose(read(tmp_path, DATA, Y.set_axis(DATA["id"], axis=0))[1], Y.to_numpy())
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "label", "named"),
    [
        (["sample", "x", "id"], "T{}".format, None),
        (["x", "id", "sample"], lambda s: "new" if s == "S3" else s, None),
        (["x", "id", "sample"], "T{}".format, "sample"),
    ],
)
def test_the_command_refuses_other_labels(tmp_path, columns, label, named):
    design = DATA.rename_axis("sample").reset_index()[columns]
    with pytest.raises(ValueError, match="are not those of column 'sample'"):
        read(tmp_path, design, SHUFFLED.rename(label).rename_axis(named))


IDS = pd.Index([3, 1, 2, 6, 5, 4], name="id")


def labelled(folder, design: dict, labels: pd.Index = IDS) -> list:
    pd.DataFrame(design).to_csv(folder / "d.csv", index=False)
    pd.DataFrame({"a": 0.5, "b": 1.5}, index=labels).to_csv(folder / "r.csv")
    name = labels.name or "Unnamed: 0"
    return read_design(folder / "d.csv", str(folder / "r.csv"), name, False)[0].index.tolist()


def test_the_column_that_is_called_as_the_labels_goes_first(tmp_path):
    plates = {"plate": [11, 12, 13, 14, 15, 16, *range(1, 7)], "id": [*IDS, *range(7, 13)]}
    assert labelled(tmp_path, plates) == plates["id"]
    order = {"order": [6, 5, 4, 3, 2, 1], "id": [*IDS]}
    assert labelled(tmp_path, order) == [*IDS]
    with pytest.raises(ValueError, match=r"\(3, …\) .* 'id' .* \(13, …\): 0 of 6 are there, not 3, 1, 2, …"):
        labelled(tmp_path, {"day": [1, 2, 3, 4, 5, 6], "id": IDS + 10})
    with pytest.raises(ValueError, match="5 of 6 are there, not 4; correct"):
        labelled(tmp_path, {"id": IDS[:5]})
    # none is called so: only columns that agree will do
    with pytest.raises(ValueError, match=r"columns 'order' and 'id' of .* in different orders"):
        labelled(tmp_path, order, IDS.rename("sample"))
    assert labelled(tmp_path, {"u": [*IDS], "id": [*IDS]}, IDS.rename("sample")) == [*IDS]
    # a column without a name in both tables
    texts = [f"s{k}" for k in IDS]
    without = {"Unnamed: 0": range(6), "sample": texts}
    assert labelled(tmp_path, without, pd.Index(texts[::-1])) == texts


def test_labels_that_occur_several_times_stay_in_order(tmp_path):
    with pytest.raises(ValueError, match="several times and in another order"):
        read(tmp_path, DATA, Y.set_axis(DATA["id"].iloc[::-1].rename("id"), axis=0))


def test_the_command_goes_by_position_where_the_design_has_no_labels(tmp_path, capsys):
    assert_allclose(read(tmp_path, DATA, SHUFFLED)[1], SHUFFLED.to_numpy())
    assert "in the order they come" in capsys.readouterr().err
