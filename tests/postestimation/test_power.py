"""Power: against tests of balanced designs that are exact, noncentral distributions, and fits one by one."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import lmmjax as lj
from lmmjax.formula.other_sizes import extended
from lmmjax.optimize import Status
from lmmjax.postestimation.simulation import power as module
from lmmjax.postestimation.simulation.planned import planned_psi

KEY, DRAWS = jax.random.key(1), 100
SDS = {"sd_(Intercept)|g": 5.0, "sigma": 1.0}


@pytest.fixture(scope="module")
def paired():
    d = pd.DataFrame({"g": np.repeat(range(6), 2), "x": np.tile([-0.5, 0.5], 6)})
    d["arm"] = np.where(d["g"] < 3, "a", "b")
    return lj.lmm("~ arm + x + (1 | g)", d)


@pytest.fixture(scope="module")
def blocks():
    return lj.lmm("~ c + (1 | g)", pd.DataFrame({"g": np.repeat(range(8), 3), "c": np.tile(list("abc"), 8)}))


def noise(model, psi, draws=DRAWS):
    return model.simulate(KEY, np.zeros(model.design.n), psi, draws)


def near(share, expected, draws=DRAWS):
    """Within four Monte Carlo standard errors."""
    return abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / draws)


def test_within_groups_is_the_paired_t_test(paired):
    """On the same draws, decision by decision; and the noncentral t with G − 1 degrees of freedom."""
    effects = [0.0, 1.0, 2.0]
    found = lj.power(paired, "x", 6, effects, key=KEY, draws=DRAWS, sdcor=SDS, ddf="kr").table
    y = noise(paired, [25.0, 1.0])
    for effect, row in zip(effects, found.itertuples(), strict=True):
        p = stats.ttest_rel(y[1::2] + effect / 2, y[::2] - effect / 2).pvalue
        assert row.power == np.mean(p < 0.05)
        shift, limit = effect / np.sqrt(2 / 6), stats.t.ppf(0.975, 5)
        exact = 0.05 if effect == 0 else stats.nct.sf(limit, 5, shift) + stats.nct.cdf(-limit, 5, shift)
        assert near(row.power, exact)
    assert found["failed"].sum() == found["singular"].sum() == 0
    assert_allclose(found["se"], np.sqrt(found["power"] * (1 - found["power"]) / DRAWS))


def test_between_groups_is_the_t_test_of_means(paired):
    found = lj.power(paired, "arm[T.b]", None, 8.0, key=KEY, draws=DRAWS, sdcor=SDS)
    y = noise(paired, [25.0, 1.0]).reshape(6, 2, -1).mean(axis=1)
    p = stats.ttest_ind(y[3:] + 8.0, y[:3]).pvalue
    # an estimate at the boundary is no two-sample test
    assert abs(found.table["power"][0] - np.mean(p < 0.05)) <= found.table["singular"][0] / DRAWS
    limit, shift = stats.t.ppf(0.975, 4), 8.0 / np.sqrt(4 / 6 * (25 + 0.5))
    assert near(found.table["power"][0], stats.nct.sf(limit, 4, shift) + stats.nct.cdf(-limit, 4, shift))
    assert found.table["n"][0] == 12


def test_a_term_is_the_f_test_of_blocks(blocks):
    b, c = blocks.frame.x_names[1:]
    options = {"key": KEY, "draws": 60, "sdcor": SDS}
    found = lj.power(blocks, "c", effect={b: [0.0, 1.5], c: [0.0, 1.5]}, ddf="kr", **options).table
    y = noise(blocks, [25.0, 1.0], 60).reshape(8, 3, -1)
    for effect, row in zip([0.0, 1.5], found.itertuples(), strict=True):
        z = y + np.array([0.0, effect, effect])[:, None]
        between = 8 * np.sum((z.mean(axis=0) - z.mean(axis=(0, 1))) ** 2, axis=0) / 2
        left = z - z.mean(axis=0) - z.mean(axis=1, keepdims=True) + z.mean(axis=(0, 1))
        p = stats.f.sf(between / (np.sum(left**2, axis=(0, 1)) / 14), 2, 14)
        assert row.power == np.mean(p < 0.05)
        away = 8 * 2 / 3 * effect**2
        assert near(row.power, stats.ncf.sf(stats.f.ppf(0.95, 2, 14), 2, 14, away) if away else 0.05, 60)
    assert list(found.columns[:3]) == ["n", "effect", c]


def test_likelihood_ratios_are_those_of_fits(blocks):
    b, c = blocks.frame.x_names[1:]
    options = {"key": KEY, "draws": 6, "sdcor": SDS, "method": "lrt"}
    found = lj.power(blocks, "c", effect={b: [0.9], c: [1.2]}, **options).table
    d = pd.DataFrame({"g": np.repeat(range(8), 3), "c": np.tile(list("abc"), 8)})
    hits = 0
    for y in noise(blocks, [25.0, 1.0], 6).T:
        d["y"] = y + blocks.frame.x @ [0.0, 0.9, 1.2]
        full, null = (lj.lmm(f"y ~ {x} + (1 | g)", d).fit(reml=False) for x in ("c", "1"))
        hits += stats.chi2.sf(null.deviance - full.deviance, 2) < 0.05
    assert 0 < hits < 6
    assert_allclose(found["power"], hits / 6)


def test_draws_that_fail_are_counted_and_find_nothing(paired, monkeypatch):
    fit_draws = module.fit_draws

    def failing(*arguments):
        fits = fit_draws(*arguments)
        status = np.array(fits.estimate.status)
        status[:4] = Status.STALLED
        return dataclasses.replace(fits, estimate=dataclasses.replace(fits.estimate, status=status))

    monkeypatch.setattr(module, "fit_draws", failing)
    found = lj.power(paired, "x", effect=50.0, key=KEY, draws=20, sdcor=SDS)
    assert found.table["failed"][0] == 4
    assert found.table["power"][0] == 16 / 20
    assert "failed: up to 4" in repr(found)


@pytest.mark.parametrize(("hits", "draws"), [(0, 20), (7, 20), (20, 20)])
def test_limits_are_clopper_and_pearsons(hits, draws):
    exact = stats.binomtest(hits, draws).proportion_ci(0.9)
    assert_allclose(module.clopper_pearson(hits, draws, 0.9), exact)


def test_groups_are_repeated_whole_and_arms_keep_their_shares(paired):
    for size in (4, 10, 12, 15):
        frame = extended(paired.frame, {"g": size})
        term = frame.random[0]
        assert len(term.levels) == size
        assert (np.bincount(term.codes) == 2).all()
        arm = frame.x[:, frame.x_names.index("arm[T.b]")]
        assert abs(arm.sum() - size) <= 2
        assert pd.Series(arm).groupby(term.codes).nunique().max() == 1
    rows = extended(paired.frame, {"observation|g": 5})
    assert (np.bincount(rows.random[0].codes) == 5).all()
    assert_allclose(rows.x[:5, rows.x_names.index("x")], [-0.5, 0.5, -0.5, 0.5, -0.5])


def test_nested_factors_are_repeated_and_crossed_ones_are_not():
    d = pd.DataFrame(
        [(s, k, i) for s in range(3) for k in range(2) for i in range(4)], columns=["s", "k", "item"]
    )
    model = lj.lmm("~ 1 + (1 | s/k) + (1 | item)", d, residual=lj.AR1("item", group="s:k"))
    frame = extended(model.frame, {"s": 7})
    levels = {term.group: len(np.unique(term.codes)) for term in frame.random}
    assert levels == {"s": 7, "k:s": 14, "item": 4}
    assert frame.residual.design.n_groups == 14
    assert {t.group: len(t.levels) for t in extended(model.frame, {"item": 2}).random}["item"] == 2
    with pytest.raises(ValueError, match="repeats rows of 'item' within the groups of the residual"):
        extended(model.frame, {"item": 8})


def test_parameters_by_name_are_those_of_the_fit(fit, sleepstudy):
    names = ["sd_(Intercept)|Subject", "sd_Days|Subject", "cor_Days.(Intercept)|Subject", "sigma"]
    psi = fit.estimate.psi
    values = [np.sqrt(psi[0]), np.sqrt(psi[1]), psi[2] / np.sqrt(psi[0] * psi[1]), np.sqrt(psi[3])]
    given = dict(zip(names, values, strict=True))
    assert_allclose(planned_psi(fit.model.data, None, given), psi)
    assert_allclose(planned_psi(fit.model.data, psi, {"sigma": 2.0}), [*psi[:3], 4.0])
    model = lj.lmm("~ Days + (1 | Subject)", sleepstudy, residual=lj.AR1("Days", group="Subject"))
    found = planned_psi(model.data, None, {"sd_(Intercept)|Subject": 3.0, "Phi": 0.4, "sigma": 2.0})
    assert_allclose(found, [9.0, 0.4, 4.0])


def test_printed_and_drawn(paired):
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    found = lj.power(paired, "x", {"g": [6, 8]}, [0.0, 2.0], key=KEY, draws=10, sdcor=SDS)
    assert max(map(len, repr(found).splitlines())) <= 80
    ax = found.plot()
    assert ax.get_xlabel() == "number of g"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["x = 0", "x = 2"]
    assert_allclose(ax.containers[1][0].get_ydata(), found.table["power"][found.table["effect"] == 2.0])
    plt.close(ax.figure)
    again = lj.power(paired, "x", {"g": 8}, 2.0, key=KEY, draws=10, sdcor=SDS)
    assert again.table["power"][0] == found.table["power"][3]
