"""Strict numerics for every test: no silent promotion of dtypes or ranks; warnings are errors (pyproject)."""

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "lmmjax", deadline=None, derandomize=True, max_examples=25, print_blob=True
)
hypothesis.settings.load_profile("lmmjax")


@pytest.fixture
def x64():
    """Double precision for the pure functions; `Model` and `Fit` take care of themselves."""
    with jax.enable_x64(True):
        yield
