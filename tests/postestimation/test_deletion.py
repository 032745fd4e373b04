"""Leverages, residuals and one-step deletion against V, P and their parts written out, and against refits."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.core.residuals import covariance
from lmmjax.inference.diagnostics import deletion, precision
from lmmjax.postestimation.diagnostics.influence import OBSERVATION, held_at

MODELS = {
    "slopes": ("y ~ x + c + (x | g)", {}),
    "crossed, weights": ("y ~ x + c + (1 | g) + (1 | h)", {"weights": "w"}),
    "nested, crossed slopes": ("y ~ x + c + (1 | g/k) + (x || h)", {}),
    "series": ("y ~ x + c + (1 | h)", {"residual": lj.AR1("t", group="g"), "weights": "w"}),
    "residual groups alone": ("y ~ x + c", {"residual": lj.CompoundSymmetry(group="g")}),
    "offset, variances": ("y ~ x + c + (1 | g)", {"residual": lj.VarIdent("c"), "offset": "w"}),
}


def frame():
    rng = np.random.default_rng(0)
    n = 72
    d = pd.DataFrame({"g": rng.integers(0, 9, n), "h": rng.integers(0, 5, n), "x": rng.normal(size=n)})
    d["w"], d["c"] = rng.uniform(0.5, 2, n), rng.choice(list("abc"), n)
    d["k"], d["t"] = d.g * 10 + rng.integers(0, 2, n), d.groupby("g").cumcount()
    y = rng.normal(size=9)[d.g] + 0.6 * rng.normal(size=9)[d.g] * d.x + 0.8 * rng.normal(size=5)[d.h]
    return d.assign(y=y + d.x + rng.normal(size=n)).set_index(pd.Index([f"r{i}" for i in range(n)]))


class Dense:
    """V, R, Φ, P of a fit as full matrices, from ψ̂."""

    def __init__(self, fit):
        design, psi = fit.model.design, fit.estimate.psi
        self.x, self.y = design.x, fit.y - (0 if design.offset is None else design.offset)
        self.r = covariance(design, psi, np.arange(design.n))
        self.v = self.r.copy()
        for term, d in zip(design.terms, design.structure.absolute(psi), strict=True):
            same = term.codes[:, None] == term.codes[None]
            self.v += same * (term.z @ np.asarray(d) @ term.z.T)
        inverse = np.linalg.inv(self.v)
        self.phi = np.linalg.inv(self.x.T @ inverse @ self.x)
        self.fixed = self.x @ self.phi @ self.x.T @ inverse
        self.p = inverse - inverse @ self.fixed

    def without(self, keep):
        x, inverse = self.x[keep], np.linalg.inv(self.v[np.ix_(keep, keep)])
        phi = np.linalg.inv(x.T @ inverse @ x)
        return phi @ x.T @ inverse @ self.y[keep], phi


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    formula, options = MODELS[request.param]
    fit = lj.lmm(formula, frame(), **options).fit()
    return fit, Dense(fit)


def test_leverages(pair):
    fit, dense = pair
    whole = np.diag(np.eye(fit.nobs) - dense.r @ dense.p)
    assert_allclose(fit.hat("fixed"), np.diag(dense.fixed), rtol=1e-10)
    assert_allclose(fit.hat(), whole, rtol=1e-10)
    assert_allclose(fit.hat("random"), whole - np.diag(dense.fixed), rtol=1e-10, atol=1e-12)
    assert_allclose(fit.hat("fixed").sum(), len(fit.params), rtol=1e-10)
    assert list(fit.hat().index) == list(frame().index)
    table = fit.hat(group="h" if "h" in fit.model.formula else "g")
    assert_allclose(table["total"].sum(), fit.hat().sum())
    assert table["n"].sum() == fit.nobs


def test_residuals(pair):
    fit, dense = pair
    marginal = dense.y - dense.x @ fit.params.to_numpy()
    assert_allclose(fit.residuals("marginal"), marginal, atol=1e-12)
    assert_allclose(fit.residuals(), fit.resid)
    assert_allclose(fit.residuals("normalised"), fit.normalized_resid)
    spread = np.sqrt(np.diag(dense.r @ dense.p @ dense.r))
    assert_allclose(fit.residuals("studentized"), fit.resid / spread, rtol=1e-9)
    spread = np.sqrt(np.diag(dense.v - dense.x @ dense.phi @ dense.x.T))
    assert_allclose(fit.residuals("studentized-marginal"), marginal / spread, rtol=1e-9)


def test_deleted_residuals_are_those_of_an_effect_of_the_row(pair):
    """By generalised least squares with a column for the row, σ² from what is left."""
    fit, dense = pair
    found = fit.residuals("deleted")
    for i in (0, 7, 50):
        x = np.column_stack([dense.x, np.eye(fit.nobs)[i]])
        inverse = np.linalg.inv(dense.v)
        phi = np.linalg.inv(x.T @ inverse @ x)
        beta = phi @ x.T @ inverse @ dense.y
        off = dense.y - x @ beta
        # yᵀPy = n − p by REML, one degree of freedom less with the row's effect
        scale = off @ inverse @ off / (fit.nobs - len(beta))
        assert_allclose(found.iloc[i], beta[-1] / np.sqrt(phi[-1, -1] * scale), rtol=1e-9)


@pytest.mark.parametrize("group", ["first", OBSERVATION])
def test_one_step_is_least_squares_without_the_rows(pair, group, monkeypatch):
    fit, dense = pair
    group = (
        ("g" if "g" in fit.model.formula or fit.model.frame.random == () else "h")
        if group == "first"
        else group
    )
    found = fit.influence(group, refit=False)
    values = frame()[group] if group != OBSERVATION else pd.Series(frame().index, frame().index)
    for level in found.params.index[:12]:
        beta, phi = dense.without((values != level).to_numpy())
        change = fit.params.to_numpy() - beta
        assert_allclose(found.params.loc[level], beta, rtol=1e-9)
        assert_allclose(found.bse.loc[level], np.sqrt(np.diag(phi)), rtol=1e-9)
        assert_allclose(found.dfbetas.loc[level], change / np.sqrt(np.diag(phi)), rtol=1e-7, atol=1e-9)
        whole, p = np.linalg.inv(fit.cov_params()), len(beta)
        assert_allclose(found.cooks_distance[level], change @ whole @ change / p, rtol=1e-7)
        assert_allclose(found.mdffits[level], change @ np.linalg.inv(phi) @ change / p, rtol=1e-7)
        assert_allclose(found.covtrace[level], abs(np.trace(whole @ phi) - p), rtol=1e-7, atol=1e-9)
        assert_allclose(found.covratio[level], np.linalg.det(phi) * np.linalg.det(whole), rtol=1e-7)
    assert set(found.status) == {"one step"}
    # many rows a level are looked at from the other side
    monkeypatch.setattr(deletion, "PER_ROW", -np.inf)
    again = fit.influence(group, refit=False)
    assert_allclose(again.params, found.params, rtol=1e-9)


def test_rows_that_share_many_columns_go_in_chunks(pair, monkeypatch):
    fit, _ = pair
    expected = fit.hat()
    monkeypatch.setattr(precision, "PAIRS", 0)
    monkeypatch.setattr(precision, "CHUNK", 100)
    fit.fitted.cache.pop((held_at.__module__, held_at.__qualname__, ()))
    assert_allclose(fit.hat(), expected, rtol=1e-10)


def test_exact_measures_are_those_of_refits(sleepstudy):
    fit = lj.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy).fit()
    without = lj.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy[sleepstudy.Subject != 335]).fit()
    change, whole = fit.params - without.params, np.linalg.inv(fit.cov_params())
    own = without.cov_params().to_numpy()
    # the optimum is known to 1e-7 in θ, the change is a tenth of β
    close = {"rtol": 1e-5}
    assert_allclose(fit.cooks_distance()[335], change @ whole @ change / 2, **close)
    assert_allclose(fit.mdffits()[335], change @ np.linalg.inv(own) @ change / 2, **close)
    assert_allclose(fit.dfbetas().loc[335], change / without.bse, **close)
    assert_allclose(fit.covratio()[335], np.linalg.det(own) * np.linalg.det(whole), **close)
    assert_allclose(fit.covtrace()[335], abs(np.trace(whole @ own) - 2), rtol=1e-4)


def test_what_the_others_do_not_determine_is_missing():
    d = frame()
    d["alone"] = np.where(d.g == 3, d.x, 0.0)
    d["one"] = np.where(d.index == "r5", 1.0, 0.0)
    fit = lj.lmm("y ~ x + alone + one + (1 | g)", d).fit()
    found = fit.influence("g", refit=False)
    assert found.params.loc[3].isna().all()
    assert found.cooks_distance.isna().sum() == 2
    assert "do not determine" in found.status[3]
    rows = fit.influence(OBSERVATION, refit=False)
    assert list(rows.status[rows.cooks_distance.isna()].index) == ["r5"]
    assert np.isnan(fit.residuals("deleted")["r5"])
    assert fit.hat()["r5"] == pytest.approx(1.0)


def test_levels_of_the_residual_structure_are_units():
    fit = lj.lmm("y ~ x", frame(), residual=lj.CompoundSymmetry(group="g")).fit()
    found = fit.cooks_distance()
    without = lj.lmm("y ~ x", frame()[frame().g != 2], residual=lj.CompoundSymmetry(group="g")).fit()
    change = fit.params - without.params
    assert_allclose(found[2], change @ np.linalg.inv(fit.cov_params()) @ change / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: fit.hat("whole"), "unknown part"),
        (lambda fit: fit.hat(group="nobody"), "unknown grouping factor"),
        (lambda fit: fit.residuals("raw"), "unknown kind"),
        (lambda fit: fit.cooks_distance(refit="no"), "refit must be True or False"),
    ],
)
def test_messages(fit, call, message):
    with pytest.raises(ValueError, match=message):
        call(fit)
