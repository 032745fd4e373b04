"""Families: products, fits and what follows beside dense matrices; rows that no term connects."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from core_data import jet_and_projection

import lmmjax as lj
from lmmjax.batch.determined import one_by_one
from lmmjax.batch.lanes import take_lanes
from lmmjax.batch.sources import OwnDesigns, own_families, own_problem
from lmmjax.core import ProblemMaker, profiled_deviance
from lmmjax.design import take_rows
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


def twins(rng, families=40):
    """Two unrelated parents and a child each, in any order: kernel, data, roles of the rows."""
    ids, parts, order, role = [], [], [], []
    k = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.5, 0.5, 1.0]])
    for f in range(families):
        s = 3
        turn = rng.permutation(s)
        parts.append(k[np.ix_(turn, turn)])
        order += [f] * s
        role += list(turn)
        ids += [f"{f}.{i}" for i in range(s)]
    kernel = lj.Kernel(sp.block_diag(parts, format="csr"), ids)
    data = pd.DataFrame({"id": ids, "house": order, "x": rng.normal(size=len(ids))})
    return kernel, data, np.array(role)


def test_equal_families_are_sums_and_responses_with_gaps_lanes():
    rng = np.random.default_rng(3)
    kernel, data, role = twins(rng)
    n, formula = len(data), "~ x + (1 | id) + (1 | house)"
    model = lj.lmm(formula, data, kernels={"id": kernel}, backend="families")
    shared = model.data.maker.prepared.shared
    assert [part.sizes for part in shared.parts] == [(1, 3)]
    y = rng.normal(size=(n, 5)) + rng.normal(size=(40, 5))[data["house"]]
    y[rng.random(y.shape) < 0.1] = np.nan
    y[5, 3] = np.inf
    # on unrelated parents the kernel is that of residuals; on one and the child it is made of houses and I
    y[role == 2, 2] = y[role == 1, 4] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits = model.fit_batch(y)
        assert fits.status[3] == "not_finite"
        for own in (fits, model.fit_batch(y, reml=False)):
            assert own.status[2] == "not_estimable"
            assert "is that of the residuals" in own.reasons[2]
        assert list(np.any(fits.estimate.moves, (1, 2))) == [False] * 4 + [True]
        for k in (0, 4):
            rows = np.isfinite(y[:, k])
            one = lj.lmm(formula, data[rows], kernels={"id": kernel}, backend="dense").fit_response(
                y[rows, k]
            )
            assert fits.deviance[k] == pytest.approx(one.deviance, abs=1e-9)
            if k == 0:
                # to the square root of what the certificate leaves of the criterion
                assert np.allclose(fits.estimate.psi[k], one.estimate.psi, rtol=1e-6)
            assert np.allclose(fits.estimate.cov_beta[k], one.estimate.cov_beta, rtol=1e-7, equal_nan=True)


def test_weights_of_responses_are_those_of_dense_matrices():
    one, two = pair("kernel and house", "w")
    rng = np.random.default_rng(8)
    y, w = rng.normal(size=(50, 2)), rng.uniform(0.5, 2.0, (50, 2))
    own = one.data.maker
    made, finite, fine = own_problem(own_families(own), y, w, True)
    assert finite.all()
    assert fine.all()
    d = np.array([0.7, 0.4])
    with jax.enable_x64(True):
        for k in range(2):
            dense = ProblemMaker(take_rows(two.data.design, np.ones(50, bool), w[:, k]), "dense")(y[:, k])
            a, b = (evaluate_at(p, d) for p in (take_lanes(made, k), dense))
            assert a == pytest.approx(b, abs=1e-9)


def evaluate_at(problem, ratios):
    """The criterion at ratios in the user's units."""
    return float(profiled_deviance(np.sqrt(ratios), problem))


def test_kernels_show_on_rows_or_not():
    kernel, data, role = twins(np.random.default_rng(3))
    maker = lj.lmm("~ x + (1 | id)", data, kernels={"id": kernel}, backend="families").data.maker
    fixed = lj.lmm("~ x + factor(house) + (1 | id)", data, kernels={"id": kernel}, backend="families")
    y, w = np.random.default_rng(5).normal(size=(len(data), 4)), np.ones((len(data), 4))
    y[role == 2, 0] = np.nan  # two unrelated parents
    y[role == 1, 1] = np.nan  # a parent and a child, beside a mean of each house as residuals
    w[:, 3] = np.where(role == 2, 1e200, 3e200)
    for own, expected in ((maker, [0, 1, 1, 1]), (fixed.data.maker, [0, 0, 1, 1])):
        _, finite, fine = own_problem(own_families(own), y, w, True)
        assert finite.all()
        assert list(fine) == expected
    source = OwnDesigns(maker, y, None, True, False)
    assert [k for k, _ in one_by_one(source, np.arange(4))] == [1, 2, 3]
