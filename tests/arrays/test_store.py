"""Ready programs on disk change no result, whatever is in the folder."""

import dataclasses
import functools
import os
import stat
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

import lmmjax as lj
from lmmjax.arrays import announce, store
from lmmjax.arrays import compile as compiling
from lmmjax.arrays.store import folder as place
from lmmjax.arrays.store import names
from lmmjax.arrays.store.quiet import without_preferences
from lmmjax.core import estimate, problem_from_arrays

MATRIX = np.array([[4.0, 1.0], [1.0, 3.0]], np.float32)


@pytest.fixture(params=["compiled", "traced"])
def made(request):
    """The programs of a test are compiled, or traced to be played."""
    return request.param


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """A store of its own; programs of the process are forgotten before and after."""
    monkeypatch.setenv("LMMJAX_CACHE", str(tmp_path))
    compiling.forget_programs()
    compiling.counts.clear()
    yield tmp_path / "programs"
    compiling.forget_programs()


def files(folder):
    for thread in threading.enumerate():
        if thread.name == "lmmjax store":
            thread.join(10)
    return sorted(folder.glob("*.program")) if folder.exists() else []


def factor(made="compiled"):
    return np.asarray(compiling.quick_jit(jax.numpy.linalg.cholesky, plays=made == "traced")(MATRIX))


FOUND = {"compiled": "loaded", "traced": "read"}
"""What a program is called that another process has made."""


def test_a_program_is_compiled_once_and_loaded_after(made, kept):
    first = factor(made)
    assert len(files(kept)) == 1
    compiling.forget_programs()
    np.testing.assert_array_equal(factor(made), first)
    assert compiling.counts == {made: 1, FOUND[made]: 1}
    np.testing.assert_allclose(first @ first.T, MATRIX, rtol=1e-6)


def test_the_folder_is_private(made, kept):
    factor(made)
    (file,) = files(kept)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a bit turned": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "of another kind": lambda content: b"PK\x03\x04" + content,
    "of another form": lambda content: content.replace(b"program 2", b"program 1", 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_replaced(made, kept, damage):
    first = factor(made)
    (file,) = files(kept)
    whole = file.read_bytes()
    file.write_bytes(DAMAGES[damage](whole))
    compiling.forget_programs()
    np.testing.assert_array_equal(factor(made), first)
    assert compiling.counts == {made: 2}
    (again,) = files(kept)
    assert again == file
    compiling.forget_programs()
    np.testing.assert_array_equal(factor(made), first)
    assert compiling.counts[FOUND[made]] == 1


def test_a_whole_file_that_does_not_load_is_left_and_does_not_matter(kept, monkeypatch):
    first = factor()
    (file,) = files(kept)
    before = file.read_bytes()

    def refuse(*args):
        raise RuntimeError("compiled for features that this machine lacks")

    monkeypatch.setattr("jax.experimental.serialize_executable.deserialize_and_load", refuse)
    compiling.forget_programs()
    np.testing.assert_array_equal(factor(), first)
    assert files(kept) == [file]
    assert file.read_bytes() == before


def test_beside_the_persistent_cache_of_jax(kept, tmp_path):
    """What JAX loaded from its own cache would serialise without its kernels."""
    before = {name: getattr(jax.config, name) for name in CACHE}
    try:
        for name, value in zip(CACHE, (str(tmp_path / "jax"), 0.0, -1), strict=True):
            jax.config.update(name, value)
        first = factor()
        for _ in range(2):
            (file,) = files(kept)
            file.unlink()
            compiling.forget_programs()
            np.testing.assert_array_equal(factor(), first)
        (file,) = files(kept)
        compiling.forget_programs()
        np.testing.assert_array_equal(factor(), first)
        assert compiling.counts == {"compiled": 3, "loaded": 1}
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


CACHE = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def test_a_program_that_loads_and_does_not_run_is_compiled_again(kept):
    """A file as of a loaded program: the executable is there, its kernels are not."""
    first = factor()
    (file,) = files(kept)
    compiled, skeleton = store.load(file.stem)
    file.unlink()
    store.save(file.stem, compiled, 1, skeleton)
    with pytest.raises(jax.errors.JaxRuntimeError):
        jax.block_until_ready(store.load(file.stem)[0](MATRIX))
    compiling.forget_programs()
    np.testing.assert_array_equal(factor(), first)
    assert compiling.counts == {"compiled": 2}
    files(kept)
    compiling.forget_programs()
    np.testing.assert_array_equal(factor(), first)
    assert compiling.counts == {"compiled": 2, "loaded": 1}


@pytest.mark.parametrize("what", ["versions", "sources", "processor"])
def test_what_another_version_or_machine_made_is_not_read(made, kept, monkeypatch, what):
    factor(made)
    monkeypatch.setattr(names, what, lambda: "another")
    names.environment.cache_clear()
    compiling.forget_programs()
    factor(made)
    names.environment.cache_clear()
    assert compiling.counts == {made: 2}
    assert len(files(kept)) == 2


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owner here")
@pytest.mark.parametrize("who", ["a folder that others can write", "a file that others can write", "a link"])
def test_files_that_others_may_have_written_are_not_loaded(made, kept, who):
    factor(made)
    (file,) = files(kept)
    if who == "a link":
        file.rename(file.with_suffix(".moved"))
        file.symlink_to(file.with_suffix(".moved"))
    else:
        (kept if "folder" in who else file).chmod(0o777)
    compiling.forget_programs()
    factor(made)
    assert compiling.counts == {made: 2}


def test_another_owner_is_not_trusted(made, kept, monkeypatch):
    factor(made)
    assert len(files(kept)) == 1
    monkeypatch.setattr(os, "geteuid", lambda: 12345, raising=False)
    compiling.forget_programs()
    factor(made)
    assert compiling.counts == {made: 2}


@pytest.mark.parametrize("said", ["0", "off", "FALSE"])
def test_it_can_be_turned_off(monkeypatch, said, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("LMMJAX_CACHE", said)
    compiling.forget_programs()
    factor()
    assert store.place() is None
    assert not list(tmp_path.iterdir())


def test_the_folder_is_the_users_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("LMMJAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform != "win32":
        assert store.place() == tmp_path / "lmmjax" / "programs"


def test_what_is_not_used_for_longest_goes_first(kept):
    kept.mkdir(mode=0o700)
    for k, name in enumerate(("new", "old", "older")):
        (kept / f"{name}.program").write_bytes(bytes(100))
        os.utime(kept / f"{name}.program", (1e9 - k, 1e9 - k))
    place.trim(250)
    assert [file.name for file in files(kept)] == ["new.program", "old.program"]


# --- names -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Family:
    """A static value whose class is not the package's."""

    size: int


def _local(x):
    return x


NAMELESS = {
    "lambda": lambda x: x,
    "function of a test": _local,
    "class of a test": Family,
    "its instance": Family(2),
    "object": object(),
    "partial": functools.partial(_local, 1),
    "array of objects": np.array([object()]),
}


@pytest.mark.parametrize("what", NAMELESS)
def test_what_can_change_without_its_name_has_none(what):
    with pytest.raises(store.Unnamed):
        names.canonical(NAMELESS[what])


def test_equal_values_have_equal_names_and_others_have_others():
    values = [
        None, True, 1, 1.0, "1", b"1", (1,), [1], {1}, {"a": 1}, {"a": 2}, (1, 2), ((1,), 2), float("nan"),
        -0.0, 0.0, 1e-300, np.float32(1), np.float64(1), np.ones(2), np.ones((2, 1)), np.ones(1200),
        np.ones(1200) + np.eye(1, 1200, 600)[0], np.dtype("f4"),
        lj.AR1("t"), lj.AR1("t", group="g"), lj.Toeplitz("t"), lj.Unstructured("t"), estimate,
        functools.partial(estimate, method="newton"), int,
    ]  # fmt: skip
    texts = [names.canonical(value) for value in values]
    assert len(set(texts)) == len(values)
    assert names.canonical(lj.AR1("t")) == names.canonical(lj.AR1("t"))


def test_the_structure_of_a_problem_is_in_the_name():
    def text(**options):
        x = np.column_stack([np.ones(12), np.arange(12.0)])
        groups = np.repeat(np.arange(4), 3)
        problem = problem_from_arrays(np.sin(np.arange(12.0)), x, groups, x, **options)
        return names.treedef(jax.tree.structure(problem))

    with jax.enable_x64(True):
        assert text() == text() != text(covariance="diag")
        assert "Unstructured" in text()


def test_programs_of_closures_are_not_kept(kept):
    compiling.quick_jit(lambda x: x + 1)(MATRIX)
    compiling.quick_jit(_local)(MATRIX)
    assert not files(kept)
    compiling.quick_jit(lambda x: x + 1, name="one more")(MATRIX)
    assert len(files(kept)) == 1


def test_a_program_that_numpy_cannot_play_is_traced_once(kept):
    key = jax.random.key(0)

    def draw():
        return compiling.quick_jit(jax.random.split, name="keys", static_argnums=1)(key, 3)

    first = draw()
    assert len(files(kept)) == 2
    compiling.forget_programs()
    with jax.no_tracing():
        again = draw()
    assert compiling.counts == {"compiled": 1, "read": 1, "loaded": 1}
    assert (again == first).all()


def test_settings_of_jax_make_other_programs(made, kept):
    factor(made)
    with jax.default_matmul_precision("highest"):
        factor(made)
    with jax.enable_x64(True):
        double = compiling.quick_jit(jax.numpy.linalg.cholesky, plays=made == "traced")
        assert double(MATRIX.astype(float)).dtype == np.float64
    assert len(files(kept)) == 3


# --- fits ------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, warnings
import numpy as np, pandas as pd
import lmmjax as lj
from lmmjax.arrays.compile import counts
warnings.simplefilter("error")
warnings.simplefilter("ignore", lj.FitWarning)
g, t = np.divmod(np.arange(40), 5)
e = np.sin(np.arange(40.0) ** 2)
d = pd.DataFrame({"y": e + 0.3 * np.cos(g) * t, "t": t * 1.0, "g": g, "h": (g * 3 + t) % 4})
ar1 = lj.AR1("t", group="g")
formulas = "y ~ t + (t | g)", "y ~ t + (1 | g) + (1 | h)", "y ~ t"
for f, r in list(zip(formulas, (None, None, ar1)))[:MODELS]:
    m = lj.lmm(f, d, residual=r)
    print(m.fit().summary())
    print(m.fit().ranef() if "|" in f else "", m.fit().coef_table("kenward-roger").to_numpy().tobytes().hex())
Y = np.sin(np.outer(np.arange(40.0) + 1, np.arange(600.0) + 1))
b = lj.lmm("~ t + (1 | g)", d).fit_batch(Y)
print(b.params.to_numpy().tobytes().hex()[-4000:], np.sum(b.converged))
print(dict(counts), file=sys.stderr)
"""


def begin(folder, played=True):
    environment = os.environ | {"LMMJAX_CACHE": str(folder)}
    now = "MODELS = 3\n" if played else "import lmmjax.arrays.program as p; p.ENOUGH, MODELS = 0, 1\n"
    return subprocess.Popen(
        [sys.executable, "-c", now + PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def end(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    lines = err.strip().splitlines()
    assert len(lines) == 1, "XLA says something where a program is loaded"
    return out, lines[0]


def test_what_xla_says_of_preferences_is_kept_from_the_user(capfd):
    def load():
        os.write(2, b"before\nE1128 Target machine feature +prefer-no-gather is not supported\nafter\n")
        raise ValueError("what it was")

    with pytest.raises(ValueError, match="what it was"), without_preferences():
        load()
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "before\nafter\nlater\n"


@pytest.mark.parametrize("played", [True, False])
def test_two_processes_at_once_and_a_later_one_say_the_same(tmp_path, played):
    (first, _), (second, _) = map(end, [begin(tmp_path, played), begin(tmp_path, played)])
    assert first == second
    later, counts = end(begin(tmp_path, played))
    assert later == first
    assert "compiled" not in counts
    assert "traced" not in counts
    alone, counts = end(begin("0", played))
    assert alone == first
    assert "loaded" not in counts
    assert "read" not in counts


# --- people who wait ---------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(announce, "WAIT", 0.0)
    monkeypatch.setenv("LMMJAX_QUIET", "0")


def wait():
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)


def test_a_long_compilation_says_so_on_a_terminal(terminal, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with announce.announced(kept=True):
        wait()
    assert capsys.readouterr().err == "lmmjax: compiling this kind of model, once; kept for next time\n"
    with announce.announced(kept=False), announce.announced(kept=True):
        wait()
    assert capsys.readouterr().err == "lmmjax: compiling this kind of model, once\n"


def test_a_short_one_says_nothing(terminal, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(announce, "WAIT", 60.0)
    with announce.announced(kept=True):
        pass
    wait()
    assert not capsys.readouterr().err


@pytest.mark.parametrize("how", ["asked to be quiet", "no terminal"])
def test_others_are_told_nothing(terminal, capsys, monkeypatch, how):
    quiet = how == "asked to be quiet"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: quiet, raising=False)
    monkeypatch.setenv("LMMJAX_QUIET", "1" if quiet else "0")
    with announce.announced(kept=True):
        wait()
    assert not capsys.readouterr().err
