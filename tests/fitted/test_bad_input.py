"""Bad designs, options and new data: one ValueError that names the culprit and the remedy.

Formulas and frames have their own tests in tests/formula; responses of a batch in tests/batch.
"""

import re

import jax
import numpy as np
import pytest

import lmmjax as lj
from lmmjax.covariance import FAMILIES, family


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


@pytest.mark.parametrize("call", [lambda f, k: f.simulate(k, 10**12), lambda f, k: f.bootstrap(k, 10**12)])
def test_more_draws_than_memory_are_refused_with_their_size(fit, call):
    with pytest.raises(ValueError, match=r"1,000,000,000,000 draws of 180 rows would take .* GiB of memory"):
        call(fit, jax.random.key(0))


def test_more_permutations_than_memory_are_refused_with_their_size(fit):
    with pytest.raises(ValueError, match=r"1,000,000,000,000 permutations of 180 rows would take .* GiB"):
        fit.permutation(jax.random.key(0), "Days", 10**12)
