"""Rows predicted from the others: against refits in a loop, V written out, and definitions of scores."""

import jax
import numpy as np
import pandas as pd
import pytest
from fit_data import matrices
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm

import lmmjax as lj
from lmmjax.core.residuals import covariance
from lmmjax.fitted import component_names
from lmmjax.inference.diagnostics.deletion import held
from lmmjax.inference.diagnostics.left_out import crps, each_row, left_out, log_density
from lmmjax.postestimation.simulation.planned import planned_psi
from lmmjax.postestimation.simulation.resample import independent_blocks

KEY = jax.random.key(1)


def by_hand(x, v, y, out):
    """Generalised least squares of the rows that are not `out`, and the conditional mean and variance."""
    keep = ~out
    inverse = np.linalg.inv(v[np.ix_(keep, keep)])
    phi = np.linalg.pinv(x[keep].T @ inverse @ x[keep])
    beta = phi @ x[keep].T @ inverse @ y[keep]
    weights = v[np.ix_(out, keep)] @ inverse
    mean = x[out] @ beta + weights @ (y - x @ beta)[keep]
    left = x[out] - weights @ x[keep]
    return mean, np.diag(v[np.ix_(out, out)] - weights @ v[np.ix_(keep, out)] + left @ phi @ left.T)


@pytest.fixture(scope="module")
def crossed():
    rng = np.random.default_rng(0)
    n = 60
    d = pd.DataFrame({"g": rng.integers(0, 7, n), "h": rng.integers(0, 5, n), "x": rng.normal(size=n)})
    d["w"], d["c"] = rng.uniform(0.5, 2, n), np.where(np.arange(n) % 3, "a", "b")
    y = rng.normal(size=7)[d.g] + rng.normal(size=5)[d.h] + d.x + rng.normal(size=n)
    return lj.lmm("y ~ x + c + (1 | g) + (1 | h)", d.assign(y=y), weights="w", offset="w").fit()


@pytest.mark.parametrize(("by", "folds"), [("observation", None), ("observation", 4), ("g", None), ("h", 2)])
def test_held_variances_are_generalised_least_squares_without_the_fold(crossed, by, folds):
    found = crossed.cross_validate(by, folds, key=KEY, fixed_variances=True)
    x, _, _, _, v = matrices(crossed)
    offset = crossed.model.frame.offset
    for fold, rows in found.predictions.groupby("fold", observed=True):
        out = (found.predictions["fold"] == fold).to_numpy()
        mean, variance = by_hand(x, v, crossed.y - offset, out)
        assert_allclose(rows["fit"], mean + offset[out], rtol=1e-9)
        assert_allclose(rows["se"], np.sqrt(variance), rtol=1e-9)
    assert list(found.predictions.index) == list(crossed.model.frame.index)
    assert set(found.table["status"]) == {"fixed variances"}


STRUCTURES = {
    "slopes, nested": ("~ x + c + (x | g) + (1 | g:k)", None, {"sd_x|g": 0.4, "cor_x.(Intercept)|g": 0.3}),
    "series, crossed": ("~ x + c + (1 | h)", lj.AR1("t", group="g"), {"Phi": 0.6}),
    "residual groups alone": ("~ x + c", lj.CompoundSymmetry(group="g"), {"Rho": 0.4}),
    "variances": ("~ x + (1 | g)", lj.VarIdent("c"), {"sd(c=b)": 1.7}),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_at_given_parameters(name):
    """Rows that are left out are told by their groups and by correlated residuals."""
    formula, structure, given = STRUCTURES[name]
    rng = np.random.default_rng(2)
    d = pd.DataFrame({"g": np.repeat(range(6), 6), "h": rng.integers(0, 4, 36), "x": rng.normal(size=36)})
    d["c"], d["k"], d["t"] = np.where(np.arange(36) % 3, "a", "b"), np.arange(36) // 3, np.tile(range(6), 6)
    data = lj.lmm(formula, d, residual=structure).data
    names = component_names(data.components)
    psi = planned_psi(data, None, dict.fromkeys((n for n in names if n[:3] in ("sd_", "sig")), 1.2) | given)
    v = covariance(data.design, psi, np.arange(36))
    for term, matrix in zip(data.design.terms, data.design.structure.absolute(psi), strict=True):
        v = v + (term.codes[:, None] == term.codes) * (term.z @ np.asarray(matrix) @ term.z.T)
    y, parts = rng.normal(size=36), np.empty(36, int)
    for k, rows in enumerate(independent_blocks(data.design)):
        parts[rows] = k
    fit = held(data.design, y, psi)
    for out in (d["g"] == 2, d["t"] == 3, d["k"] > 8, pd.Series(rng.uniform(size=36) < 0.3)):
        found = left_out(fit, np.flatnonzero(out), parts)
        mean, variance = by_hand(data.design.x, v, y, out.to_numpy())
        assert_allclose(found.error, y[out] - mean, rtol=1e-9, atol=1e-11)
        assert_allclose(found.variance, variance, rtol=1e-9)
    one = [left_out(fit, np.array([k]), parts) for k in range(36)]
    assert_allclose(each_row(fit).error, np.concatenate([a.error for a in one]), rtol=1e-9, atol=1e-11)
    assert_allclose(each_row(fit).variance, np.concatenate([a.variance for a in one]), rtol=1e-9)


def test_refits_in_a_loop(fit, sleepstudy):
    """By whole groups, which are new, and by rows, whose groups are known."""
    for by, folds in (("Subject", 3), ("observation", 3)):
        found = fit.cross_validate(by, folds, key=KEY)
        for fold in range(folds):
            out = (found.predictions["fold"] == fold).to_numpy()
            refitted = fit.model.subset(~out).fit()
            options = {"interval": "prediction", "ddf": "normal", "new_levels": "population"}
            expected = refitted.predict(sleepstudy[out], **options)
            assert_allclose(found.predictions.loc[out, "fit"], expected["fit"], rtol=1e-8)
            half = (expected["upper"] - expected["lower"]) / 2
            assert_allclose(found.predictions.loc[out, "se"], half / norm.ppf(0.975), rtol=1e-7)
        assert set(found.table["status"]) == {"converged"}


def test_scores_are_their_definitions(fit):
    found = fit.cross_validate("Subject", 3, key=KEY, fixed_variances=True)
    p = found.predictions
    error = p["observed"] - p["fit"]
    assert_allclose(found.scores["rmse"], np.sqrt(np.mean(error**2)))
    assert_allclose(found.scores["mae"], np.mean(np.abs(error)))
    assert_allclose(found.scores["lpd"], np.mean(norm.logpdf(p["observed"], p["fit"], p["se"])))
    others = np.array([p["observed"][p["fold"] != fold].mean() for fold in p["fold"]])
    assert_allclose(found.scores["r2"], 1 - np.sum(error**2) / np.sum((p["observed"] - others) ** 2))
    assert found.table["n"].sum() == found.scores["n"] == fit.nobs
    one = found.table.loc[0, "rmse"]
    assert_allclose(one, np.sqrt(np.mean(error[p["fold"] == 0] ** 2)))
    assert max(map(len, repr(found).splitlines())) <= 80


@pytest.mark.parametrize(("error", "sd"), [(0.3, 0.5), (-2.0, 1.5), (0.0, 1.0)])
def test_crps_is_the_integral_of_its_definition(error, sd):
    below = quad(lambda t: norm.cdf(t, scale=sd) ** 2, -40, error, limit=200)[0]
    above = quad(lambda t: norm.sf(t, scale=sd) ** 2, error, 40, limit=200)[0]
    assert_allclose(crps(np.array(error), np.array(sd**2)), below + above, rtol=1e-6)
    assert_allclose(log_density(np.array(error), np.array(sd**2)), norm.logpdf(error, scale=sd))


def test_rows_that_the_others_do_not_determine_are_missing(crossed):
    with pytest.warns(lj.EstimabilityWarning, match="are not predicted"):
        found = crossed.cross_validate("c", fixed_variances=True)
    lost = found.predictions["fit"].isna()
    assert lost.all()
    assert list(found.table.index) == ["a", "b"]
    assert "not predicted" in repr(found)
    own = np.where(crossed.model.frame.x[:, 2] > 0, np.arange(60) % 5, 5)
    with pytest.warns(lj.EstimabilityWarning):
        found = crossed.cross_validate(folds=np.where(crossed.model.frame.x[:, 2] == 0, 9, own))
    known = found.predictions["fold"] != 9
    assert found.predictions.loc[known, "fit"].notna().all()
    assert found.predictions.loc[~known, "fit"].isna().all()


def test_folds_are_random_by_the_key_and_hold_groups_whole(fit):
    one, same, other = (
        fit.cross_validate("Subject", 5, key=jax.random.key(k), fixed_variances=True) for k in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one.predictions, same.predictions)
    assert (one.predictions["fold"] != other.predictions["fold"]).any()
    subjects = fit.model.frame.random[0].codes
    assert (one.predictions["fold"].groupby(subjects).nunique() == 1).all()
    assert sorted(one.table["n"]) == [30, 30, 40, 40, 40]
    given = fit.cross_validate("Subject", one.predictions["fold"], fixed_variances=True)
    assert_allclose(given.predictions["fit"], one.predictions["fit"])
