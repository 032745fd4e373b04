"""Files of a streamed batch: what is resumed, locked, damaged, or may not be replaced."""

import json
import os
import platform
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import lmmjax as lj
from lmmjax.cli import app
from lmmjax.stream import lock as locks
from lmmjax.stream import stream_batch
from lmmjax.stream.digests import digest, digest_columns
from lmmjax.stream.files import target, written_whole
from lmmjax.stream.lock import locked
from lmmjax.stream.manifest import fingerprint

FORMULA = "~ x + (1 | g)"
N, T, CHUNK = 48, 12, 2
RNG = np.random.default_rng(3)
DATA = pd.DataFrame({"x": RNG.normal(size=N), "g": np.repeat(np.arange(8), 6), "t": np.tile(np.arange(6), 8)})
VALUES = RNG.normal(size=(N, T)) + RNG.normal(size=(8, T))[DATA["g"]]
BESIDE = RNG.uniform(0.5, 2, (N, T))


@pytest.fixture(scope="module")
def model():
    return lj.lmm(FORMULA, DATA)


def changed(values, column, row=5):
    """The same but for one value."""
    other = values.copy()
    other[row, column] += 1e-9
    return other


def stop_after(out, data, count=2, values=VALUES, **options):
    def stop(done, total):
        if done >= count * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_batch(data, values, out, chunk=CHUNK, progress=stop, **options)


# --- what was done is done again if anything has changed ---------------------------------------------------


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("source", "values of the responses"),
        ("weights", "values of the weights"),
        ("offset", "values of the offset"),
    ],
)
def test_any_changed_value_is_seen(model, tmp_path, what, message, finished):
    out, given = tmp_path / "out.parquet", {"source": VALUES, "weights": BESIDE, "offset": -BESIDE}
    if finished:
        stream_batch(model.data, out=out, chunk=CHUNK, **given)
    else:
        values = {name: array for name, array in given.items() if name != "source"}
        stop_after(out, model.data, **values)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.parquet"))
    where = "out.parquet" if finished else r"part-000001.parquet \(responses 2 to 3\)"
    with pytest.raises(ValueError, match=rf"{where} cannot be resumed, it differs in the {message}$"):
        stream_batch(model.data, out=out, resume=True, **given | {what: changed(given[what], 3)})
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.parquet")) == before
    left = stream_batch(model.data, out=out, resume=True, **given).n_fitted
    assert left == 0 if finished else left in (T - 2 * CHUNK, T - 3 * CHUNK)


def test_what_is_not_done_may_change(model, tmp_path):
    """A response that was not there yet is read as it is now."""
    out = tmp_path / "out.parquet"
    stop_after(out, model.data)
    later = VALUES.copy()
    later[:, -1] *= 3
    stream_batch(model.data, later, out, resume=True)
    stream_batch(model.data, later, tmp_path / "whole.parquet", chunk=CHUNK)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


MODELS = {
    "another time": ({"residual": lj.AR1("t", group="g")}, {"t": DATA["t"] * 2}),
    "another residual structure": ({"residual": lj.CompoundSymmetry(group="g")}, {}),
    "another option of one": ({"residual": lj.ARMA("t", group="g", p=2, q=0)}, {}),
    "a variance function": ({"residual": lj.AR1("t", group="g") * lj.VarIdent("t")}, {}),
    "prior weights": ({"residual": lj.AR1("t", group="g"), "weights": BESIDE[:, 0]}, {}),
    "an offset": ({"residual": lj.AR1("t", group="g"), "offset": BESIDE[:, 0]}, {}),
    "known variances": ({"residual": lj.KnownVariance("v")}, {}),
    "other known variances": ({"residual": lj.KnownVariance("v")}, {"v": BESIDE[:, 2]}),
}


def test_designs_have_different_fingerprints(model):
    made = [fingerprint(model.data)]
    base = lj.lmm(FORMULA, DATA, residual=lj.AR1("t", group="g"))
    made.append(fingerprint(base.data))
    data = DATA.assign(v=BESIDE[:, 1])
    for options, columns in MODELS.values():
        made.append(fingerprint(lj.lmm(FORMULA, data.assign(**columns), **options).data))
    made.append(fingerprint(lj.lmm("~ x + cs(0 + C(t) | g)", DATA).data))
    made.append(fingerprint(lj.lmm("~ x + homcs(0 + C(t) | g)", DATA).data))
    assert len(set(made)) == len(made)
    model.fit_batch(VALUES)
    assert fingerprint(model.data) == made[0] == fingerprint(lj.lmm(FORMULA, DATA).data)


def test_digests_do_not_depend_on_the_layout():
    for values in (np.asfortranarray(VALUES), np.hstack([VALUES, VALUES])[:, :T], VALUES.astype(object)):
        assert digest_columns(values.astype(float)) == digest_columns(VALUES)
    assert digest_columns(VALUES.astype(np.float32)) != digest_columns(VALUES)
    assert digest_columns(VALUES.reshape(T, N)) != digest_columns(VALUES)
    wide = np.tile(VALUES, 20)
    assert digest_columns(wide) != digest_columns(changed(wide, 200))


def test_digests_tell_values_apart():
    values = [None, 0, 0.0, False, "0", b"0", [0], (0,), {"a": 0}, {"b": 0}, [[0]], [0, 0], np.zeros(1), {0}]
    assert len({digest(value) for value in values}) == len(values)
    assert digest([1, [2, 3]]) != digest([1, 2, 3])
    assert digest(np.array(["a", "b"], object)) == digest(np.array(["a", "b"], object))


def test_a_part_is_a_function_of_manifest_and_number(model, tmp_path, monkeypatch):
    """Made by two runs, it is the same file."""
    for name in ("a", "b"):
        stop_after(tmp_path / name, model.data)
    for path in sorted((tmp_path / "a.parts").glob("*.parquet")):
        other = tmp_path / "b.parts" / path.name
        assert path.read_bytes() == other.read_bytes()
        stamp = json.loads(pq.read_schema(path).metadata[b"lmmjax"])
        assert set(stamp) == {"run", "part", "digests"}


# --- two runs at once ------------------------------------------------------------------------------------


def test_two_runs_do_not_write_to_one_file(model, tmp_path):
    out = tmp_path / "out.parquet"
    with (
        locked(out),
        pytest.raises(
            ValueError, match=rf"process {os.getpid()} on .* writes .*out.parquet since .* delete .*lock"
        ),
    ):
        stream_batch(model.data, VALUES, out)
    stream_batch(model.data, VALUES, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


HOLD = """
import sys, time
from pathlib import Path
from lmmjax.stream.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    out = tmp_path / "out.parquet"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {process.pid} on"), locked(out):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert (tmp_path / "out.parquet.lock").exists()
    with locked(out):
        assert json.loads((tmp_path / "out.parquet.lock").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flock", [True, False])
@pytest.mark.parametrize(
    ("left", "taken"),
    [
        ({"host": "another", "pid": 1}, False),
        ({"host": platform.node(), "pid": 2**22 + 1}, True),
        ({"host": platform.node(), "pid": os.getppid()}, None),
    ],
)
def test_what_is_left_of_locks(tmp_path, monkeypatch, left, taken, flock):
    """With and without locks of the system; a living process that holds none there has lost it."""
    if not flock:
        monkeypatch.setattr(locks, "fcntl", None)
    file = tmp_path / "out.lock"
    file.write_text(json.dumps(left))
    if flock if taken is None else taken:
        with locked(tmp_path / "out"):
            assert json.loads(file.read_text())["pid"] == os.getpid()
        assert not file.exists()
    else:
        with (
            pytest.raises(ValueError, match=rf"process {left['pid']} on .* or delete {file}"),
            locked(tmp_path / "out"),
        ):
            pass
        assert json.loads(file.read_text()) == left


# --- damage ----------------------------------------------------------------------------------------------


def cut(path, keep=0.5):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])


def flip(path):
    """Change bytes of the first data page."""
    whole = bytearray(path.read_bytes())
    for k in range(40, 60):
        whole[k] ^= 0xFF
    path.write_bytes(whole)


@pytest.mark.parametrize(
    "damage", [cut, flip, lambda path: path.write_bytes(b"")], ids=["cut", "flip", "empty"]
)
def test_a_damaged_part_is_named_and_made_again(model, tmp_path, damage):
    out = tmp_path / "out.parquet"
    stop_after(out, model.data)
    part = tmp_path / "out.parquet.parts" / "part-000001.parquet"
    damage(part)
    with pytest.raises(ValueError, match=rf"part-000001.parquet cannot be read .* delete {part} and resume"):
        stream_batch(model.data, VALUES, out, resume=True)
    part.unlink()
    stream_batch(model.data, VALUES, out, resume=True)
    stream_batch(model.data, VALUES, tmp_path / "whole.parquet", chunk=CHUNK)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"chunk": "a"}', '{"chunk": 0}'])
def test_a_damaged_manifest_is_named(model, tmp_path, text):
    out = tmp_path / "out.parquet"
    stop_after(out, model.data)
    (tmp_path / "out.parquet.parts" / "_manifest.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"_manifest.json cannot be read .* delete the folder .*\.parts and run"
    ):
        stream_batch(model.data, VALUES, out, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_parts_without_a_manifest_are_not_no_parts(model, tmp_path, resume):
    out = tmp_path / "out.parquet"
    stop_after(out, model.data)
    manifest = tmp_path / "out.parquet.parts" / "_manifest.json"
    manifest.unlink()
    with pytest.raises(
        ValueError, match=r"\.parts has . files, such as part-000000.parquet, but no _manifest.json"
    ):
        stream_batch(model.data, VALUES, out, resume=resume)


def test_a_folder_of_somebody_else_is_left_alone(model, tmp_path):
    folder = tmp_path / "out.parts"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"such as thesis.txt, but no _manifest"):
        stream_batch(model.data, VALUES, tmp_path / "out")
    shutil.rmtree(folder)
    folder.write_text("mine")
    with pytest.raises(ValueError, match="is no folder, and parts of the results belong there"):
        stream_batch(model.data, VALUES, tmp_path / "out")


def test_parts_of_another_run_are_not_joined(model, tmp_path):
    stop_after(tmp_path / "a", model.data)
    stop_after(tmp_path / "b", model.data, reml=False)
    name = "part-000001.parquet"
    shutil.copy(tmp_path / "b.parts" / name, tmp_path / "a.parts" / name)
    with pytest.raises(ValueError, match=rf"{name} .* cannot be resumed, it differs in the run"):
        stream_batch(model.data, VALUES, tmp_path / "a", resume=True)


@pytest.mark.parametrize("damage", [cut, flip], ids=["cut", "flip"])
def test_damaged_results_are_named(model, tmp_path, damage):
    out = tmp_path / "out.parquet"
    stream_batch(model.data, VALUES, out)
    damage(out)
    with pytest.raises(ValueError, match=rf"out.parquet cannot be read .* delete {out} and run again"):
        stream_batch(model.data, VALUES, out, resume=True)


def npy(path):
    np.save(path, VALUES)


def parquet(path):
    pd.DataFrame(VALUES).add_prefix("g").to_parquet(path)


def hdf5(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["y"] = VALUES


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("y.npy", npy),
        ("y.parquet", parquet),
        ("y.h5", hdf5),
        ("y.h5ad", hdf5),
        ("y.zip", npy),
        ("z.npy", None),
    ],
)
@pytest.mark.parametrize(
    "damage", [cut, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"PK\3\4 no")]
)
def test_damaged_sources_are_named(model, tmp_path, name, write, damage):
    if name == "y.zip":
        pytest.importorskip("zarr")
    path = tmp_path / name
    if write is None:
        np.savez(tmp_path / "z.npz", y=VALUES)
        (tmp_path / "z.npz").rename(path)
    elif name.endswith(".zip"):
        write(tmp_path / "y.npy")
        (tmp_path / "y.npy").rename(path)
    else:
        write(path)
    damage(path)
    with pytest.raises(ValueError, match=name):
        stream_batch(model.data, path, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_damaged_page_of_a_source_is_named(model, tmp_path):
    path = tmp_path / "y.parquet"
    frame = pd.DataFrame(VALUES).add_prefix("g")
    frame.to_parquet(path, write_page_checksum=True)
    flip(path)
    with pytest.raises(ValueError, match=r"y.parquet cannot be read \(.*\): restore"):
        stream_batch(model.data, path, tmp_path / "out.parquet")


# --- targets ---------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    DATA.assign(y=VALUES[:, 0]).to_csv(tmp_path / "design.csv", index=False)
    np.save(tmp_path / "y.npy", VALUES)
    return tmp_path


@pytest.mark.parametrize("name", ["design.csv", "y.npy", "link", "hard", "sub/../y.npy"])
@pytest.mark.parametrize("command", ["fit", "batch"])
def test_an_input_is_not_replaced(files, name, command):
    (files / "sub").mkdir()
    read = files / ("design.csv" if command == "fit" else "y.npy")
    (files / "link").symlink_to(read)
    os.link(read, files / "hard")
    path = "design.csv" if command == "fit" and name.endswith("y.npy") else name
    if command == "fit":
        arguments = ["fit", "y " + FORMULA, files / "design.csv", "--json", files / path]
    else:
        arguments = ["batch", FORMULA, files / "design.csv", files / "y.npy", "-o", files / path]
    before = (files / path).read_bytes()
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 2
    assert "is the input: name another file" in result.output
    assert (files / path).read_bytes() == before


@pytest.mark.parametrize("command", ["fit", "batch"])
@pytest.mark.parametrize("path", ["/dev/null", "fifo", "device"])
def test_a_device_is_not_replaced(files, command, path):
    os.mkfifo(files / "fifo")
    (files / "device").symlink_to("/dev/null")
    if command == "fit":
        arguments = ["fit", "y " + FORMULA, files / "design.csv", "--json", files / path]
    else:
        arguments = ["batch", FORMULA, files / "design.csv", files / "y.npy", "-o", files / path]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 2
    assert "is a device and no file: name another file" in result.output


def test_arrays_on_disk_are_inputs_too(model, files):
    mapped = np.load(files / "y.npy", mmap_mode="r")
    with pytest.raises(ValueError, match="is the input"):
        stream_batch(model.data, mapped, files / "y.npy")
    h5py = pytest.importorskip("h5py")
    with h5py.File(files / "y.h5", "w") as file:
        file["y"] = VALUES
        with pytest.raises(ValueError, match="is the input"):
            stream_batch(model.data, file["y"], files / "y.h5")
    with pytest.raises(ValueError, match="is the input"):
        stream_batch(model.data, f"{files / 'y.h5'}::y", files / "y.h5")


def test_an_input_is_no_part(model, tmp_path):
    (tmp_path / "out.parts").mkdir()
    npy(tmp_path / "out.parts" / "y.npy")
    with pytest.raises(ValueError, match="is where parts of the results are kept"):
        stream_batch(model.data, tmp_path / "out.parts" / "y.npy", tmp_path / "out")
    with pytest.raises(ValueError, match="is inside the input"):
        target(tmp_path / "out.parts" / "x.parquet", [tmp_path / "out.parts"], "out")


def test_a_link_is_followed(model, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "out.parquet").symlink_to(tmp_path / "there" / "real.parquet")
    stream_batch(model.data, VALUES, tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").is_symlink()
    assert pq.read_metadata(tmp_path / "there" / "real.parquet").num_rows == T


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    writing = written_whole(path)
    writing.__enter__().write(b"half")
    writing.__exit__(KeyError, KeyError(), None)
    assert path.read_text() == "old"
    with (
        pytest.raises(OSError, match=r"cannot be written: No space left on device: '.*a.json'") as caught,
        written_whole(path),
    ):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with written_whole(path) as file:
        file.write(b"new")
    assert path.read_text() == "new"
