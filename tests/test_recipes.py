"""The recipes of the documentation run, and what they assert holds."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
NEEDS = {
    "optax_training": ("optax",),
    "equinox_module": ("equinox", "optax"),
    "numpyro_likelihood": ("numpyro",),
    "blackjax_log_density": ("blackjax",),
    "optimistix_criterion": ("optimistix",),
}


def test_every_recipe_is_tested():
    assert {path.stem for path in RECIPES.glob("*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_recipe(name):
    """In a process of its own, with JAX as a user has it: these packages mix dtypes."""
    for package in NEEDS[name]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'lmmjax[recipes]'")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(RECIPES / f"{name}.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout
