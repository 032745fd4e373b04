"""Whether the columns left of a bar are those that a covariance family means, and where they are in time.

`ar1(f | g)` has an intercept and contrasts left of its bar, of which the family would make another model for
every reference level. Families of order take the distances of their columns from the levels of a factor.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmjax.covariance import CovarianceFamily
from lmmjax.formula.columns import Table
from lmmjax.formula.parts import Part
from lmmjax.formula.times import on_lattice, read_times


def require_columns(text: str, family: CovarianceFamily, z: np.ndarray, part: Part | None) -> None:
    """ValueError unless columns z (n, q) of the term `text` suit the family.

    Parameters
    ----------
    part : the fitted left side; None if z was given as a matrix, whose columns are one basis.
    """
    q = z.shape[1]
    # two columns with variances of their own have any covariance
    general = q == 2 and family.name in ("cs", "hetar1", "toep")
    if family.columns == "any" or q < 2 or general or is_indicators(z):
        return
    constant = np.all(z == z[:1], axis=0)
    coded = part is not None and bool(part.levels)
    if family.columns == "levels" and not (coded and np.any(constant)):
        return
    terms = [] if part is None else [at for at in part.terms.values() if len(at)]
    one_basis = not np.any(constant) and not coded and len(terms) <= 1
    if one_basis and (family.columns == "alike" or part is None):
        return
    raise ValueError(f"({text}): {_remedy(text, family, bool(np.any(constant)), coded)}")


def is_indicators(z: np.ndarray) -> bool:
    """Whether every row has a one in one column and zeros elsewhere, as the levels of a factor give."""
    return bool(np.all((z == 0) | (z == 1)) and np.all(z.sum(axis=1) == 1))


def column_places(
    text: str, family: CovarianceFamily, part: Part, table: Table, index: pd.Index
) -> tuple[int, ...] | None:
    """Where the columns of a family of order are; None for 0, 1, ….

    They lie on the lattice of the greatest common divisor of their differences. Raises ValueError where no
    order of the levels is known.
    """
    named = [expr for factors in part.term_factors.values() for expr in factors if expr in part.levels]
    if family.columns != "ordered" or len(part.names) < 3:
        return None
    if len(named) != 1:
        if not named:
            return None
        raise ValueError(
            f"({text}): {family.name} needs the levels of one factor in a known order: make one of them"
        )
    labels = list(part.levels[named[0]])
    try:
        ticks, clock = read_times(_occasions(named[0], labels, part, table), _name(part, named[0]), index)
        place, _, _ = on_lattice(ticks, np.zeros(len(labels), int), clock, family.name)
    except ValueError as error:
        raise ValueError(f"({text}): {error}") from None
    return None if np.array_equal(place, np.arange(len(place))) else tuple(int(p) for p in place)


def _occasions(expr: str, labels: list, part: Part, table: Table) -> pd.Series:
    """The levels as a column of times: with their order and the levels that do not occur, where known."""
    if "levels=" in expr.replace(" ", ""):
        return pd.Series(pd.Categorical(labels, categories=labels, ordered=True))
    of = [name for name in part.columns if name in expr]
    if len(of) == 1:
        kind = table.raw(of[0]).dtype
        if isinstance(kind, pd.CategoricalDtype) and kind.ordered and set(labels) <= set(kind.categories):
            return pd.Series(pd.Categorical(labels, categories=kind.categories, ordered=True))
    return pd.Series(labels)


def _name(part: Part, expr: str) -> str:
    of = [name for name in part.columns if name in expr]
    return of[0] if len(of) == 1 else expr


def _remedy(text: str, family: CovarianceFamily, intercept: bool, coded: bool) -> str:
    name = family.name
    what = "the levels of one factor" + (", in a known order," if family.columns == "ordered" else "")
    if coded and intercept:
        inner = text.partition("(")[2].removesuffix(")").removeprefix("1 + ")
        return (
            f"{name} needs {what} as columns, and these are an intercept and contrasts, so that the result "
            f"would depend on the reference level: write {name}(0 + {inner})"
        )
    left = "an intercept and numbers" if intercept else "several terms" if coded else "numbers"
    return (
        f"{name} needs {what} as columns, and these are {left}, on whose origins and units the result would "
        "depend: use us(...) or diag(...) for them"
    )
