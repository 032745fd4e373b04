"""Families: products, fits and what follows beside dense matrices; rows that no term connects."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from core_data import jet_and_projection

import lmmjax as lj
from lmmjax.gram.families import layout

RNG = np.random.default_rng(6)
SIZES = (1, 4, 2, 5, 3, 3, 1, 4, 2)
G = sum(SIZES)


def family(s):
    half = RNG.normal(size=(s, 2 * s))
    return half @ half.T / (2 * s)


ORDER = RNG.permutation(G)
IDS = ORDER[np.arange(G)]
FIRST = lj.Kernel(sp.block_diag([family(s) for s in SIZES], format="csr"), IDS, name="A")
SECOND = lj.Kernel(sp.block_diag([family(s) for s in SIZES], format="csr"), IDS, name="D")
HOME = dict(zip(IDS, np.repeat(np.arange(len(SIZES)), SIZES), strict=True))
# the last family has no rows, others levels without any
WHO = RNG.choice(IDS[: G - 4], 50)
DATA = pd.DataFrame({"id": WHO, "x": RNG.normal(size=50), "w": RNG.uniform(0.5, 2, 50)})
DATA["house"] = [f"h{HOME[i]}" for i in WHO]
DATA["y"] = (
    RNG.normal(size=G)[WHO] + RNG.normal(size=len(SIZES))[[HOME[i] for i in WHO]] + RNG.normal(size=50)
)
CASES = {
    "slopes": ("y ~ x + (x | id)", {"id": FIRST}),
    "two kernels": ("y ~ x + (1 | id)", {"id": [FIRST, SECOND]}),
    "kernel and house": ("y ~ x + (1 | id) + (1 | house)", {"id": FIRST}),
    "kernel, environment, curved": ("y ~ 0 + x + (1 | id) + cs(1 + x | id)", {"1 | id": FIRST}),
}


def pair(case, weights=None):
    formula, kernels = CASES[case]
    return [
        lj.lmm(formula, DATA, kernels=kernels, backend=backend, weights=weights)
        for backend in ("families", "dense")
    ]


@pytest.mark.parametrize("case", list(CASES))
def test_products_are_those_of_dense_matrices(case):
    one, two = pair(case, "w")
    y = DATA["y"].to_numpy()
    with jax.enable_x64(True):
        a, b = one.expanded(y), two.expanded(y)
        d = 0.3 + 0.5 * np.cos(np.arange(a.structure.n_params)) ** 2
        (jet, seen), (jet_b, seen_b) = (jet_and_projection(p, d) for p in (a, b))
        for u, v in zip(jax.tree.leaves((jet, seen)), jax.tree.leaves((jet_b, seen_b)), strict=True):
            assert np.allclose(u, v, rtol=1e-9, atol=1e-9)
    assert a.shared.sequential


def test_fits_are_those_of_dense_matrices():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        a, b = (model.fit() for model in pair("kernel and house"))
        assert a.model.structure().backend == "families"
        assert a.deviance == pytest.approx(b.deviance, abs=1e-9)
        assert np.allclose(a.bse, b.bse, rtol=1e-6)
        effects = [fit.ranef(cond_var=True)[["value", "cond_sd", "pred_se"]] for fit in (a, b)]
        assert np.allclose(*effects, rtol=1e-5, atol=1e-6)
        shares = [fit.heritability(method="profile")[["estimate", "lower", "upper"]] for fit in (a, b)]
        assert np.allclose(*shares, atol=1e-6)
        markers = RNG.integers(0, 3, (len(DATA), 3)).astype(float)
        scans = [fit.scan(markers).drop(columns=["marker", "response"]).to_numpy(float) for fit in (a, b)]
        assert np.allclose(*scans, rtol=1e-5, atol=1e-8, equal_nan=True)


def test_families_are_what_terms_connect():
    one, _ = pair("kernel and house")
    label = layout.families(one.data.design)
    home = np.array([HOME[i] for i in WHO])
    assert np.array_equal(np.equal.outer(label, label), np.equal.outer(home, home))
    # one litter for all joins them
    joined = lj.lmm("y ~ x + (1 | id) + (1 | all)", DATA.assign(all=np.arange(50) % 2), kernels={"id": FIRST})
    assert layout.families(joined.data.design).max() == 0
    assert joined.structure().backend == "dense"


def test_large_designs_take_families(monkeypatch):
    formula, kernels = CASES["kernel and house"]
    assert lj.lmm(formula, DATA, kernels=kernels).structure().backend == "dense"
    monkeypatch.setattr(layout, "ROWS", 50)
    monkeypatch.setattr(layout, "SHARE", 0.5)
    assert lj.lmm(formula, DATA, kernels=kernels).structure().backend == "families"
