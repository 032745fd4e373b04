"""Kenward-Roger of repeated measures: PROC MIXED's, and one answer for one covariance."""

import functools
import json
import pathlib

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj

HERE = pathlib.Path(__file__).parent / "mmrm"
PRINTED = json.loads((HERE / "sas.json").read_text())
SAS, EMPIRICAL = ({v["structure"]: v for v in PRINTED[k]["values"]} for k in ("kenward_roger", "empirical"))
VISITS = {"group": "USUBJID"}
HETEROGENEOUS = lj.CompoundSymmetry(**VISITS) * lj.VarIdent("AVISIT")
STRUCTURES = {
    "ar1": lj.AR1("VISITN", **VISITS),
    "us": lj.Unstructured("AVISIT", **VISITS),
    "csh": HETEROGENEOUS,
}
OTHER = {"ar1": (0.960421, 220.51), "us": (0.653623, 170.92)}
"""With the expected information and without second derivatives."""


@functools.cache
def fitted(structure, weights=None):
    data = pd.read_csv(HERE / "fev.csv")
    return lj.lmm("FEV1 ~ ARMCD", data, residual=STRUCTURES[structure], weights=weights).fit()


@pytest.mark.parametrize("structure", ["ar1", "us"])
def test_as_in_proc_mixed(structure):
    """SAS stops where −2ℓ changes by 1e-8 of itself, which leaves 1e-4 in a standard error of `us`."""
    row = fitted(structure).coef_table("kenward-roger-sas").loc["ARMCD[T.TRT]"]
    assert_allclose(row["se"], SAS[structure]["se"], rtol=2e-4)
    assert_allclose(row["df"], SAS[structure]["df"], rtol=4e-4)
    linear = fitted(structure).coef_table("kr").loc["ARMCD[T.TRT]"]
    assert_allclose([linear["se"], linear["df"]], OTHER[structure], rtol=2e-5)


def test_second_derivatives_are_taken_in_variances_and_correlations():
    """PROC MIXED's parameters of CSH; in sds it would be .67240, in σ² and ratios .67722."""
    row = fitted("csh").coef_table("kenward-roger-sas").loc["ARMCD[T.TRT]"]
    assert_allclose(row["se"], 0.67423, atol=5e-6)


def test_tests_of_all_kinds_agree():
    fit = fitted("csh")
    for method in ("kr", "kenward-roger-sas", "satt"):
        row = fit.coef_table(method).loc["ARMCD[T.TRT]"]
        for one in (fit.test("ARMCD[T.TRT]", method).iloc[0], fit.anova(ddf=method).loc["ARMCD"]):
            assert_allclose(
                [one["F"], one["den_df"], one["p"]], [row["t"] ** 2, row["df"], row["p"]], rtol=1e-8
            )
        width = np.diff(fit.conf_int(ddf=method).loc["ARMCD[T.TRT]"])[0]
        assert width > 2 * row["se"]
    assert "PROC MIXED" in str(fit.summary("kenward-roger-sas"))


DRUGS = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0, 2],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
EQUAL = {
    "unstructured": ("y ~ drug", lj.Unstructured("drug", group="id")),
    "compound symmetry": ("y ~ drug", lj.CompoundSymmetry(group="id")),
    "unequal variances": ("y ~ drug + (1 | id)", lj.VarIdent("drug")),
    "random intercept": ("y ~ drug + (1 | id)", None),
}


@pytest.mark.parametrize("method", ["kenward-roger", "kenward-roger-sas"])
@pytest.mark.parametrize("name", EQUAL)
def test_a_paired_t_test_however_its_covariance_is_written(name, method):
    row = paired(name).coef_table(method).loc["drug"]
    difference = np.subtract(*DRUGS[::-1])
    se = difference.std(ddof=1) / np.sqrt(10)
    assert_allclose(row[["estimate", "se", "df"]].to_numpy(float), [difference.mean(), se, 9.0], rtol=1e-6)
    assert_allclose(row["p"], 0.0028, atol=5e-5)


@functools.cache
def paired(name):
    formula, residual = EQUAL[name]
    data = pd.DataFrame({"y": np.concatenate(DRUGS), "drug": np.repeat([0, 1], 10), "id": [*range(10)] * 2})
    return lj.lmm(formula, data, residual=residual).fit()


@functools.cache
def batch():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"visit": np.tile(range(3), 12), "id": np.repeat(range(12), 3)})
    data["x"] = (data["id"] % 2).astype(float)
    y = rng.normal(size=(12, 1, 3)) + rng.normal(size=(12, 3, 3)) * np.array([1.0, 1.5, 2.0])[:, None]
    y = y.reshape(36, 3)
    y[4, 1] = np.nan
    residual = lj.CompoundSymmetry(group="id") * lj.VarIdent("visit")
    return lj.lmm("~ x", data, residual=residual).fit_batch(y)


@pytest.mark.parametrize("method", ["satterthwaite", "kenward-roger", "kenward-roger-sas"])
def test_batches_have_the_same(method):
    fits = batch()
    table = fits.t_tests(method)
    for k in range(3):
        single = fits[k].coef_table(method)
        assert_allclose(table["se"][k], single["se"], rtol=1e-7)
        assert_allclose(table["df"][k], single["df"], rtol=1e-6)
    assert_allclose(fits.df({"kenward-roger": "kr"}.get(method, method)), table["df"], rtol=0)


@pytest.mark.parametrize(
    ("structure", "weights"),
    [("ar1", None), ("csh", None), ("us", None), ("ar1", "WEIGHT"), ("us", "WEIGHT")],
)
def test_empirical_variances_of_proc_mixed(structure, weights):
    """EMPIRICAL is CR0; digits as above."""
    sas, suffix = EMPIRICAL[structure], "_weighted" if weights else ""
    cov = fitted(structure, weights).cov_params("CR0").to_numpy()
    assert_allclose(np.diagonal(cov), [sas["intercept" + suffix], sas["armcd" + suffix]], rtol=4e-4)
    assert_allclose(cov[0, 1], -cov[0, 0], rtol=1e-9)
