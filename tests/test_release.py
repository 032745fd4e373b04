"""What says the same in several places of the repository: requirements, versions, the lock."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import lmmjax as lj

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = [Requirement(text) for text in PROJECT["dependencies"]]
RECIPE = (ROOT / "conda" / "recipe.yaml").read_text()
LOCKED = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line and not line.lstrip().startswith("#")
]


def test_one_version():
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == lj.__version__
    assert f'version: "{lj.__version__}"' in RECIPE


def test_the_conda_recipe_requires_what_the_package_does():
    run = RECIPE.split("  run:\n")[1].split("\ntests:")[0]
    first, *others = [line.strip()[2:] for line in run.splitlines() if line.strip().startswith("- ")]
    found = [Requirement(text) for text in others]
    assert first == "python >=${{ python_min }}"
    assert {r.name: r.specifier for r in found} == {r.name: r.specifier for r in REQUIRED}
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f'python_min: "{lowest}"' in RECIPE


@pytest.mark.parametrize("required", REQUIRED, ids=str)
def test_the_lock_has_versions_that_are_allowed(required):
    own = [r for r in LOCKED if r.name == required.name]
    assert own
    for locked in own:
        (pin,) = locked.specifier
        assert pin.operator == "=="
        assert required.specifier.contains(pin.version)
