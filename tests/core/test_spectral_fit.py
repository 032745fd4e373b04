"""One kernel: products beside the dense ones; fits beside a fine grid, GEMMA's, those of the rows left."""

import warnings
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from core_data import jet_and_projection

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core import estimate_jit
from lmmjax.gram.spectral import decomposition

FOLDER = Path(__file__).parents[1] / "reference" / "gemma"
N = 40
RNG = np.random.default_rng(8)
IDS = np.arange(N)
HALF = RNG.normal(size=(N, 3 * N))
K = HALF @ HALF.T / (3 * N)
CENTRED = K - K.mean(axis=0) - K.mean(axis=1)[:, None] + K.mean()
ROOT = np.linalg.cholesky(K)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
DATA = pd.DataFrame({"x": X[:, 1], "id": IDS, "w": RNG.uniform(0.5, 2.0, N)})
# from all of the kernel to none of it
U, E = ROOT @ RNG.normal(size=(N, 12)), RNG.normal(size=(N, 12))
Y = U * np.array([1, 1, 1, 1, 1, 1, 0.6, 0.3, 0, 0, 0, 0]) + E * np.array(
    [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
)
REPEATED = pd.DataFrame(
    {"x": RNG.normal(size=90), "id": RNG.integers(0, 24, 90), "w": 1.0 + np.arange(90) % 3}
)


def model(k=K, data=DATA, formula="~ x + (1 | id)", **options):
    kernel = k if isinstance(k, lj.Kernel) else lj.Kernel(k, IDS)
    return lj.lmm(formula, data, kernels={"id": kernel}, **options)


def leaves_apart(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(
        float(np.max(np.abs(np.asarray(u) - v) / (1 + np.abs(np.asarray(v))), initial=0)) for u, v in pairs
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": CENTRED, "weights": "w"},
        {"data": REPEATED, "weights": "w"},
        {"k": lj.Kernel.low_rank(HALF[:, :5], IDS), "formula": "~ 1 + (0 + x | id)"},
        {"k": lj.Kernel.low_rank(HALF[:, :5], IDS), "formula": "~ 0 + (1 | id)"},
    ],
    ids=["one row each", "centred", "repeated rows", "slope", "no fixed effects"],
)
def test_products_are_the_dense_ones(options):
    """Gram, its two derivatives, and what the levels see, those without rows too."""
    one, two = model(**options), model(**options, backend="dense")
    assert one.structure().backend == "spectral"
    y = RNG.normal(size=one.design.n)
    with jax.enable_x64(True):
        for reml in (True, False):
            a, b = one.expanded(y, reml), two.expanded(y, reml)
            for delta in (0.0, 0.7, 200.0):
                d = np.array([delta])
                # both are backward stable
                assert leaves_apart(jet_and_projection(a, d), jet_and_projection(b, d)) < 1e-10


def on_grid(k, x, y, reml, h):
    """−2ℓ (J, T) at shares h (J,), from eigenvalues of K itself: V = σ²((1 − h)I + hK)."""
    n, p = x.shape
    value, u = np.linalg.eigh(k)
    x, y, out = u.T @ x, u.T @ y, []
    for share in h:
        v = 1 - share + share * value
        xx = x.T @ (x / v[:, None])
        e = y - x @ np.linalg.solve(xx, x.T @ (y / v[:, None]))
        nu = n - p if reml else n
        r2 = np.sum(e**2 / v[:, None], axis=0)
        f = np.sum(np.log(v)) + nu * (1 + np.log(2 * np.pi * r2 / nu))
        out.append(f + np.linalg.slogdet(xx)[1] if reml else f)
    return np.array(out)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_fits_are_global(reml):
    """No point of a fine grid is below the fits, ends included; some are at each end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        fits = model().fit_batch(Y, reml)
    ratio = np.geomspace(1e-5, 1e5, 400)
    h = np.concatenate([[0.0], ratio / (1 + ratio), [1.0]]) if reml else ratio / (1 + ratio)
    lowest = on_grid(K, X, Y, reml, h)
    assert np.all(fits.converged)
    assert np.all(lowest.min(axis=0) - fits.deviance > -1e-9)
    # between points of the grid
    assert np.all(lowest.min(axis=0) - fits.deviance < 1e-2)
    bound = list(fits.bound)
    assert {"lower", "upper", ""} == set(bound)
    for at, position in (("lower", 0), ("upper", -1)):
        k = bound.index(at)
        assert fits.deviance[k] == pytest.approx(lowest[position, k], abs=1e-9)
    assert list(fits.is_singular) == [b != "" for b in bound]


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_records_are_those_of_newtons_method(reml):
    own = model(weights="w")
    with jax.enable_x64(True):
        for k in (4, 5, 6):
            found = own.fit_response(Y[:, k], reml).estimate
            other = estimate_jit(own.problem(Y[:, k], reml))
            for name in ("theta", "psi", "beta", "sigma2", "cov_beta", "cov_psi", "cov_relative", "deviance"):
                a, b = (np.asarray(getattr(e, name)) for e in (found, other))
                # its last step leaves a decrement of 1e-14
                assert np.allclose(a, b, rtol=2e-6, atol=1e-8, equal_nan=True), (k, name)
            assert found.status == other.status == 0


def test_no_fixed_effects_and_clones():
    """Two levels with one kernel: K is singular, and σ² is not zero."""
    k = K.copy()
    k[1], k[:, 1] = k[0], k[:, 0]
    k[1, 1] = k[0, 0]
    fits, dense = (model(k, formula="~ 0 + (1 | id)", backend=b).fit_batch(Y[:, 4:]) for b in (None, "dense"))
    assert np.allclose(fits.deviance, dense.deviance, rtol=0, atol=1e-9)
    assert "upper" not in set(fits.bound)


def test_several_optima_are_compared():
    """A kernel far from centred, under ML: the constant is in it too."""
    far = K + 30.0
    y = RNG.normal(size=(N, 300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        fits = model(far).fit_batch(y, reml=False)
    ratio = np.geomspace(1e-5, 1e5, 600)
    lowest = on_grid(far, X, y, False, ratio / (1 + ratio))
    assert np.all(lowest.min(axis=0) - fits.deviance > -1e-9)
    inner = (lowest[1:-1] < lowest[:-2]) & (lowest[1:-1] < lowest[2:])
    several = inner.sum(axis=0) + (lowest[0] < lowest[1]) + (lowest[-1] < lowest[-2]) > 1
    assert several.any()
    assert np.mean((fits.n_optima > 1) == several) > 0.98


def test_reml_does_not_change_with_a_constant_in_the_kernel():
    fits = [model(k).fit_batch(Y) for k in (K, K + 7.0, CENTRED)]
    for other in fits[1:]:
        assert np.allclose(other.deviance, fits[0].deviance, rtol=0, atol=1e-9)
        assert np.allclose(other.params["x"], fits[0].params["x"], rtol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {"data": REPEATED, "weights": "w", "offset": "x"},
        {"data": REPEATED, "k": lj.Kernel.low_rank(HALF[:, :5], IDS), "weights": "w"},
    ],
    ids=["regular", "thin"],
)
@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_missing_values_with_weights(options, reml, monkeypatch):
    """Without a decomposition of the rows that are left."""
    own = model(**options)
    rng = np.random.default_rng(4)
    y = rng.normal(size=(90, 6)) + HALF[REPEATED["id"], :6]
    y[rng.random((90, 6)) < 0.06] = np.nan
    with monkeypatch.context() as held:
        held.setattr(decomposition, "decompose", None)
        fits = own.fit_batch(y, reml)
    for k in range(6):
        one = own.subset(~np.isnan(y[:, k])).fit_response(y[~np.isnan(y[:, k]), k], reml)
        for name in ("deviance", "psi", "beta", "cov_beta", "cov_psi"):
            a, b = np.asarray(getattr(fits.estimate, name))[k], getattr(one.estimate, name)
            assert np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True), name


def test_missing_values_are_rows_left_out():
    y = Y.copy()
    y[[3, 17], 4], y[5, 6], y[5, 8] = np.nan, np.nan, np.nan
    fits = model().fit_batch(y)
    for k in (3, 4, 6, 8):
        keep = ~np.isnan(y[:, k])
        alone = lj.lmm("y ~ x + (1 | id)", DATA.assign(y=y[:, k])[keep], kernels={"id": lj.Kernel(K, IDS)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lj.FitWarning)
            one = alone.fit()
        assert fits.deviance[k] == pytest.approx(one.deviance, abs=1e-10)
        assert np.allclose(fits.params.iloc[k], one.params, rtol=1e-9, atol=1e-12)
        # relatives without data are predicted
        assert len(one.random_effects["id"]) == N


def test_likelihoods_without_a_maximum_are_said():
    """A centred kernel has no part in the intercept: −2ℓ falls for ever as σ² goes to zero."""
    flat = model(CENTRED, formula="~ 1 + (1 | id)")
    with pytest.warns(lj.FitWarning, match=r"responses are at the bound 100000.*use REML"):
        fits = flat.fit_batch(Y, reml=False)
    far = np.flatnonzero(fits.bound == "upper")
    ratio = fits.estimate.psi[far, 0] / fits.estimate.psi[far, 1]
    assert np.allclose(ratio, 1e5, rtol=1e-9)
    with pytest.warns(lj.FitWarning, match="the ratio of variances is at the bound"):
        assert flat.fit_response(Y[:, far[0]], reml=False).bound == "upper"
    assert np.mean(flat.fit_batch(Y).bound == "") > np.mean(fits.bound == "")


def test_no_residual_variance():
    """h = 1 is a point: the criterion of V = σ²K."""
    y = Y[:, list(model().fit_batch(Y).bound).index("upper")]
    with pytest.warns(lj.FitWarning, match="boundary"):
        fit = model().fit_response(y)
    inverse = np.linalg.inv(K)
    phi = np.linalg.inv(X.T @ inverse @ X)
    beta = phi @ X.T @ inverse @ y
    e = y - X @ beta
    assert fit.bound == "upper"
    assert fit.converged
    s = e @ inverse @ e / (N - 2)
    assert np.allclose(fit.params, beta, rtol=1e-8)
    assert np.allclose(fit.estimate.psi, [s, 1e-10 * s], rtol=1e-6)
    assert np.allclose(fit.bse, np.sqrt(s * np.diagonal(phi)), rtol=1e-8)
    assert np.isnan(fit.estimate.cov_psi[1]).all()
    assert fit.estimate.cov_psi[0, 0] == pytest.approx(2 * s**2 / (N - 2), rel=1e-6)


def test_what_cannot_be_fitted_has_a_reason():
    y = np.column_stack([np.ones(N), X @ [1.0, 2.0], Y[:, 5], np.where(IDS == 3, np.inf, Y[:, 5])])
    with pytest.warns(UserWarning, match="3 of 4 responses"):
        fits = model().fit_batch(y)
    assert list(fits.status) == ["perfect_fit", "perfect_fit", "converged", "not_finite"]
    assert "constant" in fits.reasons[0]
    assert np.isnan(fits.deviance[[0, 1, 3]]).all()
    # in the span of X and of a kernel of low rank
    thin = lj.Kernel.low_rank(HALF[:, :3], IDS)
    with pytest.warns(UserWarning, match="1 of 1"):
        assert model(thin).fit_batch(X[:, [1]] + HALF[:, [0]]).status[0] == "perfect_fit"


def test_gradients_of_a_fit_in_its_response():
    own = model()
    y = Y[:, 5]

    @quick_jit
    def value(y):
        fit = lj.estimate(own.problem(y))
        return fit.psi[0] / fit.psi.sum() + fit.beta[1] + 0.1 * fit.deviance

    step = np.cos(np.arange(N))

    def central(h):
        up, down = (float(value(y + s * h * step)) for s in (1, -1))
        return (up - down) / (2 * h)

    with jax.enable_x64(True):
        along = float(quick_jit(jax.grad(value))(y) @ step)
        # Newton's last step leaves 1e-7 of a ratio
        assert along == pytest.approx((4 * central(5e-3) - central(1e-2)) / 3, rel=2e-4)


def test_one_decomposition_serves_all(monkeypatch, tmp_path):
    kernel, count = lj.Kernel(K, IDS), []
    plain = decomposition.decompose
    monkeypatch.setattr(decomposition, "decompose", lambda *a: count.append(1) or plain(*a))
    own = model(kernel)
    own.fit_response(Y[:, 5]).ranef()
    own.fit_batch(Y).random_effects()
    model(kernel).fit_response(Y[:, 6])
    assert len(count) == 1
    model(kernel, formula="~ 1 + (1 | id)")
    assert len(count) == 2
    kernel.save(tmp_path / "k.npz")
    model(lj.Kernel.load(tmp_path / "k.npz"))
    assert len(count) == 2


@pytest.fixture(scope="module")
def panel():
    data = np.fromfile(FOLDER / "d.bed", np.uint8)[3:].reshape(-1, 50)
    codes = (data[:, :, None] >> np.array([0, 2, 4, 6])) & 3
    genotypes = np.array([2.0, np.nan, 1.0, 0.0])[codes.reshape(len(data), 200).T]
    people = pd.read_csv(FOLDER / "d.fam", sep=r"\s+", header=None)
    x = np.loadtxt(FOLDER / "cov.txt")[:, 1]
    frame = pd.DataFrame({"id": people[1], "x": x, "y": people[5]})
    # those with a minor allele below 1 % or that do not vary, as GEMMA does
    kept = np.delete(genotypes, [171, 840], axis=1)
    return frame, lj.Kernel.from_markers(kept, people[1], method="gemma-centered")


def test_null_models_are_those_of_gemma(panel):
    """What it prints (0.98.5, `-gk 1`, `-lmm 4`), and the same models in R to more digits."""
    frame, kernel = panel
    fitted = lj.lmm("y ~ x + (1 | id)", frame, kernels={"id": kernel})
    reml, ml = fitted.fit(), fitted.fit(reml=False)
    assert reml.deviance == pytest.approx(619.67970550, abs=2e-6)
    assert np.allclose(reml.estimate.psi, [1.93574052, 0.72897153], rtol=1e-6)
    assert np.allclose(reml.params, [0.196965, 0.342151], atol=6e-7)
    assert np.allclose(reml.bse, [0.0604951, 0.0699238], atol=6e-8)
    assert reml.icc() == pytest.approx(0.478931, abs=6e-7)
    assert ml.deviance == pytest.approx(612.39720469, abs=2e-6)
    assert ml.estimate.psi[0] / ml.estimate.psi[1] == pytest.approx(2.81037950, rel=2e-6)
