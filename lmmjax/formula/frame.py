"""What a model reads from data: response, design matrices, group codes. Built here from plain arrays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.covariance import CovarianceFamily, family
from lmmjax.design import Aliases, aliases, independent_columns
from lmmjax.formula.columns import require_finite
from lmmjax.formula.labelled import labelled
from lmmjax.formula.levels import Levels, require_levels
from lmmjax.formula.many_rows import ManyRows
from lmmjax.formula.residuals import NewPlaces, ResidualColumns


@dataclass(frozen=True, eq=False)
class RandomColumns:
    """One random-effect term on n rows.

    z (n, q) float64 with column `names` ("(Intercept)" as in lme4, otherwise formulaic's); `group`
    ("Subject", "cask:batch") with int32 `codes` (n,) into its `levels`, all of which occur;
    `structure`, `args` and `text` as in `bars.Bar`; `places` of the columns in time, for a family that reads
    distances, None for 0, 1, …. With a `kernel` the levels are those that it has, and some may not occur.
    """

    z: np.ndarray
    names: tuple[str, ...]
    group: str
    codes: np.ndarray
    levels: pd.Index
    structure: str
    args: tuple[str, ...]
    text: str
    _levels: Levels = field(repr=False)
    places: tuple[int, ...] | None = None
    kernel: Any = None

    @property
    def factor(self) -> str:
        """The grouping factor as the formula has it; with several kernels the groups have other names."""
        return ":".join(self._levels.names)

    @property
    def label(self) -> str:
        """The text, with the name of the kernel where the factor has several."""
        return self.text if self.group == self.factor else self.text + self.group[len(self.factor) :]

    @property
    def family(self) -> CovarianceFamily:
        """The covariance family, its columns at their places."""
        return family(self.structure, *self.args).at(self.places)


@dataclass(frozen=True, eq=False)
class Source:
    """What a frame was evaluated from, to evaluate another formula on it.

    `data`, `weights`, `offset`, `residual`, `safe` and `kernels` as `model_frame` took them; `rows` are the
    positions of the rows of the data that it is confined to, all if None.
    """

    data: Any
    weights: Any
    offset: Any
    residual: Any
    safe: bool
    rows: np.ndarray | None = None
    kernels: Any = None


@dataclass(frozen=True, eq=False)
class Matrices:
    """What a frame of matrices was made from, as `array_frame` takes it, in the order of the labels `index`.

    y, weights and offset are (N,) or None; x and z frames of doubles; `groups` and `columns` have labels by
    name. Missing values are in it. `response` is the name of y.
    """

    y: np.ndarray | None
    x: pd.DataFrame
    groups: dict[str, pd.Series]
    z: dict[str, pd.DataFrame | None]
    structure: str
    weights: np.ndarray | None
    offset: np.ndarray | None
    residual: Any
    columns: dict[str, pd.Series]
    index: pd.Index
    response: str | None


@dataclass(frozen=True, eq=False)
class ModelFrame:
    """Data of one model: n complete rows of everything its formula names.

    x (n, p) float64, columns `x_names`; `aliased` names the columns left out because they depend
    linearly on earlier ones, `dependence` how, or None. `term_slices` gives for each fixed term
    ("Intercept", "Days", "age:Sex") the positions of its columns in x (empty if all are aliased),
    `term_factors` the factors it is made of, `factor_levels` the levels of those that are categorical,
    `factor_values` for terms with a categorical factor the values of each of their factors: codes (n,) into
    its levels, or numbers (n, k). `rows` are the positions in the data of the rows kept, `index` their
    labels, `data_index` those of all rows of the data; `missing` counts the missing values of each column,
    `n_dropped` the rows they cost. weights and offset are (n,) or None; `offset` is the sum of all.
    `residual` are the columns of a residual structure, or None; `columns` those that the fixed part and
    offsets read, as expressions see them, numbered 0, 1, … (None if built from arrays);
    `source` is what the frame was made from, `base` what it, or the frame that it is some rows of, was
    evaluated from, `ManyRows` if its rows stand for many.
    """

    formula: str
    response: str | None
    y: np.ndarray | None
    x: np.ndarray
    x_names: tuple[str, ...]
    aliased: tuple[str, ...]
    random: tuple[RandomColumns, ...]
    weights: np.ndarray | None
    offset: np.ndarray | None
    rows: np.ndarray
    n_dropped: int
    missing: dict[str, int]
    index: pd.Index
    data_index: pd.Index
    term_slices: dict[str, np.ndarray]
    term_factors: dict[str, tuple[str, ...]]
    factor_levels: dict[str, tuple]
    factor_values: dict[str, np.ndarray] = field(default_factory=dict)
    residual: ResidualColumns | None = None
    dependence: Aliases | None = None
    columns: pd.DataFrame | None = None
    source: Source | None = field(default=None, repr=False)
    base: Source | Matrices | ManyRows | None = field(default=None, repr=False)
    _recipe: Any = field(default=None, repr=False)

    @property
    def has_array_offset(self) -> bool:
        """Whether a part of the offset is an array beside the data, that new rows do not have."""
        return self._recipe is not None and self._recipe.array_offset


def take_rows(frame: ModelFrame, keep: np.ndarray, weights: np.ndarray | None = None) -> ModelFrame:
    """The frame on the rows `keep` (n,), its levels as they were; `weights` (n,) multiply its own."""
    own = frame.weights if weights is None else weights * (1.0 if frame.weights is None else frame.weights)
    return replace(
        frame,
        y=None if frame.y is None else frame.y[keep],
        x=frame.x[keep],
        random=tuple(replace(term, z=term.z[keep], codes=term.codes[keep]) for term in frame.random),
        weights=None if own is None else own[keep],
        offset=None if frame.offset is None else frame.offset[keep],
        rows=frame.rows[keep],
        index=frame.index[keep],
        factor_values={expr: values[keep] for expr, values in frame.factor_values.items()},
        residual=None if frame.residual is None else frame.residual.take(keep),
        columns=None if frame.columns is None else frame.columns.iloc[keep].reset_index(drop=True),
        source=_confined(frame, frame.rows[keep], None if weights is None or own is None else own[keep]),
    )


def _confined(frame: ModelFrame, rows: np.ndarray, weights: np.ndarray | None) -> Source | None:
    """The source on some rows of the data, and with weights of their own."""
    if frame.source is None or weights is None:
        return frame.source and replace(frame.source, rows=rows)
    whole = np.full(len(frame.data_index), np.nan)
    whole[rows] = weights
    return replace(frame.source, rows=rows, weights=whole)


def allowing(frame: ModelFrame, safe: bool) -> ModelFrame:
    """The frame with new rows and updates evaluated as `safe` says, whatever it was evaluated with itself."""
    if frame.source is None or frame._recipe is None:
        return frame
    source = replace(frame.source, safe=safe)
    return replace(frame, source=source, base=source, _recipe=replace(frame._recipe, safe=safe))


def take_columns(frame: ModelFrame, kept: np.ndarray) -> ModelFrame:
    """The frame with the columns of x at the positions `kept`, on which the others depend on its rows."""
    if len(kept) == len(frame.x_names):
        return frame
    # all columns of the formula, those that were left out before made of the others
    own = frame.dependence
    at = np.arange(len(frame.x_names)) if own is None else own.kept
    whole = np.zeros((len(frame.x), len(at) + (0 if own is None else len(own.out))))
    whole[:, at] = frame.x
    if own is not None:
        whole[:, own.out] = frame.x @ own.weights
    place = {int(j): k for k, j in enumerate(kept)}
    names = tuple(name for j, name in enumerate(frame.x_names) if j not in place)
    return replace(
        frame,
        x=np.ascontiguousarray(frame.x[:, kept]),
        x_names=tuple(frame.x_names[j] for j in kept),
        aliased=(*frame.aliased, *names),
        term_slices={
            term: np.array([place[int(j)] for j in js if int(j) in place], int)
            for term, js in frame.term_slices.items()
        },
        dependence=aliases(whole, at[kept]),
        _recipe=None if frame._recipe is None else replace(frame._recipe, kept=at[kept]),
    )


@dataclass(frozen=True, eq=False)
class NewRandom:
    """One random-effect term on m new rows.

    z (m, q); `columns` (q,) those that are wanted; `codes` (m,) into the levels of the fit, −1 where the
    level is not among them (`unseen` has those labels), where a value is missing, and in a term of which no
    column is wanted. `term` is its number in the formula.
    """

    z: np.ndarray
    codes: np.ndarray
    unseen: tuple[str, ...]
    group: str
    text: str
    term: int
    columns: np.ndarray


@dataclass(frozen=True, eq=False)
class NewFrame:
    """m new rows of a model: x (m, p), offset (m,) or None, y if required; NaN where a value is missing.

    `lost` (m,) are rows that are not estimable from the fit, where x is NaN; `whole` (m, p + r) has all
    columns of the formula, those that the fit left out too; `places` are those of residuals.
    """

    x: np.ndarray
    offset: np.ndarray | None
    random: tuple[NewRandom, ...]
    y: np.ndarray | None
    index: pd.Index
    lost: np.ndarray
    places: NewPlaces | None = None
    whole: np.ndarray | None = None


def confined(new: NewFrame, frame: ModelFrame, part: ModelFrame) -> NewFrame:
    """New rows of a frame as those of a `part` of it; what its rows do not determine is lost."""
    own = part.dependence
    if own is None or part.x.shape[1] == frame.x.shape[1]:
        return new
    whole, before = new.whole, frame.dependence
    if whole is None:
        at = np.arange(frame.x.shape[1]) if before is None else before.kept
        whole = np.zeros((len(new.x), len(own.kept) + len(own.out)))
        whole[:, at] = new.x
        if before is not None:
            whole[:, before.out] = new.x @ before.weights
    there = np.asarray(np.isfinite(whole).all(axis=1))
    lost = new.lost | (there & ~own.estimable(np.where(there[:, None], whole, 0.0)))
    return replace(new, x=np.where(lost[:, None], np.nan, whole[:, own.kept]), lost=lost, whole=whole)


def complete_rows(
    missing: Mapping[str, np.ndarray], n: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, int]]:
    """Rows missing nothing, `among` those at some positions, and the number of missing values by name.

    ValueError if no row is left.
    """
    if n == 0:
        raise ValueError("the data have no rows")
    looked = np.zeros(n, bool)
    looked[slice(None) if among is None else among] = True
    counts = {name: int((mask & looked).sum()) for name, mask in missing.items() if (mask & looked).any()}
    rows = np.flatnonzero(looked & ~np.logical_or.reduce([np.zeros(n, bool), *missing.values()]))
    require_rows(len(rows), counts)
    return rows, counts


def require_rows(n: int, counts: Mapping[str, int]) -> None:
    if n == 0:
        listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
        raise ValueError(f"every row has a missing value: {listed}; drop or fill those columns")


def require_weights(weights: np.ndarray, index: pd.Index) -> None:
    bad = np.flatnonzero(~(weights > 0))
    if bad.size:
        row, value = index[bad[0]], weights[bad[0]]
        raise ValueError(f"weights must be positive: {value:g} in row {row}; drop the row instead")


def require_different_names(names: Sequence[str], what: str) -> None:
    """ValueError if two columns of a matrix have one name, such as a column of the data called Intercept."""
    twice = [name for k, name in enumerate(names) if name in names[:k]]
    if twice:
        raise ValueError(f"two columns {what} are called {twice[0]!r}: rename the column of the data")


def row_vector(values: Any, what: str, n: int, index: pd.Index | None) -> np.ndarray:
    """A vector beside the data as (n,) float64, in the order of the labels `index` of their rows."""
    given = labelled(values, what)
    if given.values.shape != (n,):
        raise ValueError(
            f"{what} has shape {given.values.shape}: give one value for each of the {n} rows of the data"
        )
    place = given.places(index, what)
    return given.values if place is None else given.values[place]


def assemble(
    *,
    x: np.ndarray,
    x_names: tuple[str, ...],
    terms: Mapping[str, np.ndarray],
    random: tuple[RandomColumns, ...],
    index: pd.Index,
    recipe: Callable[[np.ndarray], Any] = lambda kept: None,
    **others: Any,
) -> ModelFrame:
    """Check complete rows and drop aliased columns; `recipe` is told the columns kept."""
    require_different_names(x_names, "of the fixed part")
    for term in random:
        require_different_names(term.names, f"of ({term.text})")
    for j, name in enumerate(x_names):
        require_finite(x[:, j], f"column {name!r}", index)
    for term in random:
        for j, name in enumerate(term.names):
            require_finite(term.z[:, j], f"column {name!r} of ({term.text})", index)
        require_levels(term._levels)
    for what in ("y", "weights", "offset"):
        if others[what] is not None:
            require_finite(others[what], "the response" if what == "y" else what, index)
    if others["weights"] is not None:
        require_weights(others["weights"], index)
    kept = independent_columns(x)
    place = {int(j): k for k, j in enumerate(kept)}
    slices = {t: np.array([place[int(j)] for j in js if int(j) in place], int) for t, js in terms.items()}
    aliased = tuple(name for j, name in enumerate(x_names) if j not in place)
    return ModelFrame(
        x=np.ascontiguousarray(x[:, kept]),
        x_names=tuple(x_names[j] for j in kept),
        aliased=aliased,
        random=random,
        index=index,
        term_slices=slices,
        dependence=aliases(x, kept),
        _recipe=recipe(kept),
        **others,
    )
