"""Simultaneous p-values and limits against scipy's distributions, and against each other."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import f, multivariate_t, studentized_range, t

from lmmjax.postestimation.hypotheses.adjust import METHODS, Family, range_tail

RHO = np.array([[1.0, 0.5, 0.5, 0.2], [0.5, 1.0, 0.5, 0.3], [0.5, 0.5, 1.0, 0.1], [0.2, 0.3, 0.1, 1.0]])
T = np.array([2.0, -2.5, 3.1, 0.4])


def family(df, values=T, correlation=RHO, means=4, pairwise=False):
    return Family(
        np.array(values), np.broadcast_to(df, len(values)).copy(), means, lambda: correlation, pairwise
    )


def pairs_of(k):
    """Correlation of all differences of k independent means."""
    first, second = np.triu_indices(k, 1)
    rows = np.eye(k)[first] - np.eye(k)[second]
    return rows @ rows.T / 2


@pytest.mark.parametrize("k", [2, 3, 10, 40])
def test_studentised_range(k):
    df = np.array([2.5, 5.3, 30.0, 300.2, np.inf])
    for q in (0.5, 3.0, 6.0):
        expected = [studentized_range.sf(q, k, one) for one in df]
        assert_allclose(range_tail(np.full(5, q), k, df), expected, rtol=0, atol=1e-7)
    # the tail keeps its digits: the best of all pairs bounds it from below, their sum from above
    tail, one = range_tail(np.array([30.0]), k, np.array([12.0])), 2 * t.sf(30 / np.sqrt(2), 12)
    assert one * (1 - 1e-6) <= tail[0] <= one * k * (k - 1) / 2 * (1 + 1e-6)


@pytest.mark.parametrize("df", [5, 40])
def test_multivariate_t(df):
    p = family(float(df)).p_values("mvt")
    for value, own in zip(np.abs(T), p, strict=True):
        box = np.full(4, value)
        inside = multivariate_t(np.zeros(4), RHO, df).cdf(
            box, lower_limit=-box, maxpts=100_000, random_state=1
        )
        assert_allclose(own, 1 - inside, atol=3e-4)
    assert_allclose(p, family(float(df)).p_values("dunnett"))


def test_multivariate_t_is_tukeys_for_all_pairs():
    own = family(np.linspace(4, 90, 10), np.linspace(0.5, 5, 10), pairs_of(5), 5, True)
    assert_allclose(own.p_values("mvt"), own.p_values("tukey"), atol=3e-4)
    assert_allclose(own.critical("mvt", 0.95), own.critical("tukey", 0.95), rtol=1e-3)


def test_one_direction_is_an_ordinary_t():
    same = family(7.0, [1.0, 2.0, -3.0], np.ones((3, 3)))
    assert_allclose(same.p_values("mvt"), same.p_values("none"), rtol=1e-12)


@pytest.mark.parametrize("df", [3.7, 55.0, np.inf])
@pytest.mark.parametrize("adjust", [m for m in METHODS if m not in ("holm", "fdr")])
def test_limits_exclude_zero_where_p_is_below(adjust, df):
    """At t equal to the critical value p is one less the level."""
    correlation, pairwise = (pairs_of(3), True) if adjust == "tukey" else (RHO[:3, :3], False)
    c = family(df, [1.0, 1.0, 1.0], correlation, 3, pairwise).critical(adjust, 0.9)
    assert_allclose(family(df, c, correlation, 3, pairwise).p_values(adjust), 0.1, rtol=1e-8)


def test_step_down_and_false_discovery_rate():
    p = family(20.0).p_values("none")
    order = np.argsort(p)
    assert_allclose(
        family(20.0).p_values("holm")[order],
        np.minimum(np.maximum.accumulate(p[order] * [4, 3, 2, 1]), 1.0),
        rtol=1e-12,
    )
    raised = p[order] * 4 / np.arange(1, 5)
    assert_allclose(
        family(20.0).p_values("fdr")[order], np.minimum.accumulate(raised[::-1])[::-1], rtol=1e-12
    )
    for method in ("holm", "fdr"):
        assert_allclose(family(20.0).critical(method, 0.95), family(20.0).critical("bonferroni", 0.95))


def test_scheffe():
    assert_allclose(family(9.0).p_values("scheffe"), f.sf(T**2 / 4, 4, 9), rtol=1e-10)


def test_missing_contrasts_stay_missing():
    """They count for methods by the size of the family only."""
    own, alone = family(9.0, [*T[:3], np.nan]), family(9.0, T[:3], RHO[:3, :3])
    for adjust in METHODS:
        p = own.p_values(adjust)
        assert np.isnan(p[3])
        assert np.all(np.isfinite(p[:3]))
    for adjust in ("mvt", "holm", "fdr"):
        assert_allclose(own.p_values(adjust)[:3], alone.p_values(adjust))
    assert_allclose(own.p_values("bonferroni")[:3], np.minimum(4 * own.p_values("none")[:3], 1))


def test_tukeys_method_is_for_pairs():
    assert_allclose(family(9.0).p_values("tukey"), family(9.0).p_values("sidak"))
    with pytest.raises(ValueError, match="unknown adjust 'lsd'"):
        family(9.0).p_values("lsd")
