"""Relationships by hand, by the tabular method and by identities; pedigrees in any order and notation."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

import lmmjax as lj
from lmmjax import kinship
from lmmjax.kinship import pedigree as numbers

# Mrode (2014), Linear Models for the Prediction of Animal Breeding Values, 3rd ed., table 2.1 and example 2.1
MRODE = pd.DataFrame({"id": [3, 4, 5, 6], "sire": [1, 1, 4, 5], "dam": [2, None, 3, 2]})
MRODE_A = [
    [1.0, 0.0, 0.5, 0.5, 0.5, 0.25],
    [0.0, 1.0, 0.5, 0.0, 0.25, 0.625],
    [0.5, 0.5, 1.0, 0.25, 0.625, 0.5625],
    [0.5, 0.0, 0.25, 1.0, 0.625, 0.3125],
    [0.5, 0.25, 0.625, 0.625, 1.125, 0.6875],
    [0.25, 0.625, 0.5625, 0.3125, 0.6875, 1.125],
]


def tabular(parents):
    """A row by row: a_ij = ½(a_sj + a_dj), a_ii = 1 + ½a_sd; parents come first."""
    a = np.zeros((len(parents), len(parents)))
    for i, (s, d) in enumerate(parents):
        for parent in (s, d):
            if parent >= 0:
                a[i, :i] += 0.5 * a[parent, :i]
        a[:i, i] = a[i, :i]
        a[i, i] = 1.0 + (0.5 * a[s, d] if min(s, d) >= 0 else 0.0)
    return a


def random_pedigree(rng, n, founders=20, back=60):
    parents = np.full((n, 2), -1)
    for i in range(founders, n):
        parents[i] = rng.integers(max(0, i - back), i, 2)
    parents[founders:][rng.random((n - founders, 2)) < 0.1] = -1
    return parents


def frame(parents, order):
    names = np.array([*(f"a{i}" for i in range(len(parents))), None], dtype=object)
    return pd.DataFrame(
        {"id": names[order], "sire": names[parents[order, 0]], "dam": names[parents[order, 1]]}
    )


def test_an_example_of_the_textbook():
    pedigree = lj.Pedigree(MRODE)
    assert pedigree.ids.tolist() == [3, 4, 5, 6, 1, 2]
    assert pedigree.added.tolist() == [1, 2]
    ids = [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(pedigree.additive(ids), MRODE_A)
    np.testing.assert_array_equal(pedigree.inbreeding[ids], [0, 0, 0, 0, 0.125, 0.125])
    assert repr(pedigree) == "Pedigree(6 individuals, 2 of them founders, 2 added; 4 generations, 2 inbred)"


@pytest.mark.parametrize(
    ("mates", "f"),
    [
        # Wright (1922), doi:10.1086/279872, and Falconer & Mackay (1996), table 5.1
        ({"x": ("a", "b"), "y": ("a", "b")}, 1 / 4),
        ({"x": ("a", "b"), "y": ("a", "c")}, 1 / 8),
        ({"x": ("y", "b"), "y": (None, None)}, 1 / 4),
        ({"p": ("a", "b"), "q": ("a", "b"), "x": ("p", "c"), "y": ("q", "d")}, 1 / 16),
        (
            {
                "p": ("a", "b"),
                "q": ("a", "b"),
                "r": ("c", "d"),
                "s": ("c", "d"),
                "x": ("p", "r"),
                "y": ("q", "s"),
            },
            1 / 8,
        ),
    ],
    ids=["full sibs", "half sibs", "parent and offspring", "first cousins", "double first cousins"],
)
def test_inbreeding_of_known_matings(mates, f):
    rows = {
        "id": [*mates, "z"],
        "sire": [m[0] for m in mates.values()],
        "dam": [m[1] for m in mates.values()],
    }
    rows["sire"].append("x")
    rows["dam"].append("y")
    assert lj.Pedigree(rows).inbreeding["z"] == f


def test_selfing():
    rows = {"id": range(1, 9), "sire": range(8), "dam": range(8)}
    pedigree = lj.Pedigree(rows)
    np.testing.assert_array_equal(pedigree.inbreeding, 1 - 0.5 ** np.arange(8))
    identity = pedigree.additive_inverse() @ pedigree.additive().to_numpy()
    np.testing.assert_allclose(identity, np.eye(8), atol=1e-12)


def test_equals_the_tabular_method_whatever_the_order():
    rng = np.random.default_rng(0)
    parents = random_pedigree(rng, 400)
    order = rng.permutation(400)
    pedigree = lj.Pedigree(frame(parents, order))
    a, expected = pedigree.additive(), tabular(parents)[np.ix_(order, order)]
    np.testing.assert_allclose(a, expected, rtol=0, atol=1e-14)
    assert a.index.equals(a.columns)
    np.testing.assert_array_equal(a, a.T)
    some = ["a399", "a3", "a77"]
    np.testing.assert_array_equal(pedigree.additive(some), a.loc[some, some])
    assert pedigree.additive("a3").shape == (1, 1)
    straight = lj.Pedigree(frame(parents, np.arange(400))).additive()
    np.testing.assert_array_equal(straight.loc[a.index, a.index], a)


def test_inverse_of_an_inbred_pedigree_of_thousands():
    rng = np.random.default_rng(1)
    pedigree = lj.Pedigree(frame(random_pedigree(rng, 5000, 50, 400), rng.permutation(5000)))
    inverse = pedigree.additive_inverse()
    assert pedigree.inbreeding.max() > 0.25
    # at most 9 elements an individual
    assert inverse.nnz < 9 * 5000
    ancestry, which = kinship.ancestry(pedigree._parents), rng.permutation(5000)[:40]
    columns = numbers._columns(ancestry.parents, ancestry.mendelian, ancestry.place[which])[ancestry.place]
    np.testing.assert_allclose(columns[which], pedigree.additive(pedigree.ids[which]), rtol=0, atol=1e-15)
    expected = np.zeros((5000, 40))
    expected[which, np.arange(40)] = 1.0
    np.testing.assert_allclose(inverse @ columns, expected, rtol=0, atol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    rows = frame(random_pedigree(rng, 150), np.arange(150))
    whole = lj.Pedigree(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = whole.inbreeding, whole.additive(), whole.dominance()
        monkeypatch.setattr(numbers, "BLOCK", 300)
        blocks = lj.Pedigree(rows)
        for one, other in zip(
            expected, (blocks.inbreeding, blocks.additive(), blocks.dominance()), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-15)


def test_dominance():
    """¼ for full sibs, 1/16 for double first cousins, 0 for half sibs and for parents and offspring."""
    rows = pd.DataFrame(
        [
            ("p", "a", "b"),
            ("q", "a", "b"),
            ("r", "c", "d"),
            ("s", "c", "d"),
            ("x", "p", "r"),
            ("y", "q", "s"),
        ],
        columns=["id", "sire", "dam"],
    )
    rows.loc[6] = ("h", "a", "e")
    d = lj.Pedigree(rows).dominance()
    np.testing.assert_array_equal(np.diag(d), 1.0)
    assert d.loc["p", "q"] == 0.25
    assert d.loc["x", "y"] == 1 / 16
    assert d.loc["p", "h"] == d.loc["p", "a"] == d.loc["p", "x"] == 0
    # which parent is which makes no difference
    swapped = rows.rename(columns={"sire": "dam", "dam": "sire"})
    np.testing.assert_array_equal(lj.Pedigree(swapped).dominance(d.index), d)
    with pytest.warns(UserWarning, match="1 individuals are inbred"):
        lj.Pedigree({"id": ["x", "y", "z"], "sire": ["a", "a", "x"], "dam": ["b", "b", "y"]}).dominance()


@pytest.mark.parametrize(
    "write",
    [
        lambda d: d,
        lambda d: d.fillna(0),
        lambda d: d.fillna(0).astype(int),
        lambda d: d.astype("Int64"),
        lambda d: d.astype("Int64").astype(object).where(d.notna(), "."),
        lambda d: pl.from_pandas(d.astype("Int64")),
        lambda d: d.to_dict("list"),
        lambda d: d.fillna(0).astype(int).astype(str).astype("category"),
        lambda d: d.fillna(0).astype(int).astype(str),
        lambda d: d.sample(frac=1, random_state=1),
    ],
    ids=["nan", "zero", "ints", "Int64", "dots", "polars", "dict", "categories", "text", "shuffled"],
)
def test_notations_of_the_same(write):
    pedigree = lj.Pedigree(write(MRODE))
    ids = ["1", "2", "3", "4", "5", "6"] if "3" in pedigree.ids else [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(pedigree.additive(ids), MRODE_A)
    assert pd.isna(pedigree.parents.loc[ids[3], "dam"])


def test_individuals_that_count_from_zero():
    rows = pd.DataFrame({"id": [0, 1, 2], "sire": [None, None, 0], "dam": [None, None, 1]})
    with pytest.raises(ValueError, match="0 labels an individual and stands for an unknown parent"):
        lj.Pedigree(rows)
    assert lj.Pedigree(rows, unknown=[]).additive().loc[0, 2] == 0.5


@pytest.mark.parametrize(
    ("rows", "pieces"),
    [
        (
            [("a", "b", None), ("b", "c", None), ("c", None, "a"), ("d", "a", None)],
            ["loop", "'a'", "'b'", "'c'"],
        ),
        ([(1, 2, 3), (2, 1, 3)], ["1 ← 2 ← 1"]),
        ([("a", "a", None)], ["loop", "'a' ← 'a'"]),
        ([("a", None, None), ("a", "b", None)], ["'a' has several rows"]),
        ([(5, None, None), ("b", "5", None)], ["5 and '5'", "read the same"]),
        ([("a", None, None), ("b", "a ", None)], ["'a' and 'a '", "read the same"]),
        ([(None, "a", "b")], ["row 0", "no label"]),
    ],
)
def test_what_is_no_pedigree(rows, pieces):
    with pytest.raises(ValueError) as error:
        lj.Pedigree(pd.DataFrame(rows, columns=["id", "sire", "dam"]))
    for piece in pieces:
        assert piece in str(error.value)


def test_no_inverse_where_parents_are_fully_inbred():
    """After 60 generations of selfing F is 1 to the last digit."""
    pedigree = lj.Pedigree({"id": range(1, 61), "sire": range(60), "dam": range(60)})
    with pytest.raises(ValueError, match=r"parents of 5\d are fully inbred"):
        pedigree.additive_inverse()
    with pytest.raises(ValueError, match="no individual 99"):
        pedigree.additive([1, 99])
