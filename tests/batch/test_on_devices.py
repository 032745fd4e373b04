"""The way of devices, taken on a CPU, gives the fits of the host's way, and keeps what it works on there.

`pytest --as-on-devices` takes it in any other test.
"""

import dataclasses
import os
import sys
from functools import cache

import jax
import numpy as np
import pandas as pd
import pytest
from device_watch import refuse_others, watched
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.arrays import processors
from lmmjax.arrays.processors import matmul_alone
from lmmjax.batch.device import descent, forced, placed, where
from lmmjax.batch.device.lanes import varying
from lmmjax.batch.device.own_designs import own_rows_of
from lmmjax.batch.lanes import block_size, in_x64, lane_count
from lmmjax.batch.sources import own_problem
from lmmjax.gram.grouped.prepare import Segments

G, PER, T = 12, 5, 600
FORMULA = "~ t + (1 | g)"


@cache
def panel():
    """Groups of five, and responses of all kinds: singular, constant, infinite, exact, far from zero."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(G), PER)
    data = pd.DataFrame({"t": rng.normal(size=len(g)), "g": g})
    y = 3.0 + (rng.normal(size=(G, T)) * np.geomspace(1e-2, 5.0, T))[g] + rng.normal(size=(len(g), T))
    y[:, 7] = 2.0
    y[4, 9] = np.inf
    # all of it lies in X and Z, and nearly all of it in Z
    y[:, 15], y[:, 16] = np.arange(G)[g], 1e4 * np.arange(G)[g] + y[:, 16]
    y[:, 17] += 1e7
    return data, y


@cache
def on_host(dtype="float64"):
    data, y = panel()
    return lj.lmm(FORMULA, data).fit_batch(y, dtype=dtype)


def assert_equal(got, expected, tol, steps=True):
    """Every number of the records, relative to its size or to that of a typical response; `steps` too."""
    for field in dataclasses.fields(expected.estimate):
        a, b = (np.asarray(getattr(fits.estimate, field.name)) for fits in (got, expected))
        assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
        if a.dtype.kind != "f":
            if field.name == "n_iter" and not steps:
                continue
            assert np.array_equal(a, b), field.name
        elif field.name not in ("decrement", "grad_norm"):
            if a.ndim == 3 and a.shape[1] == a.shape[2]:
                # entries of a covariance matrix in units of its variances
                size = np.sqrt(np.abs(np.einsum("tii->ti", b)))
                size = np.maximum(size[:, :, None] * size[:, None, :], 1e-30)
                a, b = a / size, b / size
            # those are rounding at an optimum
            assert_allclose(a, b, rtol=tol, atol=tol, err_msg=field.name)
    assert list(got.reasons) == list(expected.reasons)


def assert_stays_there(brought, blocks):
    """Between stages one number a device; flags and records once a block; nothing else."""
    brought = first_fits(brought)
    counts = [shape for names, shape in brought if "most" in names]
    rows = [shape for names, shape in brought if "unpacked" in names]
    flags = [shape for names, shape in brought if "ready" in names]
    assert set(counts) == {(1,)}
    assert 2 * blocks <= len(counts) <= 8 * blocks
    assert len(rows) >= 2 * blocks
    assert len(flags) >= 2 * blocks
    assert len(brought) == len(counts) + len(rows) + len(flags)


def first_fits(brought):
    """Without those of the few responses that are fitted again: in other coordinates, or by their pattern."""
    return [(names, shape) for names, shape in brought if not names & {"put_far", "_by_pattern"}]


@pytest.mark.filterwarnings("ignore:.* responses:UserWarning")
def test_equal_to_the_host_and_nothing_comes_back_inside_a_stage():
    data, y = panel()
    model, size = lj.lmm(FORMULA, data), 128
    expected = on_host()
    brought = []
    with watched(lambda *call: brought.append(call)), forced(lanes=size, going_on=32):
        got = model.fit_batch(y)
    assert_equal(got, expected, 1e-10)
    assert_stays_there(brought, -(-T // size))


@cache
def with_gaps():
    """Some of the responses with values missing, and weights for all, some of them nothing."""
    data, y = panel()
    y, rng = y[:, ::4].copy(), np.random.default_rng(8)
    y[rng.random(y.shape) < 0.05] = np.nan
    # of one nothing is left, of another no group but one; one lies in Z
    y[:, 20], y[PER:, 21], y[:, 22] = np.nan, np.nan, 1e4 * data["g"] + y[:, 22]
    weights = np.exp(0.5 * rng.normal(size=y.shape))
    weights[3, 30], weights[:, 31], weights[:, 32] = 0.0, 0.0, weights[:, 32] * 1e-9
    return data, y, weights


@pytest.mark.filterwarnings("ignore:.* responses:UserWarning")
def test_own_weights_are_fitted_there():
    data, y, weights = with_gaps()
    model, size = lj.lmm("~ 1 + (1 | g)", data), 64
    expected = model.fit_batch(y, weights=weights)
    brought = []
    with watched(lambda *call: brought.append(call)), forced(lanes=size, going_on=32):
        got = model.fit_batch(y, weights=weights)
    # a step that rounding decides about is one more evaluation
    assert_equal(got, expected, 1e-10, steps=False)
    brought = first_fits(brought)
    # responses whose rows leave too little take the way of single fits, with numbers of their own
    assert not [shape for names, shape in brought if len(shape) > 1 and "unpacked" not in names]
    assert sum("ready" in names for names, _ in brought) == 3 * -(-y.shape[1] // size)
    assert {shape for names, shape in brought if "most" in names} == {(1,)}


def test_masks_are_made_there():
    """Products of responses with missing values, no weights sent, are those of the host."""
    data, y, _ = with_gaps()
    maker = lj.lmm("~ 1 + (1 | g)", data).data.maker
    rows = in_x64(own_rows_of)(maker, (jax.local_devices()[0],))
    lanes = y.shape[1]
    got, (inexact, finite, fine) = in_x64(rows)(y, None, lanes, True)
    expected, all_finite, estimable = in_x64(own_problem)(rows.products, y, np.ones_like(y), True)
    exact = np.flatnonzero(~np.asarray(inexact))
    assert 22 not in exact
    assert len(exact) > lanes - 6
    assert np.array_equal(finite, all_finite)
    assert np.array_equal(np.asarray(fine)[exact], estimable[exact])
    for name, there in varying(got).items():
        for a, b in zip(jax.tree.leaves(there), jax.tree.leaves(getattr(expected, name)), strict=True):
            assert_allclose(np.asarray(a)[..., exact], b[..., exact], rtol=1e-10, atol=1e-10, err_msg=name)


def test_what_else_comes_to_the_host_is_told():
    """The watch of `--as-on-devices`: NumPy, a number or a truth value of an array inside the stages."""

    def fit_on_devices(bring):
        bring(jax.numpy.ones(()))

    with watched(refuse_others):
        for bring in (np.asarray, float, bool, lambda a: a.item()):
            with pytest.raises(AssertionError, match="came to the host"):
                fit_on_devices(bring)
        np.asarray(jax.numpy.ones(2))


def test_half_as_many_lanes_where_memory_is_used_up(monkeypatch):
    tried = []

    def block(part, lanes):
        tried.append((part.start, lanes))
        return lambda: lanes

    def fitted(run, part, lanes, starts):
        if lanes > 64 and part.start:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        values = np.arange(part.start, part.stop)
        return {"theta": values[None] * 1.0}, values

    monkeypatch.setattr(descent, "_fitted", fitted)
    place = where.Place((jax.local_devices()[0],))
    found, count = descent.fit_on_devices(place, 1000, 256, block, 100)
    # the first block is not done again
    assert np.array_equal(count, np.arange(1000))
    assert np.array_equal(found["theta"][:, 0], np.arange(1000.0))
    assert {lanes for start, lanes in tried if start > 512} == {64}
    monkeypatch.setattr(descent, "_fitted", lambda *_: fitted(None, slice(1, 2), 1000, ()))
    with pytest.raises(MemoryError, match=r"no memory for 16 responses.*default_device"):
        descent.fit_on_devices(place, 1000, 256, block, 100)


def test_blocks_are_counted_by_memory_and_devices():
    with forced(few=3):
        assert placed().few == 3
    one = where.Place((jax.local_devices()[0],))
    assert one.block(20_000, 800, 1) == 20_480
    # a power of two, whatever is free
    most = one.block(10**9, 10_000, 10_000)
    assert most & (most - 1) == 0
    assert where.FEWEST // 2 <= most < one.block(10**9, 100, 1) <= where.MOST
    two = dataclasses.replace(one, devices=one.devices * 2)
    assert two.block(20_000, 800, 1) == 10_240


def test_sums_of_groups_side_by_side():
    rng = np.random.default_rng(1)
    codes = np.sort(rng.integers(0, 9, 40))
    codes = codes[codes != 4]
    segments, v = Segments(codes, 9), rng.normal(size=(len(codes), 3))
    with jax.enable_x64(True):
        assert_allclose(segments._gathered(jax.numpy.asarray(v)), segments.sum(v), rtol=0, atol=1e-14)
    # one long group among many of one row each
    assert Segments(np.concatenate([np.zeros(100, int), np.arange(1, 101)]), 101).places is None


@pytest.mark.parametrize(("cores", "expected"), [(2, 2048), (4, 2048), (16, 512), (64, 128), (1000, 128)])
def test_blocks_shrink_with_many_cores(monkeypatch, cores, expected):
    assert lane_count(1, 20_000) == 2048
    monkeypatch.setattr("lmmjax.batch.lanes.cores", lambda: cores)
    assert block_size(1, 20_000) == expected


def test_products_of_many_cores_are_cut(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(4, 800)), rng.normal(size=(800, 256))
    widths, product, out = [], np.matmul, np.empty((4, 256))

    def watched(a, b, out):
        widths.append(b.shape[1])
        return product(a, b, out=out)

    monkeypatch.setattr(processors, "cores", lambda: 16)
    monkeypatch.setattr(np, "matmul", watched)
    matmul_alone(a, b, out)
    assert max(widths) * a.size <= processors.ALONE
    assert sum(widths) == 256
    assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)
    monkeypatch.undo()
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert processors.cores() == 1


def test_threads_without_threadpoolctl(monkeypatch):
    """A checkout on a machine that has JAX and little else."""
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setattr(processors, "cores", lambda: 4)
    assert processors.mapped(lambda k: k + 1, range(3)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({}, None),
    ],
)
def test_quotas_of_containers(tmp_path, monkeypatch, files, expected):
    """Threads beyond the quota only get in the way of each other."""
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert processors.quota(tmp_path) == expected
    monkeypatch.setattr(processors, "CGROUP", tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert processors.cores() == (expected or 64)


@pytest.mark.parametrize("cores", [1, 16])
def test_results_do_not_depend_on_the_number_of_cores(monkeypatch, cores):
    data, y = panel()
    monkeypatch.setattr("lmmjax.batch.newton_lanes.cores", lambda: cores)
    monkeypatch.setattr("lmmjax.batch.lanes.cores", lambda: cores)
    with pytest.warns(UserWarning, match="responses"):
        assert_equal(lj.lmm(FORMULA, data).fit_batch(y), on_host(), 1e-9)
