"""What the rows of the fit do not determine is missing and named, however factors are coded."""

import itertools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lmmjax import EstimabilityWarning, lmm
from lmmjax.design import aliases, independent_columns


@pytest.fixture(scope="module")
def cells():
    """Two factors crossed, of which one cell is empty."""
    rng = np.random.default_rng(1)
    rows = [(a, b, r) for a in "pqr" for b in "uvw" for r in range(6) if a + b != "rw"]
    data = pd.DataFrame(rows, columns=["a", "b", "r"])
    data["x"] = rng.normal(size=len(data))
    data["x2"] = 3 - 2 * data["x"]
    data["y"] = rng.normal(size=len(data)) + data["r"]
    return data


def coded(data, a="pqr", b="uvw"):
    return data.assign(a=pd.Categorical(data["a"], list(a)), b=pd.Categorical(data["b"], list(b)))


GRID = pd.DataFrame(itertools.product("pqr", "uvw", [1]), columns=["a", "b", "r"])
EMPTY = (GRID["a"] + GRID["b"] == "rw").to_numpy()


@pytest.mark.parametrize("formula", ["a * b", "a / b", "b / a", "0 + a:b", "a:b"])
def test_an_empty_cell_has_no_prediction_in_any_coding(cells, formula):
    found = []
    for a, b in (("pqr", "uvw"), ("qpr", "uvw"), ("rqp", "wvu")):
        fit = lmm(f"y ~ {formula} + (1 | r)", coded(cells, a, b)).fit()
        with pytest.warns(EstimabilityWarning, match=r"1 of 9 new rows are not estimable \(8\)"):
            found.append(fit.predict(GRID).to_numpy())
        assert_allclose(fit.predict(GRID[~EMPTY]), found[-1][~EMPTY], rtol=1e-12)
    assert_array_equal(np.isnan(found[0]), EMPTY)
    # the same cell means, whatever is the reference
    means = cells.groupby(["a", "b"])["y"].mean()
    assert_allclose(found[1], found[0], rtol=1e-9)
    assert_allclose(found[2], found[0], rtol=1e-9)
    assert_allclose(found[0][~EMPTY] - found[0][0], means - means.iloc[0], rtol=1e-7)


def test_aliased_covariates_that_move_apart(cells):
    fit = lmm("y ~ x + x2 + (1 | r)", cells).fit()
    new = pd.DataFrame({"x": [0.5, 0.5, 7.0], "x2": [2.0, 2.1, -11.0], "r": 1})
    with pytest.warns(EstimabilityWarning, match="dropped from the fit: x2"):
        found = fit.predict(new)
    plain = lmm("y ~ x + (1 | r)", cells).fit().predict(new)
    assert_allclose(found[[0, 2]], plain[[0, 2]], rtol=1e-9)
    assert np.isnan(found[1])
    # years, far from zero
    stamped = cells.assign(s=2020 + cells["x"], d=lambda d: d["s"] - 2020)
    fit = lmm("y ~ s + d + (1 | r)", stamped).fit()
    with pytest.warns(EstimabilityWarning, match="1 of 2 new rows"):
        found = fit.predict(pd.DataFrame({"s": [2021.0, 2021.0], "d": [1.0, 1.001], "r": 1}))
    assert_array_equal(np.isnan(found), [False, True])


def test_contrasts_of_a_fit_and_of_a_batch(cells):
    data = coded(cells, "rpq")
    fit = lmm("y ~ a * b + (1 | r)", data).fit()
    assert fit.model.frame.aliased == ("a[T.q]:b[T.w]",)
    # in the empty row of cells b[T.w] stands for a difference in another one
    for l in ("b[T.w]", {"b[T.w]": 1.0}, ["a[T.p]", "b[T.w]"]):
        with pytest.warns(EstimabilityWarning, match=r"not estimable: b\[T.w\]"):
            assert np.isnan(fit.test(l)[["F", "p"]].to_numpy()).all()
    # (p, w) less (p, u)
    table = fit.test("b[T.w] + a[T.p]:b[T.w]")
    means = cells.groupby(["a", "b"])["y"].mean()
    assert_allclose(table["estimate"].iloc[0], means["p", "w"] - means["p", "u"], rtol=1e-9)
    with pytest.raises(ValueError, match="was dropped from the fit for linear dependence"):
        fit.test("a[T.q]:b[T.w] = 0")
    assert "b[T.w], a[T.p]:b[T.w]" in str(fit.summary())
    batch = fit.model.fit_batch(np.stack([data["y"], -data["y"]], axis=1))
    with pytest.warns(EstimabilityWarning, match=r"not estimable: b\[T.w\]"):
        table = batch.contrast(["b[T.w]", "a[T.p]"])
    assert_array_equal(np.isnan(table["estimate"]), [True, True, False, False])
    with pytest.raises(ValueError, match=r"not estimable: w\. It depends on"):
        fit.model.stream_batch(np.ones((len(data), 1)), "unused.parquet", contrasts=["w = b[T.w]"])


def test_coefficients_that_no_dropped_column_touches_are_tested(cells):
    fit = lmm("y ~ x + x2 + b + (1 | r)", cells).fit()
    assert_allclose(fit.test("b[T.w]")["p"], fit.coef_table().loc["b[T.w]", "p"], rtol=1e-9)
    with pytest.warns(EstimabilityWarning):
        assert np.isnan(fit.test("x")["p"].iloc[0])


def test_row_space_against_its_projection():
    """r is estimable if r(I − X⁺X) = 0, the definition."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 4)) @ rng.normal(size=(4, 7)) * 10.0 ** rng.integers(-4, 5, 7)
    own = aliases(x, independent_columns(x))
    inside = rng.normal(size=(20, 30)) @ x
    outside = rng.normal(size=(20, 7)) * np.abs(x).max(axis=0)
    left = np.eye(7) - np.linalg.pinv(x, rcond=1e-13) @ x
    size = np.abs(inside) @ np.abs(left)
    assert np.all(np.abs(inside @ left) < 1e-8 * np.abs(inside).sum(axis=1, keepdims=True) + size)
    assert own.estimable(inside).all()
    assert not own.estimable(outside).any()
    assert aliases(x[:, own.kept], np.arange(4)) is None
