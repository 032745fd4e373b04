"""Many random slopes: programs hardly grow with them, and their numbers are right."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from core_data import assert_dense, equations

import lmmjax as lj
from lmmjax.arrays import ldl, pivot_order, psd_cholesky, quick_jit
from lmmjax.core import ProblemMaker, estimate
from lmmjax.core.criterion import evaluate
from lmmjax.covariance import autocorrelation
from lmmjax.design import Design, RandomTerm
from lmmjax.gram.grouped import products
from lmmjax.inference.natural import at_estimate

proposal_module = sys.modules["lmmjax.optimize.proposal"]

TERMS = {"one factor": "(1 + {} | g)", "crossed": "(1 + {0} | g) + (1 + {0} | h)"}


def data(q, n=240):
    """Rows of which both factors have 20 groups."""
    rng = np.random.default_rng(q)
    x = rng.normal(size=(n, q))
    g, h = np.arange(n) % 20, np.arange(n) // 12
    frame = pd.DataFrame(x[:, 1:], columns=[f"x{j}" for j in range(1, q)])
    x[:, 0] = 1.0
    y = rng.normal(size=n) + (x * rng.normal(size=(20, q))[g]).sum(1)
    return frame.assign(g=g, h=h, y=y + 0.5 * (x * rng.normal(size=(20, q))[h]).sum(1))


def model(name, q):
    slopes = " + ".join(f"x{j}" for j in range(1, q))
    return lj.lmm(f"y ~ {slopes} + {TERMS[name].format(slopes)}", data(q))


def counts(name, q):
    problem = model(name, q).problem(data(q)["y"].to_numpy())
    fit, found = jax.make_jaxpr(lambda p: estimate(p, None, method="newton"), return_shape=True)(problem)
    after = jax.make_jaxpr(lambda p, f: at_estimate(p, f.psi, f.cov_psi))(problem, found)
    return equations(fit.jaxpr), equations(after.jaxpr)


@pytest.mark.parametrize("name", TERMS)
def test_programs_hardly_grow(name, x64):
    # with two columns and a twelfth of the parameters a fit has some 3,500
    fit, after = counts(name, 8)
    assert fit < 12_000
    assert after < 5_000


def test_the_criterion_of_eight_slopes():
    fit = model("one factor", 8).fit()
    design, y = fit.model.data.design, data(8)["y"].to_numpy()
    (term,), (d,) = design.terms, design.structure.absolute(np.asarray(fit.estimate.psi))
    v = np.asarray(fit.estimate.sigma2) * np.eye(len(y)) + (term.z @ np.asarray(d) @ term.z.T) * (
        term.codes[:, None] == term.codes
    )
    x = np.asarray(design.x)
    assert_dense(fit, v, x, y)


def jets(problem, d):
    return quick_jit(lambda p, d: (p.shared.jet(d, p.response), evaluate(p.shared, d, p.response, p.reml)))(
        problem, d
    )


@pytest.mark.parametrize("singular", [False, True])
def test_crossed_blocks_equal_dense_ones(singular, x64):
    rng = np.random.default_rng(singular)
    z, codes = rng.normal(size=(60, 5)), np.arange(60)
    terms = tuple(RandomTerm(z, c, k) for c, k in ((codes % 4, 4), (codes // 20, 3)))
    d, found = [], []
    for _ in terms:
        root = np.tril(rng.normal(size=(5, 5))) + np.eye(5)
        root[:, 4] = 0.0 if singular else root[:, 4]
        d.append(jnp.asarray(root @ root.T))
    for backend in ("crossed", "dense"):
        problem = ProblemMaker(Design(np.ones((60, 1)), terms), backend)(z[:, 0] ** 2 + z[:, 1])
        found.append(jets(problem, problem.structure.natural(tuple(d))))
    for g, w in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("compress", [True, False])
def test_wide_blocks_equal_products_with_units(compress, x64, monkeypatch):
    q, groups = 5, 7
    rng = np.random.default_rng(3)
    z = np.column_stack([np.ones(9), rng.normal(size=(9, q - 1))])
    x = rng.normal(size=(9 * groups, 3))
    term = RandomTerm(np.tile(z, (groups, 1)), np.repeat(np.arange(groups), 9), groups)
    maker = ProblemMaker(Design(x, (term,)), compress=compress)
    problem = maker(rng.normal(size=len(x)))
    assert problem.shared.compressed == compress
    root = np.tril(rng.normal(size=(q, q)))
    d = problem.structure.natural((jnp.asarray(root @ root.T),))
    jet, got = jets(problem, d)
    monkeypatch.setattr(products, "MANY", 99)
    plain, want = jets(problem, d)
    # both sum the same terms, in different orders
    for g, w in zip(jax.tree.leaves((jet, got)), jax.tree.leaves((plain, want)), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("m", [13, 37])
def test_factors_by_blocks(m, x64, monkeypatch):
    rng = np.random.default_rng(m)
    a = rng.normal(size=(m, m))
    a, psd, pd = a + a.T, a[:, : m - 2] @ a[:, : m - 2].T, a @ a.T
    found = quick_jit(lambda a, b, c: (*ldl(a), psd_cholesky(b, 1e-12), pivot_order(c)))(a, psd, pd)
    l_inv, pivots, factor, order = found
    np.testing.assert_allclose(l_inv @ a @ l_inv.T, np.diag(pivots), atol=1e-8 * np.abs(pivots).max())
    assert np.sum(pivots < 0) == np.sum(np.linalg.eigvalsh(a) < 0)
    np.testing.assert_allclose(factor @ factor.T, psd, atol=1e-10 * m)
    np.testing.assert_allclose(factor, psd_cholesky(psd, 1e-12), atol=1e-10)
    assert np.sum(np.diagonal(factor) == 0) == 2
    # a pivoted factor: no pivot is larger than the one before
    turned = np.linalg.cholesky(order.T @ pd @ order)
    assert np.all(np.diff(np.diagonal(turned)) < 1e-9)
    np.testing.assert_array_equal(np.sort(order, axis=0)[-1], 1.0)


def test_long_recursions(x64, monkeypatch):
    partial = np.random.default_rng(0).uniform(-0.7, 0.7, 30)
    want = autocorrelation.from_partial(partial)
    got = quick_jit(autocorrelation.from_partial)(partial)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(autocorrelation.to_partial(jnp.asarray(want[0])), partial, rtol=1e-7)


def test_columns_that_vanish_together(x64, monkeypatch):
    rng = np.random.default_rng(5)
    groups = ((np.array([0, 1, 2]), np.array([3, 4]), np.array([5])), (np.array([6]),), (np.array([7]),))
    seen = set()
    # two programs, as which of the two ways is taken is settled when one is written down
    ways = [quick_jit(lambda x, g, h: proposal_module.vanishing(x, g, h, 3.0, groups)) for _ in range(2)]
    for _ in range(40):
        x, g, h = (scale * rng.normal(size=size) for scale, size in ((1, 8), (0.3, 8), (0.1, (8, 8))))
        x[rng.random(8) < 0.2] = 0.0
        h, g = h + h.T + 2.0 * np.eye(8), g + 1.6 * x
        few = ways[0](x, g, h)
        monkeypatch.setattr(proposal_module, "UNROLL", 1)
        many = ways[1](x, g, h)
        monkeypatch.undo()
        np.testing.assert_array_equal(few, many)
        seen.add(int(np.sum(few)))
    assert len(seen) > 2


@pytest.mark.parametrize("family", [lj.Unstructured, lj.Symmetric])
def test_free_matrices_have_a_largest_size(family):
    frame = pd.DataFrame({"t": np.tile(np.arange(51), 60), "g": np.repeat(np.arange(60), 51)})
    frame["y"] = np.random.default_rng(0).normal(size=len(frame))
    with pytest.raises(ValueError, match=r"51 visits are too many .* 1326 entries .* at most 50"):
        lj.lmm("y ~ 1", frame, residual=family("t", group="g"))
    lj.lmm("y ~ 1", frame[frame["t"] < 50], residual=family("t", group="g"))


@pytest.mark.parametrize("residual", ["toeplitz", "exchangeable"])
def test_forty_visits_take_no_more_equations_than_fifteen(residual, x64):
    def count(visits):
        frame = pd.DataFrame({"t": np.tile(np.arange(visits), 12), "g": np.repeat(np.arange(12), visits)})
        frame["y"] = np.random.default_rng(0).normal(size=len(frame))
        one = lj.Toeplitz("t", group="g") if residual == "toeplitz" else lj.CompoundSymmetry(group="g")
        problem = lj.lmm("y ~ 1", frame, residual=one).problem(frame["y"].to_numpy())
        return equations(jax.make_jaxpr(lambda p: estimate(p, None, method="newton"))(problem).jaxpr)

    assert count(40) <= 1.05 * count(15)
