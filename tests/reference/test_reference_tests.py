"""Tests by lmerTest, pbkrtest and nlme in ../shared/reference; examples of the lecture notes as printed."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from r_models import listed, r_name
from reference_data import STORED
from test_references import MODELS, fitted_model

import lmmjax as lj
from lmmjax.postestimation.hypotheses.fixed_tests import adjusted_at, natural_at

# lmerTest differences numerically; pbkrtest takes lme4's optimum
SATTERTHWAITE, EXACT = 1e-4, 1e-5
TABLES = [
    (name, kind, ddf)
    for name, ref in MODELS.items()
    for kind in ("I", "II", "III")
    for ddf in ("satt", "kr")
    if f"anova_{kind}_{ddf}" in ref
]
METHOD = {"satt": "satterthwaite", "kr": "kenward-roger"}
COMPARISONS = {
    "kr_penicillin_treat": ("seed4_penicillin_reml", ["treat"]),
    "kr_irrigation_int": ("seed4_irrigation_int_reml", ["irrigation:variety"]),
    "kr_machines": ("machines_slopes_reml", ["Machine"]),
    "kr_orthodont_agesex": ("orthodont_rs_reml", ["Sex", "age:Sex"]),
}


@pytest.mark.parametrize("name", [name for name, ref in MODELS.items() if "satt_df" in ref["fixef"]])
def test_satterthwaite(name):
    ref, table = MODELS[name]["fixef"], fitted_model(name).coef_table()
    assert_allclose(table["df"], listed(ref["satt_df"]), rtol=SATTERTHWAITE)
    # lmerTest subtracts from 1: small p-values have lost their digits
    assert_allclose(table["p"], listed(ref["satt_p"]), rtol=1e-4, atol=1e-15)


@pytest.mark.parametrize("name", [name for name, ref in MODELS.items() if "kr_df" in ref["fixef"]])
def test_kenward_roger(name):
    ref, table = MODELS[name]["fixef"], fitted_model(name).coef_table("kenward-roger")
    for ours, theirs in (("se", "kr_se"), ("df", "kr_df"), ("p", "kr_p")):
        assert_allclose(table[ours], listed(ref[theirs]), rtol=EXACT, atol=1e-15, err_msg=ours)
    # t may be a rounding error of zero
    assert_allclose(table["t"], listed(ref["kr_t"]), rtol=EXACT, atol=1e-7)
    fit, vcov = fitted_model(name), np.array(MODELS[name]["kr_vcov"]["values"])
    outward = natural_at(fit.fitted)[0].outward
    adjusted = outward @ adjusted_at(fit.fitted, "kenward-roger").cov_beta @ outward.T
    assert_allclose(adjusted.ravel(), vcov.ravel(), rtol=EXACT, atol=EXACT * np.diag(adjusted).min())


@pytest.mark.parametrize(("name", "kind", "ddf"), TABLES)
def test_anova(name, kind, ddf):
    ref = MODELS[name][f"anova_{kind}_{ddf}"]
    table = fitted_model(name).anova(kind, ddf=METHOD[ddf])
    assert [r_name(term) for term in table.index] == listed(ref["rows"])
    assert_allclose(table["num_df"], listed(ref["NumDF"]))
    assert_allclose(table["den_df"], listed(ref["DenDF"]), rtol=SATTERTHWAITE if ddf == "satt" else EXACT)
    columns = {"sum_sq": "Sum Sq", "mean_sq": "Mean Sq", "F": "F value"}
    for ours, theirs in columns.items():
        assert_allclose(table[ours], listed(ref[theirs]), rtol=EXACT, err_msg=ours)
    rtol = SATTERTHWAITE if ddf == "satt" else EXACT
    assert_allclose(table["p"], listed(ref["Pr(>F)"]), rtol=rtol, atol=1e-15)


@pytest.mark.parametrize("name", [name for name, ref in MODELS.items() if "anova_marginal" in ref])
def test_marginal_wald_tests(name):
    """F of each term by nlme, whose denominator degrees of freedom are not ours."""
    ref, fit = MODELS[name]["anova_marginal"], fitted_model(name)
    slices = {r_name(term): columns for term, columns in fit.model.frame.term_slices.items()}
    for term, num_df, f in zip(ref["rows"], ref["numDF"], ref["F-value"], strict=True):
        ours = fit.test(np.eye(len(fit.params))[slices[term]], ddf="normal").iloc[0]
        assert ours["num_df"] == num_df
        assert_allclose(ours["F"], f, rtol=EXACT)


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name):
    ref = STORED["comparisons"][name]
    model, terms = COMPARISONS[name]
    fit = fitted_model(model)
    columns = np.concatenate([fit.model.frame.term_slices[term] for term in terms])
    rows = np.eye(len(fit.params))[columns]
    exact, approximate = fit.test(rows, ddf="kenward-roger").iloc[0], fit.test(rows).iloc[0]
    for ours, theirs in (("F", "F"), ("num_df", "ndf"), ("den_df", "ddf"), ("p", "p")):
        assert_allclose(exact[ours], ref[theirs], rtol=EXACT)
        assert_allclose(approximate[ours], ref[f"SAT_{theirs}"], rtol=SATTERTHWAITE)


def test_lecture_examples():
    """As printed: irrigation, pulp, penicillin and rats."""
    interaction = fitted_model("seed4_irrigation_int_reml")
    irrigation = interaction.anova(ddf="kenward-roger")
    assert_allclose(irrigation["F"], [0.3882, 1.0676, 0.2452], atol=5e-5)
    assert_allclose(irrigation["den_df"], 4.0, rtol=1e-8)
    test = interaction.rlrt()
    assert_allclose(test.statistic, 6.1118, atol=5e-5)
    assert abs(test.p - 0.010) <= 4 * test.p_se + 5e-4
    additive = fitted_model("seed4_irrigation_add_ml")
    assert_allclose(lj.compare(additive, interaction)["chisq"].iloc[1], 1.3503, atol=5e-5)
    pulp = fitted_model("seed4_pulp_reml")
    limits = pulp.conf_int("profile", which="all").loc["sd_(Intercept)|operator"]
    assert_allclose(limits, [0.0, 0.6179], atol=5e-5)
    assert_allclose(pulp.icc(), 0.3905, atol=5e-5)
    penicillin = fitted_model("seed4_penicillin_reml").anova(ddf="kenward-roger").iloc[0]
    assert_allclose(penicillin[["F", "num_df", "den_df", "p"]], [1.2389, 3, 12, 0.3387], atol=5e-5)
    rats = fitted_model("seed4_rats_reml").anova().iloc[0]
    assert_allclose(rats[["F", "den_df"]], [734.11, 223.21], atol=5e-3)
