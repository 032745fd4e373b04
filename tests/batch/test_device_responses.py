"""Responses of every kind on the way of devices: sparse, there already, without a level, odd ones."""

from functools import cache

import jax
import numpy as np
import pandas as pd
import pytest
from device_watch import watched
from numpy.testing import assert_allclose
from scipy import sparse

import lmmjax as lj
from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.batch import leave_out
from lmmjax.batch.device import descent, forced, pipeline, where
from lmmjax.design import standardise_response
from lmmjax.gram.grouped.leave_out import LeaveOut, Pieces

# designs, lanes and those that go on are those of `test_on_devices`, whose programs these are
G, PER, T, LANES = 12, 5, 160, 128
RNG = np.random.default_rng(11)
DATA = pd.DataFrame({"t": RNG.normal(size=G * PER), "g": np.repeat(np.arange(G), PER)})
Y = 2.0 + (RNG.normal(size=(G, T)) * np.geomspace(0.05, 3.0, T))[DATA["g"]] + RNG.normal(size=(G * PER, T))
MODEL, LEVEL = lj.lmm("~ t + (1 | g)", DATA), lj.lmm("~ 1 + (1 | g)", DATA)
FIELDS = ("deviance", "beta", "cov_beta", "psi", "theta")


def there(lanes=LANES):
    """The way of devices, in blocks of which the last is not full."""
    return forced(lanes=lanes, going_on=32)


def assert_same(got, expected, tol=1e-10):
    """Criteria and estimates are those of the same descent; programs round apart."""
    assert list(got.status) == list(expected.status)
    assert list(got.reasons) == list(expected.reasons)
    for name in FIELDS:
        a, b = (np.asarray(getattr(fits.estimate, name)) for fits in (got, expected))
        assert_allclose(a, b, rtol=tol, atol=tol, err_msg=name)


@cache
def on_host(above=-np.inf):
    """Fits by threads of the host, values that are not above a level set to zero."""
    return MODEL.fit_batch(np.where(above < Y, Y, 0.0))


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_array])
def test_entries_of_sparse_responses_are_expanded_there(form, monkeypatch):
    dense = np.where(Y > 2.5, Y, 0.0)
    expected, moved, put = on_host(2.5), [], jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda a, *to: moved.extend(jax.tree.leaves(a)) or put(a, *to))
    with there():
        got = MODEL.fit_batch(form(dense))
    assert_same(got, expected)
    # entries moved, and no block of responses
    assert any(a.dtype == np.int32 for a in moved)
    assert max(a.size for a in moved) < G * PER * LANES


@pytest.mark.filterwarnings("ignore:.* could not be fitted:UserWarning")
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_sparse_responses_of_small_numbers(dtype):
    counts = RNG.poisson(0.7, size=(G * PER, 90)).astype(dtype)
    counts[:, 7] = 0
    with there():
        got = MODEL.fit_batch(sparse.csc_array(counts))
    assert_same(got, MODEL.fit_batch(counts))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_responses_on_the_device_stay_there(dtype):
    """None of them comes to the host while they are fitted; who asks for values later gets them."""
    own, brought = Y.astype(dtype), []
    with jax.enable_x64(True):
        y = jax.device_put(own)
    assert y.dtype == dtype
    with there(), watched(lambda _, shape: brought.append(shape)):
        got = MODEL.fit_batch(y)
    assert G * PER not in {n for shape in brought if np.prod(shape) for n in shape}
    assert_same(got, on_host() if dtype == np.float64 else MODEL.fit_batch(own.astype(float)))
    assert_allclose(got.fitted.y, own)
    assert_allclose(got[3].params, got.params.iloc[3])


def test_rows_that_the_model_dropped_are_dropped_there():
    """Of responses with weights and gaps, too."""
    more = pd.concat([DATA, DATA.iloc[:PER].assign(t=np.nan, g=G)], ignore_index=True)
    y = jax.numpy.asarray(np.concatenate([Y, Y[:PER]])[:, :70].astype(np.float32))
    with there():
        got = lj.lmm("~ t + (1 | g)", more).fit_batch(y)
    assert_same(got, MODEL.fit_batch(np.asarray(y[:-PER])))
    assert got.fitted.y.shape == (G * PER, 70)
    weights, holed = np.exp(0.1 * RNG.normal(size=y[:-PER].shape)), y[:-PER].at[4, ::2].set(jax.numpy.nan)
    with there(64):
        got = LEVEL.fit_batch(holed, weights=weights)
    assert_same(got, LEVEL.fit_batch(np.asarray(holed), weights=weights))


def test_responses_that_were_given_away():
    y = jax.numpy.ones((G * PER, 3))
    y.delete()
    with pytest.raises(ValueError, match="donated"):
        MODEL.fit_batch(y)
    y = jax.numpy.asarray(Y[:, :LANES])
    with there():
        fits, again = MODEL.fit_batch(y), MODEL.fit_batch(y)
    assert_same(fits, again, 0.0)
    y.delete()
    assert np.isfinite(fits.params.to_numpy()).all()
    with pytest.raises(ValueError, match="donated"):
        fits.fitted.y  # noqa: B018


def test_columns_on_a_device():
    with jax.enable_x64(True):
        y = DeviceColumns(jax.numpy.asarray(Y))
    assert y.shape == Y.shape
    assert len(y) == len(Y)
    assert_allclose(y, Y)
    for key in ((slice(None), 4), (slice(None), -1), (slice(2, 9), 3), np.ix_([0, 2], [1, 0])):
        assert isinstance(y[key], np.ndarray)
        assert_allclose(y[key], Y[key])
    for key in ((slice(None), [3, 1]), (slice(None), slice(5, 9)), [4, 2], np.arange(60) % 2 == 0):
        assert isinstance(y[key], DeviceColumns)
        assert_allclose(y[key], Y[key])
    assert y[:, :] is y
    with pytest.raises(TypeError):
        np.isnan(y)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("times", [1.0, np.linspace(0.5, 2.0, G * PER)])
def test_products_without_a_part_by_jax(times, single):
    """Of patterns (a balanced design), and of every group."""
    data = DATA.assign(y=Y[:, 150], z=times)
    maker = lj.lmm("y ~ t + (0 + z | g)", data).data.maker
    y = data["y"].to_numpy()[maker.prepared.order]
    residual, _, factor = standardise_response(maker.rows, maker.basis, y)
    products, part = LeaveOut(maker.prepared, maker.rows, residual * factor, single), np.array([7, 0, 3])
    assert maker.prepared.compressed == np.isscalar(times)
    expected, count = products(part), len(products.out.arrays())
    arrays = [a for p in (products.out, products.back) if p is not None for a in p.take(part).arrays()]

    def formed(*arrays):
        return products.formed(Pieces(*arrays[:count]), Pieces(*arrays[count:]) if single else None)

    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        got = jax.jit(formed)(*arrays)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_fits_without_a_level_are_made_there(monkeypatch):
    """Beside single fits by differences and to the rows that are left."""
    data = DATA.assign(y=Y[:, 130], w=RNG.uniform(0.5, 2.0, G * PER))
    fit, alone = (lj.lmm("y ~ 1 + (1 | g)", d, weights="w").fit() for d in (data, data[data["g"] != 3]))
    made, over = [], leave_out.left_out_on_devices
    monkeypatch.setattr(leave_out, "left_out_on_devices", lambda *args: made.append(1) or over(*args))
    expected = fit.influence("g")
    assert not made
    with there(64):
        got = fit.influence("g")
    assert made
    assert_allclose(got.bse.iloc[3], alone.bse, rtol=1e-7)
    # two descents to one optimum: 2e-14 of the criterion is 1e-7 of θ, its square of β̂
    assert_allclose(got.params, expected.params, rtol=1e-9, atol=1e-10)
    assert_allclose(got.sdcor, expected.sdcor, rtol=1e-6, atol=1e-6)


@cache
def strains(regular):
    """A kernel of 30 individuals, of full rank or not, and responses: of all shares, at both ends, odd."""
    rng = np.random.default_rng(3)
    ids = [f"s{k}" for k in range(30)]
    g = rng.normal(size=(30, 80 if regular else 12))
    u = g @ rng.normal(size=(g.shape[1], 150)) / np.sqrt(g.shape[1])
    least = 0.0 if regular else 0.1
    y = np.linspace(0.0, 4.0, 150) * u + np.linspace(1.0, least, 150) * rng.normal(size=u.shape)
    y[:, 3], y[:, 4], y[2, 5] = 1.0, 1e300, np.inf
    d = pd.DataFrame({"id": ids, "x": rng.normal(size=30)})
    return lj.lmm("~ x + (1 | id)", d, kernels={"id": lj.Kernel(g @ g.T / g.shape[1], ids)}), y


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.filterwarnings("ignore:.* could not be fitted:UserWarning")
def test_one_kernel_is_searched_there(regular):
    model, y = strains(regular)
    expected, brought = model.fit_batch(y), []
    with there(64), watched(lambda names, shape: brought.append((names, shape))):
        got = model.fit_batch(y)
    assert_same(got, expected)
    assert list(got.n_optima) == list(expected.n_optima)
    # the results of a block in two transfers, and nothing else; what is infinite is looked at once more
    assert len(brought) == 2 * (-(-y.shape[1] // 64) + 1)
    assert all("unpacked" in names for names, _ in brought)


def test_what_tests_are_made_of_comes_back_once():
    """Five arrays a block; the products of one design are the same for all."""
    fits, brought = MODEL.fit_batch(Y[:, :70]), []
    expected = fits.moderate().table
    fits.fitted.cache.clear()
    with there(), watched(lambda _, shape: brought.append(shape)):
        got = fits.moderate().table
    assert len(brought) == 5
    assert_allclose(got["p"], expected["p"], rtol=1e-9)


@pytest.mark.parametrize("total", [1, 2, LANES, LANES + 1])
def test_batches_of_any_size(total):
    with there():
        got = MODEL.fit_batch(Y[:, :total])
    assert got.params.shape == (total, 2)
    assert_allclose(got.estimate.deviance, on_host().estimate.deviance[:total], rtol=1e-10)
    with pytest.raises(ValueError, match="shape"), there():
        MODEL.fit_batch(Y[:, :0])


@pytest.mark.filterwarnings("ignore:.* could not be fitted:UserWarning")
def test_what_cannot_be_fitted_spoils_nobody():
    """Nothing there, nothing left, too large, constant, exact: each has its reason, the others stay."""
    y, bad = Y.copy(), [0, 127, 128, 140, 150, 159]
    y[:, 0], y[:, 127], y[:, 128], y[:, 140] = np.nan, 1e200, 0.0, DATA["t"]
    y[:, 150], y[0, 159] = DATA["g"], -np.inf
    expected = MODEL.fit_batch(y)
    with there():
        got = MODEL.fit_batch(y)
        none = MODEL.fit_batch(np.full((G * PER, 70), np.nan))
    assert_same(got, expected)
    good = np.setdiff1d(np.arange(T), bad)
    assert_allclose(got.estimate.deviance[good], on_host().estimate.deviance[good], rtol=1e-10)
    assert set(none.status) == {"not_estimable"}


@pytest.mark.parametrize("wide", [True, False])
def test_settings_of_the_user_are_his_own(wide):
    with there(), jax.enable_x64(wide):
        got = MODEL.fit_batch(Y[:, :LANES])
        assert jax.numpy.ones(1).dtype == (np.float64 if wide else np.float32)
    assert_allclose(got.estimate.deviance, on_host().estimate.deviance[:LANES], rtol=1e-10)


def test_memory_that_ends_at_the_first_block(monkeypatch):
    """Half as many lanes, from the beginning."""
    fitted = descent._fitted

    def failing(run, part, problem, starts):
        if run.lanes > LANES:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return fitted(run, part, problem, starts)

    monkeypatch.setattr(descent, "_fitted", failing)
    with there(2 * LANES):
        got = MODEL.fit_batch(Y)
    assert_same(got, on_host())


def test_another_failure_is_no_lack_of_memory():
    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        pipeline.through_blocks(where.Place((None,)), 3, 2, broken, lambda *_: None)
