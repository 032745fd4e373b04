"""Several traits of a wide data frame as one model of a long one: `cbind(a, b) ~ x + (1 | id)`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.columns import Table, nearest
from lmmjax.formula.expressions import terms
from lmmjax.formula.numbers import doubles
from lmmjax.formula.text.bars import Bar, quoted, split_bars

BIND = re.compile(r"cbind\s*\((?P<inside>.*)\)", re.DOTALL)


@dataclasses.dataclass(frozen=True, eq=False)
class Stacked:
    """A model of several traits with a row a trait.

    Attributes
    ----------
    formula : of the long frame `data`; kernels : with the terms of that formula.
    together : whether two traits are ever of the same row.
    """

    formula: str
    data: pd.DataFrame
    kernels: dict[str, Any] | None
    together: bool


def stack_traits(formula: str, data: Any, kernels: Any, trait: str, value: str, unit: str) -> Stacked:
    """The long form of `cbind(a, b) ~ x + (z | id)`: `value ~ 0 + trait + trait:x + (0 + trait + trait:z |
    id)`.

    Parameters
    ----------
    trait, value, unit : names of the columns that are made: which trait a row is of, its value, and which row
        of `data` it comes from.

    Raises
    ------
    ValueError : the left side is not two columns or more, or a column has a name that is to be made.
    """
    parts = split_bars(formula)
    found = BIND.fullmatch((parts.response or "").strip())
    names = [] if found is None else [name.strip().strip("`") for name in found["inside"].split(",")]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"the traits are columns, two or more, left of ~: cbind(a, b) ~ x + (1 | id), not {formula!r:.80}"
        )
    table = Table(data)
    for name in names:
        if name not in table:
            raise ValueError(f"no column {name!r} of a trait: {nearest(name, table.keys)}")
    for made in (trait, value, unit):
        if made in table:
            raise ValueError(
                f"the data have a column {made!r}, which is to be made: rename it, or pass another name "
                "as trait=, value= or unit="
            )
    if parts.offsets:
        raise ValueError("an offset would be that of all traits: subtract it from each")
    y = np.column_stack([doubles(table.raw(name), f"trait {name!r}") for name in names])
    row, which = np.nonzero(~np.isnan(y))
    others = {key: table.raw(key) for key in table.keys if key not in names}
    beside = pd.DataFrame(others, index=pd.RangeIndex(table.n)).iloc[row].reset_index(drop=True)
    made = {unit: row, trait: pd.Categorical.from_codes(which, categories=names), value: y[row, which]}
    long = pd.concat([beside, pd.DataFrame(made)], axis=1)
    fixed = _by_trait(parts.fixed, trait)
    bars = [_bar(bar, trait) for bar in parts.bars]
    text = f"{quoted(value)} ~ {' + '.join([fixed, *bars])}"
    texts = {bar.text: new for bar, new in zip(parts.bars, bars, strict=True)}
    if isinstance(kernels, Mapping):
        kernels = {_new_key(str(key), texts): given for key, given in kernels.items()}
    return Stacked(text, long, kernels, bool(np.any(np.bincount(row) > 1)))


def _by_trait(text: str, trait: str) -> str:
    """A right-hand side with a coefficient of its own for every trait."""
    name, out = quoted(trait), ["0"]
    for term in terms(text):
        out.append(":".join([name, *term]))
    return " + ".join(out)


def _bar(bar: Bar, trait: str) -> str:
    """A random term with a column for every trait, correlated as its structure says."""
    group = ":".join(quoted(name) for name in bar.group)
    inside = ", ".join([f"{_by_trait(bar.lhs, trait)} | {group}", *bar.args])
    return f"({inside})" if bar.structure == "us" else f"{bar.structure}({inside})"


def _new_key(key: str, texts: dict[str, str]) -> str:
    """What a kernel of a term is called in the long formula."""
    plain = " ".join(key.strip().removeprefix("(").removesuffix(")").split())
    return texts.get(plain, key)
