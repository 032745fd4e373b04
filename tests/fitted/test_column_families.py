"""Families of random effects that mean levels of a factor: which columns suit them, and where these are."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.covariance import FAMILIES, family

NEEDS = [name for name in FAMILIES if family(name).columns != "any"]
ORDERED = [name for name in FAMILIES if family(name).columns == "ordered"]
WEEKS = np.array([1, 2, 4, 5, 8, 9])


def visits():
    """An AR(1) of ten weeks seen in six of them, the week written in several ways."""
    rng = np.random.default_rng(1)
    g, t = np.repeat(np.arange(60), 6), np.tile(WEEKS, 60)
    e = np.zeros((60, 10))
    e[:, 0] = rng.normal(size=60)
    for k in range(1, 10):
        e[:, k] = 0.7 * e[:, k - 1] + 0.51**0.5 * rng.normal(size=60)
    data = pd.DataFrame({"g": g, "t": t, "y": e[g, t], "known": 1e-7})
    data["level"] = pd.Categorical(t, categories=range(1, 10), ordered=True)
    data["text"] = "V" + pd.Series(t + 5).astype(str)
    data["day"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(7 * data["t"], "D")
    data["second"] = 604800 * t
    # days that have no common divisor but 1
    data["uneven"] = 365 * t + (t > 4)
    data["name"] = data["t"].map(dict(zip(WEEKS, "zyxwvu", strict=True)))
    return data


DATA = visits()


def test_the_families_that_need_levels():
    assert set(NEEDS) == {"cs", "homcs", "homdiag", "ar1", "hetar1", "toep", "homtoep", "fa"}
    assert set(ORDERED) == {"ar1", "hetar1", "toep", "homtoep"}


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.parametrize("columns", ["C(t)", "1 + C(t)", "t + I(t**2)", "C(t) + t"])
def test_other_columns_are_refused(name, columns):
    if name == "fa" and columns.startswith("t +"):
        return
    remedy = rf"write {name}\(0 \+ C\(t\) " if "C(t)" in columns[-6:] else r"write .*\(0 \+ |use us\(...\)"
    with pytest.raises(ValueError, match=rf"\({name}\(.*needs the levels of one factor.*({remedy})"):
        lj.lmm(f"y ~ {name}({columns} | g)", DATA)


@pytest.mark.parametrize("name", ORDERED)
def test_nominal_text_has_no_order(name):
    with pytest.raises(ValueError, match=r"column 'name' is text .* of which no order is known: make it"):
        lj.lmm(f"y ~ {name}(0 + name | g)", DATA)
    with pytest.raises(ValueError, match="needs the levels of one factor"):
        lj.lmm(f"y ~ {name}(0 + C(t):C(g % 2) | g)", DATA)


@pytest.mark.parametrize("name", ["cs", "hetar1", "toep"])
def test_a_term_of_two_columns_with_two_variances_is_unstructured(name):
    term = lj.lmm(f"y ~ t + {name}(t | g)", DATA).data.frame.random[0]
    matrix = np.array([[2.0, -0.3], [-0.3, 0.5]])
    assert_allclose(term.family.matrix(term.family.natural(matrix), 2), matrix, rtol=1e-12)


@pytest.mark.parametrize("name", ["homcs", "homdiag", "ar1"])
def test_matrices_of_an_intercept_and_others(name):
    z = np.column_stack([np.ones(len(DATA)), DATA["t"]])
    with pytest.raises(ValueError, match=rf"{name} needs the levels of one factor"):
        lj.Model.from_arrays(DATA["y"], np.ones((len(DATA), 1)), DATA["g"], z, structure=name)


@pytest.mark.parametrize("column", ["C(t)", "level", "C(level)", "text", "C(day)", "C(second)"])
@pytest.mark.parametrize("name", ORDERED)
def test_columns_are_at_the_places_of_their_levels(name, column):
    own = lj.lmm(f"y ~ {name}(0 + {column} | g)", DATA).data.frame.random[0]
    # columns come in the order of the labels
    order = np.argsort((WEEKS + 5).astype(str) if column == "text" else WEEKS)
    assert own.places == tuple(int(k) for k in WEEKS[order] - 1)


@pytest.mark.parametrize("name", ORDERED)
def test_a_family_with_places_is_a_part_of_the_whole(name):
    places, whole = WEEKS - 1, family(name)
    own = whole.at(tuple(places))
    rng = np.random.default_rng(3)
    k = len(WEEKS) if name in ("hetar1", "toep") else 1
    theta = rng.uniform(0.4, 1.0, own.n_params(len(WEEKS)))
    a = own.decode(theta, len(WEEKS))
    variances = np.ones(9)
    variances[places] = a[:k] if k > 1 else 1.0
    full = whole.matrix(np.concatenate([variances if k > 1 else a[:1], a[k:]]), 9)
    assert_allclose(own.matrix(a, len(WEEKS)), full[np.ix_(places, places)], rtol=1e-12)
    assert_allclose(own.encode(a, len(WEEKS)), theta, rtol=1e-9)
    # the lag of 6 weeks was never seen, so that nothing is known of its correlation
    again = own.natural(own.matrix(a, len(WEEKS)))
    assert_allclose(own.matrix(again, len(WEEKS)), own.matrix(a, len(WEEKS)), rtol=1e-9)


def test_an_autoregression_with_places_is_that_of_residuals():
    # nlme's corAR1 at these weeks, as residual structures have it
    model = lj.lmm("y ~ 1 + ar1(0 + level | g)", DATA, residual=lj.KnownVariance("known"))
    assert_allclose(model.fit().deviance, 841.474556, atol=1e-4)


def test_places_in_a_batch():
    y = np.stack([DATA["y"], DATA["y"] + np.random.default_rng(0).normal(size=len(DATA))], axis=1)
    many = lj.lmm("~ 1 + ar1(0 + C(uneven) | g)", DATA).fit_batch(y)
    assert_allclose(
        many.deviance[0], lj.lmm("y ~ 1 + ar1(0 + C(uneven) | g)", DATA).fit().deviance, rtol=1e-9
    )
    assert_allclose(many.deviance[1], many[1].deviance, rtol=1e-9)


def test_correlation_of_far_columns_is_that_of_one_step():
    days = lj.lmm("y ~ 1 + ar1(0 + C(uneven) | g)", DATA).fit()
    weeks = lj.lmm("y ~ 1 + ar1(0 + C(t) | g)", DATA).fit()
    assert_allclose(days.varcorr()["sdcor"][1] ** 365, weeks.varcorr()["sdcor"][1], rtol=1e-2)
    with pytest.raises(ValueError, match=r"span 2921 steps .* each distance a parameter: number"):
        lj.lmm("y ~ 1 + homtoep(0 + C(uneven) | g)", DATA)
