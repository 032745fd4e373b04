"""Observed information of variance components against finite differences of the explicit likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_data import arrays, design, problem, response

from lmmjax.core import estimate_jit, information
from lmmjax.fitted import Component, sd_scale

pytestmark = pytest.mark.usefixtures("x64")


def minus_twice_loglik(d, y, psi, reml):
    """−2ℓ or −2ℓᴿ at ψ = (variances and covariances of one term, σ²), maximised over β, without constants."""
    structure = d.structure.terms[0]
    matrix = np.zeros((structure.q, structure.q))
    for value, (i, j) in zip(psi[:-1], structure.entries, strict=True):
        matrix[i, j] = matrix[j, i] = value
    term = d.terms[0]
    v = (term.codes[:, None] == term.codes[None]) * (term.z @ matrix @ term.z.T)
    v += psi[-1] * np.diag(1 / d.weights)
    vx, vy = np.linalg.solve(v, d.x), np.linalg.solve(v, y)
    xvx = d.x.T @ vx
    r2 = y @ vy - (vx.T @ y) @ np.linalg.solve(xvx, vx.T @ y)
    return np.linalg.slogdet(v)[1] + r2 + reml * np.linalg.slogdet(xvx)[1]


def hessian(f, x, steps):
    """Central second differences, extrapolated once: errors of order step⁴."""

    def once(h):
        m = len(x)
        out = np.zeros((m, m))
        for a in range(m):
            for b in range(a, m):
                ea, eb = np.eye(m)[a] * h[a], np.eye(m)[b] * h[b]
                value = f(x + ea + eb) - f(x + ea - eb) - f(x - ea + eb) + f(x - ea - eb)
                out[a, b] = out[b, a] = value / (4 * h[a] * h[b])
        return out

    return (4 * once(steps / 2) - once(steps)) / 3


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("terms", "theta"), [("us2", [3.0, 0.5, 2.5]), ("diag2", [2.0, 1.5])])
def test_information(terms, theta, reml):
    rng = np.random.default_rng(13)
    d = design(rng, terms, weights=True)
    y = response(rng, d, np.array(theta))
    fit = arrays(estimate_jit(problem(d, y, reml, compress=False)))
    assert not fit.singular
    scale = np.abs(fit.psi) + 0.1 * fit.psi[-1]
    information = 0.5 * hessian(lambda psi: minus_twice_loglik(d, y, psi, reml), fit.psi, 0.01 * scale)
    expected = np.linalg.inv(information)
    sd = np.sqrt(np.diag(expected))
    # the differences are good to 1e-6 of the curvature; inverting multiplies by its condition number
    np.testing.assert_allclose(fit.cov_psi / np.outer(sd, sd), expected / np.outer(sd, sd), rtol=0, atol=1e-4)


@pytest.mark.parametrize("terms", ["us1", "us2", "us1+us1"])
def test_missing_on_a_boundary(terms):
    rng = np.random.default_rng(2)
    d = design(rng, terms)
    # residuals of opposite sign within every group: no variance between groups
    sign = np.zeros(d.n)
    for g in range(d.terms[0].n_groups):
        rows = np.flatnonzero(d.terms[0].codes == g)
        sign[rows] = np.where(np.arange(len(rows)) % 2, 1.0, -1.0)
    y = d.x @ np.array([1.0, 2.0]) + sign + 0.1 * rng.normal(size=d.n)
    fit = arrays(estimate_jit(problem(d, y, compress=False)))
    assert fit.singular
    variance = np.array([i == j for term in d.structure.terms for i, j in term.entries] + [True])
    assert np.any(fit.psi[variance] == 0) or terms == "us2"
    on_edge = np.isnan(np.diag(fit.cov_psi))
    assert on_edge[0]
    assert not on_edge[-1]
    # what is left is the information of the model without the boundary terms
    free = ~on_edge
    assert np.all(np.linalg.eigvalsh(fit.cov_psi[np.ix_(free, free)]) > 0)
    if np.all(on_edge[:-1]) and np.all(fit.psi[:-1] == 0):
        assert abs(fit.cov_psi[-1, -1] / (2 * fit.psi[-1] ** 2 / (d.n - d.p)) - 1) < 1e-8


def test_delta_method():
    rows = [
        Component("variance", "g", "a", None, 0, 0, 0),
        Component("variance", "g", "b", None, 0, 1, 1),
        Component("covariance", "g", "a", "b", 0, 1, 0),
        Component("sigma", "Residual", None, None, 1, 0, 0),
    ]

    def natural(psi):
        a, b, c, s = psi
        return jax.numpy.stack([a**0.5, b**0.5, c / (a * b) ** 0.5, s**0.5])

    psi = np.array([2.0, 0.5, -0.3, 1.7])
    values, jacobian = sd_scale(psi, rows)
    np.testing.assert_allclose(values, natural(psi), rtol=1e-14)
    np.testing.assert_allclose(
        jacobian, jax.jacobian(natural)(jax.numpy.asarray(psi)), rtol=1e-12, atol=1e-14
    )


def test_bends_of_many_parameters_equal_those_that_are_formed(monkeypatch):
    def entries(t):
        return jnp.stack([t[0] ** 2, t[0] * t[1] ** 3, jnp.sin(t[2]) * t[0]])

    theta, w = jnp.array([0.3, -0.7, 1.1]), jnp.array([1.0, -2.0, 0.5])
    slope, formed, turn = information._bends(entries, theta)
    monkeypatch.setattr(information, "CUBE", 0)
    other, contracted, same = information._bends(entries, theta)
    np.testing.assert_allclose(contracted(w), formed(w), atol=1e-15)
    np.testing.assert_allclose(same, turn, atol=1e-15)
    np.testing.assert_allclose(other, slope, atol=1e-15)
