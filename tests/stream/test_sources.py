"""Every kind of responses reads as the same numbers, a range at a time; what is none is refused."""

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from stand_ins import Lazy

from lmmjax.stream import Source, open_source, tables

N, T = 12, 7


@pytest.fixture(scope="module")
def values():
    values = np.random.default_rng(0).normal(size=(N, T))
    values[3, 2] = np.nan
    return values


@pytest.fixture(scope="module")
def frame(values):
    # names of which some are the beginning of others, up to a point
    names = ["a", "a.b", "a.b.c", "ENSG01.5", "é", "x y", "z"]
    return pd.DataFrame(values, columns=names, index=[f"s{k}" for k in range(N)])


def with_id(frame):
    return frame.rename_axis("sample").reset_index()


def parquet(table, path, **options):
    pq.write_table(table, path, **options)
    return path


def npy(values, path):
    np.save(path, values)
    return str(path)


def text(frame, path, **options):
    frame.to_csv(path, **options)
    return path


KINDS = {
    "array": lambda f, p: open_source(f.to_numpy()),
    "npy": lambda f, p: open_source(npy(f.to_numpy(), p / "y.npy")),
    "lazy": lambda f, p: open_source(Lazy(f.to_numpy())),
    "pandas": lambda f, p: open_source(f),
    "pandas, nullable": lambda f, p: open_source(f.convert_dtypes()),
    "pandas, objects": lambda f, p: open_source(f.astype(object).where(f.notna(), None)),
    "pandas, id": lambda f, p: open_source(with_id(f)),
    "pandas, index": lambda f, p: open_source(f.assign(i=range(N)), index="i"),
    "polars": lambda f, p: open_source(pl.DataFrame({name: f[name].to_list() for name in f})),
    "polars, id": lambda f, p: open_source(pl.DataFrame({k: v.to_list() for k, v in with_id(f).items()})),
    "csv": lambda f, p: open_source(text(f, p / "y.csv", index=False)),
    "csv, id": lambda f, p: open_source(text(with_id(f), p / "y.csv.gz", index=False)),
    "csv, nameless id": lambda f, p: open_source(text(f.set_axis(range(N)), p / "y.csv")),
    "tsv": lambda f, p: open_source(text(f, p / "y.TSV", index=False, sep="\t")),
    "csv, index": lambda f, p: open_source(text(f.assign(i=range(N)), p / "y.csv", index=False), index="i"),
    "tsv, rows": lambda f, p: open_source(text(f.T, p / "y.tsv", sep="\t"), rows=True),
    "anndata": lambda f, p: open_source(anndata(f, f.to_numpy())),
    "anndata, layer": lambda f, p: open_source(anndata(f, None, log=f.to_numpy()), layer="log"),
    "anndata, sparse": lambda f, p: open_source(anndata(f, sparse.csr_matrix(f.to_numpy()))),
    "parquet by pandas": lambda f, p: open_source(by_pandas(f, p)),
    "parquet, id": lambda f, p: open_source(parquet(pa.Table.from_pandas(with_id(f)), p / "y.parquet")),
    "parquet, index": lambda f, p: open_source(
        parquet(pa.Table.from_pandas(f.assign(i=range(N))), p / "y.parquet"), index="i"
    ),
    "parquet, row groups": lambda f, p: open_source(
        parquet(pa.table({name: f[name].to_numpy() for name in f}), p / "y.pq", row_group_size=5)
    ),
    "parquet, nulls": lambda f, p: open_source(
        parquet(pa.table({name: pa.array(f[name], from_pandas=True) for name in f}), p / "y.parquet")
    ),
}


# --- stores on disk --------------------------------------------------------------------------------------


def hdf5(values, path, **arrays):
    """An HDF5 file with the array "y" and others."""
    with pytest.importorskip("h5py").File(path, "w") as file:
        for name, array in {"y": values, **arrays}.items():
            file[name] = array
    return path


def zarr_group(values, path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(path), mode="w")
    group["deep/y"], group["labels"] = values, np.arange(N)
    return path


def zarr_zip(values, path):
    zarr = pytest.importorskip("zarr")
    store = zarr.storage.ZipStore(str(path), mode="w")
    zarr.save_array(store, values)
    store.close()
    return path


def anndata_file(frame, path, x=None):
    """An AnnData file with X, or `x`, and the layers "csc" and "csr", which hold the values."""
    module = pytest.importorskip("anndata")
    with warnings.catch_warnings():
        # of formats that will be the default, and of names
        warnings.simplefilter("ignore")
        data = module.AnnData(
            frame.to_numpy() if x is None else x,
            obs=pd.DataFrame(index=frame.index.astype(object)),
            var=pd.DataFrame(index=frame.columns.astype(object)),
        )
        data.layers["csc"] = sparse.csc_matrix(frame.to_numpy())
        data.layers["csr"] = sparse.csr_matrix(frame.to_numpy())
        pytest.importorskip("zarr" if path.suffix == ".zarr" else "h5py")
        data.write_zarr(path) if path.suffix == ".zarr" else data.write_h5ad(path)
    return path


def backed(frame, path):
    return pytest.importorskip("anndata").read_h5ad(anndata_file(frame, path), backed="r")


STORES = {
    "h5, the only array": lambda f, p: open_source(hdf5(f.to_numpy(), p / "y.h5", a=np.arange(N))),
    "h5, one of several": lambda f, p: open_source(
        f"{hdf5(f.to_numpy(), p / 'y.hdf5', **{'group/z': np.eye(N)})}::y"
    ),
    "h5py array": lambda f, p: open_source(
        pytest.importorskip("h5py").File(hdf5(f.to_numpy(), p / "y.h5"), "r")["y"]
    ),
    "zarr, the only array": lambda f, p: open_source(zarr_group(f.to_numpy(), p / "y.zarr")),
    "zarr, named": lambda f, p: open_source(f"{zarr_group(f.to_numpy(), p / 'y.zarr')}::/deep/y"),
    "zarr, zipped": lambda f, p: open_source(zarr_zip(f.to_numpy(), p / "y.zarr.zip")),
    "h5ad": lambda f, p: open_source(anndata_file(f, p / "y.h5ad")),
    "h5ad, sparse": lambda f, p: open_source(anndata_file(f, p / "y.h5ad", sparse.csr_matrix(f.to_numpy()))),
    "h5ad, layer": lambda f, p: open_source(anndata_file(f, p / "y.h5ad", np.zeros((N, T))), layer="csc"),
    "h5ad, layer in the path": lambda f, p: open_source(f"{anndata_file(f, p / 'y.h5ad')}::csr"),
    "h5ad, backed": lambda f, p: open_source(backed(f, p / "y.h5ad")),
    "zarr of AnnData": lambda f, p: open_source(anndata_file(f, p / "y.zarr")),
    "zarr of AnnData, layer": lambda f, p: open_source(anndata_file(f, p / "y.zarr"), layer="csc"),
}


@pytest.mark.parametrize("kind", STORES)
def test_every_store_reads_the_same_numbers(kind, frame, tmp_path):
    source = STORES[kind](frame, tmp_path)
    assert list(source.names) == (list(frame) if "h5ad" in kind or "AnnData" in kind else list(range(T)))
    assert (source.n_rows, source.n_responses) == (N, T)
    for start, stop in ((0, T), (0, 1), (2, 5)):
        part = source.read(start, stop)
        assert part.dtype == np.float64
        np.testing.assert_array_equal(part, frame.to_numpy()[:, start:stop])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda f, p: open_source(hdf5(f, p / "y.h5", z=np.eye(2))),
            "several arrays of .*y.h5::ARRAY': 'y', 'z'",
        ),
        (lambda f, p: open_source(f"{hdf5(f, p / 'y.h5')}::z"), "no array 'z' of two dimensions; .*: 'y'"),
        (lambda f, p: open_source(hdf5(np.ones(3), p / "y.h5")), "no array of two dimensions"),
        (lambda f, p: open_source(hdf5(f, p / "y.h5"), index="a"), "index='a' means nothing"),
        (lambda f, p: open_source(hdf5(f, p / "y.h5"), rows=True), "rows=True is for Parquet and text files"),
        (lambda f, p: open_source(broken(p / "y.h5", "h5py")), "y.h5 is not an HDF5 file"),
        (lambda f, p: open_source(broken(p / "y.zip", "zarr")), "y.zip holds no zarr array or group"),
        (lambda f, p: open_source(p, layer="a"), "files of kind without ending are not known"),
        (lambda f, p: open_source(f"{zarr_zip(f.to_numpy(), p / 'y.zip')}::a"), "is an array and has none"),
        (lambda f, p: open_source(anndata_file(f, p / "y.h5ad"), layer="a"), "no layer 'a'; .* 'csc', 'csr'"),
        (lambda f, p: open_source(anndata_file(f, p / "y.h5ad"), index="a"), "index='a' means nothing"),
        (lambda f, p: open_source(f"{anndata_file(f, p / 'y.h5ad')}::csc", layer="csr"), "layer='csr' means"),
    ],
)
def test_a_store_without_the_array_is_refused(make, message, frame, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(frame, tmp_path)


def broken(path, module):
    pytest.importorskip(module)
    path.write_bytes(b"no store at all")
    return path


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("y.h5", "h5py", "hdf5"), ("y.h5ad", "h5py", "hdf5"), ("y.zarr", "zarr", "zarr")],
)
def test_a_missing_package_is_named(name, module, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / name)
    (tmp_path / name).touch()
    with pytest.raises(ImportError, match=rf"need {module}: pip install 'lmmjax\[{extra}\]'"):
        open_source(tmp_path / name)


def by_pandas(frame, folder):
    frame.to_parquet(folder / "y.parquet")
    return folder / "y.parquet"


def anndata(frame, x, **layers):
    """What an AnnData object has of what is used: rows are obs, columns are var."""
    return SimpleNamespace(X=x, layers=layers, obs=None, var_names=frame.columns)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reads_the_same_numbers(kind, frame, tmp_path):
    source = KINDS[kind](frame, tmp_path)
    unnamed = kind in ("array", "npy", "lazy")
    assert list(source.names) == (list(range(T)) if unnamed else list(frame))
    assert (source.n_rows, source.n_responses) == (N, T)
    for start, stop in ((0, T), (0, 1), (1, 3), (2, 5), (6, 7)):
        part = source.read(start, stop)
        assert part.dtype == np.float64
        np.testing.assert_array_equal(part, frame.to_numpy()[:, start:stop])


def test_a_source_is_a_source(values):
    source = Source(pd.RangeIndex(T), N, lambda start, stop: values[:, start:stop])
    assert open_source(source) is source


def test_other_types_of_numbers_become_floats(tmp_path):
    table = pa.table({"i": [1, None], "b": [True, None], "h": pa.array([1, 2], "int8"), "n": [None, None]})
    expected = [[1, 1, 1, np.nan], [np.nan, np.nan, 2, np.nan]]
    np.testing.assert_array_equal(open_source(parquet(table, tmp_path / "y.parquet")).read(0, 4), expected)
    np.testing.assert_array_equal(open_source(np.eye(2, dtype=bool)).read(0, 2), np.eye(2))


def test_only_the_range_is_read(values):
    array = Lazy(values)
    source = open_source(array)
    assert array.largest == 0
    source.read(2, 5)
    assert array.largest == 3


def test_npy_is_mapped_not_read(values, tmp_path, monkeypatch):
    modes, load = [], np.lib.format.open_memmap
    monkeypatch.setattr(
        np.lib.format, "open_memmap", lambda *a, **k: modes.append(k["mode"]) or load(*a, **k)
    )
    open_source(npy(values, tmp_path / "y.npy"))
    assert modes == ["r"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f, p: open_source([1, 2]), "responses of type list are not known: pass an n × T array"),
        (lambda f, p: open_source(p / "y.xlsx"), "files of kind .xlsx are not known"),
        (
            lambda f, p: open_source(text(f.set_axis(list("abcdefa"), axis=1), p / "y.csv", index=False)),
            "y.csv has several columns 'a'",
        ),
        (lambda f, p: open_source(text(f.assign(q="w"), p / "y.csv")), "column 'q' is not numeric"),
        (lambda f, p: open_source(np.ones(3)), r"shape \(3,\): pass n × T"),
        (lambda f, p: open_source(np.ones((3, 0))), "there are no responses"),
        (lambda f, p: open_source(np.array([["a"]])), "not numeric"),
        (lambda f, p: open_source(f.assign(q="w")), "column 'q' is not numeric"),
        (lambda f, p: open_source(f.assign(q="1.5")), "column 'q' is not numeric"),
        (lambda f, p: open_source(with_id(f).assign(q="w")), "column 'q' is not numeric"),
        (lambda f, p: open_source(f, index="sampel"), "unknown column 'sampel' as index"),
        (lambda f, p: open_source(f.to_numpy(), index="a"), "index='a' means nothing"),
        (lambda f, p: open_source(f, layer="log"), "layer='log' means nothing"),
        (lambda f, p: open_source(anndata(f, None, log=f), layer="lag"), "no layer 'lag'; .* 'log'"),
        (lambda f, p: open_source(f.set_axis(["a"] * T, axis=1)), "two responses are called 'a'"),
        (
            lambda f, p: open_source(parquet(pa.Table.from_pandas(f.assign(q="w")), p / "y.parquet")),
            "column 'q' is not numeric",
        ),
        (lambda f, p: open_source(npy(np.array([{}]), p / "y.npy")), "y.npy cannot be read"),
    ],
)
def test_what_is_no_source_is_refused(make, message, frame, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(frame, tmp_path)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_rows_of_a_parquet_file_in_any_order(size, tmp_path):
    """Batches of 4,096 rows lie across row groups and the ranges asked for."""
    values = np.random.default_rng(0).normal(size=(10_000, 2))
    table = pa.table({"a": values[:, 0], "b": values[:, 1], "gene": [f"g{k}" for k in range(10_000)]})
    path = parquet(table, tmp_path / "y.parquet", row_group_size=max(size * 60, 100))
    source = open_source(path, index="gene", rows=True)
    assert (source.n_rows, source.n_responses, source.names[-1]) == (2, 10_000, "g9999")
    for start, stop in ((0, 1), (0, 5000), (5000, 9999), (9999, 10_000), (4095, 4097), (7000, 7001)):
        np.testing.assert_array_equal(source.read(start, stop), values[start:stop].T)
    source = open_source(parquet(table.drop(["gene"]), tmp_path / "y.parquet"), rows=True)
    assert list(source.names[:2]) == [0, 1]
    with pytest.raises(ValueError, match="transpose the responses"):
        open_source(values, rows=True)


@pytest.mark.parametrize("group", [10_000, 400_000])
def test_rows_already_read_are_not_kept(group, tmp_path, monkeypatch):
    """A file that is read through holds no more than a few row groups or pages of it."""
    table = pa.table({f"s{k}": np.random.default_rng(k).normal(size=400_000) for k in range(10)})
    path = parquet(table, tmp_path / "y.parquet", row_group_size=group, use_dictionary=False)
    size = table.nbytes
    del table
    monkeypatch.setattr(tables, "BUFFERS", 1)
    before = pa.total_allocated_bytes()
    source = open_source(path, rows=True)
    held = []
    for start in range(0, 400_000, 10_000):
        source.read(start, start + 10_000)
        held.append(pa.total_allocated_bytes() - before)
    assert max(held) < 0.4 * size


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "y.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match="not a Parquet file"):
        open_source(tmp_path / "y.parquet")
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "absent.parquet")


def test_codes_that_would_be_one_number_are_refused(tmp_path):
    path = tmp_path / "y.csv"
    path.write_text("g,y\n01,1\n1,2\n002,3\n")
    with pytest.raises(ValueError, match="column 'g' has '01' and '1', which are one number"):
        open_source(path)
    # alike they are numbers, with zeros before them or without
    path.write_text("g,y\n01,1\n02,0.5\n0,3\n")
    assert list(open_source(path).names) == ["g", "y"]
