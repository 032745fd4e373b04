"""The reference grid of a model: combinations of values of its predictors, with their rows of X.

Factors have the levels of the fit; covariates their mean, or both values where they have two (an indicator
coded 0 and 1), as in emmeans. A factor is nested in another where each of its levels occurs with one level of
the other only, or where every term of the formula that has it has the other as well, which also has a term
without it.

Sources: Searle, Speed & Milliken (1980, doi:10.1080/00031305.1980.10483031); Lenth (2016,
doi:10.18637/jss.v069.i01).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import ModelData, kept, require_known
from lmmjax.formula import new_frame
from lmmjax.formula.many_rows import counts_of, factor_columns
from lmmjax.formula.text.safety import read_expression

LARGEST, BLOCK = 1_000_000, 20_000
"""Most combinations of values; rows of X that are made at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """A column that the fixed part or an offset reads.

    Attributes
    ----------
    levels : its values in the grid.
    known : those of the data, of a factor or of a covariate with two; codes : (n,) of the rows into them.
    counted : whether its levels are weighted by their frequency in the data.
    covariate : whether other numbers than the known ones have a meaning.
    """

    name: str
    levels: list[Any]
    known: list[Any]
    codes: np.ndarray | None
    counted: bool
    covariate: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """Combinations of the values of predictors, the last one fastest, with rows of X.

    Attributes
    ----------
    rows : (cells, P) with all columns of the formula; shift : (cells,) the offset.
    counts : observations by level, an axis a predictor, of length 1 where it is not `counted`.
    nests : factor → the factors that it is nested in.
    occurs : (cells,) whether the levels of nested factors belong to those they are nested in.
    """

    predictors: tuple[Predictor, ...]
    rows: np.ndarray
    shift: np.ndarray
    counts: np.ndarray
    nests: dict[str, tuple[str, ...]]
    occurs: np.ndarray

    @property
    def names(self) -> list[str]:
        return [p.name for p in self.predictors]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(p.levels) for p in self.predictors)


@kept
def predictors(data: ModelData) -> tuple[Predictor, ...]:
    """The predictors of a model with the values that they have in its reference grid."""
    if data.frame.columns is None and counts_of(data.frame) is not None:
        raise ValueError(
            "the predictors have too many combinations of levels to be counted while rows are read by the "
            "chunk: use factors with fewer levels"
        )
    if data.frame.columns is None:
        raise ValueError("this model was built from matrices: it has no predictors for a reference grid")
    inside, counts = factor_columns(data.frame), counts_of(data.frame)
    return tuple(
        _predictor(str(n), column, str(n) in inside, counts) for n, column in data.frame.columns.items()
    )


def _predictor(name: str, column: pd.Series, inside: bool, counts: np.ndarray | None) -> Predictor:
    if isinstance(column.dtype, pd.CategoricalDtype):
        own = column.cat.codes.to_numpy()
        used, codes = np.unique(own, return_inverse=True)
        levels = [column.cat.categories[k] for k in used]
        return Predictor(name, levels, levels, codes, True, False)
    values = column.to_numpy()
    if values.dtype.kind in "mM":
        return Predictor(name, [_mean_time(column, counts)], [], None, False, True)
    two = values.min() < values.max() and np.all((values == values.min()) | (values == values.max()))
    if inside or two or values.dtype.kind == "b":
        found, codes = np.unique(values, return_inverse=True)
        levels = [_whole(value.item()) for value in found]
        return Predictor(name, levels, levels, codes, True, not inside and values.dtype.kind != "b")
    return Predictor(name, [float(np.average(values, weights=counts))], [], None, False, True)


def _mean_time(column: Any, counts: np.ndarray | None) -> Any:
    if counts is None:
        return column.mean()
    return column.min() + ((column - column.min()) * (counts / counts.sum())).sum()


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value == round(value) else value


def reference_grid(
    data: ModelData,
    at: Mapping[str, Any] | None,
    wanted: Sequence[str],
    offset: float | None,
    slope: str | None = None,
) -> Grid:
    """The grid, with the values of `at` in place of those of some predictors.

    Parameters
    ----------
    at : {predictor: value or values}.
    wanted : predictors by which means are asked for, which have to be there.
    offset : in place of the model's offsets.
    slope : the covariate in which rows and offset are differentiated.
    """
    given = {str(name): values for name, values in (at or {}).items()}
    names = [p.name for p in predictors(data)]
    require_known("predictor", wanted, names)
    require_known("predictor in at", given, names)
    if isinstance(offset, bool | str) or (offset is not None and not np.isfinite(offset)):
        raise ValueError(f"offset is a finite number in place of the model's offsets, not {offset!r}")
    own = tuple(_given(p, given[p.name]) if p.name in given else p for p in predictors(data))
    size = math.prod(len(p.levels) for p in own)
    if size > LARGEST:
        most = sorted((p for p in own if p.name not in wanted), key=lambda p: -len(p.levels))
        listed = ", ".join(repr(p.name) for p in most[:3])
        raise ValueError(
            f"the reference grid has {size:,} combinations, more than {LARGEST:,}: hold some "
            f"predictors at fewer values with at=, such as {listed}"
        )
    rows, shift = _slopes(data, own, slope) if slope is not None else _rows(data, own)
    if offset is not None:
        shift = np.full(size, 0.0 if slope is not None else float(offset))
    nests = _nests(data)
    counts = counts_of(data.frame)
    return Grid(own, rows, shift, _counts(own, counts), nests, _occurs(own, nests, counts))


def _given(predictor: Predictor, values: Any) -> Predictor:
    """The predictor with the values of `at`."""
    several = isinstance(values, list | tuple | range | np.ndarray | pd.Series | pd.Index)
    name, known = predictor.name, predictor.known
    found = [v.item() if isinstance(v, np.generic) else v for v in (list(values) if several else [values])]
    if not found:
        raise ValueError(f"at has no value for {name!r}: give one or more")
    for value in found:
        if predictor.covariate and not _is_number(value):
            raise ValueError(f"at: {name!r} is a covariate, give numbers and not {value!r}")
        if not predictor.covariate and value not in known:
            raise ValueError(f"at: {name!r} has no level {value!r}: there are {', '.join(map(str, known))}")
    found = list(dict.fromkeys(found if predictor.covariate else [known[known.index(v)] for v in found]))
    return dataclasses.replace(predictor, levels=found, counted=not predictor.covariate)


def _is_number(value: Any) -> bool:
    if isinstance(value, pd.Timestamp | pd.Timedelta):
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _combined(data: ModelData, own: Sequence[Predictor], cells: np.ndarray) -> pd.DataFrame:
    """Values of the predictors in some combinations, as columns that the model can read."""
    shape = tuple(len(p.levels) for p in own)
    place = np.unravel_index(cells, shape) if own else ()
    columns = {}
    for p, codes in zip(own, place, strict=True):
        if isinstance(data.frame.columns[p.name].dtype, pd.CategoricalDtype):  # pyright: ignore
            columns[p.name] = pd.Categorical.from_codes(
                np.array([p.known.index(v) for v in p.levels])[codes], pd.Index(p.known)
            )
        else:
            columns[p.name] = pd.Series(p.levels).to_numpy()[codes]
    return pd.DataFrame(columns, index=pd.RangeIndex(len(cells)))


def _rows(data: ModelData, own: Sequence[Predictor]) -> tuple[np.ndarray, np.ndarray]:
    """All columns of the formula (cells, P) and the offset (cells,) of all combinations."""
    size, known, parts = math.prod(len(p.levels) for p in own), _array_offset(data), []
    for start in range(0, size, BLOCK):
        cells = np.arange(start, min(start + BLOCK, size))
        parts.append(_evaluated(data, _combined(data, own, cells), known))
    rows, shift = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rows, shift


def _evaluated(data: ModelData, new: pd.DataFrame, known: float | None) -> tuple[np.ndarray, np.ndarray]:
    if not len(new.columns):
        rows = np.ones((len(new), len(data.frame.x_names)))
        return rows, np.full(len(new), known or 0.0)
    own = new_frame(data.frame, new, groups=(), offset=None if known is None else np.full(len(new), known))
    assert own.whole is not None
    return own.whole, np.zeros(len(new)) if own.offset is None else own.offset


@kept
def _array_offset(data: ModelData) -> float | None:
    """The mean over the rows of an offset that was given as an array, if there is one."""
    frame = data.frame
    if frame.offset is None or frame.columns is None or not frame.has_array_offset:
        return None
    zero = np.zeros(len(frame.offset))
    formula = (
        new_frame(frame, frame.columns, groups=(), offset=zero).offset if len(frame.columns.columns) else zero
    )
    return float(np.mean(frame.offset - formula))


STEP = 1e-3
"""Step of slopes, in ranges of the covariate."""

_DIFFERENCES = {0: {-2: 1, -1: -8, 1: 8, 2: -1}, 1: {0: -25, 1: 48, 2: -36, 3: 16, 4: -3}}
_DIFFERENCES[-1] = {-k: -w for k, w in _DIFFERENCES[1].items()}
"""Weights by step of 12h times a derivative: central, and one-sided for the ends of the data."""


def _slopes(data: ModelData, own: tuple[Predictor, ...], name: str) -> tuple[np.ndarray, np.ndarray]:
    """∂/∂x of rows and offset by differences of the fourth order, exact for polynomials of that degree.

    f′ = [8(f(x + h) − f(x − h)) − (f(x + 2h) − f(x − 2h))]/12h

    Differences are from f(x), so that what does not depend on the covariate has a slope of exactly 0.
    """
    k = [p.name for p in own].index(name)
    column = np.asarray(data.frame.columns[name], float)  # pyright: ignore[reportOptionalSubscript]
    low, high = float(column.min()), float(column.max())
    h, levels = STEP * (high - low), own[k].levels
    # splines end where the data do
    sides = [(v - 2 * h < low <= v) - (v <= high < v + 2 * h) for v in levels]
    place = np.unravel_index(np.arange(math.prod(len(p.levels) for p in own)), [len(p.levels) for p in own])[
        k
    ]
    at, (rows, shift) = _rows(data, own), (0.0, 0.0)
    for step in sorted({s for side in sides for s in _DIFFERENCES[side]} - {0}):
        used = [step in _DIFFERENCES[side] for side in sides]
        moved = [v + step * h if use else v for v, use in zip(levels, used, strict=True)]
        weights = np.array([_DIFFERENCES[side].get(step, 0) for side in sides])[place] / (12.0 * h)
        x, o = _rows(data, (*own[:k], dataclasses.replace(own[k], levels=moved), *own[k + 1 :]))
        rows, shift = rows + weights[:, None] * (x - at[0]), shift + weights * (o - at[1])
    return np.asarray(rows), np.asarray(shift)


def _counts(own: Sequence[Predictor], counts: np.ndarray | None) -> np.ndarray:
    """Observations by level; `counts` of those that each row stands for."""
    shape = tuple(len(p.levels) if p.counted else 1 for p in own)
    place, inside = [], np.array(True)
    for p in own:
        if p.counted and p.codes is not None:
            at = np.full(len(p.known), -1)
            at[[p.known.index(v) for v in p.levels]] = np.arange(len(p.levels))
            place.append(at[p.codes])
            inside = inside & (place[-1] >= 0)
    if not place:
        return np.ones(shape)
    counted = tuple(len(p.levels) for p in own if p.counted)
    cells = np.ravel_multi_index([codes[inside] for codes in place], counted)
    weights = None if counts is None else counts[np.broadcast_to(inside, counts.shape)]
    return np.bincount(cells, weights, math.prod(counted)).astype(float).reshape(shape)


@kept
def _nests(data: ModelData) -> dict[str, tuple[str, ...]]:
    """Factor → the factors that it is nested in."""
    own = [p for p in predictors(data) if p.codes is not None]
    terms = terms_of(data)
    out: dict[str, tuple[str, ...]] = {}
    for p in own:
        above = []
        for q in own:
            if q is p:
                continue
            with_p = [term for term in terms if p.name in term]
            alone = any(q.name in term and p.name not in term for term in terms)
            by_formula = (
                with_p
                and alone
                and all(q.name in term for term in with_p)
                and not (p.covariate or q.covariate)
            )
            assert p.codes is not None
            assert q.codes is not None
            pairs = len(np.unique(p.codes.astype(np.int64) * len(q.known) + q.codes))
            if by_formula or (pairs == len(p.known) and len(q.known) > 1):
                above.append(q.name)
        if above:
            out[p.name] = tuple(above)
    return out


@kept
def terms_of(data: ModelData) -> list[frozenset[str]]:
    """The columns of the data that each fixed term is made of."""
    return [frozenset(_columns_of(data, exprs)) for exprs in data.frame.term_factors.values()]


def _columns_of(data: ModelData, exprs: Sequence[str]) -> list[str]:
    """Columns of the data in the factors of a term."""
    columns = data.frame.columns
    out: list[str] = []
    for expr in exprs:
        plain = expr.strip("`")
        out += [plain] if columns is not None and plain in columns else sorted(read_expression(expr).values)
    return out


def _occurs(
    own: Sequence[Predictor], nests: dict[str, tuple[str, ...]], counts: np.ndarray | None
) -> np.ndarray:
    """(cells,) whether the levels of every nested factor occur with those that it is nested in."""
    shape, whole = (
        tuple(len(p.levels) for p in own),
        [dataclasses.replace(p, counted=p.codes is not None) for p in own],
    )
    out = np.ones(shape, bool)
    for name, above in nests.items():
        family = [
            p if p.name in (name, *above) and _are_known(p) else dataclasses.replace(p, counted=False)
            for p in whole
        ]
        out = out & (_counts(family, counts) > 0)
    return out.ravel()


def _are_known(p: Predictor) -> bool:
    return all(v in p.known for v in p.levels)
