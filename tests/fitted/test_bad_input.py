"""Bad designs, options and new data: one ValueError that names the culprit and the remedy.

Formulas and frames have their own tests in tests/formula; responses of a batch in tests/batch.
"""

import re

import numpy as np
import pytest

import lmmjax as lj
from lmmjax.covariance import FAMILIES, family
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
        ({"codes": CODES + 1}, "(1 | g): group codes must lie in 0 … 3"),
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.fit(method="bfgs"), "unknown method 'bfgs'; choose one of: newton, lbfgs"),
        (lambda m: m.fit(start=[1.0]), "start has shape (1,); the model has 3 covariance parameters: (3,)"),
        (lambda m: m.fit_response(np.ones(3)), "y has shape (3,); the model has 180 rows: (180,)"),
        (
            lambda m: m.fit_response(np.where(np.arange(180) == 9, np.nan, 1.0)),
            "the response is not finite in row 9",
        ),
        (lambda m: m.problem(np.ones(7)), "y has 7 values for 180 rows of the model"),
        (
            lambda m: lj.lmm("~ Days + (1 | Subject)", _data(m)).fit(),
            "has no response: use fit_batch, or write one left of ~",
        ),
        (
            lambda m: lj.lmm("y ~ Days + (1 | Days)", _data(m), backend="spare"),
            "unknown backend 'spare'; the known ones",
        ),
    ],
)
def test_bad_options_of_a_model(fit, call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(fit.model)


def _data(model):
    return {"y": model.frame.y, "Days": model.frame.x[:, 1], "Subject": model.frame.random[0].codes}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.conf_int(method="walt"), "unknown method 'walt'; choose one of: wald"),
        (lambda f: f.conf_int(which="random"), "unknown which 'random'; choose one of: fixed, all"),
        (lambda f: f.conf_int(level=95), "level must lie between 0 and 1, not 95"),
        (lambda f: f.coef_table(ddf="satterwaite"), "unknown ddf 'satterwaite'; choose one of: "),
        (
            lambda f: f.predict({"Day": [1.0], "Subject": [308]}),
            "the new data have no column 'Days': did you mean 'Day'?",
        ),
        (lambda f: f.predict({"Days": [1.0]}), "the new data have no column 'Subject': there are: Days"),
        (
            lambda f: f.predict({"Days": [1.0], "Subject": [308]}, re=["subject"]),
            "no random term 'subject': did you mean 'Subject'?",
        ),
        (lambda f: f.predict(re="subject"), "no random term 'subject'"),
        (lambda f: f.refit(np.ones(3)), "y has shape (3,); the model has 180 rows"),
    ],
)
def test_bad_options_of_a_fit(fit, call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(fit)


def test_too_many_random_coefficients_in_a_formula(sleepstudy):
    one = sleepstudy.groupby("Subject").head(2)
    with pytest.raises(
        ValueError, match=r"\(Days \| Subject\): 18 groups × 2 coefficients = 36 random coefficients for 36"
    ):
        lj.lmm("Reaction ~ Days + (Days | Subject)", one)


def test_unknown_family():
    with pytest.raises(
        ValueError,
        match=f"unknown covariance structure 'ar9'; the known ones are: {', '.join(sorted(FAMILIES))}",
    ):
        family("ar9")
