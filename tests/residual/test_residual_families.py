"""Families of residuals: working values and natural parameters, there and back."""

import functools

import jax
import numpy as np
import pytest
import structure_data as explicit
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from structure_data import CASES, VARIANCE_CASES

from lmmjax.arrays import quick_jit
from lmmjax.residual import CORRELATIONS, VARIANCES

VISITS = 5


def test_every_residual_family_has_a_case():
    assert {c.name for c in CASES.values()} == set(CORRELATIONS)
    assert {v.name for variances in VARIANCE_CASES.values() for v in variances} == set(VARIANCES)


@functools.cache
def programs(structure):
    """Natural parameters of working values, and these of those."""
    return quick_jit(structure.decode), quick_jit(structure.encode)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_working_values_and_back(name, seed):
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        d = explicit.design(
            rng, CASES[name], VARIANCE_CASES["VarIdent * VarExp"], sizes=(4, 4), visits=VISITS
        )
        decode, encode = programs(d.structure)
        r = np.asarray(decode(rng.uniform(-1.4, 1.4, d.structure.n_params)))
        if name in ("Unstructured", "Symmetric"):
            factor = np.tril(rng.normal(size=(VISITS, VISITS + 3)))
            matrix = factor @ factor.T + 0.1 * np.eye(VISITS)
            sd = np.sqrt(np.diag(matrix))
            below = np.triu_indices(VISITS, 1)
            matrix = matrix / matrix[0, 0] if name == "Unstructured" else matrix / sd[:, None] / sd
            own = np.concatenate([np.diag(matrix)[1:] if name == "Unstructured" else [], matrix[below]])
            r = np.concatenate([own, r[len(own) :]])
        # the angle of a correlation near 1 is known to the root of its rounding error
        assert_allclose(decode(encode(r)), r, rtol=1e-11, atol=1e-13)
