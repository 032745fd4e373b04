"""Models without random terms in batches: least squares of every response, beside NumPy's and limma's."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, stats

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core import ProblemMaker
from lmmjax.design import Design

LIMMA = json.loads((Path(__file__).parents[1] / "reference" / "limma.json").read_text())

N, T = 40, 9


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"x": rng.normal(size=N) + 20, "g": np.resize(list("abc"), N)})
    return d.assign(w=rng.uniform(0.5, 2, N), o=rng.normal(size=N))


@pytest.fixture(scope="module")
def responses():
    rng = np.random.default_rng(4)
    y = rng.normal(size=(N, T)) + 5
    y[3, 1] = np.nan
    y[5:20, 2] = np.nan
    y[:, 3] += 1e8
    y[:, 4] *= 1e-30
    return pd.DataFrame(y).add_prefix("y")


def least_squares(x, y, w, reml):
    """β̂, its covariance, σ̂² and −2ℓ by NumPy, of rows with weight."""
    use = np.isfinite(y) & (w > 0)
    x, y, w = x[use], y[use], w[use]
    n, p = x.shape
    xx = x.T @ (w[:, None] * x)
    beta = np.linalg.lstsq(np.sqrt(w)[:, None] * x, np.sqrt(w) * y, rcond=None)[0]
    left = float(np.sum(w * (y - x @ beta) ** 2))
    nu = n - p if reml else n
    value = nu * (1 + np.log(2 * np.pi * left / nu)) - np.log(w).sum()
    value += np.linalg.slogdet(xx)[1] if reml else 0.0
    return beta, np.linalg.inv(xx) * left / nu, left / nu, value, n - p


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("weights", ["none", "every value"])
def test_batches_are_weighted_least_squares(data, responses, weights, reml):
    rng = np.random.default_rng(5)
    own = np.exp(rng.normal(size=(N, T))) if weights != "none" else None
    if own is not None:
        own[7, 0] = 0
    model = lj.lmm("~ x + g", data, weights="w", offset="o")
    fits = model.fit_batch(responses, reml, weights=own)
    assert fits.converged.all()
    x, tests, plain = model.frame.x, fits.t_tests(), fits.t_tests("kenward-roger")
    for k, name in enumerate(responses):
        w = data["w"].to_numpy() * (1 if own is None else own[:, k])
        y = responses[name].to_numpy() - data["o"].to_numpy()
        beta, cov, sigma2, value, df = least_squares(x, y, w, reml)
        # beside 1e8 the data have 8 digits of what is left
        tol = 1e-6 if name == "y3" else 1e-10
        assert_allclose(fits.params.loc[name], beta, rtol=tol)
        assert_allclose(tests["se"][k], np.sqrt(np.diag(cov)), rtol=tol)
        assert_allclose(fits.sigma[name] ** 2, sigma2, rtol=tol)
        assert_allclose(-2 * fits.llf[name], value, rtol=tol)
        assert_allclose(plain["df"][k], df, rtol=1e-12)
        assert_allclose(tests["df"][k], df if reml else df + 4, rtol=1e-12)
        assert_allclose(
            tests["p"][k], 2 * stats.t.sf(np.abs(beta / np.sqrt(np.diag(cov))), tests["df"][k]), rtol=1e-5
        )


def test_batches_are_their_single_fits(data, responses):
    model = lj.lmm("~ x + g", data, weights="w")
    fits = model.fit_batch(responses)
    joint, terms = fits.test(["g[T.b]", "g[T.c]"]), fits.anova()
    for name in ("y0", "y1", "y4"):
        keep = responses[name].notna()
        own = data[keep].assign(y=responses.loc[keep, name])
        single = lj.lmm("y ~ x + g", own, weights="w").fit()
        assert_allclose(fits[name].params, single.params, rtol=1e-10)
        assert_allclose(fits.llf[name], single.llf, rtol=1e-12)
        found = single.test(["g[T.b]", "g[T.c]"])
        assert_allclose(joint.loc[name, "F"], found["F"], rtol=1e-9)
        assert_allclose(terms.loc[("g", name), "F"], found["F"], rtol=1e-9)
        assert_allclose(joint.loc[name, "den_df"], single.df_resid, rtol=1e-12)
    contrast = fits.contrast("g[T.b] - g[T.c]")
    assert_allclose(contrast["t"] ** 2, fits.test("g[T.b] - g[T.c]")["F"], rtol=1e-9)


def test_sparse_responses_are_dense_ones(data):
    rng = np.random.default_rng(6)
    y = rng.gamma(2.0, size=(N, 6)) * (rng.random((N, 6)) < 0.3)
    # all in the columns of X but a little: by difference it would be rounding
    y[:, 5] = (data["g"] == "b") * 3.0 + (np.arange(N) == 4) * 1e-6
    model = lj.lmm("~ x + g", data, weights="w", offset="o")
    dense = model.fit_batch(y)
    for form in (sparse.csc_array, sparse.csr_array):
        found = model.fit_batch(form(y))
        assert_allclose(found.params, dense.params, rtol=1e-9)
        assert_allclose(found.sigma, dense.sigma, rtol=1e-9)
        assert_allclose(found.t_tests()["t"], dense.t_tests()["t"], rtol=1e-9)


def test_bad_responses_spoil_nothing(data):
    rng = np.random.default_rng(7)
    y = rng.normal(size=(N, 8))
    good = y[:, 0].copy()
    y[:, 1], y[4, 2], y[:, 3] = 2.0, np.inf, np.nan
    y[:, 4] = 1 + data["x"]
    y[data["g"] == "b", 5] = np.nan
    y[4:, 6] = np.nan
    y[:, 7] *= 1e200
    model = lj.lmm("~ x + g", data)
    with pytest.warns(UserWarning, match="could not be fitted"):
        fits = model.fit_batch(y)
    statuses = ["converged", "perfect_fit", "not_finite", "not_estimable", "perfect_fit"]
    assert fits.status.tolist()[:5] == statuses
    assert fits.status.tolist()[6:] == ["not_estimable", "not_finite"]
    assert fits.params.iloc[[1, 2, 3, 4, 6, 7]].isna().all(axis=None)
    # a level that a response lacks is left out
    assert fits.params.loc[5].isna().tolist() == [False, False, True, False]
    expected = lj.lmm("y ~ x + g", data[data["g"] != "b"].assign(y=y[data["g"] != "b", 5])).fit()
    assert_allclose(fits.params.loc[5].dropna(), expected.params, rtol=1e-9)
    assert_allclose(fits.params.loc[0], model.fit_response(good).params, rtol=1e-10)
    weights = np.ones((N, 8))
    # weights that leave a column next to nothing of its own
    weights[data["g"] == "c", 0] = 1e-13
    with pytest.warns(UserWarning, match="could not be fitted"):
        found = model.fit_batch(y, weights=weights)
    beta, cov, sigma2, *_ = least_squares(model.frame.x, good, weights[:, 0], True)
    assert_allclose(found.params.loc[0], beta, rtol=1e-6)
    assert_allclose(found.sigma[0] ** 2, sigma2, rtol=1e-8)
    assert_allclose(found.bse.loc[0], np.sqrt(np.diag(cov)), rtol=1e-6)


def test_known_variances(data):
    """Meta-analysis of fixed effects: σ² is no parameter, and tests are normal."""
    y = np.random.default_rng(8).normal(size=(N, 3))
    y[2, 1] = np.nan
    model = lj.lmm("~ x", data, residual=lj.KnownVariance("w"))
    fits = model.fit_batch(y)
    for k in range(3):
        keep = np.isfinite(y[:, k])
        x, w = model.frame.x[keep], 1 / data["w"].to_numpy()[keep]
        cov = np.linalg.inv(x.T @ (w[:, None] * x))
        assert_allclose(fits.params.loc[k], cov @ x.T @ (w * y[keep, k]), rtol=1e-9)
        assert_allclose(fits.bse.loc[k], np.sqrt(np.diag(cov)), rtol=1e-10)
        single = lj.lmm("y ~ x", data[keep].assign(y=y[keep, k]), residual=lj.KnownVariance("w")).fit()
        assert_allclose(fits.llf[k], single.llf, rtol=1e-12)
        assert_array_equal(fits.df().loc[k], np.inf)


def test_more_rows_than_a_matrix_of_them_has_room_for():
    n = 20_000
    rng = np.random.default_rng(9)
    d = pd.DataFrame({"x": rng.normal(size=n)})
    y = 1 + 2 * d["x"].to_numpy()[:, None] + rng.normal(size=(n, 3))
    fits = lj.lmm("~ x", d).fit_batch(y)
    x = np.column_stack([np.ones(n), d["x"]])
    assert_allclose(fits.params, np.linalg.lstsq(x, y, rcond=None)[0].T, rtol=1e-10)
    assert_allclose(lj.lmm("y ~ x", d.assign(y=y[:, 0])).fit().params, fits.params.loc[0], rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_gradients():
    """∂(−2ℓᴿ)/∂y is 2e/σ̂², through a problem of traced responses and weights."""
    rng = np.random.default_rng(10)
    x, y, w = np.column_stack([np.ones(12), rng.normal(size=12)]), rng.normal(size=12), rng.uniform(1, 2, 12)

    def criterion(y, w):
        return lj.estimate(ProblemMaker(Design(jnp.asarray(x), (), w))(y)).deviance

    gradient = jax.grad(criterion, (0, 1))
    slope, by_weight = quick_jit(gradient, plays=gradient)(jnp.asarray(y), jnp.asarray(w))
    beta, _, sigma2, *_ = least_squares(x, y, w, True)
    e = y - x @ beta
    assert_allclose(slope, 2 * w * e / sigma2, rtol=1e-8)
    hat = np.einsum("ni,ij,nj->n", x, np.linalg.inv(x.T @ (w[:, None] * x)), x)
    assert_allclose(by_weight, e**2 / sigma2 + hat - 1 / w, rtol=1e-8)


def test_backends_that_do_not_fit(data):
    with pytest.raises(ValueError, match="the grouped backend is for models with random terms"):
        lj.lmm("~ x", data, backend="grouped")
    with pytest.raises(ValueError, match="the fixed backend is for models without random terms"):
        lj.lmm("~ x + (1 | g)", data, backend="fixed")


def numbers(values):
    return np.array(pd.DataFrame(values).astype(float))


def test_weights_and_missing_values_as_limma_has_them():
    """lmFit with weights of every value and missing ones, eBayes, and F of two coefficients."""
    own = LIMMA["weighted_fit"]
    samples = pd.DataFrame({"group": LIMMA["group"], "x": LIMMA["x"]})
    y, w = numbers(LIMMA["holes"]).T, numbers(own["w"]).T
    fits = lj.lmm("~ group + x", samples).fit_batch(y, weights=w)
    assert_allclose(fits.params, numbers(own["coefficients"]), rtol=1e-7)
    assert_allclose(fits.sigma, own["sigma"], rtol=1e-8)
    assert_allclose(fits.bse / fits.sigma.to_numpy()[:, None], numbers(own["unscaled"]), rtol=1e-8)
    assert_array_equal(fits.df()["x"].round(9), own["df"])
    moderated = fits.moderate()
    assert moderated.df_prior == pytest.approx(own["df_prior"], rel=1e-7)
    assert moderated.var_prior == pytest.approx(own["var_prior"], rel=1e-7)
    table = moderated.table
    assert_allclose(table["t"].to_numpy().reshape(-1, 3), numbers(own["t"]), rtol=1e-7)
    assert_allclose(table["p"].to_numpy().reshape(-1, 3), numbers(own["p"]), rtol=1e-6)
