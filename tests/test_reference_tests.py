"""Tests of fixed effects by lmerTest and pbkrtest in ../shared/reference."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from r_models import listed, r_name
from test_references import FOLDER, MODELS, fitted_model

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
    assert_allclose(table["p"], listed(ref["Pr(>F)"]), rtol=1e-4, atol=1e-15)


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name):
    ref = json.loads((FOLDER / "models.json").read_text())["comparisons"][name]
    model, terms = COMPARISONS[name]
    fit = fitted_model(model)
    columns = np.concatenate([fit.model.frame.term_slices[term] for term in terms])
    rows = np.eye(len(fit.params))[columns]
    exact, approximate = fit.test(rows, ddf="kenward-roger").iloc[0], fit.test(rows).iloc[0]
    for ours, theirs in (("F", "F"), ("num_df", "ndf"), ("den_df", "ddf"), ("p", "p")):
        assert_allclose(exact[ours], ref[theirs], rtol=EXACT)
        assert_allclose(approximate[ours], ref[f"SAT_{theirs}"], rtol=SATTERTHWAITE)


def test_lecture_examples():
    """As printed: irrigation, penicillin and rats."""
    irrigation = fitted_model("seed4_irrigation_int_reml").anova(ddf="kenward-roger")
    assert_allclose(irrigation["F"], [0.3882, 1.0676, 0.2452], atol=5e-5)
    assert_allclose(irrigation["den_df"], 4.0, rtol=1e-8)
    penicillin = fitted_model("seed4_penicillin_reml").anova(ddf="kenward-roger").iloc[0]
    assert_allclose(penicillin[["F", "num_df", "den_df", "p"]], [1.2389, 3, 12, 0.3387], atol=5e-5)
    rats = fitted_model("seed4_rats_reml").anova().iloc[0]
    assert_allclose(rats[["F", "den_df"]], [734.11, 223.21], atol=5e-3)
