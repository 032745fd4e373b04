"""Problems from arrays inside other people's programs: jit, vmap, grad, checkpoint, scan, sharding."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from fit_data import matrices, split
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core import estimate_jit
from lmmjax.optimize import advice

GROUPS, ROWS = 9, 6
N = GROUPS * ROWS
CODES = np.repeat(np.arange(GROUPS), ROWS)
DAYS = np.tile(np.arange(float(ROWS)), GROUPS)

pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def data(problems=4, seed=3):
    """X (T, n, 2) of its own for every problem, y (T, n)."""
    rng = np.random.default_rng(seed)
    x = np.stack([np.ones((problems, N)), DAYS + 0.3 * rng.normal(size=(problems, N))], axis=-1)
    b = rng.normal(size=(problems, GROUPS, 2)) * [3.0, 1.0]
    y = x @ [5.0, 1.0] + np.sum(x * b[:, CODES], axis=-1) + rng.normal(size=(problems, N))
    return jnp.asarray(x), jnp.asarray(y)


def make(x, y, **options):
    return lj.problem_from_arrays(y, x, CODES, x[:, 1:], **options)


def loss(x, y):
    """A number that depends on everything a fit gives."""
    p = make(x, y)
    fit = lj.estimate(p)
    residual = y - lj.predict(p, fit, x, CODES, x[:, 1:])
    return fit.beta[1] + jnp.sum(fit.psi) + jnp.mean(residual**2)


@functools.cache
def gradients():
    """The gradients of `loss` with respect to X and y, one problem at a time."""
    single = quick_jit(jax.value_and_grad(loss, (0, 1)))
    results = [single(*one) for one in zip(*data(), strict=True)]
    return jax.tree.map(lambda *a: np.stack(a), *results)


def assert_same(actual, expected):
    # the programs of one fit and of many differ in the order of operations
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_allclose(a, b, rtol=0, atol=1e-8 * np.abs(b).max())


def test_functions_of_a_traced_problem_equal_those_of_the_model(fit):
    x, y = fit.model.frame.x, fit.y
    codes = fit.model.frame.random[0].codes

    def everything(x, y):
        p = lj.problem_from_arrays(y, x, codes, x)
        f = lj.estimate(p)
        at = lj.gram(f.theta, p)
        values = (
            lj.loglik(p, f.beta, f.sigma2, f.theta),
            lj.restricted_loglik(p, f.sigma2, f.theta),
            lj.profiled_deviance(f.theta, p),
        )
        return f, values, at, lj.conditional_modes(p, f), lj.predict(p, f, x, codes, x)

    estimate, values, at, modes, predictions = quick_jit(everything)(jnp.asarray(x), jnp.asarray(y))
    assert_allclose(estimate.beta, fit.params, rtol=1e-9)
    assert_allclose(estimate.psi, fit.estimate.psi, rtol=1e-7)
    assert_allclose(values[1], fit.llf, rtol=1e-12)
    assert_allclose(values[2], fit.deviance, rtol=1e-12)
    # the definition: V = σ²H, entry by entry
    _, z, g, _, v = matrices(fit)
    inverse = np.linalg.inv(v)
    residual = y - x @ fit.params.to_numpy()
    explicit = -0.5 * (len(y) * np.log(2 * np.pi) + np.linalg.slogdet(v)[1] + residual @ inverse @ residual)
    assert_allclose(values[0], explicit, rtol=1e-9)
    assert_allclose(at.xx, fit.scale * x.T @ inverse @ x, rtol=1e-7)
    assert_allclose(modes[0].b[:18], split(fit, g @ z.T @ inverse @ residual)[0], rtol=1e-6, atol=1e-6)
    assert_allclose(modes[0].mspe[:18], fit.cond_var(mspe=True)["Days | Subject"], rtol=1e-6)
    assert_allclose(predictions, fit.fittedvalues, rtol=1e-8)


def test_rows_that_are_not_kept():
    x, y = data()
    x, y = x[0], y[0]
    # a whole group, one row of another, and what they hold does not matter
    keep = np.ones(N, bool)
    keep[:ROWS], keep[20] = False, False
    gone = y.at[~keep].set(jnp.nan)
    some = {"weights": jnp.linspace(0.5, 2.0, N), "offset": jnp.linspace(-1.0, 1.0, N)}

    def fitted(y, x, keep, some):
        p = make(x, y, keep=keep, **some)
        f = lj.estimate(p)
        return f.psi[0], (f, lj.predict(p, f, x, CODES, x[:, 1:]))

    slope, (f, predictions) = quick_jit(jax.grad(fitted, (0, 1), has_aux=True))(
        gone, x, jnp.asarray(keep), some
    )
    left = {name: np.asarray(a)[keep] for name, a in some.items()}
    rest = np.asarray(x)[keep]
    p = lj.problem_from_arrays(np.asarray(y)[keep], rest, CODES[keep] - 1, rest[:, 1:], **left)
    expected = estimate_jit(p)
    for name in ("psi", "beta", "cov_beta", "deviance"):
        a, b = getattr(f, name), getattr(expected, name)
        assert_allclose(a, b, rtol=0, atol=1e-7 * np.abs(b).max())
    # a group without rows is predicted at b = 0
    assert_allclose(predictions[:ROWS], (x @ f.beta)[:ROWS], rtol=1e-12)
    for a in map(np.asarray, slope):
        assert np.all(np.isfinite(a))
        assert np.all(a[~keep] == 0)
        assert np.any(a[keep] != 0)


def test_groups_that_were_not_in_the_fit():
    x, y = data()

    def both(x, y):
        p = make(x, y)
        f = lj.estimate(p)
        codes = jnp.asarray([0, -1, 3])
        return (
            lj.predict(p, f, x[:3], codes, x[:3, 1:]),
            lj.predict(p, f, x[:3], CODES[:3], x[:3, 1:]),
            x[:3] @ f.beta,
        )

    mixed, own, population = quick_jit(both)(x[0], y[0])
    assert_allclose(mixed[1], population[1], rtol=1e-12)
    assert_allclose(mixed[0], own[0], rtol=1e-12)
    assert abs(mixed[2] - own[2]) > 0.1


def test_arrays_of_numpy_and_a_balanced_design(fit):
    """Nothing traced, and groups that could be compressed: modes and predictions are there all the same."""
    x, y, codes = fit.model.frame.x, fit.y, fit.model.frame.random[0].codes
    p = lj.problem_from_arrays(y, x, codes, x)
    f = lj.estimate(p)
    assert_allclose(lj.predict(p, f, x, codes, x), fit.fittedvalues, rtol=1e-7)
    assert_allclose(lj.predict(p, f, x[:2], [0, -1], x[:2])[1], x[1] @ fit.params, rtol=1e-9)
    assert f.advice == fit.status
    both = jax.tree.map(lambda a: np.stack([a, a]), f)
    assert both.advice.tolist() == [fit.status] * 2


def test_a_traced_status_has_no_advice():
    with pytest.raises(ValueError, match="outside of jit and vmap"):
        jax.make_jaxpr(advice)(np.int32(0))


def test_checkpoint_and_scan():
    x, y = data()

    @jax.checkpoint
    def step(total, one):
        return total + loss(*one), None

    def total(x, y):
        return jax.lax.scan(step, jnp.zeros(()), (x, y))[0]

    value, slopes = quick_jit(jax.value_and_grad(total, (0, 1)))(x, y)
    expected = gradients()
    assert_same(value, np.sum(expected[0]))
    assert_same(slopes, expected[1])


def test_a_network_in_front():
    """Features made by a layer are X and Z; its weights get the gradient of the criterion."""
    x, y = data()
    rng = np.random.default_rng(1)
    first = jnp.asarray(rng.normal(size=(2, 2)))

    def criterion(layer):
        h = jnp.tanh(x[0] @ layer)
        features = jnp.concatenate([jnp.ones((N, 1)), h], axis=1)
        return lj.estimate(lj.problem_from_arrays(y[0], features, CODES, features[:, :2])).deviance

    compiled = quick_jit(jax.value_and_grad(criterion))
    v = jnp.asarray(rng.normal(size=(2, 2)))
    _, slope = compiled(first)
    h = 1e-4
    # at an optimum the criterion is flat in θ: no error of refits; differences err by h²
    difference = (compiled(first + h * v)[0] - compiled(first - h * v)[0]) / (2 * h)
    assert_allclose(jnp.vdot(slope, v), difference, rtol=1e-5)


def test_shapes_that_do_not_fit():
    x, y = data()
    with pytest.raises(ValueError, match=r"must be \(n,\), \(n, p\) and \(n, q\)"):
        lj.problem_from_arrays(y[0], x[0, :5], CODES)
    with pytest.raises(ValueError, match="z is given for 2 terms"):
        lj.problem_from_arrays(y[0], x[0], CODES, (x[0], x[0]))
    with pytest.raises(ValueError, match="unknown covariance structure"):
        lj.problem_from_arrays(y[0], x[0], CODES, x[0], covariance="none")
    p = make(x[0], y[0])
    shapes = jax.eval_shape(lj.estimate, p)
    nothing = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes)
    with pytest.raises(ValueError, match="groups for 2 terms"):
        lj.predict(p, nothing, x[0], (CODES, CODES))


def test_several_terms():
    rng = np.random.default_rng(0)
    codes = (CODES, np.tile(np.arange(ROWS), GROUPS))
    x, y = (np.asarray(a[0]) for a in data())
    y = y + 3.0 * rng.normal(size=ROWS)[codes[1]]
    p = lj.problem_from_arrays(y, x, codes, (x, None), covariance=("diag", "us"))
    f = estimate_jit(p)
    frame = pd.DataFrame({"y": y, "x": x[:, 1], "g": codes[0], "h": codes[1]})
    fit = lj.lmm("y ~ x + (x || g) + (1 | h)", frame).fit()
    assert_allclose(f.psi, fit.estimate.psi, rtol=1e-6)
    predictions = quick_jit(lambda p, f, x: lj.predict(p, f, x, codes, (x, None)))(p, f, jnp.asarray(x))
    assert_allclose(predictions, fit.fittedvalues, rtol=1e-7)


SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import test_pure_interface as t

jax.config.update("jax_enable_x64", True)
mesh = jax.sharding.Mesh(jax.devices(), ("problems",))
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("problems"))
x, y = (jax.device_put(a, sharding) for a in t.data())
gradient = t.quick_jit(jax.vmap(jax.value_and_grad(t.loss, (0, 1))))
value, slopes = gradient(x, y)
assert value.sharding.is_equivalent_to(sharding, 1), value.sharding
np.savez(sys.argv[3], value=value, x=slopes[0], y=slopes[1])
"""


def test_sharding(tmp_path):
    """Gradients of many problems, mapped and spread over devices: the numbers of one after the other."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2".strip()
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    path = tmp_path / "sharded.npz"
    here = Path(__file__).parent
    command = [sys.executable, "-c", SHARDED, str(here), str(here.parent), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = np.load(path)
    assert_same((got["value"], (got["x"], got["y"])), gradients())
