"""drop1, step, update, allfit: lmerTest's numbers, and fits of the formulas that they stand for."""

import json
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj

FOLDER = Path(__file__).parents[1] / "reference"
CASES = json.loads((FOLDER / "building.json").read_text())["models"]
# lme4's covariance parameters are good to 1e-5 or so: F, df and criteria of R to 1e-5, p to ten times that
CLOSE = {"rtol": 1e-5, "atol": 1e-8}
ANY = pytest.mark.parametrize("number", range(len(CASES)), ids=[case["formula"] for case in CASES])


@cache
def data():
    return pd.read_csv(FOLDER / "anova.csv", keep_default_na=False).assign(g=lambda d: d["g"].astype(str))


@cache
def fitted(number):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        return lj.lmm(CASES[number]["formula"], data()).fit()


def rows(entry):
    names = entry["terms"] if isinstance(entry["terms"], list) else [entry["terms"]]
    return names, np.array(entry["table"], float)


@ANY
@pytest.mark.parametrize(("test", "ddf"), [("F", "satterthwaite"), ("KR", "kr")])
def test_drop1(number, test, ddf):
    names, expected = rows(CASES[number][test])
    found = fitted(number).drop1(ddf=ddf)
    assert list(found.index) == names
    assert_allclose(found[["num_df", "den_df", "F", "p"]], expected[:, 2:], rtol=1e-4)


@ANY
def test_drop1_by_likelihood_ratios(number):
    names, expected = rows(CASES[number]["lrt"])
    found = fitted(number).drop1(test="lrt")
    assert list(found.index) == names
    assert_allclose(found["aic"], expected[:, 1], **CLOSE)
    assert_allclose(found["chisq"][1:], expected[1:, 2], rtol=1e-5, atol=1e-5)
    assert_allclose(found["df"][1:], expected[1:, 0])
    assert_allclose(found["p"][1:], expected[1:, 3], rtol=1e-4)
    assert "refitted by ML" in found.attrs["note"]


@ANY
def test_step(number):
    case = CASES[number]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        found = fitted(number).step(keep=case["keep"] or ())
    names, expected = rows(case["random"])
    assert list(found.random.index) == names
    columns = ["eliminated", "npar", "llf", "aic", "chisq", "df"]
    assert_allclose(found.random[columns], expected[:, :6], rtol=1e-4, atol=1e-4)
    names, expected = rows(case["fixed"])
    assert list(found.fixed.index) == names
    assert_allclose(
        found.fixed[["eliminated", "num_df", "den_df", "F", "p"]], expected[:, [0, 3, 4, 5, 6]], rtol=1e-4
    )
    assert found.fit.model.formula.replace("~ 1 + (", "~ (") == case["found"]
    again = lj.lmm(case["found"], data()).fit()
    assert_allclose(found.fit.params, again.params, rtol=1e-8)
    assert found.fit.model.formula in repr(found)


def test_step_stays_on_the_rows_of_the_fit():
    """A term that goes would give back the rows in which it is missing."""
    noise = np.random.default_rng(1).normal(size=len(data()))
    frame = data().assign(junk=np.where(np.arange(len(data())) % 9, noise, np.nan))
    fit = lj.lmm("y ~ a + junk + (1 | g)", frame).fit()
    found = fit.step()
    assert found.fixed["eliminated"]["junk"] == 1
    assert found.fit.nobs == fit.nobs < len(frame)


def test_step_to_no_random_terms():
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"y": rng.normal(size=60), "x": rng.normal(size=60), "g": np.tile(np.arange(10), 6)})
    with pytest.warns(lj.FitWarning):
        fit = lj.lmm("y ~ x + (1 | g)", d).fit()
    found = fit.step(alpha_fixed=0.999)
    assert found.fit.model.formula == "y ~ x"
    # one residual: t and F of least squares
    slope, se = found.fit.params["x"], found.fit.bse["x"]
    assert_allclose(found.fixed["F"], (slope / se) ** 2)
    assert_allclose(found.fixed["den_df"], 58)


def test_dependent_columns_come_back():
    """Without x its double is in the model: nothing is lost."""
    d = data().assign(double=lambda d: 2 * d["x"], other=lambda d: d["x"] + d["z"])
    fit = lj.lmm("y ~ x + double + z + (1 | g)", d).fit()
    found = fit.drop1()
    assert found["num_df"]["x"] == 0
    assert found["num_df"]["double"] == 0
    assert np.isnan(found["p"]["x"])
    assert_allclose(found["F"]["z"], fit.anova(type=2)["F"]["z"])
    both = lj.lmm("y ~ x + z + other + (1 | g)", d).fit().drop1(test="lrt")
    assert list(both["df"][1:]) == [0, 0, 0]


MODEL = "y ~ a * b + (x | g)"


@pytest.mark.parametrize(
    ("change", "formula"),
    [
        ("~ . - a:b", "y ~ a + b + (x | g)"),
        (". ~ . - (x | g) + (1 | g)", "y ~ a + b + a:b + (1 | g)"),
        ("~ . + z - a:b", "y ~ a + b + z + (x | g)"),
        ("np.exp(.) ~ b + (1 | g)", "np.exp(y) ~ b + (1 | g)"),
    ],
)
def test_update(change, formula):
    model = lj.lmm(MODEL, data(), weights="x")
    updated = model.update(change)
    assert updated.formula == formula
    expected = lj.lmm(formula, data(), weights="x")
    assert updated.frame.x_names == expected.frame.x_names
    assert_allclose(updated.frame.x, expected.frame.x)
    assert_allclose(updated.frame.y, expected.frame.y)
    assert_allclose(updated.frame.weights, expected.frame.weights)
    assert [t.text for t in updated.frame.random] == [t.text for t in expected.frame.random]


def test_update_of_a_fit():
    fit = lj.lmm("y ~ a + (1 | g)", data()).fit(reml=False)
    assert fit.update("~ . + b").params.to_dict() == pytest.approx(
        lj.lmm("y ~ a + b + (1 | g)", data()).fit(reml=False).params.to_dict()
    )
    assert fit.update(reml=True).reml
    half = data().iloc[:90]
    assert fit.update(data=half).nobs == 90
    # a response of the fit's own stays
    other = fit.refit(2.0 * fit.y + 1.0)
    assert_allclose(other.update("~ . - a + x").y, other.y)
    with pytest.raises(ValueError, match="has other rows"):
        other.update(data=half)


def test_updates_keep_to_a_subset():
    keep = np.arange(180) % 4 > 0
    model = lj.lmm("y ~ a + (1 | g)", data()).subset(keep, weights=data()["x"])
    updated = model.update("~ . + z")
    assert updated.design.n == keep.sum()
    assert_allclose(updated.frame.weights, data()["x"][keep])


def test_data_are_those_that_the_model_was_made_from():
    d = data().copy()
    model = lj.lmm("y ~ a + (1 | g)", d)
    d["z"] = 0.0
    del d["x"]
    updated = model.update("~ . + z + x")
    assert_allclose(updated.frame.x[:, -2:], data()[["z", "x"]])


def test_dot_is_all_other_columns():
    d = data()[["y", "a", "x", "g", "z"]].rename(columns={"z": "the z"})
    assert lj.lmm("y ~ . + (1 | g)", d).formula == "y ~ a + x + `the z` + (1 | g)"
    assert lj.lmm("y ~ .", d[["y", "x"]]).formula == "y ~ x"
    assert lj.lmm("y ~ .^2 - a + (x | g)", d).frame.x_names[0] == "Intercept"
    model = lj.lmm("y ~ . + (1 | g)", d, weights="x")
    assert model.formula == "y ~ a + `the z` + (1 | g)"
    model = lj.lmm("y ~ .", d, residual=lj.CompoundSymmetry(group="g"))
    assert model.formula == "y ~ a + x + `the z`"


def test_allfit(fit):
    found = fit.allfit()
    assert set(found["method"]) == {"newton", "lbfgs", "nelder-mead", "powell"}
    assert set(found["start"]) == {"moments", "near zero", "zero", "large"}
    # searches without derivatives stop within 1e-9 of the criterion or so
    assert_allclose(found["criterion"], fit.deviance, atol=1e-6)
    assert_allclose(found["above"], 0.0, atol=1e-6)
    assert_allclose(found["Days"], fit.params["Days"], rtol=1e-3)
    assert_allclose(found["sd_Days|Subject"], fit.varcorr()["sdcor"][1], rtol=1e-3)
    assert list(fit.allfit(methods="newton")["status"]) == ["converged"] * 4


def test_what_cannot_be_done(fit):
    arrays = lj.Model.from_arrays(fit.y, fit.model.frame.x, fit.model.frame.random[0].codes).fit()
    assert_allclose(arrays.drop1()["F"].iloc[-1], (arrays.params / arrays.bse).iloc[-1] ** 2)
    for call in (
        lambda: arrays.update("~ . - x"),
        lambda: arrays.step(reduce_random=False, alpha_fixed=1e-60),
    ):
        with pytest.raises(ValueError, match="built from matrices"):
            call()
    with pytest.raises(ValueError, match="unknown term that can be dropped"):
        fit.drop1(["Nights"])
    with pytest.raises(ValueError, match="unknown fixed term to keep"):
        fit.step(keep="Nights")
    with pytest.raises(ValueError, match="unknown argument of update"):
        fit.update(family="binomial")
    with pytest.raises(ValueError, match="unknown method"):
        fit.allfit(methods=["bobyqa"])
