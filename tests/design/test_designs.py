"""Bad designs: one ValueError that names the culprit and the remedy."""

import re

import numpy as np
import pytest

from lmmjax.covariance import family
from lmmjax.design import Design, RandomTerm, check_design

N, GROUPS = 12, 4
CODES = np.repeat(np.arange(GROUPS), N // GROUPS)
RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
ROW = np.arange(N)


def design(x=X, z=X[:, :1], codes=CODES, groups=GROUPS, **options):
    return Design(x, (RandomTerm(z, codes, groups, family("us"), "(1 | g)"),), **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": 0 * CODES, "groups": 1}, "(1 | g): the grouping factor has one level only"),
        (
            {"codes": ROW, "groups": N},
            "(1 | g): 12 groups × 1 coefficients = 12 random coefficients for 12 observ",
        ),
        (
            {"z": RNG.normal(size=(N, 3))},
            "(1 | g): 4 groups × 3 coefficients = 12 random coefficients for 12",
        ),
        ({"codes": CODES + 1}, "(1 | g): the group code 4 does not lie in 0 … 3"),
        ({"codes": CODES[:-1]}, "(1 | g): z has 12 rows and groups has shape (11,); the design has 12 rows"),
        ({"z": X[:5, :1]}, "(1 | g): z has 5 rows"),
        ({"z": np.where(ROW == 7, np.inf, X[:, 1])[:, None]}, "(1 | g): infinite or missing value in row 7"),
        (
            {"x": np.where((ROW == 3)[:, None], np.nan, X)},
            "fixed-effects matrix has an infinite or missing value in row 3",
        ),
        (
            {"x": np.column_stack([X, X @ [1.0, 2.0]])},
            "column 2 of the fixed-effects matrix depends on the others",
        ),
        ({"x": np.column_stack([X, np.zeros(N)])}, "column 2 of the fixed-effects matrix is zero; drop it"),
        ({"x": RNG.normal(size=(N, N))}, "12 fixed-effect coefficients but only 12 observations"),
        ({"weights": np.where(ROW == 5, 0.0, 1.0)}, "weights must be positive (Var(ε) = σ²/w); row 5 has 0"),
        ({"weights": np.where(ROW == 5, -2.0, 1.0)}, "row 5 has -2"),
        ({"weights": np.where(ROW == 6, np.inf, 1.0)}, "weights must be finite; remove or mend row 6"),
        ({"weights": np.ones(3)}, "weights has shape (3,); one value a row is needed: (12,)"),
        ({"offset": np.where(ROW == 2, np.nan, 1.0)}, "offset must be finite; remove or mend row 2"),
        ({"offset": np.ones((N, 1))}, "offset has shape (12, 1); one value a row is needed: (12,)"),
        ({"x": X[:0], "z": X[:0, :1], "codes": CODES[:0]}, "the data have no rows left"),
    ],
)
def test_bad_designs(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_design(design(**changes))


def test_good_design():
    check_design(design(weights=np.ones(N), offset=np.zeros(N)))
    # with weights the residual variance of a single observation per group is known up to σ²
    check_design(design(codes=ROW, groups=N, weights=1.0 + ROW))
