"""Influence by differences of products against fits to the rows that are left."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.batch import leave_out
from lmmjax.postestimation.diagnostics.influence import OBSERVATION


def by_refits(fit, group=None):
    """The same, every level by a problem made from the rows that are left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leave_out, "_by_difference", lambda *args: np.zeros(len(args[-1].status), bool))
        return fit.influence(group)


def assert_equal(a, b):
    """Two optima of a criterion known to 2e-14 differ by √(2e-14) ≈ 1e-7 in θ; β and its errors by less.

    Correlations near 0 and sds near 0 have that as an absolute error; a distance has twice the error of its
    β̂, relative to the change, which can be a hundredth of a standard error.
    """
    assert list(a.status) == list(b.status)
    assert_allclose(a.params, b.params, rtol=1e-7, atol=1e-9)
    assert_allclose(a.bse, b.bse, rtol=1e-7)
    assert_allclose(a.sdcor, b.sdcor, rtol=1e-6, atol=1e-6)
    assert_allclose(a.cooks_distance, b.cooks_distance, rtol=1e-4, atol=1e-8)


@pytest.fixture(scope="module")
def unbalanced():
    """Groups of one to six rows, a covariate of the groups."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(16), np.resize([1, 2, 4, 6], 16))
    x, n = rng.normal(size=len(g)), len(g)
    y = 5 + x + rng.normal(size=16)[g] + 0.5 * rng.normal(size=16)[g] * x + rng.normal(size=n)
    between = rng.normal(size=16)[g]
    return pd.DataFrame({"y": y, "x": x, "v": between, "w": rng.uniform(0.5, 2, n), "g": g})


@pytest.fixture(scope="module")
def few(sleepstudy):
    """Six subjects."""
    return sleepstudy[sleepstudy["Subject"].isin([308, 309, 310, 330, 331, 335])]


MODELS = {
    "intercepts": ("y ~ x + v + (1 | g)", {}),
    "slopes": ("y ~ x + v + (x | g)", {}),
    "weights": ("y ~ x + v + (1 | g)", {"weights": "w", "offset": "v"}),
    "ml": ("y ~ x + v + (1 | g)", {"reml": False}),
}


@pytest.mark.parametrize("group", ["g", OBSERVATION])
@pytest.mark.parametrize("name", MODELS)
def test_differences_equal_refits(unbalanced, name, group):
    formula, options = MODELS[name]
    options = dict(options)
    reml = options.pop("reml", True)
    fit = lj.lmm(formula, unbalanced, **options).fit(reml=reml)
    assert_equal(fit.influence(group), by_refits(fit, group))


@pytest.mark.parametrize("group", ["Subject", OBSERVATION])
def test_lanes_equal_refits(few, group, monkeypatch):
    """Many levels are fitted as one batch; here all are many."""
    fit = lj.lmm("Reaction ~ Days + (1 | Subject)", few).fit()
    expected = by_refits(fit, group)
    monkeypatch.setattr(leave_out, "MANY", 0)
    monkeypatch.setattr(leave_out, "CHUNK", 1000)
    assert_equal(fit.influence(group), expected)


def test_known_variances_stay_known(unbalanced):
    data = unbalanced.assign(s=np.linspace(0.5, 2.0, len(unbalanced)))
    fit = lj.lmm("y ~ x + (1 | g)", data, residual=lj.KnownVariance("s")).fit()
    assert_equal(fit.influence("g"), by_refits(fit, "g"))


def test_rows_are_labelled_by_the_data(few):
    shuffled = few.sample(frac=1, random_state=0)
    result = lj.lmm("Reaction ~ Days + (1 | Subject)", shuffled).fit().influence(OBSERVATION)
    assert list(result.params.index) == list(shuffled.index)
    row = shuffled.index[17]
    without = lj.lmm("Reaction ~ Days + (1 | Subject)", shuffled.drop(index=row)).fit()
    assert_allclose(result.params.loc[row], without.params, rtol=1e-7)
    assert_allclose(result.bse.loc[row], without.bse, rtol=1e-7)
    assert "60 levels of 'observation'" in repr(result)


def test_a_row_that_the_model_cannot_do_without(few):
    data = few.assign(one=(few.index == 5) * 1.0)
    result = lj.lmm("Reaction ~ Days + one + (1 | Subject)", data).fit().influence(OBSERVATION)
    assert result.status[5] == "not estimable: column 2 of the fixed-effects matrix is zero; drop it"
    assert (result.status.drop(5) == "converged").all()


def test_nearly_all_of_a_column_in_one_group(sleepstudy):
    """Subtraction would cost twelve digits of the column; those levels are fitted to their rows."""
    days = sleepstudy["Days"] * np.where(sleepstudy["Subject"] == 335, 1e6, 1.0)
    fit = lj.lmm("Reaction ~ d + (1 | Subject)", sleepstudy.assign(d=days)).fit()
    assert_equal(fit.influence(), by_refits(fit))


def test_nested_factors(few):
    """A factor whose levels are not the groups of the products is left out by its rows."""
    data = few.assign(half=few["Subject"].astype(str) + (few["Days"] > 4).astype(str))
    fit = lj.lmm("Reaction ~ 1 + (1 | Subject) + (1 | half)", data).fit()
    level = fit.model.frame.random[1].levels[7]
    without = lj.lmm("Reaction ~ 1 + (1 | Subject) + (1 | half)", data[data["half"] != level]).fit()
    result = fit.influence("half")
    assert_allclose(result.params.loc[level], without.params, rtol=1e-6)
    assert_allclose(result.bse.loc[level], without.bse, rtol=1e-5)
