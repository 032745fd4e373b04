"""Many responses: the same numbers as one by one; a bad response harms nobody."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj

T = 6


@pytest.fixture(scope="module")
def model(sleepstudy):
    return lj.lmm("~ Days + (Days | Subject)", sleepstudy)


@pytest.fixture(scope="module")
def responses(sleepstudy):
    """Responses from strong to no random effects: two of them are singular."""
    rng = np.random.default_rng(3)
    subject = pd.factorize(sleepstudy["Subject"])[0]
    days = sleepstudy["Days"].to_numpy()
    y = rng.normal(size=(180, T))
    for k in range(4):
        b = rng.normal(size=(18, 2)) * [1.0 + k, 0.3]
        y[:, k] += 10 * k + b[subject, 0] + b[subject, 1] * days
    return pd.DataFrame(y, columns=[f"gene{k}" for k in range(T)], index=sleepstudy.index)


@pytest.fixture(scope="module")
def fits(model, responses):
    return model.fit_batch(responses)


def assert_same_fit(a, b, tol=1e-7):
    """Two descents to one optimum: the criterion to rounding, the point to its square root."""
    assert_allclose(a.deviance, b.deviance, rtol=1e-11)
    assert_allclose(a.params, b.params, rtol=tol)
    assert_allclose(a.bse, b.bse, rtol=tol)
    assert_allclose(a.estimate.psi, b.estimate.psi, rtol=0, atol=tol * a.estimate.psi.max())
    assert a.converged
    assert a.is_singular == b.is_singular


@pytest.mark.parametrize("reml", [True, False])
def test_equals_a_loop_of_fits(model, responses, fits, reml):
    batch = fits if reml else model.fit_batch(responses, reml=False)
    assert batch.converged.all()
    for name in responses:
        single = model.fit_response(responses[name], reml)
        assert_same_fit(batch[name], single)
        assert_allclose(batch.llf[name], single.llf, rtol=1e-11)
        assert_allclose(batch.params.loc[name], single.params, rtol=1e-7)
        assert_allclose(batch.pvalues.loc[name], single.pvalues, rtol=1e-5)
        assert_allclose(
            batch.varcorr.loc[name], single.estimate.psi, rtol=0, atol=1e-7 * single.estimate.psi.max()
        )
        se = batch.varcorr_se.loc[name].to_numpy()
        assert np.array_equal(np.isnan(se), np.isnan(single.varcorr()["se"]))
        assert_allclose(se, single.varcorr()["se"], rtol=1e-5)
        assert_allclose(batch.sigma[name], single.sigma, rtol=1e-7)
        assert batch.is_singular[name] == single.is_singular
    assert 0 < batch.is_singular.sum() < T


STRUCTURES = {
    "intercepts": ("~ Days + (1 | Subject)", {}),
    "uncorrelated": ("~ Days + (Days || Subject)", {}),
    "two terms": ("~ Days + (1 | Subject) + (0 + Days | Subject)", {}),
    "weights and offset": ("~ Days + (Days | Subject)", {"weights": "1 + Days", "offset": "Days"}),
    "raw": ("~ Days + (Days | Subject)", {"irregular": True}),
    "no random effects": ("~ Days", {}),
    "no fixed effects": ("~ 0 + (1 | Subject)", {}),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_equals_a_loop_of_fits(name, sleepstudy, responses):
    formula, options = STRUCTURES[name]
    if options.get("irregular"):
        # no two groups alike, and missing rows
        rng = np.random.default_rng(8)
        sleepstudy = sleepstudy.assign(Days=sleepstudy["Days"] + rng.normal(size=180) / 9)[
            rng.random(180) < 0.9
        ]
        responses = responses.loc[sleepstudy.index]
    model = lj.lmm(formula, sleepstudy, **{k: v for k, v in options.items() if k != "irregular"})
    batch = model.fit_batch(responses)
    for response in responses:
        assert_same_fit(batch[response], model.fit_response(responses[response]))


def test_hundreds_of_responses(model):
    """Enough for the lanes that are not done to be compacted, in more than one chunk of work."""
    rng = np.random.default_rng(6)
    frame = model.frame
    size = 10.0 ** rng.uniform(-2, 1.5, (700, 1, 2)) * (rng.random((700, 1, 2)) < 0.7)
    b = rng.normal(size=(700, 18, 2)) * size
    z = frame.random[0].z
    y = rng.normal(size=(700, 180)) + np.sum(z * b[:, frame.random[0].codes], axis=2)
    batch = model.fit_batch(y.T)
    assert batch.converged.all()
    assert 0.3 < batch.is_singular.mean() < 0.8
    for k in range(0, 700, 23):
        assert_same_fit(batch[k], model.fit_response(y[k]))


def test_a_batch_of_many_rows():
    """More rows than are read at a time, at 300,000 a response."""
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(3_000), 100)
    y = rng.normal(size=(len(group), 3)) + rng.normal(size=(3_000, 3))[group]
    model = lj.lmm("~ 1 + (1 | g)", pd.DataFrame({"g": group}))
    fits = model.fit_batch(y)
    # balanced, so that REML is the analysis of variance (Searle, Casella & McCulloch 1992, section 3.8)
    means = y.reshape(3_000, 100, 3).mean(axis=1)
    within = y.reshape(3_000, 100, 3).var(axis=1).mean(axis=0) * 100 / 99
    between = means.var(axis=0, ddof=1) - within / 100
    assert_allclose(fits.params.to_numpy()[:, 0], means.mean(axis=0), atol=1e-12)
    assert_allclose(fits.varcorr.to_numpy(), np.stack([between, within], axis=1), rtol=1e-8)


def test_one_response_of_a_batch_is_a_whole_fit(fits, model, responses):
    one, single = fits["gene1"], model.fit_response(responses["gene1"])
    assert isinstance(one, lj.Fit)
    assert one.response == "gene1"
    assert_allclose(one.random_effects["Subject"], single.random_effects["Subject"], rtol=0, atol=1e-6)
    assert_allclose(one.augment()["gene1"], responses["gene1"])
    assert "gene1" in one.augment().columns
    with pytest.raises(KeyError, match="no response 'gene99' in this batch"):
        fits["gene99"]
    assert (len(fits), repr(fits)) == (
        T,
        f"BatchFit('~ Days + (Days | Subject)', {T} responses, {T} converged)",
    )


def test_names(fits):
    assert list(fits.params.columns) == ["Intercept", "Days"]
    assert list(fits.params.index) == [f"gene{k}" for k in range(T)]
    assert list(fits.varcorr.columns) == [
        ("Subject", "(Intercept)", ""),
        ("Subject", "Days", ""),
        ("Subject", "(Intercept)", "Days"),
        ("Residual", "", ""),
    ]
    assert set(fits.status) == {"converged"}


@pytest.mark.parametrize("kind", [np.asarray, pl.from_pandas, lambda y: y.to_numpy(dtype=np.float32)])
def test_kinds_of_input(kind, model, responses, fits):
    batch = model.fit_batch(kind(responses))
    tol = 1e-5 if np.asarray(kind(responses)).dtype == np.float32 else 1e-12
    assert_allclose(batch.params, fits.params, rtol=0, atol=tol * 30)
    assert list(batch.names) == (list(responses) if hasattr(kind(responses), "columns") else list(range(T)))


def test_bad_responses_are_marked_and_harm_nobody(model, responses, fits):
    bad = responses.copy()
    bad.insert(1, "nan", np.nan)
    bad.insert(3, "inf", np.where(np.arange(180) == 8, np.inf, 1.0))
    bad.insert(4, "constant", 2.5)
    with pytest.warns(UserWarning, match="3 of 9 responses could not be fitted") as caught:
        batch = model.fit_batch(bad)
    assert len(caught) == 1
    assert dict(batch.status[["nan", "inf", "constant"]]) == {
        "nan": "not_estimable",
        "inf": "not_finite",
        "constant": "perfect_fit",
    }
    for table in (batch.params, batch.bse, batch.varcorr):
        assert table.loc[["nan", "inf", "constant"]].isna().all(axis=None)
    assert batch.llf[["nan", "inf", "constant"]].isna().all()
    # the rest as without them
    good = list(responses)
    for table, expected in (
        (batch.params, fits.params),
        (batch.bse, fits.bse),
        (batch.varcorr, fits.varcorr),
    ):
        assert_allclose(table.loc[good], expected, rtol=1e-12, atol=1e-12)
    assert np.array_equal(batch.is_singular[good], fits.is_singular)


def test_rows_follow_those_of_the_model(sleepstudy, responses):
    lost = sleepstudy.assign(Days=sleepstudy["Days"].astype(float).where(sleepstudy.index % 9 != 4))
    model = lj.lmm("~ Days + (1 | Subject)", lost)
    kept = model.frame.rows
    a, b = model.fit_batch(responses), model.fit_batch(responses.iloc[kept])
    assert_allclose(a.params, b.params, rtol=1e-14)
    assert_allclose(a["gene2"].params, model.fit_response(responses["gene2"].iloc[kept]).params, rtol=1e-7)


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        (np.zeros((T, 180)), r"responses have 6 rows; the data have 180: .*transpose it"),
        (np.zeros(180), r"responses have shape \(180,\): pass an n × T array"),
        (np.zeros((180, 0)), r"responses have shape \(180, 0\): pass an n × T array"),
        (pd.DataFrame({"a": np.ones(180), "b": "x"}), "response 'b' is not numeric"),
        (pl.DataFrame({"a": np.ones(180), "b": ["x"] * 180}), "response 'b' is not numeric"),
        ([["x"]] * 180, "responses are not numeric"),
    ],
)
def test_bad_tables(model, responses, message):
    with pytest.raises(ValueError, match=message):
        model.fit_batch(responses)


def test_missing_values_of_pandas(model, responses):
    """Nullable columns: the response with a missing value is marked, integers are numbers."""
    table = pd.DataFrame(
        {"whole": pd.array(np.arange(180) % 7, "Int64"), "lost": pd.array([None] * 180, "Float64")}
    )
    with pytest.warns(UserWarning, match="1 of 2 responses could not be fitted"):
        batch = model.fit_batch(table)
    assert list(batch.converged) == [True, False]


def test_a_batch_is_read_like_a_dict_of_fits(fits, responses):
    assert list(fits) == list(responses)
    assert "gene1" in fits
    assert "gene9" not in fits
    assert ["gene1"] not in fits
    assert_allclose([fits[name].deviance for name in fits], fits.deviance)


def test_models_of_large_batches_are_pickled():
    d = pd.DataFrame({"x": np.arange(12.0) % 5, "g": np.arange(12) % 4})
    model, y = lj.lmm("~ x + (1 | g)", d), np.sin(np.arange(36.0)).reshape(12, 3)
    expected = model.data.maker.lanes(y)
    again = pickle.loads(pickle.dumps(model)).data.maker.lanes(y)
    np.testing.assert_array_equal(again.response.within_xy, expected.response.within_xy)
