"""Priors of residual variances, lowess, moderated tests: limma's numbers (tests/reference/make_limma.R)."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import polygamma

from lmmjax.inference.lowess import lowess
from lmmjax.inference.moderation.moderated import Regressions, Shrinkage, treat, variance_prior
from lmmjax.inference.moderation.prior_moments import trigamma_inverse
from lmmjax.inference.moderation.prior_robust import f_tail

LIMMA = json.loads((Path(__file__).parents[1] / "reference" / "limma.json").read_text())


def numbers(values):
    return np.array([np.nan if v is None else v for v in values], float)


@pytest.mark.parametrize("k", range(2))
@pytest.mark.parametrize(
    ("name", "options"), [("half", (0.5, 3)), ("wide", (0.4, 4)), ("none", (0.2, 0, 0.0))]
)
def test_lowess(k, name, options):
    """R's, of which `order` sorts x; the printed digits are 11."""
    data = LIMMA["lowess"][k]
    x, y = numbers(data["x"]), numbers(data["y"])
    np.testing.assert_allclose(
        lowess(x, y, *options)[np.array(data["order"]) - 1], data[name], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", LIMMA["priors"])
def test_priors(name):
    """squeezeVar: infinite df, few, unequal df, zeros, trends with ties, outliers."""
    case = LIMMA["priors"][name]
    s2 = numbers(case["s2"])
    df = np.broadcast_to(np.array(case["df"], float), s2.shape)
    prior = variance_prior(s2, df, numbers(case["covariate"]) if case["covariate"] else None, case["robust"])
    # JSON has no infinity
    expected = np.nan_to_num(numbers(np.ravel(case["df_prior"])), nan=np.inf, posinf=np.inf)
    # R's uniroot stops at 1e-8 in d₀/(1 + d₀)
    np.testing.assert_allclose(np.broadcast_to(prior.df, np.shape(expected)), expected, rtol=1e-7)
    np.testing.assert_allclose(prior.variance, case["var_prior"], rtol=1e-8)
    np.testing.assert_allclose(prior.posterior(s2, df), case["s2_post"], rtol=1e-8)


def test_responses_that_do_not_count():
    """They have a prior, and no part in it."""
    rng = np.random.default_rng(0)
    s2, df = rng.chisquare(6, 40) / 6 * rng.gamma(5, 0.2, 40), np.full(40, 6.0)
    holes = np.concatenate([s2, [np.nan, 1.0, 0.5]])
    own = np.concatenate([df, [6.0, 0.0, np.nan]])
    for robust in (False, True):
        prior, less = variance_prior(holes, own, None, robust), variance_prior(s2, df, None, robust)
        np.testing.assert_array_equal(np.broadcast_to(prior.df, 43)[:40], np.broadcast_to(less.df, 40))
        post = prior.posterior(holes, own)
        np.testing.assert_array_equal(post[:40], less.posterior(s2, df))
        assert post[41] == prior.variance
    with pytest.raises(ValueError, match="1 of 3 responses"):
        variance_prior(holes[39:42], own[39:42])


def test_variances_of_zero():
    s2 = np.array([0.0, 0.0, 1.0, 2.0, 3.0])
    prior = variance_prior(s2, np.full(5, 4.0))
    assert 0 < prior.df < np.inf
    assert np.all(prior.posterior(s2, np.full(5, 4.0)) > 0)


def test_trigamma_inverse():
    for x in (1e-9, 1e-3, 0.3, 2.0, 50.0, 1e9):
        assert polygamma(1, trigamma_inverse(x)) == pytest.approx(
            x, rel=1e-6 if x > 1e7 or x < 1e-6 else 1e-10
        )


@pytest.mark.parametrize(("d1", "d2"), [(3.0, 7.0), (20.0, np.inf), (np.inf, 5.0), (1.0, 0.4)])
def test_tails_of_f(d1, d2):
    f = np.array([1e-3, 0.5, 1.0, 4.0, 30.0])
    if np.isinf(d2):
        expected = stats.chi2.logsf(d1 * f, d1)
    elif np.isinf(d1):
        expected = stats.chi2.logcdf(d2 / f, d2)
    else:
        expected = stats.f.logsf(f, d1, d2)
    np.testing.assert_allclose(f_tail(f, d1, d2), expected, rtol=1e-10, atol=1e-20)


def test_tails_beyond_doubles():
    """log P(F(4, 2b) > f) = log[(1 + b(1 − x)) x^b] at x = 2b/(2b + 4f)."""
    f, b = 1e40, 20.0
    x = 2 * b / (2 * b + 4 * f)
    assert f_tail(np.array(f), 4.0, 2 * b) == pytest.approx(b * np.log(x) + np.log1p(b * (1 - x)), rel=1e-12)
    # (1 + x) e^(−x) of χ² with 4 df
    assert f_tail(np.array(1000.0), 4.0, np.inf) == pytest.approx(np.log1p(2000.0) - 2000.0, rel=1e-5)


COV = np.array([[[5.0, -0.3], [-0.3, 0.2]]])


def shrunk(slope, d0, ratio=0.5, most=1e9):
    """Of contrasts whose log variances have these slopes in (ψ, σ²) at σ² = 1; d = 2/0.2."""
    df = np.array([10.0])
    out = Shrinkage(df, np.minimum(df + d0, most), np.array([ratio])).of(
        Regressions.of(slope[None], COV, np.ones(1))
    )
    return [a[0] for a in out]


def test_what_is_learned_of_a_contrast():
    """A multiple of σ² has all of it, what is independent of σ̂² nothing, and without a prior nobody."""
    slope = np.array([[0.0, 0.2, 0.4], [1.0, 0.3, 0.6]])
    ratio, df = shrunk(slope, 4.0)
    satterthwaite = 2 / np.einsum("ik,ij,jk->k", slope, COV[0], slope)
    np.testing.assert_allclose(shrunk(slope, 0.0)[1], satterthwaite)
    assert ratio[0] == pytest.approx(0.5)
    assert df[0] == pytest.approx(14.0)
    assert ratio[1] == pytest.approx(1.0)
    assert df[1] == pytest.approx(satterthwaite[1])
    assert shrunk(slope, np.inf, most=50.0)[1][0] == pytest.approx(50.0)


def test_conditioning_on_the_residual_variance():
    """The Gaussian update: log v given that log σ² is as the prior and the data together say."""
    slope = np.array([[0.4], [0.6]])
    d0, both = 4.0, np.column_stack([slope[:, 0], [0.0, 1.0]])
    cov = both.T @ COV[0] @ both
    # an observation of log σ² with variance 2/d₀ beside it: precisions add
    precision = np.linalg.inv(cov) + np.diag([0.0, d0 / 2])
    posterior = np.linalg.inv(precision)
    ratio, df = shrunk(slope, d0)
    assert df[0] == pytest.approx(2 / posterior[0, 0])
    assert ratio[0] == pytest.approx(0.5 ** (cov[0, 1] / 0.2))


def test_treat_without_threshold_is_the_t_test():
    b, se, df = np.array([1.0, -0.3]), np.array([0.2, 0.4]), np.array([5.0, 8.0])
    t, p = treat(b, se, df, 0.0)
    np.testing.assert_allclose(t, b / se)
    np.testing.assert_allclose(p, 2 * stats.t.sf(np.abs(t), df))
