"""Degrees of freedom: explicit dense formulas, finite differences, boundaries."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from fit_data import indicators, matrices
from numpy.testing import assert_allclose
from scipy import stats

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.gram import FullCurve
from lmmjax.inference import ddf
from lmmjax.inference.natural import Natural, natural
from lmmjax.postestimation.hypotheses.fixed_tests import natural_at

MODELS = {
    "slopes": ("y ~ Days + (Days | Subject)", {}),
    "two terms, weights": (
        "y ~ Days + sex + (1 | Subject) + (0 + Days | Subject)",
        {"weights": "1 + Days / 9"},
    ),
    "crossed": ("y ~ Days + (1 | Subject) + (1 | part)", {"backend": "dense"}),
    "no random effects": ("y ~ Days + sex", {}),
}


@pytest.fixture(scope="module")
def data(sleepstudy):
    """A third of the rows left out, so that nothing is balanced."""
    code = pd.factorize(sleepstudy["Subject"])[0]
    rng = np.random.default_rng(0)
    frame = sleepstudy.assign(
        y=sleepstudy["Reaction"],
        sex=np.where(code % 2, "f", "m"),
        part=[f"p{k}" for k in rng.integers(0, 6, 180)],
    )
    return frame[rng.random(180) < 0.66].reset_index(drop=True)


@pytest.fixture(scope="module", params=list(MODELS))
def any_fit(request, data):
    formula, options = MODELS[request.param]
    return lj.lmm(formula, data, **options).fit()


def components(fit):
    """The matrices V_i with V = Σ ψ_iV_i, the last that of σ²."""
    frame, out = fit.model.frame, []
    for term in fit.model.frame.random:
        z, q = indicators(term), len(term.names)
        z = z.reshape(len(z), -1, q)
        pairs = [(j, j) for j in range(q)] + [(i, j) for j in range(q) for i in range(j + 1, q)]
        for i, j in pairs:
            product = z[:, :, i] @ z[:, :, j].T
            out.append(product if i == j else product + product.T)
    return [*out, np.diag(1 / (np.ones(fit.nobs) if frame.weights is None else frame.weights))]


def dense(fit):
    """F, P_i, Q_ij, tr(V⁻¹V_iV⁻¹V_j), tr(PV_iPV_j), yᵀPV_iPV_jPy by n × n matrices; P projects off X."""
    if not fit.model.frame.random:
        x, v = fit.model.frame.x, fit.scale * np.eye(fit.nobs)
    else:
        x, _, _, _, v = matrices(fit)
    parts, inverse = components(fit), np.linalg.inv(v)
    vx = inverse @ x
    p = [-vx.T @ one @ vx for one in parts]
    q = [[vx.T @ a @ inverse @ b @ vx for b in parts] for a in parts]
    k = [[np.trace(inverse @ a @ inverse @ b) for b in parts] for a in parts]
    xx = x.T @ vx
    projection = inverse - vx @ np.linalg.solve(xx, vx.T)
    py = projection @ fit.y
    traces = [[np.trace(projection @ a @ projection @ b) for b in parts] for a in parts]
    forms = [[py @ a @ projection @ b @ py for b in parts] for a in parts]
    return xx, np.array(p), np.array(q), np.array(k), np.array(traces), np.array(forms)


def whole(curve, k):
    """All second derivatives (k, k, p, p) of a curve."""
    units = np.eye(k * k).reshape(k, k, k, k)
    units = 0.5 * (units + units.swapaxes(2, 3))
    return np.array([[curve.weighted(w) for w in row] for row in units])


def test_derivatives_equal_the_dense_formulas(any_fit):
    """In the internal coordinates; ψ is mapped to the user's by its own definition, from V."""
    at, _ = natural_at(any_fit.fitted)
    xx, p, q, k, _, _ = dense(any_fit)
    back = np.linalg.inv(at.outward)
    assert_allclose(back.T @ at.xx @ back, xx, rtol=1e-9)
    with jax.enable_x64(True):
        problem = any_fit.model.problem(any_fit.y)
        m = problem.structure.n_params
        # ψ inside = T ψ
        t = np.eye(m + 1)
        t[:m, :m] = problem.structure.entry_map(problem.basis.inward)
        t /= problem.origin.scale**2
    first = np.einsum("ji,jab->iab", t, at.first)
    second = np.einsum("ki,lj,klab->ijab", t, t, whole(at.second, m + 1))
    assert_allclose(back.T @ first @ back, p, rtol=1e-8, atol=1e-10 * np.abs(p).max())
    assert_allclose(back.T @ second @ back, q + q.swapaxes(0, 1), rtol=1e-8, atol=1e-9 * np.abs(q).max())
    assert_allclose(t.T @ at.logdet_second @ t, -k, rtol=1e-8, atol=1e-10 * k.max())


def expected_information(xx, p, q, k):
    phi = np.linalg.inv(xx)
    crossed = np.einsum("ab,ibc,cd,jda->ij", phi, p, phi, p)
    return 0.5 * (k - 2 * np.einsum("ab,ijba->ij", phi, q) + crossed)


def test_single_contrasts_equal_the_dense_formulas(any_fit):
    xx, p, q, k, traces, forms = dense(any_fit)
    phi = np.linalg.inv(xx)
    expected = expected_information(xx, p, q, k)
    # two ways to write the expected information of REML
    assert_allclose(expected, 0.5 * traces, rtol=1e-7, atol=1e-9 * np.abs(traces).max())
    w = np.linalg.inv(expected)
    bias = np.einsum("ij,ijab->ab", w, q - np.einsum("iab,bc,jcd->ijad", p, phi, p))
    adjusted = phi + 2 * phi @ bias @ phi
    observed = np.linalg.inv(forms - 0.5 * traces)
    slope = -np.einsum("ab,ibc,ca->ia", phi, p, phi)
    for name, cov in (("satterthwaite", observed), ("kenward-roger", w)):
        table = any_fit.coef_table(name)
        df = 2 * np.diag(phi) ** 2 / np.einsum("ia,ij,ja->a", slope, cov, slope)
        assert_allclose(table["df"], df, rtol=1e-6, err_msg=name)
        se = np.sqrt(np.diag(adjusted if name == "kenward-roger" else phi))
        assert_allclose(table["se"], se, rtol=1e-7, err_msg=name)
        assert_allclose(table["p"], 2 * stats.t.sf(np.abs(table["t"]), table["df"]), rtol=1e-9)


def test_a_regression_has_its_residual_degrees_of_freedom(data):
    fit = lj.lmm("y ~ Days + sex", data).fit()
    for method in ("satterthwaite", "kenward-roger"):
        assert_allclose(fit.coef_table(method)["df"], fit.nobs - 3, rtol=1e-9)
    # under maximum likelihood the variance of σ̂² is 2σ⁴/n
    assert_allclose(fit.refit(reml=False).coef_table()["df"], fit.nobs, rtol=1e-9)


def test_one_covariance_has_one_answer_but_for_the_second_derivative_term(data):
    """φ = log ψ: derivatives of the linearised V scale by ψ, and ∂²V/∂φ_i² = ψ_iV_i gives R_ii = −ψ_iP_i."""
    fit = lj.lmm("y ~ Days + (1 | Subject)", data).fit()
    at, _ = natural_at(fit.fitted)
    with jax.enable_x64(True):
        psi = np.asarray(inner_psi(fit))
    second = whole(at.second, len(psi))
    scaled = Natural(
        at.xx,
        psi[:, None, None] * at.first,
        FullCurve(psi[:, None, None, None] * psi[None, :, None, None] * second),
        psi[:, None] * at.logdet_second * psi[None, :],
        None,
        at.outward,
        at.sigma2,
    )
    bend = np.zeros_like(second)
    for i in range(len(psi)):
        bend[i, i] = -scaled.first[i]
    straight, bent = ddf.kenward_roger(at), ddf.kenward_roger(dataclasses.replace(scaled, bend=bend))
    plain = ddf.kenward_roger(scaled)
    assert_allclose(plain.cov_beta, straight.cov_beta, rtol=1e-9)
    # −¼R of both ends: 2Φ(−¼ΣW_iiR_ii)Φ = ½ΦΣW_iiP_iΦ
    phi = np.linalg.inv(at.xx)
    weights = np.diag(bent.cov_psi)
    expected = straight.cov_beta + 0.5 * phi @ np.einsum("i,iab->ab", weights, scaled.first) @ phi
    assert_allclose(bent.cov_beta, expected, rtol=1e-9)


def inner_psi(fit):
    problem = fit.model.problem(fit.y)
    m = problem.structure.n_params
    inward = problem.structure.entry_map(problem.basis.inward)
    psi = fit.estimate.psi / problem.origin.scale**2
    return jnp.concatenate([inward @ psi[:m], psi[m:]])


# --- boundaries ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def singular(sleepstudy):
    """Responses whose fits have a zero slope variance, or a correlation of ±1."""
    rng = np.random.default_rng(3)
    code, days = pd.factorize(sleepstudy["Subject"])[0], sleepstudy["Days"].to_numpy()
    out = {"slope": [], "correlation": []}
    for k in range(60):
        b = rng.normal(size=18)
        y = (
            250
            + 10 * days
            + 20 * b[code] * (k % 3 > 0)
            + 2 * b[code] * days * (k % 3 > 1)
            + rng.normal(0, 25, 180)
        )
        fit = lj.lmm("y ~ Days + (Days | Subject)", sleepstudy.assign(y=y)).fit()
        if fit.is_singular:
            sd = fit.varcorr()["sdcor"]
            out["correlation" if min(sd[:2]) > 0 else "slope"].append(fit)
        if min(map(len, out.values())) > 2:
            return out
    raise AssertionError("too few of them")


restricted_loglik, gram = quick_jit(lj.restricted_loglik), quick_jit(lj.gram)


def tangent_df(fit):
    """lmerTest's: Φ and the criterion differenced in (θ, σ), flat directions dropped."""
    problem = fit.model.problem(fit.y)

    def unprofiled(point):
        theta, sigma = point[:-1], point[-1]
        return -2.0 * float(restricted_loglik(problem, sigma**2, theta))

    def covariance(point):
        return np.linalg.inv(np.asarray(gram(point[:-1], problem).xx)) * point[-1] ** 2

    at = np.append(fit.theta, fit.sigma)
    steps = 1e-4 * np.maximum(np.abs(at), 0.1)
    n = len(at)
    unit = np.diag(steps)
    hessian, slope = np.zeros((n, n)), []
    for i in range(n):
        slope.append((covariance(at + unit[i]) - covariance(at - unit[i])) / (2 * steps[i]))
        for j in range(n):
            pieces = [a * b * unprofiled(at + a * unit[i] + b * unit[j]) for a in (1, -1) for b in (1, -1)]
            hessian[i, j] = sum(pieces) / (4 * steps[i] * steps[j])
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    kept = values > 1e-8 * values.max()
    inverse = 2 * vectors[:, kept] @ np.diag(1 / values[kept]) @ vectors[:, kept].T
    variance = np.diag(covariance(at))
    gradient = np.array([np.diag(s) for s in slope])
    return 2 * variance**2 / np.einsum("ik,ij,jk->k", gradient, inverse, gradient)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_wald_intervals_hold_what_the_t_tests_do_not_reject(ddf):
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"g": np.repeat(np.arange(7), 4), "x": rng.normal(size=28)})
    data["y"] = rng.normal(size=7)[data["g"]] + 0.3 * data["x"] + rng.normal(size=28)
    fit = lj.lmm("y ~ x + (1 | g)", data).fit()
    table = fit.coef_table(ddf)
    # at the level of a coefficient's own p-value one end of its interval is zero
    for name, p in table["p"].items():
        ends = fit.conf_int(level=1 - p, ddf=ddf).loc[name]
        assert np.abs(ends).min() < 1e-8 * np.abs(ends).max()


@pytest.mark.parametrize("kind", ["slope", "correlation"])
def test_singular_fits(singular, kind, x64):
    for fit in singular[kind][:3]:
        assert_allclose(fit.coef_table()["df"], tangent_df(fit), rtol=2e-3)


def test_zero_variance_is_as_if_the_term_were_not_there():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"g": np.repeat(list("abcdef"), 6), "x": np.tile(np.arange(6.0) - 2.5, 6)})
    frame["y"] = rng.normal(size=36)
    frame["y"] -= frame.groupby("g")["y"].transform("mean")
    fit = lj.lmm("y ~ x + (1 | g)", frame).fit()
    assert fit.is_singular
    assert_allclose(fit.coef_table()["df"], 34.0, rtol=1e-8)
    # the expected information knows no boundary: the df of a balanced one-way layout
    assert_allclose(fit.coef_table("kenward-roger")["df"], [5.0, 29.0], rtol=1e-8)


# --- front end -------------------------------------------------------------------------------------------


def test_kenward_roger_of_a_maximum_likelihood_fit(fit):
    by_ml = fit.refit(reml=False)
    table = by_ml.coef_table("kenward-roger")
    pd.testing.assert_frame_equal(table, fit.coef_table("kenward-roger"), rtol=1e-6)
    assert "refitted by REML" in table.attrs["note"]
    assert "note" not in by_ml.coef_table().attrs
    assert "refitted by REML" in str(by_ml.summary(ddf="kenward-roger"))
    assert "refitted" not in str(fit.summary(ddf="kenward-roger"))


def test_summary_names_the_method(fit):
    text = str(fit.summary())
    assert "t-tests use Satterthwaite's method" in text
    assert "Pr(>|t|)" in text
    assert "17.0000" in text
    normal = str(fit.summary(ddf="normal"))
    assert "Pr(>|z|)" in normal
    assert "t-tests" not in normal
    assert_allclose(fit.pvalues, fit.coef_table("satterthwaite")["p"], rtol=0)
    assert np.isinf(fit.coef_table("normal")["df"]).all()


def test_a_fit_that_failed_has_no_tests(data):
    fit = lj.lmm("y ~ Days + (1 | Subject)", data.assign(y=2.0)).fit()
    for method in ("satterthwaite", "kenward-roger", "normal"):
        assert fit.coef_table(method)["p"].isna().all()
        assert fit.anova(ddf=method)["p"].isna().all()
        assert np.isnan(fit.test("Days", ddf=method)["p"].iloc[0])


def test_pure_functions_trace_and_map(data, x64):
    fit = lj.lmm("y ~ Days + (Days | Subject)", data).fit()
    problem, psi = fit.model.problem(fit.y), jnp.asarray(fit.estimate.psi)
    cov = jnp.asarray(natural_at(fit.fitted)[1])

    def tests(psi):
        at = natural(problem, psi)
        rows, beta = at.outward, jnp.asarray(fit.estimate.beta)
        adjusted = ddf.kenward_roger(at)
        several = ddf.satterthwaite_f(at, cov, rows, beta), ddf.kenward_roger_f(at, adjusted, rows, beta)
        return ddf.single_df(at, cov, rows), [(t.f, t.den_df) for t in several]

    single, several = quick_jit(jax.vmap(tests))(jnp.stack([psi, 2.0 * psi]))
    assert_allclose(single[0], fit.coef_table()["df"], rtol=1e-10)
    for (f, den_df), name in zip(several, ("satterthwaite", "kenward-roger"), strict=True):
        expected = fit.test(np.eye(2), ddf=name)
        assert_allclose([f[0], den_df[0]], expected[["F", "den_df"]].to_numpy()[0], rtol=1e-9)


def test_variances_of_variances_that_are_none():
    spread = np.array([2.0, 0.02, 0.0, 1e-14, -1e-14, -0.5])
    assert_allclose(ddf._twice_over(spread), [1.0, 100.0, np.inf, np.inf, np.inf, np.nan])


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_rounding_is_no_contradiction(unit):
    """Rows of which one is a multiple of another, for responses in any unit."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(8, 4))
    rows = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -2.0], [0.0, 0.0, 2.0, -4.0]])
    phi = a.T @ a * unit**2
    assert ddf.independent_rows(rows, np.array([0.5, 0.0, 0.0]), phi).tolist() == [0, 1]
    assert ddf.independent_rows(rows, np.array([0.5, 0.3, 0.6]), phi).tolist() == [0, 1]
    with pytest.raises(ValueError, match="contradict"):
        ddf.independent_rows(rows, np.array([0.5, 0.3, 0.6 + 1e-4 * max(unit, 1.0)]), phi)
