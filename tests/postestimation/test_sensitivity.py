"""Derivatives in responses, weights and groups against refits, and the infinitesimal jackknife."""

import functools

import jax
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import brentq

import lmmjax as lj
from lmmjax.core.estimate import estimate_jit
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
def fitted(reml):
    if not reml:
        return fitted(True).refit(reml=False)
    return lj.lmm("y ~ x + (1 | g)", frame(), weights="w").fit()


@functools.cache
def found(reml):
    return fitted(reml).sensitivity()


def parameters(fit):
    return np.concatenate([fit.params, fit.varcorr()["sdcor"]])


def explicit(reml):
    """β̂ and sds as a function of case weights of rows and groups, from the definition.

    f = Σ_g ω_g log|H_g| + κ log|F| + ν log r², H_g = diag(1/(wω)) + d, without what does not depend on d,
    is least where its derivative is zero.
    """
    data = frame()
    x = np.column_stack([np.ones(len(data)), data["x"]])
    y, w = data["y"].to_numpy(), data["w"].to_numpy()
    codes, levels = pd.factorize(data["g"], sort=True)
    rows_of = [np.flatnonzero(codes == g) for g in range(len(levels))]
    kappa = float(reml)

    def parts(d, rows, groups):
        inverse = [np.linalg.inv(np.diag(1 / (w * rows)[at]) + d) for at in rows_of]
        own = list(zip(groups, rows_of, inverse, strict=True))
        f = sum(g * x[at].T @ v @ x[at] for g, at, v in own)
        beta = np.linalg.solve(f, sum(g * x[at].T @ v @ y[at] for g, at, v in own))
        off = y - x @ beta
        r2 = sum(g * off[at] @ v @ off[at] for g, at, v in own)
        nu = sum(g * rows[at].sum() for g, at, _ in own) - 2.0 * kappa
        # ∂H_g = 11ᵀ
        sums = [v.sum(axis=0) for v in inverse]
        slope = sum(g * a.sum() for g, a in zip(groups, sums, strict=True))
        moved = [(g, a @ x[at], a @ off[at]) for (g, at, _), a in zip(own, sums, strict=True)]
        slope -= kappa * np.trace(np.linalg.solve(f, sum(g * np.outer(u, u) for g, u, _ in moved)))
        slope -= nu * sum(g * e**2 for g, _, e in moved) / r2
        return slope, beta, r2 / nu

    start = (fitted(reml).varcorr()["vcov"][0] / fitted(reml).scale).item()

    def solve(rows, groups):
        d = brentq(lambda d: parts(d, rows, groups)[0], start / 2, 2 * start, xtol=1e-14, rtol=1e-14)
        _, beta, sigma2 = parts(d, rows, groups)
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
    solve, n, groups = explicit(reml)
    rows, ones = np.ones(n), np.ones(groups)
    assert_allclose(solve(rows, ones), found(reml).estimate, rtol=1e-7)
    for i in (0, 17):
        assert_derivative(found(reml).cases.iloc[i], lambda h, i=i: solve(rows + h * np.eye(n)[i], ones))
    for g in (1, 8):
        assert_derivative(
            found(reml).groups.iloc[g], lambda h, g=g: solve(rows, ones + h * np.eye(groups)[g])
        )


def test_responses_and_prior_weights():
    fit, s = fitted(True), found(True)
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
    cases = np.ones(12)
    cases[[1, 5]] = 2.0, 0.0
    with jax.enable_x64(True):
        weighted = weighted_groups(fitted(True).model.design, fitted(True).y, True)
        got = estimate_jit(jax.tree.map(np.asarray, weighted(cases)))
    assert_allclose(got.beta, expected.params, rtol=1e-7)
    assert_allclose(got.psi, expected.estimate.psi, rtol=1e-6)
    # the constant log|R| of the rows is not weighted
    deleted = found(True).estimate - found(True).groups.loc["g05"]
    exact = parameters(lj.lmm("y ~ x + (1 | g)", rest, weights="w").fit())
    change = np.abs(exact - found(True).estimate)
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
    fit = fitted(True)
    # the residual variance of a row is σ²/w
    k = np.mean(1 / frame()["w"])
    s = fit.sensitivity(
        lambda p: {"icc": p["sd_(Intercept)|g"] ** 2 / (p["sd_(Intercept)|g"] ** 2 + k * p["sigma"] ** 2)}
    )
    assert_allclose(s.estimate["icc"], fit.icc(), rtol=1e-12)
    a, b = (found(True).estimate[name] for name in ("sd_(Intercept)|g", "sigma"))
    top = 2 * k * a * b * (b * found(True).y["sd_(Intercept)|g"] - a * found(True).y["sigma"])
    assert_allclose(s.y["icc"], top / (a**2 + k * b**2) ** 2, rtol=1e-8, atol=1e-12)


def test_on_the_boundary_and_crossed():
    data = frame()
    sums = data.assign(y=data["w"] * data["y"]).groupby("g")[["y", "w"]].transform("sum")
    s = fitted(True).refit(data["y"] - sums["y"] / sums["w"]).sensitivity()
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
