"""A scan that is planned once and made shard by shard: joined it is what `lmmjax scan` writes."""

import json
import random
import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import lmmjax as lj
from lmmjax.cli import app
from lmmjax.gram.spectral import decomposition
from lmmjax.stream.lock import locked

pytest.importorskip("pyarrow")
N, M, COUNT = 20, 10, 4
RNG = np.random.default_rng(3)
IDS = [f"i{k:02d}" for k in range(N)]
G = RNG.integers(0, 3, (N, M)).astype(float)
# nobody has the rarer allele of the third shard's
G[:, 5:7] = 2.0
HALF = RNG.normal(size=(N, 30))
FORMULA = "~ x + (1 | id)"
CHUNK = ("--chunk", 3)


def run(*arguments, code=0, env=None):
    result = CliRunner().invoke(app, [*map(str, arguments)], env=env)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def shards(*arguments, **options):
    return run("shards", *arguments, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a scan, and its table by one process in the same shards."""
    folder = tmp_path_factory.mktemp("whole")
    pd.DataFrame({"id": IDS, "x": RNG.normal(size=N)}).to_csv(folder / "d.csv", index=False)
    markers = pd.DataFrame(G, index=pd.Index(IDS, name="id"), columns=[f"rs{k}" for k in range(M)])
    markers.reset_index().to_csv(folder / "g.csv", index=False)
    values = RNG.normal(size=(N, 2)) + G[:, :1]
    pd.DataFrame(values, columns=["a", "b"]).to_csv(folder / "y.csv", index=False)
    lj.Kernel(HALF @ HALF.T / 30, IDS).save(folder / "K.npz")
    run("scan", *asked(folder), "-o", folder / "one.parquet", *CHUNK)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def asked(folder):
    words = (FORMULA, folder / "d.csv", folder / "g.csv", "--responses", folder / "y.csv")
    return (*words, "--kernel", f"id={folder / 'K.npz'}")


def plan(folder, out="out.parquet", *more, **options):
    return shards("plan-scan", *asked(folder), "-o", folder / out, *CHUNK, *more, **options)


def test_shards_in_any_order_are_one_scan(folder):
    """One twice, one lost, one damaged; the data that the fits were made from may go."""
    out, parts = folder / "out.parquet", folder / "out.parquet.parts"
    assert "10 markers in 4 shards, 0 to 3: lmmjax shards run" in plan(folder)
    for name in ("d.csv", "y.csv", "K.npz"):
        (folder / name).unlink()
    assert "4 of 4 shards are not done: run 0-3, then join" in shards("join", out, code=2)
    order = [*range(COUNT), 2]
    random.Random(1).shuffle(order)
    said = [shards("run", out, env={"SLURM_ARRAY_TASK_ID": str(k)}) for k in order]
    assert sum("was there" in text for text in said) == 1
    assert sum("scanned in" in text for text in said) == COUNT
    (parts / "part-000001.parquet").unlink()
    damaged = bytearray((parts / "part-000003.parquet").read_bytes())
    damaged[60:80] = bytes(b ^ 255 for b in damaged[60:80])
    (parts / "part-000003.parquet").write_bytes(damaged)
    assert "2 of 4 shards are done missing: 1 damaged: 3" in shards("status", out)
    for k in shards("status", out, "--todo", "--lines").split():
        shards("run", out, "--shard", k)
    assert "has 4, 0 to 3" in shards("run", out, "--shard", COUNT, code=2)
    text = shards("join", out)
    assert "10 markers: 20 rows, 2 markers without results (rs5: constant, rs6: constant)" in text
    assert out.read_bytes() == (folder / "one.parquet").read_bytes()
    assert not parts.exists()
    assert "joined already" in shards("run", out, "--shard", 0)
    assert text == shards("join", out)


def test_what_one_begins_another_ends(folder):
    """A scan in one process takes over the parts of shards."""
    plan(folder)
    shards("run", folder / "out.parquet", "--shard", 2)
    run("scan", *asked(folder), "-o", folder / "out.parquet", "--resume")
    assert (folder / "out.parquet").read_bytes() == (folder / "one.parquet").read_bytes()


def test_hits_and_folders(folder):
    """The best of all markers are chosen when all parts are there; a shard may keep nothing."""
    chromosomes = pd.DataFrame({"marker": [f"rs{k}" for k in range(M)], "chromosome": [1] * 4 + [2] * 6})
    chromosomes.to_csv(folder / "c.csv", index=False)
    words = ("--top", 1, "--lod", 1, "--maf", 0.1, "--loco", "vanraden", "--chromosomes", folder / "c.csv")
    run("scan", *asked(folder), "-o", folder / "two.parquet", *CHUNK, *words)
    plan(folder, "out.parquet", *words)
    for k in range(COUNT):
        shards("run", folder / "out.parquet", "--shard", k)
    shards("join", folder / "out.parquet")
    assert (folder / "out.parquet").read_bytes() == (folder / "two.parquet").read_bytes()

    assert "name a file as sink" in plan(folder, "parts", "--top", 1, code=2)
    plan(folder, "parts")
    for k in range(COUNT):
        shards("run", folder / "parts", "--shard", k)
    for _ in range(2):
        assert "20 rows" in shards("join", folder / "parts")
    one = pd.read_parquet(folder / "one.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "parts"), one, check_dtype=False)


def test_what_has_changed_is_refused(folder):
    out = folder / "out.parquet"
    plan(folder)
    assert "4 shards" in plan(folder)
    assert "differs in the ratio: 'null' there, 'refit' here" in plan(
        folder, "out.parquet", "--ratio", "refit", code=2
    )
    assert "degrees of freedom are n - p - 1" in plan(folder, "ddf.parquet", "--ddf", "satt", code=2)
    with locked(out):
        assert "wait for it" in plan(folder, code=2)
    fits = folder / "out.parquet.parts" / "_fits.lmm"
    fits.unlink()
    assert "_fits.lmm is not there: plan the same again" in shards("run", out, "--shard", 0, code=2)
    plan(folder)
    shards("run", out, "--shard", 0)
    markers = pd.read_csv(folder / "g.csv")
    markers.iloc[0, 1] = 2.0 - markers.iloc[0, 1] + (markers.iloc[0, 1] == 1.0)
    markers.to_csv(folder / "g.csv", index=False)
    assert "g.csv was changed after the plan: restore it" in shards("run", out, "--shard", 1, code=2)
    assert "differs in the values of the first marker" in plan(folder, code=2)
    y = pd.read_csv(folder / "y.csv")
    y.assign(a=y["a"] + 1.0).to_csv(folder / "y.csv", index=False)
    (folder / "g.csv").unlink()
    shutil.copy(folder / "one.parquet", folder / "g.csv")
    assert "g.csv" in shards("run", out, "--shard", 1, code=2)
    path = folder / "out.parquet.parts" / "_plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"manifest": "0" * 64}))
    assert "was changed after the plan: delete the folder" in shards("status", out, code=2)


def test_shards_decompose_no_kernel(folder, monkeypatch):
    """The plan does; without a chromosome the first shard that needs a kernel, for all others."""
    made = []
    plain = decomposition.decompose
    monkeypatch.setattr(decomposition, "decompose", lambda *a: made.append(1) or plain(*a))
    plan(folder)
    assert len(made) == 1
    for k in range(COUNT):
        shards("run", folder / "out.parquet", "--shard", k)
    assert len(made) == 1
    shards("join", folder / "out.parquet")
    assert (folder / "out.parquet").read_bytes() == (folder / "one.parquet").read_bytes()

    chromosomes = pd.DataFrame({"marker": [f"rs{k}" for k in range(M)], "chromosome": [1] * 4 + [2] * 6})
    chromosomes.to_csv(folder / "c.csv", index=False)
    words = ("--loco", "vanraden", "--chromosomes", folder / "c.csv")
    run("scan", *asked(folder), "-o", folder / "two.parquet", *CHUNK, *words)
    plan(folder, "loco.parquet", *words)
    parts = folder / "loco.parquet.parts"
    made.clear()
    for k in range(COUNT):
        shards("run", folder / "loco.parquet", "--shard", k)
        # one that a damaged disk has is made anew
        if k == 2:
            (own,) = parts.glob("_without-2.*.npz")
            own.write_bytes(b"no kernel")
    assert len(made) == 3
    assert not list(parts.glob("*.tmp"))
    shards("join", folder / "loco.parquet")
    assert (folder / "loco.parquet").read_bytes() == (folder / "two.parquet").read_bytes()
