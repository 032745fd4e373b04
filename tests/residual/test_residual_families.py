"""Families of residuals: working values and natural parameters, there and back."""

import jax
import numpy as np
import pytest
import structure_data as explicit
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from structure_data import CASES, VARIANCE_CASES

from lmmjax.residual import CORRELATIONS, VARIANCES

VISITS = 5


def test_every_residual_family_has_a_case():
    assert {c.name for c in CASES.values()} == set(CORRELATIONS)
    assert {v.name for variances in VARIANCE_CASES.values() for v in variances} == set(VARIANCES)


@pytest.mark.parametrize("name", CASES)
@given(seed=st.integers(0, 10**6))
def test_working_values_and_back(name, seed):
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        d = explicit.design(
            rng, CASES[name], VARIANCE_CASES["VarIdent * VarExp"], sizes=(4, 4), visits=VISITS
        )
        structure = d.structure
        r = np.asarray(structure.decode(rng.uniform(-1.4, 1.4, structure.n_params)))
        if name in ("Unstructured", "Symmetric"):
            factor = np.tril(rng.normal(size=(VISITS, VISITS + 3)))
            matrix = factor @ factor.T + 0.1 * np.eye(VISITS)
            sd = np.sqrt(np.diag(matrix))
            below = np.triu_indices(VISITS, 1)
            matrix = matrix / matrix[0, 0] if name == "Unstructured" else matrix / sd[:, None] / sd
            own = np.concatenate([np.diag(matrix)[1:] if name == "Unstructured" else [], matrix[below]])
            r = np.concatenate([own, r[len(own) :]])
        theta = structure.encode(r)
        # the angle of a correlation near 1 is known to the root of its rounding error
        assert_allclose(structure.decode(theta), r, rtol=1e-11, atol=1e-13)
