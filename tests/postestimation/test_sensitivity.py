"""Derivatives in responses, weights and groups against refits, and the infinitesimal jackknife."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.inference.sensitivity import weighted_groups


@functools.cache
def frame():
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(12), [3, 5, 4, 6, 3, 4, 5, 6, 4, 3, 5, 4])
    n = len(g)
    x = rng.normal(size=n)
    y = 2 + x + 1.5 * rng.normal(size=12)[g] + rng.normal(size=n)
    # rows in no particular order
    order = rng.permutation(n)
    data = {"y": y, "x": x, "w": rng.uniform(0.5, 2, n), "g": [f"g{k:02d}" for k in g]}
    return pd.DataFrame(data).iloc[order].reset_index(drop=True)


@functools.cache
def fitted(reml=True):
    return lj.lmm("y ~ x + (1 | g)", frame(), weights="w").fit(reml=reml)


@functools.cache
def found(reml=True):
    return fitted(reml).sensitivity()


def parameters(fit):
    return np.concatenate([fit.params, fit.varcorr()["sdcor"]])


def explicit(reml):
    """β̂ and sds as a function of case weights of rows and groups, from the definition, by Newton steps.

    f = Σ_g ω_g log|H_g| + κ log|F| + ν log r², H_g = diag(1/(wω)) + d, without what does not depend on d.
    """
    data = frame()
    x = np.column_stack([np.ones(len(data)), data["x"]])
    y, w = data["y"].to_numpy(), data["w"].to_numpy()
    codes, levels = pd.factorize(data["g"], sort=True)

    kappa = float(reml)

    def parts(d, rows, groups):
        f, xy, yy, logdet = jnp.zeros((2, 2)), jnp.zeros(2), jnp.zeros(()), jnp.zeros(())
        for g in range(len(levels)):
            at = np.flatnonzero(codes == g)
            precision = w[at] * rows[at]
            h = jnp.diag(1 / precision) + d
            inverse = jnp.linalg.inv(h)
            logdet += groups[g] * (jnp.linalg.slogdet(h)[1] + jnp.sum(jnp.log(precision)))
            f += groups[g] * x[at].T @ inverse @ x[at]
            xy += groups[g] * x[at].T @ inverse @ y[at]
            yy += groups[g] * y[at] @ inverse @ y[at]
        n = sum(groups[g] * jnp.sum(rows[codes == g]) for g in range(len(levels)))
        beta = jnp.linalg.solve(f, xy)
        nu = n - 2.0 * kappa
        r2 = yy - xy @ beta
        value = logdet + kappa * jnp.linalg.slogdet(f)[1] + nu * jnp.log(r2)
        return value, (beta, r2 / nu)

    slope = jax.grad(lambda d, *weights: parts(d, *weights)[0])
    step = quick_jit(lambda d, *weights: d - slope(d, *weights) / jax.grad(slope)(d, *weights))
    ends = quick_jit(lambda *at: parts(*at)[1])
    start = (fitted(reml).varcorr()["vcov"][0] / fitted(reml).scale).item()

    def solve(rows, groups):
        d = jnp.asarray(start)
        for _ in range(5):
            d = step(d, rows, groups)
        beta, sigma2 = ends(d, rows, groups)
        return np.concatenate([beta, [np.sqrt(sigma2 * d), np.sqrt(sigma2)]])

    return solve, len(data), len(levels)


def assert_derivative(actual, function, h=1e-3, tol=1e-6):
    """Differences of order four of `function`, at 0, against the derivative."""

    def central(h):
        return (function(h) - function(-h)) / (2 * h)

    expected = (4 * central(h) - central(2 * h)) / 3
    assert_allclose(actual, expected, rtol=0, atol=tol * np.abs(expected).max())


@pytest.mark.parametrize("reml", [True, False])
def test_case_weights(reml):
    with jax.enable_x64(True):
        solve, n, groups = explicit(reml)
        rows, ones = jnp.ones(n), jnp.ones(groups)
        assert_allclose(solve(rows, ones), found(reml).estimate, rtol=1e-7)
        for i in (0, 17):
            assert_derivative(found(reml).cases.iloc[i], lambda h, i=i: solve(rows.at[i].add(h), ones))
        for g in (1, 8):
            assert_derivative(found(reml).groups.iloc[g], lambda h, g=g: solve(rows, ones.at[g].add(h)))


def test_responses_and_prior_weights():
    fit, s = fitted(), found()
    data = frame()
    for i in (3, 30):
        unit = np.eye(len(data))[i]
        assert_derivative(s.y.iloc[i], lambda h, u=unit: parameters(fit.refit(fit.y + h * u)))

        def reweighted(h, unit=unit):
            return parameters(
                lj.lmm("y ~ x + (1 | g)", data.assign(w=data["w"] + h * unit), weights="w").fit()
            )

        assert_derivative(s.weights.iloc[i], reweighted)


def test_weights_of_zero_and_two():
    """A group that counts twice, and one that does not count."""
    data = frame()
    twin = data[data["g"] == "g01"].assign(g="twin")
    rest = data[data["g"] != "g05"]
    changed = pd.concat([rest, twin])
    expected = lj.lmm("y ~ x + (1 | g)", changed, weights="w").fit()
    model = fitted().model
    with jax.enable_x64(True):
        cases = jnp.ones(12).at[1].set(2.0).at[5].set(0.0)
        weighted = weighted_groups(model.design, fitted().y, True)
        got = quick_jit(lambda cases: lj.estimate(weighted(cases)))(cases)
    assert_allclose(got.beta, expected.params, rtol=1e-7)
    assert_allclose(got.psi, expected.estimate.psi, rtol=1e-6)
    # the constant log|R| of the rows is not weighted
    deleted = found().estimate - found().groups.loc["g05"]
    exact = parameters(lj.lmm("y ~ x + (1 | g)", rest, weights="w").fit())
    change = np.abs(exact - found().estimate)
    assert np.all(np.abs(deleted - exact) < 0.5 * change + 0.02)


def test_errors_by_group_are_the_sandwich():
    """For ML and β: Φ (Σ X_gᵀV_g⁻¹r_g r_gᵀV_g⁻¹X_g) Φ, but for the part of the variances, of order 1/G."""
    fit, s = fitted(False), found(False)
    data = frame()
    x = np.column_stack([np.ones(len(data)), data["x"]])
    variance = fit.varcorr()["vcov"][0]
    scores = []
    for level in sorted(set(data["g"])):
        at = np.flatnonzero(data["g"] == level)
        v = np.diag(fit.scale / data["w"].to_numpy()[at]) + variance
        scores.append(x[at].T @ np.linalg.solve(v, fit.y[at] - x[at] @ fit.params.to_numpy()))
    phi = fit.cov_params().to_numpy()
    sandwich = phi @ np.array(scores).T @ np.array(scores) @ phi
    assert_allclose(s.se["group"].iloc[:2], np.sqrt(np.diagonal(sandwich)), rtol=0.1)
    assert_allclose(s.se["model"].iloc[:2], fit.bse, rtol=1e-9)
    assert list(s.se.columns) == ["model", "group", "observation"]
    assert_allclose(s.cov("group"), s.groups.T @ s.groups)


def test_a_function_of_the_parameters():
    fit = fitted()
    # the residual variance of a row is σ²/w
    k = np.mean(1 / frame()["w"])
    s = fit.sensitivity(
        lambda p: {"icc": p["sd_(Intercept)|g"] ** 2 / (p["sd_(Intercept)|g"] ** 2 + k * p["sigma"] ** 2)}
    )
    assert_allclose(s.estimate["icc"], fit.icc(), rtol=1e-12)
    a, b = (found().estimate[name] for name in ("sd_(Intercept)|g", "sigma"))
    top = 2 * k * a * b * (b * found().y["sd_(Intercept)|g"] - a * found().y["sigma"])
    assert_allclose(s.y["icc"], top / (a**2 + k * b**2) ** 2, rtol=1e-8, atol=1e-12)


def test_on_the_boundary_and_crossed():
    data = frame()
    flat = data.assign(y=data["y"] - data.groupby("g")["y"].transform("mean"))
    s = lj.lmm("y ~ x + (1 | g)", flat).fit().sensitivity()
    assert np.all(s.y["sd_(Intercept)|g"] == 0)
    assert np.all(np.isfinite(s.y))
    h = np.arange(len(data)) % 5
    crossed = data.assign(h=h, y=data["y"] + np.array([1.0, -1.5, 0.5, 2.0, -1.0])[h])
    fit = lj.lmm("y ~ x + (1 | g) + (1 | h)", crossed).fit()
    s = fit.sensitivity()
    unit = np.eye(len(data))[4]
    # refits end within 1e-7 of their optimum: a larger step, and what that leaves beside derivatives of 0.03
    assert_derivative(s.y.iloc[4], lambda h: parameters(fit.refit(fit.y + h * unit)), h=0.1, tol=1e-5)
    assert s.groups is None
    assert list(s.se.columns) == ["model", "observation"]
    with pytest.raises(ValueError, match="crossed: no groups are independent"):
        s.cov()
    with pytest.raises(ValueError, match="unknown unit"):
        s.cov("row")


def test_covariance_structures():
    data = frame().assign(f=lambda d: d["x"] > 0)
    fit = lj.lmm("y ~ x + homcs(0 + f | g)", data, residual=lj.AR1(group="g")).fit()
    s = fit.sensitivity()
    assert list(s.estimate.index[-4:]) == ["sd_common|g", "rho|g", "Phi", "sigma"]
    assert_allclose(s.estimate, parameters(fit), rtol=1e-12)
    unit = np.eye(len(data))[4]
    assert_derivative(s.y.iloc[4], lambda h: parameters(fit.refit(fit.y + h * unit)), h=0.03)
    assert s.groups is None
    with pytest.raises(ValueError, match="residuals have a structure"):
        s.cov()
