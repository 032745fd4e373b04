"""Labels: equal as sets they are matched, different they are refused, without them position counts."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

import lmmjax as lj
from lmmjax.formula.labelled import labelled
from lmmjax.formula.matching import positions, require_distinct_names

TEXT = pd.Index(["a", "b", "c"])
VALUES = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    ("theirs", "ours", "place"),
    [
        (None, TEXT, None),
        (TEXT, None, None),
        (TEXT, pd.Index(["a", "b", "c"], dtype=object), None),
        (pd.Index(["c", "a", "b"]), TEXT, [1, 2, 0]),
        (pd.CategoricalIndex(["c", "a", "b"]), TEXT, [1, 2, 0]),
        (pd.Index(["c", "a", "b"], dtype="string[pyarrow]"), TEXT, [1, 2, 0]),
        (pd.RangeIndex(3), TEXT, None),
        (pd.Index([0, 1, 2]), TEXT, None),
        (TEXT, pd.RangeIndex(3), None),
        (pd.Index([2, 0, 1]), pd.RangeIndex(3), [1, 2, 0]),
        (pd.Index([2.0, 0.0, 1.0]), pd.RangeIndex(3), [1, 2, 0]),
        (pd.Index(["a", "a", "b"]), pd.Index(["a", "a", "b"]), None),
        (pd.Index(["a", "a", "b"]), pd.RangeIndex(3), None),
        (
            pd.MultiIndex.from_tuples([("s", 2), ("s", 1)]),
            pd.MultiIndex.from_tuples([("s", 1), ("s", 2)]),
            [1, 0],
        ),
        (pd.to_datetime(["2020-01-02", "2020-01-01"]), pd.date_range("2020-01-01", periods=2), [1, 0]),
    ],
)
def test_positions(theirs, ours, place):
    found = positions(theirs, ours, "weights")
    assert found is None if place is None else list(found) == place


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (
            ["a", "b", "x"],
            TEXT,
            "the labels of the rows of weights and of the data differ: 'x' (1) only in weights, 'c' (1) only "
            "in the data: give weights the labels of the data, or pass an array to go by position",
        ),
        (
            ["1", "2", "3"],
            pd.Index([1, 2, 3]),
            "'1', '2', '3' (3) only in weights, 1, 2, 3 (3) only in the data",
        ),
        (["a", "b", "c", "d"], TEXT, "'d' (1) only in weights, none only in the data"),
        (["a", "b", "a"], pd.Index(["a", "a", "b"]), "come in another order, and 'a' labels several of them"),
        (["a", "b", "b"], pd.Index(["a", "a", "b"]), "come in another order, and 'b' labels several of them"),
        (pd.RangeIndex(3, name="id"), TEXT, "0, 1, 2 (3) only in weights"),
        (pd.RangeIndex(1, 4), TEXT, "1, 2, 3 (3) only in weights"),
    ],
)
def test_labels_that_differ(theirs, ours, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        positions(pd.Index(theirs), ours, "weights")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "a"], "there is more than one response 'a'"),
        ([2, "2"], "there is a response 2 and a response '2', which read the same"),
        ([1, "a", 1], "there is more than one response 1"),
    ],
)
def test_names_that_are_not_distinct(names, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        require_distinct_names(names, "response")


FRAME = pd.DataFrame(VALUES, index=TEXT, columns=["p", "q"])
HOLDERS = {
    "pandas": FRAME,
    "nullable": FRAME.convert_dtypes(),
    "decimals": FRAME.astype(pd.ArrowDtype(pa.decimal128(8, 3))),
    "arrow": pa.Table.from_pandas(FRAME),
    "batch of arrow": pa.RecordBatch.from_pandas(FRAME),
    "dict of Series": {"p": FRAME["p"], "q": FRAME["q"].iloc[::-1]},
    "xarray": xr.DataArray(VALUES, coords={"obs": list("abc"), "var": ["p", "q"]}, dims=("obs", "var")),
    "AnnData": SimpleNamespace(X=VALUES, obs_names=TEXT, var_names=pd.Index(["p", "q"]), obs=None),
    "polars": pl.from_pandas(FRAME),
    "lazy": pl.from_pandas(FRAME).lazy(),
    "arrow without index": pa.table({"p": VALUES[:, 0], "q": VALUES[:, 1]}),
    "dict of arrays": {"p": VALUES[:, 0], "q": pa.array(VALUES[:, 1])},
    "structured": np.array([tuple(row) for row in VALUES], dtype=[("p", "f4"), ("q", "i4")]),
    "AnnData without names": SimpleNamespace(
        X=VALUES, obs_names=pd.Index(["0", "1", "2"]), var_names=pd.Index(["p", "q"]), obs=None
    ),
    "array": VALUES,
    "list": VALUES.tolist(),
    "xarray without coordinates": xr.DataArray(VALUES),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_holders_of_responses(kind):
    found = labelled(HOLDERS[kind], "responses", "response")
    assert found.values.dtype == np.float64
    assert_array_equal(found.values, VALUES)
    labels = ["xarray", "AnnData"] if kind in ("xarray", "AnnData") else []
    if labels or kind in ("pandas", "nullable", "decimals", "arrow", "batch of arrow", "dict of Series"):
        assert list(found.index) == list("abc")
    elif found.index is not None:
        assert list(found.index) == [0, 1, 2]
    if kind not in ("array", "list", "xarray without coordinates"):
        assert list(found.columns) == ["p", "q"]
    elif found.columns is not None:
        assert list(found.columns) == [0, 1]


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        (pl.DataFrame({"p": [1.0], "s": ["u"]}), "response 's' is not numeric but text (u in row 0)"),
        (pa.table({"p": [1.0], "s": [b"u"]}), "response 's' is not numeric but text"),
        (
            pd.DataFrame({"p": [1.0], "s": pd.to_datetime(["2020-01-01"])}),
            "response 's' is not numeric but dates",
        ),
        ({"p": [1.0], "s": [1j]}, "response 's' is not numeric but complex"),
        ({"p": [1.0], "s": [1.0, 2.0]}, "the columns of responses differ in length: {'p': 1, 's': 2}"),
        ({"p": [1.0], "s": [[1.0, 2.0]]}, "response 's' has shape (1, 2)"),
        ([FRAME["p"], FRAME["q"]], "responses is a list of Series: pass a frame, or a dict"),
        (
            {"p": FRAME["p"], "q": FRAME["q"].rename({"a": "x"})},
            "'x' (1) only in response 'q', 'a' (1) only in",
        ),
    ],
)
def test_what_holds_no_responses(responses, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        labelled(responses, "responses", "response")


def test_arrays_beside_labels_in_several_orders_are_refused():
    """A column without labels goes with those that have them, if these have one order."""
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"y": rng.normal(size=8), "x": rng.normal(size=8), "g": np.repeat(range(4), 2)})
    data.index = pd.Index(list("abcdefgh"))
    moved = data["y"].iloc[[3, 1, 0, 2, 7, 6, 5, 4]]
    x = data["x"].to_numpy()
    refused = r"'x' has no labels of its rows, and others have them in several orders"
    for columns in ({"y": moved, "x": x, "g": data["g"]}, {"x": x, "g": data["g"], "y": moved}):
        with pytest.raises(ValueError, match=refused):
            lj.lmm("y ~ x + (1 | g)", columns)
    numbered = data["g"].reset_index(drop=True)
    with pytest.raises(ValueError, match=refused):
        lj.Model.from_arrays(moved.set_axis([3, 1, 0, 2, 7, 6, 5, 4]), x[:, None], numbered)
    both = {"a": data["y"].to_numpy(), "b": moved}
    with pytest.raises(ValueError, match=r"responses: 'a' has no labels .* in another order than the data"):
        lj.lmm("~ x + (1 | g)", data).fit_batch(both)
    # numbers of rows beside labels are none
    frame = lj.lmm("y ~ x + (1 | g)", {"y": data["y"], "x": x, "g": numbered}).frame
    np.testing.assert_array_equal(frame.x[:, 1], x)
