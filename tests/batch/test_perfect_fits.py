"""A response that X and Z explain wholly is a perfect fit: alone, in a batch of 3 and in one of 700."""

import dataclasses
import warnings

import jax
import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.batch import newton_lanes
from lmmjax.batch.device import descent
from lmmjax.optimize import at_rest

GROUPS, SIZE = 20, 5
RNG = np.random.default_rng(1)
DATA = pd.DataFrame(
    {
        "g": np.repeat(np.arange(GROUPS), SIZE),
        "t": np.tile(np.arange(5.0), GROUPS),
        "x": RNG.normal(size=GROUPS * SIZE),
    }
)
LEVEL, SLOPE = RNG.normal(size=(2, GROUPS))[:, DATA["g"]]
X, T = DATA["x"].to_numpy(), DATA["t"].to_numpy()
CASES = {
    "constant within groups": ("~ x + (1 | g)", LEVEL),
    "with a covariate that varies within them": ("~ x + (1 | g)", LEVEL + 2 * X),
    "far from zero": ("~ x + (1 | g)", 1e9 + LEVEL + 2 * X),
    "as the covariate is on average": (
        "~ x + (1 | g)",
        pd.Series(X).groupby(DATA["g"]).transform("mean").to_numpy(),
    ),
    "balanced": ("~ t + (1 | g)", LEVEL),
    "lines within groups": ("~ x + (t | g)", LEVEL + SLOPE * T + X),
    "lines, balanced": ("~ t + (t | g)", LEVEL + SLOPE * T),
    "levels where slopes may be": ("~ t + (t | g)", LEVEL),
}


@pytest.mark.parametrize("name", CASES)
def test_perfect_alone_and_in_company(name):
    formula, y = CASES[name]
    model, weights = lj.lmm(formula, DATA), RNG.uniform(0.5, 2.0, size=(len(y), 3))
    assert model.fit_response(y).status.startswith("the model fits the response perfectly")
    company = np.random.default_rng(2).normal(size=(len(y), 700))
    company[:, 3] = y
    gaps = np.stack([y] * 3, axis=1)
    gaps[[4, 40], 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        few, many = model.fit_batch(gaps), model.fit_batch(company)
        weighted = model.fit_batch(gaps, weights=weights)
    for fits, k in ((few, 0), (few, 1), (few, 2), (many, 3), (weighted, 0), (weighted, 1)):
        assert fits.status.tolist()[k] == "perfect_fit"
        assert fits.params.loc[k].isna().all()
        assert np.isnan(fits.deviance[k])
    assert many.converged.sum() == 699


def test_nearly_perfect_is_fitted_to_its_digits():
    """Variances between groups up to 1e12 times that within; balanced, so that REML is ANOVA."""
    noise = np.random.default_rng(3).normal(size=GROUPS * SIZE)
    model = lj.lmm("~ t + (1 | g)", DATA)
    ratios = 10.0 ** np.arange(0, 13, 3)
    y = 3 * T[:, None] + np.sqrt(ratios) * LEVEL[:, None] + noise[:, None]
    inside = y - pd.DataFrame(y).groupby(DATA["g"]).transform("mean").to_numpy()
    t = T - T.mean()
    inside -= np.outer(t, t @ inside / (t @ t))
    fits = model.fit_batch(y)
    assert fits.converged.all()
    left = np.sum(inside**2, axis=0) / (GROUPS * SIZE - GROUPS - 1)
    # the digits that y keeps of its noise
    np.testing.assert_allclose(fits.sigma**2, left, rtol=1e-5)
    one = model.fit_response(y[:, 3])
    np.testing.assert_allclose(one.deviance, fits.deviance[3], rtol=1e-10)


def test_lanes_that_have_far_to_go_keep_their_steps():
    """Those that begin anew in other coordinates: with steps of one, θ = 1e6 is out of reach of 100."""
    state = at_rest(np.ones((1, 2)), (), ())
    state = dataclasses.replace(state, radius=np.array([0.5, 4096.0]))
    for restarted in (newton_lanes._restarted, descent._restarted):
        with jax.enable_x64(True):
            assert np.asarray(restarted(state).radius).tolist() == [1.0, 4096.0]


def test_one_row_a_group_with_weights_is_no_perfect_fit():
    """Where X and Z span every response, the two variances are told apart by the weights alone."""
    rng = np.random.default_rng(4)
    weights = 10.0 ** rng.uniform(-1, 1.5, 30)
    y = rng.normal(size=30) * np.sqrt(0.5 + 1 / weights)
    fit = lj.lmm("y ~ 1 + (1 | s)", {"s": np.arange(30), "y": y}, weights=weights).fit()
    assert fit.converged
    between, within = fit.estimate.psi
    variance = between + within / weights
    # the estimating equation of REML for the common scale: yᵀPy = n − p
    mean = np.sum(y / variance) / np.sum(1 / variance)
    np.testing.assert_allclose(fit.params["Intercept"], mean, rtol=1e-8)
    np.testing.assert_allclose(np.sum((y - mean) ** 2 / variance), 29, rtol=1e-8)


def test_a_known_residual_variance_needs_no_residuals():
    model = lj.lmm(
        "~ 1 + (1 | s)",
        {"s": np.arange(8), "v": np.linspace(0.5, 2.0, 8)},
        residual=lj.KnownVariance("v"),
    )
    fits = model.fit_batch(np.full((8, 3), 1.5))
    assert fits.converged.all()
    np.testing.assert_allclose(fits.params["Intercept"], 1.5, rtol=1e-14)
    # no variance between studies is left: fixed-effect meta-analysis
    np.testing.assert_allclose(
        fits.bse["Intercept"], np.sum(1 / np.linspace(0.5, 2.0, 8)) ** -0.5, rtol=1e-10
    )


def test_origin_of_a_slope_is_free_far_from_zero():
    """Optima of y in x + 1e9 are those in x: none is taken for the saddle at no variance."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(30), 6)
    x = rng.normal(size=180) * 1e3
    b = rng.normal(size=(2, 30, 540)) * 10.0 ** rng.uniform(-2, 1, (2, 1, 540))
    y = rng.normal(size=(180, 540)) + b[0][g] + b[1][g] * (x / 1e3)[:, None]
    near, far = (lj.lmm("~ x + (x | g)", {"x": x + c, "g": g}).fit_batch(y) for c in (0.0, 1e9))
    assert far.converged.all()
    # x + 1e9 keeps seven of its digits
    np.testing.assert_allclose(far.deviance, near.deviance, rtol=0, atol=1e-6)


SMALL = DATA[(DATA["g"] < 7) & (DATA["t"] < 4)].assign(
    h=lambda d: d["t"] % 2, level=LEVEL[DATA["t"] < 4][:28]
)
OTHERS = {
    "crossed": ("~ x + (1 | g) + (1 | t)", None, None, "level + t**2 + x"),
    "dense": ("~ x + (1 | g)", "dense", None, "level + x"),
    "AR(1) within groups": ("~ x + (1 | g)", None, lj.AR1("t", group="g"), "level + x"),
    "nested": ("~ x + (1 | g / h)", None, None, "level + (g * 7 + h * 5) % 11 + x"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_perfect_with_every_backend(name):
    formula, backend, residual, y = OTHERS[name]
    model = lj.lmm(formula, SMALL, backend=backend, residual=residual)
    y = SMALL.eval(y).to_numpy()
    noise = np.random.default_rng(6).normal(size=len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fits = model.fit_batch(np.stack([y, noise], axis=1))
    assert fits.status.tolist() == ["perfect_fit", "converged"]
    assert fits.params.iloc[0].isna().all()
    one = fits[0]
    assert one.status.startswith("the model fits the response perfectly")
    assert not one.is_singular
    for table in (one.coef_table(), one.varcorr()):
        assert table.select_dtypes("number").isna().all(axis=None)
    assert np.isnan([one.deviance, one.estimate.grad_norm, one.aic]).all()


def test_no_room_for_residuals_is_no_perfect_fit():
    """Where X and Z span every response, weights tell the variances apart: nothing is explained."""
    rng = np.random.default_rng(7)
    frame = pd.DataFrame({"a": np.repeat(np.arange(8), 2), "b": np.tile(np.arange(2), 8), "i": np.arange(16)})
    weights = 10.0 ** rng.uniform(-1, 1, 16)
    y = rng.normal(size=16) * np.sqrt(1.0 + 1.0 / weights)
    fit = lj.lmm("y ~ 1 + (1 | i) + (1 | a)", frame.assign(y=y), weights=weights).fit()
    assert "perfect" not in fit.status
    assert np.isfinite(fit.deviance)


def test_no_evaluations_report_the_start():
    noise = np.random.default_rng(8).normal(size=len(DATA))
    model = lj.lmm("~ x + (1 | g)", DATA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit = model.fit_response(LEVEL + noise, max_iter=0, start=[0.5])
        fits = model.fit_batch(np.stack([LEVEL + noise] * 3, axis=1), max_iter=0, starts=[0.5])
        with pytest.raises(ValueError, match="at least 0, not -1"):
            model.fit_response(noise, max_iter=-1)
    assert not fit.converged
    np.testing.assert_allclose(fit.theta, 0.5, rtol=1e-12)
    with jax.enable_x64(True):
        value = lj.profiled_deviance(fit.theta, model.problem(LEVEL + noise))
    np.testing.assert_allclose(fit.deviance, value, rtol=1e-12)
    assert fits.status.tolist() == ["iteration_limit"] * 3
    np.testing.assert_allclose(fits.deviance, fit.deviance, rtol=1e-12)


@pytest.mark.parametrize(
    "residual", [lj.AR1("t", group="g"), lj.CompoundSymmetry(group="g")], ids=lambda residual: residual.name
)
def test_residuals_that_are_correlated_perfectly(residual):
    """y is constant within groups: as with random intercepts nothing is left, and no number stands for it."""
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"g": np.repeat(np.arange(20), 3), "t": np.tile(np.arange(3), 20)})
    data["x"] = rng.normal(size=60)
    y = {"flat": 1e5 * rng.normal(size=20)[data["g"]], "noise": rng.normal(size=60)}
    fits = {}
    for name, values in y.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lj.FitWarning)
            fits[name] = lj.lmm("y ~ x", data.assign(y=values), residual=residual).fit()
    with pytest.warns(UserWarning, match="1 of 2 responses could not be fitted"):
        many = lj.lmm("~ x", data, residual=residual).fit_batch(pd.DataFrame(y))
    assert list(many.status) == ["perfect_fit", "converged"]
    assert fits["flat"].status.startswith("the model fits the response perfectly")
    assert fits["flat"].coef_table().isna().all(axis=None)
    np.testing.assert_allclose(many.deviance[1], fits["noise"].deviance, rtol=1e-8)


def test_free_covariances_of_residuals_that_depend_on_each_other():
    """Constant within groups, or twice as large at one visit: V has no variance in most directions."""
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"g": np.repeat(range(20), 3), "v": np.tile([0, 1, 2], 20), "x": rng.normal(size=60)})
    same, noise = rng.normal(size=20)[d["g"]], rng.normal(size=60)
    y = np.column_stack([same, same + noise, same * (1 + (d["v"] == 1)), same + (d["v"] == 2) * noise])
    model = lj.lmm("~ x", d, residual=lj.Unstructured("v", group="g"))
    with pytest.warns(UserWarning, match="3 of 4 responses"):
        fits = model.fit_batch(y)
    assert fits.status.tolist() == ["perfect_fit", "converged", "perfect_fit", "perfect_fit"]
    for j in (0, 3):
        alone = lj.lmm("y ~ x", d.assign(y=y[:, j]), residual=lj.Unstructured("v", group="g")).fit()
        assert alone.estimate.status == fits.estimate.status[j]
