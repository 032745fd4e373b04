"""Families of random effects: working values and natural parameters, there and back."""

import jax
import numpy as np
import pytest
import structure_data as explicit
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lmmjax.covariance import FAMILIES, family


@pytest.mark.parametrize("name", FAMILIES)
@given(seed=st.integers(0, 10**6))
def test_working_values_of_random_terms_and_back(name, seed):
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        own = family(name)
        factor = rng.normal(size=(3, 3))
        near = own.natural(factor @ factor.T)
        if name in ("cs", "homcs", "ar1", "hetar1", "toep", "homtoep"):
            # a matrix near one of the family may have no parameters in it
            near = own.decode(rng.uniform(-1.4, 1.4, own.n_params(3)), 3)
        a = own.decode(own.encode(near, 3), 3)
        # signs of loadings are not determined
        assert_allclose(own.matrix(a, 3), own.matrix(near, 3), rtol=1e-9, atol=1e-11)
        assert_allclose(own.decode(own.encode(a, 3), 3), a, rtol=1e-9, atol=1e-11)
        assert_allclose(own.matrix(a, 3), explicit.random_matrix(name, np.asarray(a), 3), atol=1e-13)


@pytest.mark.parametrize("name", FAMILIES)
def test_working_values_are_folded_without_a_loss_of_digits(name):
    with jax.enable_x64(True):
        rng, own = np.random.default_rng(4), family(name)
        if not hasattr(own, "folded") or name in ("us", "diag"):
            pytest.skip("θ are entries of a factor")
        theta = rng.uniform(-6.0, 6.0, own.n_params(3))
        assert_allclose(own.folded(theta, 3), own.encode(own.decode(theta, 3), 3), rtol=1e-7, atol=1e-7)
        if name == "homcs":
            # at ρ = 1 − 2e-20, where ρ itself is one
            ends = np.array([0.5, np.pi / 2 - 2e-10])
            assert own.folded(ends, 3)[1] == ends[1]
            assert_allclose(own.folded(np.array([0.5, np.pi / 2 + 2e-10]), 3), ends, rtol=1e-15)
