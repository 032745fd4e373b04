"""Scans on the way of devices, taken on a CPU: the host's statistics and hits, of which alone comes there."""

import warnings
from functools import cache

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from device_watch import watched
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.batch.device import forced, pipeline, placed, scan_programs
from lmmjax.batch.device import scan as module
from lmmjax.batch.device.scan import DeviceEngine, on_devices
from lmmjax.scan import Above, Best, Top
from lmmjax.scan.engines import parts_of

N, K, T, LANES = 24, 40, 21, 16
RNG = np.random.default_rng(14)
HALF = RNG.normal(size=(N, 30))
WHOLE = HALF @ HALF.T / 30 + 0.05 * np.eye(N)
FAMILIES = sp.kron(sp.eye_array(N // 4), np.full((4, 4), 0.5) + 0.5 * np.eye(4), format="csr")
COUNTS = RNG.integers(0, 3, (N, K)).astype(float)
# one that X determines, one that others are
COUNTS[:, 9], COUNTS[:, 11] = 1.0, COUNTS[:, 10]
SHARE = RNG.random(T)
Y = np.sqrt(SHARE) * (np.linalg.cholesky(WHOLE) @ RNG.normal(size=(N, T)))
Y += np.sqrt(1 - SHARE) * RNG.normal(size=(N, T)) + 0.5 * COUNTS[:, RNG.integers(0, K, T)]
HOLED = np.where(RNG.random(Y.shape) < 0.05, np.nan, Y)
DATA = pd.DataFrame({"id": np.arange(N), "x": RNG.normal(size=N), "w": RNG.uniform(0.5, 2.0, N)})
KINDS = {
    "whole": (lj.Kernel(WHOLE, np.arange(N)), Y, {"weights": "w"}),
    "thin": (lj.Kernel.low_rank(HALF[:, :9], np.arange(N)), Y, {"offset": "x"}),
    "blocks": (lj.Kernel(FAMILIES, np.arange(N)), Y, {"backend": "block"}),
    "gaps": (lj.Kernel.low_rank(HALF[:, :9], np.arange(N)), HOLED, {}),
}


@cache
def fits_of(kind):
    kernel, y, options = KINDS[kind]
    model = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": kernel}, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        return model.fit_batch(y)


def there(lanes=LANES):
    """The way of devices, in tiles of which the last is not full."""
    return forced(lanes=lanes)


def assert_same(got, expected):
    """The same pairs in the same order, numbers of other sums."""
    assert list(got) == list(expected)
    for name in expected:
        a, b = got[name].to_numpy(), expected[name].to_numpy()
        if b.dtype.kind == "f":
            assert_allclose(a, b, rtol=1e-10, atol=1e-10, err_msg=name)
        else:
            assert np.array_equal(a, b), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*marker:UserWarning")
def test_hits_and_statistics_are_those_of_the_host(kind):
    fits = fits_of(kind)
    best = [] if kind == "gaps" else [Best()]
    cases = [{"keep": [Top(2), Above(lod=1.5), *best]}]
    if kind == "thin":
        # all pairs, with columns of several; what is refitted
        cases += [{"interaction": "x", "test": "wald"}]
        cases += [{"keep": [Top(1), *best], "ratio": "refit", "test": "wald"}]
    for options in cases:
        expected = fits.scan(COUNTS, **options)
        with there():
            assert all(isinstance(part.engine, DeviceEngine) for part in parts_of(fits.fitted)[:1])
            assert_same(fits.scan(COUNTS, **options), expected)


def there_too(values):
    with jax.enable_x64(True):
        return jax.device_put(values)


def test_markers_and_responses_on_a_device_stay_there():
    kernel, _, _ = KINDS["thin"]
    model = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": kernel})
    markers = np.where(RNG.random(COUNTS.shape) < 0.1, np.nan, COUNTS)
    keep, filters = [Top(2), Above(lod=1.5)], {"maf": 0.2, "max_missing": 0.2}
    expected = model.fit_batch(Y).scan(markers, keep=keep, test="lrt", **filters)
    brought = []
    with there():
        fits = model.fit_batch(there_too(Y))
        with watched(lambda *call: brought.append(call)):
            got = fits.scan(there_too(markers.astype(np.float32)), keep=keep, test="lrt", **filters)
    assert_same(got, expected)
    shapes = [shape for _, shape in brought]
    tiles = -(-T // LANES)
    # whether a response has gaps; what is said of the markers; y'Py, and of a tile how many hits, and these
    assert shapes[0] == ()
    assert shapes.count((1,)) == tiles
    assert len(shapes) <= 2 + 4 * tiles
    # neither the markers nor the responses
    assert all(np.prod(shape) < N * min(K, T) for _, shape in brought)
    assert isinstance(fits.fitted.columns, DeviceColumns)


def test_markers_on_a_device_are_refused_alike():
    fits = fits_of("whole")
    infinite, coded, wide = COUNTS.copy(), COUNTS.copy(), COUNTS.copy()
    infinite[3, 5], coded[4, 7], wide[5, 8] = np.inf, -9.0, 3.0
    for values, options in [(infinite, {}), (coded, {}), (wide, {"maf": 0.1})]:
        with pytest.raises(ValueError, match="marker") as expected:
            fits.scan(values, keep=Top(1), **options)
        with there(), pytest.raises(ValueError, match="marker") as got:
            fits.scan(there_too(values), keep=Top(1), **options)
        assert str(got.value) == str(expected.value)


def test_tiles_are_halved_where_memory_is_used_up(monkeypatch):
    fits, keep = fits_of("whole"), [Top(2), Best()]
    expected, tried = fits.scan(COUNTS, keep=keep), []

    def fails(function, devices, **settings):
        run = made(function, devices, **settings)

        def call(whole, *lanes):
            tried.append(lanes[0].shape[-1] if lanes else 0)
            if function is scan_programs.tile and tried[-1] > LANES and len(tried) > 2:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return run(whole, *lanes)

        return call

    made = module.on_lanes
    monkeypatch.setattr(module, "on_lanes", fails)
    monkeypatch.setattr(pipeline, "LEAST", 1)
    with there(2 * LANES):
        assert_same(fits.scan(COUNTS, keep=keep), expected)
    assert {LANES, 2 * LANES} <= set(tried)


def test_small_scans_stay_with_the_host():
    (part,) = parts_of(fits_of("whole").fitted)
    with forced(few=64):
        assert on_devices(part.engine, placed()) is part.engine
    assert on_devices(part.engine, None) is part.engine
