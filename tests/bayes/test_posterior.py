"""The posterior: NUTS, Gibbs sampling and quadrature agree; densities and draws against explicit formulas."""

import dataclasses
import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from fit_data import matrices
from posterior_data import evaluated
from scipy import stats

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.arrays.compile import counts
from lmmjax.bayes import (
    LKJ,
    Exponential,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    InverseWishart,
    LogDensity,
    Normal,
    Uniform,
    nuts,
)
from lmmjax.bayes.coordinates import PriorSet, components, natural, scattered, to_line
from lmmjax.bayes.draws import beta_draws
from lmmjax.bayes.priors import BetaPrior, BlockPrior, SeparatePrior
from lmmjax.bayes.target import densities as at_points
from lmmjax.bayes.target import log_marginal
from lmmjax.covariance import family
from lmmjax.datasets import load
from lmmjax.design import Structure, TermStructure
from lmmjax.postestimation.posterior.arviz_bridge import data_of
from lmmjax.postestimation.posterior.draws import effect_draws
from lmmjax.postestimation.posterior.predict import predictive
from lmmjax.postestimation.posterior.prior_sensitivity import smooth
from lmmjax.postestimation.posterior.priors import named_priors

with warnings.catch_warnings():
    # arviz announces its next version on import
    warnings.simplefilter("ignore")
    arviz = pytest.importorskip("arviz")
    pytest.importorskip("blackjax")

# Faraway (2002), Practical Regression and Anova using R, section 16.1: brightness of paper by shift operator
BRIGHT = [
    [59.8, 60.0, 60.8, 60.8, 59.8],
    [59.8, 60.2, 60.4, 59.9, 60.0],
    [60.7, 60.7, 60.5, 60.9, 60.3],
    [61.0, 60.8, 60.6, 60.5, 60.5],
]
PULP = pd.DataFrame({"bright": np.ravel(BRIGHT), "operator": np.repeat(list("abcd"), 5)})
# Monte Carlo standard errors allowed: some 40 comparisons, each missing with probability 6e-5
ERRORS = 4.0
CONJUGATE = {
    "cov|Subject": InverseWishart(4.0, np.diag([24.0**2, 5.0**2])),
    "sigma": InverseGamma(2.0, 600.0),
    "Days": Normal(0.0, 5.0),
}


@pytest.fixture(scope="module")
def pulp():
    return lj.lmm("bright ~ 1 + (1 | operator)", PULP).fit()


@pytest.fixture(scope="module", params=["nuts", "gibbs"])
def pulp_draws(request, pulp):
    # Gibbs sampling moves slowly where the variance of operators is small
    draws = {"nuts": 1000, "gibbs": 3000}[request.param]
    return pulp.posterior(jax.random.key(1), method=request.param, draws=draws)


@pytest.fixture(scope="module")
def sleepstudy_draws(fit):
    options = {"nuts": {"draws": 1000}, "gibbs": {"draws": 1500}}
    return {
        name: fit.posterior(jax.random.key(2), CONJUGATE, method=name, **o) for name, o in options.items()
    }


def assert_mean(draws, expected):
    """The mean of draws (chains, draws) is what is expected, but for Monte Carlo error."""
    error = float(arviz.mcse(np.asarray(draws, dtype=float)))
    assert abs(np.mean(draws) - expected) < ERRORS * error


# --- quadrature ----------------------------------------------------------------------------------------


def quadrature(log_density_sd, log_density_sigma):
    """Weights on a grid of (τ, σ), and moments of β given them, for pulp with flat β.

    Between operators, means of five have variance λ/5, λ = σ² + 5τ².
    """
    y = np.array(BRIGHT)
    within = np.sum((y - y.mean(1, keepdims=True)) ** 2)
    between = 5 * np.sum((y.mean(1) - y.mean()) ** 2)
    log_tau, log_sigma = np.linspace(-12, 4, 1601)[:, None], np.linspace(-2.5, 0.8, 331)[None, :]
    tau, sigma = np.exp(log_tau), np.exp(log_sigma)
    lam = sigma**2 + 5 * tau**2
    log_likelihood = -0.5 * (16 * np.log(sigma**2) + within / sigma**2 + 3 * np.log(lam) + between / lam)
    log_weight = log_likelihood + log_density_sd(tau) + log_density_sigma(sigma) + log_tau + log_sigma
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    return tau + 0 * sigma, sigma + 0 * tau, weight, y.mean(), lam / 20


def half_t(x, df, scale):
    return np.log(2) + stats.t.logpdf(x, df, scale=scale)


def default_quadrature():
    scale = np.std(np.ravel(BRIGHT), ddof=1)
    return quadrature(lambda t: half_t(t, 3, scale), lambda s: half_t(s, 3, scale))


def test_pulp_against_quadrature(pulp_draws):
    tau, sigma, weight, centre, variance = default_quadrature()
    beta, sd, residual = np.moveaxis(pulp_draws.values, -1, 0)
    assert_mean(sd, np.sum(weight * tau))
    assert_mean(residual, np.sum(weight * sigma))
    assert_mean(beta, centre)
    assert_mean((beta - centre) ** 2, np.sum(weight * variance))
    for bound in (0.1, 0.3, 0.6):
        assert_mean(sd < bound, weight[tau < bound].sum())
    for bound in (0.3, 0.4):
        assert_mean(residual < bound, weight[sigma < bound].sum())
    # E(b | y) = E[5τ²/λ] (ȳ_g − ȳ)
    shrink = np.sum(weight * 5 * tau**2 / (20 * variance))
    for group, own in enumerate(np.mean(BRIGHT, axis=1)):
        assert_mean(pulp_draws.b[0][:, :, group, 0], shrink * (own - centre))


def test_reweighted_against_quadrature(pulp_draws):
    other = {"sd": HalfNormal(0.3), "sigma": Exponential(0.5)}
    new = pulp_draws.reweight(other)
    tau, sigma, weight, _, variance = quadrature(
        lambda t: stats.halfnorm.logpdf(t, scale=0.3), lambda s: stats.expon.logpdf(s, scale=0.5)
    )
    assert new.reliable
    assert 0.5 < new.ess / new.weights.size < 1
    summary = pulp_draws.summary()
    for name, expected in {
        "sd_(Intercept)|operator": np.sum(weight * tau),
        "sigma": np.sum(weight * sigma),
    }.items():
        error = summary.loc[name, "mcse"] * np.sqrt(new.weights.size / new.ess)
        assert abs(new.table.loc[name, "mean"] - expected) < ERRORS * error
    assert new.table.loc["Intercept", "sd"] == pytest.approx(np.sqrt(np.sum(weight * variance)), rel=0.1)


def test_reweighting_with_the_same_priors_changes_nothing(pulp_draws):
    same = pulp_draws.reweight(None)
    assert same.ess == pytest.approx(same.weights.size)
    np.testing.assert_allclose(same.table["shift"], 0, atol=1e-9)
    summary = pulp_draws.summary()
    np.testing.assert_allclose(same.table["mean"], summary["mean"])
    # quantiles of a step function
    np.testing.assert_allclose(same.table["upper"], summary["upper"], atol=0.02)


def test_weights_without_a_tail_stay():
    log_weights = np.where(np.arange(900) % 3 == 0, -np.inf, 0.0)
    weights, k = smooth(log_weights)
    assert k == np.inf
    np.testing.assert_allclose(weights, np.exp(log_weights) / 600)


# --- two samplers --------------------------------------------------------------------------------------


def test_samplers_agree_on_sleepstudy(sleepstudy_draws):
    nuts, gibbs = (sleepstudy_draws[name] for name in ("nuts", "gibbs"))
    assert not nuts.stats["diverging"].any()
    for power in (1, 2):
        values = [(post.values / gibbs.values.mean((0, 1))) ** power for post in (nuts, gibbs)]
        for k in range(len(nuts.names)):
            a, b = (v[..., k] for v in values)
            error = np.hypot(float(arviz.mcse(a)), float(arviz.mcse(b)))
            assert abs(a.mean() - b.mean()) < ERRORS * error, (nuts.names[k], power)
    for group in (0, 8, 17):
        for j in (0, 1):
            a, b = (post.b[0][:, :, group, j] for post in (nuts, gibbs))
            assert abs(a.mean() - b.mean()) < ERRORS * np.hypot(float(arviz.mcse(a)), float(arviz.mcse(b)))


def test_other_numbers_of_draws_are_the_same_program(sleepstudy_draws):
    drawn = sleepstudy_draws["nuts"].draws
    problem = drawn.fitted.data.problem(drawn.fitted.y, drawn.fitted.reml)
    with jax.enable_x64(True):
        starts = scattered(
            jax.random.key(5),
            drawn.fitted.estimate.psi,
            np.zeros(4),
            problem.structure,
            drawn.prior_set,
            4,
        )
        at_start = jax.tree.map(np.asarray, at_points(starts, problem, drawn.prior_set))
        before = dict(counts)
        chains = nuts.sample(
            jax.random.key(6), (starts, *at_start), problem, drawn.prior_set, warmup=130, draws=121
        )
    assert dict(counts) == before
    assert chains.psi.shape == (4, 121, 4)
    assert len(np.unique(chains.psi[:, :, 0])) > 400


def test_stages_of_adaptation():
    """Stan's windows for 1,000 steps: 75 | 25 50 100 200 500 | 50."""
    stages = nuts.schedule(1000, 20)
    np.testing.assert_array_equal(stages[:, 0], np.arange(1250))
    np.testing.assert_array_equal(np.flatnonzero(stages[:, 2] == 1), [99, 149, 249, 449, 949])
    np.testing.assert_array_equal(np.flatnonzero(stages[:, 2] == 2), [999])
    adapted = np.repeat([0, 1, 0, 2], [75, 875, 50, 250])
    np.testing.assert_array_equal(stages[:, 1], adapted)


def test_summary(sleepstudy_draws):
    summary = sleepstudy_draws["nuts"].summary(level=0.9)
    assert list(summary.index) == [
        "Intercept",
        "Days",
        "sd_(Intercept)|Subject",
        "sd_Days|Subject",
        "cor_Days.(Intercept)|Subject",
        "sigma",
    ]
    assert (summary["r_hat"] < 1.01).all()
    assert (summary[["ess_bulk", "ess_tail"]] > 400).all(axis=None)
    frame = sleepstudy_draws["nuts"].frame()
    np.testing.assert_allclose(summary["lower"], frame.quantile(0.05))
    assert frame.index.names == ["chain", "draw"]


# --- densities -----------------------------------------------------------------------------------------


marginal = quick_jit(log_marginal)


def test_marginal_likelihood_is_the_normal_density(any_fit, x64):
    """β integrated out by hand: V + XP⁻¹Xᵀ; flat, the restricted likelihood."""
    problem, y = any_fit.model.problem(any_fit.y), any_fit.y
    x, _, _, _, v = matrices(any_fit)
    free = y - (0 if any_fit.model.frame.offset is None else any_fit.model.frame.offset)
    mean, precision = np.array([240.0, 8.0]), np.array([1e-4, 0.02])
    value = marginal(problem, jnp.asarray(any_fit.estimate.psi), BetaPrior(mean, precision))
    whole = stats.multivariate_normal(x @ mean, v + x @ np.diag(1 / precision) @ x.T)
    np.testing.assert_allclose(value, whole.logpdf(free), rtol=1e-9)
    flat = marginal(problem, jnp.asarray(any_fit.estimate.psi), BetaPrior(np.zeros(2), np.zeros(2)))
    np.testing.assert_allclose(flat, any_fit.llf, rtol=1e-9)


DENSITIES = {
    HalfNormal(2.0): lambda s: stats.halfnorm.logpdf(s, scale=2),
    HalfT(3.0, 2.0): lambda s: half_t(s, 3, 2),
    HalfCauchy(2.0): lambda s: stats.halfcauchy.logpdf(s, scale=2),
    Exponential(2.0): lambda s: stats.expon.logpdf(s, scale=2),
    Uniform(4.0): lambda s: stats.uniform.logpdf(s, scale=4),
    InverseGamma(1.5, 2.0): lambda s: stats.invgamma.logpdf(s**2, 1.5, scale=2) + np.log(2 * s),
    LogDensity(lambda s: -s): lambda s: -s,
}


@pytest.mark.parametrize("prior", DENSITIES, ids=str)
def test_densities_of_standard_deviations(prior, x64):
    prior_arrays = jax.tree.map(jnp.asarray, prior)
    for sd in (0.03, 1.1, 3.7):
        np.testing.assert_allclose(
            prior_arrays.log_density(jnp.asarray(sd)), DENSITIES[prior](sd), rtol=1e-12
        )
        u = prior_arrays.to_line(jnp.asarray(sd))
        value, slope = prior_arrays.from_line(u)
        np.testing.assert_allclose(value, sd, rtol=1e-12)
        np.testing.assert_allclose(
            slope, np.log(jax.grad(lambda u: prior_arrays.from_line(u)[0])(u)), rtol=1e-9
        )


STRUCTURE = Structure((TermStructure(family("us"), 3), TermStructure(family("diag"), 2)))
DIAGONAL = SeparatePrior((HalfNormal(2.0), HalfNormal(2.0)), None)
FLAT = BetaPrior(np.zeros(0), np.zeros(0))
POINTS = np.random.default_rng(3).normal(0, 0.7, (2, 9))


def densities(block):
    """log density in ψ at two points, by way of u, and ψ."""
    priors = PriorSet((block, DIAGONAL), HalfT(3.0, 1.0), FLAT)
    priors = jax.tree.map(lambda a: jnp.asarray(a, float), priors)

    at = evaluated(STRUCTURE, priors)
    for u in POINTS:
        psi, slopes, value, again, jacobian = map(np.asarray, at(jnp.asarray(u)))
        np.testing.assert_allclose(again, value, rtol=1e-9)
        yield float(value + jacobian - np.linalg.slogdet(slopes)[1]), psi


def test_starts_are_inverted(x64):
    for block in (BlockPrior(InverseWishart(5.0, np.eye(3))), SeparatePrior((Uniform(9.0),) * 3, LKJ(1.0))):
        priors = PriorSet((block, DIAGONAL), HalfT(3.0, 1.0), FLAT)
        psi = np.asarray(natural(components(jnp.asarray(POINTS[0]), STRUCTURE, priors)[0], STRUCTURE))
        np.testing.assert_allclose(to_line(psi, STRUCTURE, priors), POINTS[0], rtol=1e-9)


def other_densities(psi):
    """Those of the diagonal term and σ, on the scale of variances."""
    own = stats.halfnorm.logpdf(np.sqrt(psi[6:8]), scale=2) - np.log(2 * np.sqrt(psi[6:8]))
    return own.sum() + half_t(np.sqrt(psi[8]), 3, 1) - np.log(2 * np.sqrt(psi[8]))


def test_inverse_wishart_with_its_jacobian(x64):
    scale = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 3.0]])
    for value, psi in densities(BlockPrior(InverseWishart(5.0, scale))):
        sigma = np.asarray(STRUCTURE.matrices(psi[:-1])[0])
        expected = stats.invwishart.logpdf(sigma, 5, scale) + other_densities(psi)
        np.testing.assert_allclose(value, expected, rtol=1e-9)


@pytest.mark.parametrize("eta", [1.0, 2.5])
def test_lkj_with_its_jacobian(eta, x64):
    """p(R) = |R|^(η−1)/c; c of 3 × 3 matrices from the vine, π²/2 for η = 1."""
    sds = (Exponential(1.0), Exponential(2.0), HalfNormal(1.0))
    laws = (stats.expon(), stats.expon(scale=2), stats.halfnorm())
    constant = 0.0
    for k, count in ((0, 2), (1, 1)):
        a = eta + (1 - k) / 2
        constant += count * (stats.beta(a, a).logpdf(0.5) - np.log(2))
    if eta == 1:
        np.testing.assert_allclose(constant, -np.log(np.pi**2 / 2), rtol=1e-12)
    for value, psi in densities(SeparatePrior(sds, LKJ(eta))):
        sigma = np.asarray(STRUCTURE.matrices(psi[:-1])[0])
        tau = np.sqrt(np.diagonal(sigma))
        det = np.linalg.det(sigma / np.outer(tau, tau))
        expected = sum(law.logpdf(t) for law, t in zip(laws, tau, strict=True)) + (eta - 1) * np.log(det)
        # |dΣ/d(τ, R)| = Π 2τ³
        expected += constant - np.sum(np.log(2 * tau**3)) + other_densities(psi)
        np.testing.assert_allclose(value, expected, rtol=1e-9)


# --- exact draws given the variance parameters ------------------------------------------------------------


MODELS = {
    "grouped": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "crossed": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
}


@pytest.mark.parametrize("name", MODELS)
def test_coefficients_given_variances(name, x64):
    """Means: GLS estimates, BLUPs; variances: Φ, prediction error variances; Cov(β, b) = −ΦXᵀV⁻¹ZG."""
    data, formula = MODELS[name]
    fit, draws = lj.lmm(formula, load(data)).fit(), 1500
    psi = np.tile(fit.estimate.psi, (draws, 1))
    p = len(fit.params)
    flat = BetaPrior(np.zeros(p), np.zeros(p))
    beta = np.asarray(beta_draws(jax.random.key(4), fit.model.problem(fit.y), psi, flat))
    close = ERRORS / np.sqrt(draws)
    np.testing.assert_allclose((beta.mean(0) - fit.params) / fit.bse, 0, atol=close)
    np.testing.assert_allclose(beta.std(0) / fit.bse, 1, atol=close / np.sqrt(2))
    terms = effect_draws(fit.fitted, jax.random.key(5), psi, beta)
    errors = [np.sqrt(np.diagonal(v, axis1=1, axis2=2)).ravel() for v in fit.cond_var(mspe=True).values()]
    drawn = np.concatenate([b.reshape(draws, -1) for b in terms], axis=1)
    error, modes = np.concatenate(errors), np.concatenate([b.ravel() for b in blups(fit)])
    np.testing.assert_allclose((drawn.mean(0) - modes) / error, 0, atol=close)
    np.testing.assert_allclose(drawn.std(0) / error, 1, atol=close / np.sqrt(2))
    x, z, g, _, v = matrices(fit)
    exact = -fit.cov_params().to_numpy() @ x.T @ np.linalg.solve(v, z) @ g
    covariance = (beta - beta.mean(0)).T @ drawn / draws
    scale = np.outer(fit.bse, error)
    np.testing.assert_allclose((covariance - exact) / scale, 0, atol=close * np.sqrt(2))


def blups(fit):
    """b̂ (G, q) of every term."""
    return [fit.random_effects[term.group][list(term.names)].to_numpy() for term in fit.model.frame.random]


# --- predictions, ArviZ ----------------------------------------------------------------------------------


def test_posterior_predictive(sleepstudy_draws, fit):
    post = sleepstudy_draws["nuts"]
    new = pd.DataFrame({"Days": [3, 9, 9, 9], "Subject": ["308", "new", "new", "other"]})
    new["Subject"] = new["Subject"].astype(object)
    data = fit.model.frame
    level = data.random[0].levels[0]
    new.loc[0, "Subject"] = level
    drawn = post.posterior_predictive(jax.random.key(6), new).reshape(-1, 4)
    beta, sigma2 = post.beta.reshape(-1, 2), post.psi[..., -1].ravel()
    known = beta @ [1, 3] + post.b[0][:, :, 0].reshape(-1, 2) @ [1, 3]
    size = len(drawn)
    np.testing.assert_allclose(
        drawn[:, 0].mean(), known.mean(), atol=ERRORS * drawn[:, 0].std() / np.sqrt(size)
    )
    variance = np.var(known) + sigma2.mean()
    np.testing.assert_allclose(drawn[:, 0].var() / variance, 1, atol=ERRORS * np.sqrt(2 / size))
    a, c, d = np.moveaxis(post.psi[..., :3].reshape(-1, 3), -1, 0)
    entries = dict(zip([(r.i, r.j) for r in fit.model.components[:3]], (a, c, d), strict=True))
    spread = entries[0, 0] + 18 * entries[1, 0] + 81 * entries[1, 1]
    total = np.var(beta @ [1, 9]) + spread.mean() + sigma2.mean()
    np.testing.assert_allclose(drawn[:, 1].var() / total, 1, atol=1.5 * ERRORS * np.sqrt(2 / size))
    shared = np.cov(drawn[:, 1:].T)
    np.testing.assert_allclose(shared[0, 1] / (total - sigma2.mean()), 1, atol=0.15)
    np.testing.assert_allclose(shared[0, 2] / total, np.var(beta @ [1, 9]) / total, atol=0.07)


def test_predictive_of_new_rows_takes_the_weights_of_the_model(sleepstudy_draws, sleepstudy):
    formula, data = "Reaction ~ Days + (Days | Subject)", sleepstudy.assign(w=1.0 + sleepstudy.Days % 3)
    new = data.head(3).assign(w=[1.0, 4.0, 0.25])

    def noise(of_model, **options):
        fit = lj.lmm(formula, data, weights=of_model).fit()
        draws = dataclasses.replace(sleepstudy_draws["nuts"].draws, fitted=fit.fitted)
        key = jax.random.key(3)
        return predictive(draws, key, new, **options) - predictive(draws, key, new, kind="mean")

    ones = noise("w", weights=np.ones(3))
    np.testing.assert_allclose(noise("w"), ones / np.sqrt(new["w"].to_numpy()), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="the model's are an array: pass weights="):
        noise(data["w"].to_numpy())
    with pytest.raises(ValueError, match="weights"):
        noise("w", weights=[1.0, -1.0, 2.0])


def test_predictive_of_the_rows_of_the_fit(sleepstudy_draws, fit):
    post = sleepstudy_draws["nuts"]
    mean = post.posterior_predictive(jax.random.key(7), kind="mean").mean((0, 1))
    # shrinkage differs from that of the estimates, a little
    assert np.corrcoef(mean, fit.fittedvalues)[0, 1] > 0.995
    replicate = post.posterior_predictive(jax.random.key(7), groups="new")
    assert replicate.shape == (4, 1000, 180)
    assert np.std(replicate) > np.std(mean)
    expected = stats.norm.logpdf(
        fit.y[5],
        post.posterior_predictive(jax.random.key(7), kind="mean")[1, 2, 5],
        np.sqrt(post.psi[1, 2, -1]),
    )
    np.testing.assert_allclose(post.log_likelihood()[1, 2, 5], expected, rtol=1e-12)


def test_what_memory_cannot_hold_is_refused_beforehand(sleepstudy_draws, monkeypatch):
    post = sleepstudy_draws["nuts"]
    new = pd.DataFrame({"Days": 1.0, "Subject": [f"new {k}" for k in range(40)]})
    monkeypatch.setattr("lmmjax.arrays.memory.available_memory", lambda: 5 << 20)
    post.posterior_predictive(jax.random.key(1), new.iloc[:4])
    monkeypatch.setattr("lmmjax.postestimation.posterior.predict.standard_normal", None)
    for call in (post.log_likelihood, lambda: post.posterior_predictive(jax.random.key(1), new)):
        with pytest.raises(ValueError, match=r"4,000 draws of \d+ rows would take .* pass fewer rows"):
            call()


def test_inference_data(sleepstudy_draws):
    post = sleepstudy_draws["nuts"]
    data = post.to_arviz(posterior_predictive=jax.random.key(8), log_likelihood=True)
    groups = {"posterior", "sample_stats", "observed_data", "posterior_predictive", "log_likelihood"}
    assert set(data) == groups
    assert data.posterior["Days | Subject"].dims[2:] == ("Subject", "Days | Subject columns")
    assert data.posterior["beta"].coords["coefficient"].to_numpy().tolist() == ["Intercept", "Days"]
    assert data.log_likelihood["Reaction"].shape == (4, 1000, 180)
    table = arviz.summary(post.idata, var_names=["beta", "sigma"], round_to="none")
    np.testing.assert_allclose(table["mean"], post.summary().loc[["Intercept", "Days", "sigma"], "mean"])


def test_names_with_a_slash():
    """ArviZ 1 keeps them in a tree, whose paths have slashes."""
    name = "I(Days / 2) | Subject"
    draws = {name: np.zeros((2, 5, 3))}
    data = data_of({"posterior": draws, "sample_stats": {}}, {"a/b": ["x/y", "v", "w"]}, {name: ["a/b"]})
    assert set(data) == {"posterior"}
    (variable,) = data.posterior.data_vars.values()
    assert variable.name.replace("÷", "/") == name
    (labels,) = (variable.coords[dim] for dim in variable.dims[2:])
    assert labels.to_numpy().tolist() == ["x/y", "v", "w"]


# --- bad input -------------------------------------------------------------------------------------------

WRONG = {
    "name": ({"sd_Day|Subject": HalfT(3, 1)}, "sd_Days|Subject"),
    "kind": ({"sigma": LKJ(1)}, "must be a prior of a standard deviation"),
    "fixed": ({"Days": HalfT(3, 1)}, "must be Normal"),
    "scale": ({"sd": HalfNormal(-1)}, "finite and positive"),
    "infinite": ({"sigma": InverseGamma(np.inf, 1)}, "finite and at least 0"),
    "shape": ({"cov": InverseWishart(5, np.eye(3))}, "it is 2 × 2"),
    "twice": ({"cov|Subject": InverseWishart(5, np.eye(2)), "sd|Subject": HalfT(3, 1)}, "drop one"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_priors(fit, case):
    priors, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        fit.posterior(jax.random.key(0), priors)


def test_bad_options(fit, sleepstudy_draws):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="nuts, gibbs"):
        fit.posterior(key, method="metropolis")
    with pytest.raises(ValueError, match="draws must be at least 1"):
        fit.posterior(key, draws=0)
    with pytest.raises(ValueError, match="needs conditionals"):
        fit.posterior(key, {"sigma": HalfNormal(10)}, method="gibbs")
    with pytest.raises(ValueError, match="same, new"):
        sleepstudy_draws["nuts"].posterior_predictive(key, groups="all")


def test_defaults_follow_the_units(fit, sleepstudy):
    other = sleepstudy.assign(Reaction=sleepstudy["Reaction"] / 1000, Days=sleepstudy["Days"] * 24)
    model = lj.lmm("Reaction ~ Days + (Days | Subject)", other)
    ours = named_priors(fit.model.data, fit.y, None, "nuts").arrays
    theirs = named_priors(model.data, model.data.frame.y, None, "nuts").arrays
    np.testing.assert_allclose(theirs.sigma.scale, ours.sigma.scale / 1000)
    scales = [[float(sd.scale) for sd in priors.terms[0].sds] for priors in (ours, theirs)]
    np.testing.assert_allclose(scales[1], np.array(scales[0]) / [1000, 24_000])


def test_improper_priors_are_named(pulp):
    with pytest.warns(UserWarning, match="does not integrate near zero"):
        named_priors(
            pulp.model.data, pulp.y, {"sd": InverseGamma(0, 0), "sigma": InverseGamma(0, 0)}, "gibbs"
        )
    # improper, but the posterior of the residual variance exists
    named_priors(pulp.model.data, pulp.y, {"sigma": InverseGamma(0, 0)}, "gibbs")


def test_a_missing_package_is_named(pulp, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match=r"pip install 'lmmjax\[bayes\]'"):
        pulp.posterior(jax.random.key(0))
