"""`by`: every level of a factor has variances and correlations of its own."""

import functools
from itertools import pairwise

import jax
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.postestimation.comparison.nesting import null_weights

VISITS, GROUPS = 3, 24


@functools.cache
def trial():
    """Two arms with different covariances, some visits missing, rows in no order."""
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"id": np.repeat(np.arange(GROUPS), VISITS), "visit": np.tile([1, 2, 3], GROUPS)})
    frame["arm"] = np.where(frame["id"] % 2, "b", "a")
    frame["x"] = rng.uniform(1, 2, len(frame))
    noise = rng.normal(size=(GROUPS, VISITS)) @ np.array([[1, 0.5, 0.2], [0, 1, 0.6], [0, 0, 1.5]])
    frame["y"] = frame["visit"] + (noise * np.where(np.arange(GROUPS) % 2, 2.0, 1.0)[:, None]).ravel()
    return frame.drop(index=[4, 20, 33]).sample(frac=1.0, random_state=1).reset_index(drop=True)


CASES = {
    "Unstructured": lambda by: lj.Unstructured("visit", group="id", by=by),
    "Toeplitz": lambda by: lj.Toeplitz("visit", group="id", by=by),
    "AR1 * VarExp": lambda by: lj.AR1("visit", group="id", by=by) * lj.VarExp("x", by=by),
    "VarIdent": lambda by: lj.VarIdent("visit", by=by),
}


@functools.cache
def fit_by(name, reml=True):
    return lj.lmm("y ~ 0 + arm + arm:C(visit)", trial(), residual=CASES[name]("arm")).fit(reml=reml)


@functools.cache
def apart(name, reml=True):
    frames = dict(list(trial().groupby("arm")))
    return {
        arm: lj.lmm("y ~ C(visit)", f, residual=CASES[name](None)).fit(reml=reml) for arm, f in frames.items()
    }


@pytest.mark.parametrize(
    ("name", "reml"), [("Unstructured", True), ("AR1 * VarExp", False), ("VarIdent", True)]
)
def test_equals_fits_of_each_level(name, reml):
    both, own = fit_by(name, reml), apart(name, reml)
    assert both.converged
    assert_allclose(both.deviance, sum(f.deviance for f in own.values()), rtol=1e-11)
    # decrements of 2e-14 leave parameters to 1e-7
    sds = both.sigma * np.array([1.0, *(v for k, v in sd_ratio(both).items())])
    assert_allclose(sds, [f.sigma for f in own.values()], rtol=1e-5)
    assert_allclose(
        both.fittedvalues.std(), pd.concat([f.fittedvalues for f in own.values()]).std(), rtol=1e-6
    )


def sd_ratio(fit):
    """Standard deviation of the second level over that of the first, at the first visit."""
    table = fit.varcorr().set_index("term1")
    if "sd(arm=b)" in table.index:
        return {"b": table.loc["sd(arm=b)", "sdcor"]}
    return {"b": table.loc["var(1; arm=b)", "sdcor"] / fit.sigma}


def test_names_and_covariances():
    fit, own = fit_by("Unstructured"), apart("Unstructured")
    names = list(fit.varcorr()["term1"][:-1])
    assert names[:5] == [
        "var(2; arm=a)",
        "var(3; arm=a)",
        "cov(1, 2; arm=a)",
        "cov(1, 3; arm=a)",
        "cov(2, 3; arm=a)",
    ]
    assert names[5:7] == ["var(1; arm=b)", "var(2; arm=b)"]
    for cor in (False, True):
        table = fit.residual_cov(cor=cor)
        assert table.index.names == ["arm", "visit"]
        for arm, other in own.items():
            assert_allclose(table.loc[arm], other.residual_cov(cor=cor), rtol=1e-5)
    # group 3 is in arm b
    assert_allclose(fit.residual_cov(3), own["b"].residual_cov(), rtol=1e-5)
    assert "by arm" in str(fit.summary())
    assert "var(1; arm=b)" in str(fit.summary())


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "kenward-roger-sas"])
def test_degrees_of_freedom_are_those_of_each_level(ddf):
    both, own = fit_by("Unstructured").coef_table(ddf=ddf), apart("Unstructured")
    for arm, other in own.items():
        table = other.coef_table(ddf=ddf)
        assert_allclose(
            both.loc[f"arm[{arm}]", ["se", "df"]].astype(float),
            table.iloc[0][["se", "df"]].astype(float),
            rtol=1e-5,
        )


def test_nesting():
    toeplitz = CASES["Toeplitz"]
    parts = (
        toeplitz(None),
        toeplitz(None) * lj.VarIdent("arm"),
        toeplitz("arm"),
        CASES["Unstructured"]("arm"),
    )
    frames = [lj.lmm("y ~ arm", trial(), residual=part).frame for part in parts]
    # nothing is on a boundary: a variance, two correlations, then variances and correlations of each arm
    assert [null_weights(*pair) for pair in pairwise(frames)] == [{1: 1.0}, {2: 1.0}, {6: 1.0}]
    with pytest.raises(ValueError, match="not a case of"):
        null_weights(frames[2], lj.lmm("y ~ arm", trial(), residual=CASES["Unstructured"](None)).frame)


def test_simulated_covariances():
    fit = fit_by("Unstructured")
    draws = np.asarray(fit.simulate(jax.random.key(1), 4000)) - fit.fittedvalues.to_numpy()[:, None]
    for group in (0, 1):
        rows = np.flatnonzero(trial()["id"] == group)
        rows = rows[np.argsort(trial()["visit"].to_numpy()[rows])]
        expected = fit.residual_cov(group).to_numpy()
        # the standard error of a sample covariance of 4,000 draws is below 3 % of the variances
        assert_allclose(np.cov(draws[rows]), expected, atol=0.12 * expected.max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": "c"}, "not fitted with: c"),
        ({"arm": "b"}, "another level of by='arm'"),
    ],
)
def test_new_rows(change, message):
    fit = fit_by("Unstructured")
    new = trial()[trial()["id"] == 2].assign(**change)
    with pytest.raises(ValueError, match=message):
        fit.predict(new, kriging=True)


def test_a_group_has_one_level():
    frame = trial().assign(arm=np.where(trial()["visit"] == 1, "a", "b"))
    with pytest.raises(ValueError, match=r"group \d+ has more than one level of by='arm'"):
        lj.lmm("y ~ 1", frame, residual=CASES["Unstructured"]("arm"))


def test_variances_said_twice():
    with pytest.raises(ValueError, match="say the same twice"):
        lj.lmm("y ~ 1", trial(), residual=lj.AR1("visit", group="id", by="arm") * lj.VarIdent("arm"))
