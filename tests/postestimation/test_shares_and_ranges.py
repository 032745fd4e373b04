"""Shares of variance with weights and known variances; intervals inside the parameter space; nesting, R."""

import jax
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.inference.bootstrap_intervals import Range, within_range
from lmmjax.postestimation.parameters.residual_cov import on_lattice


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"g": np.repeat(range(12), 5), "v": np.tile(range(5), 12), "x": rng.normal(size=60)})
    frame["y"] = rng.normal(size=12)[frame["g"]] + frame["x"] + rng.normal(size=60)
    return frame.assign(known=rng.uniform(0.5, 2.0, 60), name=[f"week {v}" for v in frame["v"]])


def test_shares_know_known_variances(data):
    fit = lj.lmm("y ~ x + (1 | g)", data, residual=lj.KnownVariance("known")).fit()
    tau2 = fit.varcorr()["vcov"].iloc[0]
    assert_allclose(fit.icc(), tau2 / (tau2 + data["known"].mean()), rtol=1e-10)
    scaled = data.assign(y=10 * data["y"], known=100 * data["known"])
    again = lj.lmm("y ~ x + (1 | g)", scaled, residual=lj.KnownVariance("known")).fit()
    assert_allclose(again.icc(), fit.icc(), rtol=1e-6)
    assert_allclose(again.r2(), fit.r2(), rtol=1e-6)
    # σ² is known: its variance is zero and not missing
    assert np.isfinite(fit.icc(se=True)).all(axis=None)


def test_shares_do_not_depend_on_the_unit_of_weights(data):
    one, seven = (lj.lmm("y ~ x + (1 | g)", data, weights=np.full(60, w)).fit() for w in (1.0, 7.0))
    assert_allclose(seven.icc(se=True), one.icc(se=True), rtol=1e-5)
    assert_allclose(seven.r2(), one.r2(), rtol=1e-6)


def test_shares_of_a_batch_are_those_of_its_fits(data):
    y = np.stack([data["y"], data["y"].to_numpy()[::-1] + data["x"]], axis=1)
    y[3:9, 1] = np.nan
    weights = np.random.default_rng(0).uniform(0.5, 2.0, y.shape)
    for options in ({}, {"weights": weights}):
        fits = lj.lmm("~ x + (1 | g)", data).fit_batch(y, **options)
        assert_allclose(fits.icc(), [fits[k].icc() for k in range(2)], rtol=1e-10)
        assert_allclose(fits.r2(), [fits[k].r2() for k in range(2)], rtol=1e-10)
    assert_allclose(fits.icc(se=True).iloc[1], fits[1].icc(se=True).iloc[0], rtol=1e-8)


def test_bootstrap_limits_stay_in_range():
    rng = np.random.default_rng(1)
    sd, cor = np.exp(rng.normal(0, 1.5, 400)), np.tanh(rng.normal(1.5, 1.5, 400))
    draws, original = np.stack([sd, cor, rng.normal(size=400)], 1), np.array([0.5, 0.95, 0.0])
    ranges = [Range(0.0), Range(-1.0, 1.0), Range()]
    for kind in ("basic", "normal"):
        limits, instead = within_range(kind, draws, original, 0.95, ranges)
        assert not instead.any()
        assert np.all(limits[0] > 0)
        assert np.all(np.abs(limits[1]) < 1)
        assert np.all(limits[:, 0] < limits[:, 1])
    # reflected at the log
    low, high = np.exp(np.quantile(np.log(sd), [0.025, 0.975]))
    assert_allclose(within_range("basic", draws, original, 0.95, ranges)[0][0], 0.25 / np.array([high, low]))
    draws[0, 0] = 0.0
    limits, instead = within_range("basic", draws, original, 0.95, ranges)
    assert instead.tolist() == [True, False, False]
    assert_allclose(limits[0], np.quantile(draws[:, 0], [0.025, 0.975]))


def test_a_bootstrap_on_the_boundary_says_so(data):
    boot = lj.lmm("y ~ x + (1 | g)", data.assign(g=data["v"])).fit().bootstrap(jax.random.key(0), 60)
    with pytest.warns(UserWarning, match=r"sd_\(Intercept\)\|g lie on the boundary"):
        limits = boot.conf_int(kind="normal")
    assert (limits.loc[["sd_(Intercept)|g", "sigma"], "lower"] >= 0).all()
    assert limits.attrs["percentile"] == ["sd_(Intercept)|g"]


@pytest.fixture(scope="module")
def visits(data):
    parts = {
        "none": None,
        "cs": lj.CompoundSymmetry(group="g"),
        "ar1": lj.AR1("v", group="g"),
        "toeplitz": lj.Toeplitz("v", group="g"),
        "unstructured": lj.Unstructured("name", group="g"),
        "unequal": lj.CompoundSymmetry(group="g") * lj.VarIdent("v"),
    }
    return {name: lj.lmm("y ~ x", data, residual=part).fit() for name, part in parts.items()}


NESTED = [
    ("none", "cs"),
    ("cs", "toeplitz"),
    ("ar1", "toeplitz"),
    ("cs", "unequal"),
    ("toeplitz", "unstructured"),
    ("unequal", "unstructured"),
]


@pytest.mark.parametrize(("small", "large"), NESTED)
def test_cases_of_a_structure(visits, small, large):
    table = lj.compare(visits[small], visits[large], names=[small, large])
    assert table.index.tolist() == [small, large]
    assert table["df"].iloc[1] == visits[large].n_params - visits[small].n_params
    assert table["chisq"].iloc[1] >= 0


def test_structures_that_are_no_case_of_each_other(visits):
    with pytest.raises(ValueError, match="not a case of"):
        lj.compare(visits["ar1"], visits["unequal"])
    label = lj.compare(visits["none"], visits["ar1"]).index[1]
    assert label == "y ~ x; AR1"
    with pytest.raises(ValueError, match="1 names for 2 models"):
        lj.compare(visits["none"], visits["ar1"], names=["one"])


def test_residual_covariances(visits):
    fit = visits["unstructured"]
    r, cor = fit.residual_cov(), fit.residual_cov(cor=True)
    assert list(r.index) == [f"week {k}" for k in range(5)]
    assert_allclose(r, fit.residual_cov(group=3), rtol=1e-12)
    table = fit.varcorr().set_index("term1")
    assert_allclose(
        table.loc["var(week 2)", ["vcov", "sdcor"]].to_list(), [r.iloc[2, 2], r.iloc[2, 2] ** 0.5]
    )
    pair = table.loc["cov(week 1, week 4)", ["vcov", "sdcor"]].to_list()
    assert_allclose(pair, [r.iloc[1, 4], cor.iloc[1, 4]], rtol=1e-12)
    assert_allclose(np.diag(cor), 1.0)
    phi = visits["ar1"].residual_cov(cor=True)
    assert_allclose(phi.iloc[0, 2], phi.iloc[0, 1] ** 2)
    with pytest.raises(ValueError, match="unknown group 99"):
        fit.residual_cov(99)
    with pytest.raises(ValueError, match="residuals are independent"):
        visits["none"].residual_cov()


def test_visits_of_a_matrix_are_called_as_in_the_data(data):
    days = pd.Timestamp("2024-02-28") + pd.to_timedelta(data["v"], "D")
    own = data.assign(age=8.0 + 2.0 * data["v"], day=days)
    wanted = {"name": [f"week {k}" for k in range(5)], "age": [8, 10, 12, 14, 16], "v": [*range(5)]}
    for column, labels in wanted.items():
        scale = lj.lmm("y ~ x", own, residual=lj.AR1(column, group="g")).frame.residual.scale
        assert list(on_lattice(scale, np.arange(5), 2)) == labels
    dated = lj.lmm("y ~ x", own, residual=lj.AR1("day", group="g")).frame.residual.scale
    assert on_lattice(dated, np.arange(5), 2) is None


def test_intervals_have_the_degrees_of_freedom_of_the_summary(data):
    model = lj.lmm("y ~ x + (1 | g)", data)
    fit, table = model.fit(), model.fit().coef_table()
    half = (fit.conf_int()["upper"] - fit.conf_int()["lower"]) / 2
    from scipy import stats

    assert_allclose(half, stats.t.ppf(0.975, table["df"]) * table["se"], rtol=1e-9)
    fits = model.fit_batch(data[["y"]])
    assert_allclose(fits.conf_int().to_numpy().reshape(2, 2), fit.conf_int(), rtol=1e-6)
    normal = fits.conf_int(ddf="normal").to_numpy().reshape(2, 2)
    assert_allclose(normal, fit.conf_int(ddf="normal"), rtol=1e-6)


def test_names_with_backticks(data):
    fit = lj.lmm("y ~ `x y` + (1 | g)", data.rename(columns={"x": "x y"})).fit()
    assert_allclose(fit.test("`x y` = 0")["p"], fit.test("x y = 0")["p"])
