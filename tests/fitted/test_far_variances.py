"""Variances that differ by many powers of ten: found, the same alone and in a batch, or said to be lost."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

import lmmjax as lj
from lmmjax.postestimation.predictions import batch_modes, batch_predict

RNG = np.random.default_rng(2)
GROUPS, SIZE = 20, 5
G = np.repeat(np.arange(GROUPS), SIZE)
FRAME = pd.DataFrame({"g": G, "x": RNG.normal(size=G.size), "t": np.tile(np.arange(SIZE), GROUPS)})


def cholesky(a):
    """By columns, in the precision of a (longdouble has 19 digits)."""
    left, out = a.copy(), np.zeros_like(a)
    for j in range(len(a)):
        out[j:, j] = left[j:, j] / np.sqrt(left[j, j])
        left -= np.outer(out[:, j], out[:, j])
    return out


def solved(factor, b):
    out = b.astype(factor.dtype)
    for j in range(len(b)):
        out[j] = (out[j] - factor[j, :j] @ out[:j]) / factor[j, j]
    return out


def group_by_group(psi, x, y, codes, reml):
    """−2ℓ or −2ℓᴿ by the definition with 19 digits; V = LLᵀ of every group."""
    (a, b, c, s), p = np.asarray(psi, np.longdouble), x.shape[1]
    d, logdet, products = (
        np.array([[a, c], [c, b]]),
        np.longdouble(0),
        np.zeros((p + 1, p + 1), np.longdouble),
    )
    for g in np.unique(codes):
        z = np.asarray(x[codes == g], np.longdouble)
        factor = cholesky(z @ d @ z.T + s * np.eye(len(z)))
        w = solved(factor, np.column_stack([z, y[codes == g]]))
        logdet, products = logdet + 2 * np.sum(np.log(np.diagonal(factor))), products + w.T @ w
    inner = cholesky(products)
    logdet += reml * 2 * np.sum(np.log(np.diagonal(inner)[:p]))
    return float(logdet + inner[p, p] ** 2 + (len(y) - reml * p) * np.log(2 * np.longdouble(np.pi)))


def uneven(intercept, slope, seed=5):
    """Rows of groups of 2 to 7, and three responses with these standard deviations, of noise 1."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(GROUPS), np.arange(GROUPS) % 6 + 2)
    d = pd.DataFrame({"g": g, "x": rng.normal(size=g.size)})
    b = rng.normal(size=(GROUPS, 2, 3)) * np.array([intercept, slope])[:, None]
    return d, b[g, 0] + b[g, 1] * d.x.to_numpy()[:, None] + rng.normal(size=(g.size, 3))


@pytest.mark.parametrize(("sizes", "reml"), [((1e6, 1.0), True), ((1.0, 3e4), False), ((1e5, 1e5), True)])
def test_slopes_and_intercepts_of_which_one_is_1e9_times_the_other(sizes, reml):
    """The criterion is that of the definition, and lowest there; alone as in a batch."""
    d, y = uneven(*sizes)
    fits = lj.lmm("~ x + (x | g)", d).fit_batch(y, reml=reml)
    assert fits.converged.all()
    one = lj.lmm("y ~ x + (x | g)", d.assign(y=y[:, 0])).fit(reml=reml)
    assert one.converged
    # two descents to one optimum, at which 19 digits see 1e-9
    assert abs(one.deviance - fits.deviance[0]) < 1e-7
    x, psi = np.column_stack([np.ones(len(d)), d.x]), fits.estimate.psi[0]
    here = group_by_group(psi, x, y[:, 0], d.g, reml)
    # ψ̂ as doubles: 1e-16 of the covariance of 1e12 beside 1
    assert abs(fits.deviance[0] - here) < 1e-6
    for k, step in [(k, step) for k in (0, 1, 3) for step in (-0.05, 0.05)]:
        near = psi * np.where(np.arange(4) == k, 1 + step, 1.0)
        assert near[0] * near[1] > near[2] ** 2
        assert group_by_group(near, x, y[:, 0], d.g, reml) > here


def test_coefficients_of_groups_alike_have_the_moments_of_least_squares():
    """With Z the same in all groups and X = Z, D + σ²(ZᵀZ)⁻¹ is the covariance of their coefficients."""
    rng = np.random.default_rng(6)
    z = np.column_stack([np.ones(SIZE), np.arange(SIZE) - 2.0])
    b = rng.normal(size=(GROUPS, 2)) * [1e5, 2.0]
    y = b @ z.T + rng.normal(size=(GROUPS, SIZE))
    d = pd.DataFrame({"g": G, "x": np.tile(z[:, 1], GROUPS), "y": y.ravel()})
    fit = lj.lmm("y ~ x + (x | g)", d).fit()
    own = np.linalg.lstsq(z, y.T, rcond=None)[0]
    left = y.T - z @ own
    sigma2 = np.sum(left**2) / (GROUPS * (SIZE - 2))
    big = np.cov(own) - sigma2 * np.linalg.inv(z.T @ z)
    assert fit.converged
    # least squares have 16 digits of 1e5, whose slopes are 1
    np.testing.assert_allclose(fit.estimate.psi[[0, 1, 3]], [big[0, 0], big[1, 1], sigma2], rtol=1e-8)
    np.testing.assert_allclose(fit.bse, np.sqrt(np.diagonal(np.cov(own)) / GROUPS), rtol=1e-8)


def test_degrees_of_freedom_do_not_depend_on_how_large_a_large_variance_is():
    """Beyond 1e8σ² the large coefficients are as good as fixed effects: nothing else is left to change."""
    found = []
    for size in (1e4, 1e6):
        d, _ = uneven(1.0, 1.0)
        rng = np.random.default_rng(8)
        b = rng.normal(size=(GROUPS, 2)) * [size, 1.0]
        y = b[d.g, 0] + b[d.g, 1] * d.x + rng.normal(size=len(d))
        fit = lj.lmm("y ~ x + (x | g)", d.assign(y=y)).fit()
        fits = lj.lmm("~ x + (x | g)", d).fit_batch(np.column_stack([y]))
        found.append([fit.bse["x"], *(fit.coef_table(k).loc["x", "df"] for k in ("satterthwaite", "kr"))])
        np.testing.assert_allclose(np.asarray(fits.df("satterthwaite"))[0, 1], found[-1][1], rtol=1e-6)
    # they differ by the share of what is left in the large variance
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_large_coefficients_of_which_the_columns_have_terms_of_their_own():
    """The first within groups is the largest, whatever the formula's order."""
    d, y = uneven(1.0, 1e6)
    fit = lj.lmm("y ~ x + (x || g)", d.assign(y=y[:, 0])).fit()
    assert fit.converged
    x, psi = np.column_stack([np.ones(len(d)), d.x]), fit.estimate.psi
    # ψ̂ as doubles
    assert abs(fit.deviance - group_by_group([*psi[:2], 0, psi[2]], x, y[:, 0], d.g, True)) < 1e-6
    # what is left is σ²V⁻¹(y − Xβ̂), to the digits that y has of it
    for g in range(GROUPS):
        rows = np.asarray(x[d.g == g], np.longdouble)
        factor = cholesky(rows @ np.diag(psi[:2]) @ rows.T + psi[2] * np.eye(len(rows)))
        off = y[d.g == g, 0] - rows @ fit.estimate.beta
        upper = factor[::-1, ::-1].T
        left = psi[2] * solved(upper, solved(factor, off)[::-1])[::-1]
        np.testing.assert_allclose(fit.resid[d.g == g], left.astype(float), atol=1e-6)


def test_a_large_variance_of_one_level_does_not_hide_small_ones_of_others():
    """Least squares leave a part of the large residuals in the others: 30 rows a level, 7 powers of ten."""
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"g": np.repeat(np.arange(15), 6), "v": np.tile(list("abc"), 30)})
    d["x"] = rng.normal(size=90)
    y = (rng.normal(size=(90, 2)) + rng.normal(size=(15, 2))[d.g]) * np.where(d.v == "a", 1e7, 1.0)[:, None]
    structure = lj.VarIdent("v")
    fits = lj.lmm("~ x + (1 | g)", d, residual=structure).fit_batch(y)
    assert fits.converged.all()
    for levels in (list("abc"), list("cab")):
        data = d.assign(y=y[:, 0], v=pd.Categorical(d.v, categories=levels))
        one = lj.lmm("y ~ x + (1 | g)", data, residual=structure).fit()
        assert one.converged
        assert abs(one.deviance - fits.deviance[0]) < 1e-8


@pytest.mark.parametrize(
    "structure",
    [
        lj.Unstructured("t", group="g"),
        lj.CompoundSymmetry(group="g") * lj.VarIdent("t"),
        lj.Symmetric("t", group="g") * lj.VarIdent("t"),
    ],
    ids=["un", "csh", "unr"],
)
def test_residuals_that_are_all_but_equal_within_groups_are_named(structure):
    """Correlations of 1 − 1e-8: of 16 digits of R none is left where its square is needed."""
    d = FRAME[FRAME.t < 3]
    rng = np.random.default_rng(4)
    y = rng.normal(size=GROUPS)[d.g] + 1e-4 * rng.normal(size=len(d))
    same = rng.normal(size=GROUPS)[d.g]
    model = lj.lmm("~ x", d, residual=structure)
    with pytest.warns(UserWarning, match="2 of 3 responses could not be fitted"):
        fits = model.fit_batch(np.column_stack([y, rng.normal(size=len(d)), same]))
    # where nothing varies within groups that is seen
    assert list(fits.status) == ["too_few_digits", "converged", "perfect_fit"]
    assert "random effect" in fits.reasons.iloc[0]
    with pytest.warns(lj.FitWarning, match="so many powers of ten, or residuals"):
        one = lj.lmm("y ~ x", d.assign(y=y), residual=structure).fit()
    assert not one.converged
    assert "rounding hides" in one.status


def turning(intercept, slope, groups=12, size=8):
    """Rows, and three responses with these standard deviations, of noise 1."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(groups), size)
    t = np.tile(np.arange(float(size)), groups) + 0.1 * rng.normal(size=g.size)
    d = pd.DataFrame({"g": g, "t": t, "x": rng.normal(size=g.size)})
    b = rng.normal(size=(groups, 2, 3)) * np.array([intercept, slope])[:, None]
    return d, b[g, 0] + b[g, 1] * t[:, None] + rng.normal(size=(g.size, 3))


def test_predictions_of_batches_leave_the_residuals_of_large_effects(monkeypatch):
    monkeypatch.setattr(batch_modes, "ALONE", 1)
    d, y = turning(1e8, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fits = lj.lmm("~ x + t + (1 + t | g)", d).fit_batch(y)
    left = y - np.asarray(fits.predict()).T
    # noise of 1, less what 24 coefficients take of 96 rows; β̂ and b̂ of 1e8 have 1e-8 of it
    assert np.all((np.std(left, axis=0) > 0.6) & (np.std(left, axis=0) < 1.2))


def test_limits_of_new_levels_beside_large_variances(monkeypatch):
    """Of 12 groups whose coefficients are all but seen: t of 11, and of 96 − 25 where a group is known."""
    monkeypatch.setattr(batch_predict, "few", lambda maker: 0)
    d, y = turning(1e4, 5e3)
    model = lj.lmm("y ~ x + t + (1 + t | g)", d.assign(y=y[:, 0]))
    new = pd.DataFrame({"g": [99, 99, 3], "t": [0.0, 3.0, 2.0], "x": [0.0, 1.0, 1.0]})
    fits = model.fit_batch(y)
    for ddf in ("satterthwaite", "kenward-roger"):
        ask = {"interval": "confidence", "new_levels": "population", "ddf": ddf}
        one, many = model.fit().predict(new, **ask), fits.predict(new, **ask).iloc[:3]
        for found in (one, many):
            half = (found["upper"] - found["lower"]) / (2 * found["se"])
            # what groups do not tell is 1e-8 of their variance
            np.testing.assert_allclose(half, stdtrit([11, 11, 71], 0.975), rtol=1e-6)
        # errors of the rounding of large variances
        np.testing.assert_allclose(many["se"], one["se"], rtol=1e-6)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_large_variances_of_responses_with_gaps(ddf):
    """Each has the degrees of freedom, and the F test, of its rows alone."""
    d, y = turning(1.0, 1e6)
    rng, y = np.random.default_rng(2), y[:, :2].copy()
    for column in y.T:
        column[rng.choice(len(d), 5, replace=False)] = np.nan
    fits = lj.lmm("~ x + t + (1 + t | g)", d).fit_batch(y)
    table = fits.t_tests(ddf)
    joint = fits.anova(3, ddf)
    for k in range(2):
        there = d.assign(y=y[:, k])[np.isfinite(y[:, k])]
        one = lj.lmm("y ~ x + t + (1 + t | g)", there).fit()
        own, test = one.coef_table(ddf), one.anova(3, ddf)
        # two descents to one optimum
        np.testing.assert_allclose(table["se"][k], own["se"], rtol=1e-4)
        np.testing.assert_allclose(table["df"][k], own["df"], rtol=1e-4)
        assert table["df"][k][0] < 12
        of_batch = joint.xs(fits.names[k], level=1).loc[test.index]
        np.testing.assert_allclose(of_batch[["F", "den_df"]], test[["F", "den_df"]], rtol=1e-3)


def test_starts_and_evaluations_of_far_fits_are_those_that_are_asked_for():
    d, y = turning(1e5, 1e5)
    model = lj.lmm("y ~ x + t + (1 + t | g)", d.assign(y=y[:, 0]))
    fit = model.fit()
    again = model.fit(start=np.asarray(fit.fitted.estimate.theta))
    assert again.converged
    assert again.fitted.estimate.n_iter < fit.fitted.estimate.n_iter
    # two descents to one optimum
    assert abs(again.deviance - fit.deviance) < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        there = model.fit(max_iter=0)
    assert there.fitted.estimate.n_iter == 0
