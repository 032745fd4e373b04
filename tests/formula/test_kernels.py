"""Kernels: what they take, what they refuse, how they meet the terms of a formula."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import lmmjax as lj

IDS = [f"i{k}" for k in range(12)]
HALF = np.random.default_rng(0).normal(size=(12, 20))
K = HALF @ HALF.T / 20
FRAME = pd.DataFrame(K, IDS, IDS)
DATA = pd.DataFrame({"id": IDS * 2, "x": np.arange(24.0), "y": np.sin(np.arange(24.0) ** 2)})
GENES = pd.DataFrame(np.arange(36).reshape(12, 3) % 5 % 3, IDS)
FAMILIES = np.kron(np.eye(4), np.full((3, 3), 0.5) + 0.5 * np.eye(3))


def matrix_of(kernel):
    return kernel.matrix.loc[IDS, IDS].to_numpy()


@pytest.mark.parametrize(
    ("make", "whole"),
    [
        (lambda: lj.Kernel(K, IDS), K),
        (lambda: lj.Kernel(FRAME), K),
        # columns in another order than rows
        (lambda: lj.Kernel(FRAME[IDS[::-1]]), K),
        (lambda: lj.Kernel(K[::-1, ::-1], IDS[::-1]), K),
        (lambda: lj.Kernel(K.tolist(), IDS), K),
        (lambda: lj.Kernel(sp.csr_array(FAMILIES), IDS), FAMILIES),
        (lambda: lj.Kernel.low_rank(HALF[:, :3], IDS), HALF[:, :3] @ HALF[:, :3].T),
        (lambda: lj.Kernel.low_rank(HALF, IDS), HALF @ HALF.T),
        (lambda: lj.Kernel.low_rank(pd.DataFrame(HALF[:, :3], IDS)), HALF[:, :3] @ HALF[:, :3].T),
        (lambda: lj.Kernel.blocks([FRAME.iloc[:5, :5], lj.Kernel(FRAME.iloc[5:, 5:])]), None),
    ],
)
def test_a_kernel_is_its_matrix_by_label(make, whole):
    kernel = make()
    if whole is None:
        side = np.arange(12) >= 5
        whole = np.where(side[:, None] == side, K, 0.0)
    assert np.allclose(matrix_of(kernel), whole, rtol=1e-14, atol=1e-14)
    root = kernel.levels.root
    assert np.allclose(root @ root.T, kernel.matrix, rtol=0, atol=1e-13 * np.abs(whole).max())
    assert np.allclose(kernel.levels.diagonal, np.diagonal(kernel.matrix), rtol=1e-14)
    codes = np.array([3, 0, 3, 7])
    assert np.allclose(kernel.levels.between(codes, codes), kernel.matrix.to_numpy()[np.ix_(codes, codes)])


def test_independent_families_are_found():
    kernel = lj.Kernel(sp.csr_array(FAMILIES), IDS)
    assert len(np.unique(kernel.levels.components)) == 4
    assert kernel.levels.factor.nnz == 4 * 6


def test_a_singular_kernel_has_the_rank_it_has():
    centred = K - K.mean(axis=0) - K.mean(axis=1)[:, None] + K.mean()
    assert lj.Kernel(centred, IDS).levels.rank == 11
    # three decimals: eigenvalues that are rounding, said to be
    rounded = np.round(centred, 3)
    with pytest.raises(ValueError, match="smallest eigenvalue is -"):
        lj.Kernel(rounded, IDS)
    kernel = lj.Kernel(rounded, IDS, tolerance=1e-2)
    root = kernel.levels.root
    assert np.abs(root @ root.T - rounded).max() < 2e-3


def skewed(i, j, value):
    out = K.copy()
    out[i, j] = value
    return out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lj.Kernel(K), "has no labels: pass ids="),
        (lambda: lj.Kernel(K, IDS[:5]), "12 rows and 5 ids"),
        (lambda: lj.Kernel(K, ["a"] * 12), "the label 'a' twice"),
        (lambda: lj.Kernel(K, [*IDS[:-1], None]), "a label is missing in row 11"),
        (lambda: lj.Kernel(K[:3], IDS), "a square matrix"),
        (lambda: lj.Kernel(skewed(2, 5, 9.0), IDS), "not symmetric: .*'i[25]', 'i[25]'"),
        (lambda: lj.Kernel(skewed(2, 5, np.nan), IDS), "not finite at 'i2', 'i5'"),
        (lambda: lj.Kernel(skewed(2, 2, -1.0), IDS), "the variance -1 of 'i2'"),
        (
            lambda: lj.Kernel(K - 0.9 * np.eye(12) * np.diag(K), IDS),
            "smallest eigenvalue is -.*, the largest",
        ),
        (lambda: lj.Kernel(K, IDS, tolerance=2), "tolerance must be a number from 0 up to 1"),
        (lambda: lj.Kernel.low_rank(np.full((12, 2), np.nan), IDS), "missing or infinite value in row 0"),
        (lambda: lj.Kernel.blocks([]), "at least one kernel"),
        (
            lambda: lj.Kernel(pd.DataFrame(K, IDS, [f"j{k}" for k in range(12)])),
            "^the labels of the columns of the kernel and of its rows differ",
        ),
        (lambda: lj.Kernel(FRAME, IDS[::-1]), "same labels in another order: 'i11' and 'i0' in row 0"),
        (lambda: lj.Kernel.low_rank(FRAME, [*IDS[1:], IDS[0]]), "another order: 'i1' and 'i0' in row 0"),
        (lambda: lj.Kernel.from_markers(GENES, IDS[::-1]), "same labels in another order"),
        (lambda: lj.Kernel(K, set(IDS)), "a set, which has no order: pass a list"),
    ],
)
def test_what_is_no_kernel_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


FULL = lj.Kernel(K, IDS, name="A")


@pytest.mark.parametrize(
    ("formula", "kernels", "message"),
    [
        ("y ~ x + (1 | id)", {"ID": FULL}, "no random term of 'ID'.*id"),
        ("y ~ x + (1 | id)", FULL, "kernels is a dict"),
        ("y ~ x + (1 | id)", {"id": K}, "the kernel of 'id': .*no labels"),
        (
            "y ~ x + (1 | id)",
            {"id": lj.Kernel(K[:8, :8], IDS[:8])},
            r"no level 'i8', 'i9', 'i10', … \(4 of the",
        ),
        ("y ~ x + (1 | id)", {"id": []}, "empty list"),
        ("y ~ x + (1 | id)", {"id": [FULL, FULL]}, "two of 'id' are .*different names"),
        ("y ~ x + (1 | id)", {"0 + x | id": FULL}, "no random term of '0 . x . id'"),
        ("y ~ x + (1 | id:x)", {"id:x": FULL}, "make one column of it"),
    ],
)
def test_kernels_that_do_not_fit_the_formula_are_said(formula, kernels, message):
    with pytest.raises(ValueError, match=message):
        lj.lmm(formula, DATA, kernels=kernels)


def test_labels_of_another_type_are_said():
    numbers = DATA.assign(id=np.tile(np.arange(12), 2))
    with pytest.raises(ValueError, match="another type: give both the same type"):
        lj.lmm("y ~ x + (1 | id)", numbers, kernels={"id": lj.Kernel(K, [str(k) for k in range(12)])})
    # whole doubles are whole numbers
    model = lj.lmm("y ~ x + (1 | id)", numbers, kernels={"id": lj.Kernel(K, np.arange(12.0))})
    assert model.frame.random[0].levels.tolist() == list(range(12))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lj.Kernel(np.eye(12), IDS), "is that of the residuals"),
        (lj.Kernel(2.0 * np.eye(12) + 5.0, IDS), "is that of the residuals"),
        (lj.Kernel.low_rank(np.ones(12), IDS), "nothing is left of its kernel"),
    ],
)
def test_a_kernel_that_says_nothing_on_these_rows_is_refused(kernel, message):
    with pytest.raises(ValueError, match=message):
        lj.lmm("y ~ x + (1 | id)", DATA.iloc[:12], kernels={"id": kernel})


def test_each_kernel_of_a_factor_is_a_term():
    other = lj.Kernel.low_rank(HALF[:, :3], IDS)
    model = lj.lmm("y ~ x + (1 | id)", DATA, kernels={"id": [FULL, other, None]})
    assert [term.group for term in model.frame.random] == ["id[A]", "id[2]", "id"]
    model = lj.lmm("y ~ x + (x || id)", DATA, kernels={"id": [FULL, None]})
    assert [term.label for term in model.frame.random] == [
        "1 | id[A]",
        "1 | id",
        "0 + x | id[A]",
        "0 + x | id",
    ]
    model = lj.lmm("y ~ x + (x || id)", DATA, kernels={"1 | id": FULL})
    assert [term.kernel for term in model.frame.random] == [FULL, None]
    named = lj.lmm("y ~ x + (1 | id)", DATA, kernels={"id": {"additive": FULL, "own": None}})
    assert [term.group for term in named.frame.random] == ["id[additive]", "id"]
    assert list(named.fit().random_effects) == ["id[additive]", "id"]


def test_updates_keep_the_kernels_of_the_terms_that_stay():
    model = lj.lmm("y ~ x + (1 | id)", DATA, kernels={"id": FULL})
    assert model.update("~ . - x").frame.random[0].kernel is FULL
    assert model.update("~ . - (1 | id)").frame.random == ()
    assert model.update(kernels=None).frame.random[0].kernel is None


def test_arrays_take_kernels_too():
    model = lj.Model.from_arrays(
        DATA.y, np.column_stack([np.ones(24), DATA.x]), {"id": DATA.id}, kernels={"id": FULL}
    )
    plain = lj.lmm("y ~ x + (1 | id)", DATA, kernels={"id": FULL})
    assert np.array_equal(model.frame.random[0].codes, plain.frame.random[0].codes)
    with pytest.raises(ValueError, match="kernels has 'who'"):
        lj.Model.from_arrays(DATA.y, np.ones((24, 1)), {"id": DATA.id}, kernels={"who": FULL})


@pytest.mark.parametrize(
    "kernel",
    [FULL, lj.Kernel(sp.csr_array(FAMILIES), np.arange(12)), lj.Kernel.low_rank(HALF[:, :2], IDS)],
    ids=["dense", "sparse", "thin"],
)
def test_kernels_as_files(kernel, tmp_path):
    kernel.save(tmp_path / "kernel")
    again = lj.Kernel.load(tmp_path / "kernel")
    assert again.ids.equals(kernel.ids)
    assert again.name == kernel.name
    assert np.array_equal(again.matrix, kernel.matrix)
    assert type(again.levels.factor) is type(kernel.levels.factor)


def test_other_files_are_no_kernels(tmp_path):
    (tmp_path / "text").write_text("no kernel")
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    for name in ("text", "other.npz"):
        with pytest.raises(ValueError, match="no file of a kernel"):
            lj.Kernel.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        lj.Kernel.load(tmp_path / "none")
    with pytest.raises(ValueError, match="text or whole numbers"):
        lj.Kernel(np.eye(2), [1.5, "b"]).save(tmp_path / "k")
