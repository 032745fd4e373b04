"""Relationships by families beside the dense matrices, of pedigrees with inbreeding and selfing."""

import warnings

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax import kinship
from lmmjax.design import kernel_roots
from lmmjax.kinship import families


@pytest.fixture
def parents():
    """Twelve families of nine: three founders, then offspring of any two before them, also of one alone."""
    rng = np.random.default_rng(4)
    out = []
    for base in range(0, 108, 9):
        out += [(-1, -1)] * 3
        out += [tuple(base + rng.integers(-1 if j % 3 else 0, j, 2)) for j in range(3, 9)]
    out = np.array(out)
    # an unknown parent
    out[out == np.repeat(np.arange(0, 108, 9), 9)[:, None] - 1] = -1
    return out


def test_matrices_are_the_dense_ones(parents):
    of = kinship.ancestry(parents)
    assert of.inbreeding.max() > 0.4
    for which in (np.arange(108), np.random.default_rng(0).permutation(108)[:40]):
        for sparse, dense in (
            (families.additive_sparse, kinship.additive),
            (families.dominance_sparse, kinship.dominance),
        ):
            found = sparse(of, which)
            # sums of a few products of halves
            assert np.allclose(found.toarray(), dense(of, which), atol=1e-14)
            assert found.nnz <= 12 * 81


def test_kernels_of_many_families(parents, monkeypatch):
    monkeypatch.setattr(families, "MANY", 50)
    labels = np.array([f"a{k}" for k in range(108)] + ["0"])
    rows = pd.DataFrame({"id": labels[:108], "sire": labels[parents[:, 0]], "dam": labels[parents[:, 1]]})
    pedigree = lj.Pedigree(rows)
    kernel = lj.Kernel.from_pedigree(pedigree)
    assert not isinstance(kernel.levels.factor, np.ndarray)
    assert np.allclose(kernel.matrix, pedigree.additive().loc[kernel.ids, kernel.ids], atol=1e-14)
    root = kernel.levels.factor
    assert np.allclose((root @ root.T).toarray(), kernel.matrix, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dominance = lj.Kernel.from_pedigree(pedigree, list(labels[20:90]), kind="dominance")
        expected = pedigree.dominance(list(labels[20:90]))
    assert np.allclose(dominance.matrix, expected, atol=1e-14)


def test_what_is_wrong_in_a_block_is_named(monkeypatch):
    import scipy.sparse as sp

    whole = sp.lil_array(sp.block_diag([np.eye(2) + 0.5] * 4))
    ids = list("abcdefgh")
    for change, words in (
        ((4, 5, 3.0), "not symmetric: 3 at 'e', 'f', the other way 0.5"),
        ((6, 6, -1.0), "variance -1 of 'g'"),
        ((2, 3, np.nan), "not finite at 'c', 'd'"),
    ):
        bad = whole.copy()
        bad[change[0], change[1]] = change[2]
        with pytest.raises(ValueError, match=words):
            lj.Kernel(bad.tocsr(), ids)
    bad = whole.copy()
    bad[4, 5] = bad[5, 4] = 2.0
    with pytest.raises(ValueError, match=r"block of 'e' the kernel is no covariance.*eigenvalue is -0.5"):
        lj.Kernel(bad.tocsr(), ids)
    monkeypatch.setattr(kernel_roots, "BLOCK", 1)
    with pytest.raises(ValueError, match="a block of 2 connected levels, of at most 1: set small"):
        lj.Kernel(whole.tocsr(), ids)
