"""The hypotheses of an analysis of variance by the names of the fixed terms."""

from __future__ import annotations

import numpy as np

from lmmjax.formula import ModelFrame
from lmmjax.formula.many_rows import row_space, x_products
from lmmjax.inference import hypotheses

TYPES = {"1": 1, "2": 2, "3": 3, "I": 1, "II": 2, "III": 3}


def term_hypotheses(frame: ModelFrame, type: int | str) -> tuple[int, dict[str, np.ndarray]]:
    """The type, 1 to 3, and L (k, p) of each fixed term but the intercept; k = 0 where none of it is left."""
    kind = TYPES.get(str(type).upper())
    if kind is None and not isinstance(type, int | str | None):
        raise ValueError(
            "anova tests the terms of one fit; two fits are compared by lmmjax.compare(fit0, fit1)"
        )
    if kind is None:
        raise ValueError(f"unknown type {type!r}; choose one of: 1, 2, 3")
    terms = _terms(frame)
    levels = {name: len(labels) for name, labels in frame.factor_levels.items()}
    shown = row_space(frame)
    products = None if shown is frame else x_products(frame)
    rows = hypotheses.contrasts(kind, shown.x, terms, shown.factor_values, levels, products)
    return kind, {term.name: l for term, l in zip(terms, rows, strict=True)}


def _terms(frame: ModelFrame) -> list[hypotheses.Term]:
    """The fixed terms other than the intercept."""
    out = []
    for name, columns in frame.term_slices.items():
        factors = frozenset(frame.term_factors[name])
        if not factors:
            continue
        categorical = factors & frozenset(frame.factor_levels)
        out.append(hypotheses.Term(name, columns, categorical, factors - categorical))
    return out
