"""Scans of any model against dense matrices, and against fits with the marker as a covariate."""

import functools

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.batch import added_columns
from lmmjax.batch.added_columns import fit_added
from lmmjax.core.marginal import blocks
from lmmjax.inference.scan import wald
from lmmjax.inference.scan.candidates import Candidates
from lmmjax.inference.scan.general import GeneralScan, NullFits
from lmmjax.inference.scan.null_model import independent_units

# V⁻¹ by two ways: rounding times the condition of V
CLOSE = {"rtol": 1e-8, "atol": 1e-8}
PEOPLE, CANDIDATES = 18, 3


@functools.cache
def data():
    rng = np.random.default_rng(8)
    visits = rng.integers(2, 6, PEOPLE)
    ids = np.repeat(np.arange(PEOPLE), visits)
    n = len(ids)
    frame = pd.DataFrame({"id": ids, "site": ids // 3, "item": rng.integers(0, 5, n)})
    frame["visit"] = np.concatenate([np.arange(v) for v in visits])
    frame["t"] = frame.visit * 1.0
    frame["u"] = frame.t + 0.2 * rng.normal(size=n)
    frame["w"] = rng.uniform(0.5, 2.0, n)
    slopes = rng.normal(size=PEOPLE)[ids] * 0.5
    own = rng.normal(size=PEOPLE)[ids] + rng.normal(size=6)[ids // 3] + rng.normal(size=5)[frame["item"]]
    frame["y"] = 2.0 + 0.3 * frame.t + own + slopes * frame.t + rng.normal(size=n)
    return frame, rng.integers(0, 3, (PEOPLE, CANDIDATES)).astype(float)


MODELS = {
    "grouped": ("y ~ t + (1 | id)", {}),
    "slopes": ("y ~ t + (t | id)", {}),
    "group by group": ("y ~ t + (u | id)", {}),
    "weights": ("y ~ u + (1 | id)", {"weights": "w"}),
    "structured": ("y ~ t + cs(0 + factor(site) | item)", {}),
    "nested": ("y ~ t + (1 | site/id)", {}),
    "crossed": ("y ~ t + (1 | id) + (1 | item)", {}),
    "whitened": ("y ~ t + (1 | id)", {"residual": lj.AR1("visit", group="id")}),
    "residuals": ("y ~ t", {"residual": lj.CAR1("u", group="id")}),
}


@functools.cache
def fitted(name, reml=True):
    formula, options = MODELS[name]
    options = dict(options)
    if "weights" in options:
        options["weights"] = data()[0][options["weights"]]
    return lj.lmm(formula, data()[0], **options).fit(reml=reml).fitted


def null_fits(fit):
    e = fit.estimate
    arrays = (np.asarray(a)[None] for a in (e.psi, e.cov_relative, e.deviance))
    return NullFits(fit.data.maker, fit.y[:, None], *arrays, fit.reml)


def refit(maker, y, g, reml):
    return fit_added(maker, y, g, reml).estimate


def scan_of(name, ddf="satterthwaite", reml=True):
    return GeneralScan(null_fits(fitted(name, reml)), lambda: null_fits(fitted(name, False)), refit, ddf)


def candidates(rows=False):
    frame, s = data()
    carriers = np.stack([np.ones(len(frame)), frame.t], axis=1)
    if not rows:
        return Candidates(s, frame.id.to_numpy(), carriers)
    noise = np.random.default_rng(3).normal(size=(len(frame), CANDIDATES))
    return Candidates(noise, np.arange(len(frame)), carriers)


def dense(fit):
    """V, P and by differences in ψ the derivatives of V, of which blocks of rows are formed directly."""
    design, psi = fit.data.design, np.asarray(fit.estimate.psi)
    rows = np.arange(design.n)[None]
    v, x = blocks(design, psi, rows)[0], np.asarray(design.x)
    inverse = np.linalg.inv(v)
    p = inverse - inverse @ x @ np.linalg.solve(x.T @ inverse @ x, x.T @ inverse)
    slopes = []
    for j, value in enumerate(psi):
        step = np.zeros(len(psi))
        step[j] = 1e-4 * max(abs(value), 0.1)
        up, down = (blocks(design, psi + s, rows)[0] for s in (step, -step))
        slopes.append((up - down) / (2 * step[j]))
    return v, p, slopes


@pytest.mark.parametrize("name", MODELS)
def test_moments_are_those_of_dense_matrices(name):
    fit, scan = fitted(name), scan_of(name)
    _, p, slopes = dense(fit)
    y = fit.y if fit.data.design.offset is None else fit.y - fit.data.design.offset
    for rows in (False, True):
        found = candidates(rows)
        _, m = next(scan.moments(found))
        np.testing.assert_allclose(m.a[0], y @ p @ y, **CLOSE)
        for k in range(CANDIDATES):
            g = found.rows[:, :, k]
            np.testing.assert_allclose(m.b[0, k], g.T @ p @ y, **CLOSE)
            np.testing.assert_allclose(m.c[0, k], g.T @ p @ g, **CLOSE)
            wanted = np.stack([g.T @ p @ s @ p @ g for s in slopes])
            # differences of V, whose parameters may enter it as powers: h² of their third derivatives
            np.testing.assert_allclose(m.slopes[0, k], wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["slopes", "group by group", "crossed", "whitened"])
def test_a_candidate_of_ones_own_is_the_candidate(name):
    scan, found = scan_of(name), candidates(True)
    _, m = next(scan.moments(found))
    for k in range(CANDIDATES):
        _, own = next(scan.own_moments(found.rows[:, :, k : k + 1]))
        np.testing.assert_allclose(own.c[:, 0], m.c[:, k], **CLOSE)
        np.testing.assert_allclose(own.b[:, 0], m.b[:, k], **CLOSE)
        np.testing.assert_allclose(own.slopes[:, 0], m.slopes[:, k], **CLOSE)


def test_units_are_summed_where_their_rows_are_independent_of_others():
    codes = data()[0].id.to_numpy()
    alone = {name: independent_units(fitted(name).data.design, codes) for name in MODELS}
    assert alone["slopes"]
    assert alone["whitened"]
    assert alone["residuals"]
    assert not alone["nested"]
    assert not alone["crossed"]


REFITTED = [("slopes", True), ("group by group", False), ("nested", True), ("crossed", False)]


@pytest.mark.parametrize(("name", "reml"), REFITTED)
def test_exact_refits_are_fits_with_the_marker_in_the_formula(name, reml):
    frame, s = data()
    scan, all_tests = scan_of(name, reml=reml), name == "slopes"
    values = scan.refitted(candidates().some(np.array([1])).rows, np.zeros(1, int), lrt=all_tests)
    formula, options = MODELS[name]
    more = frame.assign(g=s[frame.id, 1])
    model = lj.lmm(formula + " + g + t:g", more, **options)
    fit = model.fit(reml=reml)
    table = fit.coef_table()
    for own, term in zip(values, ("g", "t:g"), strict=True):
        # two descents to one optimum
        close = {"rtol": 1e-8, "atol": 1e-10}
        np.testing.assert_allclose(own["effect"], table.loc[term, "estimate"], **close)
        np.testing.assert_allclose(own["se"], table.loc[term, "se"], **close)
        np.testing.assert_allclose(own["df"], table.loc[term, "df"], rtol=1e-5)
        np.testing.assert_allclose(own["loglik"], fit.llf, rtol=1e-10)
    if all_tests:
        without = lj.lmm(formula + " + g", more).fit(reml=False)
        lrt = 2.0 * (model.fit(reml=False).llf - without.llf)
        np.testing.assert_allclose(values[1]["lod"], lrt / (2.0 * np.log(10.0)), atol=1e-7)
        joint = fit.test(["g", "t:g"])
        np.testing.assert_allclose(values[0]["p_joint"], joint["p"].iloc[0], rtol=1e-5)


def test_many_responses_are_those_of_one_each():
    frame, _ = data()
    rng = np.random.default_rng(2)
    y = frame.y.to_numpy()[:, None] + rng.normal(size=(len(frame), 4))
    fits = lj.lmm("~ t + (u | id)", frame).fit_batch(y).fitted
    e = fits.estimate
    many = NullFits(fits.data.maker, y, e.psi, e.cov_relative, e.deviance, True)
    scan = GeneralScan(many, lambda: many, refit, "satterthwaite")
    for rows in (False, True):
        found = candidates(rows)
        together = scan.at_null(found, lrt=True, score=False)
        for t in range(4):
            one = GeneralScan(many.some([t]), lambda: many, refit, "satterthwaite")
            alone = one.at_null(found, lrt=True, score=False)
            for a, b in zip(together, alone, strict=True):
                for key in a:
                    np.testing.assert_allclose(a[key][:, t], b[key][:, 0], rtol=1e-9, atol=1e-12)


def test_a_candidate_that_x_determines_is_missing_and_spoils_no_other():
    scan, found = scan_of("slopes"), candidates()
    found.values[:, 1] = 2.0
    plain = candidates()
    values = scan.at_null(found, lrt=True, score=False)
    whole = scan.at_null(plain, lrt=True, score=False)
    for a, b in zip(values, whole, strict=True):
        for key in ("effect", "se", "p_wald", "p_lrt", "loglik"):
            assert np.isnan(a[key][1]).all()
            np.testing.assert_array_equal(a[key][[0, 2]], b[key][[0, 2]])


def test_degrees_of_freedom_between_and_within_people():
    # in a balanced design a covariate of people has those of people, one within them those of rows
    people, visits = 12, 4
    rng = np.random.default_rng(0)
    ids, t = np.repeat(np.arange(people), visits), np.tile(np.arange(4.0), people)
    y = rng.normal(size=people)[ids] + rng.normal(size=len(ids))
    fit = lj.lmm("y ~ 1 + (1 | id)", pd.DataFrame({"y": y, "id": ids})).fit().fitted
    scan = GeneralScan(null_fits(fit), lambda: null_fits(fit), refit, "satterthwaite")
    g = np.stack([rng.normal(size=people)[ids], t], axis=1)
    values = scan.refitted(np.stack([g], axis=1), np.zeros(2, int), lrt=False)[0]
    np.testing.assert_allclose(values["df"], [people - 2, people * (visits - 1) - 1], rtol=1e-6)


def test_p_values_of_infinite_degrees_are_normal():
    t = np.array([0.0, 1.959963984540054, -3.0])
    np.testing.assert_allclose(wald.two_sided(t, np.full(3, np.inf))[:2], [1.0, 0.05], rtol=1e-12)
    finite = wald.two_sided(t, np.full(3, 7.0))
    np.testing.assert_allclose(wald.upper_f(t**2, 1, np.full(3, 7.0)), finite, rtol=1e-10)


@pytest.mark.parametrize("name", ["slopes", "group by group"])
def test_lanes_are_the_fits_one_by_one(name, monkeypatch):
    fit, pairs = fitted(name), candidates().some(np.array([0, 1])).rows
    y = np.column_stack([fit.y, fit.y])
    alone = fit_added(fit.data.maker, y, pairs, True).estimate
    monkeypatch.setattr(added_columns, "FEW", 0)
    together = fit_added(fit.data.maker, y, pairs, True).estimate
    assert (together.status == alone.status).all()
    # two descents to one optimum
    np.testing.assert_allclose(together.deviance, alone.deviance, rtol=1e-11)
    np.testing.assert_allclose(together.beta, alone.beta, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(together.cov_beta, alone.cov_beta, rtol=1e-6, atol=1e-9)
