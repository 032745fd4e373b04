"""Degrees of freedom of many responses: each equals those of its own fit, however it was computed."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import lmmjax as lj
from lmmjax.batch import ddf as batch_ddf

T = 24
METHODS = ("satterthwaite", "kenward-roger")


@pytest.fixture(scope="module")
def data(sleepstudy):
    sex = np.where(pd.factorize(sleepstudy["Subject"])[0] % 2, "f", "m")
    return sleepstudy.assign(sex=sex).drop(index=[3, 40, 41, 99])


@pytest.fixture(scope="module")
def y(data):
    """Responses of very different scale; every third has no random effects: some fits are singular."""
    rng = np.random.default_rng(4)
    code, days = pd.factorize(data["Subject"])[0], data["Days"].to_numpy()
    out = np.empty((len(data), T))
    for k in range(T):
        b = rng.normal(size=(18, 2)) * [1.5, 0.3] * (k % 3 > 0)
        out[:, k] = 5 + b[code, 0] + b[code, 1] * days + rng.normal(size=len(data))
        out[:, k] *= 10.0 ** (k - T / 2)
    return out


def batch(data, y, formula="~ Days + sex + (Days | Subject)", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return lj.lmm(formula, data).fit_batch(y, **options)


def compare(fits, names, ddf, rtol=1e-7):
    # nothing that was computed in another way is recalled
    fits.fitted.cache.clear()
    table = fits.t_tests(ddf)
    for name in names:
        single = fits[name].coef_table(ddf)
        k = list(fits.names).index(name)
        for column in ("estimate", "se", "df", "t"):
            assert_allclose(table[column][k], single[column], rtol=rtol, err_msg=f"{name} {column}")
        # a relative error of t is one of t·dt in p
        assert_allclose(table["p"][k], single["p"], rtol=1e3 * rtol)


@pytest.fixture(scope="module")
def shared(data, y):
    formulas = ("~ Days + sex + (Days | Subject)", "~ Days + sex + (1 | Subject)")
    return {formula: batch(data, y[:, :12], formula) for formula in formulas}


@pytest.mark.parametrize("ddf", METHODS)
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("formula", ["~ Days + sex + (Days | Subject)", "~ Days + sex + (1 | Subject)"])
def test_shared_design(shared, formula, mapped, ddf, monkeypatch):
    fits = shared[formula]
    assert fits.is_singular.any()
    if mapped:
        monkeypatch.setattr(batch_ddf.SharedDesign, "few", 0)
    compare(fits, fits.names[::2], ddf)


@pytest.fixture(scope="module")
def own(data, y):
    """Twelve responses with holes, without and with weights."""
    rng = np.random.default_rng(0)
    y = y[:, :12]
    holes = np.where(rng.random(y.shape) < 0.1, np.nan, y)
    holes[:, 5] = np.nan
    holes[:, :4] = y[:, :4]
    return [batch(data, holes), batch(data, holes, weights=rng.uniform(0.5, 2.0, y.shape))]


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("ddf", METHODS)
def test_designs_of_their_own(own, ddf, mapped, monkeypatch):
    if mapped:
        monkeypatch.setattr(batch_ddf.OwnDesigns, "few", 0)
    for fits in own:
        # products of rows with weight zero and of the rows that are left differ by rounding
        compare(fits, [k for k in range(7, 12) if fits.converged[k]], ddf, rtol=1e-6)
        assert np.isnan(fits.df(ddf).loc[5]).all()
        assert np.isfinite(fits.df(ddf).loc[0]).all()


def test_several_factors(data, y):
    fits = batch(data, y[:, :3], "~ Days + (1 | Subject) + (1 | sex:Days)")
    for ddf in METHODS:
        compare(fits, fits.names, ddf)


def test_no_random_effects(data, y):
    fits = batch(data, y[:, :3], "~ Days + sex")
    assert_allclose(fits.df(), len(data) - 3, rtol=1e-9)


def test_tables(data, y):
    fits = batch(data, pd.DataFrame(y, columns=[f"g{k}" for k in range(T)]))
    table = fits.t_tests()
    assert_allclose(fits.pvalues, 2 * stats.t.sf(np.abs(table["t"]), table["df"]), rtol=1e-8)
    tidy = fits.tidy()
    fixed = tidy[tidy["effect"] == "fixed"]
    assert_allclose(fixed["df"], table["df"].ravel(), rtol=0)
    assert tidy.loc[tidy["effect"] == "random", "df"].isna().all()
    normal = fits.tidy(ddf="normal")
    assert np.isinf(normal.loc[normal["effect"] == "fixed", "df"]).all()
    assert_allclose(
        fits.top("Days", T, ddf="kenward-roger")["df"].loc[fits.names], fits.df("kenward-roger")["Days"]
    )
    contrast = fits.contrast("Days - 2 * sex[T.m]", ddf="kenward-roger")
    for name in ("g1", "g3"):
        single = fits[name].test("Days - 2 * sex[T.m]", ddf="kenward-roger").iloc[0]
        expected = single[["estimate", "se", "den_df", "t", "p"]]
        assert_allclose(contrast.loc[name, ["estimate", "se", "df", "t", "p"]], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="unknown ddf 'kra'; choose one of: satterthwaite"):
        fits.df("kra")


def test_kenward_roger_of_maximum_likelihood(data, y):
    by_ml, by_reml = batch(data, y[:, :4], reml=False), batch(data, y[:, :4])
    assert by_reml.by_reml is by_reml
    ours, expected = by_ml.t_tests("kenward-roger"), by_reml.t_tests("kenward-roger")
    for name in ("estimate", "se", "df", "p"):
        assert_allclose(ours[name], expected[name], rtol=1e-9)
    assert np.all(by_ml.df() != by_reml.df())
