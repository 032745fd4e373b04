"""New rows: the transformations, levels and codes of the fit, whatever else the new data hold."""

import pickle
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from frame_data import DATA, K, columns
from numpy.testing import assert_allclose, assert_array_equal

from lmmjax.formula import model_frame, new_frame

NEW = pd.DataFrame(
    {
        "x": [2.0, 0.7, np.nan, 9.0],
        "k": [3, 2, 1, 0],
        "f": ["c", "b", "a", "c"],
        "flag": [True] * 4,
        "g": [20, 7, 40, 20],
        "h": list("pqpp"),
    },
    index=list("stuv"),
)


@pytest.mark.parametrize(
    "fixed",
    [
        "x*k",
        "f + x:f",
        "f*flag - 1",
        "poly(x, 2)",
        "scale(x) + center(k)",
        "C(f, contr.sum) + C(k)",
        "ns(x, 3)",
        "x + I(2*x) + k",
        "bs(x, df=4, extrapolation='extend')",
        "cr(x, df=4)",
        "I(x > 1)",
        "np.log(x):flag",
    ],
)
def test_new_rows_repeat_the_fit(fixed):
    """Rows of the data, as new data, give the rows of the fit, whatever the rest of the new data is."""
    frame = model_frame(f"y ~ {fixed} + ({fixed.replace('- 1', '')} | h) + (1 | h:g)", DATA)
    again = new_frame(frame, DATA)
    assert_allclose(again.x, frame.x, atol=1e-12)
    mixed = pd.concat([NEW, DATA.iloc[[3, 17]]])
    new = new_frame(frame, mixed)
    assert_allclose(new.x[4:], frame.x[[3, 17]], atol=1e-12)
    for a, b in zip(new.random, frame.random, strict=True):
        assert_allclose(a.z[4:], b.z[[3, 17]], atol=1e-12)
        assert_array_equal(a.codes[4:], b.codes[[3, 17]])
    with_x = "x" in re.sub("extrapolation|expression", "", fixed)
    assert_array_equal(np.isnan(new.x).any(axis=1), [False, False, with_x, False, False, False])


def test_new_groups():
    frame = model_frame("y ~ f + (x | g) + (1 | g:h)", DATA)
    new = new_frame(frame, NEW)
    slope, cell = new.random
    assert_array_equal(slope.codes, [1, -1, -1, 1])
    assert slope.unseen == ("7",)
    assert cell.unseen == ("7:q",)
    assert [frame.random[1].levels[c] for c in cell.codes[[0, 3]]] == ["20:p", "20:p"]
    assert_array_equal(slope.z[[0, 1, 3]], columns([1, 1, 1], [2.0, 0.7, 9.0]))
    assert np.isnan(new.x[2]).all()
    assert list(new.index) == list("stuv")


def test_new_rows_of_nested_groups_find_their_levels():
    frame = model_frame("y ~ 1 + (1 | g/h)", DATA)
    outer, nested = new_frame(frame, NEW).random
    assert (outer.group, nested.group) == ("g", "h:g")
    assert_array_equal(outer.codes, [1, -1, 3, 1])
    assert [frame.random[1].levels[c] for c in nested.codes[[0, 2, 3]]] == ["p:20", "p:40", "p:20"]
    assert nested.codes[1] == -1
    assert nested.unseen == ("q:7",)
    assert [t.text for t in new_frame(frame, NEW, groups=["h:g"]).random] == ["1 | h:g"]
    again = new_frame(frame, DATA.iloc[::-1]).random
    for a, b in zip(again, frame.random, strict=True):
        assert_array_equal(a.codes[::-1], b.codes)


def test_only_wanted_terms_need_their_columns():
    frame = model_frame("y ~ k + (x | g) + (1 | h)", DATA)
    assert new_frame(frame, NEW[["k"]], groups=()).random == ()
    assert [t.text for t in new_frame(frame, NEW[["k", "h"]], groups=["h"]).random] == ["1 | h"]
    assert [t.text for t in new_frame(frame, NEW, groups={"x | g"}).random] == ["x | g"]
    with pytest.raises(ValueError, match="the new data have no column 'h'"):
        new_frame(frame, NEW[["k", "x", "g"]])
    with pytest.raises(ValueError, match="no random term 'H': did you mean 'h'"):
        new_frame(frame, NEW, groups=["H"])


def test_new_rows_all_missing_are_nan_rows():
    new = new_frame(model_frame("y ~ x + (x | g)", DATA), NEW.assign(x=np.nan))
    assert new.x.shape == (4, 2)
    assert np.isnan(new.x).all()
    assert (new.random[0].codes == -1).all()
    assert new.random[0].unseen == ()


def test_nan_from_an_expression_on_new_data_keeps_its_row():
    new = new_frame(model_frame("y ~ log(x) + (1 | g)", DATA), {"x": [1.0, -1.0], "g": [10, 20]})
    assert_array_equal(np.isnan(new.x[:, 1]), [False, True])


@pytest.mark.parametrize(
    ("formula", "change", "message"),
    [
        (
            "y ~ f",
            {"f": ["a", "z", "b", "w"]},
            "fixed part: 'f' has levels that the model was not fitted with: z, w",
        ),
        ("y ~ x:C(k)", {"k": [3, 9, 1, 1]}, "'C(k)' has levels that the model was not fitted with: 9"),
        ("y ~ C(f, contr.sum)", {"f": list("zabc")}, "'C(f, contr.sum)' has levels"),
        (
            "y ~ 1 + (f | h)",
            {"f": list("abcz")},
            "(f | h): 'f' has levels that the model was not fitted with: z",
        ),
    ],
)
def test_an_unseen_level_of_a_fixed_factor_is_an_error(formula, change, message):
    frame = model_frame(formula, DATA)
    with pytest.raises(ValueError, match=re.escape(message)):
        new_frame(frame, NEW.assign(x=1.0, **change))


def test_new_data_may_hold_factors_in_other_types():
    frame = model_frame("y ~ f + (1 | g)", DATA)
    other = pl.DataFrame({"f": ["c", "a"], "g": [30.0, 40.0]}).with_columns(pl.col("f").cast(pl.Categorical))
    wide = pd.DataFrame({"f": pd.Categorical(["c", "a"], list("zcab")), "g": pd.Categorical([30, 40])})
    for data in (other, wide):
        new = new_frame(frame, data)
        assert_array_equal(new.x, [[1, 0, 1], [1, 0, 0]])
        assert_array_equal(new.random[0].codes, [2, 3])
    numbered = model_frame("y ~ c", DATA.assign(c=pd.Categorical(K)))
    assert_array_equal(new_frame(numbered, {"c": [0, 2]}).x, [[1, 0, 0, 0], [1, 0, 1, 0]])


def test_columns_of_another_kind():
    frame = model_frame("y ~ x*flag", DATA)
    assert_array_equal(new_frame(frame, DATA.assign(flag=DATA["flag"].astype(int))).x, frame.x)
    for change, message in [
        ({"x": "a"}, "column 'x' was a number in the fit and is a category here"),
        ({"flag": "yes"}, "column 'flag' was a bool in the fit and is a category here"),
        ({"flag": 2.0}, "column 'flag' was a bool in the fit and is a number here"),
    ]:
        with pytest.raises(ValueError, match=message):
            new_frame(frame, DATA.assign(**change))


def test_new_data_leave_the_fit_as_it_was():
    frame = model_frame("y ~ scale(x) + C(k) + f + bs(x, df=4)", DATA)
    for change in ({"k": 9}, {"f": "z"}, {"x": 1e6}):
        with pytest.raises(ValueError, match="fixed part"):
            new_frame(frame, DATA.assign(**change))
    new_frame(frame, DATA.iloc[:2])
    assert_array_equal(new_frame(frame, DATA).x, frame.x)


def test_offset_and_response_of_new_data():
    frame = model_frame("log(y + 9) ~ x + offset(k)", DATA, offset="2*x")
    data = {"x": [1.0, 2.0], "k": [1, 1], "y": [0.0, 1.0]}
    new = new_frame(frame, data, require_response=True)
    assert_array_equal(new.offset, [3, 5])
    assert_allclose(new.y, np.log([9.0, 10.0]))
    assert_array_equal(new_frame(frame, data, offset="x - 1").offset, [1, 2])
    assert_array_equal(new_frame(frame, data, offset=[5, 6]).offset, [6, 7])
    assert new_frame(frame, {"x": [1.0], "k": [1]}).y is None
    by_array = model_frame("y ~ x", DATA, offset=K)
    with pytest.raises(ValueError, match="fitted with an offset array: pass offset="):
        new_frame(by_array, data)
    assert_array_equal(new_frame(by_array, data, offset=[1, 2]).offset, [1, 2])
    with pytest.raises(ValueError, match="has no response"):
        new_frame(model_frame("~ x", DATA), data, require_response=True)


def test_natural_splines_are_those_of_r():
    """splines::ns(c(1, 2, 3.5, 4, 5, 7, 8, 9.5, 10), 3), rows 2 and 8, and its line beyond the boundary."""
    frame = model_frame("~ ns(x, 3)", {"x": [1, 2, 3.5, 4, 5, 7, 8, 9.5, 10]})
    assert_allclose(
        frame.x[1, 1:], [-0.06647932700820117, 0.240723606627979, -0.1680523291553816], rtol=1e-13
    )
    assert_allclose(frame.x[7, 1:], [0.04725007733391495, 0.400335892480055, 0.5515694355914351], rtol=1e-13)
    beyond = new_frame(frame, {"x": [10.0, 11.0, 12.0]}).x
    assert_allclose(beyond[2] - beyond[1], beyond[1] - beyond[0], rtol=1e-12)


def test_a_frame_can_be_pickled():
    frame = model_frame("y ~ poly(x, 2) + ns(k, 2) + f*flag + (x | g)", DATA)
    copy = pickle.loads(pickle.dumps(frame))
    assert_array_equal(new_frame(copy, DATA).x, frame.x)


def test_groups_of_another_type_are_not_unseen():
    """1 of the fit and "1" of new rows are told; dates and objects of dates are the same."""
    data = pd.DataFrame({"y": np.arange(12.0), "x": np.arange(12.0) ** 2, "g": np.repeat([7, 8, 9], 4)})
    frame = model_frame("y ~ x + (1 | g)", data)
    with pytest.raises(ValueError, match="'g' has '7' in the new data, which reads like a level of the fit"):
        new_frame(frame, data.astype({"g": str}))
    assert new_frame(frame, data.assign(g="x")).random[0].unseen == ("x",)
    large = data.assign(g=data["g"] + 2**53)
    with pytest.raises(ValueError, match=r"beyond 2\^53 are not told apart"):
        new_frame(model_frame("y ~ x + (1 | g)", large), large.astype({"g": float}))
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(data["g"], unit="D")
    for fitted, new in ((days, days.dt.date), (days.dt.date, days)):
        frame = model_frame("y ~ x + (1 | g)", data.assign(g=fitted))
        assert (
            new_frame(frame, data.assign(g=new)).random[0].codes.tolist() == np.repeat([0, 1, 2], 4).tolist()
        )


def test_infinite_values_in_new_rows_are_refused():
    data = pd.DataFrame({"y": np.arange(12.0), "x": np.arange(12.0) ** 2, "g": np.repeat([7, 8, 9], 4)})
    for formula in ("y ~ x + (1 | g)", "y ~ 1 + (0 + x | g)"):
        with pytest.raises(ValueError, match=r"'x' is infinite in row 3"):
            new_frame(model_frame(formula, data), data.assign(x=[1.0, 2.0, 3.0, np.inf, *range(8)]))
