"""A streamed batch on the workers of an executor: the bytes of one process, whatever happens to them."""

import multiprocessing
import threading
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.stream import ShardError
from lmmjax.stream.executors import RETRIES, completed, require_executor

N, T, CHUNK = 24, 20, 5
RNG = np.random.default_rng(2)
DATA = pd.DataFrame({"x": RNG.normal(size=N), "g": np.repeat(np.arange(6), 4)})
VALUES = RNG.normal(size=(N, T)) + RNG.normal(size=(6, T))[DATA["g"]]


@pytest.fixture(scope="module")
def model():
    return lj.lmm("~ x + (1 | g)", DATA)


@pytest.fixture(scope="module")
def one(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "one.parquet"
    model.stream_batch(VALUES, path, chunk=CHUNK)
    return path.read_bytes()


class Unlucky:
    """An executor that calls at once; `fails` says of the call numbers which end without a result."""

    def __init__(self, fails=lambda call: None, after=False):
        self.fails, self.after, self.calls = fails, after, []

    def submit(self, function, *arguments):
        future, error = Future(), self.fails(len(self.calls))
        self.calls.append(arguments[-1])
        try:
            if error is None or self.after:
                result = function(*arguments)
            if error is not None:
                raise error
            future.set_result(result)
        except Exception as caught:
            future.set_exception(caught)
        return future


def test_dask(model, one, tmp_path):
    """Two workers of Dask; sources in memory and as a path."""
    distributed = pytest.importorskip("distributed")
    np.save(tmp_path / "y.npy", VALUES)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        for name, source in (("a", VALUES), ("b", tmp_path / "y.npy")):
            seen = []
            done = model.stream_batch(
                source,
                tmp_path / name,
                chunk=CHUNK,
                executor=client,
                progress=lambda done, total, seen=seen: seen.append(done),
            )
            assert (tmp_path / name).read_bytes() == one
            assert (done.n_fitted, done.n_resumed) == (T, 0)
            assert seen == [0, 5, 10, 15, 20]
            (tmp_path / name).unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["y.npy"]


@pytest.mark.parametrize("after", [False, True])
def test_workers_that_die(model, one, tmp_path, after):
    """Before they made a part or after; every second call at first."""
    lost = Unlucky(lambda call: OSError("worker died") if call < 6 and call % 2 == 0 else None, after)
    model.stream_batch(VALUES, tmp_path / "out", chunk=CHUNK, executor=lost)
    assert (tmp_path / "out").read_bytes() == one
    assert len(lost.calls) > T // CHUNK


@pytest.mark.parametrize("error", [OSError("no space"), BrokenExecutor("killed")])
def test_what_was_made_is_kept(model, one, tmp_path, error):
    """A run that no worker can end is resumed, by one process or by others."""
    bad = Unlucky(lambda call: error if call >= 2 else None)
    with pytest.raises(ShardError, match="no space" if isinstance(error, OSError) else "workers are gone"):
        model.stream_batch(VALUES, tmp_path / "out", chunk=CHUNK, executor=bad)
    assert len(bad.calls) == (T // CHUNK + 2 * RETRIES if isinstance(error, OSError) else T // CHUNK)
    with ThreadPoolExecutor(2) as pool:
        done = model.stream_batch(VALUES, tmp_path / "out", chunk=CHUNK, resume=True, executor=pool)
    assert (done.n_resumed, done.n_fitted) == (2 * CHUNK, 2 * CHUNK)
    assert (tmp_path / "out").read_bytes() == one


def test_two_drivers(model, one, tmp_path):
    """The second is told so, and the first ends."""
    begun, go = threading.Event(), threading.Event()

    def wait(done, total):
        begun.set()
        assert go.wait(60)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(
            model.stream_batch, VALUES, tmp_path / "out", chunk=CHUNK, executor=pool, progress=wait
        )
        assert begun.wait(60)
        with pytest.raises(ValueError, match="wait for it"):
            model.stream_batch(VALUES, tmp_path / "out", chunk=CHUNK, executor=pool)
        go.set()
        assert first.result().n_fitted == T
    assert (tmp_path / "out").read_bytes() == one


def test_errors_of_input_come_at_once():
    bad = Unlucky(lambda call: ValueError("the part differs") if call == 1 else None)
    with pytest.raises(ValueError, match="the part differs"):
        list(completed(bad, abs, (), range(3)))
    assert bad.calls == [0, 1, 2]


def test_what_is_no_executor(model, tmp_path):
    with pytest.raises(ValueError, match="type int has no method submit: pass a Client of"):
        model.stream_batch(VALUES, tmp_path / "out", executor=4)
    with pytest.raises(ValueError, match="is an asynchronous client"):
        require_executor(SimpleNamespace(submit=print, asynchronous=True))
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    with pytest.raises(ValueError, match="forks its workers, in which JAX can hang"):
        require_executor(pool)
    pool.shutdown()
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    require_executor(pool)
    pool.shutdown()
    assert not list(tmp_path.iterdir())
