"""Streamed batches: the numbers of one batch in memory; a killed run resumes, loses and repeats nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import t as student
from typer.testing import CliRunner

import lmmjax as lj
from lmmjax.cli import app
from lmmjax.fitted import fit_many
from lmmjax.stream import Source, chunks, stream_batch
from lmmjax.stream.chunks import chunk_size
from lmmjax.stream.inputs import named_contrasts
from lmmjax.stream.parts import write_part
from lmmjax.stream.work import ranges

FORMULA, SLOPES = "~ x + (1 | g)", "~ x + (x | g)"
N, T, CHUNK = 48, 23, 4
FIT, WRITE = "lmmjax.stream.work.fit_many", "lmmjax.stream.parts.write_part"


def make():
    """(data, responses (N, T)), the same in every process."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(8), 6), rng.normal(size=N)
    b = rng.normal(size=(2, 8, T))
    values = 1 + x[:, None] * (1 + 0.5 * b[1, g]) + b[0, g] + 0.7 * rng.normal(size=(N, T))
    return pd.DataFrame({"x": x, "g": g}), values


DATA, VALUES = make()


@pytest.fixture(scope="module")
def model():
    return lj.lmm(FORMULA, DATA)


def recording(values=VALUES, names=None):
    """A source and the list of the ranges that are read from it."""
    read = []

    def part(start, stop):
        read.append((start, stop))
        return values[:, start:stop]

    return Source(pd.RangeIndex(values.shape[1]) if names is None else names, len(values), part), read


@pytest.fixture
def fitted(monkeypatch):
    """Number of responses of every call of `fit_many`."""
    sizes = []

    def counting(data, responses, *args, **options):
        sizes.append(responses.shape[1])
        return fit_many(data, responses, *args, **options)

    monkeypatch.setattr(FIT, counting)
    return sizes


@pytest.mark.parametrize("reml", [True, False])
def test_equals_one_batch_in_memory(tmp_path, reml):
    model = lj.lmm(SLOPES, DATA)
    frame = pd.DataFrame(VALUES, columns=[f"gene.{k}" for k in range(T)])
    frame.to_parquet(tmp_path / "y.parquet")
    done = model.stream_batch(tmp_path / "y.parquet", tmp_path / "out.parquet", reml=reml, chunk=CHUNK)
    fits = model.fit_batch(frame, reml)
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert list(out["response"]) == list(frame)
    for what, table in {
        "estimate": fits.params,
        "se": fits.bse,
        "t": fits.tvalues,
        "p": fits.pvalues,
    }.items():
        for term in ("Intercept", "x"):
            np.testing.assert_allclose(out[f"{what}:{term}"], table[term], rtol=1e-6, err_msg=what)
    for k, name in enumerate(frame):
        where = [("g", "(Intercept)", ""), ("g", "x", ""), ("Residual", "", "")]
        values = np.sqrt(fits.varcorr.iloc[k][where].to_numpy())
        got = out.loc[k, ["sd_(Intercept)|g", "sd_x|g", "sigma"]].to_numpy(float)
        np.testing.assert_allclose(got, values, rtol=1e-6, atol=1e-6, err_msg=name)
    assert "cor_x.(Intercept)|g" in out
    np.testing.assert_allclose(out["deviance"], fits.deviance, rtol=1e-10)
    assert list(out["status"]) == list(fits.status)
    assert list(out["is_singular"]) == list(fits.is_singular)
    assert list(out["n_iter"]) == list(fits.estimate.n_iter)
    assert (done.n_responses, done.n_fitted, done.n_failed) == (T, T, 0)
    assert done.n_singular == fits.is_singular.sum()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "y.parquet"]


def test_memory_is_bounded_by_chunks(model, tmp_path, monkeypatch):
    """No read is larger than a chunk, and at most the next chunk is read while one is fitted."""
    source, read = recording()
    ahead = []

    def fit(*args, **options):
        ahead.append(len(read))
        return fit_many(*args, **options)

    monkeypatch.setattr(FIT, fit)
    stream_batch(model.data, source, tmp_path / "out.parquet", chunk=CHUNK)
    parts = ranges(T, CHUNK)
    assert read == [(0, 1), *parts]
    assert max(stop - start for start, stop in read) <= CHUNK
    # k chunks were fitted before; the first read is of the fingerprint
    assert all(count <= 1 + k + 2 for k, count in enumerate(ahead))


@pytest.mark.parametrize(("total", "chunk"), [(1, 1), (23, 4), (24, 4), (5, 100), (4097, 2048)])
def test_ranges_cover_all_once(total, chunk):
    parts = ranges(total, chunk)
    assert [k for start, stop in parts for k in range(start, stop)] == list(range(total))
    sizes = [stop - start for start, stop in parts]
    assert max(sizes) <= chunk
    assert max(sizes) - min(sizes) <= 1


def test_chunk_follows_memory(model, monkeypatch):
    assert chunks.available_memory() > 0
    most = chunk_size(model.data)
    monkeypatch.setattr(chunks, "available_memory", lambda: 1 << 20)
    assert 1 <= chunk_size(model.data) < most
    monkeypatch.setattr(chunks, "available_memory", lambda: 0)
    assert chunk_size(model.data) == 1


def test_progress(model, tmp_path):
    seen = []
    stream_batch(
        model.data,
        VALUES,
        tmp_path / "out.parquet",
        chunk=8,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, T), (7, T), (15, T), (T, T)]


def test_bad_responses_have_a_status_and_one_warning(model, tmp_path):
    values = VALUES.copy()
    values[:, 3], values[0, 9], values[:, 20] = np.nan, np.inf, 1.0
    with pytest.warns(UserWarning, match="3 of 23 responses could not be fitted") as caught:
        done = stream_batch(model.data, values, tmp_path / "out.parquet", chunk=CHUNK)
    assert len(caught) == 1
    assert done.n_failed == 3
    out = pd.read_parquet(tmp_path / "out.parquet").set_index("response")
    assert list(out.index[out["status"] != "converged"]) == [3, 9, 20]
    assert out.loc[[3, 9], "estimate:x"].isna().all()
    stream_batch(model.data, VALUES, tmp_path / "good.parquet", chunk=CHUNK)
    good = pd.read_parquet(tmp_path / "good.parquet").set_index("response")
    pd.testing.assert_frame_equal(out.drop(index=[3, 9, 20]), good.drop(index=[3, 9, 20]), rtol=1e-12)


def test_rows_dropped_from_the_design_are_dropped_here(tmp_path):
    lost = DATA.assign(x=DATA["x"].where(DATA.index != 5))
    model = lj.lmm(FORMULA, lost)
    stream_batch(model.data, VALUES, tmp_path / "all.parquet", chunk=CHUNK)
    stream_batch(model.data, np.delete(VALUES, 5, axis=0), tmp_path / "kept.parquet", chunk=CHUNK)
    assert pq.read_table(tmp_path / "all.parquet").equals(pq.read_table(tmp_path / "kept.parquet"))


# --- weights, offsets, contrasts -------------------------------------------------------------------------


def beside():
    """Weights and offsets (N, T), some weights 0 and some values missing."""
    rng = np.random.default_rng(7)
    weights, offset = rng.uniform(0.5, 2.0, (N, T)), rng.normal(size=(N, T))
    weights[3, 5] = 0.0
    return weights, offset


@pytest.mark.parametrize(
    ("kind", "which"),
    [("arrays", "weights"), ("arrays", "offset"), ("arrays", "both"), ("files", "both"), ("rows", "both")],
)
def test_weights_and_offsets_equal_one_batch_in_memory(model, tmp_path, which, kind):
    names = [f"g{k}" for k in range(T)]
    given = dict(zip(("weights", "offset"), beside(), strict=True))
    given = given if which == "both" else {which: given[which]}
    values = VALUES.copy()
    values[4, 6] = np.nan
    if kind == "arrays":
        options = {"source": values, **given}
    else:
        options = {}
        for what, array in {"source": values, **given}.items():
            frame = pd.DataFrame(array, columns=names)
            options[what] = str(tmp_path / f"{what}.parquet")
            if kind == "rows":
                frame = frame.T.rename_axis("gene").rename(columns="s{}".format).reset_index()
            frame.to_parquet(options[what], index=False)
        options |= {"rows": True, "index": "gene"} if kind == "rows" else {}
    stream_batch(model.data, out=tmp_path / "out.parquet", chunk=3 * CHUNK, **options)
    fits = model.fit_batch(values, **given)
    out = pd.read_parquet(tmp_path / "out.parquet")
    np.testing.assert_allclose(out["deviance"], fits.deviance, rtol=1e-10)
    np.testing.assert_allclose(out["estimate:x"], fits.params["x"], rtol=1e-6)
    assert np.all(np.abs(fits.params["x"] - model.fit_batch(values).params["x"]) > 1e-6)


def test_a_bad_weight_spoils_its_response_only(model, tmp_path):
    weights, _ = beside()
    values = VALUES.copy()
    values[7, 2] = weights[7, 2] = np.nan
    weights[0, 9], weights[1, 11] = -1.0, np.nan
    with pytest.warns(UserWarning, match="2 of 23 responses could not be fitted"):
        stream_batch(model.data, values, tmp_path / "out.parquet", weights=weights, chunk=CHUNK)
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert list(out.index[out["status"] == "not_finite"]) == [9, 11]
    weights[7, 2], weights[:, [9, 11]] = 0.0, 1.0
    good = np.delete(np.arange(T), [9, 11])
    fits = model.fit_batch(values, weights=weights)
    np.testing.assert_allclose(out["deviance"][good], fits.deviance[good], rtol=1e-10)


def test_rows_dropped_from_the_design_are_dropped_from_weights(tmp_path):
    model = lj.lmm(FORMULA, DATA.assign(x=DATA["x"].where(DATA.index != 5)))
    weights, offset = beside()
    stream_batch(model.data, VALUES, tmp_path / "all.parquet", weights=weights, offset=offset)
    values, weights, offset = (np.delete(a, 5, axis=0) for a in (VALUES, weights, offset))
    stream_batch(model.data, values, tmp_path / "kept.parquet", weights=weights, offset=offset)
    all_, kept = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("all", "kept"))
    assert all_.equals(kept)


@pytest.mark.parametrize("what", ["weights", "offset"])
def test_what_does_not_match_the_responses_is_refused(model, tmp_path, fitted, what):
    frame = pd.DataFrame(VALUES).add_prefix("g")
    swapped = frame[["g1", "g0", *frame.columns[2:]]]
    for given, message in (
        (VALUES[:, 1:], rf"{what} have shape \(48, 22\), the responses \(48, 23\)"),
        (VALUES[1:], rf"{what} have shape \(47, 23\)"),
        (swapped, f"column 0 of the {what} is called 'g1', that of the responses 'g0'"),
        ([1, 2], "of type list are not known"),
    ):
        with pytest.raises(ValueError, match=message):
            stream_batch(model.data, frame, tmp_path / "out.parquet", **{what: given})
    np.save(tmp_path / "w.npy", VALUES)
    with pytest.raises(ValueError, match="is the input"):
        stream_batch(model.data, VALUES, tmp_path / "w.npy", **{what: tmp_path / "w.npy"})
    assert not fitted
    assert not list(tmp_path.glob("*.parts"))


CONTRASTS = ["x - 0.5 * Intercept", " sum of both=Intercept + x"]


@pytest.mark.parametrize("bad", [False, True])
def test_contrasts(model, tmp_path, bad):
    values = VALUES.copy()
    values[:, 3] = np.inf if bad else values[:, 3]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*could not be fitted")
        stream_batch(model.data, values, tmp_path / "out.parquet", contrasts=CONTRASTS, chunk=CHUNK)
        fits = model.fit_batch(values)
    out = pd.read_parquet(tmp_path / "out.parquet")
    # L β and √(L Φ Lᵀ), written out
    for name, row in {"x - 0.5 * Intercept": [-0.5, 1.0], "sum of both": [1.0, 1.0]}.items():
        estimate = fits.params.to_numpy() @ row
        se = np.sqrt([row @ phi @ row for phi in fits.estimate.cov_beta])
        np.testing.assert_allclose(out[f"estimate:{name}"], estimate, rtol=1e-6)
        np.testing.assert_allclose(out[f"se:{name}"], se, rtol=1e-6)
        np.testing.assert_allclose(out[f"t:{name}"], estimate / se, rtol=1e-6)
        p = 2 * student.sf(np.abs(estimate / se), out[f"df:{name}"])
        np.testing.assert_allclose(out[f"p:{name}"], p, rtol=1e-5)
        np.testing.assert_allclose(out[f"df:{name}"], fits.contrast([row])["df"], rtol=1e-9)
    at = list(out).index("p:sum of both")
    assert list(out)[at + 1] == "sd_(Intercept)|g"


@pytest.mark.parametrize(
    ("contrasts", "names"),
    [
        (None, []),
        ([], []),
        ("x - Intercept", ["x - Intercept"]),
        ("d = x - Intercept", ["d"]),
        ({"x": 2.0}, ["2 * x"]),
        (np.array([[1.0, 1.0], [1.0, -1.0]]), ["Intercept + x", "Intercept - x"]),
        (["a=x", {"x": 1, "Intercept": 1}], ["a", "Intercept + x"]),
    ],
)
def test_names_of_contrasts(contrasts, names):
    assert list(named_contrasts(contrasts, ["Intercept", "x"])) == names


def test_an_equals_sign_in_a_coefficient_names_no_contrast():
    x_names = ["Intercept", "C(g, Treatment(reference=2))[T.1]", "I(x == 1)[T.True]"]
    texts = [f"{x_names[1]} - {x_names[2]}", f"late = {x_names[2]} - {x_names[1]}"]
    found = named_contrasts(texts, x_names)
    assert list(found) == [texts[0], "late"]
    np.testing.assert_array_equal(list(found.values()), [[0, 1, -1], [0, -1, 1]])


@pytest.mark.parametrize(
    ("contrasts", "message"),
    [
        (["x + z"], "unknown coefficient 'z'"),
        (["a = x", "a = -x"], "two contrasts are called 'a': name the contrast, as 'NAME = -x'"),
        (["x"], "a fixed effect is called 'x'"),
        (["a = "], "is empty: there are"),
        (np.ones(3), r"contrasts have shape \(3,\)"),
    ],
)
def test_a_bad_contrast_is_refused_before_anything_is_fitted(model, tmp_path, fitted, contrasts, message):
    with pytest.raises(ValueError, match=message):
        stream_batch(model.data, VALUES, tmp_path / "out.parquet", contrasts=contrasts)
    assert not fitted
    assert not list(tmp_path.iterdir())


# --- killed and resumed ----------------------------------------------------------------------------------

SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from test_stream import CHUNK, DATA, FORMULA, VALUES, recording
import lmmjax as lj
from lmmjax.stream import Source

source, _ = recording()
def slow(start, stop):
    time.sleep(0.25)
    return source.read(start, stop)
lj.lmm(FORMULA, DATA).stream_batch(Source(source.names, source.n_rows, slow), {out!r}, chunk=CHUNK)
"""


def test_a_killed_run_resumes_and_does_nothing_twice(model, tmp_path, fitted):
    out = tmp_path / "out.parquet"
    parts = tmp_path / "out.parquet.parts"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(tests=os.path.dirname(__file__), out=str(out))]
    )
    try:
        end = time.monotonic() + 120
        while len(list(parts.glob("*.parquet"))) < 2 and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not out.exists()
    ready = sorted(parts.glob("*.parquet"))
    kept = sum(pq.read_metadata(path).num_rows for path in ready)
    assert 0 < kept < T
    stamps = [path.stat().st_mtime_ns for path in ready]
    # what a kill in the middle of writing leaves
    (parts / "part-000005.tmp").write_bytes(b"half a part")

    source, read = recording()
    seen = []

    def watch(done, total):
        seen.append(done)
        assert [path.stat().st_mtime_ns for path in ready] == stamps

    done = stream_batch(model.data, source, out, resume=True, progress=watch)
    assert (done.n_fitted, sum(fitted), seen[0]) == (T - kept, T - kept, kept)
    # the first response for the manifest, what was done for its digests, what is left
    assert read == [(0, 1), *ranges(T, CHUNK)]
    stream_batch(model.data, VALUES, tmp_path / "whole.parquet", chunk=CHUNK)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))
    assert not parts.exists()

    fitted.clear()
    assert stream_batch(model.data, VALUES, out, resume=True).n_fitted == 0
    assert not fitted


def interrupted(model, out, values=VALUES, after=2, **options):
    """Run until `after` chunks are written."""

    def stop(done, total):
        if done >= after * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_batch(model.data, values, out, chunk=CHUNK, progress=stop, **options)


@pytest.mark.parametrize("moment", ["parts._remove", "carry.join"])
def test_killed_at_the_end(model, tmp_path, fitted, monkeypatch, moment):
    out = tmp_path / "out.parquet"

    def killed(*_, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"lmmjax.stream.{moment}", killed)
        with pytest.raises(KeyboardInterrupt):
            stream_batch(model.data, VALUES, out, chunk=CHUNK)
    fitted.clear()
    assert stream_batch(model.data, VALUES, out, resume=True).n_fitted == 0
    assert not fitted
    assert pq.read_metadata(out).num_rows == T


def test_a_part_that_cannot_be_written_ends_the_run(model, tmp_path, monkeypatch):
    out = tmp_path / "out.parquet"

    def full(parts, k, columns, stamp):
        if k == 2:
            raise OSError(28, "No space left on device")
        write_part(parts, k, columns, stamp)

    with monkeypatch.context() as patch:
        patch.setattr(WRITE, full)
        with pytest.raises(OSError, match="No space left"):
            stream_batch(model.data, VALUES, out, chunk=CHUNK)
    first = ranges(T, CHUNK)[1][1]
    written = len(list((tmp_path / "out.parquet.parts").glob("*.parquet")))
    assert written in (2, 3)
    done = stream_batch(model.data, VALUES, out, chunk=CHUNK, resume=True)
    assert first <= done.n_resumed == T - done.n_fitted < T


def test_a_chunk_is_written_while_the_next_is_fitted(model, tmp_path, monkeypatch):
    written = []
    fitting = threading.Event()

    def write(*arguments):
        # the last chunk has none after it
        overlapped = fitting.wait(0 if len(written) == len(ranges(T, CHUNK)) - 1 else 60)
        fitting.clear()
        written.append(overlapped)
        write_part(*arguments)

    def fit(*arguments, **options):
        if count := len(started):
            fitting.set()
        started.append(count)
        return fit_many(*arguments, **options)

    started = []
    monkeypatch.setattr(WRITE, write)
    monkeypatch.setattr(FIT, fit)
    stream_batch(model.data, VALUES, tmp_path / "out.parquet", chunk=CHUNK)
    assert all(written[:-1])


def test_resume_of_nothing_starts(model, tmp_path):
    assert stream_batch(model.data, VALUES, tmp_path / "out.parquet", resume=True).n_fitted == T


OTHER = VALUES.copy()
OTHER[0, 0] += 1
GIVEN = {"weights": beside()[0], "contrasts": CONTRASTS}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that was interrupted and one that ended, by whether it ended; to be copied."""
    model, folders = lj.lmm(FORMULA, DATA), {k: tmp_path_factory.mktemp("run") for k in (False, True)}
    interrupted(model, folders[False] / "out.parquet", **GIVEN)
    stream_batch(model.data, VALUES, folders[True] / "out.parquet", chunk=CHUNK, **GIVEN)
    return folders


@pytest.mark.parametrize(
    ("formula", "data", "source", "options", "message"),
    [
        ("~ 1 + x + (1 | g)", DATA, VALUES, {}, r"formula: '~ x .* there, '~ 1 \+ x .* here"),
        (FORMULA, DATA, VALUES, {"reml": False}, "method: 'REML' there, 'ML' here"),
        (FORMULA, DATA, VALUES[:, 1:], {"weights": None}, "n_responses: 23 there, 22 here"),
        (FORMULA, DATA, VALUES, {"chunk": 5}, "chunk: 4 there, 5 here"),
        (FORMULA, DATA.assign(x=DATA["x"] + 1), VALUES, {}, "design$"),
        (FORMULA, DATA, OTHER, {}, "values of the first response$"),
        (FORMULA, DATA, pd.DataFrame(VALUES).add_prefix("g"), {}, "names of the responses$"),
        (FORMULA, DATA, VALUES, {"weights": None}, "weights$"),
        (FORMULA, DATA, VALUES, {"weights": beside()[0] + 1}, "weights$"),
        (FORMULA, DATA, VALUES, {"offset": beside()[1]}, "offset$"),
        (FORMULA, DATA, VALUES, {"contrasts": None}, r"contrasts: \[\['x - .* there, \[\] here"),
        (FORMULA, DATA, VALUES, {"contrasts": CONTRASTS[::-1]}, "contrasts: "),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_something_else_is_not_resumed(
    runs, model, tmp_path, formula, data, source, options, message, finished
):
    out = shutil.copytree(runs[finished], tmp_path / "run") / "out.parquet"
    options = GIVEN | options
    if finished and "chunk" in options:
        assert stream_batch(model.data, VALUES, out, resume=True, **options).n_fitted == 0
        return
    with pytest.raises(ValueError, match=message):
        stream_batch(lj.lmm(formula, data).data, source, out, resume=True, **options)


def test_another_version_does_not_resume(model, tmp_path, monkeypatch):
    out = tmp_path / "out.parquet"
    interrupted(model, out)
    monkeypatch.setattr("lmmjax.stream.manifest.__version__", "99")
    with pytest.raises(ValueError, match=r"version of lmmjax: '.*' there, '99' here"):
        stream_batch(model.data, VALUES, out, resume=True)


def test_an_unfinished_run_is_not_thrown_away(model, tmp_path):
    out = tmp_path / "out.parquet"
    interrupted(model, out)
    with pytest.raises(ValueError, match="a run that did not end"):
        stream_batch(model.data, VALUES, out)
    assert 0 < stream_batch(model.data, VALUES, out, resume=True).n_fitted < T


def test_refused_before_anything_is_fitted(model, tmp_path, fitted):
    (tmp_path / "y.parquet").touch()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    out = tmp_path / "out.parquet"
    for arguments, options, message in (
        ((VALUES.T, out), {}, "responses have 23 rows; the data of the design have 48:"),
        ((VALUES, out), {"chunk": 0}, "chunk must be at least 1"),
        ((VALUES, tmp_path), {}, "is a folder"),
        ((tmp_path / "y.parquet", tmp_path / "y.parquet"), {}, "is the input"),
        ((VALUES, tmp_path / "other.parquet"), {"resume": True}, "is no result of a batch"),
    ):
        with pytest.raises(ValueError, match=message):
            stream_batch(model.data, *arguments, **options)
    assert not fitted
    assert not list(tmp_path.glob("*.parts"))


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    DATA.to_csv(tmp_path / "design.csv", index=False)
    frame = pd.DataFrame(VALUES, columns=[f"g{k}" for k in range(T)])
    frame.insert(0, "sample", [f"s{k}" for k in range(N)])
    frame.to_parquet(tmp_path / "y.parquet", index=False)
    return tmp_path


def test_command_with_a_row_a_response(files):
    frame = pd.DataFrame(VALUES.T, columns=[f"s{k}" for k in range(N)])
    frame.insert(0, "gene", [f"g{k}" for k in range(T)])
    frame.to_parquet(files / "rows.parquet", index=False)
    assert run(files, "--chunk", "5").exit_code == 0
    expected = pq.read_table(files / "out.parquet")
    for options in ((), ("--index", "gene")):
        result = run(files, "--chunk", "5", "--rows", "--force", *options, responses="rows.parquet")
        assert result.exit_code == 0, result.output
        assert pq.read_table(files / "out.parquet").equals(expected)


def run(files, *options, responses="y.parquet", formula=FORMULA):
    arguments = ["batch", formula, files / "design.csv", files / responses, "-o", files / "out.parquet"]
    return CliRunner().invoke(app, [str(a) for a in (*arguments, *options)])


@pytest.mark.parametrize("options", [(), ("--ml",), ("--chunk", "5"), ("--index", "sample")])
def test_command(model, files, options):
    result = run(files, *options)
    assert result.exit_code == 0, result.output
    assert "23 responses fitted in" in result.output
    fits = model.fit_batch(VALUES, "--ml" not in options)
    out = pd.read_parquet(files / "out.parquet")
    np.testing.assert_allclose(out["deviance"], fits.deviance, rtol=1e-10)
    manifest = json.loads(pq.read_schema(files / "out.parquet").metadata[b"lmmjax"])
    assert manifest["method"] == ("ML" if "--ml" in options else "REML")


def test_command_with_weights_offsets_and_contrasts(model, files):
    for name, array in zip(("w", "o"), beside(), strict=True):
        pd.DataFrame(array, columns=[f"g{k}" for k in range(T)]).to_parquet(files / f"{name}.parquet")
    options = ["--response-weights", files / "w.parquet", "--response-offset", files / "o.parquet"]
    result = run(files, *options, "--contrast", CONTRASTS[0], "--contrast", CONTRASTS[1])
    assert result.exit_code == 0, result.output
    weights, offset = beside()
    fits = model.fit_batch(VALUES, weights=weights, offset=offset)
    out = pd.read_parquet(files / "out.parquet")
    np.testing.assert_allclose(out["deviance"], fits.deviance, rtol=1e-10)
    # a contrast of coefficients that are reported, too
    difference = out["estimate:x"] - 0.5 * out["estimate:Intercept"]
    np.testing.assert_allclose(out["estimate:x - 0.5 * Intercept"], difference, rtol=1e-12, atol=1e-12)
    assert "p:sum of both" in out


def test_command_resumes(model, files):
    interrupted(model, files / "out.parquet", files / "y.parquet")
    result = run(files)
    assert result.exit_code == 2
    assert "a run that did not end" in result.output
    result = run(files, "--resume")
    assert result.exit_code == 0, result.output
    assert "were done before" in result.output
    assert pq.read_metadata(files / "out.parquet").num_rows == T


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--contrast", "x - z"), "unknown coefficient 'z'"),
        (("--response-weights", "absent.npy"), "absent.npy: No such file"),
    ],
)
def test_command_refuses_bad_options(files, options, message):
    result = run(files, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"responses": "absent.parquet"}, "absent.parquet: No such file"),
        ({"responses": "design.xlsx"}, "files of kind .xlsx are not known"),
        ({"formula": "~ z + (1 | g)"}, "unknown column 'z'"),
    ],
)
def test_command_refuses_bad_input(files, options, message):
    result = run(files, **options)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
