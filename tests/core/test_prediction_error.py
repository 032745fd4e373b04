"""Prediction errors against V, λ and Henderson's equations written out, derivatives by complex steps."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.linalg as sl
import scipy.sparse as sp
import structure_data
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.core import targets
from lmmjax.core.kriging import new_residuals
from lmmjax.core.mixed_equations import mixed_equations
from lmmjax.core.prediction_bias import estimation_errors
from lmmjax.core.prediction_error import marginal_errors, prediction_errors
from lmmjax.core.targets import Targets
from lmmjax.covariance import family
from lmmjax.design import Design, RandomTerm, standardise

N_NEW = 5
SIMILAR = ("MA", "AR1 + nugget", "CAR1 + nugget", "Exponential by")
FAMILIES = {"us": 3, "diag": 2, "cs": 3, "hetar1": 3, "rr": 3, "homtoep": 3}


def random_design(seed, factors, weights=False):
    """Rows with terms (codes, family, q): b is free, diagonal or structured."""
    rng = np.random.default_rng(seed)
    n = len(factors[0][0])
    terms = tuple(
        RandomTerm(np.column_stack([np.ones(n), rng.normal(size=(n, q - 1)) + 3.0]), c, int(c.max()) + 1, f)
        for c, f, q in factors
    )
    x = np.column_stack([np.ones(n), 5.0 + rng.normal(size=n)])
    return Design(x, terms, rng.uniform(0.5, 2.0, n) if weights else None)


def designs():
    rng = np.random.default_rng(0)
    n = 60
    g, h = np.arange(n) % 8, rng.integers(0, 5, n)
    us = family("us")
    out = {
        "grouped": random_design(1, [(g, us, 2), (g, family("diag"), 2)], weights=True),
        "nested": random_design(2, [(g // 2, us, 1), (g, us, 2)]),
        "crossed": random_design(3, [(g, us, 2), (h, us, 1)]),
        "linked": random_design(4, [(g, us, 1), (g // 4, us, 1)]),
    }
    for name, q in FAMILIES.items():
        own = family(name, *(["2"] if name == "rr" else []))
        out[name] = random_design(5, [(g, own, q)])
    return out


def residual_designs():
    rng = np.random.default_rng(6)
    terms = ((family("us"), 2),)
    size = {"sizes": (3,) * 8, "visits": 4}
    for name, correlation in structure_data.CASES.items():
        if name in SIMILAR:
            continue
        inside = name not in ("AR1", "Exponential")
        yield (
            name,
            structure_data.design(rng, correlation, terms=terms, weights="by" in name, inside=inside, **size),
        )
    variances = lj.VarIdent("s"), lj.VarPower("v")
    yield "variances", structure_data.design(rng, None, variances, terms=terms, **size)
    yield "AR1 alone", structure_data.design(rng, lj.AR1(group="id"), (lj.VarExp("v"),), **size)


CASES = designs() | dict(residual_designs())


def parameters(design, seed=7):
    """ψ with all variances well above 0."""
    rng = np.random.default_rng(seed)
    start = np.array([p.starts[0] for p in design.structure.parameters])
    with jax.enable_x64(True):
        theta = np.asarray(design.structure.encode(start)) + 0.2 * rng.uniform(-1, 1, len(start))
        d = np.asarray(design.structure.decode(theta))
    return np.append(d * 1.7**design.structure.powers, 1.7)


class Written:
    """Data rows and new ones of one design, as matrices of ψ (m + 1,), which may be complex."""

    def __init__(self, design, seed=8):
        rng = np.random.default_rng(seed)
        order = rng.permutation(design.n)
        self.all, self.n = design, design.n - N_NEW
        self.rows, self.new = order[: self.n], order[self.n :]
        terms = tuple(
            dataclasses.replace(t, z=t.z[self.rows], codes=t.codes[self.rows]) for t in design.terms
        )
        weights = None if design.weights is None else design.weights[self.rows]
        residual = None if design.residual is None else design.residual.at(self.rows)
        self.design = dataclasses.replace(
            design, x=design.x[self.rows], terms=terms, weights=weights, residual=residual
        )
        self.x = design.x[self.new] + rng.normal(size=(N_NEW, design.p))
        self.z = [rng.normal(size=(N_NEW, t.q)) for t in design.terms]
        self.codes = [t.codes[self.new] for t in design.terms]
        self.weights = np.ones(N_NEW) if design.weights is None else design.weights[self.new]

    def indicators(self, z, codes, n):
        blocks = [np.zeros((n, 0))]
        for term, own, at in zip(self.all.terms, z, codes, strict=True):
            block = np.zeros((len(own), term.n_groups, term.q))
            block[np.arange(len(own)), at] = own
            blocks.append(block.reshape(len(own), -1))
        return np.hstack(blocks)

    def matrices(self, psi):
        """Z, A, G and the covariance of all residuals, rows first."""
        structure = self.all.structure
        values = psi[:-1] / psi[-1] ** structure.powers
        covs, start = [], 0
        for term in self.all.terms:
            stop = start + term.family.n_params(term.q)
            covs.append(psi[-1] * structure_data.random_matrix(term.family.name, values[start:stop], term.q))
            start = stop
        blocks = [np.kron(np.eye(t.n_groups), c) for t, c in zip(self.all.terms, covs, strict=True)]
        g = sl.block_diag(*blocks) if blocks else np.zeros((0, 0))
        without = dataclasses.replace(self.all, terms=())
        order = np.append(self.rows, self.new)
        r = psi[-1] * structure_data.matrix(without, values[start:])[np.ix_(order, order)]
        terms = self.design.terms
        z = self.indicators([t.z for t in terms], [t.codes for t in terms], self.n)
        return z, self.indicators(self.z, self.codes, N_NEW), g, r

    def predictor(self, psi, kriging):
        """Var(t̂ − t) (k,), λ (n, k) and V, as in the head of `core.prediction_error`."""
        z, a, g, r = self.matrices(psi)
        n, x = self.n, self.design.x
        v = z @ g @ z.T + r[:n, :n]
        c = z @ g @ a.T + (r[:n, n:] if kriging else 0.0)
        own = np.diag(a @ g @ a.T) + (np.diag(r[n:, n:]) if kriging else 0.0)
        solved, spread = np.linalg.solve(v, np.column_stack([c, x])), N_NEW
        phi = np.linalg.inv(x.T @ solved[:, spread:])
        h = self.x.T - x.T @ solved[:, :spread]
        weights = solved[:, :spread] + solved[:, spread:] @ phi @ h
        return own - np.sum(c * solved[:, :spread], axis=0) + np.sum(h * (phi @ h), axis=0), weights, v

    def equations(self, psi):
        z, _, g, r = self.matrices(psi)
        x = self.design.x
        phi = np.linalg.inv(x.T @ np.linalg.solve(z @ g @ z.T + r[: self.n, : self.n], x))
        return mixed_equations(self.design, standardise(self.design)[1], psi, phi)

    def targets(self, e, psi, kriging):
        z = [own @ back for own, back in zip(self.z, e.outward, strict=True)]
        x, a = e.inner_x(self.x), sp.csr_array(self.indicators(z, self.codes, N_NEW))
        if not kriging:
            return Targets(x, a)
        new = self.all.residual.at(self.new)
        made = new_residuals(self.design, psi, new, self.weights, True)
        return Targets(x, a, made.cross, made.variance, made.cross_slopes, made.variance_slopes)


def steps(psi):
    return psi + 1e-25j * np.diag(np.maximum(np.abs(psi), 1e-3))


@pytest.mark.parametrize("name", CASES)
def test_errors_and_derivatives(name, monkeypatch):
    design = CASES[name]
    own, psi = Written(design), parameters(design)
    sizes = np.maximum(np.abs(psi), 1e-3) * 1e-25
    e, powers = own.equations(psi), design.structure.powers
    for kriging in (False, True) if design.residual is not None else (False,):
        wanted, _, v = own.predictor(psi, kriging)
        moved = [own.predictor(step, kriging) for step in steps(psi)]
        slopes = np.array([m[0].imag / size for m, size in zip(moved, sizes, strict=True)]).T
        targets_ = own.targets(e, psi, kriging)
        found = prediction_errors(e, targets_)
        assert_allclose(found.variance, wanted, rtol=1e-9)
        scale = np.abs(slopes).max(axis=0) + wanted.max() / psi[-1]
        assert np.all(np.abs(found.gradient(psi, powers) - slopes) < 1e-8 * scale)
        # what the estimation of ψ adds: 2 tr(AK), K the covariances of the steps of λᵀy
        root = np.random.default_rng(9).normal(size=(len(psi), len(psi))) * psi
        cov_psi = root.T @ root
        steps_ = np.array([m[1].imag / size for m, size in zip(moved, sizes, strict=True)])
        k = np.einsum("cnk,nm,dmk->kcd", steps_, v, steps_)
        added = 2.0 * np.einsum("kcd,cd->k", k, cov_psi)
        close = {"rtol": 1e-8, "atol": 1e-9 * added.max()}
        assert_allclose(estimation_errors(e, targets_, cov_psi), added, **close)
        # one alone, from the parts of the data that it touches
        alone = targets_.take([1])
        monkeypatch.setattr(targets, "SMALL", 0)
        assert_allclose(prediction_errors(e, alone).slopes, found.slopes[[1]], rtol=1e-9, atol=1e-12)
        assert_allclose(estimation_errors(e, alone, cov_psi), added[[1]], **close)
        # in blocks of one column
        monkeypatch.setattr(targets, "BLOCK", 1)
        assert_allclose(prediction_errors(e, targets_).gradient(psi, powers), found.gradient(psi, powers))
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["grouped", "nested", "crossed", "linked", "AR1", "Unstructured by"])
def test_the_inverse_of_hendersons_equations(name):
    own, psi = Written(CASES[name]), parameters(CASES[name])
    z, a, g, r = own.matrices(psi)
    w = np.hstack([own.design.x, z])
    coefficients = w.T @ np.linalg.solve(r[: own.n, : own.n], w)
    coefficients[own.design.p :, own.design.p :] += np.linalg.inv(g)
    rows = np.hstack([own.x, a])
    wanted = np.sum(rows * np.linalg.solve(coefficients, rows.T).T, axis=1)
    e = own.equations(psi)
    assert_allclose(prediction_errors(e, own.targets(e, psi, False)).variance, wanted, rtol=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_that_nothing_is_known_of(name):
    own, psi = Written(CASES[name]), parameters(CASES[name])
    e, (z,) = own.equations(psi), own.z
    found = marginal_errors(e, 0, z)

    def variance(psi):
        _, _, g, _ = own.matrices(psi)
        return np.einsum("ka,ab,kb->k", z, g[: z.shape[1], : z.shape[1]], z)

    assert_allclose(found.variance, variance(psi), rtol=1e-12)
    sizes = np.maximum(np.abs(psi), 1e-3) * 1e-25
    slopes = np.array([variance(s).imag / size for s, size in zip(steps(psi), sizes, strict=True)]).T
    gradient = found.gradient(psi, own.design.structure.powers)
    assert_allclose(gradient, slopes, rtol=1e-10, atol=1e-12 * np.abs(slopes).max())
