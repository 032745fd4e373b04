"""Nested and crossed grouping factors through the whole package: batches, predictions, refits, reports."""

import warnings

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

RNG = np.random.default_rng(20)
SCHOOLS, PER_SCHOOL, ROWS = 8, 5, 200


def frame():
    klass = RNG.integers(0, SCHOOLS * PER_SCHOOL, ROWS)
    item = RNG.integers(0, 7, ROWS)
    data = pd.DataFrame(
        {"school": klass // PER_SCHOOL, "klass": klass, "item": item, "x": RNG.normal(size=ROWS)}
    )
    effects = [RNG.normal(size=k) for k in (SCHOOLS, SCHOOLS * PER_SCHOOL, 7)]
    data["y"] = 2.0 + data["x"] + RNG.normal(size=ROWS)
    data["y"] += effects[0][data["school"]] + effects[1][klass] + effects[2][item]
    return data


DATA = frame()
FORMULAS = {
    "nested": "~ x + (1 | school) + (1 | klass)",
    "crossed": "~ x + (1 | klass) + (1 | item)",
    "layered": "~ x + (1 | school) + (x | klass) + (1 | item)",
}


@pytest.fixture(scope="module", params=FORMULAS)
def model(request):
    made = lj.lmm("y " + FORMULAS[request.param], DATA, backend=request.param)
    assert made.structure().backend == request.param
    return made


@pytest.fixture(scope="module")
def fit(model):
    return model.fit()


def test_equals_the_dense_backend(model, fit):
    dense = lj.lmm(model.formula, DATA, backend="dense").fit()
    # the criterion is flat at its minimum: a point is known to the square root of its accuracy, or better
    np.testing.assert_allclose(fit.deviance, dense.deviance, rtol=1e-10)
    np.testing.assert_allclose(fit.varcorr()["vcov"], dense.varcorr()["vcov"], rtol=1e-6)
    np.testing.assert_allclose(fit.varcorr()["se"], dense.varcorr()["se"], rtol=1e-5)
    np.testing.assert_allclose(fit.ranef()["value"], dense.ranef()["value"], atol=1e-6)
    np.testing.assert_allclose(fit.ranef()["pred_se"], dense.ranef()["pred_se"], rtol=1e-5)
    np.testing.assert_allclose(fit.coef_table(), dense.coef_table(), rtol=1e-5)


@pytest.mark.parametrize(("classes", "backend"), [(4, "crossed"), (400, "layered")])
def test_nested_factors_stay_sparse_within_a_crossed_model_where_that_pays(classes, backend):
    pupil = np.repeat(np.arange(800), 2)
    frame = pd.DataFrame({"pupil": pupil, "klass": pupil % classes, "item": RNG.integers(0, 5, 1600)})
    model = lj.lmm("~ 1 + (1 | klass / pupil) + (1 | item)", frame)
    assert model.structure().backend == backend


def test_structure_names_every_term_and_the_cost(model):
    text = str(model.structure())
    assert all(f"({term.text})" in text for term in model.frame.random)
    assert f"{ROWS} rows, 2 fixed effects" in text
    assert "one evaluation with derivatives" in text


def test_a_batch_equals_single_fits(model):
    few, many = 3, 520
    rng = np.random.default_rng(1)
    count = few if model.structure().backend == "layered" else many
    values = np.column_stack([DATA["y"] * s + rng.normal(size=ROWS) for s in np.linspace(0.5, 2, count)])
    values[5, 1] = np.nan
    values[:, 2] = np.inf
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="1 of .* could not be fitted")
        fits = model.fit_batch(values)
    assert fits.status[2] == "not_finite"
    for k in (0, 1, count - 1 if count > few else 0):
        keep = np.isfinite(values[:, k])
        alone = lj.lmm(model.formula, DATA[keep].assign(y=values[keep, k])).fit()
        np.testing.assert_allclose(fits.deviance[k], alone.deviance, rtol=1e-9)
        np.testing.assert_allclose(fits.params.iloc[k], alone.params, rtol=1e-6)
        np.testing.assert_allclose(fits.df().iloc[k], alone.coef_table()["df"], rtol=1e-4)


def test_a_batch_of_crossed_factors_without_effects():
    """Responses of which most have a variance of zero, and maximal terms."""
    frame = DATA.head(120)
    model = lj.lmm("~ x + (x | school) + (x | item)", frame)
    assert model.structure().backend == "crossed"
    values = np.random.default_rng(3).normal(size=(120, 514))
    fits = model.fit_batch(values)
    assert fits.is_singular.mean() > 0.5
    alone = model.fit_batch(values[:, :100])
    # a batch makes the same descent from the same start; a few may end in another optimum
    same = np.isclose(fits.deviance[:100], alone.deviance, rtol=1e-9)
    assert same.mean() >= 0.98
    np.testing.assert_allclose(fits.params[:100][same], alone.params[same], atol=1e-5)


def test_a_batch_with_small_families_and_weights():
    rng = np.random.default_rng(2)
    member = np.repeat(np.arange(24), 3)
    data = pd.DataFrame({"family": member // 2, "member": member, "w": rng.uniform(0.5, 2, 72)})
    model = lj.lmm("~ 1 + (1 | family/member)", data, weights="w")
    # every family has weights, and so products, of its own
    assert not model.maker.prepared.shared.compressed
    values = rng.normal(size=(24, 520))[member] + rng.normal(size=(72, 520))
    fits = model.fit_batch(values)
    for k in (0, 519):
        alone = lj.lmm("y ~ 1 + (1 | family/member)", data.assign(y=values[:, k]), weights="w").fit()
        np.testing.assert_allclose(fits.deviance[k], alone.deviance, rtol=1e-9)


def test_new_levels_and_new_rows(model, fit):
    new = DATA.head(4).assign(klass=[0, 1, 999, 1])
    with pytest.raises(ValueError, match="new levels of 'klass': 999"):
        fit.predict(new)
    predicted = fit.predict(new, new_levels="population").to_numpy()
    other = [term.group for term in model.frame.random if term.group != "klass"]
    np.testing.assert_allclose(predicted[2], fit.predict(new.iloc[[2]], re=other).iloc[0], rtol=1e-12)
    np.testing.assert_allclose(fit.predict(DATA), fit.fittedvalues, rtol=1e-10)


def test_simulated_responses_have_the_variances_of_the_model(fit):
    import jax

    draws = fit.simulate(jax.random.key(0), 400).to_numpy()
    # a row's variance is the sum of the components; the mean over all rows and 400 draws is good to 5 %
    spread = draws.var(axis=1, ddof=1).mean()
    assert abs(spread / fit.varcorr()["vcov"].sum() - 1) < 0.1
