"""Kernels of small blocks: products, fits and what follows beside those of the kernel as a whole."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from core_data import jet_and_projection

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.gram.block import decomposition

RNG = np.random.default_rng(1)


def family(s):
    half = RNG.normal(size=(s, 2 * s))
    return half @ half.T / (2 * s)


# two clones in the last one
PARTS = [family(s) for s in (1, 4, 2, 6, 6, 1, 3, 5, 4)] + [np.array([[1.0, 1.0], [1.0, 1.0]])]
K = sp.block_diag(PARTS, format="csr")
G = K.shape[0]
ORDER = RNG.permutation(G)
IDS = np.arange(G)
BLOCKS, WHOLE = lj.Kernel(K[ORDER][:, ORDER], IDS[ORDER]), lj.Kernel(K.toarray(), IDS)
# one row each, without clones; repeated rows, and levels without any
ONCE = np.arange(G - 2)
OFTEN = RNG.integers(0, G - 3, 70)


def pair(who, weights=None, formula="~ x + (1 | id)"):
    rng = np.random.default_rng(len(who))
    n = len(who)
    data = pd.DataFrame({"x": rng.normal(size=n), "id": who, "w": rng.uniform(0.5, 2.0, n)})
    u = np.vstack([np.linalg.cholesky(WHOLE.levels.whole + 1e-12 * np.eye(G)) @ rng.normal(size=(G, 7))])
    noise = np.array([0.01, 0.1, 0.5, 1, 1, 1, 1])
    y = u[who] * np.array([1, 1, 1, 1, 0.5, 0, 0]) + noise * rng.normal(size=(n, 7))
    models = [
        lj.lmm(formula, data, kernels={"id": kernel}, weights=weights, backend=backend)
        for kernel, backend in ((BLOCKS, "block"), (WHOLE, "spectral"))
    ]
    return *models, y


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize(
    ("who", "weights", "formula"),
    [
        (ONCE, None, "~ x + (1 | id)"),
        (ONCE, "w", "~ 0 + (1 | id)"),
        (OFTEN, "w", "~ x + (1 | id)"),
        (OFTEN, None, "~ 1 + (0 + x | id)"),
    ],
    ids=["one row each", "no fixed effects", "repeated rows", "slope"],
)
def test_fits_are_those_of_the_whole_kernel(who, weights, formula, reml):
    one, two, y = pair(who, weights, formula)
    assert one.structure().backend == "block"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        a, b = one.fit_batch(y, reml), two.fit_batch(y, reml)
        single = one.fit_response(y[:, 3], reml), two.fit_response(y[:, 3], reml)
    assert list(a.bound) == list(b.bound)
    # both are one optimum, in which Newton's method leaves a decrement of 1e-15
    assert np.allclose(a.deviance, b.deviance, rtol=0, atol=1e-9)
    for name in ("psi", "beta", "cov_beta", "cov_psi", "sigma2", "deviance"):
        first, second = (np.asarray(getattr(fits.estimate, name)) for fits in (a, b))
        assert np.allclose(first, second, rtol=1e-6, atol=1e-9, equal_nan=True), name
        assert np.allclose(np.asarray(getattr(single[0].estimate, name)), first[3], equal_nan=True)
    effects = [
        fit.ranef(cond_var=True).sort_values("level")[["value", "cond_sd", "pred_se"]] for fit in single
    ]
    assert np.allclose(*effects, rtol=1e-6, atol=1e-8)
    shares = [fits.heritability()[["estimate", "lower", "upper"]] for fits in (a, b)]
    assert np.allclose(*shares, rtol=1e-6, atol=1e-8, equal_nan=True)


def test_products_are_those_of_the_whole_kernel():
    one, two, y = pair(OFTEN, "w")
    with jax.enable_x64(True):
        a, b = one.expanded(y[:, 3]), two.expanded(y[:, 3])
        # of levels in their order
        order = np.argsort(ORDER)
        for delta in (0.0, 0.7, 50.0):
            (jet, (seen,)), (jet_b, (seen_b,)) = (jet_and_projection(p, np.array([delta])) for p in (a, b))
            for u, v in zip(jax.tree.leaves(jet), jax.tree.leaves(jet_b), strict=True):
                assert np.allclose(u, v, rtol=1e-9, atol=1e-10)
            for u, v in zip(jax.tree.leaves(seen), jax.tree.leaves(seen_b), strict=True):
                assert np.allclose(np.asarray(u)[..., order], v, rtol=1e-9, atol=1e-10)


def test_gradients_in_the_response_are_differences():
    one, two, y = pair(OFTEN)
    theta, step = np.array([0.8]), np.cos(np.arange(len(y)))

    def value(model):
        return quick_jit(lambda y: lj.profiled_deviance(theta, model.problem(y)))

    with jax.enable_x64(True):
        along = float(quick_jit(jax.grad(value(one)))(y[:, 3]) @ step)
        # of the other backend, a central difference of second order
        plus, minus = (float(value(two)(y[:, 3] + s * 1e-4 * step)) for s in (1, -1))
    assert along == pytest.approx((plus - minus) / 2e-4, rel=1e-6)


def test_gaps_leave_rows_out():
    """Patterns with decompositions of their own, beside dummy columns of the whole kernel."""
    one, two, y = pair(OFTEN, "w")
    y[::9, 1], y[3, 2], y[5:9, 3] = np.nan, np.nan, np.nan
    for reml in (True, False):
        a, b = one.fit_batch(y, reml), two.fit_batch(y, reml)
        assert np.allclose(a.deviance, b.deviance, rtol=0, atol=1e-9)
        assert np.allclose(a.params, b.params, rtol=1e-6)


def test_the_choice():
    """By the size of the blocks; X that has all K lacks is another backend's, which sees σ² = 0."""

    data = pd.DataFrame({"id": IDS, "twin": (IDS == G - 1) * 1.0 - (IDS == G - 2)})
    inside = lj.lmm("~ twin + (1 | id)", data, kernels={"id": BLOCKS}, backend="block")
    assert inside.structure().backend == "spectral"
    assert lj.lmm("~ 1 + (1 | id)", data, kernels={"id": BLOCKS}).structure().backend == "spectral"
    many = lj.Kernel(sp.kron(sp.eye_array(250), np.full((4, 4), 0.5) + 0.5 * np.eye(4)), np.arange(1000))
    large = lj.lmm("~ 1 + (1 | id)", pd.DataFrame({"id": np.arange(1000)}), kernels={"id": many})
    assert large.structure().backend == "block"
    assert decomposition.ROWS == 1000
    with pytest.raises(ValueError, match="for sparse kernels, which fall into blocks: use spectral"):
        lj.lmm("~ 1 + (1 | id)", data, kernels={"id": WHOLE}, backend="block")


def test_what_has_no_fit_has_a_reason():
    one, _, y = pair(OFTEN)
    x = one.design.x
    bad = np.column_stack([x @ [1.0, 2.0], np.where(np.arange(len(x)) == 3, np.inf, 1.0), y[:, 3]])
    with pytest.warns(UserWarning, match="2 of 3 responses"):
        fits = one.fit_batch(bad)
    assert list(fits.status) == ["perfect_fit", "not_finite", "converged"]
