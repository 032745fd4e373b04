"""A piece of a formula: what it names, and what the fit made of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.columns import Table, nearest, there_are
from lmmjax.formula.text.bars import quoted
from lmmjax.formula.text.rowwise import Evaluation


@dataclass(frozen=True)
class Part:
    """A piece of a formula.

    `label` says what to call it in a message; `columns` are those of the data it uses, `bare` those
    among them that are terms of their own and not inside an expression; `is_vector` if its value is one
    numeric column; `unproven` are the expressions that may read other rows, `unknown` the names that are no
    columns. `spec` is formulaic's Formula, and once fitted its ModelSpec; `names` are the
    columns of the matrix then, `terms` their positions by term, `levels` those of categorical factors,
    `values` the factors of terms that have a categorical one: codes (n,) into its levels, or numbers (n, k).
    `evaluation` is kept of a part that has something unproven.
    """

    label: str
    columns: tuple[str, ...]
    bare: frozenset[str]
    is_vector: bool
    spec: Any
    names: tuple[str, ...] = ()
    values: dict[str, np.ndarray] = field(default_factory=dict)
    unproven: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    evaluation: Evaluation | None = None

    @property
    def terms(self) -> dict[str, np.ndarray]:
        return {term_name(term): np.array(at, int) for term, at in self.spec.term_indices.items()}

    @property
    def term_factors(self) -> dict[str, tuple[str, ...]]:
        return {term_name(t): tuple(str(f) for f in t.factors if str(f) != "1") for t in self.spec.terms}

    @property
    def levels(self) -> dict[str, tuple]:
        states = {expr: state for expr, (_, state) in self.spec.encoder_state.items()}
        return {str(e): tuple(s["categories"]) for e, s in states.items() if "categories" in s}

    def fault(self, moved: np.ndarray) -> str:
        """Message about the expressions of columns `moved` (k,), which depend on other rows."""
        terms = [factors for term, factors in self.term_factors.items() if np.any(moved[self.terms[term]])]
        guilty = [e for e in dict.fromkeys(e for factors in terms for e in factors) if e in self.unproven]
        what = "the value" if self.is_vector else " and ".join(map(repr, guilty))
        return (
            f"{self.label}: {what} in a row depends on other rows, so that new rows would not get what the "
            "fit has for them: use center(x), scale(x) or poly(x, k), which keep the numbers of the fit, or "
            "make it a column of the data beforehand"
        )


def require_known(parts: Iterable[Part], others: Mapping[str, str], table: Table) -> None:
    """ValueError naming all columns that are wanted and not there.

    Parameters
    ----------
    others : names wanted beside the parts, with what wants them.
    """
    wanted = {name: part.label for part in parts for name in part.unknown}
    wanted |= {name: who for name, who in others.items() if name not in table and name not in wanted}
    if len(wanted) == 1:
        ((name, who),) = wanted.items()
        raise ValueError(f"{who}: unknown column {name!r}: {nearest(name, table.keys)}")
    if wanted:
        listed = ", ".join(f"{name!r} ({who})" for name, who in wanted.items())
        raise ValueError(f"unknown columns {listed}: {there_are(table.keys)}")


def kind_of(column: pd.Series) -> str:
    """number, bool, time or category."""
    codes = {"b": "bool", "i": "number", "f": "number", "m": "time", "M": "time"}
    return codes.get(column.dtype.kind, "category")


def factor_texts(term: Any) -> tuple[str, ...]:
    """The factors of a term of formulaic's as a formula writes them; none of the intercept."""
    texts = [
        quoted(str(factor.expr)) if factor.eval_method.value == "lookup" else str(factor.expr)
        for factor in term.factors
    ]
    return tuple(text for text in texts if text != "1")


def term_name(term: Any) -> str:
    """Name of a term of formulaic's."""
    return "Intercept" if str(term) == "1" else str(term)
