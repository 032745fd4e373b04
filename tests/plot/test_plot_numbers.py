"""Numbers behind pictures: by other routes than those that made them."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import lmmjax as lj
from lmmjax.plot.effects import effects_table, partial_residuals
from lmmjax.plot.profiles import contour_centre, profile_limits
from lmmjax.plot.pvalues import inflation, null_share, uniform_limits
from lmmjax.plot.residual_panel import normal_places
from lmmjax.plot.shrinkage import pooling
from lmmjax.plot.smooth import local_linear
from lmmjax.plot.spaghetti import trajectories
from lmmjax.plot.volcano import LARGEST, minus_log10
from lmmjax.postestimation.averages import response_means
from lmmjax.postestimation.diagnostics.semivariogram import expected_variogram


@pytest.fixture(scope="module")
def crossed(sleepstudy):
    """A second factor, a factor among the predictors, weights; a subject with a single row."""
    arm = np.where(sleepstudy["Subject"] > 340, "b", "a")
    d = sleepstudy.assign(item=sleepstudy["Days"] % 4, arm=arm, w=1 + sleepstudy["Days"] % 3)
    d = d[(d["Subject"] != 308) | (d["Days"] == 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        return lj.lmm("Reaction ~ Days + arm + (Days | Subject) + (1 | item)", d, weights="w").fit(), d


def test_no_pooling_is_every_levels_own_regression(fit, sleepstudy):
    found = pooling(fit.fitted)
    for subject, own in sleepstudy.groupby("Subject"):
        slope, level = np.polyfit(own["Days"], own["Reaction"], 1)
        assert_allclose(found.none.loc[subject], [level, slope], rtol=1e-9)
    assert_allclose(found.partial, fit.coef()["Subject"], rtol=1e-12)
    assert_allclose(found.complete, fit.params)
    assert_allclose(np.diagonal(found.cov), fit.varcorr()["vcov"][:2])


def test_no_pooling_leaves_the_other_terms_to_the_model(crossed):
    fit, d = crossed
    found = pooling(fit.fitted, "Subject")
    rest = d["Reaction"] - fit.params["arm[T.b]"] * (d["arm"] == "b")
    rest = rest - fit.random_effects["item"]["(Intercept)"].loc[d["item"]].to_numpy()
    own = (d["Subject"] == 335).to_numpy()
    slope, level = np.polyfit(d["Days"][own], rest[own], 1, w=np.sqrt(d["w"][own]))
    assert_allclose(found.none.loc[335], [level, slope], rtol=1e-8)
    assert found.none.loc[308].isna().all()
    assert found.partial.notna().all().all()
    with pytest.raises(ValueError, match="several grouping factors"):
        pooling(fit.fitted)


def test_no_pooling_weighs_by_the_residual_structure():
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"g": np.repeat(range(8), 6), "t": np.tile(np.arange(6.0), 8)})
    d["y"] = rng.normal(size=8)[d["g"]] + np.cumsum(rng.normal(size=48))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        fit = lj.lmm("y ~ 1 + (1 | g)", d, residual=lj.AR1("t", group="g")).fit()
    r = np.linalg.inv(fit.residual_cov(3).to_numpy())
    assert_allclose(pooling(fit.fitted).none.loc[3], np.sum(r @ d["y"][d["g"] == 3]) / np.sum(r), rtol=1e-8)


def test_effects_are_predictions_of_the_population(fit):
    table = effects_table(fit.fitted, "Days", points=4, level=0.9)
    new = pd.DataFrame({"Days": [0.0, 3.0, 6.0, 9.0]})
    assert_allclose(table["Days"], new["Days"])
    said = fit.predict(new, re="none", interval="confidence", level=0.9)
    assert_allclose(table[["estimate", "lower", "upper"]], said[["fit", "lower", "upper"]], rtol=1e-8)


def test_partial_residuals_with_nothing_else_are_data_less_modes(fit):
    table = effects_table(fit.fitted, "Days")
    found = partial_residuals(fit.fitted, table)
    assert_allclose(found["value"], fit.predict(re="none") + fit.resid, rtol=1e-9)


def test_effects_by_covariate_and_factor(crossed):
    fit, d = crossed
    table = effects_table(fit.fitted, "arm", ["Days"])
    mean, sd = d["Days"].mean(), d["Days"].std()
    assert_allclose(table["Days"].unique(), [mean - sd, mean, mean + sd])
    emmeans = fit.emmeans("arm", by="Days", at={"Days": [mean]}).table
    assert_allclose(table["estimate"][table["Days"] == mean], emmeans["estimate"])
    rows = partial_residuals(fit.fitted, table)
    assert len(rows) == len(d)
    near = np.abs(d["Days"].to_numpy()[:, None] - table["Days"].unique()).argmin(axis=1)
    assert_allclose(rows["Days"], table["Days"].unique()[near])
    for wrong in ({"x": "Dais"}, {"x": "Days", "by": "Days"}, {"x": "Days", "by": ["arm", "Days", "arm"]}):
        with pytest.raises(ValueError, match=r"unknown predictor|other than x"):
            effects_table(fit.fitted, **wrong)


def test_trajectories_are_fitted_values_averaged_over_ties(fit, crossed, sleepstudy):
    found = trajectories(fit.fitted, "Days")
    assert_allclose(found["fit"], fit.fittedvalues)
    assert_allclose(found["population"], fit.predict(re="none"))
    assert found["level"].tolist() == sleepstudy["Subject"].tolist()
    other, d = crossed
    by_item = trajectories(other.fitted, "Days", "item", by="arm")
    own = (d["item"] == 0) & (d["Days"] == 4) & (d["arm"] == "b")
    row = by_item[(by_item["level"] == 0) & (by_item["x"] == 4) & (by_item["by"] == "b")]
    assert own.sum() > 1
    assert_allclose(row["fit"], other.fittedvalues[own].mean())
    assert_allclose(
        trajectories(other.fitted, d["Days"], "Subject")["fit"],
        trajectories(other.fitted, "Days", "Subject")["fit"],
    )
    with pytest.raises(ValueError, match="no column 'Dais'"):
        trajectories(fit.fitted, "Dais")


def test_limits_of_profiles():
    value = np.linspace(-1.0, 9.0, 15)
    straight = pd.DataFrame({"parameter": "a", "value": value, "zeta": (value - 3.0) / 2.0})
    bent = np.where(value > 3, (value - 3) / 9, np.nan)
    short = pd.DataFrame({"parameter": "b", "value": value, "zeta": bent})
    found = profile_limits(pd.concat([straight, short]), [0.95])
    z = stats.norm.ppf(0.975)
    assert_allclose(found.loc[0, ["lower", "upper"]].tolist(), [3 - 2 * z, 3 + 2 * z])
    assert found.loc[1, ["lower", "upper"]].isna().all()


def test_the_middle_of_contours_is_the_optimum_of_their_criterion(fit):
    name = "sd_(Intercept)|Subject"
    table = pd.DataFrame(np.zeros((2, 2)), pd.Index([0, 1], name=name), pd.Index([0, 1], name="Days"))
    table.attrs["criterion"] = "ML"
    ml = fit.refit(reml=False)
    sd = ml.varcorr().loc[0, "sdcor"]
    assert_allclose(contour_centre(fit.fitted, table), [sd, ml.params["Days"]])
    assert sd < 0.99 * fit.varcorr().loc[0, "sdcor"]


def test_local_linear():
    rng = np.random.default_rng(1)
    x = rng.uniform(size=30)
    at, line = local_linear(x, 2.0 - 3.0 * x)
    assert_allclose(line, 2.0 - 3.0 * at)
    y = rng.normal(size=30)
    at, curve = local_linear(np.append(x, np.nan), np.append(y, 1.0), span=0.5)
    k = 12
    away = np.abs(x - at[k])
    w = np.clip(1 - (away / np.sort(away)[14]) ** 3, 0, None) ** 1.5
    assert_allclose(curve[k], np.polyval(np.polyfit(x, y, 1, w=w), at[k]), rtol=1e-6)
    tied = np.repeat([0.0, 1.0, 2.0], 40)
    assert_allclose(local_linear(tied, tied + np.tile([-1.0, 1.0], 60))[1], [0.0, 1.0, 2.0], atol=1e-6)
    assert len(local_linear(np.array([1.0, 1.0, 2.0]), np.zeros(3))[0]) == 0


def test_places_of_quantiles():
    """R's ppoints(5) and ppoints(20)."""
    assert_allclose(stats.norm.cdf(normal_places(5)), [0.11904762, 0.30952381, 0.5, 0.69047619, 0.88095238])
    assert_allclose(stats.norm.cdf(normal_places(20))[[0, 19]], [0.025, 0.975])


def test_expected_semivariances():
    rng = np.random.default_rng(2)
    d = pd.DataFrame({"g": np.repeat(range(12), 5), "t": np.tile(np.arange(5.0), 12)})
    d["y"] = rng.normal(size=60) + np.repeat(rng.normal(size=12), 5)
    fit = lj.lmm("y ~ 1", d, residual=lj.AR1("t", group="g")).fit()
    phi = fit.tidy().set_index("term").loc["Phi", "estimate"]
    lags = np.arange(1.0, 5.0)
    at = (fit.fitted, "pearson", None, None, 20, None)
    assert_allclose(expected_variogram(*at), 1 - phi**lags, rtol=1e-9)
    assert_allclose(fit.semivariogram()["dist"], lags)
    in_units = expected_variogram(fit.fitted, "conditional", None, None, 20, 2.0)
    assert_allclose(in_units, fit.scale * (1 - phi ** lags[:2]), rtol=1e-9)
    assert_allclose(expected_variogram(fit.fitted, "normalised", None, None, 20, None), 1.0)


def test_p_values_on_the_scale_of_logarithms():
    t = np.array([1.0, 5.0, 45.0, 45.0])
    df = np.array([10.0, np.inf, np.inf, 5000.0])
    p = 2 * stats.t.sf(t, df)
    found = minus_log10(p, t, df)
    assert_allclose(found[:2], -np.log10(p[:2]))
    assert p[2] == 0
    assert_allclose(found[2], -(np.log(2) + stats.norm.logsf(45)) / np.log(10))
    assert found[3] in (LARGEST, -np.log10(p[3] or 5e-324))


def test_shares_and_limits_of_p_values():
    even = (np.arange(1000) + 0.5) / 1000
    assert null_share(np.append(even, np.nan)) == 1.0
    assert null_share(np.append(even, np.zeros(1000))) == 0.5
    assert_allclose(inflation(even), 1.0, rtol=1e-3)
    assert_allclose(inflation(stats.chi2.sf(1.3 * stats.chi2.isf(even, 1), 1)), 1.3, rtol=1e-3)
    mean, lower, upper = uniform_limits(9, 0.9)
    own = stats.beta(np.arange(1, 10), np.arange(9, 0, -1))
    assert_allclose(mean, own.mean())
    assert_allclose([lower, upper], [own.ppf(0.05), own.ppf(0.95)])


def test_means_of_responses():
    y = np.array([[1.0, np.nan, np.nan], [2.0, 5.0, np.nan], [6.0, 7.0, np.nan]])
    assert_allclose(response_means(SimpleNamespace(y=y, weights=None, cache={})), [3.0, 6.0, np.nan])
    weights = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    assert_allclose(response_means(SimpleNamespace(y=y, weights=weights, cache={})), [1.5, 7.0, np.nan])
