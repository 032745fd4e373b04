"""Responses spread over several devices, or on one that is chosen, give the results of one."""

import os
import subprocess
import sys

import numpy as np

CODE = """
import sys
import jax, numpy as np, pandas as pd
from scipy.sparse import csc_array
import lmmjax as lj
from lmmjax.scan import Above, Best, Top

assert jax.local_device_count() == int(sys.argv[1]), jax.local_devices()
if len(sys.argv) > 3:
    # the last device alone: a setting of the thread, which those of a batch have to be told
    from lmmjax.batch import programs
    chosen, used, joined = jax.devices()[-1], set(), programs._joined
    def watched(leaf, count):
        used.update(*(a.devices() for a in jax.tree.leaves(leaf)))
        return joined(leaf, count)
    programs._joined = watched
else:
    chosen = used = None
rng = np.random.default_rng(5)
g = np.repeat(np.arange(12), 5)
design = pd.DataFrame({"t": rng.normal(size=60), "g": g})
y = 3.0 + rng.normal(size=(60, 700)) + rng.normal(size=(12, 700))[g]
weights = rng.uniform(0.5, 2.0, size=y.shape)
# some of them are missing
holed = np.where(rng.random(y.shape) < 0.02, np.nan, y)
model = lj.lmm("~ t + (1 | g)", design)
with jax.default_device(chosen):
    plain = model.fit_batch(y)
    own = None if chosen is None else model.fit_batch(holed, weights=weights)
assert used in (None, {chosen}), used
found = dict(plain=plain.deviance, params=plain.params)
if chosen is None:
    # the way of GPUs: what each device descends never leaves it
    from lmmjax.batch.device import descent, forced
    counts, most = [], descent.most
    descent.most = lambda counted: counts.append(counted.sharding.device_set) or most(counted)
    with forced(lanes=100, going_on=32):
        there, own = model.fit_batch(y), model.fit_batch(holed, weights=weights)
        # numbers of lanes that are no multiple of that of devices, of which the last has none at the end
        zeros = np.where(y[:, :301] < 3.0, 0.0, y[:, :301])
        sparse = model.fit_batch(csc_array(zeros))
        with jax.enable_x64(True):
            placed = jax.device_put(y)
        moved = model.fit_batch(placed)
        ids = [f"s{k}" for k in range(60)]
        kernel = lj.Kernel(np.exp(-np.abs(np.subtract.outer(np.arange(60), np.arange(60)) / 9.0)), ids)
        strains = lj.lmm("~ 1 + (1 | id)", design.assign(id=ids), kernels={"id": kernel})
        rotated = strains.fit_batch(y[:, :301])
    # and of a scan, of which the last tile leaves devices without responses
    keep, markers = [Top(2), Best(), Above(lod=1.0)], rng.integers(0, 3, (60, 40)).astype(float)
    expected = rotated.scan(markers, ids=ids, keep=keep)
    with forced(lanes=30):
        hits = rotated.scan(markers, ids=ids, keep=keep)
    assert hits[["marker", "response"]].equals(expected[["marker", "response"]])
    np.testing.assert_allclose(hits["loglik"], expected["loglik"], rtol=1e-10)
    assert all(len(devices) == jax.device_count() for devices in counts), counts
    pairs = dict(sparse=(sparse, zeros, model), kernel=(rotated, y[:, :301], strains))
    np.testing.assert_array_equal(moved.deviance, there.deviance)
    for name, (fits, values, of) in pairs.items():
        expected = of.fit_batch(values).estimate
        for field in ("deviance", "beta", "psi"):
            a, b = getattr(fits.estimate, field), getattr(expected, field)
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10, err_msg=f"{name}: {field}")
    found |= dict(spread=there.deviance, spread_params=there.params)
np.savez(sys.argv[2], **found, own=own.deviance, psi=own.estimate.psi)
"""


def run(devices, path, *more):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CODE, str(devices), str(path), *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(path)


def test_four_devices_equal_one_that_is_chosen(tmp_path):
    four, one = run(4, tmp_path / "four.npz"), run(2, tmp_path / "one.npz", "default_device")
    for name in one.files:
        # lanes are fused into vectors of another length: the order of operations may differ in the last bits
        np.testing.assert_allclose(four[name], one[name], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(four["spread"], one["plain"], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(four["spread_params"], one["params"], rtol=1e-10, atol=1e-10)
