"""What the command adds to a table of results is what the methods of a batch give."""

import importlib

import numpy as np
import pandas as pd
import pytest
from command_line import run

import lmmjax as lj
from lmmjax.cli.batch_results import long_table, with_q
from lmmjax.postestimation.hypotheses.batch_tests import adjust

FORMULA = "~ x + arm + (1 | g)"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("batch"), np.random.default_rng(0)
    design = pd.DataFrame({"x": rng.normal(size=24), "arm": ["a", "b", "c"] * 8, "g": np.repeat(range(6), 4)})
    y = pd.DataFrame(rng.normal(size=(24, 8)) + rng.normal(size=(6, 8)).repeat(4, axis=0)).add_prefix("y")
    design.to_csv(folder / "design.csv", index=False)
    y.to_csv(folder / "y.csv", index=False)
    arm = pd.Categorical(design["arm"], categories=["c", "a", "b"])
    return folder, y, lj.lmm(FORMULA, design.assign(arm=arm)).fit_batch(y)


def test_moderated_tests_shares_reference_levels_and_q(files):
    folder, _, fits = files
    words = (
        "--moderate",
        "--icc",
        "--ref",
        "arm=c",
        "--contrast",
        "D = arm[T.a] - arm[T.b]",
        "--test",
        "x = 0",
    )
    out = folder / "wide.parquet"
    result = run("batch", FORMULA, folder / "design.csv", folder / "y.csv", "-o", out, *words)
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(out).set_index("response")
    moderated = fits.moderate()
    for name, own in {
        "x": moderated.top("x", None),
        "D": moderated.top(contrast="arm[T.a] - arm[T.b]", n=None),
    }.items():
        for what in ("estimate", "se", "df", "t", "p", "q"):
            np.testing.assert_allclose(table[f"{what}:{name}"], own.loc[table.index, what], rtol=1e-6)
    np.testing.assert_allclose(table["F:x = 0"], moderated.test("x")["F"], rtol=1e-6)
    np.testing.assert_allclose(table["q:x = 0"], adjust(table["p:x = 0"].to_numpy()))
    np.testing.assert_allclose(table["icc:g"], fits.icc(), rtol=1e-5)
    s2 = moderated.table.drop_duplicates("response")
    np.testing.assert_allclose(table["s2_post"], s2["s2_post"], rtol=1e-6)
    joint = run(
        *(
            "batch",
            FORMULA,
            folder / "design.csv",
            folder / "y.csv",
            "-o",
            folder / "j.parquet",
            "--moderate",
        ),
        *(
            "--ref",
            "arm=c",
            "--test",
            "arm[T.a] = 0.5; arm[T.b] = 0; arm[T.a] - arm[T.b] = 0.5",
            "--chunk",
            "3",
        ),
    )
    assert joint.exit_code == 0, joint.output
    wide = pd.read_parquet(folder / "j.parquet")
    assert not any(name.startswith("unmoderated") for name in wide)
    found = wide.filter(regex="^(F|num_df|den_df|p):arm.*;").set_axis(["F", "num_df", "den_df", "p"], axis=1)
    own = moderated.test(["arm[T.a]", "arm[T.b]"], [0.5, 0.0])
    # the third equation follows from the others
    np.testing.assert_allclose(found, own[list(found)], rtol=1e-6)


def test_what_is_moderated_can_be_resumed(files, monkeypatch):
    """A run that was killed before all parts were there, after that, and before the table was moderated."""
    folder, _, fits = files
    out = folder / "resumed.parquet"
    words = (
        "batch",
        FORMULA,
        folder / "design.csv",
        folder / "y.csv",
        "-o",
        out,
        "--ref",
        "arm=c",
        "--resume",
    )
    words = (*words, "--moderate", "--icc", "--chunk", "3", "--ml")
    for place in ("write_part", "join", "moderate_results"):
        with monkeypatch.context() as patch:
            room = {"write_part": "lmmjax.stream.parts", "join": "lmmjax.stream.carry"}.get(
                place, "lmmjax.stream.run"
            )
            patch.setattr(f"{room}.{place}", killed(f"{room}.{place}", 1 if place == "write_part" else 0))
            assert run(*words).exit_code != 0
    other = run(*(word for word in words if word != "--icc"))
    assert "differs in the icc: True there, False here" in " ".join(other.output.split())
    for _ in range(2):
        result = run(*words)
        assert result.exit_code == 0, result.output
        table = pd.read_parquet(out).set_index("response")
        own = fits.moderate().top("x", None).loc[table.index]
        for what in ("estimate", "se", "df", "t", "p", "q"):
            np.testing.assert_allclose(table[f"{what}:x"], own[what], rtol=1e-6)
        np.testing.assert_allclose(table["icc:g"], fits.model.fit_batch(files[1], False).icc(), rtol=1e-5)


def killed(name, after):
    """A function that fails from a call on."""
    module, _, attribute = name.rpartition(".")
    own, calls = getattr(importlib.import_module(module), attribute), []

    def call(*arguments, **options):
        calls.append(1)
        if len(calls) > after:
            raise RuntimeError("killed")
        return own(*arguments, **options)

    return call


def test_long_tables(files):
    folder, y, fits = files
    out = folder / "long.csv"
    words = ("--long", "--ref", "arm=c", "--icc")
    assert run("batch", FORMULA, folder / "design.csv", folder / "y.csv", "-o", out, *words).exit_code == 0
    long = pd.read_csv(out)
    terms = ["Intercept", "x", "arm[T.a]", "arm[T.b]", "sd_(Intercept)|g", "sigma", "icc:g"]
    assert long["term"].tolist() == terms * len(y.columns)
    own = long[long["term"] == "x"].set_index("response")
    np.testing.assert_allclose(own["t"], fits.tvalues["x"], rtol=1e-6)
    np.testing.assert_allclose(long.loc[long["term"] == "sigma", "estimate"], fits.sigma, rtol=1e-6)


def test_q_values_are_added_once_and_keep_the_manifest(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    p = np.array([0.01, np.nan, 0.04, 0.02])
    columns = {"response": list("abcd"), "p:x": p, "sigma": [1.0] * 4, "status": ["converged"] * 4}
    table = pa.table(columns).replace_schema_metadata({b"lmmjax": b"{}"})
    pq.write_table(table, tmp_path / "o.parquet")
    for _ in range(2):
        with_q(tmp_path / "o.parquet")
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.column_names == ["response", "p:x", "q:x", "sigma", "status"]
    assert found.schema.metadata[b"lmmjax"] == b"{}"
    np.testing.assert_array_equal(found["q:x"].to_numpy(), adjust(p))
    assert long_table(found.to_pandas())["term"].tolist() == ["x", "sigma"] * 4


def test_images_in_and_maps_out(files):
    nib = pytest.importorskip("nibabel")
    folder, _, _ = files
    rng, design = np.random.default_rng(1), pd.read_csv(folder / "design.csv")
    values = rng.normal(size=(2, 2, 2, 24))
    mask = nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4))
    nib.save(mask, folder / "mask.nii.gz")
    paths = [folder / f"s{k}.nii.gz" for k in range(24)]
    for k, path in enumerate(paths):
        nib.save(nib.Nifti1Image(values[..., k], np.eye(4)), path)
    design.assign(scan=paths).to_csv(folder / "scans.csv", index=False)
    words = ("--mask", folder / "mask.nii.gz", "--maps", folder / "maps", "--icc")
    result = run("batch", FORMULA, folder / "scans.csv", "scan", "-o", folder / "i.csv", *words)
    assert result.exit_code == 0, result.output
    fits = lj.lmm(FORMULA, design).fit_batch(values.reshape(8, 24).T)
    found = nib.load(folder / "maps" / "t_x.nii.gz").get_fdata()
    np.testing.assert_allclose(found.ravel(), fits.tvalues["x"], rtol=1e-6)
    refused = run(
        "batch", FORMULA, folder / "design.csv", folder / "y.csv", "-o", folder / "m.csv", "--maps", folder
    )
    assert "--maps is for responses that are images" in refused.output
