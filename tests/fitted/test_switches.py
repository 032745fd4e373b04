"""Switches, keys and choices are what they say, or refused with the remedy; parts of a batch."""

import re

import jax
import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

RNG = np.random.default_rng(1)
DATA = pd.DataFrame({"id": np.repeat(range(8), 4), "x": np.tile([0, 1, 2, 3], 8), "y": RNG.normal(size=32)})


@pytest.fixture(scope="module")
def fit():
    return lj.lmm("y ~ x + (1 | id)", DATA).fit()


@pytest.fixture(scope="module")
def fits():
    model = lj.lmm("~ x + (1 | id)", DATA)
    return model.fit_batch(pd.DataFrame(RNG.normal(size=(32, 3)), columns=["a", "b", "c"]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.model.fit(reml=2), "reml must be True or False, not 2"),
        (lambda f: f.model.fit(reml="ML"), "reml must be True or False, not 'ML'"),
        (lambda f: f.model.fit_batch(DATA[["y"]], reml=0.5), "reml must be True or False, not 0.5"),
        (lambda f: f.model.fit(method=["newton"]), "unknown method ['newton']"),
        (lambda f: f.simulate(3), "such as jax.random.key(3), not 3"),
        (lambda f: f.bootstrap("a", n=3), "such as jax.random.key(0), not 'a'"),
        (lambda f: f.simulate(np.array([1.0, 2.0])), "key must be one of jax.random"),
        (lambda f: f.simulate(jax.random.split(jax.random.key(0))), "key must be one of jax.random"),
        (lambda f: f.permutation(0, "x", n=3), "such as jax.random.key(0)"),
        (lambda f: f.posterior(jax.random.key(0), priors="flat"), "priors are a dict of priors by name"),
        (lambda f: f.predict(re=None), "re must be 'all', 'none' or a list of grouping factors, not None"),
    ],
)
def test_what_is_refused(fit, call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(fit)


@pytest.mark.parametrize("name", ["1", "0", ""])
def test_a_column_whose_name_is_a_number(name):
    data = DATA.rename(columns={"x": name})
    with pytest.raises(ValueError, match="reads as a number in a formula: rename"):
        lj.lmm(f"y ~ `{name}` + (1 | id)", data)


@pytest.mark.parametrize(
    ("which", "names"),
    [
        (["c", "a"], ["c", "a"]),
        (slice(1, 3), ["b", "c"]),
        (slice("a", "b"), ["a", "b"]),
        (np.array([True, False, True]), ["a", "c"]),
        (pd.Series([True, False, True], index=["c", "b", "a"]), ["a", "c"]),
    ],
)
def test_part_of_a_batch(fits, which, names):
    part = fits[which]
    assert list(part.names) == names
    pd.testing.assert_frame_equal(part.params, fits.params.loc[names])
    assert part["a" if "a" in names else "b"].deviance == fits["a" if "a" in names else "b"].deviance


@pytest.mark.parametrize("which", ["d", ["a", "d"], [True, False], 0])
def test_no_such_part(fits, which):
    with pytest.raises(KeyError, match="in this batch"):
        fits[which]
