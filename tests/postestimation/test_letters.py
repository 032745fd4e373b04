"""Letters say what the matrix of differences says; arrows overlap where means do not differ."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lmmjax.postestimation.means.letters import arrows, letters


@pytest.mark.parametrize("seed", range(12))
def test_means_share_a_letter_if_they_do_not_differ(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 9))
    upper = np.triu(rng.uniform(size=(k, k)) < rng.uniform(), 1)
    different, values = upper | upper.T, rng.normal(size=k)
    found = letters(values, different)
    shared = np.array([[bool(set(a) & set(b)) for b in found] for a in found])
    assert_array_equal(shared, ~different | np.eye(k, dtype=bool))
    # none can be left out
    used = sorted(set("".join(found)))
    for letter in used:
        less = [set(own) - {letter} for own in found]
        assert not np.array_equal([[bool(a & b) for b in less] for a in less], shared)
    assert used == list("abcdefghijklmnopqrstuvwxyz")[: len(used)]
    assert "a" in found[int(np.argmin(values))]


def test_missing_means_have_no_letter():
    assert letters(np.array([2.0, np.nan, 1.0]), np.zeros((3, 3), bool)) == ["a", "", "a"]


def test_arrows():
    values = np.array([1.0, 2.0, 4.5, np.nan])
    margins = np.full((4, 4), 1.4)
    margins[3] = margins[:, 3] = np.nan
    length, misled = arrows(values, margins)
    assert not misled
    for i in range(3):
        for j in range(i):
            assert (length[i] + length[j] > abs(values[i] - values[j])) == (abs(values[i] - values[j]) < 1.4)
    # no lengths can say that the farthest are alike and the nearest are not
    odd = np.array([[np.nan, 0.1, 9.0], [0.1, np.nan, 0.1], [9.0, 0.1, np.nan]])
    assert arrows(np.array([0.0, 1.0, 2.0]), odd)[1]
