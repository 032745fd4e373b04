"""Scans beside dense algebra, and beside models that have the marker in their formula."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmjax as lj

STATISTICS = ("effect", "se", "t", "p_wald", "p_lrt", "p_score", "lod", "ratio", "loglik")
N = 40
RNG = np.random.default_rng(21)
IDS = [f"i{k:02d}" for k in range(N)]
HALF = RNG.normal(size=(N, 60))
K = HALF @ HALF.T / 60
X = RNG.normal(size=N)
G = RNG.integers(0, 3, (N, 7)).astype(float)
DATA = pd.DataFrame({"id": IDS, "x": X, "w": RNG.uniform(0.5, 2.0, N)})
Y = pd.DataFrame(
    np.linalg.cholesky(K) @ RNG.normal(size=(N, 3)) + [0.5, 1.0, 2.0] * RNG.normal(size=(N, 3)) + G[:, :1],
    columns=["a", "b", "c"],
)
MARKERS = pd.DataFrame(G, index=IDS, columns=[f"m{k}" for k in range(7)])
KERNEL = lj.Kernel(K, IDS)
BATCH = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": KERNEL}).fit_batch(Y)


def with_marker(name, marker, reml=True, **options):
    """The model with a marker in its formula."""
    data = DATA.assign(y=Y[name], g=MARKERS[marker].to_numpy())
    return lj.lmm("y ~ x + g + (1 | id)", data, kernels={"id": KERNEL}, **options).fit(reml=reml)


@pytest.mark.parametrize("reml", [True, False])
def test_a_refit_is_the_model_with_the_marker(reml):
    data = DATA.assign(y=Y["b"])
    fit = lj.lmm("y ~ x + (1 | id)", data, kernels={"id": KERNEL}).fit(reml=reml)
    table = fit.scan(MARKERS, ratio="refit")
    for row in table.itertuples():
        there = with_marker("b", row.marker, reml)
        psi = there.estimate.psi
        assert row.effect == pytest.approx(there.params["g"], rel=1e-7)
        # by maximum likelihood the variance has n in the denominator
        share = 1.0 if reml else np.sqrt(N / (N - 3))
        assert row.se == pytest.approx(there.bse["g"] * share, rel=1e-7)
        assert row.ratio == pytest.approx(psi[0] / psi[1], rel=1e-5)
        assert row.loglik == pytest.approx(there.llf, abs=1e-9)
        one, two = (
            with_marker("b", row.marker, False),
            lj.lmm("y ~ x + (1 | id)", data, kernels={"id": KERNEL}).fit(reml=False),
        )
        assert row.p_lrt == pytest.approx(stats.chi2.sf(2 * (one.llf - two.llf), 1), abs=1e-9)


def test_at_the_ratios_of_the_null_it_is_generalised_least_squares():
    table = BATCH.scan(MARKERS)
    assert list(table)[:2] == ["marker", "response"]
    assert list(table)[2:] == [*STATISTICS]
    by_ml = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": KERNEL}).fit_batch(Y, reml=False)
    for row in table.itertuples():
        k = BATCH.names.get_loc(row.response)
        y, g = Y[row.response].to_numpy(), MARKERS[row.marker].to_numpy()
        w = np.column_stack([np.ones(N), X, g])
        psi = BATCH.estimate.psi[k]
        assert row.ratio == pytest.approx(psi[0] / psi[1])
        effect, se, share = dense(psi, w, y)
        assert (row.effect, row.se) == pytest.approx((effect, se), rel=1e-9)
        assert row.p_wald == pytest.approx(2 * stats.t.sf(abs(effect / se), N - 3), rel=1e-8)
        assert row.lod == pytest.approx(-N * np.log1p(-share) / (2 * np.log(10)), rel=1e-8)
        _, _, share = dense(by_ml.estimate.psi[k], w, y)
        assert row.p_score == pytest.approx(stats.f.sf(N * share, 1, N - 3), rel=1e-6)


def dense(psi, w, y):
    """Effect and standard error of the last column of w, and the share of the squares that it takes."""
    v = np.linalg.inv(psi[0] * K + psi[1] * np.eye(N))
    beta = np.linalg.solve(w.T @ v @ w, w.T @ v @ y)
    left = [(y - u @ np.linalg.solve(u.T @ v @ u, u.T @ v @ y)) for u in (w, w[:, :-1])]
    after, before = (e @ v @ e for e in left)
    se = np.sqrt(np.linalg.inv(w.T @ v @ w)[-1, -1] * after / (N - w.shape[1]))
    return beta[-1], se, 1 - after / before
