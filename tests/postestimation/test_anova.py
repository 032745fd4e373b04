"""Analysis of variance and tests of hypotheses: lmerTest's numbers, invariance to coding, algebra."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import lmmjax as lj
from lmmjax.inference import hypotheses

FOLDER = Path(__file__).parents[1] / "reference"
CASES = json.loads((FOLDER / "anova.json").read_text())
# lme4's covariance parameters are good to 1e-5 or so: two codings of one model differ by 2e-6 in its F
DF, F = 1e-5, 1e-5


@cache
def data():
    frame = pd.read_csv(FOLDER / "anova.csv", keep_default_na=False)
    return frame.assign(g=frame["g"].astype(str))


def coded(case):
    formula = case["formula"]
    for name, contrast in (case.get("contrasts") or {}).items():
        formula = re.sub(rf"\b{name}\b", f"C({name}, {contrast})", formula)
    return formula


@cache
def fitted(number):
    case, frame = CASES[number], data()
    if not case["cell"]:
        frame = frame[~((frame["a"] == "r") & (frame["b"] == "w"))]
    return lj.lmm(coded(case), frame).fit()


def plain(term):
    return re.sub(r"C\((\w), contr\.\w+\)", r"\1", term)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("number", range(len(CASES)))
def test_equals_lmertest(number, which):
    ref = CASES[number]["tables"][which]
    ours = fitted(number).anova(ref["type"], ddf=ref["ddf"].lower())
    assert [plain(term) for term in ours.index] == np.atleast_1d(ref["terms"]).tolist()
    sum_sq, mean_sq, num_df, den_df, f, p = np.array(ref["table"], float).reshape(-1, 6).T
    assert_allclose(ours["num_df"], num_df)
    assert_allclose(ours["den_df"], den_df, rtol=DF)
    for name, values in (("sum_sq", sum_sq), ("mean_sq", mean_sq), ("F", f), ("p", p)):
        assert_allclose(ours[name], values, rtol=F, atol=1e-12, err_msg=name)


def test_type_three_does_not_depend_on_the_coding():
    formula = "y ~ a * b * x + (1 | g)"
    tables = []
    for contrasts in ({}, {"a": "contr.sum", "b": "contr.helmert"}, {"a": "contr.poly", "b": "contr.sum"}):
        model = lj.lmm(coded({"formula": formula, "contrasts": contrasts}), data())
        tables.append(model.fit().anova(3).rename(index=plain))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=1e-8)


def test_types_agree_where_cells_are_balanced():
    rng = np.random.default_rng(0)
    grid = pd.MultiIndex.from_product([range(6), list("pq"), list("uvw")], names=["g", "a", "b"]).to_frame(
        False
    )
    grid["y"] = rng.normal(size=6)[grid["g"]] + rng.normal(size=len(grid))
    fit = lj.lmm("y ~ a * b + (1 | g)", grid).fit()
    one, two, three = (fit.anova(kind) for kind in ("I", 2, "III"))
    for other in (two, three):
        assert_allclose(other["F"], one["F"], rtol=1e-8)
        assert_allclose(other["den_df"], one["den_df"], rtol=1e-8)
    # a complete block design: exact F tests with 5·5 df
    assert_allclose(three["den_df"], 25.0, rtol=1e-6)


def test_type_three_tests_unweighted_means():
    """The definition: marginal means over the cells, each with equal weight."""
    fit = fitted(2)
    names = list(fit.params.index)

    def cell(a, b):
        row = np.zeros(len(names))
        wanted = {"Intercept", f"a[T.{a}]", f"b[T.{b}]", f"a[T.{a}]:b[T.{b}]"}
        row[[k for k, name in enumerate(names) if name in wanted]] = 1.0
        return row

    means = {a: np.mean([cell(a, b) for b in "uvw"], axis=0) for a in "pqr"}
    test = fit.test(np.array([means["q"] - means["p"], means["r"] - means["p"]]))
    table = fit.anova().loc["a"]
    assert_allclose(test[["F", "num_df", "den_df", "p"]].iloc[0], table[["F", "num_df", "den_df", "p"]], 1e-8)


def test_aliased_terms_have_no_test():
    frame = data().assign(twice=lambda d: 2 * d["x"])
    table = lj.lmm("y ~ x + twice + (1 | g)", frame).fit().anova()
    assert list(table.index) == ["x"]
    assert table.attrs["dropped"] == ["twice"]
    assert table.loc["x", "p"] < 1


def test_models_without_terms_or_formula():
    assert lj.lmm("y ~ 1 + (1 | g)", data()).fit().anova().shape == (0, 6)
    frame = data()
    x = np.column_stack([np.ones(len(frame)), frame["x"], frame["z"]])
    model = lj.Model.from_arrays(frame["y"].to_numpy(), x, frame["g"].to_numpy())
    ours, formula = model.fit().anova(), lj.lmm("y ~ x + z + (1 | g)", frame).fit().anova()
    assert_allclose(ours.to_numpy()[1:], formula.to_numpy(), rtol=1e-8)


def test_subsets_keep_their_terms():
    fit = lj.lmm("~ a * b + (1 | g)", data())
    y = pd.DataFrame({"one": data()["y"]})
    y.iloc[::9] = np.nan
    part = fit.fit_batch(y)["one"].anova()
    alone = lj.lmm("y ~ a * b + (1 | g)", data().assign(y=y["one"])).fit().anova()
    assert_allclose(part, alone, rtol=1e-5)


def test_containment():
    a, b = (
        hypotheses.Term("a", np.array([0]), frozenset("a")),
        hypotheses.Term("b", np.array([1]), frozenset("b")),
    )
    ab = hypotheses.Term("ab", np.array([2]), frozenset("ab"))
    x = hypotheses.Term("x", np.array([3]), frozenset(), frozenset("x"))
    ax = hypotheses.Term("ax", np.array([4]), frozenset("a"), frozenset("x"))
    assert ab.contains(a)
    assert not a.contains(ab)
    assert not a.contains(b)
    assert not a.contains(a)
    assert ax.contains(x)
    assert not ax.contains(a)


@pytest.mark.parametrize("kind", [0, "IV", None])
def test_unknown_type(kind):
    with pytest.raises(ValueError, match=r"unknown type .*; choose one of: 1, 2, 3"):
        fitted(2).anova(kind)


# --- tests of hypotheses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hypothesis", "row", "rhs"),
    [
        ("x = 0.5", {"x": 1.0}, 0.5),
        ("x", {"x": 1.0}, 0.0),
        ("2 * x - z == 3", {"x": 2.0, "z": -1.0}, 3.0),
        ("1 + x = z - 2", {"x": 1.0, "z": -1.0}, -3.0),
        ({"x": 2.0, "z": -1.0}, {"x": 2.0, "z": -1.0}, 0.0),
    ],
)
@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "normal"])
def test_one_hypothesis(hypothesis, row, rhs, ddf):
    fit = fitted(7)
    result = fit.test(hypothesis, ddf=ddf).iloc[0]
    weights = pd.Series(row).reindex(fit.params.index).fillna(0.0)
    estimate = weights @ fit.params
    assert_allclose(result["estimate"], estimate, rtol=1e-12)
    assert_allclose(result["t"], (estimate - rhs) / result["se"], rtol=1e-12)
    assert_allclose(result["F"], result["t"] ** 2, rtol=1e-10)
    if ddf != "kenward-roger":
        assert_allclose(result["se"], np.sqrt(weights @ fit.cov_params() @ weights), rtol=1e-10)
    tail = stats.norm if ddf == "normal" else stats.t(result["den_df"])
    assert_allclose(result["p"], 2 * tail.sf(abs(result["t"])), rtol=1e-9)
    assert np.isinf(result["den_df"]) == (ddf == "normal")


def test_labelled_weights_go_by_their_labels():
    fit = fitted(7)
    names = list(fit.params.index)
    weights = pd.Series(np.arange(1.0, len(names) + 1), index=names)
    wanted = fit.test(weights.to_numpy())
    for same in (weights[::-1], weights.to_dict(), weights[::-1].to_frame().T, pd.Series(weights.to_numpy())):
        assert_allclose(fit.test(same)["estimate"], wanted["estimate"], rtol=1e-12)
    some = fit.test([weights[["x"]], "x"])
    assert_allclose(some["F"], fit.test("x")["F"], rtol=1e-10)
    with pytest.raises(ValueError, match="unknown coefficient 'other'"):
        fit.test(weights.rename({"x": "other"}))


def test_a_coefficient_is_its_row_of_the_table():
    fit = fitted(0)
    for ddf in ("satterthwaite", "kenward-roger"):
        table = fit.coef_table(ddf)
        for name in ("x", "a[T.q]:x"):
            row = fit.test(name, ddf=ddf).iloc[0]
            assert_allclose(
                row[["estimate", "se", "t", "den_df", "p"]],
                table.loc[name, ["estimate", "se", "t", "df", "p"]],
                1e-9,
            )


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "normal"])
def test_several_hypotheses(ddf):
    fit = fitted(2)
    names = list(fit.params.index)
    rows = np.eye(len(names))[[names.index("a[T.q]"), names.index("a[T.r]")]]
    columns = ["F", "num_df", "den_df", "p"]
    expected = fit.test(rows, ddf=ddf)
    assert list(expected) == columns
    for same in ("a[T.q] = a[T.r] = 0", ["a[T.q]", "a[T.r] = 0"], [{"a[T.q]": 1}, {"a[T.r]": 1}]):
        # Satterthwaite's df of several rows depend on the rows
        kept = columns if ddf != "satterthwaite" or same != "a[T.q] = a[T.r] = 0" else columns[:2]
        assert_allclose(fit.test(same, ddf=ddf)[kept], expected[kept], rtol=1e-8)
    # rows that depend on others add nothing
    assert_allclose(fit.test(np.vstack([rows, rows.sum(axis=0)]), ddf=ddf), expected, rtol=1e-8)
    moved = fit.test(rows, ddf=ddf, rhs=[0.1, -0.2])
    by_text = fit.test(["a[T.q] = 0.1", "a[T.r] = -0.2"], ddf=ddf)
    assert_allclose(moved, by_text, rtol=1e-12)
    if ddf != "kenward-roger":
        difference = rows @ fit.params - [0.1, -0.2]
        f = difference @ np.linalg.solve(rows @ fit.cov_params().to_numpy() @ rows.T, difference) / 2
        assert_allclose(moved["F"], f, rtol=1e-9)


@pytest.mark.parametrize(
    ("hypothesis", "options", "message"),
    [
        (["x = 1", "2 * x = 3"], {}, "contradict each other"),
        ("3 = 4", {}, "names no coefficient"),
        ("x = X", {}, "unknown coefficient 'X' at position 0: did you mean 'x'"),
        ("x = 1 = 2", {}, "is zero or not finite"),
        ("x =", {}, "a contrast or one side of an equation is empty: there are: Intercept"),
        ("x = 1", {"rhs": 2.0}, "rhs is given beside equations"),
        ("x", {"rhs": [1.0, 2.0]}, r"rhs has shape \(2,\)"),
        ([1.0, 2.0], {}, r"contrasts have shape \(2,\); the model has 4"),
        ("x", {"ddf": "sas"}, "unknown ddf 'sas'; choose one of: satterthwaite, kenward-roger, "),
    ],
)
def test_bad_hypotheses(hypothesis, options, message):
    with pytest.raises(ValueError, match=message):
        fitted(7).test(hypothesis, **options)


def test_equal_signs_inside_names():
    from lmmjax.postestimation.hypotheses.contrasts import parse_hypothesis

    names = ["I(x == 1)[T.True]", "C(f, contr.treatment(base='a'))[T.b]"]
    rows, rhs = parse_hypothesis(f"{names[0]} = 2 * {names[1]} == 1e-1", names)
    assert_allclose(rows, [[1, -2], [0, 2]])
    assert_allclose(rhs, [0.0, 0.1])


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("C(f, Sum)[S.a] = 1, b = 2", ["C(f, Sum)[S.a]", "b"], [1, 2]),
        ("`g,1` = 1,b = 2", ["`g,1`", "b"], [1, 2]),
        ("g,1 = 1", ["g,1", "b"], [1]),
    ],
)
def test_commas_between_equations_and_in_names(text, names, expected):
    from lmmjax.postestimation.hypotheses.contrasts import hypothesis

    rows, right, _ = hypothesis(text, names)
    np.testing.assert_array_equal(rows, np.eye(2)[: len(expected)])
    np.testing.assert_array_equal(right, expected)
