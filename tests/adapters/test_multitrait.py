"""Models of two traits beside GEMMA's, dense algebra and a published example."""

from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from published_data import CALVES, PEDIGREE

import lmmjax as lj
from lmmjax.fitted.values import _nearby

TABLE = np.loadtxt(Path(__file__).parents[1] / "reference" / "gemma" / "bivariate.txt.gz")
N = len(TABLE)
WIDE = pd.DataFrame({"line": np.arange(N), "a": TABLE[:, 0], "b": TABLE[:, 1], "x": TABLE[:, 3]})
K = lj.Kernel(TABLE[:, 4:], np.arange(N), tolerance=1e-3)
FORMULA = "cbind(a, b) ~ x + (1 | line)"


@pytest.fixture(scope="module")
def fit():
    return lj.multitrait(FORMULA, WIDE, kernels={"line": K}).fit()


def test_the_fit_is_that_of_gemma(fit):
    """GEMMA prints six digits, and stops where the criterion changes by less than 1e-4."""
    assert fit.model.structure().backend == "rotated"
    # GEMMA leaves out ½log|X'X| of both traits
    x = TABLE[:, 2:4]
    assert fit.llf + np.linalg.slogdet(x.T @ x)[1] == pytest.approx(-337.642, abs=2e-3)
    table = fit.varcorr()
    genetic = table["vcov"].iloc[:3]
    assert np.allclose(genetic, [1.69434, 1.00444, 0.00717817], atol=5e-3)
    assert np.allclose(table["vcov"].iloc[3:], [0.746985, 0.387907, 0.726069], atol=5e-3)
    # its errors are from the expected information
    assert np.allclose(table["se"].iloc[:3], [0.775068, 0.609275, 0.500923], rtol=0.1)
    # it centres the kernel, which changes intercepts
    assert np.allclose(fit.params[["trait[a]:x", "trait[b]:x"]], [0.384815, -0.2442], atol=2e-5)


def test_shares_and_correlations(fit):
    psi = fit.varcorr()["vcov"].to_numpy()
    own = fit.genetic_correlation(test=True)
    assert list(own["group"]) == ["line", "Residual"]
    r = [psi[2] / np.sqrt(psi[0] * psi[1]), psi[4] / np.sqrt(psi[3] * psi[5])]
    assert np.allclose(own["estimate"], r, rtol=1e-9)
    # the delta method by hand
    slope = r[0] * np.array([-0.5 / psi[0], -0.5 / psi[1], 1 / psi[2]])
    cov = fit.estimate.cov_psi[:3, :3]
    assert own["se"][0] == pytest.approx(np.sqrt(slope @ cov @ slope), rel=1e-6)
    # of a single trait
    shares = fit.heritability(by="trait")["estimate"]
    gain = np.mean(np.diagonal(TABLE[:, 4:]))
    assert shares["a"]["line"] == pytest.approx(psi[0] * gain / (psi[0] * gain + psi[5]), rel=1e-4)
    assert shares["b"]["line"] == pytest.approx(psi[1] * gain / (psi[1] * gain + psi[3]), rel=1e-4)
    # without the correlation, a model of its own
    long = fit.model.frame.source.data
    zero = lj.lmm(
        "value ~ 0 + trait + trait:x + diag(0 + trait | line)",
        long,
        kernels={"line": K},
        residual=lj.Unstructured("trait", group="unit"),
    ).fit()
    assert own["chisq_0"][0] == pytest.approx(zero.deviance - fit.deviance, abs=1e-6)
    assert 0 < own["p_1"][0] < 0.5


def test_written_out_it_is_the_same_model(fit):
    long = WIDE.melt(["line", "x"], ["a", "b"], "trait", "y").sample(frac=1, random_state=1)
    other = lj.lmm(
        "y ~ 0 + trait + trait:x + (0 + trait | line)",
        long,
        kernels={"line": K},
        residual=lj.Unstructured("trait", group="line"),
    )
    assert other.structure().backend == "rotated"
    assert other.fit().deviance == pytest.approx(fit.deviance, abs=1e-7)


def test_traits_of_different_individuals():
    some = WIDE.assign(a=WIDE["a"].where(WIDE["line"] < 55), b=WIDE["b"].where(WIDE["line"] >= 55))
    model = lj.multitrait(FORMULA, some, kernels={"1 | line": K})
    assert (model.structure().backend, model.design.n) == ("dense", N)
    kinds = [row.kind for row in model.components]
    assert kinds == ["variance", "variance", "covariance", "parameter", "sigma"]
    gaps = lj.multitrait(FORMULA, WIDE.assign(a=WIDE["a"].mask(WIDE["line"] == 3)), kernels={"line": K})
    assert (gaps.structure().backend, gaps.design.n) == ("dense", 2 * N - 1)


def test_published_breeding_values_of_two_traits():
    """Mrode (2014), Linear Models for the Prediction of Animal Breeding Values, 3rd ed., example 5.1."""
    kernel = lj.Kernel.from_pedigree(PEDIGREE, ids=np.arange(1, 9))
    model = lj.multitrait("cbind(wwg, pwg) ~ sex + (1 | calf)", CALVES, kernels={"calf": kernel})
    assert [row.term1 for row in model.components][-3:] == ["var(pwg)", "cov(wwg, pwg)", None]
    # genetic 20, 40, 18; residual 40, 30, 11
    psi = np.array([20.0, 40.0, 18.0, 30.0, 11.0, 40.0])
    with jax.enable_x64(True):
        modes = np.asarray(_nearby(model.expanded(np.asarray(model.frame.y), True), psi).modes[0].b)
    weaning = [0.151, -0.015, -0.078, -0.010, -0.270, 0.276, -0.316, 0.244]
    after = [0.280, -0.008, -0.170, -0.013, -0.478, 0.517, -0.479, 0.392]
    # half of the last digit that is printed
    assert np.allclose(modes[:, 0], weaning, rtol=0, atol=5.1e-4)
    assert np.allclose(modes[:, 1], after, rtol=0, atol=5.1e-4)


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("a ~ x + (1 | line)", r"two or more, left of ~"),
        ("cbind(a) ~ x + (1 | line)", r"two or more, left of ~"),
        ("cbind(a, c) ~ x + (1 | line)", r"no column 'c' of a trait"),
        ("cbind(a, b) ~ offset(x) + (1 | line)", r"offset would be that of all traits"),
    ],
)
def test_what_is_no_model_of_traits(formula, says):
    with pytest.raises(ValueError, match=says):
        lj.multitrait(formula, WIDE, kernels={"line": K})


def test_names_that_are_taken_and_models_of_one_trait():
    with pytest.raises(ValueError, match=r"have a column 'unit'.*another name"):
        lj.multitrait(FORMULA, WIDE.assign(unit=1), kernels={"line": K})
    one = lj.lmm("a ~ x + (1 | line)", WIDE, kernels={"line": K}).fit()
    with pytest.raises(ValueError, match=r"no term with a kernel has two.*multitrait"):
        one.genetic_correlation()
