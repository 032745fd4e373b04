"""Fits of one kernel on the way of devices: by either criterion, with gaps, in blocks; those of the host."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from device_watch import refuse_others, watched
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.batch.device import forced

N, T, LANES = 24, 20, 16
RNG = np.random.default_rng(4)
HALF = RNG.normal(size=(N, 40))
WHOLE = HALF @ HALF.T / 40
# of twins, in directions of which it is zero
FAMILIES = sp.kron(sp.eye_array(N // 2), np.ones((2, 2)), format="csr")
DATA = pd.DataFrame({"id": np.arange(N), "x": RNG.normal(size=N), "w": RNG.uniform(0.5, 2.0, N)})
SHARE = RNG.uniform(0.2, 0.8, T)
Y = np.sqrt(SHARE) * (np.linalg.cholesky(WHOLE + 0.01 * np.eye(N)) @ RNG.normal(size=(N, T)))
Y += np.sqrt(1 - SHARE) * RNG.normal(size=(N, T))
# rows that nobody shares, of some responses five, of others six: the program is one for both
HOLED = Y.copy()
HOLED[RNG.permuted(np.tile(np.arange(N), (T, 1)), axis=1)[:, :6], np.arange(T)[:, None]] = np.nan
HOLED[:, :9] = np.where(np.isnan(HOLED[:, :9]).cumsum(axis=0) > 5, Y[:, :9], HOLED[:, :9])
ODD = Y.copy()
ODD[:, 2], ODD[3, 4], ODD[:, 6] = 1.0 + 2.0 * DATA["x"], np.inf, 0.0
KINDS = {
    "gaps": (lj.Kernel.low_rank(HALF[:, :9], np.arange(N)), HOLED, {"weights": "w", "offset": "x"}),
    "blocks": (lj.Kernel(FAMILIES, np.arange(N)), ODD, {"backend": "block"}),
}


@pytest.mark.parametrize(("kind", "reml"), [("gaps", False), ("blocks", True)])
def test_equal_to_the_host(kind, reml):
    kernel, y, options = KINDS[kind]
    model = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": kernel}, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = model.fit_batch(y, reml=reml)
        # nothing comes to the host but the records, once a block
        with forced(lanes=LANES), watched(refuse_others):
            got = model.fit_batch(y, reml=reml)
    assert list(got.status) == list(expected.status)
    assert list(got.reasons) == list(expected.reasons)
    assert np.array_equal(got.fitted.n_optima, expected.fitted.n_optima)
    for name in ("deviance", "beta", "cov_beta", "psi", "theta", "cov_psi"):
        a, b = (np.asarray(getattr(fits.estimate, name)) for fits in (got, expected))
        assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=name)
