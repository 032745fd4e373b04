"""Every backend gives the same Gram, jet, projections and estimates as the explicit matrix H."""

import dataclasses
import functools
import sys

import jax
import numpy as np
import pytest
from core_data import (
    assert_near,
    dense_jet,
    design,
    problem,
    random_theta,
    relative_covariance,
    response,
    several,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core import estimate_jit
from lmmjax.core.problem import internal_entries
from lmmjax.gram import BACKENDS, choose

SEVERAL = {"nested", "crossed", "layered"}
KINDS = {
    name: (name, {})
    for name in BACKENDS
    if name not in SEVERAL | {"fixed", "grouped", "whitened", "spectral", "block", "rotated"}
}
KINDS |= {"raw": ("grouped", {"compress": False}), "compressed": ("grouped", {"compress": True})}
KINDS |= {"families": ("families", {"compress": False})}
# both sides are backward stable; derivatives of second order multiply condition numbers below 1e3
TOL = 1e-9

pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def evaluate(kind):
    """Compiled: the Gram in the user's coordinates, the jet and the projections in the internal ones."""

    def everything(theta, problem):
        d = internal_entries(theta, problem)
        jet = problem.shared.jet(d, problem.response)
        projections = () if kind == "compressed" else problem.shared.project(d, problem.response)
        return lj.gram(theta, problem), jet, projections

    return quick_jit(everything)


# every family has tests of its own; those above the backends are one to them, of full rank or not
@pytest.mark.parametrize("terms", ["us2", "diag2", "us2+diag1", "cs2", "rr2"])
@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    weights=st.booleans(),
    offset=st.booleans(),
    patterns=st.booleans(),
    zeros=st.sampled_from([0.0, 0.5, 1.0]),
)
@example(seed=0, weights=True, offset=True, patterns=True, zeros=0.0)
def test_backends_agree(terms, seed, weights, offset, patterns, zeros):
    rng = np.random.default_rng(seed)
    # offsets and weights change the numbers of a problem, not its shape
    d = design(rng, terms, weights=weights, offset=offset, patterns=patterns)
    theta, y = random_theta(rng, d, zeros), rng.normal(size=d.n)
    inverse = np.linalg.inv(relative_covariance(d, theta))
    w = np.column_stack([d.x, y - (0.0 if d.offset is None else d.offset)])
    logdet = -np.linalg.slogdet(inverse)[1]
    results = {}
    for kind, (backend, options) in KINDS.items():
        if kind == "compressed" and not patterns:
            continue
        results[kind] = evaluate(kind)(theta, problem(d, y, backend=backend, **options))
        gram = results[kind][0]
        s = np.block([[gram.xx, gram.xy[:, None]], [gram.xy[None], gram.yy]])
        assert_near((gram.logdet, s), (logdet, w.T @ inverse @ w), TOL)
    for kind, (_, jet, projections) in results.items():
        assert_near(jet, results["dense"][1], TOL)
        if kind == "raw":
            padded = [jax.tree.map(lambda a: a[..., : d.terms[0].n_groups], p) for p in projections]
            assert_near(padded, list(results["dense"][2]), TOL)


@pytest.mark.parametrize("terms", ["us1", "us3", "us2+diag1", "cs2", "rr2"])
def test_estimates_agree(terms):
    rng = np.random.default_rng(len(terms))
    d = design(rng, terms, patterns=True, weights=True)
    y = response(rng, d, random_theta(rng, d))
    fits = {}
    for kind, (backend, options) in KINDS.items():
        if terms in ("us1", "us2+diag1") or kind != "dense":
            fits[kind] = estimate_jit(problem(d, y, backend=backend, **options))
    for fit in fits.values():
        best = fits["raw"]
        assert fit.status == lj.Status.CONVERGED
        assert abs(fit.deviance - best.deviance) < TOL * (1 + abs(best.deviance))
        # a point of a smooth minimum is known to the square root of the criterion's accuracy, or better
        assert_near(
            (fit.theta, fit.psi, fit.beta, fit.cov_beta),
            (best.theta, best.psi, best.beta, best.cov_beta),
            1e-7,
        )
        np.testing.assert_allclose(
            fit.cov_psi, best.cov_psi, rtol=1e-6, atol=1e-6 * np.nanmax(np.abs(best.cov_psi))
        )


def test_choice_of_a_backend():
    rng = np.random.default_rng(0)
    d = design(rng, "us1+us1")
    assert choose(d) == "grouped"
    other = design(rng, "us1")
    crossed = type(d)(d.x, (d.terms[0], other.terms[0]))
    assert choose(crossed) == "crossed"
    assert choose(several(rng, "nested", (1, 1, 1))) == "nested"
    with pytest.raises(ValueError, match="whose grouping factors are nested"):
        problem(crossed, rng.normal(size=d.n), backend="grouped")
    with pytest.raises(ValueError, match="each within the next"):
        problem(crossed, rng.normal(size=d.n), backend="nested")
    for name in ("nested", "crossed"):
        with pytest.raises(ValueError, match="two or more grouping factors"):
            problem(d, rng.normal(size=d.n), backend=name)
    for other in (d, crossed, several(rng, "nested", (1, 1, 1))):
        with pytest.raises(ValueError, match="nested in each other and one that is not"):
            problem(other, rng.normal(size=d.n), backend="layered")
    with pytest.raises(
        ValueError, match="unknown backend 'sparse'; the known ones are: block, crossed, dense"
    ):
        problem(d, rng.normal(size=d.n), backend="sparse")


def families():
    """Codes of 12 families of two or three members with two rows each: nested, with two patterns."""
    members = np.repeat(np.arange(30), 2)
    sizes = np.tile([2, 3], 6)
    return np.repeat(np.arange(12), sizes)[members], members


@given(seed=st.integers(0, 10**6), zeros=st.sampled_from([0.0, 0.5, 1.0]))
@example(seed=0, zeros=1.0)
def test_nested_factors_in_slots(seed, zeros):
    rng = np.random.default_rng(seed)
    d = design(rng, "us1", n=60, groups=12, codes=families()[0])
    inner = dataclasses.replace(d.terms[0], codes=families()[1], n_groups=30)
    d = dataclasses.replace(d, terms=(d.terms[0], inner))
    assert choose(d) == "grouped"
    theta, y = random_theta(rng, d, zeros), rng.normal(size=d.n)
    dense = problem(d, y, backend="dense")
    expected = dense_jet(dense, internal_entries(theta, dense))
    compressed = evaluate("compressed")(theta, problem(d, y, compress=True))
    assert_near(compressed[1], expected[0], TOL)
    assert problem(d, y, compress=True).shared.count.sum() == 12
    assert problem(d, y, compress=True).shared.r.shape[-1] == 2
    gram, jet, projections = evaluate("raw")(theta, problem(d, y, compress=False))
    assert_near(gram, compressed[0], TOL)
    assert_near(jet, expected[0], TOL)
    # families are padded to a bucket, members are not
    own = [jax.tree.map(lambda a: a[..., :12], projections[0]), projections[1]]
    assert_near(own, list(expected[1]), TOL)


DESIGNS = [
    ("nested", "nested", (1, 1, 1), None),
    ("nested", "nested", (2, 1), None),
    ("crossed", "nested", (1, 2), 1.0),
    ("crossed", "crossed", (1, 1), 0.8),
    ("crossed", "crossed", (2, 1, 1), 0.0),
    ("crossed", "mixed", (1, 1, 2), 0.4),
    ("crossed", "mixed", (1, 2, 1), 0.55),
    ("layered", "mixed", (1, 1, 2), None),
    ("layered", "mixed", (2, 2, 1), None),
]
"""Backend, how the factors lie, columns of the terms, the share of columns beyond which rows are dense."""


@pytest.mark.parametrize(("backend", "kind", "widths", "heavy"), DESIGNS)
@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), weights=st.booleans(), zeros=st.sampled_from([0.0, 0.5, 1.0]))
@example(seed=0, weights=True, zeros=0.5)
def test_several_factors_equal_the_dense_matrix(backend, kind, widths, heavy, seed, weights, zeros):
    rng = np.random.default_rng(seed)
    d = several(rng, kind, widths, weights=weights)
    theta, y = random_theta(rng, d, zeros), rng.normal(size=d.n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["lmmjax.gram.crossed.prepare"], "HEAVY", heavy)
        made = problem(d, y, backend=backend)
    if heavy is not None:
        rows, groups = made.shared.incidence.heavy.shape[1], made.shared.incidence.n_groups
        assert rows == groups if heavy == 0 else rows == 0 if heavy == 1 else 0 < rows < groups
    gram, *actual = evaluate(backend)(theta, made)
    dense = problem(d, y, backend="dense")
    assert_near(actual, dense_jet(dense, internal_entries(theta, dense)), TOL)
    inverse, w = np.linalg.inv(relative_covariance(d, theta)), np.column_stack([d.x, y])
    assert_near((gram.logdet, gram.s), (-np.linalg.slogdet(inverse)[1], w.T @ inverse @ w), TOL)


def test_dense_part_that_memory_cannot_hold_is_refused(monkeypatch):
    rng = np.random.default_rng(3)
    d = several(rng, "crossed", (1, 1))
    monkeypatch.setattr(sys.modules["lmmjax.gram.crossed.dense_columns"], "available_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"dense matrices of 4 × 4.*Leave out or coarsen"):
        problem(d, rng.normal(size=d.n), backend="crossed")


@pytest.mark.parametrize(
    ("patterns", "terms", "compressed"), [(True, "us1", True), (False, "us2", False), (True, "us3", False)]
)
def test_products_are_compressed_when_that_makes_them_smaller(patterns, terms, compressed):
    rng = np.random.default_rng(1)
    d = design(rng, terms, patterns=patterns)
    made = problem(d, rng.normal(size=d.n))
    assert made.shared.compressed == compressed
    smaller = sum(a.size for a in jax.tree.leaves(made.response))
    other = problem(d, rng.normal(size=d.n), compress=not compressed)
    assert smaller <= sum(a.size for a in jax.tree.leaves(other.response))


def test_number_of_groups_does_not_matter_for_compressed_products():
    rng = np.random.default_rng(2)
    shapes = set()
    for groups in (6, 60):
        d = design(rng, "us1", patterns=True, n=6 * groups, groups=groups)
        made = problem(d, rng.normal(size=d.n))
        shapes.add(tuple(a.shape for a in jax.tree.leaves((made.shared, made.response))))
    assert len(shapes) == 1
