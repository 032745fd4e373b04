"""Scans that keep columns in the likelihood, of gaps and of kernels of blocks, beside plain ones."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import lmmjax as lj
from lmmjax.inference.scan.partial import BlockEngine, GapEngine
from lmmjax.inference.scan.spectral import SpectralEngine
from lmmjax.scan import Top
from lmmjax.scan.engines import parts_of

N = 48
RNG = np.random.default_rng(5)
IDS = np.arange(N)
HALF = RNG.normal(size=(N, 70))
K = HALF @ HALF.T / 70
FAMILIES = sp.kron(sp.eye_array(12), np.full((4, 4), 0.5) + 0.5 * np.eye(4), format="csr")
DATA = pd.DataFrame({"id": IDS, "x": RNG.normal(size=N), "off": RNG.normal(size=N)})
DATA["w"] = RNG.uniform(0.5, 2.0, N)
G = pd.DataFrame(RNG.integers(0, 3, (N, 4)).astype(float), columns=[f"m{k}" for k in range(4)])
# what X determines
G["m4"] = 2.0 * DATA["x"] + 1.0
Y = np.linalg.cholesky(K) @ RNG.normal(size=(N, 4)) + [0.5, 1.0, 1.0, 2.0] * RNG.normal(size=(N, 4))
OPTIONS = {"weights": "w", "offset": "off"}


def same(a, b, rtol=1e-7):
    assert list(a["marker"]) == list(b["marker"])
    for name in a.columns.drop(["marker", "response", "term"], errors="ignore"):
        one, two = (np.asarray(t[name], float) for t in (a, b))
        assert np.allclose(one, two, rtol=rtol, atol=1e-9, equal_nan=True), name


def host_of(part):
    """The engine of a part, or the one that devices form products for."""
    return getattr(part.engine, "host", part.engine)


def unwarned(fit, markers, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.EstimabilityWarning)
        return fit.scan(markers, **options)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize(
    "kernel", [lj.Kernel(K, IDS), lj.Kernel.low_rank(HALF[:, :9], IDS)], ids=["full", "thin"]
)
def test_gaps_are_rows_left_out(kernel, reml):
    y = Y.copy()
    y[[3, 17], 1], y[5, 2], y[::7, 3] = np.nan, np.nan, np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        fits = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": kernel}, **OPTIONS).fit_batch(y, reml)
        kinds = [type(host_of(part)) for part in parts_of(fits.fitted)]
        assert kinds == [GapEngine, SpectralEngine]
        null = unwarned(fits, G, interaction="x")
        again = unwarned(fits, G[["m1", "m4"]], ratio="refit")
        for k in range(1, 4):
            keep = ~np.isnan(y[:, k])
            alone = lj.lmm(
                "y ~ x + (1 | id)", DATA.assign(y=y[:, k])[keep], kernels={"id": kernel}, **OPTIONS
            ).fit(reml=reml)
            expected = unwarned(alone, G[keep], interaction="x")
            same(null[null["response"] == k], expected)
            expected = unwarned(alone, G[["m1", "m4"]][keep], ratio="refit")
            same(again[again["response"] == k], expected, 1e-6)
        kept = fits.scan(G.drop(columns="m4"), keep=Top(1))
    assert len(kept) == 4


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_blocks_are_the_whole_kernel(reml):
    fits = [
        lj.lmm("~ x + (1 | id)", DATA, kernels={"id": kernel}, backend=backend, **OPTIONS).fit_batch(Y, reml)
        for kernel, backend in (
            (lj.Kernel(FAMILIES, IDS), "block"),
            (lj.Kernel(FAMILIES.toarray(), IDS), "spectral"),
        )
    ]
    assert isinstance(host_of(parts_of(fits[0].fitted)[0]), BlockEngine)
    for options in ({}, {"interaction": "x"}, {"ratio": "refit"}):
        with pytest.warns(lj.EstimabilityWarning, match="m4"):
            tables = [one.scan(G, **options) for one in fits]
        same(*tables, 1e-6)


def test_weights_of_their_own():
    weights = RNG.uniform(0.5, 2.0, (N, 2))
    weights[4, 1] = 0.0
    fits = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": lj.Kernel(K, IDS)}).fit_batch(
        Y[:, :2], weights=weights
    )
    table = fits.scan(G[["m0", "m1"]])
    for k in range(2):
        keep = weights[:, k] > 0
        data = DATA.assign(y=Y[:, k], w=weights[:, k])[keep]
        alone = lj.lmm("y ~ x + (1 | id)", data, weights="w", kernels={"id": lj.Kernel(K, IDS)}).fit()
        same(table[table["response"] == k], alone.scan(G[["m0", "m1"]][keep]))


def test_thresholds():
    """Whatever is permuted has one variance: a tenth is the error of 2,000 draws."""
    y = Y.copy()
    y[3, 1] = np.nan
    markers = pd.DataFrame(RNG.normal(size=(N, 20)))
    models = [
        lj.lmm("~ x + (1 | id)", DATA, kernels={"id": kernel}, backend=backend)
        for kernel, backend in (
            (lj.Kernel(FAMILIES.toarray(), IDS), None),
            (lj.Kernel(FAMILIES, IDS), "block"),
            (lj.Kernel.low_rank(HALF[:, :9], IDS), None),
        )
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        found = [m.fit_batch(y[:, :2]).scan_threshold(markers, jax.random.key(1), 2000) for m in models]
    for other in found[1:]:
        assert np.allclose(other["lod"], found[0]["lod"], rtol=0.12)
