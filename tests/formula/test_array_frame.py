"""Frames of plain arrays: the same as those of a formula, without one."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from frame_data import DATA, ONE, F, K, N, X, Y, columns
from numpy.testing import assert_array_equal

from lmmjax.formula import array_frame, model_frame, new_frame


def test_arrays_instead_of_a_formula():
    x = pd.DataFrame({"Intercept": ONE, "Days": X}, index=DATA.index)
    frame = array_frame(DATA["y"], x, {"g": DATA["g"], "h": DATA["h"]}, {"g": x[["Days"]]}, weights=X)
    reference = model_frame("y ~ x + (0 + x | g) + (1 | h)", DATA)
    assert frame.x_names == ("Intercept", "Days")
    assert frame.response == "y"
    assert [(t.group, t.names, t.text) for t in frame.random] == [
        ("g", ("Days",), "0 + Days | g"),
        ("h", ("(Intercept)",), "1 | h"),
    ]
    assert_array_equal(frame.x, reference.x)
    assert_array_equal(frame.weights, X)
    assert list(frame.index) == list(DATA.index)
    for a, b in zip(frame.random, reference.random, strict=True):
        assert_array_equal(a.z, b.z)
        assert_array_equal(a.codes, b.codes)
    with pytest.raises(ValueError, match="built from matrices"):
        new_frame(frame, DATA)


def test_arrays_drop_missing_rows_and_aliased_columns():
    y = np.where(np.arange(N) == 1, np.nan, Y)
    g = DATA["g"].astype(float).where(np.arange(N) != 2)
    frame = array_frame(y, columns(ONE, X, 2 * X), [g], [columns(ONE, np.where(K == 3, np.nan, K))], offset=K)
    kept = np.flatnonzero((np.arange(N) > 2) & (K != 3) | (np.arange(N) == 0))
    assert_array_equal(frame.rows, kept)
    assert frame.missing == {"y": 1, "g": 1, "z of g": 6}
    assert (frame.x_names, frame.aliased) == (("x0", "x1"), ("x2",))
    assert frame.random[0].names == ("z0", "z1")
    assert_array_equal(frame.offset, K[kept])


@pytest.mark.parametrize(
    ("groups", "z", "names"),
    [
        (K, None, ["group"]),
        (K.tolist(), X, ["group"]),
        ([K, F], None, ["group0", "group1"]),
        ([K, DATA["h"]], [None, columns(ONE, X)], ["group0", "h"]),
        (DATA[["k", "h"]], {"h": X}, ["k", "h"]),
        (pl.DataFrame({"a": F, "b": K}), None, ["a", "b"]),
    ],
)
def test_arrangements_of_groups(groups, z, names):
    frame = array_frame(Y, columns(ONE, X), groups, z, x_names=["a", "b"])
    assert [term.group for term in frame.random] == names
    assert frame.x_names == ("a", "b")
    assert all(len(term.z) == N for term in frame.random)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            (Y, F, K),
            {},
            "x is not numeric but text (b in row 0): code factors as columns, or use a formula",
        ),
        ((Y[:3], X, K), {}, "y has shape (3,): give one value for each of the 24 rows"),
        ((Y, X, K[:3]), {}, "groups has 3 rows and x has 24"),
        ((Y, X, K, X[:3]), {}, "z of 'group' has 3 rows and x has 24"),
        ((Y, X, {"k": K}, {"kk": X}), {}, "z has 'kk', which is no group: there are k"),
        ((Y, X, [K, F], [X]), {}, "there are 2 groups: pass z as a dict or list"),
        ((Y, X, [DATA["k"], DATA["k"]]), {}, "two groups have the same name"),
        ((Y, X, ONE), {}, "grouping factor 'group' has one level (1)"),
        ((Y, X, K), {"weights": 0 * X}, "weights must be positive"),
        ((Y, X, K), {"x_names": ["a", "b"]}, "x has 1 columns: give as many different names"),
        ((Y, np.where(K == 2, np.inf, X), K), {}, "column 'x0' is infinite in row 2"),
        ((Y, np.full(N, np.nan), K), {}, "every row has a missing value: x (24)"),
        ((np.ones(0), np.ones((0, 1)), np.ones(0)), {}, "the data have no rows"),
    ],
)
def test_bad_arrays_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        array_frame(*arguments, **options)
