"""Which columns are independent, up to rounding of what they are made of; and on rows that lack levels."""

import numpy as np
import pytest

from lmmjax.design import columns_on_rows, independent_columns

RNG = np.random.default_rng(0)
X, Z, ONE = RNG.normal(size=200), RNG.normal(size=200), np.ones(200)
FAR = X + 1e9


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ((ONE, FAR), [0, 1]),
        # seven digits of x are left in x + 1e9: nothing but rounding tells x from them
        ((ONE, FAR, X), [0, 1]),
        ((ONE, 3 * FAR, 7 * X), [0, 1]),
        ((ONE, X, FAR), [0, 1]),
        ((ONE, FAR, X + 1e-3 * Z), [0, 1, 2]),
        ((ONE, FAR, X + 1e-5 * Z), [0, 1, 2]),
        # x² is below the last digit of (x + 1e9)²
        ((ONE, FAR, FAR**2), [0, 1]),
        ((ONE, X + 1e3, (X + 1e3) ** 2), [0, 1, 2]),
        ((FAR, Z + 1e9, (X + Z) / 2 + 1e9), [0, 1]),
    ],
)
def test_rounding_is_no_difference(columns, kept):
    assert independent_columns(np.column_stack(columns)).tolist() == kept
    units = 10.0 ** np.arange(-3, 3 * len(columns) - 3, 3)
    assert independent_columns(np.column_stack(columns) * units).tolist() == kept


FACTOR = (np.arange(200) % 4).astype(np.int8)
DUMMIES = [(k == FACTOR).astype(float) for k in range(4)]


@pytest.mark.parametrize(
    ("columns", "lost", "kept"),
    [
        ((ONE, *DUMMIES[1:], X), [0], [0, 2, 3, 4]),
        ((ONE, *DUMMIES[1:], X), [0, 1], [0, 3, 4]),
        ((ONE, *DUMMIES[1:], X), [2], [0, 1, 3, 4]),
        ((ONE, *DUMMIES[1:], X), [], [0, 1, 2, 3, 4]),
        # a column for every level: none stands for the reference
        ((*DUMMIES, X), [0], [1, 2, 3, 4]),
        ((ONE, *DUMMIES[1:], X, *(d * X for d in DUMMIES[1:])), [0], [0, 2, 3, 4, 6, 7]),
    ],
)
def test_the_first_level_that_is_left_is_the_reference(columns, lost, kept):
    rows = ~np.isin(FACTOR, lost)
    found = columns_on_rows(np.column_stack(columns)[rows], [FACTOR[rows]])
    assert found.tolist() == kept
