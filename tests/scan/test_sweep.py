"""Hits of the sweep in float32 beside all pairs in float64, whatever its tiles are."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import lmmjax as lj
from lmmjax.inference.scan import sweep as module
from lmmjax.inference.scan.sweep import Wanted, sweep
from lmmjax.scan.engines import parts_of

N, K, T = 40, 150, 60
RNG = np.random.default_rng(14)
HALF = RNG.normal(size=(N, 30))
WHOLE = HALF @ HALF.T / 30 + 0.05 * np.eye(N)
FAMILIES = sp.kron(sp.eye_array(N // 4), np.full((4, 4), 0.5) + 0.5 * np.eye(4), format="csr")
COUNTS = RNG.integers(0, 3, (N, K)).astype(float)
# of sizes whose squares float32 does not hold
G = COUNTS * 10.0 ** RNG.integers(-30, 31, K)
# of one linkage, one that X determines, and one of a single carrier
G[:, 40:44], G[:, 99], G[:, 98] = G[:, [39]], 1.0, np.arange(N) == 3
SHARE = np.where(RNG.random(T) < 0.2, 0.0, RNG.random(T))
Y = np.sqrt(SHARE) * (np.linalg.cholesky(WHOLE) @ RNG.normal(size=(N, T)))
Y += np.sqrt(1 - SHARE) * RNG.normal(size=(N, T)) + 0.5 * COUNTS[:, RNG.integers(0, K, T)]
KERNELS = {
    "whole": (lj.Kernel(WHOLE, np.arange(N)), None),
    "thin": (lj.Kernel.low_rank(HALF[:, :12], np.arange(N)), None),
    "blocks": (lj.Kernel(FAMILIES, np.arange(N)), "block"),
}


@pytest.fixture(scope="module", params=[*KERNELS, "gaps"])
def engine(request):
    kernel, backend = KERNELS.get(request.param, KERNELS["whole"])
    y = Y.copy()
    if request.param == "gaps":
        # who has a rare allele may be missing
        y[RNG.integers(0, N, 2 * T), np.repeat(np.arange(T), 2)] = np.nan
        y[3, :9] = np.nan
    model = lj.lmm(
        "~ 1 + (1 | id)", pd.DataFrame({"id": np.arange(N)}), kernels={"id": kernel}, backend=backend
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        part, *_ = parts_of(model.fit_batch(y).fitted)
    return getattr(part.engine, "host", part.engine)


@pytest.mark.parametrize(
    "sizes",
    [{}, {"WIDTH": 0.0}, {"WIDTH": 9.0}, {"TILE": 8 * K}, {"TILE": 50 * K, "CHUNK": 1 << 9, "WIDTH": 0.3}],
    ids=["usual", "a ratio each", "one ratio", "small tiles", "chunks"],
)
def test_hits_are_those_of_all_pairs(engine, sizes, monkeypatch):
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)
    block = engine.prepare(G)
    b, c = engine.products(block)
    total = c.shape[1]
    share = np.nan_to_num(np.where(block.lost[:, None], -1.0, b * b / (c * engine.null.a)), nan=-1.0)
    assert block.lost[99]
    assert block.lost.sum() == 1
    level = np.full(total, 0.12)
    cases = {
        "above": (Wanted(level, 0, False, np.ones(total)), share >= level),
        "first": (Wanted(None, 1, False, np.ones(total)), share >= share.max(axis=0)),
        "some": (Wanted(None, 12, False, np.ones(total)), share >= np.sort(share, axis=0)[-12]),
        "behind": (Wanted(None, 1, False, np.full(total, 1.2)), 1 - share <= 1.2 * (1 - share.max(axis=0))),
        "best": (Wanted(None, 0, True, np.ones(total)), share >= share.max(axis=1, keepdims=True)),
        "all": (Wanted(None, K, False, np.ones(total)), share >= 0),
    }
    for name, (wanted, true) in cases.items():
        marker, response = sweep(engine.sweepable, block, engine.single(block), block.lost, wanted)
        found = np.zeros((K, total), bool)
        found[marker, response] = True
        true = true & (share >= 0)
        assert np.all(found[true]), name
        if sizes.get("WIDTH", 1.0) < 0.1 and name not in ("best", "all"):
            # what else is kept is less than float32 away
            close = np.where(true, share, np.inf).min(axis=0) - 1e-5
            there = found & (share >= 0)
            assert np.all(share[there] >= np.broadcast_to(close, share.shape)[there]), name
    one, two = engine.pairs(block, marker, response)
    assert np.allclose(one, b[marker, response], rtol=1e-9, atol=1e-9 * block.length[marker])
    assert np.allclose(two, c[marker, response], rtol=1e-9, equal_nan=True)
