"""Several processes that fit one source together write what one process writes."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import lmmjax as lj
from lmmjax.stream import ProcessError, stream_batch
from lmmjax.stream.processes import Processes, processes

N, T, CHUNK = 48, 700, 100
FORMULA = "~ x + (1 | g)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A design and responses on disk, and the results of one process."""
    folder = tmp_path_factory.mktemp("shared")
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"x": rng.normal(size=N), "g": np.repeat(np.arange(8), 6)})
    data.to_csv(folder / "design.csv", index=False)
    np.save(folder / "y.npy", rng.normal(size=(N, T)) + rng.normal(size=(8, T))[data["g"]])
    model = lj.lmm(FORMULA, pd.read_csv(folder / "design.csv"))
    stream_batch(model.data, folder / "y.npy", folder / "one.parquet", chunk=CHUNK)
    return folder


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(folder, port, k, *options, y="y.npy", code=None):
    """Process k of two; with `code`, which is run before the command, or else the command itself."""
    command = ["batch", FORMULA, "design.csv", y, "-o", "out.parquet", "--chunk", str(CHUNK), "--distributed"]
    command += ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id", str(k)]
    run = [sys.executable, "-c", f"{code or ''}\nfrom lmmjax.cli import main; main()", *command, *options]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        run, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(started):
    try:
        return [(*process.communicate(timeout=120), process.returncode) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def same(folder):
    """Whether the joined results are those of one process."""
    one, two = (pd.read_parquet(folder / name) for name in ("one.parquet", "out.parquet"))
    pd.testing.assert_frame_equal(two, one, rtol=1e-12, atol=1e-12)
    assert not (folder / "out.parquet.parts").exists()


SLOW = """
import time
from lmmjax.stream import parts
real = parts.write_part
def slow(*arguments):
    real(*arguments)
    time.sleep(0.5)
parts.write_part = slow
"""


def taker(path):
    """Which of two processes wrote a part."""
    return int(path.stem[-1]) % 2


def test_killed_then_fitted_by_two(folder):
    """Two processes share the chunks; killed, what they leave is completed by two."""
    parts, port = folder / "out.parquet.parts", free_port()
    started = [start(folder, port, k, code=SLOW) for k in range(2)]
    end = time.monotonic() + 120
    # process k takes every second chunk; one may be far ahead of the other
    while len(ready := sorted(parts.glob("*.parquet"))) < 3 or len({taker(path) for path in ready}) < 2:
        assert time.monotonic() < end
        assert all(process.poll() is None for process in started), [p.communicate() for p in started]
        time.sleep(0.01)
    for process in started:
        process.send_signal(signal.SIGKILL)
    finish(started)
    ready = sorted(parts.glob("*.parquet"))
    done = sum(pq.read_metadata(path).num_rows for path in ready)
    assert 300 <= done < T
    assert not (folder / "out.parquet").exists()

    port, left = free_port(), 7 - len(ready)
    (out0, _, code0), (out1, err1, code1) = finish([start(folder, port, k, "--resume") for k in range(2)])
    assert (code0, code1) == (0, 0), err1
    same(folder)
    assert out1 == ""
    own = 100 * ((left + 1) // 2)
    assert f"{T - done} responses fitted" in out0
    assert f"({own} of them by process 0)" in out0
    assert f"({done} were done before)" in out0
    assert f"process 1 fitted {T - done - own} responses" in err1


def test_one_that_is_refused_stops_the_other(folder):
    np.save(folder / "other.npy", np.load(folder / "y.npy") + 1.0)
    port = free_port()
    for _, err, code in finish(
        [start(folder, port, k, "--force", y=y) for k, y in enumerate(("y.npy", "other.npy"))]
    ):
        assert code == 2, err
        assert "process 1 streams something else, it differs in the values of the first response" in err


# --- without processes -----------------------------------------------------------------------------------


class Store:
    """The coordinator's store, for two processes in one."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.values
        self.values[key] = value

    def key_value_try_get(self, key):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError(f"NOT_FOUND: {key}")
        return self.values[key]

    def blocking_key_value_get(self, key, milliseconds):
        return self.key_value_try_get(key)


@pytest.fixture
def two():
    """Two `Processes` of one call."""
    store = Store()
    made = [Processes(k, 2, store) for k in range(2)]
    made[1]._prefix = made[0]._prefix
    return made


def test_values_go_to_all_in_order(two):
    two[1]._client.key_value_set(f"{two[1]._prefix}/0/1", '{"a": [1]}')
    assert two[0].exchange("first") == ["first", {"a": [1]}]
    two[1]._client.key_value_set(f"{two[1]._prefix}/1/1", "null")
    assert two[0].exchange(2.5) == [2.5, None]


def test_a_failure_reaches_the_others(two):
    two[0].check()
    with pytest.raises(KeyError), two[1]:
        raise KeyError("what happened")
    for wait in (two[0].check, lambda: two[0].exchange(1)):
        with pytest.raises(ProcessError, match="process 1 stopped: 'what happened'"):
            wait()
    # the first failure is the one that is reported
    with pytest.raises(ProcessError), two[0]:
        two[0].check()
    with pytest.raises(ProcessError, match="process 1"):
        two[1].check()


def test_one_that_makes_no_call_is_named(two):
    with pytest.raises(ProcessError, match="process 1 sent nothing: all processes must make the same calls"):
        two[0].exchange(1, patience=0.0)


def test_other_errors_of_the_store_are_raised(two, monkeypatch):
    def refuse(key, milliseconds):
        raise jax.errors.JaxRuntimeError("UNAVAILABLE: connection lost")

    monkeypatch.setattr(two[0]._client, "blocking_key_value_get", refuse)
    with pytest.raises(jax.errors.JaxRuntimeError, match="connection lost"):
        two[0].exchange(1)


def test_one_process_is_alone():
    alone = processes()
    assert (alone.index, alone.count) == (0, 1)
    with alone:
        assert alone.exchange({"a": 1}) == [{"a": 1}]
        alone.check()
