"""Nested and crossed grouping factors through the whole package: batches, predictions, refits, reports."""

import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from fit_data import matrices, split

import lmmjax as lj

RNG = np.random.default_rng(20)
SCHOOLS, PER_SCHOOL, ROWS = 8, 5, 200


def frame():
    klass = RNG.integers(0, SCHOOLS * PER_SCHOOL, ROWS)
    item = RNG.integers(0, 7, ROWS)
    data = pd.DataFrame(
        {"school": klass // PER_SCHOOL, "klass": klass, "item": item, "x": RNG.normal(size=ROWS)}
    )
    effects = [RNG.normal(size=k) for k in (SCHOOLS, SCHOOLS * PER_SCHOOL, 7)]
    data["y"] = 2.0 + data["x"] + RNG.normal(size=ROWS)
    data["y"] += effects[0][data["school"]] + effects[1][klass] + effects[2][item]
    data["y"] += 0.8 * RNG.normal(size=SCHOOLS * PER_SCHOOL)[klass] * data["x"]
    return data


DATA = frame()
FORMULAS = {
    "nested": "~ x + (1 | school) + (1 | klass)",
    "crossed": "~ x + (1 | klass) + (1 | item)",
    "layered": "~ x + (1 | school) + (x | klass) + (1 | item)",
}


@pytest.fixture(scope="module", params=FORMULAS)
def model(request):
    made = lj.lmm("y " + FORMULAS[request.param], DATA, backend=request.param)
    assert made.structure().backend == request.param
    return made


@pytest.fixture(scope="module")
def fit(model):
    return model.fit()


def deviance(fit, psi):
    """−2ℓᴿ at ψ (m + 1,) with β profiled out, by n × n matrices; β̂, its covariance, and V."""
    design, y = fit.model.data.design, fit.y
    x, v = np.asarray(design.x), psi[-1] * np.eye(len(y))
    for term, d in zip(design.terms, design.structure.absolute(psi), strict=True):
        v += (term.z @ np.asarray(d) @ term.z.T) * (term.codes[:, None] == term.codes)
    half = np.linalg.solve(v, np.column_stack([x, y]))
    phi = np.linalg.inv(x.T @ half[:, :-1])
    beta = phi @ x.T @ half[:, -1]
    logdets = np.linalg.slogdet(v)[1] - np.linalg.slogdet(phi)[1] + (len(y) - len(beta)) * np.log(2 * np.pi)
    return logdets + y @ half[:, -1] - y @ half[:, :-1] @ beta, beta, phi, v


def central(function, psi):
    """Derivatives of function(ψ), with their axis first."""
    # second differences err by the square of a step, and by 1e-13 of the criterion over it
    steps = 1e-3 * np.maximum(psi, 0.1 * psi[-1])
    return np.stack([(function(psi + h) - function(psi - h)) / (2 * h.sum()) for h in np.diag(steps)])


def test_equals_dense_formulas(fit):
    psi = np.asarray(fit.estimate.psi)
    value, beta, phi, v = deviance(fit, psi)
    np.testing.assert_allclose(fit.deviance, value, rtol=1e-10)
    table = fit.coef_table()
    np.testing.assert_allclose(table["estimate"], beta, rtol=1e-8)
    np.testing.assert_allclose(table["se"], np.sqrt(np.diag(phi)), rtol=1e-8)

    def slope(psi):
        return central(lambda psi: deviance(fit, psi)[0], psi)

    gradient, hessian = slope(psi), central(slope, psi)
    # ψ̂ is the minimum: a Newton step promises nothing but what the differences err by
    assert gradient @ np.linalg.solve(hessian, gradient) < 1e-6
    cov = 2.0 * np.linalg.inv(hessian)
    np.testing.assert_allclose(fit.varcorr()["se"], np.sqrt(np.diag(cov)), rtol=1e-4)
    moved = central(lambda psi: np.diag(deviance(fit, psi)[2]), psi)
    df = 2.0 * np.diag(phi) ** 2 / np.einsum("kc,kl,lc->c", moved, cov, moved)
    np.testing.assert_allclose(table["df"], df, rtol=1e-4)
    x, z, g, _, _ = matrices(fit)
    zg = z @ g
    solved = np.linalg.solve(v, np.column_stack([zg, x]))
    solved_zg, solved_x = solved[:, : len(g)], solved[:, len(g) :]
    modes = split(fit, solved_zg.T @ (fit.y - x @ beta))
    spread = split(fit, g - zg.T @ solved_zg + solved_zg.T @ x @ phi @ solved_x.T @ zg)
    found = [fit.random_effects[term.group][list(term.names)] for term in fit.model.frame.random]
    for own, mode in zip(found, modes, strict=True):
        np.testing.assert_allclose(own, mode, rtol=0, atol=1e-7)
    for own, block in zip(fit.cond_var(mspe=True).values(), spread, strict=True):
        np.testing.assert_allclose(own, block, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("classes", "backend"), [(4, "crossed"), (400, "layered")])
def test_nested_factors_stay_sparse_within_a_crossed_model_where_that_pays(classes, backend):
    pupil = np.repeat(np.arange(800), 2)
    frame = pd.DataFrame({"pupil": pupil, "klass": pupil % classes, "item": RNG.integers(0, 5, 1600)})
    model = lj.lmm("~ 1 + (1 | klass / pupil) + (1 | item)", frame)
    assert model.structure().backend == backend


def test_structure_names_every_term_and_the_cost(model):
    text = str(model.structure())
    assert all(f"({term.text})" in text for term in model.frame.random)
    assert f"{ROWS} rows, 2 fixed effects" in text
    assert "one evaluation with derivatives" in text


MAPPED = 6


@pytest.fixture
def mapped(monkeypatch):
    """More than `MAPPED` responses are fitted together."""
    monkeypatch.setattr(sys.modules["lmmjax.batch.sources"], "FEW", MAPPED)


def test_a_batch_equals_single_fits(model, mapped):
    few, many = 3, MAPPED + 4
    rng = np.random.default_rng(1)
    count = few if model.structure().backend == "layered" else many
    values = np.column_stack([DATA["y"] * s + rng.normal(size=ROWS) for s in np.linspace(0.5, 2, count)])
    values[5, 1] = np.nan
    values[:, 2] = np.inf
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="1 of .* could not be fitted")
        fits = model.fit_batch(values)
    assert fits.status[2] == "not_finite"
    for k in (0, 1, count - 1 if count > few else 0):
        keep = np.isfinite(values[:, k])
        alone = lj.lmm(model.formula, DATA[keep].assign(y=values[keep, k])).fit()
        np.testing.assert_allclose(fits.deviance[k], alone.deviance, rtol=1e-9)
        np.testing.assert_allclose(fits.params.iloc[k], alone.params, rtol=1e-6)
        np.testing.assert_allclose(fits.df().iloc[k], alone.coef_table()["df"], rtol=1e-4)


def test_a_batch_of_crossed_factors_without_effects(mapped):
    """Responses of which most have a variance of zero, and maximal terms."""
    frame = DATA.head(120)
    model = lj.lmm("~ x + (x | school) + (x | item)", frame)
    assert model.structure().backend == "crossed"
    values = np.random.default_rng(3).normal(size=(120, 2 * MAPPED))
    fits = model.fit_batch(values)
    assert fits.is_singular.mean() > 0.5
    alone = model.fit_batch(values[:, :MAPPED])
    # a batch makes the same descent from the same start; one may end in another optimum
    same = np.isclose(fits.deviance[:MAPPED], alone.deviance, rtol=1e-9)
    assert same.sum() >= MAPPED - 1
    np.testing.assert_allclose(fits.params[:MAPPED][same], alone.params[same], atol=1e-5)


def test_a_batch_with_small_families_and_weights(mapped):
    rng = np.random.default_rng(2)
    member = np.repeat(np.arange(24), 3)
    data = pd.DataFrame({"family": member // 2, "member": member, "w": rng.uniform(0.5, 2, 72)})
    model = lj.lmm("~ 1 + (1 | family/member)", data, weights="w")
    # every family has weights, and so products, of its own
    assert not model.maker.prepared.shared.compressed
    values = rng.normal(size=(24, 10))[member] + rng.normal(size=(72, 10))
    fits = model.fit_batch(values)
    for k in (0, 9):
        alone = model.fit_response(values[:, k])
        np.testing.assert_allclose(fits.deviance[k], alone.deviance, rtol=1e-9)


def test_new_levels_and_new_rows(model, fit):
    new = DATA.head(4).assign(klass=[0, 1, 999, 1])
    with pytest.raises(ValueError, match="new levels of 'klass': 999"):
        fit.predict(new)
    predicted = fit.predict(new, new_levels="population").to_numpy()
    other = [term.group for term in model.frame.random if term.group != "klass"]
    np.testing.assert_allclose(predicted[2], fit.predict(new.iloc[[2]], re=other).iloc[0], rtol=1e-12)
    np.testing.assert_allclose(fit.predict(DATA), fit.fittedvalues, rtol=1e-10)


def test_simulated_responses_have_the_variances_of_the_model(fit):
    import jax

    draws = fit.simulate(jax.random.key(0), 400).to_numpy()
    # a row's variance is the sum of the components; the mean over all rows and 400 draws is good to 5 %
    spread = draws.var(axis=1, ddof=1).mean()
    assert abs(spread / fit.varcorr()["vcov"].sum() - 1) < 0.1
