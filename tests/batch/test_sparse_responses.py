"""Sparse responses beside the same ones dense: backends, offsets, weights, missing values, what follows."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

import lmmjax as lj
from lmmjax.arrays import sparse_columns
from lmmjax.arrays.sparse_columns import SparseColumns, complete_columns, finite_columns, missing

RNG = np.random.default_rng(0)
N, T = 90, 7
DATA = pd.DataFrame(
    {
        "donor": RNG.integers(0, 8, N),
        "batch": np.tile(list("pqr"), N // 3),
        "x": RNG.normal(size=N),
        "w": RNG.uniform(0.5, 2.0, N),
        "o": RNG.normal(size=N),
    },
    index=[f"c{k}" for k in range(N)],
)
DENSE = np.where(RNG.uniform(size=(N, T)) < 0.3, RNG.gamma(2.0, size=(N, T)), 0.0)
DENSE[:, 3] = 0.0
CSR = sparse.csr_matrix(DENSE)
FORMS = (CSR, sparse.csc_array(DENSE), sparse.coo_array(DENSE))


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch):
    """Tiles of some entries, ranges and chunks of two columns, so that there are several."""
    monkeypatch.setattr(sparse_columns, "ENTRIES", 40)
    monkeypatch.setattr(sparse_columns, "RANGE", 60)
    monkeypatch.setattr(sparse_columns, "CHUNK", 2 * N)


def both(model, given=CSR, dense=DENSE, **options):
    with pytest.warns(UserWarning, match="could not be fitted"):
        return model.fit_batch(given, **options), model.fit_batch(dense, **options)


def same(one, other):
    """The sums are formed in another order: equal to the tolerance of the optimum."""
    assert list(one.status) == list(other.status)
    assert list(one.reasons) == list(other.reasons)
    for name in ("deviance", "beta", "cov_beta", "psi"):
        values = [getattr(fits.estimate, name) for fits in (one, other)]
        assert_allclose(*values, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("~ x + (1 | donor)", {}),
        ("~ x + offset(o) + (1 | donor)", {"weights": "w"}),
        ("~ x + (1 | donor) + (1 | batch)", {}),
    ],
)
def test_fits_are_those_of_dense_ones(formula, options):
    model = lj.lmm(formula, DATA, **options)
    if "offset" in formula:
        one, other = model.fit_batch(CSR), model.fit_batch(DENSE)
    else:
        one, other = both(model)
    assert isinstance(one.fitted.y, SparseColumns)
    same(one, other)


def test_many_lanes(monkeypatch):
    """The program for many responses, without one by one."""
    monkeypatch.setattr("lmmjax.batch.sources.FEW", 2)
    same(*both(lj.lmm("~ x + (1 | donor)", DATA), FORMS[1]))


def test_missing_and_infinite_entries():
    dense = DENSE.copy()
    dense[[3, 50], 1], dense[7, 5] = np.nan, np.inf
    given = sparse.csr_array(np.where(np.isnan(dense), 0.0, dense))
    given = given + sparse.csr_array(np.where(np.isnan(dense), np.nan, 0.0))
    one, other = both(lj.lmm("~ x + (1 | donor)", DATA), given, dense)
    same(one, other)
    assert one.status[5] == "not_finite"
    assert_allclose(one.variance_shares(), other.variance_shares(), rtol=1e-7)
    assert_allclose(one.anova().to_numpy(float), other.anova().to_numpy(float), rtol=1e-6)
    assert_allclose(one.top("x", None).loc[0, "average"], other.top("x", None).loc[0, "average"])


def test_what_follows_a_fit():
    one, other = both(lj.lmm("~ x + (1 | donor)", DATA))
    good = [k for k in range(T) if k != 3]
    for table in (
        lambda f: f.top("x", None, ddf="kr").loc[good],
        lambda f: f.moderate().table.drop(columns="response"),
        lambda f: f.random_effects().loc[good],
        lambda f: f.predict().loc[good],
        lambda f: f.influence("donor").cooks_distance,
        lambda f: f.test("x", robust="CR2", cluster="donor").loc[good],
        lambda f: f[1].predict(),
        lambda f: f[[0, 2]].params,
    ):
        a, b = (table(fits) for fits in (one, other))
        if isinstance(a, pd.DataFrame):
            a, b = (v.select_dtypes("number") for v in (a, b))
        assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_labels_weights_and_rows(tmp_path):
    holes = DATA.assign(x=DATA["x"].where(np.arange(N) % 9 > 0))
    same(*both(lj.lmm("~ x + (1 | donor)", holes)))
    # weights and offsets make them dense
    weights = RNG.uniform(0.5, 2, DENSE.shape)
    one, other = both(lj.lmm("~ x + (1 | donor)", DATA), weights=weights)
    assert isinstance(one.fitted.y, np.ndarray)
    same(one, other)
    fits = both(lj.lmm("~ x + (1 | donor)", DATA))[0]
    fits.save(tmp_path / "sparse.lmm")
    again = lj.load(tmp_path / "sparse.lmm")
    assert isinstance(again.fitted.y, SparseColumns)
    assert_allclose(again.fitted.y, DENSE)
    assert_allclose(again.n_starts, fits.n_starts)
    same(again, fits)


def test_sparse_columns():
    twice = sparse.csc_array((np.ones(4), np.array([1, 1, 0, 2]), np.array([0, 2, 4])), shape=(3, 2))
    y = SparseColumns.of(twice)
    dense = np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 1.0]])
    assert_allclose(y, dense)
    assert twice.nnz == 4
    assert_allclose(y[:, 1], dense[:, 1])
    assert_allclose(y[[2, 0]], dense[[2, 0]])
    assert_allclose(y[np.array([True, False, True]), 0], dense[[0, 2], 0])
    assert_allclose(y[np.ix_([0, 2], [1, 0])], dense[np.ix_([0, 2], [1, 0])])
    assert_allclose(y.sums(), dense.sum(axis=0))
    assert missing(y).strides == (0, 0)
    with pytest.raises(TypeError):
        np.isnan(y)
    odd = SparseColumns.of(sparse.csc_array(np.array([[np.nan, 1.0, np.inf], [0.0, 0.0, 1.0]])))
    assert complete_columns(odd).tolist() == [False, True, True]
    assert finite_columns(odd).tolist() == [False, True, False]
    assert missing(odd).sum() == 1
    assert_allclose(odd.cleared(np.array([True, False, True])), [[0.0, 1, 0], [0, 0, 0]])
    assert len(odd) == 2


def test_nothing_is_copied_of_columns_and_little_of_rows():
    """Of CSC the entries are views, of CSR copies of a few columns; what was given is not touched."""
    csc = sparse.csc_array(DENSE)
    y = SparseColumns.of(csc)
    some = y[:, 2:6]
    assert np.shares_memory(some.csc().indices, csc.indices) or some.csc().nnz < csc.nnz / 2
    assert all(np.shares_memory(part[0], csc.data) for _, part in some._ranges())
    assert all(np.shares_memory(part[0], csc.data) for _, part in y[:, [4, 5, 6]]._ranges())
    rows = SparseColumns.of(CSR)
    assert max(len(part[0]) for _, part in rows._ranges()) < CSR.nnz / 2
    # two entries in a place, and columns from the last to the first
    back = sparse.csr_array(DENSE[::-1])
    halves, columns = (np.repeat(values, 2)[::-1] for values in (back.data, back.indices))
    odd = sparse.csr_array((halves, columns, 2 * CSR.indptr), shape=(N, T))
    for given in (odd, sparse.csc_array(odd)):
        before = given.copy()
        for view in (SparseColumns.of(given), SparseColumns.of(given)[:, 1:]):
            dense = 2 * DENSE[:, T - view.shape[1] :]
            assert_allclose(view, dense, atol=1e-12)
            assert_allclose(view.sums(), dense.sum(axis=0))
            assert_allclose(view[:, -2], dense[:, -2])
            assert_allclose(view[[5, 1]], dense[[5, 1]])
            assert_allclose(view[:, [3, 0]], dense[:, [3, 0]])
            assert_allclose(view.csc().toarray(), dense)
        assert_allclose(given.data, before.data)
