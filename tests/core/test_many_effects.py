"""Many fixed effects: programs do not grow with them, and their numbers are right."""

import jax
import numpy as np
import pandas as pd
import pytest
from core_data import assert_dense, equations

import lmmjax as lj
from lmmjax.arrays import quick_jit, sweep
from lmmjax.core import estimate, profiled_deviance
from lmmjax.design import independent_columns, solve_upper
from lmmjax.inference.natural import at_estimate

MODELS = {
    "grouped": (" + (x0 | g)", None),
    "nested": (" + (1 | k / g)", None),
    "crossed": (" + (1 | g) + (1 | h)", None),
    "markov and a term": (" + (1 | g)", lj.CAR1("t", group="g")),
    "patterns": ("", lj.Toeplitz("t", group="g")),
}


def data(p, n=400):
    rng = np.random.default_rng(p)
    frame = pd.DataFrame(rng.normal(size=(n, p)), columns=[f"x{j}" for j in range(p)])
    g, t = np.divmod(np.arange(n), 5)
    frame = frame.assign(g=g, t=t, k=g % 8, h=(7 * g + t) % 20)
    return frame.assign(y=rng.normal(size=n) + 0.7 * rng.normal(size=g[-1] + 1)[g])


def model(name, p):
    terms, residual = MODELS[name]
    return lj.lmm("y ~ " + " + ".join(f"x{j}" for j in range(p)) + terms, data(p), residual=residual)


def size(traced):
    """Equations of a program, and operations of its HLO."""
    return equations(traced.jaxpr.jaxpr), traced.lower().as_text().count(" = ")


@pytest.mark.parametrize("name", MODELS)
def test_programs_do_not_grow(name, x64):
    def sizes(p):
        problem = model(name, p).problem(data(p)["y"].to_numpy())
        fit = jax.jit(lambda q: estimate(q, None, method="newton")).trace(problem)
        after = jax.jit(lambda q, f: at_estimate(q, f.psi, f.cov_psi)).trace(problem, fit.out_info)
        return np.array([size(fit), size(after)])

    few, some, many = (sizes(p) for p in (5, 40, 300))
    # a last block is cut to the width that is left: two equations and their constants
    assert (np.abs(many - some) <= 4).all()
    assert (some <= few).all()


def marginal_covariance(fit, frame):
    """V from its components."""
    psi, same = np.asarray(fit.estimate.psi), frame["g"].to_numpy()[:, None] == frame["g"].to_numpy()
    if fit.model.data.design.residual is not None:
        v = np.kron(np.eye(len(frame) // 5), fit.residual_cov(0).to_numpy())
        return v + psi[0] * same if fit.model.data.design.terms else v
    v = psi[-1] * np.eye(len(frame))
    if len(psi) == 4:
        z = np.column_stack([np.ones(len(frame)), frame["x0"]])
        d = np.zeros((2, 2))
        for (i, j), value in zip(fit.model.data.design.structure.terms[0].entries, psi, strict=False):
            d[i, j] = d[j, i] = value
        return v + z @ d @ z.T * same
    h = frame["h"].to_numpy()
    return v + psi[0] * same + psi[1] * (h[:, None] == h)


@pytest.mark.parametrize("name", ["grouped", "crossed", "markov and a term"])
def test_the_criterion_of_sixty_effects(name):
    fit, frame = model(name, 60).fit(), data(60)
    y, x = frame["y"].to_numpy(), frame.filter(like="x").to_numpy()
    x = np.column_stack([np.ones(len(y)), x])
    v = marginal_covariance(fit, frame)
    assert_dense(fit, v, x, y)


def test_gradients_of_sixty_effects(x64):
    frame, fitted = data(60), model("grouped", 60)
    y, maker = frame["y"].to_numpy(), fitted.data.maker
    theta = np.array([0.7, 0.1, 0.4])
    first = quick_jit(jax.grad(lambda t, y: profiled_deviance(t, maker(y)), argnums=(0, 1)))
    by_theta, by_y = first(theta, y)
    assert equations(jax.make_jaxpr(first)(theta, y).jaxpr) < 2000

    def value(theta):
        x = np.column_stack([np.ones(len(y)), frame.filter(like="x")])
        z = x[:, :2] @ np.array([[theta[0], 0.0], [theta[1], theta[2]]])
        h = np.eye(len(y)) + z @ z.T * (frame["g"].to_numpy()[:, None] == frame["g"].to_numpy())
        half = np.linalg.solve(h, np.column_stack([x, y]))
        xx = x.T @ half[:, :-1]
        left = half[:, -1] - half[:, :-1] @ np.linalg.solve(xx, x.T @ half[:, -1])
        logdets = np.linalg.slogdet(h)[1] + np.linalg.slogdet(xx)[1]
        nu, r2 = len(y) - x.shape[1], y @ left
        return logdets + nu * np.log(r2), 2 * nu * left / r2

    steps = 1e-5 * np.eye(3)
    slopes = [(value(theta + step)[0] - value(theta - step)[0]) / 2e-5 for step in steps]
    np.testing.assert_allclose(by_theta, slopes, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(by_y, value(theta)[1], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("q", [12, 13, 31, 100])
def test_inverses_by_blocks(q, x64):
    rng = np.random.default_rng(q)
    a = rng.normal(size=(q, 2 * q))
    a = a @ a.T
    logdet, inverse = quick_jit(sweep)(a)
    np.testing.assert_allclose(sweep(a)[0], logdet, rtol=1e-13)
    np.testing.assert_allclose(sweep(a)[1], inverse, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(a)[1], rtol=1e-13)
    np.testing.assert_allclose(inverse @ a, np.eye(q), atol=1e-11)
    mapped = quick_jit(jax.vmap(sweep))(np.stack([a, 2.0 * a]))
    np.testing.assert_allclose(mapped[1][1], inverse / 2.0, rtol=1e-10)


def test_back_substitution_with_a_matrix_each():
    rng = np.random.default_rng(0)
    r = np.triu(rng.normal(size=(5, 14, 14))) + 4 * np.eye(14)
    v = rng.normal(size=(14, 2, 5))
    right = np.stack([np.linalg.solve(r[k], v[..., k]) for k in range(5)], axis=-1)
    lanes = np.moveaxis(r, 0, -1)
    np.testing.assert_allclose(solve_upper(lanes, v), right, rtol=1e-10)
    np.testing.assert_allclose(solve_upper(lanes, v[:, 0]), right[:, 0], rtol=1e-10)
    np.testing.assert_allclose(solve_upper(lanes[..., 0], v)[..., 0], right[..., 0], rtol=1e-10)


@pytest.mark.parametrize("p", [3, 12, 13, 50])
def test_back_substitution(p, x64):
    rng = np.random.default_rng(p)
    r = np.triu(rng.normal(size=(p, p))) + 4 * np.eye(p)
    for v in (rng.normal(size=p), rng.normal(size=(p, 3)), rng.normal(size=(p, 2, 2))):
        right = np.linalg.solve(r, v.reshape(p, -1)).reshape(v.shape)
        np.testing.assert_allclose(solve_upper(r, v), right, rtol=1e-9)
        np.testing.assert_allclose(quick_jit(solve_upper)(r, v), right, rtol=1e-9)


@pytest.mark.parametrize("dependent", [(), (0,), (3, 4), (39,)])
def test_columns_that_depend_on_others(dependent):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 40)) * 10.0 ** rng.uniform(-6, 6, 40)
    for j in dependent:
        x[:, j] = x[:, :j] @ rng.normal(size=j)
    assert independent_columns(x).tolist() == [j for j in range(40) if j not in dependent]
