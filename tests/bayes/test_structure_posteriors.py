"""Posteriors of models with structures: densities with their Jacobians and draws of residuals by formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import structure_data as explicit
from numpy.testing import assert_allclose
from posterior_data import evaluated
from scipy import stats
from scipy.special import betaln

import lmmjax as lj
from lmmjax.bayes import LKJ, Beta, HalfT, InverseWishart, LogNormal, Normal
from lmmjax.bayes.coordinates import (
    PriorSet,
    components,
    natural,
    scattered,
    to_line,
)
from lmmjax.bayes.gibbs import conjugate
from lmmjax.bayes.patterns import PatternPrior, ShapePrior
from lmmjax.bayes.priors import BetaPrior, BlockPrior, Known, LogLine, SeparatePrior
from lmmjax.bayes.target import log_posterior
from lmmjax.core.residual_draws import coloured_each, row_log_densities
from lmmjax.covariance import Parameter, family
from lmmjax.design import Structure, TermStructure
from lmmjax.postestimation.posterior.draws import Draws
from lmmjax.postestimation.posterior.predict import predictive
from lmmjax.postestimation.posterior.priors import named_priors
from lmmjax.residual import ResidualStructure, Space, as_residual

FLAT = BetaPrior(np.zeros(0), np.zeros(0))
HALF = HalfT(3.0, 2.0)
RATIO = ShapePrior(LogNormal(1.0, 0.7), Parameter("sd", "positive"), 1.0)
VISITS = Space(3, 1.0, ("a", "b", "c"))


def log_ratio(x):
    return stats.lognorm.logpdf(x, 0.7)


def log_half(x, scale=2.0):
    return np.log(2) + stats.t.logpdf(x, 3, scale=scale)


def own(residual, space=VISITS, levels=(), by=()):
    return ResidualStructure(as_residual(residual), space, levels, by)


def shaped(structure, **options):
    """Uniform priors of the parameters of a residual structure or a family."""
    return PatternPrior((), tuple(ShapePrior(None, p, 1.0) for p in structure), **options)


def lag_volume(k):
    """log of the volume of k autocorrelations: |∂ρ/∂p| = Π (1 − p_j²)^(k − j)."""
    a = np.arange(k, 0, -1.0)
    return np.sum(betaln(a, a) + (2 * a - 1) * np.log(2))


def patterns():
    """By name: structure, priors, and log p(τ, r) of ψ without σ's."""
    homtoep, cs = family("homtoep"), family("cs")
    terms = (TermStructure(homtoep, 3), TermStructure(cs, 3))
    rho = Parameter("rho", "interval", lower=-0.5)
    yield (
        "homtoep + cs",
        Structure(terms),
        PriorSet(
            (
                PatternPrior((HALF,), tuple(ShapePrior(None, p, 1.0) for p in homtoep.parameters(3)[1:]), 2),
                PatternPrior((HALF,) * 3, (ShapePrior(Beta(2.0, 3.0), rho, 1.0),)),
            ),
            HALF,
            FLAT,
        ),
        lambda psi: (
            np.sum(log_half(np.sqrt(psi[[0, 3, 4, 5]])) - np.log(2 * np.sqrt(psi[[0, 3, 4, 5]])))
            - lag_volume(2)
            + stats.beta.logpdf(psi[6], 2, 3, loc=-0.5, scale=1.5)
        ),
    )
    ar = own(lj.AR1("t", group="id") * lj.VarIdent("sex") * lj.VarPower("v"), levels=(("F", "M"), ()))
    power = ShapePrior(Normal(0.0, 2.0), ar.parameters[2], 1.0)
    yield (
        "AR1 * VarIdent * VarPower",
        Structure((), ar),
        PriorSet(
            (),
            HALF,
            FLAT,
            (shaped(ar.parameters[:1]), PatternPrior((), (RATIO,)), PatternPrior((), (power,))),
        ),
        lambda psi: np.log(0.5) + log_ratio(psi[1]) + stats.norm.logpdf(psi[2], 0, 2),
    )
    arma = own(lj.ARMA("t", group="id", p=3, q=1), Space(9))
    yield (
        "ARMA",
        Structure((), arma),
        PriorSet((), HALF, FLAT, (shaped(arma.parameters, orders=(3, 1)),)),
        # the volume of three coefficients of a stationary autoregression is 16/3 (Jones 1987)
        lambda psi: -np.log(16 / 3) - np.log(2),
    )
    symmetric = own(lj.Symmetric("t", group="id", by="arm"), by=(("A", "B"),))
    lkj = SeparatePrior((), LKJ(1.0))
    yield (
        "Symmetric by",
        Structure((), symmetric),
        PriorSet((), HALF, FLAT, (lkj, PatternPrior((), (RATIO,)), lkj)),
        lambda psi: log_ratio(psi[3]) - 2 * np.log(np.pi**2 / 2),
    )
    free = own(lj.Unstructured("t", group="id"))
    yield (
        "Unstructured",
        Structure((), free),
        PriorSet((), HALF, FLAT, (SeparatePrior((HALF, HALF), LKJ(1.0)),)),
        # |dΣ/d(τ, R)| = Π 2τ³, of which σ² has 2σ
        lambda psi: (
            np.sum(log_half(np.sqrt(psi[:2])) - np.log(2 * psi[:2] ** 1.5))
            - np.log(psi[-1])
            - np.log(np.pi**2 / 2)
        ),
    )


CASES = {name: rest for name, *rest in patterns()}


POINT = np.random.default_rng(3).normal(0, 0.6, 6)


@pytest.mark.parametrize("name", CASES)
def test_densities_with_their_jacobians(name, x64):
    """log p(ψ) = log p(τ, ρ, r, σ) + log |d(τ, ρ, r, σ)/du| − log |∂ψ/∂u|, the last by differentiation."""
    structure, priors, density = CASES[name]
    priors = jax.tree.map(lambda a: jnp.asarray(a, float), priors)

    at = evaluated(structure, priors)
    for u in np.random.default_rng(3).normal(0, 0.6, (2, structure.n_params + 1)):
        psi, slopes, value, again, jacobian = map(np.asarray, at(jnp.asarray(u)))
        assert_allclose(again, value, rtol=1e-9)
        assert_allclose(to_line(psi, structure, priors), u, rtol=1e-8, atol=1e-9)
        expected = density(psi) + log_half(np.sqrt(psi[-1])) - np.log(2 * np.sqrt(psi[-1]))
        assert_allclose(value + jacobian - np.linalg.slogdet(slopes)[1], expected, rtol=1e-9)


def test_inverse_wishart_of_the_visits(x64):
    structure, scale = (
        CASES["Unstructured"][0],
        np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 3.0]]),
    )
    block = BlockPrior(InverseWishart(5.0, scale))
    priors = jax.tree.map(lambda a: jnp.asarray(a, float), PriorSet((), LogLine(), FLAT, (block,)))
    psi, slopes, value, _, jacobian = map(np.asarray, evaluated(structure, priors)(POINT))
    matrix = np.diag([psi[-1], *psi[:2]])
    matrix[[1, 2, 2], [0, 0, 1]] = matrix[[0, 0, 1], [1, 2, 2]] = psi[2:5]
    value = value + jacobian - np.linalg.slogdet(slopes)[1]
    assert_allclose(value, stats.invwishart.logpdf(matrix, 5, scale), rtol=1e-9)


def visits():
    rng = np.random.default_rng(4)
    d = pd.DataFrame({"id": np.repeat(np.arange(8), 4), "t": np.tile(np.arange(4), 8)})
    d["sex"], d["x"] = np.where(d["id"] % 2, "f", "m"), rng.normal(size=32)
    return d.assign(y=rng.normal(size=8)[d["id"]] + rng.normal(size=32), v=0.5 + 0.2 * d["t"])


@pytest.fixture(scope="module")
def ar1():
    residual = lj.AR1("t", group="id") * lj.VarIdent("sex")
    return lj.lmm("y ~ x", visits().drop(index=[5, 17]), residual=residual).fit()


def test_posterior_density(ar1, x64):
    """−½ REML criterion, log prior and log Jacobian at random points; its gradient by differences."""
    data = ar1.model.data
    priors = jax.tree.map(jnp.asarray, named_priors(data, ar1.y, None, "nuts").arrays)
    problem, structure = data.problem(ar1.y), data.design.structure
    whole = jax.jit(jax.value_and_grad(lambda u: log_posterior(u, problem, priors)))
    floor = np.zeros(structure.n_params + 1)
    for u in scattered(jax.random.key(1), ar1.estimate.psi, floor, structure, priors, 2):
        parts, jacobian = components(jnp.asarray(u), structure, priors)
        psi = np.asarray(natural(parts, structure))
        d, s = data.design, float(psi[-1])
        logdet, g = explicit.gram(d, ar1.y, structure.relative(psi))
        xx, xy, yy = g[:-1, :-1], g[:-1, -1], g[-1, -1]
        r2 = yy - xy @ np.linalg.solve(xx, xy)
        reml = (d.n - d.p) * np.log(2 * np.pi * s) + logdet + np.linalg.slogdet(xx)[1] + r2 / s
        value, slope = whole(jnp.asarray(u))
        expected = -0.5 * reml + log_half(np.sqrt(s), np.std(ar1.y, ddof=1)) + np.log(0.5)
        expected += stats.lognorm.logpdf(psi[1], 1.0) + float(jacobian)
        assert_allclose(value, expected, rtol=1e-10)
        for k, step in enumerate(1e-5 * np.eye(len(u))):
            assert_allclose(slope[k], (whole(u + step)[0] - whole(u - step)[0]) / 2e-5, rtol=1e-6, atol=1e-7)


RESIDUALS = {
    "step by step": lj.AR1("t", group="id") * lj.VarIdent("sex"),
    "by matrix": lj.CompoundSymmetry(group="id", by="sex"),
    "variances": lj.VarExp("v"),
    "known": lj.KnownVariance("v"),
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_residuals_of_draws(name):
    """The linear map from white noise is a root of R, and densities of rows are those of the normal law."""
    d = visits().drop(index=[5, 17]).sample(frac=1, random_state=1)
    design = lj.lmm("y ~ x", d, residual=RESIDUALS[name]).data.design
    rng = np.random.default_rng(1)
    r = np.array([{"sd(sex=m)": 1.7, "sd(sex=f)": 1.7}.get(p.name, 0.4) for p in design.structure.parameters])
    root = np.sqrt(np.ones(design.n) if design.weights is None else design.weights)
    for scale in (1.0, 0.6):
        psi = np.append(scale * r, 1.3)[None]
        v = 1.3 * explicit.matrix(design, psi[0, :-1])
        eye = np.eye(design.n)
        many = np.repeat(psi, design.n, axis=0)
        lines = coloured_each(design.structure, design.residual, many, root, eye)
        assert_allclose(lines.T @ lines, v, rtol=1e-9, atol=1e-12)
        e, precision = rng.normal(size=design.n), np.linalg.inv(v)
        ours = row_log_densities(design.structure, design.residual, psi, root, e[None])[0]
        variance = 1 / np.diag(precision)
        theirs = stats.norm.logpdf(e, e - variance * (precision @ e), np.sqrt(variance))
        assert_allclose(ours, theirs, rtol=1e-9)


def test_predictive_residuals_of_new_rows(ar1):
    """Rows of a group together, whether the fit knows it; of different groups apart."""
    psi = np.broadcast_to(ar1.estimate.psi, (1, 4000, 3))
    beta = np.broadcast_to(ar1.params.to_numpy(), (1, 4000, 2))
    draws = Draws(ar1.fitted, "nuts", {}, beta, psi, None, {}, PriorSet((), HALF, FLAT))
    new = pd.DataFrame({"x": 0.0, "id": [0, 0, 99, 99, 98], "t": [2, 4, 11, 12, 11], "sex": list("mmffm")})
    drawn = predictive(draws, jax.random.key(1), new)[0]
    phi, ratio = ar1.estimate.psi[:2]
    expected = np.eye(5)
    expected[0, 1] = expected[1, 0] = phi**2
    expected[2, 3] = expected[3, 2] = phi
    assert_allclose(np.corrcoef(drawn.T), expected, atol=5 / np.sqrt(4000))
    sds = np.sqrt(ar1.estimate.psi[-1]) * np.array([ratio, ratio, 1.0, 1.0, ratio])
    assert_allclose(drawn.std(axis=0) / sds, 1.0, atol=5 / np.sqrt(8000))


def test_what_is_conjugate():
    common = PatternPrior((HALF,), ())
    assert conjugate(PriorSet((common,), Known(1.0), FLAT))
    assert not conjugate(PriorSet((common,), HALF, FLAT, (PatternPrior((), (RATIO,)),)))
    assert not conjugate(PriorSet((PatternPrior((HALF,), (RATIO,)),), HALF, FLAT))


WRONG = {
    "kind": ({"Phi": HalfT(3, 1)}, "the prior of 'Phi' must be Beta or Normal or LogDensity, not HalfT"),
    "flat": ({"Phi": Normal(0, np.inf)}, "finite and positive"),
    "name": ({"phi": Beta(1, 1)}, "did you mean 'Phi'"),
    "gibbs": ({}, "no other parameters of terms or residuals"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_priors(ar1, case):
    priors, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        named_priors(ar1.model.data, ar1.y, priors, "gibbs" if case == "gibbs" else "nuts")
