"""Which random terms, and which of their columns, are meant by "g", "x | g" or "1 | g" of (x | g)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from lmmjax.formula.columns import nearest
from lmmjax.formula.expressions import terms
from lmmjax.formula.frame import ModelFrame, RandomColumns
from lmmjax.formula.text.bars import Bar, split_bars


def wanted_terms(frame: ModelFrame, groups: Collection[str] | None) -> list[tuple[RandomColumns, np.ndarray]]:
    """Every random term with the columns (q,) of it that are wanted; ValueError names what is not there.

    Parameters
    ----------
    groups : grouping factors, terms as the formula has them, or bars with some of a term's columns, of
        all terms of their factor; None: everything.
    """
    columns = [np.full(len(term.names), groups is None) for term in frame.random]
    for name in [groups] if isinstance(groups, str) else groups or ():
        whole = [
            k
            for k, term in enumerate(frame.random)
            if name in (term.group, term.text, term.factor, term.label)
        ]
        for k in whole:
            columns[k][:] = True
        if not whole:
            _add(columns, frame, name)
    return list(zip(frame.random, columns, strict=True))


def _add(columns: list[np.ndarray], frame: ModelFrame, name: str) -> None:
    """Mark the columns that a text with a bar means."""
    known = dict.fromkeys(name for term in frame.random for name in (term.group, term.label))
    bars: tuple[Bar, ...] = ()
    if isinstance(name, str) and "|" in name:
        text = name.strip().removeprefix("~").strip()
        bars = split_bars(f"~ {text if text.endswith(')') else f'({text})'}").bars
    if not bars:
        raise ValueError(f"no random term {name!r}: {nearest(str(name), known)}")
    for bar in bars:
        same = [k for k, term in enumerate(frame.random) if term.text == bar.text]
        for k in same:
            columns[k][:] = True
        if same:
            continue
        at = [k for k, term in enumerate(frame.random) if set(term._levels.names) == set(bar.group)]
        if not at:
            raise ValueError(f"no random term {name!r}: {nearest(bar.text, known)}")
        found = {k: _columns(frame, frame.random[k]) for k in at}
        asked = [frozenset(text.strip("`") for text in term) for term in terms(bar.lhs, f"({bar.text})")]
        for factors in asked:
            _require_coding(frame, [frame.random[k] for k in at], factors, frozenset() in asked, name)
            if not any(factors in own for own in found.values()):
                there = ", ".join(f"({frame.random[k].text})" for k in at)
                what = ":".join(sorted(factors)) or "1"
                raise ValueError(f"no random term {name!r}: {what} is not left of the bar in {there}")
            for k, own in found.items():
                if factors in own:
                    columns[k][own[factors]] = True


def _require_coding(
    frame: ModelFrame, terms: list[RandomColumns], factors: frozenset[str], intercept: bool, name: str
) -> None:
    """ValueError for a categorical factor with an intercept in one of text and term: other columns."""
    if frame._recipe is None:
        return
    for term in terms:
        part = frame._recipe.parts[term.text]
        own = [frozenset(f) for f in part.term_factors.values()]
        if factors & set(part.levels) and factors in own and intercept != (frozenset() in own):
            raise ValueError(
                f"no random term {name!r}: the columns of {':'.join(sorted(factors))} in ({term.text}) are "
                "others, because there "
                + ("is no intercept" if intercept else "is an intercept")
                + f": write {term.text!r}, or some of its summands with it"
            )


def _columns(frame: ModelFrame, term: RandomColumns) -> dict[frozenset[str], np.ndarray]:
    """Positions of the columns of each summand left of the bar, by its factors; none of the intercept."""
    if frame._recipe is None:
        names = (frozenset([name] if name != "(Intercept)" else []) for name in term.names)
        return {name: np.array([j]) for j, name in enumerate(names)}
    part = frame._recipe.parts[term.text]
    return {frozenset(part.term_factors[name]): at for name, at in part.terms.items()}
