"""Families of contrasts of k means, with short names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import require_choice
from lmmjax.postestimation.means.written_contrasts import written_out

DEFAULTS = {
    "pairwise": "tukey",
    "revpairwise": "tukey",
    "trt.vs.ctrl": "dunnett",
    "trt.vs.ctrlk": "dunnett",
    "consec": "mvt",
    "mean_chg": "mvt",
    "poly": "none",
    "eff": "fdr",
    "del.eff": "fdr",
    "identity": "none",
}
"""Families with the adjustment that is usual for them."""

ALIASES = {"tukey": "pairwise", "dunnett": "trt.vs.ctrl", "trt.vs.ctrl1": "trt.vs.ctrl"}
DEGREES, HIGHEST = ("linear", "quadratic", "cubic", "quartic"), 6

ARITHMETIC = re.compile(r"[-+*/]")


def family_name(method: Any) -> str | None:
    """The key of `DEFAULTS` that is meant; None for contrasts that are written out; ValueError lists them."""
    if isinstance(method, Mapping | list | tuple | np.ndarray | pd.DataFrame):
        return None
    named = ALIASES.get(method, method) if isinstance(method, str) else method
    require_choice("contrasts", named, DEFAULTS)
    return named


def level_names(labels: pd.DataFrame, brackets: bool = True) -> list[str]:
    """Levels side by side, numbers with their factor's name: "a1 dose5"; "(a-1)" in brackets."""
    parts = []
    for name, column in labels.items():
        for_numbers = all(
            isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_) for v in column
        )
        parts.append([f"{name}{number(v)}" if for_numbers else str(v) for v in column])
    joined = [" ".join(levels) for levels in zip(*parts, strict=True)]
    return [f"({name})" if brackets and ARITHMETIC.search(name) else name for name in joined]


def number(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float | np.floating) else str(value)


def weights_of(
    method: Any,
    names: Sequence[str],
    ref: Any = None,
    between: str = " - ",
    levels: pd.DataFrame | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Weights (m, k) of contrasts of k means with names, and their names.

    Parameters
    ----------
    method : a key of `DEFAULTS`; {name: k weights}; weights (m, k); a frame, a row a contrast. Weights in a
        Series, a dict or a frame are matched by the names of the means, or by their `levels`.
    ref : of comparisons with a control, its position or name.
    between : what stands between two means in a name.
    """
    k, kind = len(names), family_name(method)
    if kind is None:
        return written_out(method, names, levels)
    unit = np.eye(k)
    if ref is not None and not kind.startswith("trt.vs.ctrl"):
        raise ValueError(f"ref is for comparisons with a control, 'trt.vs.ctrl', not for {kind!r}")
    if kind in ("pairwise", "revpairwise"):
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
        if kind == "revpairwise":
            pairs = [(j, i) for j in range(k) for i in range(j)]
        return _differences(unit, pairs, names, between)
    if kind.startswith("trt.vs.ctrl"):
        control = _position(ref, names) if ref is not None else k - 1 if kind == "trt.vs.ctrlk" else 0
        return _differences(unit, [(j, control) for j in range(k) if j != control], names, between)
    if kind == "consec":
        return _differences(unit, [(j + 1, j) for j in range(k - 1)], names, between)
    if kind == "poly":
        return _polynomials(k)
    if kind == "mean_chg":
        rows = [np.repeat([-1 / j, 1 / (k - j)], [j, k - j]) for j in range(1, k)]
        return np.array(rows).reshape(-1, k), [f"{names[j - 1]}|{names[j]}" for j in range(1, k)]
    if kind == "identity":
        return unit, list(names)
    rows = unit - 1.0 / k
    return rows * (k / max(k - 1, 1) if kind == "del.eff" else 1.0), [f"{name} effect" for name in names]


def _differences(
    unit: np.ndarray, pairs: list[tuple[int, int]], names: Sequence[str], between: str
) -> tuple[np.ndarray, list[str]]:
    rows = np.array([unit[i] - unit[j] for i, j in pairs]).reshape(-1, len(unit))
    return rows, [f"{names[i]}{between}{names[j]}" for i, j in pairs]


def _position(ref: Any, names: Sequence[str]) -> int:
    if isinstance(ref, int | np.integer) and not isinstance(ref, bool):
        if not -len(names) <= ref < len(names):
            raise ValueError(f"ref {ref} is no position among {len(names)} means, counted from 0")
        return int(ref) % len(names)
    if ref not in names:
        raise ValueError(
            f"ref {ref!r} is no mean: there are {', '.join(names)}; or give a position from 0 on"
        )
    return list(names).index(str(ref))


def _polynomials(k: int) -> tuple[np.ndarray, list[str]]:
    """Orthogonal polynomials at 1, …, k, in the smallest whole numbers, by Gram–Schmidt in fractions."""
    basis: list[list[Fraction]] = [[Fraction(1)] * k]
    rows = []
    for degree in range(1, min(k - 1, HIGHEST) + 1):
        column = [Fraction(2 * j - k - 1, 2) ** degree for j in range(1, k + 1)]
        for other in basis:
            products = (a * b for a, b in zip(column, other, strict=True))
            c = sum(products, Fraction(0)) / sum((b * b for b in other), Fraction(0))
            column = [a - c * b for a, b in zip(column, other, strict=True)]
        basis.append(column)
        whole = math.lcm(*(a.denominator for a in column))
        numbers = [int(a * whole) for a in column]
        rows.append([a // math.gcd(*numbers) for a in numbers])
    names = [*DEGREES, *(f"degree {d}" for d in range(len(DEGREES) + 1, HIGHEST + 1))]
    return np.array(rows, float).reshape(-1, k), names[: len(rows)]
