"""Bad formulas and bad data: one ValueError that names the culprit and says what to do."""

import re

import numpy as np
import pandas as pd
import pytest
from frame_data import DATA, ONE, F, N

from lmmjax.formula import model_frame

BAD = DATA.assign(
    one="u",
    inf=np.where(np.arange(N) == 4, np.inf, 1.0),
    date=pd.Timestamp("2024-01-01"),
    scale=1.0,
    none=np.nan,
)


@pytest.mark.parametrize(
    ("formula", "options", "message"),
    [
        ("y ~ age2", {}, "fixed part: unknown column 'age2': there are: y, x, k"),
        ("y ~ myCol", {}, "unknown column 'myCol': did you mean 'my col'?"),
        ("y ~ x + (sise | g)", {}, "(sise | g): unknown column 'sise': did you mean 'size'?"),
        ("y ~ x + (x | G)", {}, "unknown column 'G': did you mean 'g'?"),
        ("Y ~ x", {}, "response 'Y': unknown column 'Y': did you mean 'y'?"),
        ("y ~ log(dot.ted)", {}, "unknown column 'dot': in an expression write `dot.ted`, in backticks"),
        ("y ~ lgo(x)", {}, "unknown function 'lgo': did you mean 'log'?"),
        ("y ~ dia(x | g)", {}, "unknown function 'dia': did you mean 'diag'?"),
        ("y ~ np.lgo(x)", {}, "module 'numpy' has no attribute 'lgo'"),
        ("y ~ scale + scale(x)", {}, "column 'scale' hides the function scale()"),
        (
            "y ~ x z",
            {},
            "nothing stands between `x` and `z`: write +, or a name with spaces in backticks\n    x z\n    ^",
        ),
        ("y ~ x + (k k | g)", {}, "(k k | g): cannot read 'k k'"),
        ("y ~ x + (1 | one)", {}, "grouping factor 'one' has one level (u)"),
        ("y ~ one", {}, "factor 'one' has one level"),
        ("y ~ x + (f | f)", {}, "'f' is on both sides of the bar in (f | f)"),
        ("y ~ x + (g | g)", {}, "'g' is on both sides of the bar in (g | g)"),
        ("y ~ x + (0 + f | f:g)", {}, "'f' is on both sides of the bar"),
        ("y ~ x + (0 | g)", {}, "(0 | g) has no columns left of the bar"),
        ("y ~ inf", {}, "column 'inf' is infinite in row r4"),
        ("y ~ log(x - x)", {}, "column 'log(x - x)' is infinite in row r0"),
        ("y ~ x + (log(0*k) | g)", {}, "column 'log(0 * k)' of (log(0*k) | g) is infinite in row r0"),
        ("1/(0*y) ~ x", {}, "the response is infinite in row r0"),
        ("f ~ x", {}, "response 'f' is not one numeric column"),
        ("poly(x, 2) ~ k", {}, "response 'poly(x, 2)' is not one numeric column"),
        ("y ~ x + I(np.mean(k))", {}, "'I(np.mean(k))' does not give one value for each row"),
        ("np.mean(y) ~ x", {}, "does not give one value for each row"),
        ("y ~ ns(x, 0)", {}, "ns: give df, a whole number of at least 1"),
        ("y ~ ns(x - x, 2)", {}, "a spline needs at least two different values"),
        ("y ~ date", {}, "column 'date' is a date or time"),
        ("y ~ none + x", {}, "every row has a missing value: none (24)"),
        ("y ~ log(-x)", {}, "every row has a missing value: log(-x) (24)"),
        ("y ~ C(f, levels=['a', 'b'])", {}, "has values outside its levels: c"),
        ("y ~ x", {"weights": "k"}, "weights must be positive: 0 in row r0"),
        ("y ~ x", {"weights": -ONE}, "weights must be positive: -1 in row r0"),
        ("y ~ x", {"weights": "inf"}, "is infinite in row r4"),
        ("y ~ x", {"weights": np.full(N, np.inf)}, "weights is infinite in row r0"),
        ("y ~ x", {"weights": "f"}, "weights 'f' is not one numeric column"),
        ("y ~ x", {"weights": "w8"}, "weights 'w8': unknown column 'w8'"),
        ("y ~ x", {"weights": [1.0, 2.0]}, "weights has shape (2,): give one value for each of the 24 rows"),
        ("y ~ x", {"weights": F}, "weights are not numeric but text (b in row 0)"),
        ("y ~ x", {"offset": "x^2"}, "offset 'x^2': ^ is Python's exclusive or"),
        (
            "y ~ x",
            {"offset": pd.Series(ONE, index=range(1, 25))},
            "the labels of the rows of the offset and of the data differ: 1, 2, 3, … (24) only in the offset",
        ),
        ("y ~ x + (1 | g", {}, "this ( is never closed"),
    ],
)
def test_bad_input_is_named(formula, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model_frame(formula, BAD, **options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA.iloc[:0], "the data have no rows"),
        ({"y": [1.0, 2.0], "x": [1.0]}, "differ in length: {'y': 2, 'x': 1}"),
        ({"y": [1.0, 2.0], "x": 1.0}, "column 'x' of data is a single value"),
        ({"y": [1.0, 2.0], "x": np.ones((2, 2))}, "column 'x' has shape (2, 2)"),
        ({"y": [1.0, 2.0], "x": [1j, 2j]}, "column 'x' has complex numbers"),
        ({"y": [1.0, 2.0], "x": [[1], [2]]}, "column 'x' has values that are no labels"),
        ([1, 2], "data is of type list: pass a pandas or polars frame"),
        (pd.DataFrame(np.ones((2, 3)), columns=["y", "x", "x"]), "more than one column 'x'"),
    ],
)
def test_bad_data_is_named(data, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model_frame("y ~ x", data)


@pytest.mark.parametrize("n", [40, 8000])
def test_a_word_among_numbers_is_named_at_once(n):
    x = np.random.default_rng(0).normal(size=n).astype(str).astype(object)
    x[17] = "missing"
    frame = pd.DataFrame({"x": x, "y": np.arange(n) % 7, "g": np.arange(n) // 4})
    expected = (
        f"column 'x' is text with {n:,} different values, of which {n - 1:,} are numbers; "
        "the first that is not is 'missing' in row 17"
    )
    with pytest.raises(ValueError, match=expected):
        model_frame("y ~ x + (1 | g)", frame)
    with pytest.raises(ValueError, match=f"{n:,} different values in {n:,} rows, one a row"):
        model_frame("y ~ x + (1 | g)", frame.assign(x=[f"a{i}" for i in range(n)]))
    # labels may be anything where they are said to be labels, and right of a bar
    few = frame.assign(x=pd.Categorical(frame["x"].where(frame.index < 18, "1")))
    assert model_frame("y ~ x", few.iloc[:60]).x.shape[1] == 19
    assert model_frame("y ~ 1 + (1 | x)", frame).random[0].codes.max() == n - 1


def test_text_of_fractions_is_no_factor():
    """Though some occur twice; whole numbers as text may be labels."""
    fractions = [str(v / 8) for v in range(1, 25)] * 2
    data = pd.DataFrame({"y": np.arange(48.0), "x": fractions, "g": np.repeat(range(12), 4)})
    with pytest.raises(
        ValueError, match=r"'x' is text with 24 different values, all of them numbers: convert it"
    ):
        model_frame("y ~ x + (1 | g)", data)
    whole = data.assign(x=[str(v) for v in range(24)] * 2)
    assert len(model_frame("y ~ x + (1 | g)", whole).x_names) == 24


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("Intercept", "y ~ Intercept"),
        ("a:b", "y ~ a + `a:b` + a:b"),
        ("(Intercept)", "y ~ 1 + (`(Intercept)` | g)"),
    ],
)
def test_two_columns_of_one_name(name, formula):
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"y": rng.normal(size=8), "a": rng.normal(size=8), "b": rng.normal(size=8)})
    data[name], data["g"] = rng.normal(size=8), np.repeat(range(4), 2)
    with pytest.raises(ValueError, match=re.escape(f"are called {name!r}: rename the column of the data")):
        model_frame(formula, data)
