"""Scans of models without a kernel, or with terms beside one, through the methods of fits."""

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

PEOPLE, VISITS = 16, 4
RNG = np.random.default_rng(5)
IDS = [f"p{k:02d}" for k in range(PEOPLE)]
DATA = pd.DataFrame({"id": np.repeat(IDS, VISITS), "t": np.tile(np.arange(VISITS) * 1.0, PEOPLE)})
N = len(DATA)
OWN = np.repeat(RNG.normal(size=(PEOPLE, 3)), VISITS, axis=0)
SLOPES = np.repeat(RNG.normal(size=(PEOPLE, 3)), VISITS, axis=0) * DATA[["t"]].to_numpy()
Y = pd.DataFrame(OWN + 0.6 * SLOPES + RNG.normal(size=(N, 3)), columns=["a", "b", "c"])
MARKERS = pd.DataFrame(
    RNG.integers(0, 3, (PEOPLE, 4)).astype(float), index=IDS[::-1], columns=["rs1", "rs2", "rs3", "rs4"]
)
COVARIATES = pd.DataFrame(RNG.normal(size=(N, 3)), columns=["c", "a", "b"])
MODEL = "~ t + (t | id)"
FITS = lj.lmm(MODEL, DATA).fit_batch(Y)


def one(name="a"):
    return lj.lmm(f"y {MODEL}", DATA.assign(y=Y[name])).fit()


def test_markers_by_person_are_markers_by_row():
    by_person = one().scan(MARKERS, interaction="t")
    rows = MARKERS.loc[DATA["id"]].to_numpy()
    by_row = one().scan(rows, names=MARKERS.columns, interaction="t")
    pd.testing.assert_frame_equal(by_person, by_row, rtol=1e-9)
    # an interaction is the product, which changes nothing between the two
    assert by_person["term"].tolist()[:2] == ["marker", "marker:t"]


def test_a_batch_is_its_responses_one_by_one_also_where_values_are_missing():
    gone = Y.copy()
    gone.loc[[3, 9], "b"] = np.nan
    table = lj.lmm(MODEL, DATA).fit_batch(gone).scan(MARKERS, test="wald").set_index("response")
    for name in ("a", "b"):
        there = gone[name].notna()
        fit = lj.lmm(f"y {MODEL}", DATA[there].assign(y=gone.loc[there, name])).fit()
        alone = fit.scan(MARKERS, test="wald")
        for column in ("effect", "se", "p_wald", "loglik"):
            # fits of a batch and alone end at one optimum
            np.testing.assert_allclose(table.loc[name, column], alone[column], rtol=1e-6)


def test_own_covariates_are_matched_by_name_and_refitted_exactly():
    held = FITS.scan(own=COVARIATES, test="wald")
    assert held["response"].tolist() == ["a", "b", "c"]
    table = FITS.scan(own={"csf": COVARIATES}, ratio="refit", test="wald").set_index("response")
    assert set(table["marker"]) == {"csf"}
    for name in ("a", "c"):
        data = DATA.assign(y=Y[name], g=COVARIATES[name].to_numpy())
        fit = lj.lmm("y ~ t + g + (t | id)", data).fit()
        row = fit.coef_table().loc["g"]
        np.testing.assert_allclose(table.loc[name, ["effect", "se"]].to_numpy(float), row.iloc[:2], rtol=1e-8)
        np.testing.assert_allclose(table.loc[name, "p_wald"], row["p"], rtol=1e-5)
        np.testing.assert_allclose(table.loc[name, "loglik"], fit.llf, rtol=1e-10)


def test_a_covariate_that_all_responses_share_is_a_marker():
    shared = pd.DataFrame(dict.fromkeys(Y, COVARIATES["a"]))
    one, other = FITS.scan(own=shared, test="wald"), FITS.scan(COVARIATES[["a"]].to_numpy(), test="wald")
    np.testing.assert_allclose(one.iloc[:, 2:].to_numpy(), other.iloc[:, 2:].to_numpy(), rtol=1e-9)


def test_a_kernel_beside_a_term_is_that_of_the_fit():
    half = RNG.normal(size=(PEOPLE, 30))
    kernel = lj.Kernel(half @ half.T / 30, IDS)
    data = DATA.assign(y=Y["a"], again=DATA["id"])
    kernels = {"id": kernel}
    model = "y ~ t + (1 | id) + (1 | again)"
    null = lj.lmm(model, data, kernels=kernels).fit()
    table = null.scan(MARKERS[["rs1"]], ratio="refit", test="wald", group="id")
    data = data.assign(g=MARKERS.loc[DATA["id"], "rs1"].to_numpy())
    fit = lj.lmm(model.replace("t +", "t + g +", 1), data, kernels=kernels).fit()
    np.testing.assert_allclose(table["effect"], fit.params["g"], rtol=1e-6)
    np.testing.assert_allclose(table["p_wald"], fit.coef_table().loc["g", "p"], rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "pass markers, or own="),
        ({"own": COVARIATES.iloc[:, :2]}, "2 columns for 3 responses"),
        ({"own": COVARIATES.rename(columns={"a": "z"})}, "own"),
        ({"own": {}}, "own= is empty"),
        ({"own": COVARIATES.where(COVARIATES < 2, np.inf)}, "infinite value for response"),
        ({"markers": MARKERS, "ddf": "kr"}, "ddf"),
    ],
)
def test_what_does_not_match_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FITS.scan(**arguments)


def test_refits_have_the_degrees_of_freedom_that_are_asked_for():
    asked = {"ratio": "refit", "interaction": "t", "test": "f"}
    for ddf, df in (("residual", N - 4), ("normal", np.inf)):
        assert (one().scan(MARKERS.iloc[:, :2], ddf=ddf, **asked)["df"] == df).all()
