"""Fits with kernels beside dense algebra, and ordinary models spelt as kernels."""

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import lmmjax as lj
from lmmjax.design.kernels import LevelKernel, is_plain
from lmmjax.postestimation.diagnostics.sensitivity import _no_groups

G, N = 16, 60
RNG = np.random.default_rng(3)
IDS = np.array([f"i{k:02d}" for k in range(G)])
HALF = RNG.normal(size=(G, 30))
K = HALF @ HALF.T / 30
LOW = RNG.normal(size=(G, 3))
# two levels of the kernel have no data
WHO = RNG.integers(0, G - 2, size=N)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
HERD = RNG.integers(0, 5, size=N)
ROOT = np.linalg.cholesky(K)
Y = (
    X @ [1.0, 0.5]
    + (ROOT @ RNG.normal(size=G))[WHO]
    + (ROOT @ RNG.normal(size=G))[WHO] * X[:, 1]
    + (LOW @ RNG.normal(size=3))[WHO] * 0.5
    + RNG.normal(size=5)[HERD]
    + RNG.normal(size=N)
)
DATA = pd.DataFrame({"y": Y, "x": X[:, 1], "id": IDS[WHO], "herd": HERD.astype(str)})
SHUFFLED = RNG.permutation(G)
KERNEL = lj.Kernel(K[np.ix_(SHUFFLED, SHUFFLED)], IDS[SHUFFLED], name="A")
THIN = lj.Kernel.low_rank(LOW, IDS, name="thin")


def rows(k):
    return k[np.ix_(WHO, WHO)]


HERDS = (HERD[:, None] == HERD).astype(float)
PRODUCTS = {"1": np.ones((N, N)), "x": np.outer(X[:, 1], X[:, 1]), "1x": np.add.outer(X[:, 1], X[:, 1])}
CASES = {
    "one": ("(1 | id)", {"id": KERNEL}, [rows(K)]),
    "slopes": ("(x | id)", {"id": KERNEL}, [rows(K) * PRODUCTS[k] for k in ("1", "x", "1x")]),
    "several": (
        "(1 | id) + (1 | herd)",
        {"id": [KERNEL, THIN]},
        [rows(K), rows(LOW @ LOW.T), HERDS],
    ),
    "thin": ("(1 | id)", {"id": THIN}, [rows(LOW @ LOW.T)]),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    text, kernels, parts = CASES[request.param]
    fit = lj.lmm(f"y ~ x + {text}", DATA, kernels=kernels, backend="dense").fit()
    psi = fit.varcorr()["vcov"].to_numpy()
    v = sum(a * part for a, part in zip(psi, parts, strict=False)) + psi[-1] * np.eye(N)
    inverse = np.linalg.inv(v)
    phi = np.linalg.inv(X.T @ inverse @ X)
    beta = phi @ X.T @ inverse @ Y
    return fit, parts, v, inverse, phi, beta


def test_the_criterion_and_its_slopes_are_those_of_the_matrix(case):
    fit, parts, v, inverse, phi, beta = case
    r = Y - X @ beta
    value = (
        np.linalg.slogdet(v)[1] - np.linalg.slogdet(phi)[1] + r @ inverse @ r + (N - 2) * np.log(2 * np.pi)
    )
    assert fit.deviance == pytest.approx(value, abs=1e-9)
    p = inverse - inverse @ X @ phi @ X.T @ inverse
    if not fit.estimate.singular:
        for part in (*parts, np.eye(N)):
            share = np.trace(p @ part)
            assert Y @ p @ part @ p @ Y == pytest.approx(share, rel=1e-5)
    assert np.allclose(fit.params, beta, rtol=1e-9)
    assert np.allclose(fit.bse, np.sqrt(np.diagonal(phi)), rtol=1e-8)


def test_effects_of_all_levels_and_their_errors(case):
    fit, _, _, inverse, phi, beta = case
    if len(fit.varcorr()) > 2:
        # blocks of several coefficients, and of several terms, are those of a kernel of ones below
        assert fit.model.frame.random[0].kernel is KERNEL
        return
    kernel = fit.model.frame.random[0].kernel
    k = kernel.matrix.loc[IDS, IDS].to_numpy() * fit.varcorr()["vcov"].iloc[0]
    c, p = k[:, WHO], inverse - inverse @ X @ phi @ X.T @ inverse
    own = fit.ranef(cond_var=True).set_index("level").loc[IDS]
    assert np.allclose(own["value"], c @ inverse @ (Y - X @ beta), rtol=1e-7, atol=1e-9)
    # of levels without rows too
    for name, inner in (("cond_sd", inverse), ("pred_se", p)):
        variance = np.diagonal(k) - np.einsum("gi,ij,gj->g", c, inner, c)
        assert np.allclose(own[name], np.sqrt(np.maximum(variance, 0.0)), rtol=1e-6, atol=1e-7)


def test_predictions_of_levels_without_rows():
    fit = lj.lmm("y ~ x + (1 | id)", DATA, kernels={"id": KERNEL}).fit()
    psi = fit.varcorr()["vcov"].to_numpy()
    new = pd.DataFrame({"x": [0.0, 1.0, 2.0], "id": IDS[[15, 3, 14]]})
    level, x = np.array([15, 3, 14]), np.column_stack([np.ones(3), new["x"]])
    inverse = np.linalg.inv(psi[0] * rows(K) + psi[1] * np.eye(N))
    phi = np.linalg.inv(X.T @ inverse @ X)
    c = psi[0] * K[np.ix_(level, WHO)]
    away = x - c @ inverse @ X
    variance = psi[0] * np.diagonal(K)[level] - np.einsum("gi,ij,gj->g", c, inverse, c)
    variance += np.einsum("gp,pq,gq->g", away, phi, away)
    found = fit.predict(new, se=True, interval="prediction", ddf="normal")
    assert np.allclose(found["fit"], x @ fit.params + c @ inverse @ (Y - X @ fit.params), rtol=1e-8)
    assert np.allclose(found["se"], np.sqrt(variance), rtol=1e-7)
    half = (found["upper"] - found["lower"]) / 2 / 1.959963984540054
    assert np.allclose(half, np.sqrt(variance + psi[1]), rtol=1e-7)
    # without the effects of levels, these are part of what a new response varies by: K_gg, not 1
    none = fit.predict(new, re="none", interval="prediction", ddf="normal")
    half = (none["upper"] - none["lower"]) / 2 / 1.959963984540054
    whole = np.einsum("gp,pq,gq->g", x, phi, x) + psi[0] * np.diagonal(K)[level] + psi[1]
    assert np.allclose(half, np.sqrt(whole), rtol=1e-7)
    with pytest.raises(ValueError, match="new levels of 'id': zz"):
        fit.predict(new.assign(id="zz"))
    unknown = fit.predict(new.assign(id="zz"), new_levels="population", interval="prediction")
    assert np.allclose(unknown["fit"], x @ fit.params)
    assert unknown["upper"].isna().all()


EQUAL = {
    "params": lambda m: m.params,
    "ranef": lambda m: m.ranef(cond_var=True).sort_values(["term", "level"])[["value", "cond_sd", "pred_se"]],
    "predict": lambda m: m.predict(DATA[:4], interval="prediction", ddf="kenward-roger"),
    "part": lambda m: m.predict(DATA[:4], re="1 | id", interval="prediction"),
    "kenward-roger": lambda m: m.anova(ddf="kenward-roger"),
    "shares": lambda m: m.r2(),
    "one step": lambda m: m.influence("id", refit=False).params.sort_index(),
    "leverage": lambda m: m.hat(),
    "robust": lambda m: m.cov_params(robust="CR2", cluster="id"),
}


@pytest.fixture(scope="module")
def twice():
    ordinary = lj.lmm("y ~ x + (x | id)", DATA, backend="dense").fit()
    identity = lj.Kernel(np.eye(G), IDS)
    return ordinary, lj.lmm("y ~ x + (x | id)", DATA, kernels={"id": identity}).fit()


@pytest.mark.parametrize("name", EQUAL)
def test_a_kernel_of_ones_is_the_ordinary_model(name, twice):
    one, two = (np.asarray(EQUAL[name](m), float) for m in twice)
    if name == "ranef":
        # levels without rows
        two = two.reshape(2, G, 3)[:, : len(one) // 2].reshape(-1, 3)
    assert np.allclose(one, two, rtol=1e-7, atol=1e-9, equal_nan=True)


def test_draws_have_the_covariance_of_the_kernel():
    model = lj.lmm("y ~ x + (1 | id)", DATA, kernels={"id": KERNEL})
    draws = model.simulate(jax.random.key(1), np.zeros(N), [2.0, 0.5], 40_000)
    v = 2.0 * rows(K) + 0.5 * np.eye(N)
    # five standard errors of a sample covariance
    bound = 5 * np.sqrt((v**2 + np.outer(np.diagonal(v), np.diagonal(v))) / 40_000)
    assert np.all(np.abs(np.cov(draws) - v) < bound)


def test_a_batch_with_gaps_is_the_fits_of_its_rows():
    model = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": KERNEL})
    y = np.column_stack([Y, Y + np.sin(np.arange(N)), np.where(np.arange(N) % 7 == 3, np.nan, Y)])
    fits = model.fit_batch(y)
    for k in range(3):
        keep = ~np.isnan(y[:, k])
        one = lj.lmm("y ~ x + (1 | id)", DATA.assign(y=y[:, k])[keep], kernels={"id": KERNEL}).fit()
        assert fits.deviance[k] == pytest.approx(one.deviance, abs=1e-9)
        assert np.allclose(fits.params.iloc[k], one.params, rtol=1e-7)


def test_robust_clusters_keep_related_levels_together():
    families = np.kron(np.eye(4), np.full((4, 4), 0.5) + 0.5 * np.eye(4))
    fit = lj.lmm("y ~ x + (1 | id)", DATA, kernels={"id": lj.Kernel(families, IDS)}).fit()
    family = pd.Series(WHO // 4, index=DATA.index, name="family")
    expected = fit.cov_params(robust="CR0", cluster=family)
    assert np.allclose(fit.cov_params(robust="CR0"), expected)
    with pytest.raises(ValueError, match=r"levels are related.*families of related levels"):
        fit.cov_params(robust="CR0", cluster="id")


def test_what_needs_independent_levels_says_so():
    fit = lj.lmm("y ~ x + (1 | id)", DATA, kernels={"id": KERNEL}).fit()
    with pytest.raises(ValueError, match="with a kernel use method='nuts'"):
        fit.posterior(jax.random.key(0), method="gibbs")
    with pytest.raises(ValueError, match="has no kernels: use spectral"):
        lj.lmm("y ~ x + (1 | id)", DATA, kernels={"id": KERNEL}, backend="grouped")
    assert "related" in _no_groups(fit.model.data, True)


def test_saved_fits_keep_their_kernels(tmp_path):
    fit = lj.lmm("y ~ x + (1 | id)", DATA, kernels={"id": [KERNEL, None]}).fit()
    fit.save(tmp_path / "fit.lmm")
    again = lj.load(tmp_path / "fit.lmm")
    assert np.array_equal(again.model.frame.random[0].kernel.matrix, KERNEL.matrix)
    assert [term.group for term in again.model.frame.random] == [t.group for t in fit.model.frame.random]
    assert np.allclose(again.ranef()["value"], fit.ranef()["value"])


def test_what_a_kernel_is_beside_x_shows_in_products():
    """K of sibs is of its own; I, and the sums that X takes off, are looked at by dense matrices."""
    rng, n = np.random.default_rng(1), 30
    basis = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=n)]))[0]
    codes, z = np.arange(n), np.ones(n)
    sibs = sp.csr_array(np.linalg.cholesky(np.kron(np.eye(10), 0.5 * np.eye(3) + 0.5)))
    assert is_plain(LevelKernel(sibs), codes, z, basis)
    assert is_plain(LevelKernel(rng.normal(size=(n, 5))), codes, z, basis)
    assert not is_plain(LevelKernel(sp.csr_array(np.eye(n))), codes, z, basis)
    assert not is_plain(LevelKernel(basis @ rng.normal(size=(2, 2))), codes, z, basis)
