"""What follows a fit is the same where batches take the way of devices."""

import jax
import numpy as np
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.batch.device import forced


def test_profile_and_bootstrap(sleepstudy):
    """A profile goes from point to point as ever; draws of a bootstrap are fitted there."""
    fit = lj.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy).fit()
    key = jax.random.key(6)

    def found():
        drawn = fit.bootstrap(key, 20).fits.estimate
        return fit.conf_int(method="profile").to_numpy(), drawn.deviance, np.asarray(drawn.psi)

    expected = found()
    with forced(lanes=512):
        got = found()
    for a, b in zip(got, expected, strict=True):
        assert_allclose(a, b, rtol=1e-10, atol=1e-10)
