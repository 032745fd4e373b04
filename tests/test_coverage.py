"""Intervals cover, and tests reject, as often as they say; more designs: benchmarks/workloads/coverage.py."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

import lmmjax as lj

T = 4_000
SIZES = [3, 4, 5, 6, 7, 8, 9, 3, 5, 6, 8, 9]
TRUTH = {"sd_(Intercept)|g": 1.0, "sigma": 1.0}
# four standard errors of a share of 0.95 in T data sets
MONTE_CARLO = 4 * np.sqrt(0.95 * 0.05 / T)


@pytest.fixture(scope="module")
def fits():
    """Twelve unequal groups, four to each level of `arm`; all coefficients are zero."""
    rng = np.random.default_rng(21)
    code = np.repeat(np.arange(len(SIZES)), SIZES)
    data = pd.DataFrame({"g": code, "arm": np.array(list("ABC"))[code % 3], "x": rng.normal(size=len(code))})
    y = rng.normal(size=(len(SIZES), T))[code] + rng.normal(size=(len(code), T))
    return lj.lmm("~ arm + x + (1 | g)", data).fit_batch(y)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_t_intervals_and_tests(fits, ddf):
    """These promise 95 %, to an approximation that is good here to half a per cent."""
    table = fits.t_tests(ddf)
    covered = np.abs(table["estimate"]) <= stdtrit(table["df"], 0.975) * table["se"]
    np.testing.assert_allclose(covered.mean(axis=0), 0.95, rtol=0, atol=0.005 + MONTE_CARLO)
    np.testing.assert_array_equal(table["p"] < 0.05, ~covered)


def test_normal_intervals_are_short(fits):
    """Nine degrees of freedom between groups: z intervals of `arm` promise 95 % only with many groups."""
    covered = (fits.t_tests("normal")["p"] >= 0.05).mean(axis=0)
    assert np.all(covered[1:3] < 0.93)
    assert covered[3] > 0.93


def test_intervals_of_standard_deviations(fits):
    """On the log scale: wide where groups are few, and missing on the boundary."""
    limits = fits.conf_int(which="all")
    for name, truth in TRUTH.items():
        low, high = limits[name].to_numpy().T
        known = ~np.isnan(low)
        assert known.mean() > 0.99
        covered = np.mean((low <= truth) & (truth <= high), where=known)
        assert 0.94 - MONTE_CARLO < covered < 0.99 + MONTE_CARLO, name
