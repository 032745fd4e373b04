"""Models whose criteria have several optima, or a kink, end at the best: never above a smaller model."""

import jax
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

import lmmjax as lj
from benchmarks.workloads import random
from lmmjax import covariance
from lmmjax.batch.starts import Starts
from lmmjax.covariance.autocorrelation import from_partial

GROUPS, VISITS = 30, 5


def visits(seed):
    """One row a cell: random effects of visits beside a residual."""
    rng, t = np.random.default_rng(seed), np.arange(VISITS)
    sds = 1 + 0.3 * t
    cov = 0.6 ** np.abs(t[:, None] - t) * np.outer(sds, sds) + (seed % 3) * 0.7 * np.eye(VISITS)
    y = rng.normal(size=(GROUPS, VISITS)) @ np.linalg.cholesky(cov).T
    data = pd.DataFrame({"g": np.repeat(np.arange(GROUPS), VISITS), "t": np.tile(t, GROUPS)})
    return data.assign(y=y.ravel(), back=VISITS - 1 - data["t"]), y


def best(y, family):
    """Minimum over sds, correlations and σ of −2ℓᴿ of y (groups, visits) with one mean, by scipy."""
    t, n = np.arange(VISITS), y.size
    correlations = 1 if family == "cs" else VISITS - 1

    def criterion(theta):
        sds, angles = np.exp(theta[:VISITS]), np.sin(theta[VISITS:-1])
        if family == "cs":
            low = -1 / (VISITS - 1)
            c = np.r_[1.0, np.full(VISITS - 1, low + (1 - low) * (angles[0] + 1) / 2)]
        else:
            c = np.r_[1.0, from_partial(angles)[0]]
        v = np.outer(sds, sds) * c[np.abs(t[:, None] - t)] + np.exp(2 * theta[-1]) * np.eye(VISITS)
        v_inv = np.linalg.inv(v)
        xx = GROUPS * v_inv.sum()
        r = y - (y @ v_inv).sum() / xx
        logs = GROUPS * np.linalg.slogdet(v)[1] + np.log(xx)
        return logs + np.sum((r @ v_inv) * r) + (n - 1) * np.log(2 * np.pi)

    starts = [np.r_[np.zeros(VISITS), np.full(correlations, angle), 0.0] for angle in (-0.9, 0.1, 0.6)]
    bounds = [(-12, 5)] * VISITS + [(None, None)] * correlations + [(-12, 5)]
    return min(minimize(criterion, start, method="L-BFGS-B", bounds=bounds).fun for start in starts)


@pytest.mark.parametrize(("family", "seed"), [("cs", 2), ("cs", 7), ("cs", 9), ("toep", 7)])
def test_variances_beside_correlations(family, seed):
    """Where V has a kink at a variance of zero, descents end on either side of it, or not at all."""
    data, y = visits(seed)
    lowest = best(y, family)
    for column in ("t", "back"):
        fit = lj.lmm(f"y ~ 1 + {family}(0 + C({column}) | g)", data).fit()
        assert fit.converged
        # scipy's differences are good for some digits, and its three starts miss some optima
        assert fit.deviance < lowest + 2e-3


def test_levels_with_a_pattern_end_at_the_best_of_many_descents():
    """Four of 520 responses whose best optimum three descents from unit variances did not find."""
    design = next(one for one in random.DESIGNS if one.name == "compound symmetry")
    data, y, _ = random.simulate(design, 520, 118)
    model, y = lj.lmm(design.formula, data), y[:, [12, 14, 82, 248]]
    structure, maker = model.design.structure, model.maker
    with jax.enable_x64(True):
        outward = np.asarray(structure.entry_map(maker.basis.outward))
        starts = [np.asarray(structure.encode(outward @ d)) for d in random.other_starts(structure, 119)]
    lowest = model.fit_batch(y, starts=np.stack(starts)).deviance
    # two descents to one optimum differ by less
    assert (model.fit_batch(y).deviance < lowest + 1e-5).all()
    # batches by lanes have the same points, in other coordinates
    pairs = zip(Starts().inside(maker, own=False)[1:], Starts().outside(maker, own=False)[1:], strict=True)
    with jax.enable_x64(True):
        for inside, outside in pairs:
            assert_allclose(structure.change_basis(outside, maker.basis.inward), inside, atol=1e-12)


@pytest.mark.parametrize("family", ["cs", "homcs", "ar1", "hetar1", "toep", "homtoep"])
@pytest.mark.parametrize("q", [2, 3, 6, 12])
def test_starts_are_inside_the_family(family, q):
    """Positive definite with some margin, none twice, the first that of the moment start."""
    chosen = covariance.family(family)
    starts = np.array(chosen.starts(q))
    assert_allclose(starts[0], [p.starts[0] for p in chosen.parameters(q)])
    assert len(np.unique(starts.round(6), axis=0)) == len(starts) > 2
    for a in starts:
        matrix = np.asarray(chosen.matrix(a, q))
        assert np.linalg.eigvalsh(matrix).min() > 1e-6 * matrix[0, 0]
        assert_allclose(chosen.decode(chosen.encode(a, q), q), a, rtol=1e-6, atol=1e-9)


def test_toeplitz_residuals_end_at_the_best_of_many_descents():
    """Visits of unlike variance, which the model has alike: one descent misses one optimum of six."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(range(12), 4), "t": np.tile(range(4), 12)})
    y = rng.normal(size=(48, 20)) * 10.0 ** rng.uniform(-1.0, 1.0, (4, 20))[data["t"]]
    model = lj.lmm("~ t", data, residual=lj.Toeplitz("t", group="g"))
    signs = 0.7 * (1.0 - 2.0 * np.array([[k & 1, k >> 1 & 1, k >> 2] for k in range(8)]))
    lowest = model.fit_batch(y, starts=np.arcsin(signs)).deviance
    found = model.fit_batch(y)
    assert (found.n_optima > 1).any()
    assert (found.deviance < lowest + 1e-5).all()


def test_a_minimum_at_the_edge_is_not_passed_over():
    """A correlation of −1/2 beside random intercepts: R is singular, V is not, and no descent converges."""
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"g": np.repeat(range(40), 3), "v": np.tile(range(3), 40), "x": rng.normal(size=120)})
    data["y"] = data.x + rng.normal(size=40)[data.g] * 1.2 + rng.normal(size=120) * (1 + 0.3 * data.v)
    apart = lj.VarIdent("v")
    with pytest.warns(lj.FitWarning, match="a local optimum"):
        both = lj.lmm("y ~ x + (1 | g)", data, residual=lj.CompoundSymmetry(group="g") * apart).fit()
    assert not both.converged
    # with a correlation of zero it is the model without it, whose optimum is lower
    assert lj.lmm("y ~ x + (1 | g)", data, residual=apart).fit().deviance < both.deviance - 1
