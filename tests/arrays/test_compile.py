"""Programs: options of the compiler that a jaxlib does not know, and what is compiled ahead of its use."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmmjax.arrays import compile as compiling
from lmmjax.arrays import program


@pytest.fixture
def unknown_first(monkeypatch):
    """Every program's first options have one that no jaxlib knows."""
    monkeypatch.setattr(program, "_options", lambda level: [{"xla_no_such_option": level}, {}, None])
    monkeypatch.setattr(program, "_refused", set())


def test_an_unknown_option_is_left_out_by_every_thread(unknown_first):
    functions = [compiling.quick_jit(lambda x, k=k: x * (k + 1.0), plays=False) for k in range(3)]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda i: functions[i % 3](np.arange(4.0, dtype=np.float32)), range(24)))
    for i, value in enumerate(found):
        np.testing.assert_array_equal(value, np.arange(4.0) * (i % 3 + 1))
    assert program._refused == {0}


def test_an_option_that_was_refused_is_not_tried_again(unknown_first):
    compiling.quick_jit(lambda x: x + 1.0, plays=False)(np.ones(2, np.float32))
    traces = []
    compiling.quick_jit(lambda x: traces.append(x) or x * 2.0, plays=False)(np.ones(2, np.float32))
    assert len(traces) == 1


def test_other_errors_of_a_program_are_raised(unknown_first):
    def wrong(x):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        compiling.quick_jit(wrong, plays=False)(np.ones(2, np.float32))
    assert not program._refused


def test_what_large_data_ask_for_next_is_compiled_by_then(monkeypatch):
    monkeypatch.setenv("LMMJAX_CACHE", "0")
    monkeypatch.setattr(compiling, "PLAYED", 10)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    double = compiling.quick_jit(lambda x: 2.0 * x)
    before = compiling.counts["compiled"]
    double.ahead(np.ones(5))
    assert not any(thread.name == "lmmjax ahead" for thread in threading.enumerate())
    with jax.enable_x64(True):
        double.ahead(np.ones(20))
        [thread] = [thread for thread in threading.enumerate() if thread.name == "lmmjax ahead"]
        thread.join(60)
        with jax.no_tracing():
            assert (np.asarray(double(np.full(20, 3.0))) == 6.0).all()
    assert compiling.counts["compiled"] == before + 1


def test_arrays_of_numpy_beside_traced_ones_have_the_precision_of_jax():
    """Or what is made with their dtype would warn that there is no float64."""

    @compiling.eager_jit
    def scaled(x, y):
        return x + jnp.eye(3, dtype=y.dtype) @ y

    wide = np.arange(3.0)
    assert jax.make_jaxpr(lambda x: scaled(x, wide))(np.float32(1)).out_avals[0].dtype == np.float32
    with jax.enable_x64(True):
        assert jax.make_jaxpr(lambda x: scaled(x, wide))(1.0).out_avals[0].dtype == np.float64
