"""What is given beside the data lands on the rows of the model by label: in any order, or not at all."""

import re
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

import lmmjax as lj
from lmmjax.fitted import fit_many
from lmmjax.fitted.responses import beside, response_matrix, response_vector
from lmmjax.formula import array_frame

RNG = np.random.default_rng(1)
DATA = pd.DataFrame(
    {"id": np.repeat(list("abcdefgh"), 4), "x": np.tile([0.0, 1, 2, 3], 8)},
    index=[f"S{i}" for i in range(32)],
)
Y = pd.DataFrame({"g1": DATA["x"] + RNG.normal(size=32), "g2": RNG.normal(size=32)}, index=DATA.index)
ORDER = RNG.permutation(32)
SHUFFLED = Y.iloc[ORDER]


@pytest.fixture(scope="module")
def data():
    return lj.lmm("~ x + (1 | id)", DATA).data


@pytest.mark.parametrize(
    "responses",
    [
        Y,
        Y.to_numpy(),
        Y.to_numpy().tolist(),
        Y.reset_index(drop=True),
        jnp.asarray(Y.to_numpy(), jnp.float32),
        SHUFFLED,
        pa.Table.from_pandas(SHUFFLED),
        pa.RecordBatch.from_pandas(SHUFFLED),
        {"g1": SHUFFLED["g1"], "g2": Y["g2"]},
        SHUFFLED.rename_axis("sample"),
        SimpleNamespace(
            X=SHUFFLED.to_numpy(), obs_names=SHUFFLED.index, var_names=SHUFFLED.columns, obs=None
        ),
        pl.from_pandas(Y).lazy(),
    ],
)
def test_responses_by_label(data, responses):
    names, values = response_matrix(data, responses)
    assert_array_equal(np.float32(values), np.float32(Y))
    assert list(names) in (["g1", "g2"], [0, 1])


def test_a_shuffled_batch_has_the_same_table():
    model = lj.lmm("~ x + (1 | id)", DATA)
    weights = pd.DataFrame(RNG.uniform(1, 2, (32, 2)), DATA.index, Y.columns)
    plain, shuffled = (
        model.fit_batch(Y, weights=weights),
        model.fit_batch(SHUFFLED, weights=weights[["g2", "g1"]].sample(frac=1, random_state=1)),
    )
    pd.testing.assert_frame_equal(plain.params, shuffled.params)
    fit = plain["g1"]
    pd.testing.assert_series_equal(fit.refit(Y["g2"]).params, fit.refit(SHUFFLED["g2"]).params)


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        (Y.rename({"S3": "T3"}), "'T3' (1) only in responses, 'S3' (1) only in the data"),
        (Y.rename({"S3": "S4"}), "none only in responses, 'S3' (1) only in the data"),
        (
            SHUFFLED.set_axis(ORDER.astype(str)),
            "only in responses, 'S0', 'S1', 'S2', … (32) only in the data",
        ),
        (pd.concat([Y, Y.rename(lambda s: f"more{s}")]), "the data and more: pass responses.loc[data.index]"),
        (Y.iloc[:30], "responses have 30 of the 32 rows of the data"),
        (Y.set_axis(["g1", "g1"], axis=1), "there is more than one response 'g1'"),
        (Y.set_axis([2, "2"], axis=1), "there is a response 2 and a response '2', which read the same"),
        (Y["g1"], "responses have shape (32,): pass an n × T array"),
        ("responses.parquet", "responses are of type str: pass an array"),
    ],
)
def test_responses_that_do_not_match(data, responses, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        response_matrix(data, responses)


def test_labels_that_come_several_times():
    """In the same order they are those of the data; in another nobody knows which is which."""
    index = DATA["id"].to_numpy()
    data = lj.lmm("~ x + (1 | id)", DATA.set_axis(index)).data
    assert_array_equal(response_matrix(data, Y.set_axis(index))[1], Y)
    with pytest.raises(ValueError, match="come in another order, and 'h' labels several"):
        response_matrix(data, Y.set_axis(index[::-1]))
    assert_array_equal(response_matrix(data, Y.reset_index(drop=True))[1], Y)


def test_numbers_of_rows_are_labels_where_they_match():
    """A shuffled frame keeps the numbers of its rows, of which 0, 1, … are the same set."""
    numbered = lj.lmm("~ x + (1 | id)", DATA.reset_index(drop=True)).data
    assert_array_equal(response_matrix(numbered, Y.reset_index(drop=True).iloc[ORDER])[1], Y)


def test_rows_that_the_model_dropped():
    lost = DATA.assign(x=DATA["x"].where(np.arange(32) % 7 != 3))
    data = lj.lmm("~ x + (1 | id)", lost).data
    kept = data.frame.rows
    for responses in (Y, SHUFFLED, Y.to_numpy(), Y.iloc[kept], Y.iloc[kept[::-1]], Y.to_numpy()[kept]):
        assert_array_equal(response_matrix(data, responses)[1], Y.to_numpy()[kept])
    assert_array_equal(response_vector(data, SHUFFLED["g1"]), Y["g1"].iloc[kept])
    with pytest.raises(ValueError, match=r"'S3', .* only in responses"):
        response_matrix(data, Y.iloc[: len(kept)])
    few = data.subset(np.arange(5))
    assert_array_equal(response_vector(few, SHUFFLED["g1"]), Y["g1"].iloc[kept[:5]])


def test_weights_go_with_the_names_of_responses(data):
    weights = pd.DataFrame(RNG.uniform(1, 2, (32, 2)), DATA.index, Y.columns)
    for given in (weights, weights[["g2", "g1"]].iloc[ORDER], weights.to_numpy(), pl.from_pandas(weights)):
        assert_array_equal(beside(data, given, Y.columns, "weights"), weights)
    for given, message in (
        (weights.set_axis(["g1", "g3"], axis=1), "columns of weights and of the responses differ: 'g3' (1)"),
        (weights.to_numpy()[:, :1], "weights are 1 columns for 2 responses"),
        (weights["g1"], "weights: the shape is (32,): pass one for each value of the responses"),
        (weights.assign(g2="a"), "weights: column 'g2' is not numeric but text"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            beside(data, given, Y.columns, "weights")


def test_masked_values_are_missing(data):
    masked = np.ma.masked_array(Y.to_numpy(), mask=Y.to_numpy() > 2)
    assert masked.mask.any()
    assert_array_equal(response_matrix(data, masked)[1], np.where(Y > 2, np.nan, Y))
    fits = fit_many(data, masked)
    assert_array_equal(fits.estimate.beta, fit_many(data, Y.where(Y <= 2)).estimate.beta)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y["g1"].rename({"S0": "T0"}), "'T0' (1) only in y, 'S0' (1) only in the data"),
        (np.ones(3), "y has shape (3,); the model has 32 rows: (32,)"),
        (Y, "y has shape (32, 2); the model has 32 rows: (32,)"),
        (Y["g1"].astype(str), "y is not numeric but text"),
        (Y["g1"] * 1j, "y is not numeric but complex numbers"),
    ],
)
def test_a_response_that_does_not_match(data, y, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        response_vector(data, y)


def test_weights_and_offsets_of_a_model():
    wide = DATA.assign(y=Y["g1"])
    w = pd.Series(RNG.uniform(1, 2, 32), DATA.index)
    for given in (w.iloc[ORDER], w.to_numpy(), pa.array(w), np.ma.masked_array(w), pl.Series(w)):
        frame = lj.lmm("y ~ x + (1 | id)", wide, weights=given, offset=given).frame
        assert_array_equal(frame.weights, w)
        assert_array_equal(frame.offset, w)
    hidden = np.ma.masked_array(w, mask=np.arange(32) == 5)
    assert 5 not in lj.lmm("y ~ x + (1 | id)", wide, weights=hidden).frame.rows


def test_arrays_with_labels():
    """All of `from_arrays` in the order of the first that has labels."""
    x = np.column_stack([np.ones(32), DATA["x"]])
    visit = pd.Series(np.arange(32) % 4, DATA.index)
    frames = [
        array_frame(Y["g1"], x, DATA["id"], weights=DATA["x"] + 1, columns={"visit": visit}),
        array_frame(
            SHUFFLED["g1"],
            pd.DataFrame(x, DATA.index),
            DATA["id"].iloc[ORDER],
            weights=(DATA["x"] + 1).iloc[::-1],
            columns={"visit": visit.iloc[ORDER]},
        ),
    ]
    for name in ("x", "y", "weights", "index"):
        assert_array_equal(*(getattr(frame, name) for frame in frames))
    assert_array_equal(*(frame.random[0].codes for frame in frames))
    with pytest.raises(ValueError, match=re.escape("column 'id' and of the data differ: 'T0' (1) only in")):
        array_frame(Y["g1"], x, DATA["id"].rename({"S0": "T0"}))
    with pytest.raises(ValueError, match="labels of groups are whole numbers or text"):
        array_frame(Y["g1"], x, DATA["x"] + 0.5)
