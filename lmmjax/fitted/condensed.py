"""Models of more rows than memory holds: read by the chunk, condensed to rows with the same likelihood."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.memory import available_memory
from lmmjax.core import ProblemMaker
from lmmjax.design import Condensed
from lmmjax.fitted.chunks import Chunks, chunks_of, columns_read, rows_of_all_levels
from lmmjax.fitted.data import ModelData, frame_design
from lmmjax.formula import ModelFrame, model_frame, new_frame
from lmmjax.formula.columns import Table
from lmmjax.formula.expressions import apply_part
from lmmjax.formula.frame import assemble, require_weights
from lmmjax.gram.grouped.condense import Condenser


@dataclasses.dataclass(frozen=True, eq=False)
class Chunked:
    """A model whose rows are read by the chunk.

    Attributes
    ----------
    data : the model on rows that stand for all.
    chunks : the passes over all rows; columns : those that the formula reads.
    """

    data: ModelData
    chunks: Chunks
    columns: list[str]


def chunked_model(
    formula: str,
    source: Any,
    weights: Any = None,
    offset: Any = None,
    backend: str | None = None,
    safe: bool = False,
) -> Chunked:
    """Read the data twice, levels first and then rows, and condense them.

    Raises
    ------
    ValueError : the formula or the data are wrong; an expression has a state, such as `scale(x)`; the rows
        do not condense to what memory holds.
    """
    for what, given in {"weights": weights, "offset": offset}.items():
        if given is not None and not isinstance(given, str):
            raise ValueError(f"{what} of data that are read by the chunk is a column or expression of them")
    chunks = chunks_of(source)
    first = next(iter(chunks(None)), None)
    if first is None:
        raise ValueError("the data have no rows")
    split, columns, keys = columns_read(formula, first, safe, weights=weights, offset=offset)
    if split.response is None:
        raise ValueError(f"the formula has no response: write 'response {formula.strip()}'")
    if not split.bars:
        raise ValueError("the formula has no random term: add one, such as (1 | group)")
    some, total, missing = rows_of_all_levels(chunks, columns, keys)
    frame = model_frame(formula, some, weights=weights, offset=offset, safe=safe)
    _require_no_state(frame)
    q, p = sum(len(term.names) for term in frame.random), len(frame._recipe.parts["fixed"].names)
    condenser, n, logs = Condenser(q, p + 1), 0, 0.0
    most = available_memory() // (16 * 8 * (q + p + 1))
    for codes, z, w, root in _rows(frame, chunks, columns):
        n, logs = n + len(z), logs - 2.0 * float(np.sum(np.log(root)))
        condenser.add(codes, z * root[:, None], w * root[:, None])
        if sum(len(z) for _, z, _ in condenser.held) > most:
            raise ValueError(
                "the rows do not condense: there are about as many cells of the grouping factors as rows, "
                "more than memory holds; use fewer factors, or a machine with more memory"
            )
    if n == 0:
        raise ValueError("no row is left without missing values")
    own = _condensed_frame(frame, *condenser.rows(), total - n, missing)
    design = dataclasses.replace(frame_design(own), condensed=Condensed(n, logs))
    return Chunked(ModelData(own, design, ProblemMaker(design, backend)), chunks, columns)


def _rows(
    frame: ModelFrame, chunks: Chunks, columns: list[str]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of every chunk codes (n, f), z (n, q), [X y] (n, p + 1) and √w (n,) of its complete rows."""
    recipe = frame._recipe
    for piece in chunks(columns):
        whole = piece.dropna().reset_index(drop=True)
        if not len(whole):
            continue
        new = new_frame(frame, whole, require_response=True)
        assert new.whole is not None
        assert new.y is not None
        y = new.y if new.offset is None else new.y - new.offset
        w = np.column_stack([new.whole, y])
        z = np.concatenate([term.z for term in new.random], axis=1)
        codes = np.column_stack([term.codes for term in new.random])
        if unseen := [(term.group, term.unseen[0]) for term in new.random if term.unseen]:
            group, level = unseen[0]
            raise ValueError(
                f"{group}: the level {level} was not there in the first pass over the data: each pass must "
                "give the same rows"
            )
        root = np.ones(len(whole))
        if "weights" in recipe.parts:
            table = Table(whole)
            weight = apply_part(recipe.parts["weights"], table, np.arange(len(whole)), recipe.kinds)[:, 0]
            require_weights(weight[np.isfinite(weight)], table.index)
            root = np.sqrt(weight)
        good = np.isfinite(w).all(axis=1) & np.isfinite(z).all(axis=1) & np.isfinite(root)
        yield codes[good], z[good], w[good], root[good]


def _require_no_state(frame: ModelFrame) -> None:
    """ValueError for expressions that depend on all rows: what they would remember are some rows."""
    for name, part in frame._recipe.parts.items():
        if frame._recipe.faults.get(name):
            raise ValueError(frame._recipe.faults[name])
        states = getattr(part.spec, "transform_state", None) or {}
        if guilty := [str(expr) for expr, state in states.items() if state]:
            raise ValueError(
                f"{part.label}: {guilty[0]!r} keeps numbers of all rows, which are read by the chunk: make "
                "it a column of the data, or write its numbers into the formula"
            )


def _condensed_frame(
    frame: ModelFrame, codes: np.ndarray, z: np.ndarray, w: np.ndarray, dropped: int, missing: dict[str, int]
) -> ModelFrame:
    """The frame with the rows that stand for all, its columns those that are independent on them."""
    fixed, recipe = frame._recipe.parts["fixed"], frame._recipe
    ends = np.cumsum([len(term.names) for term in frame.random])[:-1]
    random = tuple(
        dataclasses.replace(term, z=np.ascontiguousarray(part), codes=codes[:, k].astype(np.int32))
        for k, (term, part) in enumerate(zip(frame.random, np.split(z, ends, axis=1), strict=True))
    )
    index = pd.RangeIndex(len(z))
    return assemble(
        formula=frame.formula,
        response=frame.response,
        y=np.ascontiguousarray(w[:, -1]),
        x=w[:, :-1],
        x_names=fixed.names,
        random=random,
        weights=None,
        offset=None,
        rows=np.arange(len(z)),
        n_dropped=dropped,
        missing=missing,
        index=index,
        data_index=index,
        terms=fixed.terms,
        term_factors=fixed.term_factors,
        factor_levels=fixed.levels,
        factor_values={},
        recipe=lambda kept: dataclasses.replace(recipe, kept=kept),
    )
