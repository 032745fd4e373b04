"""Formulas and data to matrices: `model_frame` for a fit, `new_frame` for new rows.

The bars are split off by `bars`; the fixed part and everything left of a bar goes to formulaic through
`expressions`; groups become integer codes in `columns`, never indicator columns. Missing rows are
dropped here, once, over all parts of the formula.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lmmjax.formula.chosen_terms import wanted_terms
from lmmjax.formula.columns import (
    Table,
    kept_data,
    nearest,
    require_factor,
    require_finite,
    require_no_time,
    there_are,
)
from lmmjax.formula.expressions import apply_part, fit_parts, parse, parse_vector, reads_other_rows
from lmmjax.formula.frame import (
    ModelFrame,
    NewFrame,
    NewRandom,
    Source,
    assemble,
    complete_rows,
    require_weights,
    row_vector,
)
from lmmjax.formula.levels import require_other_texts, row_labels
from lmmjax.formula.parts import Part, kind_of, require_known
from lmmjax.formula.random_columns import random_columns
from lmmjax.formula.relationships.terms import kernel_terms
from lmmjax.formula.residuals import group_columns, new_places, own_places, residual_columns, used_columns
from lmmjax.formula.text.bars import SplitFormula, quoted, split_bars
from lmmjax.formula.text.update import has_dot, with_columns
from lmmjax.residual import as_residual


@dataclass(frozen=True, eq=False)
class _Recipe:
    """What new data need: fitted parts ("fixed", "response", "offset", "offset(…)", terms by their
    text), the columns of x that were kept, the kinds of the columns of the data, and whether expressions
    have to be safe."""

    parts: dict[str, Part]
    kept: np.ndarray
    kinds: dict[str, str]
    array_offset: bool
    safe: bool

    @cached_property
    def faults(self) -> dict[str, str]:
        """By part, what forbids to evaluate it on new rows, if anything does."""
        return {name: reads_other_rows(part, self.kinds) for name, part in self.parts.items()}


def model_frame(
    formula: str,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    residual: Any = None,
    response_required: bool = False,
    safe: bool = False,
    rows: np.ndarray | None = None,
    kernels: Any = None,
) -> ModelFrame:
    """Evaluate a formula, such as "y ~ x + (x | g)" or, without a response, "~ x + (x | g)", on data.

    `data` is a frame of pandas, polars (lazy too), Arrow or what narwhals knows, or a dict of columns; its
    numbers are doubles. `weights` and `offset` are a column's name, an expression, or an array as long as the
    data, in the order of its own labels where it has some; `offset(...)` in the formula is added to `offset`.
    `residual` is a residual structure, whose columns are read as they are. `safe` refuses expressions that
    are more than columns, literals, arithmetic and known functions, here and for new rows. `rows` are the
    positions of the rows of the data to look at, all if None. `kernels` are known covariances of levels, by
    grouping factor.

    `.` in the fixed part is the sum of all columns but those of the response, of offsets, weights and
    grouping factors; the frame's formula has them written out.

    Columns of strings, objects, categories and bools are factors, with levels in categorical order or
    sorted, levels that do not occur left out (object columns of numbers are numbers). Factors, ordered
    ones too, get treatment contrasts unless the formula says otherwise, as in `C(f, contr.poly)`.
    Everything right of a bar is a factor, integers too. A row is dropped if any column used by any part
    is missing there, or if an expression gives NaN (the log of a negative number); transformations see
    only the rows kept (unless, like `lag`, they would give NaN again).

    Raises ValueError naming the culprit and what to do: formula syntax (with the position), unknown
    column or function (with the nearest name), no complete row, an infinite value, a response or
    weights that are not numeric, weights ≤ 0, a factor with one level, a factor on both sides of a bar.
    """
    table = Table(data)
    structure = None if residual is None else as_residual(residual)
    if has_dot(formula):
        taken = [text for text in (weights, offset) if isinstance(text, str)]
        formula = with_columns(formula, table.keys, [*taken, *map(quoted, group_columns(structure, table))])
    split = split_bars(formula)
    own_kernels = kernel_terms(split.bars, kernels)
    if response_required and split.response is None:
        raise ValueError(f"the formula has no response: write 'response {formula.strip()}'")
    arrays = {
        what: row_vector(given, what, table.n, table.index)
        for what, given in (("weights", weights), ("offset", offset))
        if given is not None and not isinstance(given, str)
    }
    parts = formula_parts(split, table, safe, weights=weights, offset=offset)
    evaluated = dict.fromkeys(name for part in parts.values() for name in part.columns)
    grouping = {name: f"({bar.text})" for bar in reversed(split.bars) for name in bar.group}
    placing = dict.fromkeys(used_columns(structure, table), "residual")
    require_known(parts.values(), placing | grouping, table)
    missing = {name: table.missing(name) for name in evaluated | grouping | placing}
    missing |= {k: np.isnan(v) for k, v in arrays.items()}
    source = Source(kept_data(table.data), weights, offset, residual, safe, rows, kernels)
    rows, counts = complete_rows(missing, table.n, rows)
    for name in evaluated:
        column = table.take(name, rows)
        require_factor(table.raw(name), column, name, table.index[rows])
        if column.dtype.kind == "f":
            require_finite(column.to_numpy(), f"column {name!r}", table.index[rows])
    for part in parts.values():
        for name in part.bare:
            require_no_time(table.raw(name), name, part.label)
    parts, matrices, rows, columns = fit_parts(parts, table, rows, counts)
    kinds = {str(name): kind_of(column) for name, column in columns.items()}
    of_means = [part for name, part in parts.items() if name == "fixed" or name.startswith("offset")]
    random = random_columns(own_kernels, parts, matrices, table, rows, kinds)

    fixed = parts["fixed"]
    vectors = {name: matrices[name][:, 0] for name, part in parts.items() if part.is_vector}
    vectors |= {what: array[rows] for what, array in arrays.items()}
    offsets = [vector for name, vector in vectors.items() if name.startswith("offset")]
    return assemble(
        formula=formula,
        response=split.response,
        y=vectors.get("response"),
        x=matrices["fixed"],
        x_names=fixed.names,
        random=random,
        weights=vectors.get("weights"),
        offset=np.sum(offsets, axis=0) if offsets else None,
        rows=rows,
        n_dropped=(table.n if source.rows is None else len(source.rows)) - len(rows),
        missing=counts,
        index=table.index[rows],
        data_index=table.index,
        terms=fixed.terms,
        term_factors=fixed.term_factors,
        factor_levels=fixed.levels,
        factor_values=fixed.values,
        residual=None if structure is None else residual_columns(structure, table, rows),
        columns=columns[list(dict.fromkeys(name for part in of_means for name in part.columns))],
        source=source,
        base=source,
        recipe=lambda kept: _Recipe(parts, kept, kinds, "offset" in arrays, safe),
    )


def new_frame(
    frame: ModelFrame,
    newdata: Any,
    *,
    groups: Collection[str] | None = None,
    rest: bool = False,
    offset: Any = None,
    weights: Any = None,
    require_response: bool = False,
    residual: str = "",
) -> NewFrame:
    """Matrices of new rows, with the transformations, levels and contrasts of the fitted frame.

    `groups` picks random terms by group ("Subject"), text ("Days | Subject") or some of their columns
    ("1 | Subject"): all of them if None, none if empty; only columns of the data that are needed have to be
    there. `rest` gives the columns of the other terms too, without their levels. With `residual`, "variance"
    or "kriging", there are `places`; `weights` replace those of the model. A term in the formula's
    `offset(...)` is evaluated, and so is an expression given as `offset` to the fit unless replaced here.
    A row with a missing value keeps its place and is NaN, and so is one that is not estimable: outside the
    row space of X, in a cell that does not occur or with aliased covariates apart.

    Raises ValueError for missing columns (with the nearest name), for an expression whose value depends on
    other rows (`x - x.mean()`), for a level of a fixed factor that the fit has not seen, and for an offset
    array of the fit that has no counterpart here. Unseen levels of grouping factors are reported, not raised.
    """
    recipe = frame._recipe
    if recipe is None:
        raise ValueError("this model was built from matrices: it has no formula to evaluate on new data")
    table = Table(newdata)
    chosen = wanted_terms(frame, groups)
    wanted = [term for term, columns in chosen if columns.any() or (rest and term.kernel is not None)]
    read = [term for term, columns in chosen if rest or columns.any()]
    parts = {"fixed": recipe.parts["fixed"]} | {term.text: recipe.parts[term.text] for term in read}
    if require_response:
        if frame.response is None:
            raise ValueError(f"the formula {frame.formula!r} has no response")
        parts["response"] = recipe.parts["response"]
    parts |= {name: part for name, part in recipe.parts.items() if name.startswith("offset")}
    own_weights = None
    if isinstance(weights, str):
        parts["weights"] = parse_vector("weights", weights, table, safe=recipe.safe)
        require_known([parts["weights"]], {}, table)
    elif weights is not None:
        own_weights = row_vector(weights, "weights", table.n, table.index)
    elif residual and (frame.weights is not None or "weights" in recipe.parts):
        if "weights" not in recipe.parts:
            raise ValueError(
                "residuals of new rows depend on their weights, and the model's are an array: pass weights= "
                "for the new rows"
            )
        parts["weights"] = recipe.parts["weights"]
    fixed_offset = None
    if isinstance(offset, str):
        parts["offset"] = parse_vector("offset", offset, table, safe=recipe.safe)
        require_known([parts["offset"]], {}, table)
    elif offset is not None:
        parts.pop("offset", None)
        fixed_offset = row_vector(offset, "offset", table.n, table.index)
    elif recipe.array_offset:
        raise ValueError("the model was fitted with an offset array: pass offset= for the new rows")

    for name, part in parts.items():
        if recipe.faults.get(name) and part is recipe.parts.get(name):
            raise ValueError(recipe.faults[name])
    evaluated = dict.fromkeys(name for part in parts.values() for name in part.columns)
    grouping = dict.fromkeys(name for term in wanted for name in term._levels.names)
    own = frame.residual if residual else None
    placing = dict.fromkeys([] if own is None else used_columns(own.residual, table, residual == "kriging"))
    wanted_names = list(evaluated | grouping | placing)
    _require_new(wanted_names, table, grouping.keys() - evaluated.keys())
    absent = np.logical_or.reduce([np.zeros(table.n, bool), *map(table.missing, wanted_names)])
    rows = np.flatnonzero(~absent)
    matrices = {name: apply_part(part, table, rows, recipe.kinds) for name, part in parts.items()}
    for name, part in parts.items():
        for j, what in enumerate(part.names or (name,)):
            require_finite(matrices[name][rows, j], f"{part.label}: {what!r}", table.index[rows])
    random = []
    for k, (term, some) in enumerate(chosen):
        if not rest and not some.any():
            continue
        codes, unseen = np.full(table.n, -1, np.int32), ()
        if any(term is one for one in wanted):
            columns = [table.take(name, rows) for name in term._levels.names]
            codes[rows] = term._levels.codes(columns) if rows.size else -1
            unseen = row_labels(columns, np.flatnonzero(codes[rows] < 0)) if some.any() else ()
            require_other_texts(unseen, term._levels)
        random.append(NewRandom(matrices[term.text], codes, unseen, term.group, term.text, k, some))
    offsets = [matrix[:, 0] for name, matrix in matrices.items() if name.startswith("offset")]
    offsets += [fixed_offset] if fixed_offset is not None else []
    places = None
    if residual:
        given = own_weights if "weights" not in matrices else matrices["weights"][:, 0]
        if given is not None:
            require_weights(given[rows], table.index[rows])
        places = new_places(own, table, rows, None if given is None else given[rows], residual == "kriging")
    x, lost = matrices["fixed"][:, recipe.kept], np.zeros(table.n, bool)
    if frame.dependence is not None:
        lost[rows] = ~frame.dependence.estimable(matrices["fixed"][rows])
        x = np.where(lost[:, None], np.nan, x)
    return NewFrame(
        x=x,
        offset=np.sum(offsets, axis=0) if offsets else None,
        random=tuple(random),
        y=matrices["response"][:, 0] if require_response else None,
        index=table.index,
        lost=lost,
        whole=matrices["fixed"],
        places=places,
    )


def _require_new(names: list[str], table: Table, grouping: Collection[str]) -> None:
    """ValueError names the columns that are missing, and says where only random terms need them."""
    absent = [name for name in names if name not in table]
    without = '; predict(re="none") leaves random effects out' if {*absent} <= {*grouping} else ""
    if len(absent) == 1:
        there = nearest(absent[0], table.keys)
        raise ValueError(f"the new data have no column {absent[0]!r}: {there}{without}")
    if absent:
        shown = ", ".join(map(repr, absent))
        raise ValueError(f"the new data have no columns {shown}: {there_are(table.keys)}{without}")


def fitted_rows(frame: ModelFrame, *, groups: Collection[str] | None = None) -> NewFrame:
    """The rows of the fit as new rows, with all columns of their random terms and their residuals' places."""
    random = []
    for k, (term, columns) in enumerate(wanted_terms(frame, groups)):
        codes = term.codes if columns.any() or term.kernel is not None else np.full_like(term.codes, -1)
        random.append(NewRandom(term.z, codes, (), term.group, term.text, k, columns))
    return NewFrame(
        x=frame.x,
        offset=frame.offset,
        random=tuple(random),
        y=frame.y,
        index=frame.index,
        lost=np.zeros(len(frame.x), bool),
        places=own_places(frame.residual, len(frame.x), frame.weights),
    )


def formula_parts(split: SplitFormula, table: Table, safe: bool, **vectors: Any) -> dict[str, Part]:
    texts = {"response": split.response} | {k: v for k, v in vectors.items() if isinstance(v, str)}
    texts |= {f"offset({text})": text for text in split.offsets}
    given = {name: text for name, text in texts.items() if text is not None}
    parts = {name: parse_vector(name, text, table, safe=safe) for name, text in given.items()}
    parts["fixed"] = parse("fixed part", split.fixed, table, safe=safe)
    return parts | {bar.text: parse(f"({bar.text})", bar.lhs, table, safe=safe) for bar in split.bars}
