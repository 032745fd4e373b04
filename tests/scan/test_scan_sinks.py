"""Scans that are written in parts: the rows of the table in memory, whoever makes them, and after a kill."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.scan import Above, Best, Top
from lmmjax.stream import open_source

pytest.importorskip("pyarrow")
N, M, CHUNK = 30, 11, 3
RNG = np.random.default_rng(8)
IDS = [f"i{k:02d}" for k in range(N)]
G = RNG.integers(0, 3, (N, M)).astype(float)
MARKERS = pd.DataFrame(G, index=IDS, columns=[f"m{k}" for k in range(M)])
HALF = RNG.normal(size=(N, 40))
DATA = pd.DataFrame({"id": IDS, "x": RNG.normal(size=N), "w": RNG.normal(size=N)})
Y = pd.DataFrame(RNG.normal(size=(N, 3)) + G[:, :1], columns=["a", "b", "c"])
Y.iloc[0, 1] = np.nan
VISITS = pd.DataFrame({"id": np.repeat(IDS, 2), "t": np.tile([0.0, 1.0], N)})
VISITS["y"] = RNG.normal(size=2 * N) + np.repeat(Y["a"].to_numpy(), 2)


@pytest.fixture(scope="module")
def fits():
    kernels = {"id": lj.Kernel(HALF @ HALF.T / 40, IDS)}
    return lj.lmm("~ x + w + (1 | id)", DATA, kernels=kernels).fit_batch(Y)


@pytest.fixture(scope="module")
def visits():
    return lj.lmm("y ~ t + (1 | id)", VISITS).fit()


CASES = [
    {},
    {"keep": Top(2)},
    {"keep": [Top(1), Above(lod=0.3)], "test": "lrt"},
    {"keep": Best(), "interaction": ["x", "w"]},
    {"keep": Above(p=0.2), "ratio": "refit", "test": "wald"},
]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_parts_have_the_rows_of_the_table(fits, tmp_path, options):
    """In one process and by workers, to the byte."""
    done = fits.scan(MARKERS, sink=tmp_path / "one.parquet", chunk=CHUNK, **options)
    pd.testing.assert_frame_equal(done.read(), fits.scan(MARKERS, **options), rtol=1e-9)
    assert (done.n_markers, done.n_responses, done.n_rows) == (M, 3, len(done.read()))
    with ThreadPoolExecutor(2) as pool:
        fits.scan(MARKERS, sink=tmp_path / "two.parquet", chunk=CHUNK, executor=pool, **options)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


class Dying:
    """An executor whose workers die, at every second call before they made a part and at others after."""

    def __init__(self, most):
        self.calls, self.most = 0, most

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future, self.calls = Future(), self.calls + 1
        if self.calls % 2:
            function(*arguments)
        if self.calls <= self.most:
            future.set_exception(OSError("killed"))
        else:
            future.set_result(function(*arguments))
        return future


def test_workers_that_die_lose_and_double_nothing(visits, tmp_path):
    asked, dying = {"interaction": "t", "test": "wald"}, Dying(5)
    whole = visits.scan(MARKERS, **asked)
    done = visits.scan(MARKERS, sink=tmp_path / "parts", chunk=CHUNK, executor=dying, **asked)
    pd.testing.assert_frame_equal(done.read(), whole, rtol=1e-9)
    assert dying.calls > 4
    # a folder of parts and what says of which run, nothing that workers read
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == ["_manifest.json", *(f"part-{k:06d}.parquet" for k in range(4))]


def test_dask(visits, tmp_path):
    """Two workers, markers in memory and from a file."""
    distributed = pytest.importorskip("distributed")
    np.save(tmp_path / "g.npy", G)
    asked = {"ids": IDS, "chunk": CHUNK, "test": "wald"}
    one = visits.scan(G, sink=tmp_path / "one.parquet", **asked)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        for name, given in (("a.parquet", G), ("b.parquet", tmp_path / "g.npy")):
            done = visits.scan(given, sink=tmp_path / name, executor=client, **asked)
            assert done.path.read_bytes() == one.path.read_bytes()


def test_a_run_goes_on_where_it_was_left(visits, tmp_path):
    """A part that is lost or damaged is made again, with the same bytes; those that are there stay."""
    first = visits.scan(MARKERS, sink=tmp_path / "parts", chunk=CHUNK)
    made = {path.name: path.read_bytes() for path in first.path.iterdir()}
    (first.path / "part-000001.parquet").unlink()
    seen = []
    again = visits.scan(
        MARKERS, sink=first.path, resume=True, progress=lambda done, total: seen.append((done, total))
    )
    assert {path.name: path.read_bytes() for path in first.path.iterdir()} == made
    assert (again.n_resumed, seen) == (8, [(8, M), (M, M)])
    for change, message in (
        ({"markers": MARKERS + 1.0}, "differs in the values of the first marker"),
        ({"markers": MARKERS.assign(m4=1.0)}, "differs in the values of the markers"),
        ({"ratio": "refit"}, "differs in the ratio: 'null' there, 'refit' here"),
        ({"keep": Best()}, "differs in the keep"),
        ({"maf": 0.1}, "differs in the maf"),
        ({"resume": False}, "resume it, or delete the folder"),
    ):
        with pytest.raises(ValueError, match=message):
            visits.scan(**{"markers": MARKERS, "sink": first.path, "resume": True} | change)
    with pytest.raises(ValueError, match="differs in the variance parameters"):
        visits.model.fit(max_iter=1).scan(MARKERS, sink=first.path, resume=True)


@pytest.mark.skipif(importlib.util.find_spec("zarr") is None, reason="needs zarr")
def test_markers_of_any_kind(visits, tmp_path):
    """Maps of files, stores, Parquet by columns and by rows, functions of a slice."""
    import zarr

    whole = visits.scan(MARKERS)
    np.save(tmp_path / "g.npy", G)
    MARKERS.to_parquet(tmp_path / "g.parquet")
    turned = MARKERS.T.rename_axis("marker").reset_index()
    turned.to_parquet(tmp_path / "rows.parquet", index=False)
    zarr.save(str(tmp_path / "g.zarr"), G)
    rows = open_source(tmp_path / "rows.parquet", index="marker", rows=True)
    labels = {"ids": IDS, "names": MARKERS.columns}
    for given, own in (
        (np.load(tmp_path / "g.npy", mmap_mode="r"), labels),
        (tmp_path / "g.npy", labels),
        (str(tmp_path / "g.parquet"), {}),
        (rows, {}),
        (tmp_path / "g.zarr", labels),
        (lambda start, stop: G[:, start:stop], labels),
    ):
        pd.testing.assert_frame_equal(visits.scan(given, **own), whole)
    with ThreadPoolExecutor(1) as pool:
        for k, (given, own) in enumerate(((tmp_path / "g.npy", labels), (whole_slice, labels))):
            done = visits.scan(given, sink=tmp_path / f"{k}.parquet", executor=pool, **own)
            pd.testing.assert_frame_equal(done.read(), whole, rtol=1e-9)
    with pytest.raises(ValueError, match=r"pass names=, a name for each marker"):
        visits.scan(whole_slice)
    with pytest.raises(ValueError, match=r"returned shape \(30, 11\): return individuals"):
        visits.scan(lambda start, stop: G, **labels)


def whole_slice(start, stop):
    """Markers of a function that pickles."""
    return G[:, start:stop]


def test_covariates_of_their_own(tmp_path):
    """Shards that end within a covariate, from memory and files, by workers; columns go by their names."""
    fits = lj.lmm("~ t + (1 | id)", VISITS).fit_batch(
        pd.DataFrame(RNG.normal(size=(2 * N, 3)), columns=list("abc"))
    )
    one = pd.DataFrame(RNG.normal(size=(2 * N, 3)), columns=["c", "a", "b"])
    one.iloc[3, 1] = np.nan
    one.to_parquet(tmp_path / "one.parquet")
    two = RNG.normal(size=(2 * N, 3))
    np.save(tmp_path / "two.npy", two)
    asked = {"interaction": "t", "test": "lrt"}
    whole = fits.scan(own={"one": one, "two": two}, **asked)
    files = {"one": tmp_path / "one.parquet", "two": str(tmp_path / "two.npy")}
    pd.testing.assert_frame_equal(fits.scan(own=files, **asked), whole)
    done = fits.scan(own={"one": one, "two": two}, sink=tmp_path / "a.parquet", chunk=2, **asked)
    pd.testing.assert_frame_equal(done.read(), whole, rtol=1e-9)
    assert (done.n_markers, done.n_responses, done.n_rows) == (2, 3, 12)
    with ThreadPoolExecutor(1) as pool:
        for name, own in (("b", {"one": one, "two": two}), ("c", files)):
            fits.scan(own=own, sink=tmp_path / f"{name}.parquet", chunk=2, executor=pool, **asked)
            assert (tmp_path / f"{name}.parquet").read_bytes() == done.path.read_bytes()
    parts = fits.scan(own=files, sink=tmp_path / "parts", chunk=2, **asked).path
    (parts / "part-000001.parquet").unlink()
    again = fits.scan(own=files, sink=parts, resume=True, **asked)
    assert (again.n_resumed, again.n_rows) == (4, 12)
    with pytest.raises(ValueError, match="differs in the values of the covariates"):
        fits.scan(own={"one": one + 1.0, "two": two}, sink=parts, resume=True, **asked)
    for given in (files["one"], open_source(files["one"])):
        with pytest.raises(ValueError, match="is the input"):
            fits.scan(own=given, sink=tmp_path / "one.parquet")
    with pytest.raises(ValueError, match="ids, maf: for markers; own= has a row"):
        fits.scan(own=one, ids=IDS, maf=0.1)
    with pytest.raises(ValueError, match="own: 'own' has an infinite value for response 'a'"):
        fits.scan(own=one.replace(one.loc[0, "a"], np.inf))


def test_markers_without_results_are_named(visits, tmp_path):
    """By a warning and in the file, whoever made the parts; in memory likewise."""
    markers = MARKERS.assign(flat=2.0, gone=np.nan)
    said = r"2 of 13 markers have no results: flat \(constant\), gone \(missing in all individuals\)"
    with pytest.warns(lj.EstimabilityWarning, match=said):
        visits.scan(markers, test="wald")
    for k, sink in enumerate(("out.parquet", "parts", "parts")):
        with pytest.warns(lj.EstimabilityWarning, match=said):
            done = visits.scan(markers, sink=tmp_path / sink, chunk=CHUNK, test="wald", resume=k == 2)
        assert done.without.to_dict() == {"flat": "constant", "gone": "missing in all individuals"}
    assert visits.scan(0.0 * MARKERS, sink=tmp_path / "none.parquet", maf=0.1).n_rows == 0


def test_what_is_no_sink(visits, tmp_path):
    with pytest.raises(ValueError, match="pass sink="):
        visits.scan(MARKERS, resume=True)
    with pytest.raises(ValueError, match="keep=Top is of all markers together: name a file"):
        visits.scan(MARKERS, sink=tmp_path / "parts", keep=Top(1))
    MARKERS.to_parquet(tmp_path / "g.parquet")
    with pytest.raises(ValueError, match="is the input"):
        visits.scan(tmp_path / "g.parquet", sink=tmp_path / "g.parquet")
    with pytest.raises(ValueError, match="is no Parquet file: end its name in"):
        visits.scan(MARKERS, sink=tmp_path / "scan.csv")
    with pytest.raises(ValueError, match="there are no markers"):
        visits.scan(MARKERS.iloc[:, :0], sink=tmp_path / "parts")
    with pytest.raises(ValueError, match="has no method submit"):
        visits.scan(MARKERS, sink=tmp_path / "parts", executor=3)
    assert [path.name for path in tmp_path.iterdir()] == ["g.parquet"]
