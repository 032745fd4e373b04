"""The site leaves nothing out: public names, families, tables of results, pages."""

import importlib
import inspect
import re
import sys

import pytest
from doc_pages import ROOT
from typer.main import get_command

import lmmjax as lj
import lmmjax.bayes
import lmmjax.datasets
import lmmjax.plot
from lmmjax.cli import app
from lmmjax.covariance import FAMILIES
from lmmjax.residual import CORRELATIONS, VARIANCES

REFERENCE = "".join(page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
DIRECTIVES = re.findall(r"^\.\. auto(?:class|function|exception):: (\S+)$", REFERENCE, re.MULTILINE)
WITH_MEMBERS = re.findall(r"^\.\. autoclass:: (\S+)\n   :members:$", REFERENCE, re.MULTILINE)
INTERNAL = {"Functions", "PriorSet"}
"""Classes of attributes that the package itself uses."""


def resolved(path):
    """The object of a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def returned(owner):
    """Names of classes that the public methods of a class say they return."""
    for name in dir(owner):
        member = getattr(owner, name)
        member = member.fget if isinstance(member, property) else member
        said = getattr(member, "__annotations__", {}).get("return", "")
        if not name.startswith("_"):
            yield from re.findall(r"[A-Z]\w+", str(said))


def own_class(name):
    """Whether the package has a class of that name."""
    modules = [module for path, module in sys.modules.items() if path.startswith("lmmjax.")]
    found = [getattr(module, name, None) for module in modules]
    return any(isinstance(c, type) and c.__module__.startswith("lmmjax.") for c in found)


def test_every_public_name_is_documented():
    names = [f"lmmjax.{name}" for name in {*lj.__all__, *lj._LATER} - {"__version__"}]
    for module in (lmmjax.bayes, lmmjax.plot):
        names += [f"{module.__name__}.{name}" for name in module.__all__]
    assert {*names, "lmmjax.datasets.load"} <= set(DIRECTIVES)


def test_what_methods_return_is_documented():
    classes = {path.rpartition(".")[2]: resolved(path) for path in DIRECTIVES}
    found = {name for path in WITH_MEMBERS for name in returned(resolved(path))} - INTERNAL
    assert {name for name in found if own_class(name)} <= set(classes)


@pytest.mark.parametrize("path", DIRECTIVES)
def test_docstrings(path):
    """A member without one is missing from its page, unless its class describes it."""
    found = resolved(path)
    assert found.__doc__
    if path in WITH_MEMBERS:
        members = inspect.getmembers_static(found, lambda m: isinstance(m, property) or inspect.isfunction(m))
        bare = {name for name, member in members if name[0] != "_" and not inspect.getdoc(member)}
        assert bare <= set(re.findall(r"\w+", found.__doc__))


def test_every_family_is_in_the_gallery():
    text = (ROOT / "docs" / "gallery.md").read_text()
    assert all(f"{name}(" in text for name in [*CORRELATIONS, *VARIANCES])
    assert all(re.search(rf"[`(]{name}\(", text) for name in FAMILIES)
    drawn = (ROOT / "docs" / "gallery.py").read_text()
    assert all(f'"{name}"' in drawn for name in re.findall(r"_gallery/(\w+)\.png", text))


def options(command, names=()):
    """(names of the command, the spellings of an option) of a command and those below it."""
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield names, {*parameter.opts, *parameter.secondary_opts}
    for name, own in getattr(command, "commands", {}).items():
        yield from options(own, (*names, name))


def test_every_command_and_option_is_on_its_page():
    text = (ROOT / "docs" / "reference" / "command_line.md").read_text()
    for names, spellings in options(get_command(app)):
        assert not names or re.search(rf"`{names[0]}[ `]", text), names
        assert any(re.search(rf"`[^`]*{spelling}\b", text) for spelling in spellings), (names, spellings)


def test_every_page_is_in_the_navigation():
    """Or Sphinx would warn."""
    docs = ROOT / "docs"
    listed = {"index"}
    for page in docs.rglob("*.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            lines = [line for line in tree.splitlines() if line and not line.startswith(":")]
            names = [line.partition("<")[2].rstrip(">") or line for line in lines]
            listed |= {str((page.parent / name).resolve().relative_to(docs)) for name in names}
    made = ("_build", "notebooks", "project")
    pages = {str(p.relative_to(docs).with_suffix("")) for p in docs.rglob("*.md")}
    assert {p for p in pages if not p.startswith(made)} <= listed


def test_tables_are_those_of_the_committed_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    page = importlib.import_module("benchmarks.page")
    assert {file.name for file in page.pages()} >= {"performance.md", "gradients.md"}
    for file in page.pages():
        assert page.renewed(file.read_text()) == file.read_text(), "python -m benchmarks.page"
