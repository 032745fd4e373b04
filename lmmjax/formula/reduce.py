"""Frames of other formulas on the same data; formulas without a fixed term, with other random terms."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.formula.build import model_frame
from lmmjax.formula.expressions import terms
from lmmjax.formula.frame import ModelFrame, RandomColumns
from lmmjax.formula.parts import Part, factor_texts, term_name
from lmmjax.formula.relationships.terms import kernels_left
from lmmjax.formula.text.bars import quoted, split_bars
from lmmjax.formula.text.update import updated, written


def updated_frame(frame: ModelFrame, change: str | None, **changes: Any) -> ModelFrame:
    """The frame of a formula updated by `change` (see `update.updated`), evaluated on the same source.

    Parameters
    ----------
    changes : data, weights, offset, residual, kernels or rows in place of those of the source.
    """
    source = frame.source
    if source is None:
        raise ValueError("this model was built from matrices: it has no formula to update, make another")
    formula = frame.formula if change is None else updated(frame.formula, change, terms)
    if "data" in changes:
        changes = {"rows": None} | changes
    left: dict[str, Any] = {"kernels": kernels_left(source.kernels, split_bars(formula).bars)}
    return model_frame(formula, **(vars(source) | left | changes))


def without_term(frame: ModelFrame, name: str) -> str:
    """The formula of a frame without a fixed term, called as in `term_slices`, the others written out."""
    fixed = _sum(_recipe_part(frame, "fixed"), name)
    split = split_bars(frame.formula)
    return written(split.response, fixed, split.offsets, [(bar.structure, bar.text) for bar in split.bars])


def with_random(frame: ModelFrame, random: tuple[RandomColumns, ...]) -> str:
    """The formula of a frame with these random terms in place of its own."""
    _recipe_part(frame, "fixed")
    split = split_bars(frame.formula)
    return written(
        split.response, split.fixed, split.offsets, dict.fromkeys((t.structure, t.text) for t in random)
    )


def reduced_text(frame: ModelFrame, term: RandomColumns, keep: np.ndarray) -> str:
    """The text of a random term of which the columns keep (q,) are left, whole terms left of its bar."""
    if frame._recipe is None:
        return term.text
    part = _recipe_part(frame, term.text)
    gone = [name for name, at in part.terms.items() if not np.all(keep[at])]
    group = ":".join(map(quoted, term._levels.names))
    text = f"{_sum(part, *gone)} | {group}"
    return text if term.structure == "us" else f"{term.structure}({', '.join([text, *term.args])})"


def _recipe_part(frame: ModelFrame, name: str) -> Part:
    if frame._recipe is None:
        raise ValueError("this model was built from matrices: it has no formula to take terms out of")
    return frame._recipe.parts[name]


def _sum(part: Part, *gone: str) -> str:
    """The terms of a part but those that are gone, as a sum."""
    left = [factor_texts(term) for term in part.spec.terms if term_name(term) not in gone]
    plain = [":".join(factors) for factors in left if factors]
    return " + ".join(plain if () in left else ["0", *plain]) or "1"
