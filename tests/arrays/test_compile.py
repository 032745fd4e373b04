"""Programs run where a jaxlib does not know an option of the compiler."""

from concurrent.futures import ThreadPoolExecutor

import jax
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
