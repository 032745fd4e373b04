"""Moderated tests of batches: limma's for ordinary models and within balanced groups, honest df elsewhere."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

LIMMA = json.loads((Path(__file__).parents[1] / "reference" / "limma.json").read_text())
META = pd.DataFrame({name: LIMMA[name] for name in ("group", "x", "pair")})


def numbers(values):
    return np.array(pd.DataFrame(values).astype(float))


@pytest.fixture(scope="module")
def batches():
    model = lj.lmm("~ group + x", META)
    return {name: model.fit_batch(numbers(LIMMA[name]).T) for name in ("y", "holes")}


@pytest.mark.parametrize("name", ["plain", "robust", "trend+robust", "missing", "missing+trend"])
def test_equals_limma(batches, name):
    """lmFit, contrasts.fit, eBayes and treat, of which 11 digits are kept."""
    expected = LIMMA["arrays"][name]
    found = batches["holes" if "missing" in name else "y"].moderate("trend" in name, "robust" in name)
    table, shape = found.table, (80, 3)
    wide = {column: table[column].to_numpy().reshape(shape) for column in table.columns[2:]}
    np.testing.assert_allclose(
        np.broadcast_to(found.df_prior, 80), np.broadcast_to(expected["df_prior"], 80), 1e-8
    )
    np.testing.assert_allclose(
        np.broadcast_to(found.var_prior, 80), np.broadcast_to(expected["var_prior"], 80), 1e-8
    )
    for column in ("s2", "df", "s2_post", "df_total"):
        for k in range(3):
            np.testing.assert_allclose(wide[column][:, k], expected[column], rtol=1e-8)
    for column, known in (("estimate", "coefficients"), ("t", "t"), ("p", "p")):
        np.testing.assert_allclose(wide[column], expected[known], rtol=1e-7, atol=1e-10)
    treated = found.treat("group", 0.2)
    np.testing.assert_allclose(treated["p"], numbers(expected["treat_p"])[:, 1], rtol=1e-7)
    np.testing.assert_allclose(treated["t"], numbers(expected["treat_t"])[:, 1], rtol=1e-7, atol=1e-10)
    if "missing" not in name:
        both = found.contrast({"group": {"group": 1}, "both": {"group": 1, "x": -2}})
        np.testing.assert_allclose(both["t"].to_numpy().reshape(2, 80).T, expected["contrast_t"], rtol=1e-7)
        joint = found.test(["group", "x"])
        np.testing.assert_allclose(joint["F"], expected["F"], rtol=1e-7)
        np.testing.assert_allclose(joint["p"], expected["F_p"], rtol=1e-7)
        assert (joint["num_df"] == 2).all()


@pytest.fixture(scope="module")
def paired():
    """Halves of −½ and ½, so that the intercept varies between pairs alone."""
    model = lj.lmm("~ half + (1 | pair)", META.assign(half=META["group"] - 0.5))
    return model.fit_batch(numbers(LIMMA["paired"]).T)


def test_within_pairs_it_is_the_model_with_an_intercept_for_each(paired):
    expected, plain = LIMMA["within"], paired.t_tests()
    assert not paired.is_singular.any()
    found = paired.moderate()
    rows = found.table.query("coefficient == 'half'")
    assert found.df_prior == pytest.approx(expected["df_prior"], rel=1e-6)
    for column in ("s2", "df_total", "t", "p"):
        np.testing.assert_allclose(rows[column], expected[column], rtol=1e-6)
    # what varies between pairs is known as before
    between = found.table.query("coefficient == 'Intercept'")
    for column, ours in (("df_total", "df"), ("t", "t"), ("p", "p")):
        np.testing.assert_allclose(between[column], plain[ours][:, 0], rtol=1e-6)


def test_kenward_roger(paired):
    """Of balanced pairs it has nothing to adjust."""
    few = paired[paired.names[:6]]
    columns = ["t", "df_total", "p"]
    one, other = few.moderate(ddf="kenward-roger").table[columns], few.moderate().table[columns]
    np.testing.assert_allclose(one, other, rtol=1e-6)
    joint = [few.moderate(ddf=ddf).test(["Intercept", "half"])[["F", "p"]] for ddf in ("kr", "satt")]
    np.testing.assert_allclose(*joint, rtol=1e-6)


def test_what_top_and_treat_say(batches):
    fits, names = batches["y"], ["estimate", "se", "df", "lower", "upper", "t", "p", "q"]
    top = fits.top("group", 5, moderated=True)
    assert list(top.drop(columns="average").columns) == names
    table = fits.moderate().table.query("coefficient == 'group'").set_index("response")
    np.testing.assert_allclose(top["p"], np.sort(table["p"])[:5])
    np.testing.assert_allclose(top[["t", "q"]], table.loc[top.index, ["t", "q"]])
    contrast = fits.top(contrast="group - x", n=80, moderated=True)
    np.testing.assert_allclose(
        contrast[names].sort_index(), fits.moderate().contrast("group - x")[names], rtol=1e-12
    )
    treated = fits.treat("group", 0.2, robust=True)
    np.testing.assert_allclose(treated, fits.moderate(robust=True).treat("group", 0.2))
    assert (treated["p"] >= fits.moderate(robust=True).contrast("group")["p"]).all()


def test_a_trend_of_ones_own_goes_by_label(batches):
    fits = batches["y"]
    size = pd.Series(np.linspace(1, 9, 80) ** 2, index=fits.names)
    one, other = fits.moderate(size), fits.moderate(size.sample(frac=1, random_state=1))
    pd.testing.assert_series_equal(one.var_prior, other.var_prior)
    pd.testing.assert_series_equal(one.var_prior, fits.moderate(size.to_numpy()).var_prior)
    with pytest.raises(ValueError, match="one number for each of 80 responses"):
        fits.moderate(np.ones(3))


def test_a_response_without_a_fit_spoils_none(paired):
    y, model = numbers(LIMMA["paired"]).T[:, :5], paired.model
    empty, infinite = np.full(10, np.nan), np.r_[np.inf, y[1:, 0]]
    half = np.where(META["group"] == 1, np.nan, y[:, 0])
    with pytest.warns(UserWarning, match="could not be fitted"):
        found = model.fit_batch(np.column_stack([empty, y, infinite, half])).moderate()
    plain = paired[paired.names[:5]].moderate()
    wide = found.table["t"].to_numpy().reshape(8, 2)
    np.testing.assert_allclose(wide[1:6], plain.table["t"].to_numpy().reshape(5, 2), rtol=1e-6)
    # five values of five pairs leave nothing to tell the variances apart
    assert np.isnan(wide[[0, 6, 7]]).all()
    joint = found.test(["Intercept", "half"])
    assert joint["F"].isna().tolist() == [True, *[False] * 5, True, True]


def test_fits_by_maximum_likelihood_are_refitted(paired):
    found = paired.model.fit_batch(numbers(LIMMA["paired"]).T[:, :5], reml=False).moderate()
    assert found.df_prior == pytest.approx(paired[paired.names[:5]].moderate().df_prior, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "piece"),
    [
        (lambda f: f.moderate(ddf="normal"), "moderated tests are t tests"),
        (lambda f: f.treat("group", -1.0), "at least 0"),
        (lambda f: f.treat("Group"), "unknown coefficient"),
        (lambda f: f.treat(), "one coefficient, term="),
        (lambda f: f.top("group", moderated=True, robust="CR2", cluster="pair"), "not moderated"),
        (lambda f: f[f.names[:1]].moderate(), "1 of 1 responses"),
    ],
)
def test_what_is_refused(batches, call, piece):
    with pytest.raises(ValueError, match=piece):
        call(batches["y"])
