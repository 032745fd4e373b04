"""Models of more rows than memory holds: read by the chunk, condensed to rows with the same likelihood."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.memory import available_memory
from lmmjax.fitted.all_rows import AllRows
from lmmjax.fitted.checks import require_known
from lmmjax.fitted.chunks import Chunks, chunks_of, columns_read, rows_of_all_levels
from lmmjax.fitted.data import ModelData, model_data
from lmmjax.formula import ModelFrame, model_frame, new_frame
from lmmjax.formula.columns import Table
from lmmjax.formula.expressions import apply_part, terms
from lmmjax.formula.frame import assemble, require_weights
from lmmjax.formula.many_rows import ManyRows, factor_columns, row_space
from lmmjax.formula.text.bars import split_bars
from lmmjax.formula.text.update import updated
from lmmjax.gram.grouped.condense import Condenser


@dataclasses.dataclass(frozen=True, eq=False)
class Chunked:
    """A model whose rows are read by the chunk.

    Attributes
    ----------
    data : the model on rows that stand for all.
    chunks : the passes over all rows, None of a model that was loaded; columns : what the formula reads.
    beside : weights, offset, backend and safe, as given.
    """

    data: ModelData
    chunks: Chunks | None
    columns: list[str]
    beside: dict[str, Any]


def chunked_model(
    formula: str,
    source: Any,
    weights: Any = None,
    offset: Any = None,
    backend: str | None = None,
    safe: bool = False,
    kernels: Any = None,
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
    some = rows_of_all_levels(chunks, columns, keys)
    beside = {"weights": weights, "offset": offset, "safe": safe, "kernels": kernels}
    frame = model_frame(formula, some.rows, **beside)
    _require_no_state(frame)
    q, p = sum(len(term.names) for term in frame.random), len(frame._recipe.parts["fixed"].names)
    condenser, logs = Condenser(q, p + 1), 0.0
    levels = _levels(frame, [key[0] for key in keys if len(key) == 1]) | some.few
    every = AllRows(frame, levels, weights is not None)
    most = available_memory() // (16 * 8 * (q + p + 1))
    passed = [0]
    for rows in _rows(frame, _counted(chunks(columns), passed)):
        every.add(rows.piece, rows.w[:, :-1], _counted_for(frame, rows), rows.root)
        logs -= 2.0 * float(np.sum(np.log(rows.root)))
        root = rows.root[:, None]
        condenser.add(rows.codes, np.concatenate(rows.z, axis=1) * root, rows.w * root)
        if sum(len(z) for _, z, _ in condenser.held) > most:
            raise ValueError(
                "the rows do not condense: there are about as many cells of the grouping factors as rows, "
                "more than memory holds; use fewer factors, or a machine with more memory"
            )
    if sum(passed) != some.total:
        raise ValueError(
            f"the data had {some.total} rows in the first pass and {sum(passed)} in the second: each pass "
            "must give the same rows"
        )
    if every.n == 0:
        raise ValueError("no row is left without missing values")
    codes, z, w = condenser.rows()
    shown_rows = pd.concat([some.rows, *every.witnesses])
    shown = model_frame(formula, shown_rows.loc[~shown_rows.index.duplicated()], **beside)
    own = every.moments(w[:, :-1])
    base = ManyRows(
        shown, codes, z, w, logdet=logs, dropped=some.total - every.n, missing=some.missing, **own
    )
    data = model_data(condensed_frame(base), backend)
    return Chunked(data, chunks, columns, beside | {"backend": backend})


def _levels(frame: ModelFrame, names: list[str]) -> dict[str, list[Any]]:
    """The values of columns of numbers whose levels the formula means, `names` among others."""
    columns = frame.columns
    assert columns is not None
    numbers = [n for n in names if n in columns and not isinstance(columns[n].dtype, pd.CategoricalDtype)]
    inside = factor_columns(frame)
    return {name: list(columns[name].unique()) for name in numbers if name in inside}


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Of a chunk its complete rows `piece`: codes (n, f), z by term, w = [X y] (n, P + 1) and √w (n,)."""

    piece: pd.DataFrame
    codes: np.ndarray
    z: list[np.ndarray]
    w: np.ndarray
    root: np.ndarray


def _counted_for(frame: ModelFrame, rows: _Rows) -> list[np.ndarray]:
    """z by term, times √K_gg of levels with kernels: their squares are what variances count for."""
    diagonals = [None if term.kernel is None else term.kernel.levels.diagonal for term in frame.random]
    pairs = zip(rows.z, rows.codes.T, diagonals, strict=True)
    return [z if own is None else z * np.sqrt(own[codes])[:, None] for z, codes, own in pairs]


def _counted(pieces: Iterator[pd.DataFrame], passed: list[int]) -> Iterator[pd.DataFrame]:
    """The pieces, whose rows are counted."""
    for piece in pieces:
        passed.append(len(piece))
        yield piece


def _rows(frame: ModelFrame, pieces: Iterator[pd.DataFrame]) -> Iterator[_Rows]:
    recipe = frame._recipe
    for piece in pieces:
        whole = piece.dropna()
        if not len(whole):
            continue
        new = new_frame(frame, whole, require_response=True)
        assert new.whole is not None
        assert new.y is not None
        y = new.y if new.offset is None else new.y - new.offset
        w = np.column_stack([new.whole, y])
        z = [term.z for term in new.random]
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
        good = np.isfinite(w).all(axis=1) & np.isfinite(root)
        for own in z:
            good &= np.isfinite(own).all(axis=1)
        if good.all():
            yield _Rows(whole, codes, z, w, root)
        elif good.any():
            yield _Rows(whole.loc[good], codes[good], [own[good] for own in z], w[good], root[good])


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


def condensed_frame(base: ManyRows) -> ModelFrame:
    """The frame with the rows that stand for all, its columns those that are independent on them."""
    shown, z = base.shown, base.z
    fixed, recipe = shown._recipe.parts["fixed"], shown._recipe
    ends = np.cumsum([len(term.names) for term in shown.random])[:-1]
    random = tuple(
        dataclasses.replace(term, z=np.ascontiguousarray(part), codes=base.codes[:, k].astype(np.int32))
        for k, (term, part) in enumerate(zip(shown.random, np.split(z, ends, axis=1), strict=True))
    )
    index = pd.RangeIndex(len(z))
    return assemble(
        formula=shown.formula,
        response=shown.response,
        y=np.ascontiguousarray(base.w[:, -1]),
        x=base.w[:, :-1],
        x_names=fixed.names,
        random=random,
        weights=None,
        offset=None,
        rows=np.arange(len(z)),
        n_dropped=base.dropped,
        missing=base.missing,
        index=index,
        data_index=index,
        terms=fixed.terms,
        term_factors=fixed.term_factors,
        factor_levels=fixed.levels,
        factor_values={},
        columns=base.cells,
        base=base,
        recipe=lambda kept: dataclasses.replace(recipe, kept=kept),
    )


def reformulated(model: Chunked, change: str | None, source: Any, changes: dict[str, Any]) -> Chunked:
    """The model with another formula (see `formula.update.updated`), weights or offset, or of other data."""
    require_known("argument of update", changes, ("weights", "offset", "kernels"))
    if source is None and model.chunks is None:
        raise ValueError("a model that was loaded has no rows: give update(data=…) what it was read from")
    formula = model.data.formula if change is None else updated(model.data.formula, change, terms)
    return chunked_model(formula, model.chunks if source is None else source, **(model.beside | changes))


def loaded_chunks(data: ModelData) -> Chunked:
    """The model of a file, without its rows."""
    shown = row_space(data.frame)
    source = shown.source
    split = split_bars(data.formula)
    read = [name for part in shown._recipe.parts.values() for name in part.columns]
    grouping = [name for bar in split.bars for name in bar.group]
    beside = {
        "weights": source.weights,
        "offset": source.offset,
        "safe": source.safe,
        "kernels": source.kernels,
        "backend": data.backend,
    }
    return Chunked(data, None, list(dict.fromkeys([*read, *grouping])), beside)
