"""Relationships from files, and fits with them, are those of the functions."""

import numpy as np
import pandas as pd
import pytest
from command_line import run

import lmmjax as lj


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("grm"), np.random.default_rng(0)
    ids = [f"m{k}" for k in range(12)]
    markers = pd.DataFrame(rng.integers(0, 3, (12, 40)), index=pd.Index(ids, name="id"))
    markers.columns = [f"rs{k}" for k in range(40)]
    markers.reset_index().to_csv(folder / "markers.csv", index=False)
    np.save(folder / "markers.npy", markers.to_numpy(float))
    data = pd.DataFrame({"id": np.repeat(ids, 2), "arm": ["b", "a", "c"] * 8, "y": rng.normal(size=24)})
    data.to_csv(folder / "data.csv", index=False)
    pedigree = pd.DataFrame({"id": [1, 2, 3, 4], "sire": [0, 0, 1, 1], "dam": [0, 0, 2, 2]})
    pedigree.to_csv(folder / "pedigree.csv", index=False)
    return folder, markers, data, pedigree


def test_genotypes_in_tables_and_arrays(files):
    folder, markers, _, _ = files
    expected = lj.grm(markers, method="gemma-centered", maf=0.2)
    options = ("--method", "gemma-centered", "--maf", "0.2")
    result = run("grm", folder / "markers.csv", "-o", folder / "K.npz", *options)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"12 individuals, {expected.attrs['used']} markers, ")
    matrix = lj.Kernel.load(folder / "K.npz").matrix
    pd.testing.assert_frame_equal(matrix, expected, check_names=False)
    assert run("grm", folder / "markers.npy", "-o", folder / "K.txt", *options).exit_code == 0
    np.testing.assert_array_equal(np.loadtxt(folder / "K.txt"), expected)
    assert run("grm", folder / "markers.csv", "-o", folder / "K.csv", *options).exit_code == 0
    written = pd.read_csv(folder / "K.csv", index_col="id", dtype=str).astype(float)
    np.testing.assert_array_equal(written, expected)

    refused = run("grm", folder / "markers.csv", "-o", folder / "K.npz")
    assert refused.exit_code == 2
    assert "K.npz is there: --force replaces it" in refused.output
    assert (
        "end the name of --out in one of" in run("grm", folder / "markers.csv", "-o", folder / "K.x").output
    )
    assert (
        "unknown method" in run("grm", folder / "markers.csv", "-o", folder / "N.npz", "--method", "x").output
    )


def test_a_pedigree(files):
    folder, _, _, pedigree = files
    result = run("grm", folder / "pedigree.csv", "--pedigree", "-o", folder / "A.npz")
    assert result.output.startswith("4 individuals, additive relationships"), result.output
    expected = lj.Pedigree(pedigree).additive()
    np.testing.assert_array_equal(lj.Kernel.load(folder / "A.npz").matrix, expected)


def test_fits_with_kernels_and_reference_levels(files):
    folder, markers, data, _ = files
    expected = lj.grm(markers)
    expected.rename_axis("id").reset_index().to_parquet(folder / "own.parquet", index=False)
    arm = pd.Categorical(data["arm"], categories=["c", "a", "b"])
    fit = lj.lmm("y ~ arm + (1 | id)", data.assign(arm=arm), kernels={"id": lj.Kernel(expected)}).fit()
    words = ("--kernel", f"id={folder / 'own.parquet'}", "--ref", "arm=c")
    result = run("fit", "y ~ arm + (1 | id)", folder / "data.csv", *words)
    assert result.exit_code == 0, result.output
    assert result.output.rstrip("\n") == str(fit.summary()).rstrip("\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ref", "arm"), "--ref 'arm' is not FACTOR=LEVEL"),
        (("--ref", "amr=c"), "unknown column 'amr': did you mean 'arm'"),
        (("--ref", "arm=z"), "'arm' has no level 'z'"),
        (("--ref", "y=1"), "holds numbers and is no factor"),
        (("--kernel", "id=none.npz"), "none.npz: No such file"),
        (("--kernel", "id=DATA"), "is no kernel"),
    ],
)
def test_bad_levels_and_kernels(files, words, message):
    folder = files[0]
    words = [word.replace("DATA", str(folder / "data.csv")) for word in words]
    result = run("fit", "y ~ arm + (1 | id)", folder / "data.csv", *words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_scans_are_those_of_the_fit(files):
    folder, markers, data, _ = files
    lj.Kernel(lj.grm(markers)).save(folder / "S.npz")
    words = ("y ~ arm + (1 | id)", folder / "data.csv", folder / "markers.csv", "-o", folder / "scan.csv")
    result = run("scan", *words, "--kernel", f"id={folder / 'S.npz'}", "--test", "wald")
    assert result.exit_code == 0, result.output
    kernels = {"id": lj.Kernel(lj.grm(markers))}
    expected = lj.lmm("y ~ arm + (1 | id)", data, kernels=kernels).fit().scan(markers, test="wald")
    found = pd.read_csv(folder / "scan.csv")
    assert found["marker"].tolist() == expected["marker"].tolist()
    np.testing.assert_allclose(found["p_wald"], expected["p_wald"], rtol=1e-6)
    assert "--force replaces it" in run("scan", *words).output
    parts = [
        *words[:3],
        "-o",
        folder / "parts",
        "--kernel",
        f"id={folder / 'S.npz'}",
        "--test",
        "wald",
        "--resume",
    ]
    for _ in range(2):
        result = run("scan", *parts, "--chunk", 2)
        assert result.exit_code == 0, result.output
    assert result.output.split("\n")[1].split()[0] == expected.nsmallest(1, "p_wald")["marker"].item()
    np.testing.assert_allclose(pd.read_parquet(folder / "parts")["p_wald"], expected["p_wald"], rtol=1e-6)
    result = run("scan", *parts[:3], "-o", folder / "top.parquet", "--top", 1, "--kernel", parts[6])
    assert len(pd.read_parquet(folder / "top.parquet")) == 1, result.output
