"""Small data, and models of every kind on them: what is moved, and must stay the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import lmmjax as lj

GROUPS, VISITS = 14, 4
SCHOOL = np.repeat([0, 1, 2, 3], [4, 4, 3, 3])


def exact(values: np.ndarray, parts: int = 64) -> np.ndarray:
    """Multiples of 1/64, which single precision, Decimal and text hold without rounding."""
    return np.round(np.asarray(values) * parts) / parts


def made() -> pd.DataFrame:
    """14 groups in 4 schools at 4 visits, seven items that cross them; three responses are missing."""
    rng = np.random.default_rng(12)
    code = np.repeat(np.arange(GROUPS), VISITS)
    n = len(code)
    data = pd.DataFrame(
        {
            "row": [f"r{i:02d}" for i in range(n)],
            "g": [f"p{c:02d}" for c in code],
            "s": [f"s{c}" for c in SCHOOL[code]],
            "k": np.array([c - np.flatnonzero(SCHOOL[c] == SCHOOL)[0] + 1 for c in code]),
            "h": [f"i{c}" for c in (3 * np.arange(n) + code // 2) % 7],
            "t": np.tile(np.arange(VISITS), GROUPS),
            "x": exact(5 + 1.3 * rng.normal(size=n)),
            "z": rng.integers(0, 6, n),
            "f": rng.permutation(np.resize(["lo", "mid", "up"], n)),
            "arm": np.array(["A", "B"])[code % 2],
            "b": rng.permutation(np.resize([True, False], n)),
            "w": exact(rng.uniform(0.5, 2.0, n), 8),
            "v": exact(rng.uniform(0.2, 1.5, n)),
        }
    )
    data["d"] = exact(data["t"] + rng.uniform(0.0, 0.6, n))
    data["lon"], data["lat"] = data["d"], exact(rng.uniform(0, 0.5, n))
    school, group, slope, item = (rng.normal(size=m) for m in (4, GROUPS, GROUPS, (7, 4)))
    noise = rng.normal(size=(GROUPS, VISITS))
    for j in range(1, VISITS):
        noise[:, j] = 0.55 * noise[:, j - 1] + 0.83 * noise[:, j]
    drift = 0.6 * rng.normal(size=GROUPS)[code] * (data["t"] - 1.5)
    y = 2 + 0.4 * data["x"] + 0.2 * data["z"] + (data["f"] == "up") + 0.5 * (data["arm"] == "B") + drift
    y += 1.2 * school[SCHOOL[code]] + group[code] + 0.5 * slope[code] * (data["x"] - 5)
    h, f = data["h"].str[1].astype(int), data["f"].map({"lo": 1, "mid": 2, "up": 3})
    y += 0.9 * item[h, 0] + 0.7 * item[h, f] + noise.ravel() * np.where(data["arm"] == "B", 1.2, 0.7)
    data["y"] = exact(y)
    data.loc[[5, 22, 43], "y"] = np.nan
    return data


def new_rows() -> pd.DataFrame:
    """Rows to predict, at other visits and places; the last is of an unknown group."""
    new = DATA.iloc[[3, 8, 21, 30, 44, 51]].drop(columns="y").reset_index(drop=True)
    new["row"] = [f"n{i}" for i in range(len(new))]
    new["x"], new["z"], new["t"] = exact(new["x"] + 0.7), new["z"][::-1].to_numpy(), new["t"] + VISITS
    new["d"], new["lon"] = new["d"] + VISITS, new["lon"] + 0.5
    new.loc[len(new) - 1, ["g", "k"]] = ["p99", 9]
    return new


DATA = made()
NEW = new_rows()


@dataclasses.dataclass(frozen=True)
class Case:
    """A model with its data.

    Attributes
    ----------
    covariates : columns that enter X and Z and nothing else, so that only coefficients know their units.
    origins : those whose origin no parameter but intercepts knows.
    residual : a residual structure, or a function that makes one for the name of the column of time.
    time : the column in which residuals are ordered, if there is one.
    kriging : whether residuals are expected at new times.
    kernels : kinds of kernel of the terms on `relatives`, the column whose levels are `ids`; empty if none.
    common : relationship of all with all, added to kernels.
    container : what makes data, and new rows, of a pandas frame.
    """

    formula: str
    weights: Any = None
    offset: Any = None
    residual: Any = None
    backend: str | None = None
    reml: bool = True
    covariates: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    time: str | None = None
    kriging: bool = False
    kernels: tuple[str, ...] = ()
    relatives: str = "g"
    ids: tuple = ()
    common: float = 0.0
    data: pd.DataFrame = dataclasses.field(default_factory=lambda: DATA, compare=False)
    new: pd.DataFrame = dataclasses.field(default_factory=lambda: NEW, compare=False)
    container: Callable = dataclasses.field(default=lambda frame: frame, compare=False)

    @property
    def options(self) -> dict[str, Any]:
        named = {name: getattr(self, name) for name in ("weights", "offset", "backend")}
        if self.kernels:
            made = [kernel(kind, self.ids, self.common) for kind in self.kernels]
            named["kernels"] = {self.relatives: made[0] if len(made) == 1 else made}
        named["residual"] = self.residual(self.time) if callable(self.residual) else self.residual
        return {name: value for name, value in named.items() if value is not None}

    @property
    def response(self) -> str:
        return self.formula.split("~")[0].strip()

    def model(self) -> lj.Model:
        return lj.lmm(self.formula, self.container(self.data), **self.options)

    def uses(self, name: str) -> bool:
        """Whether a column occurs in the formula."""
        return name in self.formula.replace("~", " ").replace("|", " ").translate(SPLIT).split()

    def but(self, **changes: Any) -> Case:
        return dataclasses.replace(self, **changes)


SPLIT = str.maketrans(dict.fromkeys("()+:*/,", " "))


def kernel(kind: str, ids: tuple, common: float) -> lj.Kernel | None:
    """Of individuals in any order of labels: "whole", "thin" (of rank 9) or "own", which is none."""
    if kind == "own":
        return None
    half = np.random.default_rng(8).normal(size=(len(ids), 40 if kind == "whole" else 9))
    half = np.column_stack([half / np.sqrt(half.shape[1]), np.full(len(ids), np.sqrt(common))])
    return lj.Kernel(half @ half.T, ids) if kind == "whole" else lj.Kernel.low_rank(half, ids)


def case(formula: str, covariates: str = "", origins: str | None = None, **options: Any) -> Case:
    """`origins` are the covariates unless they are given."""
    free = frozenset((covariates if origins is None else origins).split())
    return Case(formula, covariates=frozenset(covariates.split()), origins=free, **options)


PEOPLE = tuple(f"p{k:02d}" for k in [*range(GROUPS), 98, 99])
ROWS = (*DATA["row"], *NEW["row"])

MODELS: dict[str, Case] = {
    # every backend
    "intercepts": case("y ~ x + f + (1 | g)", "x"),
    "slopes": case("y ~ x + arm + (x | g)", "x"),
    "slopes, ML": case("y ~ x + b + (x | g)", "x", reml=False),
    "uncorrelated slopes": case("y ~ x + (x || g)", "x", ""),
    "no intercept": case("y ~ 0 + x + z + (0 + x | g)", "x z", ""),
    "cells": case("y ~ f * arm + z + (1 | g)", "z"),
    "small nested": case("y ~ x + (1 | s/k)", "x"),
    "nested": case("y ~ x + b + (1 | s) + (x | s:k)", "x", backend="nested"),
    "crossed": case("y ~ x + z + (1 | g) + (1 | h)", "x z"),
    "layered": case("y ~ x + (1 | s/k) + (1 | h)", "x", backend="layered"),
    "dense": case("y ~ x + arm + (1 | g) + (0 + z | s)", "x z", "x", backend="dense"),
    "two terms": case("y ~ x + t + (1 | g) + (0 + t | g)", "x t", "x"),
    "weights": case("y ~ x + f + (1 | g)", "x", weights="w"),
    "weights, crossed": case("y ~ x + (1 | g) + (1 | h)", "x", weights="w"),
    "offset": case("y ~ x + arm + offset(v) + (1 | g)", "x", offset="w"),
    "levels": case("y ~ x + us(0 + b | h)", "x"),
    "cs": case("y ~ x + homcs(0 + f | h)", "x"),
    "on the boundary": case("y ~ x + f + (1 | g) + (1 | k)", "x"),
    # kernels: an individual a row, repeated rows with others' levels unseen, beside another term
    "kernel": case("y ~ x + f + (1 | row)", "x", kernels=("whole",), relatives="row", ids=ROWS),
    "kernel, ML": case("y ~ x + arm + (1 | g)", "x", kernels=("whole",), ids=PEOPLE, reml=False),
    "kernel, weights": case("y ~ x + (1 | g)", "x", kernels=("whole",), ids=PEOPLE, weights="w"),
    "kernels": case("y ~ x + (1 | g)", "x", kernels=("thin", "own"), ids=PEOPLE),
    "kernel, crossed": case("y ~ x + (1 | g) + (1 | h)", "x", kernels=("thin",), ids=PEOPLE),
    # residuals of every kind
    "AR1": case("y ~ x + arm", "x", residual=lambda t: lj.AR1(t, group="g"), time="t", kriging=True),
    "AR1, VarIdent": case(
        "y ~ x + t + (1 | s)", "x", residual=lambda t: lj.AR1(t, group="g") * lj.VarIdent("arm"), time="t"
    ),
    "CAR1": case("y ~ x + f", "x", residual=lambda t: lj.CAR1(t, group="g"), time="d", kriging=True),
    "CompoundSymmetry": case("y ~ x + arm", "x", residual=lj.CompoundSymmetry(group="g")),
    "Toeplitz": case("y ~ x + arm", "x", residual=lambda t: lj.Toeplitz(t, group="g"), time="t"),
    "ARMA": case("y ~ x + arm", "x", residual=lambda t: lj.ARMA(t, p=1, q=1, group="g"), time="t"),
    "Symmetric": case("y ~ x + arm", "x", residual=lj.Symmetric("t", group="g")),
    "Unstructured": case("y ~ arm + x", "x", residual=lj.Unstructured("t", group="g")),
    "Exponential": case("y ~ x + b", "x", residual=lj.Exponential(("lon", "lat"), group="g"), kriging=True),
    "VarIdent": case("y ~ x + f", "x", residual=lj.VarIdent("arm")),
    "VarPower": case("y ~ x + arm + (1 | g)", residual=lj.VarPower("x")),
    "VarExp": case("y ~ x + z + (1 | g)", "x", residual=lj.VarExp("z")),
    "known variances": case("y ~ x + arm + (1 | g)", "x", residual=lj.KnownVariance("v")),
}
