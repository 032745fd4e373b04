"""Genomic relationships by their definitions, beside GEMMA's, from every kind of genotypes."""

import gzip
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from stand_ins import Lazy

import lmmjax as lj
from lmmjax.kinship import METHODS

FOLDER = Path(__file__).parents[1] / "reference" / "gemma"


def plink(path, n):
    """Genotypes (n, M) of a .bed file: two bits each, 00 two copies of A1, 01 missing, 10 one, 11 none."""
    data = np.fromfile(path, np.uint8)[3:].reshape(-1, (n + 3) // 4)
    codes = (data[:, :, None] >> np.array([0, 2, 4, 6])) & 3
    return np.array([2.0, np.nan, 1.0, 0.0])[codes.reshape(len(data), -1)[:, :n].T]


@pytest.fixture(scope="module")
def panel():
    return plink(FOLDER / "d.bed", 200)


def by_definition(x, method):
    p = np.nanmean(x, axis=0) / 2
    vary = (p > 0) & (p < 1)
    x, p = x[:, vary], p[vary]
    z = np.where(np.isnan(x), 0.0, x - 2 * p)
    h, m = 2 * p * (1 - p), z.shape[1]
    if method == "vanraden":
        return z @ z.T / h.sum()
    return sum(np.outer(c, c) / s for c, s in zip(z.T, scale(method, h, z), strict=True)) / m


def scale(method, h, z):
    return {"gemma-centered": np.ones(len(h)), "gemma-standardized": z.var(axis=0)}.get(method, h)


@pytest.mark.parametrize("method", METHODS)
def test_definitions_and_blocks(panel, method):
    x = panel[:30, 140:200]
    with pytest.warns(UserWarning, match="of 60 markers do not vary"):
        k = lj.grm(x, method=method)
    np.testing.assert_allclose(k, by_definition(x, method), rtol=0, atol=1e-13)
    assert k.attrs["used"] + k.attrs["monomorphic"] == 60
    for block in (1, 7):
        with pytest.warns(UserWarning, match="do not vary"):
            np.testing.assert_allclose(lj.grm(x, method=method, block=block), k, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("method", "first"), [("gemma-centered", 0), ("gemma-standardized", 8)])
def test_equals_gemma(panel, method, first):
    """To the ten digits that it prints, with its filters."""
    with gzip.open(FOLDER / "grm.txt.gz", "rt") as file:
        printed = np.loadtxt(file)[first : first + 8]
    with pytest.warns(UserWarning, match="1 of 1000 markers do not vary"):
        k = lj.grm(panel, method=method, maf=0.01, max_missing=0.05)
    assert {name: k.attrs[name] for name in ("used", "monomorphic", "filtered")} == {
        "used": 998,
        "monomorphic": 1,
        "filtered": 1,
    }
    np.testing.assert_allclose(k.to_numpy()[::25], printed, rtol=5e-10, atol=5e-10)


def test_plink(panel):
    pytest.importorskip("bed_reader")
    with pytest.warns(UserWarning, match="do not vary"):
        k, plain = lj.grm(FOLDER / "d.bed", block=300), lj.grm(panel)
    assert k.index[:3].tolist() == ["I0", "I1", "I2"]
    np.testing.assert_allclose(k, plain, rtol=0, atol=1e-12)


def test_plink_2(tmp_path):
    """Counts and dosages, a missing one, chromosomes for `loco`."""
    pgenlib = pytest.importorskip("pgenlib")
    x = np.random.default_rng(5).integers(0, 3, (12, 7)).astype(np.int8)
    x[3, 2] = -9
    path = tmp_path / "x.pgen"
    writer = pgenlib.PgenWriter(str(path).encode(), sample_ct=12, variant_ct=7, nonref_flags=False)
    for marker in x.T:
        writer.append_biallelic(np.ascontiguousarray(marker))
    writer.close()
    (tmp_path / "x.psam").write_text("#IID\tSEX\n" + "".join(f"i{k}\tNA\n" for k in range(12)))
    lines = "".join(f"{1 + k // 4}\t{k + 1}\tm{k}\tA\tC\n" for k in range(7))
    (tmp_path / "x.pvar").write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n" + lines)
    plain = np.where(x < 0, np.nan, x)
    ids = [f"i{k}" for k in range(12)]
    pd.testing.assert_frame_equal(lj.grm(path, block=3), lj.grm(plain, ids), atol=1e-12)
    data = pd.DataFrame({"id": ids, "y": np.random.default_rng(6).normal(size=12)})
    fit = lj.lmm("y ~ 1 + (1 | id)", data, kernels={"id": lj.grm(path) + 0.1 * np.eye(12)}).fit()
    names = [f"m{k}" for k in range(7)]
    plain = fit.scan(plain, names=names, loco=True, chromosome=[1] * 4 + [2] * 3)
    pd.testing.assert_frame_equal(fit.scan(path, loco=True), plain)
    (tmp_path / "x.psam").unlink()
    with pytest.raises(ValueError, match=r"'x.psam' is not beside 'x.pgen'"):
        lj.grm(path)


X = np.random.default_rng(3).integers(0, 3, (12, 25)).astype(float)
IDS = [f"i{k}" for k in range(12)]


@pytest.mark.parametrize(
    ("make", "labelled"),
    [
        (lambda path: X.astype(np.int8), False),
        (lambda path: X.tolist(), False),
        (lambda path: sparse.csr_array(X), False),
        (lambda path: pl.DataFrame(X), False),
        (lambda path: pd.DataFrame(X, index=IDS), True),
        (lambda path: pd.DataFrame(X, index=IDS).astype("Int8"), True),
        (lambda path: SimpleNamespace(X=X, obs_names=pd.Index(IDS), var_names=pd.RangeIndex(25)), True),
        (lambda path: (np.save(path / "x.npy", X), path / "x.npy")[1], False),
        (lambda path: np.ma.masked_array(X, False), False),
    ],
    ids=["int8", "list", "sparse", "polars", "frame", "Int8", "anndata", "npy", "masked"],
)
def test_kinds_of_genotypes(tmp_path, make, labelled):
    k = lj.grm(make(tmp_path))
    np.testing.assert_allclose(k, by_definition(X, "vanraden"), rtol=0, atol=1e-13)
    assert k.index.tolist() == (IDS if labelled else list(range(12)))
    assert k.columns.equals(k.index)


def test_blocks_are_all_that_is_read():
    lazy = Lazy(X)
    k = lj.grm(lazy, IDS, block=4)
    assert lazy.largest == 4
    np.testing.assert_allclose(k, lj.grm(X), rtol=0, atol=1e-13)


def test_what_is_said_of_genotypes():
    with pytest.warns(UserWarning, match="code inbred lines 0 and 2"):
        lj.grm(np.minimum(X, 1.0))
    empty = X.copy()
    empty[:, 3] = np.nan
    empty[:, 4] = 2.0
    with pytest.warns(UserWarning, match="2 of 25 markers do not vary"):
        k = lj.grm(empty)
    np.testing.assert_allclose(k, lj.grm(np.delete(X, [3, 4], axis=1)), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("markers", "options", "pieces"),
    [
        (X - 1, {}, ["marker 1 ", "genotype -1", "recode"]),
        (pd.DataFrame(X).add_prefix("rs").replace(1.0, 9.0), {}, ["marker 'rs", "genotype 9"]),
        (X, {"ids": range(25)}, ["25 ids", "transpose"]),
        (X, {"ids": [*IDS[:11], "i0"]}, ["'i0'", "several"]),
        (X, {"method": "van raden"}, ["unknown method", "vanraden"]),
        (X, {"maf": 0.7}, ["maf"]),
        (np.zeros((3, 4)), {}, ["no marker is left", "4 do not vary"]),
        (X[0], {}, ["individuals × markers"]),
        ("nowhere.bed", {}, ["no file"]),
        (np.full((3, 2), "A/G"), {}, ["not numeric"]),
    ],
)
def test_what_are_no_genotypes(markers, options, pieces):
    with pytest.raises(ValueError) as error:
        lj.grm(markers, **options)
    for piece in pieces:
        assert piece in str(error.value)
