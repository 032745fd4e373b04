"""Conditional modes, their variances and predictions, against the joint normal distribution written out."""

import numpy as np
import pandas as pd
import pytest
from fit_data import matrices, split
from numpy.testing import assert_allclose

import lmmjax as lj

TOL = 1e-8


def modes(fit):
    """b̂, Var(b | y) and Var(b̂ − b), of all b at once."""
    x, z, g, r, v = matrices(fit)
    frame = fit.model.frame
    residual = fit.y - x @ fit.params.to_numpy() - (0.0 if frame.offset is None else frame.offset)
    gain = g @ z.T @ np.linalg.inv(v)
    # the block of b in the inverse of Henderson's mixed-model equations
    weighted = np.linalg.solve(r, np.hstack([x, z]))
    coefficients = np.hstack([x, z]).T @ weighted
    p = x.shape[1]
    coefficients[p:, p:] += np.linalg.inv(g)
    return gain @ residual, g - gain @ z @ g, np.linalg.inv(coefficients)[p:, p:]


def test_modes_and_their_variances(any_fit):
    b, given, mspe = modes(any_fit)
    ranef = any_fit.ranef()
    for term, value, conditional, error in zip(
        any_fit.model.frame.random,
        split(any_fit, b),
        split(any_fit, given),
        split(any_fit, mspe),
        strict=True,
    ):
        scale = np.abs(value).max(axis=0)
        frame = any_fit.random_effects[term.group][list(term.names)]
        assert list(frame.index) == list(term.levels)
        assert np.all(np.abs(frame - value) < TOL * scale)
        assert_allclose(any_fit.cond_var()[term.text], conditional, rtol=TOL, atol=TOL * conditional.max())
        assert_allclose(any_fit.cond_var(mspe=True)[term.text], error, rtol=TOL, atol=TOL * error.max())
        for j, name in enumerate(term.names):
            rows = ranef[ranef["term"] == name]
            assert list(rows["level"]) == list(term.levels)
            assert_allclose(rows["value"], value[:, j], rtol=0, atol=TOL * scale[j])
            assert_allclose(rows["cond_sd"], np.sqrt(conditional[:, j, j]), rtol=TOL)
            assert_allclose(rows["pred_se"], np.sqrt(error[:, j, j]), rtol=TOL)
    assert list(any_fit.ranef(cond_var=False).columns) == ["group", "level", "term", "value"]


def test_fitted_values_and_residuals(any_fit):
    x, z, _, r, _ = matrices(any_fit)
    b, _, _ = modes(any_fit)
    frame = any_fit.model.frame
    known = 0.0 if frame.offset is None else frame.offset
    expected = x @ any_fit.params.to_numpy() + z @ b + known
    assert_allclose(any_fit.fittedvalues, expected, rtol=TOL)
    assert_allclose(any_fit.resid, any_fit.y - expected, rtol=0, atol=TOL * 300)
    assert_allclose(any_fit.scaled_resid, (any_fit.y - expected) / np.sqrt(np.diag(r)), rtol=0, atol=1e-6)
    assert list(any_fit.fittedvalues.index) == list(frame.index)
    assert_allclose(any_fit.predict(), any_fit.fittedvalues, rtol=1e-12)
    assert_allclose(any_fit.predict(re="none"), x @ any_fit.params.to_numpy() + known, rtol=1e-12)


def test_coefficients_are_fixed_plus_random(any_fit):
    (coef,) = any_fit.coef().values()
    (effects,) = any_fit.random_effects.values()
    for fixed, random in (("Intercept", "(Intercept)"), ("Days", "Days")):
        expected = any_fit.params[fixed] + (effects.get(random, 0.0))
        assert_allclose(coef[fixed], expected, rtol=1e-12)


def test_prediction_for_new_rows(fit):
    effects, beta = fit.random_effects["Subject"], fit.params.to_numpy()
    new = pd.DataFrame({"Days": [0.5, 12.0], "Subject": [310, 372]}, index=["a", "b"])
    x = np.column_stack([np.ones(2), new["Days"]])
    everything = fit.predict(new)
    assert list(everything.index) == ["a", "b"]
    assert_allclose(everything, x @ beta + np.sum(x * effects.loc[[310, 372]].to_numpy(), axis=1), rtol=1e-12)
    assert_allclose(fit.predict(new.drop(columns="Subject"), re="none"), x @ beta, rtol=1e-12)
    assert_allclose(fit.predict(new, re=[]), x @ beta, rtol=1e-12)
    assert_allclose(fit.predict(new, re="Subject"), everything, rtol=1e-14)
    assert_allclose(fit.predict(new, offset=[1.0, -1.0]), everything + np.array([1.0, -1.0]), rtol=1e-12)


def test_one_of_two_terms(sleepstudy):
    fit = lj.lmm("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", sleepstudy).fit()
    effects = fit.random_effects["Subject"]
    new = {"Days": [3.0], "Subject": [309]}
    base = float(fit.predict(new, re="none").iloc[0])
    slope = float(fit.predict(new, re=["0 + Days | Subject"]).iloc[0])
    assert_allclose(slope - base, 3.0 * effects.loc[309, "Days"], rtol=1e-10)
    both = float(fit.predict(new).iloc[0])
    assert_allclose(both - slope, effects.loc[309, "(Intercept)"], rtol=1e-10)


def test_unseen_levels(fit):
    new = {"Days": [1.0, 1.0], "Subject": [308, 999]}
    with pytest.raises(ValueError, match=r"new levels of 'Subject': 999; pass new_levels='population'"):
        fit.predict(new)
    population = float(fit.predict({"Days": [1.0]}, re="none").iloc[0])
    known, unknown = fit.predict(new, new_levels="population")
    assert_allclose(unknown, population, rtol=1e-12)
    assert abs(known - population) > 1
    with pytest.raises(ValueError, match="unknown new_levels 'zero'; choose one of: error, population"):
        fit.predict(new, new_levels="zero")


def test_offsets_and_transformations_in_new_rows(sleepstudy):
    formula = "np.log(Reaction) ~ poly(Days, 2) + offset(0.1 * Days) + (1 | Subject)"
    fit = lj.lmm(formula, sleepstudy, offset="0.2 * Days").fit()
    some = sleepstudy.iloc[[5, 50, 170]]
    assert_allclose(fit.predict(some), fit.fittedvalues.iloc[[5, 50, 170]], rtol=1e-10)
    # offset= replaces the offset= of the model, not that in its formula
    assert_allclose(fit.predict(some, offset=np.zeros(3)), fit.predict(some) - 0.2 * some["Days"], rtol=1e-10)
    with pytest.raises(ValueError, match="offset is for new rows: pass newdata with it"):
        fit.predict(offset=np.zeros(180))


def test_modes_of_a_singular_fit(sleepstudy):
    """Residuals only: modes 0 with variance 0, and predictions of the fixed part."""
    flat = sleepstudy.assign(y=np.tile([1.0, -1.0], 90) + 0.01 * np.arange(180) % 7)
    fit = lj.lmm("y ~ Days + (Days | Subject)", flat).fit()
    assert fit.is_singular
    x, z, g, _, v = matrices(fit)
    gain = g @ z.T @ np.linalg.inv(v)
    (b,) = split(fit, gain @ (fit.y - x @ fit.params.to_numpy()))
    assert_allclose(fit.random_effects["Subject"], b, rtol=0, atol=1e-9)
    (given,) = split(fit, g - gain @ z @ g)
    assert_allclose(next(iter(fit.cond_var().values())), given, rtol=0, atol=1e-9)
    assert np.all(np.isfinite(fit.ranef()[["value", "cond_sd", "pred_se"]]))
