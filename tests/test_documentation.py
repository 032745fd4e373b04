"""The Python of README, docs and docstrings runs, page by page, and prints what it is said to print."""

import doctest
import functools
import importlib
import re

import jax
import pytest
from doc_pages import BLOCK, ROOT, differences, pages, printed, written

import lmmjax as lj

PAGES = pages()
MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "lmmjax").rglob("*.py"))
    if ">>> " in file.read_text()
]


def smaller(code):
    """Fewer responses and replicates, so that no program for many of them is compiled."""
    return code.replace("10_000", "12").replace(", 1000)", ", 12)")


@pytest.fixture(autouse=True)
def _as_a_script(tmp_path, monkeypatch):
    """In an empty folder, with JAX as it is by default."""
    monkeypatch.chdir(tmp_path)
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("page", PAGES)
def test_page(page, monkeypatch):
    if page.endswith("other_packages.md"):
        for package in ("marginaleffects", "maketables"):
            pytest.importorskip(package)
    if "posterior(" in PAGES[page]:
        pytest.importorskip("blackjax")
        # a page is tested, not a posterior
        short = functools.partialmethod(lj.Fit.posterior, draws=40, warmup=40, chains=2)
        monkeypatch.setattr(lj.Fit, "posterior", short)
    wrong = []
    for number, (block, said) in enumerate(
        zip(BLOCK.finditer(PAGES[page]), printed(PAGES[page], page, smaller), strict=True), 1
    ):
        found = differences(block["output"] or "", said, bool(block["varies"]))
        wrong += [f"block {number}:", *found] if found else []
    assert not wrong, "\n".join([page, *wrong, "python tests/doc_pages.py PAGE writes what is printed"])


@pytest.mark.parametrize("page", PAGES)
def test_a_page_imports_once(page):
    code = "".join(block["code"] for block in BLOCK.finditer(PAGES[page]))
    assert len(re.findall(r"^import lmmjax as lj$", code, re.MULTILINE)) == 1


@pytest.mark.parametrize("name", MODULES)
def test_docstring(name):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert tried
    assert not failed


def test_differences():
    """Words, numbers of lines and digits count; blank lines, widths and the last digit do not."""
    shown = "      a    b\nx  1.25  2e-16\n"
    assert not differences(shown, "  a b\n\nx 1.26 2e-16")
    assert differences(shown, "  a b\nx 1.29 2e-16")
    assert differences(shown, "  a c\nx 1.25 2e-16")
    assert differences(shown, "  a b\nx 1.25")
    assert differences(shown, "")
    assert differences("1000", "1001")
    assert not differences("took 0.1 s", "took 0.9 s", varies=True)
    page = "```python\nprint(1)\n```\n\nAnd so on.\n"
    assert written(page, ["1\n"]) == "```python\nprint(1)\n```\n\n```text\n1\n```\n\nAnd so on.\n"
