"""Regressors of scikit-learn: its own checks, and the numbers of the fits that they stand for."""

import pickle

import numpy as np
import polars as pl
import pytest

pytest.importorskip("sklearn")

import sklearn
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import lmmjax as lj

FORMULA = "Reaction ~ Days + (Days | Subject)"
INTERCEPTS = "Reaction ~ Days + (1 | Subject)"


@pytest.fixture(autouse=True)
def _one_descent(monkeypatch):
    """Where it begins does not matter here, and there is one optimum."""
    monkeypatch.setattr("lmmjax.fitted.multistart.other_starts", lambda *_: [])


class InFours(lj.MixedEffectsRegressor):
    """The regressor for checks that know nothing of groups: every fourth row is of one."""

    def fit(self, X, y, sample_weight=None):
        n = X.shape[0] if hasattr(X, "shape") else len(np.asarray(X))
        return super().fit(X, y, np.arange(n) % 4, sample_weight)


FAILING = {"check_sample_weight_equivalence_on_dense_data": "prior weights, Var(ε) = σ²/w, do not count rows"}


# a formula needs names: LMMRegressor has no part in checks on arrays of numbers
@parametrize_with_checks([InFours(random_intercept=True)], expected_failed_checks=lambda _: FAILING)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def table(sleepstudy):
    return sleepstudy[["Days", "Subject"]]


@pytest.fixture(scope="module")
def y(sleepstudy):
    return sleepstudy["Reaction"]


def test_both_are_the_fit(fit, sleepstudy, table, y):
    by_formula = lj.LMMRegressor("~ Days + (Days | Subject)").fit(table, y)
    of_matrices = lj.MixedEffectsRegressor(slopes=["Days"], groups="Subject").fit(table, y)
    passed = lj.MixedEffectsRegressor(slopes="all").fit(table[["Days"]], y, groups=table["Subject"])
    for regressor in (by_formula, of_matrices, passed):
        assert_allclose(regressor.result_.deviance, fit.deviance, rtol=1e-12)
        assert_allclose(regressor.result_.params, fit.params, rtol=1e-9)
    for regressor in (by_formula, of_matrices):
        assert_allclose(regressor.predict(table), fit.fittedvalues, rtol=1e-9)
        assert list(regressor.feature_names_in_) == ["Days", "Subject"]
    assert_allclose(of_matrices.coef_, fit.params["Days"], rtol=1e-9)
    assert_allclose(of_matrices.intercept_, fit.params["Intercept"], rtol=1e-9)
    assert_allclose(passed.predict(table[["Days"]], table["Subject"]), fit.fittedvalues, rtol=1e-9)
    population = fit.predict(sleepstudy, re="none")
    assert_allclose(passed.predict(table[["Days"]]), population, rtol=1e-9)
    assert_allclose(by_formula.predict(table.assign(Subject="new")), population, rtol=1e-9)


def test_standard_deviations_are_those_of_new_responses(fit, sleepstudy, table, y):
    new = table.iloc[::40].assign(Subject=["new", *table["Subject"].iloc[40::40]])
    options = {"interval": "prediction", "ddf": "normal", "new_levels": "population"}
    limits = fit.predict(new, **options)
    for regressor in (
        lj.LMMRegressor(FORMULA).fit(sleepstudy),
        lj.MixedEffectsRegressor(slopes=[0], groups=1).fit(table, y),
    ):
        values, sd = regressor.predict(new, return_std=True)
        assert_allclose(values, limits["fit"], rtol=1e-9)
        assert_allclose(values + 1.959963984540054 * sd, limits["upper"], rtol=1e-7)


def test_cross_validation_by_groups(sleepstudy, y):
    """The folds of the fit's own cross-validation, whose groups are unknown."""
    folds = {"groups": sleepstudy["Subject"], "cv": GroupKFold(3), "scoring": "neg_mean_squared_error"}
    scores = cross_val_score(lj.LMMRegressor(INTERCEPTS), sleepstudy, y, **folds)
    errors = []
    for train, test in GroupKFold(3).split(sleepstudy, groups=sleepstudy["Subject"]):
        part = lj.lmm(INTERCEPTS, sleepstudy.iloc[train]).fit()
        errors.append(np.mean((y.iloc[test] - part.predict(sleepstudy.iloc[test], re="none")) ** 2))
    assert_allclose(scores, -np.array(errors), rtol=1e-9)
    passed = sleepstudy[["Days"]].to_numpy(float)
    with sklearn.config_context(enable_metadata_routing=True):
        regressor = lj.MixedEffectsRegressor().set_fit_request(groups=True)
        found = cross_validate(
            regressor,
            passed,
            y,
            cv=GroupKFold(3),
            scoring="neg_mean_squared_error",
            params={"groups": sleepstudy["Subject"]},
        )
    assert_allclose(found["test_score"], scores, rtol=1e-9)


def test_pipelines(fit, sleepstudy, table, y):
    scaled = make_pipeline(StandardScaler(), lj.MixedEffectsRegressor(slopes="all"))
    scaled.fit(table[["Days"]], y, mixedeffectsregressor__groups=table["Subject"])
    assert_allclose(scaled.predict(table[["Days"]]), fit.predict(sleepstudy, re="none"), rtol=1e-9)
    shifted = make_pipeline(
        FunctionTransformer(lambda d: d.assign(late=d["Days"] - 4.0)),
        lj.LMMRegressor("~ late + (late | Subject)"),
    )
    assert_allclose(shifted.fit(table, y).predict(table), fit.fittedvalues, rtol=1e-8)


@pytest.mark.parametrize("made", [lj.LMMRegressor(FORMULA), lj.MixedEffectsRegressor(0, groups=1)])
def test_clones_and_pickles(made, table, y):
    fitted = clone(made).fit(table, y)
    assert not hasattr(made, "result_")
    assert clone(fitted).get_params() == made.get_params()
    again = pickle.loads(pickle.dumps(fitted))
    assert_allclose(again.predict(table), fitted.predict(table), rtol=0)


def test_frames_arrays_and_labels(fit, sleepstudy, table, y):
    """A frame of polars, an array with its columns by position, rows in another order."""
    frame = pl.from_pandas(sleepstudy)
    by_formula = lj.LMMRegressor(FORMULA).fit(frame.drop("Reaction"), frame["Reaction"])
    assert_allclose(by_formula.predict(frame), fit.fittedvalues, rtol=1e-9)
    array = np.column_stack([table["Days"], table["Subject"].astype(float)])
    on_array = lj.LMMRegressor("~ x0 + (x0 | x1)").fit(array, y.to_numpy())
    assert_allclose(on_array.predict(array), fit.fittedvalues, rtol=1e-9)
    nested = lj.MixedEffectsRegressor(0, groups=1).fit(array.tolist(), list(y))
    assert_allclose(nested.predict(array.tolist()), fit.fittedvalues, rtol=1e-9)
    labelled = y.sample(frac=1, random_state=1)
    for regressor in (lj.LMMRegressor(FORMULA), lj.MixedEffectsRegressor(0, groups=1)):
        assert_allclose(regressor.fit(table, labelled).predict(table), fit.fittedvalues, rtol=1e-9)
        assert_allclose(regressor.score(table, labelled), 1 - fit.resid.var() / y.var(), rtol=1e-3)


def test_weights_of_zero_leave_rows_out(sleepstudy, table, y):
    weights = 1.0 + sleepstudy["Days"] % 3
    weights[::7] = 0.0
    kept = sleepstudy[weights > 0]
    expected = lj.lmm(INTERCEPTS, kept, weights=weights[weights > 0]).fit()
    for regressor in (lj.LMMRegressor(INTERCEPTS), lj.MixedEffectsRegressor(groups=1)):
        result = regressor.fit(table, y, sample_weight=weights).result_
        assert_allclose(result.deviance, expected.deviance, rtol=1e-10)


def test_what_depends_on_others_is_missing(table, y):
    x = table.assign(twice=2.0 * table["Days"])[["Days", "twice", "Subject"]]
    regressor = lj.MixedEffectsRegressor(groups="Subject").fit(x, y)
    assert np.isnan(regressor.coef_[1])
    assert np.isfinite(regressor.predict(x)).all()
    with pytest.warns(lj.EstimabilityWarning, match="not estimable"):
        apart = regressor.predict(x.assign(twice=0.0))
    assert np.isnan(apart[1])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lj.MixedEffectsRegressor(), "pass groups to fit, or name columns of X"),
        (lj.MixedEffectsRegressor(groups="Day"), "did you mean 'Days'"),
        (lj.MixedEffectsRegressor(groups=2), "positions below 2"),
        (lj.MixedEffectsRegressor().set_params(groups="g"), "unknown column in groups 'g'"),
        (lj.MixedEffectsRegressor("Subject", groups="Subject"), "a column of groups: take it out"),
        (lj.MixedEffectsRegressor(groups=1, random_intercept=False), "there are no random effects"),
        (lj.LMMRegressor("log(Reaction) ~ Days + (1 | Subject)"), "y cannot take its place"),
        (lj.LMMRegressor(FORMULA, weights="Days"), "beside weights"),
    ],
)
def test_what_cannot_be_fitted(made, message, table, y):
    options = {"sample_weight": np.ones(len(y))} if "beside" in message else {}
    with pytest.raises(ValueError, match=message):
        made.fit(table.astype({"Subject": float}), y, **options)


def test_only_groups(table, y):
    """Without a column of numbers, means of groups are shrunk towards that of all."""
    null = lj.MixedEffectsRegressor(groups="Subject").fit(table[["Subject"]], y)
    assert null.coef_.shape == (0,)
    assert_allclose(null.intercept_, y.mean(), rtol=1e-9)
    means = y.groupby(table["Subject"]).transform("mean")
    apart = null.predict(table[["Subject"]]) - y.mean()
    between, within = null.result_.estimate.psi
    assert_allclose(apart, (means - y.mean()) * between / (between + within / 10), rtol=1e-6)


def test_a_response_of_the_formula(sleepstudy, table):
    transformed = lj.LMMRegressor("log(Reaction) ~ Days + (1 | Subject)").fit(sleepstudy)
    assert transformed.score(sleepstudy) > 0.5
    with pytest.raises(ValueError, match="y cannot take its place"):
        transformed.score(sleepstudy, sleepstudy["Reaction"])
    with pytest.raises(ValueError, match="has no response: pass y"):
        lj.LMMRegressor("~ Days + (1 | Subject)").fit(table)
