"""Bootstrap, influence and permutation against explicit refits and written-out matrices."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest
from fit_data import matrices
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.fitted import component_names
from lmmjax.postestimation.simulation.resample import (
    covariance_roots,
    independent_blocks,
    parameters,
    permuted_responses,
)

N = 500


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(jax.random.key(4), N)


# --- bootstrap ---------------------------------------------------------------------------------------


def test_bootstrap_is_a_batch_of_simulated_responses(fit, boot):
    """The same draws, fitted one by one."""
    draws = fit.simulate(jax.random.key(4), N)
    names = [*fit.params.index, *component_names(fit.model.components)]
    assert list(boot.replicates) == names
    assert boot.replicates.shape == (N, 6)
    for k in (0, 7, 499):
        single = fit.refit(draws[k])
        assert_allclose(boot.replicates.loc[k], [*single.params, *single.varcorr()["sdcor"]], rtol=1e-5)
    assert_allclose(boot.original, [*fit.params, *fit.varcorr()["sdcor"]], rtol=1e-14)
    assert boot.converged.all()
    assert repr(boot) == f"Bootstrap('Reaction ~ Days + (Days | Subject)', {N} replicates, {N} converged)"


def test_bootstrap_standard_errors(fit, boot):
    """The design is balanced, so β̂ is OLS whatever ψ̂ is and its exact standard deviation is `bse`.

    A standard deviation of N normal draws has relative error 1/√(2N); five of them. The residual and the
    between-subject scales are near normal only: the information is asymptotic in 18 subjects, whose
    relative error is of the order 1/18 in a variance; three times that.
    """
    monte_carlo = 5 / np.sqrt(2 * N)
    assert_allclose(boot.se[["Intercept", "Days"]], fit.bse, rtol=monte_carlo)
    information = fit.tidy().iloc[2:]["se"].to_numpy()
    at = [0, 1, 3]
    assert_allclose(boot.se.iloc[2:].to_numpy()[at], information[at], rtol=monte_carlo + 3 / 18)
    assert np.all(np.abs(boot.bias[["Intercept", "Days"]]) < 5 * fit.bse / np.sqrt(N))


def test_bootstrap_intervals(boot):
    values = boot.replicates.to_numpy()[boot.converged.to_numpy()]
    for k, name in enumerate(boot.replicates):
        column = values[:, k][np.isfinite(values[:, k])]
        low, high = np.quantile(column, [0.05, 0.95])
        t = boot.original[name]
        spread, back = lambda v: v, lambda v: v
        if name.startswith(("sd_", "sigma")):
            spread, back = np.log, np.exp
        if name.startswith("cor_"):
            spread, back = np.arctanh, np.tanh
        expected = {"percentile": (low, high), "basic": (low, high), "normal": (low, high)}
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = np.isfinite(spread(column)).all() and np.all(np.abs(np.abs(column) - 1) > 1e-7)
        if inside:
            low, high = np.quantile(spread(column), [0.05, 0.95])
            centre = 2 * spread(t) - spread(column).mean()
            half = 1.6448536269514722 * spread(column).std(ddof=1)
            expected["basic"] = back(np.array([2 * spread(t) - high, 2 * spread(t) - low]))
            expected["normal"] = back(np.array([centre - half, centre + half]))
        for kind, interval in expected.items():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "replicates of .* lie on the boundary", UserWarning)
                limits = boot.conf_int(0.9, kind).loc[name]
            assert_allclose(limits, interval, rtol=1e-8, err_msg=f"{name} {kind}")
    with pytest.raises(ValueError, match="unknown kind 'bc'; choose one of: percentile, basic, normal, bca"):
        boot.conf_int(kind="bc")
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        boot.conf_int(95)


STATISTICS = {
    "series": (lambda fits: fits.icc(), ["icc"]),
    "array": (lambda fits: fits.icc().to_numpy(), ["statistic"]),
    "columns": (lambda fits: fits.params.to_numpy(), ["statistic0", "statistic1"]),
    "frame": (lambda fits: fits.params, ["Intercept", "Days"]),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_of_the_bootstrap(name, fit):
    statistic, columns = STATISTICS[name]
    boot = fit.bootstrap(jax.random.key(0), 5, statistic)
    assert list(boot.replicates) == columns
    assert_allclose(boot.replicates, np.asarray(statistic(boot.fits)).reshape(5, -1))
    if len(columns) == 1:
        assert_allclose(boot.original.iloc[0], fit.icc(), rtol=1e-12)


def test_bad_bootstraps(fit, sleepstudy):
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        fit.bootstrap(jax.random.key(0), 0)
    with pytest.raises(ValueError, match="statistic returned 1 rows for 5 responses"):
        fit.bootstrap(jax.random.key(0), 5, lambda fits: np.ones(1))
    with pytest.raises(ValueError, match="statistic returned shape"):
        fit.bootstrap(jax.random.key(0), 5, lambda fits: np.ones((1, 1, 1)))
    flat = lj.lmm("y ~ Days + (1 | Subject)", sleepstudy.assign(y=1.0)).fit()
    with pytest.raises(ValueError, match=r"no estimates \(.*fits the response perfectly"):
        flat.bootstrap(jax.random.key(0), 5)


def test_bootstrap_of_every_kind_of_model(any_fit):
    boot = any_fit.bootstrap(jax.random.key(1), 3)
    assert_allclose(
        boot.original, parameters(boot.fits.model.fit_batch(any_fit.y[:, None]).fitted).iloc[0], 1e-4
    )


# --- influence ---------------------------------------------------------------------------------------


def test_influence_is_that_of_explicit_refits(any_fit):
    """Every formula fitted to the data without the subject."""
    influence = any_fit.influence()
    frame = any_fit.model.frame
    subject = frame.random[0].levels[frame.random[0].codes]
    phi = np.linalg.inv(any_fit.cov_params())
    assert set(influence.status) == {"converged"}
    for level in frame.random[0].levels[::8]:
        keep = subject != level
        groups = {t.text: np.asarray(t.levels[t.codes])[keep] for t in frame.random}
        without = lj.Model.from_arrays(
            any_fit.y[keep],
            frame.x[keep],
            {"a": next(iter(groups.values()))} if len(groups) == 1 else groups,
            {"a": frame.random[0].z[keep]} if len(groups) == 1 else {t.text: t.z[keep] for t in frame.random},
            weights=None if frame.weights is None else frame.weights[keep],
            offset=None if frame.offset is None else frame.offset[keep],
        ).fit()
        assert_allclose(influence.params.loc[level], without.params, rtol=1e-6)
        assert_allclose(influence.bse.loc[level], without.bse, rtol=1e-5)
        assert_allclose(influence.sdcor.loc[level], without.varcorr()["sdcor"], rtol=1e-4, atol=1e-4)
        change = any_fit.params.to_numpy() - without.params.to_numpy()
        assert_allclose(influence.cooks_distance[level], change @ phi @ change / 2, rtol=1e-4)
        assert_allclose(influence.dfbetas.loc[level], change / without.bse.to_numpy(), rtol=1e-4, atol=1e-6)


def test_influence_finds_the_outlier(sleepstudy):
    shifted = sleepstudy["Reaction"] + 30 * sleepstudy["Days"] * (sleepstudy["Subject"] == 335)
    influence = lj.lmm("y ~ Days + (Days | Subject)", sleepstudy.assign(y=shifted)).fit().influence()
    assert influence.cooks_distance.idxmax() == 335
    assert "18 levels of 'Subject', largest: 335" in repr(influence)


def test_a_level_that_the_model_cannot_do_without(sleepstudy):
    """A coefficient of one subject is gone with that subject: its row is missing and says why."""
    data = sleepstudy.assign(one=(sleepstudy["Subject"] == 335) * 1.0)
    influence = lj.lmm("Reaction ~ Days + one + (1 | Subject)", data).fit().influence()
    assert influence.status[335] == ("not estimable: column 2 of the fixed-effects matrix is zero; drop it")
    assert influence.params.loc[335].isna().all()
    assert np.isnan(influence.cooks_distance[335])
    assert influence.params.drop(335).notna().all(axis=None)


def test_influence_of_one_of_two_factors(sleepstudy):
    fit = lj.lmm("Reaction ~ 1 + (1 | Subject) + (1 | Days)", sleepstudy).fit()
    with pytest.raises(ValueError, match="several grouping factors: pass group=, one of: Subject, Days"):
        fit.influence()
    influence = fit.influence("Days")
    without = lj.lmm("Reaction ~ 1 + (1 | Subject) + (1 | Days)", sleepstudy[sleepstudy["Days"] != 9]).fit()
    assert_allclose(influence.params.loc[9], without.params, rtol=1e-6)
    with pytest.raises(ValueError, match="no random effects"):
        lj.lmm("Reaction ~ Days", sleepstudy).fit().influence()


# --- permutation -------------------------------------------------------------------------------------


def test_the_identity_permutation_gives_the_response(any_fit):
    """And the reversed one V^½ P V^−½ with the explicit symmetric root."""
    design, estimate, n = any_fit.model.design, any_fit.estimate, any_fit.nobs
    same, back = np.arange(n), np.arange(n)[::-1]
    y = permuted_responses(design, estimate, any_fit.y, np.stack([same, back]))
    assert_allclose(y[:, 0], any_fit.y, rtol=1e-10)
    v = matrices(any_fit)[-1]
    values, vectors = np.linalg.eigh(v)
    root, inverse = ((vectors * values**k) @ vectors.T for k in (0.5, -0.5))
    mean = any_fit.fitted.population
    assert_allclose(y[:, 1], mean + root @ (inverse @ (any_fit.y - mean))[back], rtol=1e-8)


def test_the_construction_of_the_permutation_test(fit, sleepstudy):
    """Statistic of the fit, refits of the responses permuted under the model without the term."""
    test = fit.permutation(jax.random.key(3), "Days", 30)
    assert_allclose(test.statistic, fit.tvalues["Days"] ** 2, rtol=1e-12)
    null = lj.lmm("Reaction ~ 1 + (Days | Subject)", sleepstudy).fit()
    keys = jax.random.split(jax.random.key(3), 30)
    orders = np.stack([np.asarray(jax.random.permutation(k, 180)) for k in keys])
    assert all(np.array_equal(np.sort(order), np.arange(180)) for order in orders)
    assert len(np.unique(orders, axis=0)) == 30
    y = permuted_responses(null.model.design, null.estimate, fit.y, orders)
    for k in (0, 11, 29):
        # whitening amplifies the last digits in which two descents differ
        assert_allclose(test.fits.fitted.y[:, k], y[:, k], rtol=1e-5)
        assert_allclose(
            test.null[k], fit.refit(test.fits.fitted.y[:, k]).tvalues["Days"] ** 2, rtol=1e-4, atol=1e-8
        )
    assert test.pvalue == (1 + np.sum(test.null >= test.statistic)) / 31
    assert repr(test).startswith("Permutation('Days', statistic=45.8")


def test_terms_of_several_columns(sleepstudy):
    data = sleepstudy.assign(part=pd.cut(sleepstudy["Days"], 3, labels=["a", "b", "c"]))
    fit = lj.lmm("Reaction ~ part + (1 | Subject)", data).fit()
    test = fit.permutation(jax.random.key(0), "part", 9)
    beta, phi = fit.params.to_numpy()[1:], fit.cov_params().to_numpy()[1:, 1:]
    assert_allclose(test.statistic, beta @ np.linalg.solve(phi, beta), rtol=1e-12)
    assert test.pvalue == 0.1
    one = fit.permutation(jax.random.key(0), "part[T.b]", 9)
    assert_allclose(one.statistic, fit.tvalues["part[T.b]"] ** 2, rtol=1e-12)
    with pytest.raises(ValueError, match="unknown fixed term 'Part': did you mean 'part'"):
        fit.permutation(jax.random.key(0), "Part")
    with pytest.raises(ValueError, match="n must be at least 1"):
        fit.permutation(jax.random.key(0), "part", 0)


def test_blocks_of_rows(sleepstudy, fit):
    blocks = independent_blocks(fit.model.design)
    assert sorted(map(len, blocks)) == [10] * 18
    crossed = lj.lmm("Reaction ~ 1 + (1 | Subject) + (1 | Days)", sleepstudy).fit()
    assert [len(b) for b in independent_blocks(crossed.model.design)] == [180]
    ((rows, values, vectors),) = covariance_roots(crossed.model.design, crossed.estimate.psi)
    assert np.array_equal(rows, np.arange(180))
    assert_allclose((vectors * values**2) @ vectors.T, matrices(crossed)[-1], rtol=1e-9, atol=1e-7)
    plain = lj.lmm("Reaction ~ Days", sleepstudy)
    assert len(independent_blocks(plain.design)) == 180
