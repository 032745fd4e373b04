"""Shards in any order, some twice, killed or damaged: joined they are what one run writes, to the byte."""

import json
import random
import shutil

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import lmmjax as lj
from lmmjax.cli import app
from lmmjax.stream import jobs, shards
from lmmjax.stream.jobs import make, make_part, put_job
from lmmjax.stream.lock import locked
from lmmjax.stream.portable import portable
from lmmjax.stream.work import work_of

FORMULA = "~ x + (1 | g)"
N, T, COUNT = 24, 50, 10
RNG = np.random.default_rng(5)
DATA = pd.DataFrame({"x": RNG.normal(size=N), "g": np.repeat(np.arange(6), 4)})
VALUES = RNG.normal(size=(N, T)) + RNG.normal(size=(6, T))[DATA["g"]]


def run(*arguments, code=0, env=None):
    result = CliRunner().invoke(app, ["shards", *map(str, arguments)], env=env)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a batch, and the results of one process in the same shards."""
    folder = tmp_path_factory.mktemp("whole")
    DATA.to_csv(folder / "d.csv", index=False)
    names = [f"gene{k}" for k in range(T)]
    pd.DataFrame(VALUES, columns=names).to_parquet(folder / "y.parquet")
    model = lj.lmm(FORMULA, folder / "d.csv")
    model.stream_batch(folder / "y.parquet", folder / "one.parquet", chunk=T // COUNT)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """The files, and a plan of ten shards."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    plan = ("plan", FORMULA, tmp_path / "d.csv", tmp_path / "y.parquet", "-o", tmp_path / "out.parquet")
    assert "50 responses in 10 shards, 0 to 9" in run(*plan, "--chunk", T // COUNT)
    return tmp_path


def same(folder):
    return (folder / "out.parquet").read_bytes() == (folder / "one.parquet").read_bytes()


def test_a_plan_has_the_options_of_a_batch(tmp_path, monkeypatch):
    """Reference levels, kernels by relative paths, moderated tests, shares of the variance."""
    monkeypatch.chdir(tmp_path)
    arm, names = np.tile(["b", "a"], N // 2), [f"gene{k}" for k in range(6)]
    DATA.assign(arm=arm).to_csv("d.csv", index=False)
    pd.DataFrame(VALUES[:, :6], columns=names).to_parquet("y.parquet")
    kernel = pd.DataFrame(0.2 + 0.8 * np.eye(6), index=pd.RangeIndex(6, name="id"))
    kernel.reset_index().to_csv("k.csv", index=False)
    options = ("--ref", "arm=b", "--kernel", "g=k.csv", "--moderate", "--icc")
    run("plan", "~ arm + (1 | g)", "d.csv", "y.parquet", "-o", "out.parquet", *options)
    monkeypatch.chdir(tmp_path.parent)
    run("run", tmp_path / "out.parquet", "--shard", 0)
    run("join", tmp_path / "out.parquet")
    data = DATA.assign(arm=pd.Categorical(arm, ["b", "a"]))
    model = lj.lmm("~ arm + (1 | g)", data, kernels={"g": lj.Kernel(kernel.to_numpy(), range(6))})
    model.stream_batch(VALUES[:, :6], tmp_path / "one.parquet", moderate=True, icc=True)
    ours, theirs = (pq.read_table(tmp_path / name).to_pandas() for name in ("out.parquet", "one.parquet"))
    assert {"s2_post", "icc:g", "estimate:arm[T.a]"} <= set(ours)
    pd.testing.assert_frame_equal(ours.drop(columns="response"), theirs.drop(columns="response"))
    # a kernel that was changed after the plan
    run(
        "plan",
        "~ arm + (1 | g)",
        tmp_path / "d.csv",
        tmp_path / "y.parquet",
        "-o",
        tmp_path / "two.parquet",
        "--kernel",
        f"g={tmp_path / 'k.csv'}",
    )
    (kernel + 0.1).reset_index().assign(id=range(6)).to_csv(tmp_path / "k.csv", index=False)
    assert "planned for something else" in run("run", tmp_path / "two.parquet", "--shard", 0, code=2)


def test_an_array_in_random_order(folder):
    """Some shards run twice, one is left half written, one part is damaged, one lost."""
    out, parts = folder / "out.parquet", folder / "out.parquet.parts"
    order = [*range(COUNT), 3, 8]
    random.Random(1).shuffle(order)
    said = [run("run", out, env={"SLURM_ARRAY_TASK_ID": str(k)}) for k in order]
    assert sum("was there" in text for text in said) == 2
    before = {path.name: path.read_bytes() for path in parts.glob("*.parquet")}
    # what a worker leaves that is killed while it writes
    (parts / ".part-000004.parquet.0a1b.tmp").write_bytes(b"PAR1 half")
    (parts / "part-000004.parquet").unlink()
    damaged = bytearray(before["part-000007.parquet"])
    damaged[60:80] = bytes(b ^ 255 for b in damaged[60:80])
    (parts / "part-000007.parquet").write_bytes(damaged)
    (parts / "part-000006.parquet").write_bytes(b"")

    text = run("status", out)
    assert "7 of 10 shards are done" in text
    assert "missing: 4" in text
    assert "damaged: 6-7" in text
    assert run("status", out, "--todo").strip() == "4,6-7"
    assert run("status", out, "--todo", "--lines").split() == ["4", "6", "7"]
    text = run("join", out, code=2)
    assert "3 of 10 shards are not done: run 4,6-7, then join" in text
    assert not out.exists()
    for k in (6, 7, 4):
        assert "fitted in" in run("run", out, "--shard", k)
    assert {path.name: path.read_bytes() for path in parts.glob("*.parquet")} == before

    # a folder of parts is a result
    names = [f"gene{k}" for k in range(T)]
    assert sorted(pq.read_table(parts)["response"].to_pylist()) == sorted(names)
    assert pl.scan_parquet(parts / "*.parquet").select("response").collect()["response"].to_list() == names
    duckdb = pytest.importorskip("duckdb")
    assert duckdb.sql(f"select count(*) from '{parts}/*.parquet'").fetchall() == [(T,)]

    assert "50 responses" in run("join", out)
    assert same(folder)
    assert not parts.exists()
    assert "joined" in run("status", out)
    assert "joined already" in run("run", out, "--shard", 0)
    run("join", out)
    assert same(folder)


def test_what_one_begins_another_ends(folder):
    """A run in one process takes over the parts of shards, and shards those of a run."""
    out = folder / "out.parquet"
    for k in (0, 5):
        run("run", out, "--shard", k)
    model = lj.lmm(FORMULA, folder / "d.csv")
    done = model.stream_batch(folder / "y.parquet", out, resume=True)
    assert (done.n_resumed, done.n_fitted) == (10, 40)
    assert same(folder)


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({"SLURM_ARRAY_TASK_ID": "9"}, 9),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, 0),
        ({"LSB_JOBINDEX": "10"}, 9),
        ({"LSB_JOBINDEX": "0"}, None),
        ({"SLURM_ARRAY_TASK_ID": "10"}, None),
        ({"SLURM_ARRAY_TASK_ID": ""}, None),
    ],
)
def test_which_shard_a_task_of_an_array_makes(folder, monkeypatch, environment, shard):
    made = []
    monkeypatch.setattr("lmmjax.cli.shards.make_part", lambda work, parts, k, force: made.append(k) or True)
    text = run("run", folder / "out.parquet", code=0 if made or shard is not None else 2, env=environment)
    assert made == ([] if shard is None else [shard])
    if shard is None:
        assert (
            "there is no shard 10" if "10" in environment.values() else "which shard? give --shard"
        ) in text


def test_beyond_the_last_and_without_a_plan(folder):
    assert "has 10, 0 to 9" in run("run", folder / "out.parquet", "--shard", COUNT, code=2)
    for command in (("run", "--shard", 0), ("status",), ("join",)):
        assert "there is no plan" in run(command[0], folder / "other.parquet", *command[1:], code=2)
    (folder / "out.parquet.parts" / "_plan.json").write_text("[]")
    assert "delete the folder" in run("status", folder / "out.parquet", code=2)


@pytest.mark.parametrize("edit", [{"chunk": 3}, {"n_responses": 10**9}, {"version of lmmjax": "0.0.1"}])
def test_a_manifest_is_not_edited(folder, edit):
    path = folder / "out.parquet.parts" / "_manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    for command in (("run", "--shard", 1), ("status",), ("join",)):
        text = run(command[0], folder / "out.parquet", *command[1:], code=2)
        assert "was changed after the plan: delete the folder" in " ".join(text.split())


def test_an_array_of_fifty_tasks_some_killed(whole, tmp_path, monkeypatch):
    """In random order, some twice, every seventh killed while it writes; then `status` names what is left."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    out, count = tmp_path / "out.parquet", T
    run("plan", FORMULA, tmp_path / "d.csv", tmp_path / "y.parquet", "-o", out, "--chunk", 1)
    order = [*range(count), 3, 8, 21, 44]
    random.Random(3).shuffle(order)
    written = jobs.write_part

    def killed(parts, k, columns, stamp):
        (parts / f".part-{k:06d}.parquet.0a1b.tmp").write_bytes(b"PAR1 half")
        raise SystemExit(137)

    lost = set()
    for task, k in enumerate(order):
        dies = task % 7 == 3
        monkeypatch.setattr(jobs, "write_part", killed if dies else written)
        there = (out.with_name("out.parquet.parts") / f"part-{k:06d}.parquet").exists()
        run("run", out, code=137 if dies and not there else 0, env={"SLURM_ARRAY_TASK_ID": str(k)})
        lost = lost | {k} if dies and not there else lost - {k}
    assert lost
    left = run("status", out, "--todo").strip()
    assert left == shards.spelled(sorted(lost))
    monkeypatch.setattr(jobs, "write_part", written)
    for k in run("status", out, "--todo", "--lines").split():
        run("run", out, env={"SLURM_ARRAY_TASK_ID": k})
    run("join", out)
    model = lj.lmm(FORMULA, tmp_path / "d.csv")
    model.stream_batch(tmp_path / "y.parquet", tmp_path / "single.parquet", chunk=1)
    assert out.read_bytes() == (tmp_path / "single.parquet").read_bytes()


def test_a_plan_is_made_once(folder):
    """The same again changes nothing, another one is refused, and so is what changed since."""
    plan = ["plan", FORMULA, folder / "d.csv", folder / "y.parquet", "-o", folder / "out.parquet"]
    run("run", folder / "out.parquet", "--shard", 2)
    assert "10 shards, 0 to 9, 1 of them done" in run(*plan)
    assert "differs in the method" in run(*plan, "--ml", code=2).replace("\n", " ")
    assert "differs in the chunk" in run(*plan, "--chunk", 7, code=2).replace("\n", " ")
    with locked(folder / "out.parquet"):
        assert "wait for it" in run(*plan, code=2)
    values = pd.read_parquet(folder / "y.parquet")
    values.iloc[0, 12] += 1.0
    values.to_parquet(folder / "y.parquet")
    for command in (("run", folder / "out.parquet", "--shard", 2), plan):
        assert "y.parquet was changed after the plan: restore it" in run(*command, code=2)
    assert "fitted in" in run("run", folder / "out.parquet", "--shard", 2, "--force")
    DATA.assign(x=DATA["x"] + 1).to_csv(folder / "d.csv", index=False)
    text = run("run", folder / "out.parquet", "--shard", 3, "--force", code=2)
    assert "was planned for something else, it differs in the design" in " ".join(text.split())


def test_text_and_options(folder):
    """Results as text; contrasts and tests go with the plan."""
    out = folder / "out.csv"
    plan = ["plan", FORMULA, folder / "d.csv", folder / "y.parquet", "-o", out, "--chunk", T // COUNT]
    run(*plan, "--contrast", "both = x + Intercept", "--test", "x = 0")
    for k in range(COUNT):
        run("run", out, "--shard", k)
    run("join", out)
    found, one = pd.read_csv(out), pd.read_parquet(folder / "one.parquet")
    # what is asked for beside stands in columns of its own; doubles go through text with all digits
    shared = one.drop(columns="reason")
    pd.testing.assert_frame_equal(found[list(shared)], shared, check_dtype=False, rtol=1e-13)
    np.testing.assert_allclose(found["F:x = 0"], one["t:x"] ** 2, rtol=1e-9)
    both = one["estimate:x"] + one["estimate:Intercept"]
    np.testing.assert_allclose(found["estimate:both"], both, rtol=1e-9, atol=1e-12)
    assert sorted(path.name for path in folder.glob("out.csv*")) == ["out.csv"]
    for command in (("run", "--shard", 0), ("status",), ("join",)):
        assert "joined" in run(command[0], out, *command[1:])


# --- what workers load ------------------------------------------------------------------------------------


def job_of(tmp_path, values=VALUES, **options):
    model = lj.lmm(FORMULA, DATA)
    work = work_of(model.data, values, **options).cut(T // COUNT)
    parts = tmp_path / "w.parts"
    shards.begin(parts, work_of(model.data, values, **options).manifest, T // COUNT, False, True)
    given = {"responses": values, **{n: options.get(n) for n in ("weights", "offset")}}
    return work, parts, portable(work, given, {"index": None, "layer": None, "rows": False}, parts)


def test_work_that_was_pickled_makes_the_same_bytes(tmp_path):
    offset = np.where(np.arange(T) % 7 == 0, 0.5, 1.0) * np.ones((N, 1))
    work, parts, moved = job_of(tmp_path, offset=offset, tests="x = 0")
    job = put_job(parts, moved)
    assert make(job, 1)
    there = (parts / "part-000001.parquet").read_bytes()
    assert not make(job, 1)
    (parts / "part-000001.parquet").unlink()
    assert make_part(work, parts, 1)
    assert (parts / "part-000001.parquet").read_bytes() == there


def test_what_is_not_the_callers_is_not_unpickled(tmp_path):
    _, parts, moved = job_of(tmp_path)
    job = put_job(parts, moved)
    (parts / "_work.pickle").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ValueError, match="is not of this run: another one has begun"):
        make(job, 0)
    shutil.rmtree(parts)
    with pytest.raises(ValueError, match="out must be in a folder that all workers share"):
        make(job, 0)


def test_labels_of_rows_are_followed(tmp_path):
    labelled = pd.DataFrame(VALUES, index=[f"s{k}" for k in range(N)]).add_prefix("v")
    data = DATA.set_index(labelled.index)
    shuffled = labelled.sample(frac=1, random_state=0)
    shuffled.to_parquet(tmp_path / "y.parquet")
    model = lj.lmm(FORMULA, data)
    read = []
    for source in (labelled, shuffled, str(tmp_path / "y.parquet")):
        work = work_of(model.data, source).cut(T)
        (tmp_path / "p").mkdir(exist_ok=True)
        moved = portable(
            work, {"responses": source}, {"index": None, "layer": None, "rows": False}, tmp_path / "p"
        )
        read.append(moved.read(0)[0])
        assert json.dumps(work.manifest) == json.dumps(work_of(model.data, labelled).cut(T).manifest)
    np.testing.assert_array_equal(read[1], read[0])
    np.testing.assert_array_equal(read[2], read[0])


def test_spelling_of_numbers():
    assert shards.spelled([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert shards.spelled([]) == ""
