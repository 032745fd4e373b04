"""The Python of README and docs runs, page by page, and prints what the page says it does."""

import contextlib
import functools
import io
import re
import warnings
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.bayes import LKJ, Exponential, HalfNormal, InverseGamma, Normal

ROOT = Path(__file__).parents[1]
# the same call is made by tests/selfcheck; it takes long
ELSEWHERE = {"self_check.md"}
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n^```\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
PAGES = {
    page.name: BLOCK.findall(page.read_text())
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if page.name not in ELSEWHERE
}
PRINTED = {("README.md", 0)}
"""Blocks whose output depends on no random number, clock or number of draws."""


def visits():
    rng = np.random.default_rng(1)
    d = pd.DataFrame({"id": np.repeat(np.arange(12), 4), "week": np.tile(np.arange(4), 12)})
    d["visit"], d["arm"] = d["week"], np.where(d["id"] % 2, "a", "b")
    d["sex"], d["dose"] = np.where(d["id"] % 3, "f", "m"), 1.0 + d["id"] % 4
    return d.assign(y=rng.normal(size=12)[d["id"]] + rng.normal(size=48), x=rng.normal(size=48))


def arrays():
    rng = np.random.default_rng(1)
    x, groups = np.column_stack([np.ones(30), rng.normal(size=30)]), np.repeat(np.arange(6), 5)
    given = {"y": rng.normal(size=6)[groups] + rng.normal(size=30), "x": x, "groups": groups, "z": x[:, :1]}
    given |= {"w": np.ones(30), "keep": None, "rows": rng.uniform(size=30) > 0.1, "beta": np.zeros(2)}
    new = {"x_new": x[:3], "groups_new": np.array([0, 5, -1]), "z_new": x[:3, :1]}
    return given | new | {"sigma2": 1.0, "theta": np.ones(1)}


def pulp():
    rng = np.random.default_rng(1)
    d = pd.DataFrame({"operator": np.repeat(list("abcd"), 5), "bright": 60 + rng.normal(size=20)})
    names = {"LKJ": LKJ, "Exponential": Exponential, "HalfNormal": HalfNormal}
    given = names | {"InverseGamma": InverseGamma, "Normal": Normal, "key": jax.random.key(1)}
    return given | {"pulp": lj.lmm("bright ~ 1 + (1 | operator)", d).fit()}


GIVEN = {"structures.md": lambda: {"d": visits()}, "gradients.md": arrays, "bayes.md": pulp}
"""What a page takes as known."""


def smaller(text):
    """Fewer responses and replicates, so that no program for many of them is compiled."""
    return text.replace("10_000", "12").replace(", 1000)", ", 12)")


@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if blocks])
def test_page(page, tmp_path, monkeypatch):
    if page == "other_packages.md":
        for package in ("marginaleffects", "maketables"):
            pytest.importorskip(package)
    if page == "bayes.md":
        pytest.importorskip("blackjax")
        # a page is tested, not a posterior
        short = functools.partialmethod(lj.Fit.posterior, draws=40, warmup=40, chains=2)
        monkeypatch.setattr(lj.Fit, "posterior", short)
    monkeypatch.chdir(tmp_path)
    known = {"lj": lj, "jax": jax, "np": np, "pd": pd} | GIVEN.get(page, dict)()
    with warnings.catch_warnings(), jax.enable_x64(page == "gradients.md"):
        # what a page prints is for its reader to judge
        warnings.simplefilter("ignore")
        for number, (code, output) in enumerate(PAGES[page]):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(smaller(code), f"{page}, block {number + 1}", "exec"), known)
            if (page, number) in PRINTED:
                assert lines(printed.getvalue()) == lines(output)


def lines(text):
    """Without blank ones, by which a page sets outputs apart."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_there_are_blocks():
    assert all(PAGES[name] for name in ("README.md", "structures.md", "bayes.md"))
    assert all(len(PAGES[name]) > number for name, number in PRINTED)
