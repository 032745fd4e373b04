"""Comparisons and deletion tables against lme4 and lmerTest; mixtures of χ² against their definitions."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from reference_data import FORMULAS, STORED, read
from scipy import stats

import lmmjax as lj
from lmmjax.inference.chisq import akaike_weights, boundary_weights, mixture_p
from lmmjax.postestimation.comparison.random_tests import deletions

MODELS = STORED["models"]
LRT = [name for name, ref in STORED["comparisons"].items() if ref["kind"] == "LRT"]
DELETED = [name for name, ref in MODELS.items() if "ranova" in ref]


def fitted(name):
    ref = MODELS[name]
    model = lj.lmm(FORMULAS.get(name) or ref["formula"], read(ref), weights=ref["weights"])
    return model.fit(reml=ref["method"] == "REML")


# --- compare -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LRT)
def test_compare_equals_lme4(name):
    ref = STORED["comparisons"][name]
    small, large = fitted(ref["small"]), fitted(ref["big"])
    table = lj.compare(large, small)
    assert list(table.columns[:8]) == ["npar", "aic", "bic", "llf", "deviance", "chisq", "df", "p"]
    assert list(table.index) == [small.model.formula, large.model.formula]
    assert_allclose(table["chisq"].iloc[1], ref["chisq"], rtol=1e-8)
    assert table["df"].iloc[1] == ref["df"]
    assert_allclose(table["p"].iloc[1], ref["p"], rtol=1e-7)
    assert_allclose(table["aic"], [small.aic, large.aic])
    assert list(table["criterion"]) == ["ML", "ML"]


@pytest.fixture(scope="module")
def three(sleepstudy):
    formulas = [f"Reaction ~ Days + {r}" for r in ("(Days | Subject)", "(1 | Subject)", "(Days || Subject)")]
    return [lj.lmm(formula, sleepstudy).fit() for formula in formulas]


def test_compare_refits(three):
    table = lj.compare(*three)
    assert list(table["criterion"]) == ["ML (refitted)"] * 3
    assert list(table["npar"]) == [4, 5, 6]
    ml = [three[k].refit(reml=False) for k in (1, 2, 0)]
    assert_allclose(table["deviance"], [f.deviance for f in ml], rtol=1e-12)
    assert_allclose(table["aicc"], [f.aicc for f in ml], rtol=1e-12)
    odds = np.exp(-0.5 * (table["aic"] - table["aic"].min()))
    assert_allclose(table["weight"], odds / odds.sum())
    as_they_are = lj.compare(*three, refit=False)
    assert list(as_they_are["criterion"]) == ["REML"] * 3
    assert_allclose(as_they_are["deviance"], [three[k].deviance for k in (1, 2, 0)], rtol=1e-12)
    # a variance is on the boundary, a covariance is not
    for t in (table, as_they_are):
        assert_allclose(t["p_boundary"].iloc[1], 0.5 * t["p"].iloc[1], rtol=1e-12)
        assert_allclose(t["p_boundary"].iloc[2], t["p"].iloc[2], rtol=1e-12)


def test_compare_fixed_and_random(sleepstudy, three):
    small = lj.lmm("Reaction ~ 1 + (1 | Subject)", sleepstudy).fit()
    table = lj.compare(small, three[0])
    chisq = table["chisq"].iloc[1]
    tails = stats.chi2.sf(chisq, [2, 3])
    assert table["df"].iloc[1] == 3
    assert_allclose(table["p_boundary"].iloc[1], tails.mean(), rtol=1e-10)


def test_compare_refuses(sleepstudy, three):
    data = sleepstudy.assign(half=sleepstudy["Subject"].astype(int) % 6, other=np.arange(180) % 9)

    def fit(formula, rows=slice(None), **options):
        return lj.lmm(formula, data[rows], **options).fit()

    rs = three[0]
    for others, message in (
        ((), "at least two"),
        ((fit("Reaction ~ Days + (1 | Subject)", slice(0, 170)),), "180 and 170 observations"),
        ((fit("np.log(Reaction) ~ Days + (1 | Subject)"),), "differ in their response"),
        ((fit("Reaction ~ Days + (1 | Subject)", weights="1 + Days"),), "differ in their weights"),
        ((fit("Reaction ~ Days + offset(Days) + (1 | Subject)"),), "differ in their offset"),
        ((fit("Reaction ~ other + (1 | Subject)"),), "fixed effects are not among"),
        ((fit("Reaction ~ Days + (1 | half)"),), "random term (1 | half) is not within one of the other"),
        ((fit("Reaction ~ Days + (0 + other | Subject)"),), "(0 + other | Subject) is not within"),
        ((rs.model,), "takes fits, not Model"),
    ):
        with pytest.raises(ValueError) as caught:
            lj.compare(rs, *others)
        assert message in str(caught.value)
    other = fit("Reaction ~ other + (1 | Subject)")
    forced = lj.compare(rs, other, force=True)
    assert np.isnan(forced["p"]).all()
    assert np.isfinite(forced["aic"]).all()
    with pytest.raises(ValueError, match="some models were fitted by REML"):
        lj.compare(rs, three[1].refit(reml=False), refit=False)
    with pytest.raises(ValueError, match="different fixed effects cannot be compared"):
        lj.compare(rs, fit("Reaction ~ 1 + (1 | Subject)"), refit=False)


# --- ranova ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DELETED)
def test_ranova_equals_lmertest(name):
    """The order of rows is that of our formula: lme4 takes nested factors the other way round."""
    ref = MODELS[name]["ranova"]
    theirs = pd.DataFrame(ref).set_index("rows")
    ours = fitted(name).ranova()
    assert list(ours.columns) == ["npar", "llf", "aic", "chisq", "df", "p", "p_boundary"]
    assert set(ours.index) == set(theirs.index)
    ours = ours.loc[theirs.index]
    assert list(ours["npar"]) == list(theirs["npar"])
    assert_allclose(ours["llf"], theirs["logLik"], rtol=0, atol=1e-8)
    assert_allclose(ours["aic"], theirs["AIC"], rtol=0, atol=2e-8)
    rest = slice(1, None)
    assert_allclose(ours["chisq"][rest], theirs["LRT"][rest].astype(float), rtol=1e-8, atol=1e-8)
    assert_allclose(ours["df"][rest], theirs["Df"][rest].astype(float))
    # a statistic that is zero but for rounding has a p-value near 1
    p = theirs["Pr(>Chisq)"][rest].astype(float)
    assert_allclose(ours["p"][rest], p, rtol=1e-6, atol=1e-6)


def test_ranova_boundary(three):
    slope = three[0].ranova().loc["Days in (Days | Subject)"]
    assert_allclose(slope["p_boundary"], stats.chi2.sf(slope["chisq"], [1, 2]).mean(), rtol=1e-10)
    whole = three[1].ranova().loc["(1 | Subject)"]
    assert_allclose(whole["p_boundary"], 0.5 * stats.chi2.sf(whole["chisq"], 1), rtol=1e-10)


def test_ranova_of_factors_and_interactions(sleepstudy):
    """A factor coded by all levels leaves an intercept behind, as in lmerTest; interactions go first."""
    data = sleepstudy.assign(late=np.where(sleepstudy["Days"] > 4, "yes", "no"))
    full = lj.lmm("Reaction ~ Days + (0 + late | Subject)", data).fit()
    table = full.ranova()
    assert list(table.index) == ["<none>", "late in (0 + late | Subject)"]
    assert table["df"].iloc[1] == 2
    smaller = lj.lmm("Reaction ~ Days + (1 | Subject)", data).fit()
    assert_allclose(table["llf"].iloc[1], smaller.llf, rtol=1e-10)
    crossed = lj.lmm("Reaction ~ Days + (Days * late | Subject)", data).data.frame
    assert [label for label, *_ in deletions(crossed)] == ["Days:late in (Days*late | Subject)"]


def test_ranova_of_matrices(three, sleepstudy):
    """Without a formula every column is a term."""
    x = np.column_stack([np.ones(180), sleepstudy["Days"]])
    model = lj.Model.from_arrays(sleepstudy["Reaction"].to_numpy(), x, sleepstudy["Subject"].to_numpy(), x)
    ours = model.fit().ranova()
    assert len(ours) in (2, 3)
    assert_allclose(ours["chisq"].iloc[-1], three[0].ranova()["chisq"].iloc[-1], rtol=1e-8)


# --- mixtures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regular", "blocks", "weights"),
    [
        (0, [(1, 0)], {0: 0.5, 1: 0.5}),
        (0, [(1, 2)], {2: 0.5, 3: 0.5}),
        (0, [(1, 0)] * 3, {0: 1 / 8, 1: 3 / 8, 2: 3 / 8, 3: 1 / 8}),
        (2, [(0, 1), (1, 0)], {3: 0.5, 4: 0.5}),
        (0, [(2, 1)], {3: 1.0}),
        (4, [], {4: 1.0}),
    ],
)
def test_weights(regular, blocks, weights):
    assert boundary_weights(regular, blocks) == weights
    assert_allclose(
        mixture_p(2.5, weights), sum(w * (stats.chi2.sf(2.5, k) if k else 0.0) for k, w in weights.items())
    )
    assert_allclose(mixture_p(0.0, weights), 1.0)


def test_akaike_weights():
    assert_allclose(
        akaike_weights(np.array([3.0, 1.0])), [np.exp(-1) / (1 + np.exp(-1)), 1 / (1 + np.exp(-1))]
    )
