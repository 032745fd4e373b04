"""What the data do not identify is missing and named; all else is as in a model that says the same."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax import lmm


@pytest.fixture(scope="module")
def visits():
    """Eighty people, of whom nobody came to visits 3 and 4 both."""
    rng = np.random.default_rng(1)
    y = rng.multivariate_normal(np.zeros(4), np.eye(4) + 1, 80)
    d = pd.DataFrame({"id": np.repeat(range(80), 4), "v": np.tile([1, 2, 3, 4], 80), "y": y.ravel()})
    d = d[~((d.id < 40) & (d.v == 3)) & ~((d.id >= 40) & (d.v == 4))].reset_index(drop=True)
    return d.assign(x=rng.normal(size=len(d)), same=d.id + 100)


def fitted(formula, data, residual=None, **options):
    with pytest.warns(lj.FitWarning, match="not identified"):
        return lmm(formula, data, residual=residual).fit(**options)


def same_fixed_effects(one, other, ddf="satterthwaite"):
    """Criterion, estimates, standard errors and degrees of freedom, up to what both have converged to."""
    assert_allclose(one.deviance, other.deviance, rtol=1e-9)
    left, right = one.coef_table(ddf).to_numpy(), other.coef_table(ddf).to_numpy()
    assert_allclose(left, right, rtol=2e-5)


def reversed_levels(d):
    return d.assign(v=pd.Categorical(5 - d.v, categories=[1, 2, 3, 4]), w=pd.Categorical(d.v))


@pytest.mark.parametrize(
    ("family", "name", "other"),
    [(lj.Unstructured, "cov(3, 4)", "cov(1, 2)"), (lj.Symmetric, "cor(3, 4)", "cor(1, 2)")],
)
def test_pairs_of_visits_that_nobody_made(visits, family, name, other):
    """Named and missing, whichever level comes first; fixed effects do not depend on the order of levels."""
    fit = fitted("y ~ C(v)", visits, family("v", group="id"))
    assert fit.converged
    assert fit.unidentified == [name]
    assert name in fit.status
    assert name in str(fit.summary())
    limits = fit.conf_int(which="all")
    assert limits.loc[name].isna().all()
    assert np.isfinite(limits.drop(name)).all(axis=None)
    table = fit.varcorr()
    at = np.flatnonzero(table["term1"] == name)
    assert np.isnan(table[["sdcor", "se"]].to_numpy()[at]).all()
    assert np.isfinite(table[["sdcor", "se"]].drop(index=at)).all(axis=None)
    for cor in (False, True):
        matrix = fit.residual_cov(cor=cor)
        assert np.isnan(matrix.loc[3, 4])
        assert np.isnan(matrix.loc[4, 3])
        assert matrix.isna().to_numpy().sum() == 2
    again = fitted("y ~ C(w)", reversed_levels(visits), family("v", group="id"))
    assert again.unidentified == [other]
    same_fixed_effects(fit, again)
    same_fixed_effects(fit, again, "kenward-roger")


def test_a_lag_that_nobody_has():
    """Toeplitz with visits 1, 2 and 4 or 1, 4 and 5 alone: two observations are never 2 apart and 4 are."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(60), 2)
    t = np.tile([0, 1, 0, 3], 30)
    d = pd.DataFrame({"g": g, "t": t, "y": rng.normal(size=120) + rng.normal(size=60)[g]})
    fit = fitted("y ~ 1", d, lj.Toeplitz("t", group="g"))
    assert fit.unidentified == ["cor2"]
    assert np.isfinite(fit.varcorr()["se"]).sum() == 3
    assert fit.n_params == 4


CODINGS = {
    "intercept twice": (
        "y ~ x + (x | id) + (1 | id)",
        "y ~ x + (x | id)",
        ["sd_(Intercept)|id", "cor_x.(Intercept)|id", "sd_(Intercept)|id"],
    ),
    "one factor by two names": (
        "y ~ x + (1 | id) + (1 | same)",
        "y ~ x + (1 | id)",
        ["sd_(Intercept)|id", "sd_(Intercept)|same"],
    ),
    "one row a cell": ("y ~ x + homdiag(0 + C(v) | id)", "y ~ x", ["sd_common|id", "sigma"]),
}


@pytest.mark.parametrize("case", CODINGS)
@pytest.mark.parametrize("reml", [True, False])
def test_codings_of_one_model(visits, case, reml):
    formula, plain, names = CODINGS[case]
    fit, other = fitted(formula, visits, reml=reml), lmm(plain, visits).fit(reml=reml)
    assert fit.converged
    assert fit.unidentified == names
    assert fit.n_params == other.n_params
    same_fixed_effects(fit, other)
    if reml:
        same_fixed_effects(fit, other, "kenward-roger")
    table, right = fit.varcorr(), other.varcorr()
    if "sigma" in names:
        assert np.isnan(fit.sigma)
    else:
        assert_allclose(table["se"].to_numpy()[-1], right["se"].to_numpy()[-1], rtol=1e-4)
        assert_allclose(fit.sigma, other.sigma, rtol=1e-6)


@pytest.mark.parametrize("case", CODINGS)
def test_modes_of_what_is_not_identified(visits, case):
    """Missing, where the variances that are open enter; slopes, and sums in the fitted values, are not."""
    formula, plain, names = CODINGS[case]
    fit, other = fitted(formula, visits), lmm(plain, visits).fit()
    table = fit.ranef()
    steady = table["term"] == "x"
    # a visit that a person did not make has b = 0 whatever the variance is
    assert (table.loc[~steady, "value"].isna() | (table.loc[~steady, "value"] == 0)).all()
    assert table.loc[~steady, "value"].isna().mean() >= 0.75
    assert table.loc[~steady, ["cond_sd", "pred_se"]].isna().all(axis=None)
    if steady.any():
        right = other.ranef().query("term == 'x'")
        # modes are as exact as the two optima, variances of 1e-6 relative
        assert_allclose(table[steady].iloc[:, 3:], right.iloc[:, 3:], rtol=1e-4, atol=1e-6)
    if "sigma" in names:
        assert fit.fittedvalues.isna().all()
        assert fit.resid.isna().all()
    else:
        assert_allclose(fit.fittedvalues, other.fittedvalues, rtol=1e-5, atol=1e-6)
        assert_allclose(fit.predict(), other.predict(), rtol=1e-5, atol=1e-6)
    assert np.isfinite(fit.predict(visits, re="none")).all()


def test_functions_of_what_is_not_identified(visits):
    """Missing where they are chance, with their errors where they are not: for a fit and in a batch."""
    formula, plain, _ = CODINGS["one factor by two names"]
    fit, other = fitted(formula, visits), lmm(plain, visits).fit()
    one, two = (f"sd_(Intercept)|{g}" for g in ("id", "same"))

    def functions(p):
        return {"alone": p[one], "together": (p[one] ** 2 + p[two] ** 2) ** 0.5, "x": p["x"]}

    fits = lmm(formula.removeprefix("y "), visits).fit_batch(visits[["y"]])
    right = other.delta(lambda p: {"together": p[one], "x": p["x"]})
    for table in (fit.delta(functions), fits.delta(functions).loc["y"].unstack()):
        assert table.loc["alone"].isna().all()
        # as exact as the two optima
        assert_allclose(table.loc[["together", "x"]], right[table.columns], rtol=1e-4)
    assert_allclose(fit.icc(), other.icc(), rtol=1e-5)
    assert_allclose(fits.icc(), other.icc(), rtol=1e-5)
    assert_allclose(fit.r2(se=True), other.r2(se=True), rtol=1e-4)
    assert fit.icc(by_group=True).isna().all()
    assert fits.icc(by_group=True).isna().all(axis=None)
    assert fit.coef()["id"]["Intercept"].isna().all()
    assert_allclose(fit.coef()["id"]["x"], fit.params["x"])
    limits = fit.conf_int("boot", which="all", n=20, key=jax.random.key(0))
    assert limits.loc[[one, two]].isna().all(axis=None)
    assert np.isfinite(limits.drop([one, two])).all(axis=None)


def test_modes_of_a_fixed_factor(visits):
    """b̂ = 0 whatever the variance is; how exact that is depends on it."""
    fit = fitted("y ~ C(v) + x + (1 | v)", visits)
    table = fit.ranef()
    assert_allclose(table["value"], 0.0, atol=1e-9)
    assert table[["cond_sd", "pred_se"]].isna().all(axis=None)
    assert_allclose(fit.fittedvalues, lmm("y ~ C(v) + x", visits).fit().fittedvalues, rtol=1e-9)


def test_residual_covariance_and_a_random_intercept(visits):
    """A free covariance matrix takes in the variance between people."""
    fit = fitted("y ~ C(v) + (1 | id)", visits, lj.Unstructured("v", group="id"))
    assert len(fit.unidentified) == 11
    # the second direction is the pair that is never seen
    assert fit.estimate.n_unidentified == 2
    same_fixed_effects(fit, fitted("y ~ C(v)", visits, lj.Unstructured("v", group="id")))


def test_random_effects_of_a_fixed_factor(visits):
    """Within the factor as without the term; between its levels standard errors depend on what is open."""
    fit, plain = fitted("y ~ C(v) + x + (1 | v)", visits), lmm("y ~ C(v) + x", visits).fit()
    assert fit.unidentified == ["sd_(Intercept)|v"]
    for ddf in ("satterthwaite", "kenward-roger", "normal"):
        table, right = fit.coef_table(ddf), plain.coef_table(ddf)
        assert_allclose(table["estimate"], right["estimate"], rtol=1e-9)
        assert table.drop("x")[["se", "t", "p"]].isna().all(axis=None)
        assert_allclose(table.loc["x"], right.loc["x"], rtol=1e-9)
    assert fit.bse.drop("x").isna().all()
    assert_allclose(fit.anova().loc["x", "F"], plain.anova().loc["x", "F"], rtol=1e-9)
    assert np.isnan(fit.anova().loc["C(v)", "F"])
    # a difference within a level, of cells that each have no standard error
    cells = visits.assign(h=visits.id % 2)
    cell, alone = fitted("y ~ 0 + C(v):C(h) + (1 | v)", cells), lmm("y ~ 0 + C(v):C(h)", cells).fit()
    one, two = cell.params.index[[0, 4]]
    tests = [f.test({one: 1, two: -1}) for f in (cell, alone)]
    assert cell.bse.isna().all()
    assert_allclose(tests[0].to_numpy(float), tests[1].to_numpy(float), rtol=1e-9)


def test_a_batch_says_which(visits, monkeypatch):
    monkeypatch.setattr("lmmjax.postestimation.predictions.batch_modes.ALONE", 0)
    rng = np.random.default_rng(2)
    y = rng.normal(size=(len(visits), 3)) + rng.normal(size=(80, 3))[visits.id]
    y += visits.x.to_numpy()[:, None] * rng.normal(size=(80, 3))[visits.id]
    fits = lmm("~ x + (x | id) + (1 | id)", visits).fit_batch(y)
    other = lmm("~ x + (x | id)", visits).fit_batch(y)
    assert fits.unidentified.tolist() == [True] * 3
    assert not other.unidentified.any()
    assert fits.converged.all()
    assert_allclose(fits.deviance, other.deviance, rtol=1e-9)
    assert_allclose(fits.df(), other.df(), rtol=1e-3)
    intercepts = [name for name in fits.varcorr if name[:3] == ("id", "(Intercept)", "")]
    assert fits.varcorr[intercepts].isna().all(axis=None)
    assert fits[0].unidentified == CODINGS["intercept twice"][2]
    modes, right = (f.random_effects().xs("x", axis=1, level="term") for f in (fits, other))
    assert_allclose(modes, right, rtol=1e-4, atol=1e-5)
    assert fits.random_effects().xs("(Intercept)", axis=1, level="term").isna().all(axis=None)


def test_one_warning_at_fit_time_and_none_elsewhere(sleepstudy):
    constant = lmm("y ~ Days + (1 | Subject)", sleepstudy.assign(y=3.0))
    with pytest.warns(lj.FitWarning, match="perfectly") as caught:
        fit = constant.fit()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert not fit.converged
    rng = np.random.default_rng(0)
    flat = sleepstudy.assign(y=rng.normal(size=180) + sleepstudy.Days)
    with pytest.warns(lj.FitWarning, match="singular") as caught:
        fit = lmm("y ~ Days + (Days | Subject)", flat).fit()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", lj.FitWarning)
        fit.refit(reml=False)
        fit.influence()
        lmm("Reaction ~ Days + (Days | Subject)", sleepstudy).fit()


def test_fixed_effects_of_the_levels_that_are_random_are_said_to_depend_on_it(visits):
    with pytest.warns(lj.FitWarning, match="standard errors of fixed effects that depend on them"):
        fit = lmm("y ~ C(v) + (1 | v)", visits).fit()
    assert fit.bse.isna().all()


@pytest.mark.parametrize("formula", ["(x + I(2 * x) | g)", "(I(2 * x) + x | g)", "(x + I(1 - x) | g)"])
def test_a_slope_twice_leaves_all_else_as_it_is(formula):
    """Covariances of a column that others make are open; the rest is that of the model without it."""
    rng = np.random.default_rng(17)
    d = pd.DataFrame({"g": np.arange(200) % 50, "x": rng.normal(size=200)})
    d["y"] = rng.normal(size=200) + rng.normal(size=50)[d.g] + rng.normal(size=50)[d.g] * d.x
    once = lj.lmm("y ~ x + (x | g)", d).fit()
    model = lj.lmm(f"y ~ x + {formula}", d)
    with pytest.warns(lj.FitWarning, match="not identified"):
        twice = model.fit()
    many = model.fit_batch(np.column_stack([d.y, d.y + d.x]))
    # optima are known to the decrement's tolerance
    assert_allclose(twice.deviance, once.deviance, rtol=1e-10)
    assert_allclose(many.deviance, once.deviance, rtol=1e-10)
    table, plain = twice.coef_table(), once.coef_table()
    for what in ("estimate", "se", "df"):
        assert_allclose(table[what], plain[what], rtol=1e-5, err_msg=what)
    assert_allclose(many.params.iloc[0], once.params, rtol=1e-5, atol=1e-8)
    assert_allclose(twice.fittedvalues, once.fittedvalues, atol=1e-6)
    assert_allclose(twice.sigma, once.sigma, rtol=1e-6)
    assert {name for name in twice.unidentified if name.startswith("sd")} >= {"sd_x|g"}
    assert twice.varcorr()["vcov"][:3].isna().sum() >= 2
