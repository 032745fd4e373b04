"""Fixed effects, variance components and criteria of a fit, from the matrices of the model written out."""

import jax
import numpy as np
import pandas as pd
import pytest
from fit_data import matrices
from numpy.testing import assert_allclose
from scipy import stats

import lmmjax as lj

# matrices of order 154 with condition numbers below 1e4
TOL = 1e-9


def test_fixed_effects(any_fit):
    x, _, _, _, v = matrices(any_fit)
    frame = any_fit.model.frame
    y = any_fit.y - (0.0 if frame.offset is None else frame.offset)
    vx = np.linalg.solve(v, x)
    phi = np.linalg.inv(x.T @ vx)
    beta = phi @ vx.T @ y
    assert list(any_fit.params.index) == ["Intercept", "Days"]
    assert_allclose(any_fit.params, beta, rtol=TOL)
    assert_allclose(any_fit.cov_params(), phi, rtol=1e-8)
    assert_allclose(any_fit.bse, np.sqrt(np.diag(phi)), rtol=TOL)
    t = beta / np.sqrt(np.diag(phi))
    assert_allclose(any_fit.tvalues, t, rtol=TOL)
    assert_allclose(any_fit.coef_table(ddf="normal")["p"], 2 * stats.norm.sf(np.abs(t)), rtol=1e-7)
    df = any_fit.coef_table()["df"]
    assert_allclose(any_fit.pvalues, 2 * stats.t.sf(np.abs(t), df), rtol=1e-6)
    half = stats.norm.isf(0.05) * np.sqrt(np.diag(phi))
    limits = any_fit.conf_int(level=0.9, ddf="normal")
    assert_allclose(limits["lower"], beta - half, rtol=1e-8)
    assert_allclose(limits["upper"], beta + half, rtol=1e-8)
    table = any_fit.coef_table()
    assert list(table.columns) == ["estimate", "se", "df", "t", "p"]
    assert_allclose(table["t"], t, rtol=TOL)


@pytest.mark.parametrize("reml", [True, False])
def test_criteria(any_fit, reml):
    fit = any_fit if reml else any_fit.refit(reml=False)
    x, _, _, _, v = matrices(fit)
    frame = fit.model.frame
    r = fit.y - x @ fit.params.to_numpy() - (0.0 if frame.offset is None else frame.offset)
    n, p = x.shape
    deviance = n * np.log(2 * np.pi) + np.linalg.slogdet(v)[1] + r @ np.linalg.solve(v, r)
    if reml:
        deviance += np.linalg.slogdet(x.T @ np.linalg.solve(v, x))[1] - p * np.log(2 * np.pi)
    assert_allclose(fit.deviance, deviance, rtol=1e-12)
    assert_allclose(fit.llf, -deviance / 2, rtol=1e-12)
    k = p + len(fit.varcorr())
    assert_allclose(fit.aic, deviance + 2 * k, rtol=1e-12)
    assert_allclose(fit.bic, deviance + k * np.log(n), rtol=1e-12)
    assert_allclose(fit.aicc, fit.aic + 2 * k * (k + 1) / (n - k - 1), rtol=1e-12)
    assert (fit.nobs, fit.reml, fit.converged, fit.is_singular) == (n, reml, True, False)
    assert_allclose(fit.scale, fit.sigma**2, rtol=1e-14)
    assert fit.grad_norm < 1e-6 * abs(deviance)
    assert fit.status.startswith("converged")
    assert 0 < fit.n_iter < 20


def test_variance_components(fit):
    table = fit.varcorr()
    assert list(table.columns) == ["group", "term1", "term2", "vcov", "sdcor", "se"]
    assert list(table["group"]) == ["Subject", "Subject", "Subject", "Residual"]
    assert list(table["term1"]) == ["(Intercept)", "Days", "(Intercept)", None]
    assert list(table["term2"]) == [None, None, "Days", None]
    a, b, c, s = table["vcov"]
    assert_allclose(table["sdcor"], [a**0.5, b**0.5, c / (a * b) ** 0.5, s**0.5], rtol=1e-14)
    assert_allclose(table["se"], np.sqrt(np.diag(fit.estimate.cov_psi)), rtol=1e-14)
    # θ is the Cholesky factor of the relative covariance
    lower = np.array([[fit.theta[0], 0], [fit.theta[1], fit.theta[2]]])
    assert_allclose(s * lower @ lower.T, [[a, c], [c, b]], rtol=1e-12)


def test_intervals_of_variance_components(fit):
    limits = fit.conf_int(which="all")
    names = ["sd_(Intercept)|Subject", "sd_Days|Subject", "cor_Days.(Intercept)|Subject", "sigma"]
    assert list(limits.index) == [*names, "Intercept", "Days"]
    scales = {
        names[0]: (lambda psi: 0.5 * jax.numpy.log(psi[0]), np.exp),
        names[1]: (lambda psi: 0.5 * jax.numpy.log(psi[1]), np.exp),
        names[2]: (lambda psi: jax.numpy.arctanh(psi[2] / (psi[0] * psi[1]) ** 0.5), np.tanh),
        names[3]: (lambda psi: 0.5 * jax.numpy.log(psi[3]), np.exp),
    }
    z = stats.norm.ppf(0.975)
    with jax.enable_x64(True):
        psi = jax.numpy.asarray(fit.estimate.psi)
        for name, (function, back) in scales.items():
            gradient = np.asarray(jax.grad(function)(psi))
            half = z * np.sqrt(gradient @ fit.estimate.cov_psi @ gradient)
            expected = back(float(function(psi)) + np.array([-half, half]))
            assert_allclose(limits.loc[name], expected, rtol=1e-10)
    assert_allclose(limits.loc["Intercept"], fit.conf_int().loc["Intercept"], rtol=0)


def test_intraclass_correlation(any_fit):
    _, z, g, _, _ = matrices(any_fit)
    between = np.mean(np.diag(z @ g @ z.T))
    weights = any_fit.model.frame.weights
    noise = any_fit.scale * (1.0 if weights is None else np.mean(1.0 / weights))
    assert_allclose(any_fit.icc(), between / (between + noise), rtol=1e-12)
    assert_allclose(any_fit.icc(by_group=True), any_fit.icc(), rtol=1e-12)


def test_refit_is_a_new_fit(fit, sleepstudy):
    y = np.sqrt(sleepstudy["Reaction"])
    ours = fit.refit(y, reml=False)
    new = lj.lmm("np.sqrt(Reaction) ~ Days + (Days | Subject)", sleepstudy).fit(reml=False)
    assert_allclose(ours.deviance, new.deviance, rtol=1e-12)
    assert_allclose(ours.params, new.params, rtol=1e-10)
    assert_allclose(ours.estimate.psi, new.estimate.psi, rtol=1e-8)
    assert fit.refit(y).reml
    assert_allclose(fit.refit().deviance, fit.deviance, rtol=1e-14)


def test_methods_and_starts_reach_the_same_fit(fit):
    with jax.numpy_dtype_promotion("standard"):
        others = [fit.model.fit(method="lbfgs")]
    others.append(fit.model.fit(start=[0.01, 0.0, 3.0]))
    for other in others:
        assert other.converged
        assert_allclose(other.deviance, fit.deviance, rtol=1e-12)
        assert_allclose(other.estimate.psi, fit.estimate.psi, rtol=1e-7)


def test_no_fixed_effects(sleepstudy):
    """With X empty ML and REML are the same."""
    model = lj.lmm("Reaction ~ 0 + (1 | Subject)", sleepstudy)
    fit, ml = model.fit(), model.fit(reml=False)
    assert len(fit.params) == 0
    assert_allclose(fit.deviance, ml.deviance, rtol=1e-12)
    y = sleepstudy["Reaction"].to_numpy()
    psi = fit.varcorr()["vcov"]
    same = sleepstudy["Subject"].to_numpy()[:, None] == sleepstudy["Subject"].to_numpy()
    v = psi[0] * same + psi[1] * np.eye(180)
    assert_allclose(fit.llf, stats.multivariate_normal(np.zeros(180), v).logpdf(y), rtol=1e-10)
    assert fit.summary()


def test_no_random_effects_is_ordinary_least_squares(sleepstudy):
    fit = lj.lmm("Reaction ~ Days", sleepstudy).fit()
    x = np.column_stack([np.ones(180), sleepstudy["Days"]])
    beta, rss, _, _ = np.linalg.lstsq(x, sleepstudy["Reaction"].to_numpy())
    assert_allclose(fit.params, beta, rtol=1e-12)
    assert_allclose(fit.bse, np.sqrt(rss[0] / 178 * np.diag(np.linalg.inv(x.T @ x))), rtol=1e-10)
    assert_allclose(fit.sigma, np.sqrt(rss[0] / 178), rtol=1e-12)
    assert_allclose(fit.fittedvalues, x @ beta, rtol=1e-12)
    assert fit.random_effects == {}
    assert len(fit.ranef()) == 0
    assert "Residual" in str(fit.summary())


def test_backends_give_the_same_fit(sleepstudy):
    fits = [
        lj.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy[:60], backend=name).fit()
        for name in ("grouped", "dense")
    ]
    a, b = fits
    assert_allclose(a.deviance, b.deviance, rtol=1e-12)
    assert_allclose(a.estimate.psi, b.estimate.psi, rtol=1e-8)
    pd.testing.assert_frame_equal(a.ranef(), b.ranef(), rtol=1e-7)
    # residuals are differences of numbers a thousand times as large
    pd.testing.assert_frame_equal(a.augment(), b.augment(), rtol=1e-7, atol=1e-6)


def test_arrays_give_the_same_fit_as_the_formula(fit, sleepstudy):
    x = np.column_stack([np.ones(180), sleepstudy["Days"]])
    y = sleepstudy["Reaction"]
    w = 1.0 + sleepstudy["Days"].to_numpy()
    other = lj.Model.from_arrays(y, x, {"Subject": sleepstudy["Subject"]}, {"Subject": x}, weights=w).fit()
    weighted = lj.lmm(fit.model.formula, sleepstudy, weights="1 + Days").fit()
    assert_allclose(other.params, weighted.params, rtol=1e-12)
    assert_allclose(other.estimate.psi, weighted.estimate.psi, rtol=1e-10)
    assert_allclose(other.random_effects["Subject"], weighted.random_effects["Subject"], rtol=1e-8)
    assert other.model.components[0].group == "Subject"


def test_precision_is_double_and_configuration_stays(fit):
    assert not jax.config.jax_enable_x64
    for value in (fit.params, fit.bse, fit.cov_params(), fit.fittedvalues, fit.random_effects["Subject"]):
        assert np.asarray(value).dtype == np.float64
    for leaf in jax.tree.leaves(fit.estimate):
        assert isinstance(leaf, (np.ndarray, np.generic))
        assert leaf.dtype in (np.float64, np.int32, np.int64, np.bool_)
