"""TMM, voom and duplicateCorrelation beside edgeR's and limma's numbers; voom of mixed models."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import lmmjax as lj
from lmmjax.inference.moderation.moderated import variance_prior
from lmmjax.omics import tmm

LIMMA = json.loads((Path(__file__).parents[1] / "reference" / "limma.json").read_text())
SAMPLES = pd.DataFrame({"donor": LIMMA["donor"], "after": LIMMA["after"]}, index=[f"s{k}" for k in range(8)])
X = np.column_stack([np.ones(8), SAMPLES["after"]])


def numbers(values):
    return np.array(pd.DataFrame(values).astype(float))


COUNTS = pd.DataFrame(numbers(LIMMA["counts"]).T, index=SAMPLES.index).add_prefix("g")


@pytest.fixture(scope="module")
def made():
    return lj.voom(COUNTS, X)


def test_tmm():
    values = COUNTS.to_numpy()
    sizes = values.sum(axis=1)
    np.testing.assert_allclose(tmm(values, sizes), LIMMA["tmm"], rtol=1e-9)
    np.testing.assert_allclose(tmm(values, sizes, 2, 0.2, 0.1), LIMMA["tmm3"], rtol=1e-9)
    # depth alone changes nothing
    deeper = values * np.arange(1, 9)[:, None]
    np.testing.assert_allclose(tmm(values[[0] * 3], sizes[[0] * 3]), 1.0)
    assert np.prod(tmm(deeper, deeper.sum(axis=1))) == pytest.approx(1.0)
    assert tmm(values[:1], sizes[:1]).tolist() == [1.0]
    np.testing.assert_array_equal(tmm(np.zeros((3, 2)), np.ones(3)), 1.0)


def test_voom_equals_limma(made):
    np.testing.assert_allclose(made.logcpm.T, LIMMA["voom"]["E"], rtol=1e-9)
    np.testing.assert_allclose(made.weights.T, LIMMA["voom"]["weights"], rtol=1e-8)
    plain = lj.voom(COUNTS, X, norm_factors=None, span=0.3)
    np.testing.assert_allclose(plain.logcpm.T, LIMMA["voom_plain"]["E"], rtol=1e-9)
    np.testing.assert_allclose(plain.weights.T, LIMMA["voom_plain"]["weights"], rtol=1e-8)
    # the gene without counts has no part in the trend
    assert made.trend.isna().any(axis=1).sum() == 1
    assert made.logcpm.index.equals(SAMPLES.index)
    assert made.logcpm.columns.equals(COUNTS.columns)


def least_squares(y, x):
    """β̂ (T, p), s² (T,) and the scaled standard errors (p,)."""
    inverse = np.linalg.inv(x.T @ x)
    beta = (inverse @ x.T @ y).T
    return beta, np.sum((y - x @ beta.T) ** 2, axis=0) / (len(y) - x.shape[1]), np.sqrt(np.diag(inverse))


def test_weighted_fits_have_limmas_prior(made):
    root = np.sqrt(made.weights.to_numpy())
    parts = [
        least_squares(w * y, w[:, None] * X) for w, y in zip(root.T, made.logcpm.to_numpy().T, strict=True)
    ]
    s2, df = np.array([float(part[1]) for part in parts]), np.full(100, 6.0)
    prior = variance_prior(s2, df)
    assert prior.df == pytest.approx(LIMMA["wls"]["df_prior"], rel=1e-8)
    assert prior.variance == pytest.approx(LIMMA["wls"]["var_prior"], rel=1e-8)
    se = np.array([part[2] for part in parts]) * np.sqrt(prior.posterior(s2, df))[:, None]
    t = np.array([part[0] for part in parts]) / se
    np.testing.assert_allclose(t, LIMMA["wls"]["t"], rtol=1e-8)


FEW = COUNTS.iloc[:, 10:18]


@pytest.mark.parametrize(
    "write",
    [
        lambda c: c.iloc[::-1],
        lambda c: c.to_numpy(),
        lambda c: c.astype(int).to_numpy().astype("uint16"),
        lambda c: sparse.csr_array(c.to_numpy()),
    ],
    ids=["reordered", "array", "uint16", "sparse"],
)
def test_kinds_of_counts_and_designs(write):
    """A model without a random term is least squares, matched by the labels of samples."""
    found = lj.voom(write(FEW), lj.lmm("~ after", SAMPLES))
    np.testing.assert_allclose(found.weights, lj.voom(FEW, X).weights, rtol=1e-10)
    assert found.logcpm.index.equals(SAMPLES.index)


def test_library_sizes_and_factors_of_ones_own(made):
    again = lj.voom(COUNTS, X, lib_size=made.lib_size.iloc[::-1], norm_factors=None)
    np.testing.assert_allclose(again.weights, made.weights, rtol=1e-12)
    again = lj.voom(COUNTS, X, norm_factors=made.norm_factors.to_numpy())
    np.testing.assert_allclose(again.weights, made.weights, rtol=1e-12)


def test_a_mixed_model():
    """Residual standard deviations and fitted values are those of its batch, modes of donors included."""
    model = lj.lmm("~ after + (1 | donor)", SAMPLES)
    found = lj.voom(FEW, model)
    pd.testing.assert_frame_equal(found.logcpm, lj.voom(FEW, X).logcpm)
    fits = model.fit_batch(found.logcpm)
    np.testing.assert_allclose(found.trend["sd"], np.sqrt(fits.sigma), rtol=1e-10)
    # equal fitted counts have equal weights
    shift = np.log2(found.lib_size + 1) - np.log2(1e6)
    level = fits.predict().add(shift.to_numpy()).to_numpy()
    trend = found.trend.sort_values("count")
    expected = np.interp(level, trend["count"], trend["fitted"]) ** -4
    np.testing.assert_allclose(found.weights.T, expected, rtol=1e-8)


def test_duplicate_correlation_equals_limma(made):
    y = made.logcpm.iloc[:, :99]
    found = lj.duplicate_correlation(y, X, SAMPLES["donor"])
    assert found.consensus == pytest.approx(LIMMA["block"]["consensus"], rel=1e-9)
    np.testing.assert_allclose(np.arctanh(found.correlations), LIMMA["block"]["genes"], atol=1e-8)
    weighted = lj.duplicate_correlation(y, X, SAMPLES["donor"], weights=made.weights.iloc[:, :99])
    # statmod's iterations of single genes stop some 1e-4 from the optimum
    assert weighted.consensus == pytest.approx(LIMMA["weighted"]["consensus"], rel=1e-4)
    # generalised least squares with the consensus
    beta, s2, scale = least_squares(found.whiten(y).to_numpy(), found.whiten(X).to_numpy())
    prior = variance_prior(s2, np.full(99, 6.0))
    assert prior.df == pytest.approx(LIMMA["gls"]["df_prior"], rel=1e-8)
    t = beta / scale / np.sqrt(prior.posterior(s2, np.full(99, 6.0)))[:, None]
    np.testing.assert_allclose(t, LIMMA["gls"]["t"], rtol=1e-7)


def criterion(rho, y, x, same, weights):
    """−2ℓᴿ by dense algebra, V = W^(−1/2)[(1 − ρ)I + ρ ZZᵀ]W^(−1/2)."""
    v = ((1 - rho) * np.eye(len(y)) + rho * same) / np.sqrt(np.outer(weights, weights))
    inverse = np.linalg.inv(v)
    xx = x.T @ inverse @ x
    rest = y - x @ np.linalg.solve(xx, x.T @ inverse @ y)
    return np.linalg.slogdet(v)[1] + np.linalg.slogdet(xx)[1] + (len(y) - 2) * np.log(rest @ inverse @ rest)


@pytest.mark.parametrize("weighted", [False, True])
def test_correlations_are_reml(made, weighted):
    """With unequal blocks and missing values, each where the dense criterion is least."""
    y = made.logcpm.iloc[:, 70:82].copy()
    y.iloc[0, 0] = y.iloc[5, 1] = y.iloc[2, 1] = np.nan
    weights = made.weights.iloc[:, 70:82] if weighted else y * 0 + 1
    block = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    options = {"weights": weights} if weighted else {}
    found = lj.duplicate_correlation(y, lj.lmm("~ after", SAMPLES), block, **options)
    trial = np.linspace(-0.499, 0.999, 60)
    for name, rho in found.correlations.items():
        rows = y[name].notna().to_numpy()
        same = (block[rows, None] == block[rows]).astype(float)
        own = y[name].to_numpy()[rows], X[rows], same, weights[name].to_numpy()[rows]
        at = criterion(np.clip(rho, -0.4999, 0.9999), *own)
        near = np.clip([rho - 1e-4, rho + 1e-4], -0.4999, 0.9999)
        assert at <= min(criterion(r, *own) for r in (*trial, *near)) + 1e-9


def test_whitening_is_by_label(made):
    found = lj.duplicate_correlation(made.logcpm.iloc[:, :99], X, SAMPLES["donor"].iloc[::-1])
    some = made.logcpm.iloc[:, :3]
    pd.testing.assert_frame_equal(found.whiten(some.iloc[::-1]), found.whiten(some))
    same = (SAMPLES["donor"].to_numpy()[:, None] == SAMPLES["donor"].to_numpy()).astype(float)
    v = (1 - found.consensus) * np.eye(8) + found.consensus * same
    root = found.whiten(np.eye(8)).to_numpy()
    np.testing.assert_allclose(root @ v @ root.T, np.eye(8), atol=1e-12)
    # blocks of a sample that the model leaves out
    model = lj.lmm("~ after", SAMPLES.assign(after=[np.nan, *SAMPLES["after"][1:]]))
    fewer = lj.duplicate_correlation(some.iloc[1:], model, SAMPLES["donor"])
    assert fewer.blocks.tolist() == [0, 1, 1, 2, 2, 3, 3]
    nothing = dataclasses.replace(found, consensus=0.0)
    np.testing.assert_allclose(nothing.whiten(some), some)


NEGATIVE, EMPTY = COUNTS.copy(), COUNTS.copy()
NEGATIVE.iloc[2, 3] = -1
EMPTY.iloc[4] = 0


@pytest.mark.parametrize(
    ("call", "piece"),
    [
        (lambda: lj.voom(NEGATIVE, X), "-1 in row 2, column 3"),
        (lambda: lj.voom(COUNTS.astype(float).replace(0.0, np.nan), X), "not missing"),
        (lambda: lj.voom(EMPTY, X), "sample 's4' has no counts"),
        (lambda: lj.voom(COUNTS.T, lj.lmm("~ after", SAMPLES)), "transpose"),
        (lambda: lj.voom(COUNTS, np.ones((3, 1))), "3 rows for 8 samples"),
        (lambda: lj.voom(COUNTS, np.eye(8)), "leaves no residuals"),
        (lambda: lj.voom(COUNTS, X, norm_factors="rle"), '"tmm"'),
        (lambda: lj.voom(COUNTS, X, lib_size=np.ones(3)), "each of 8 samples"),
        (lambda: lj.voom(COUNTS, X, span=3), "span"),
        (lambda: lj.voom(COUNTS, "~ after"), "design is a model"),
        (lambda: lj.duplicate_correlation(COUNTS * np.nan, X, SAMPLES["donor"]), "no response tells"),
        (lambda: lj.duplicate_correlation(COUNTS, X, SAMPLES["after"]), "blocks are in the design"),
        (lambda: lj.duplicate_correlation(COUNTS, X, range(8)), "no block has two"),
        (lambda: lj.duplicate_correlation(COUNTS, X, [0, 0]), "2 labels of blocks for 8"),
        (lambda: lj.duplicate_correlation(COUNTS, X, [None] * 8), "block of observation 0 is missing"),
        (lambda: lj.duplicate_correlation(COUNTS, X[:3], [0] * 8), "(3, 2)"),
    ],
)
def test_what_is_refused(call, piece):
    with pytest.raises(ValueError) as error:
        call()
    assert piece in str(error.value)
