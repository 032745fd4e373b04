"""Parts of a formula to matrices by formulaic.

formulaic remembers the state of its transformations (`poly`, `scale`, splines, contrasts, levels), so
that a fitted part can be applied to new rows. What it does not do is done here: names are checked before
anything runs, bools are factors, and values outside the levels of a factor are an error (formulaic 1.2
codes them as zeros, with a warning).
"""

import copy
import math
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.columns import Table, nearest
from lmmjax.formula.frame import require_rows
from lmmjax.formula.functions import formulaic
from lmmjax.formula.parts import Part, factor_texts, kind_of
from lmmjax.formula.text.bars import STRUCTURES, quoted
from lmmjax.formula.text.rowwise import Evaluation, is_by_row
from lmmjax.formula.text.safety import QUOTES, read_expression, require_safe, require_sound

CROWDED, FEW_ROWS = 4, 500
"""Times as many columns as there are rows, of these so many at least, that no model has use for."""


def parse(label: str, text: str, table: Table, *, safe: bool = False, is_vector: bool = False) -> Part:
    """Read a right-hand side such as "1 + x*f"; ValueError for syntax and unknown functions.

    Unknown columns are left to `require_known`, which names those of all parts.
    `safe` refuses what is more than columns, literals, arithmetic and known functions
    (`lmmjax.formula.text.safety`).
    """
    lib = formulaic()
    try:
        formula = lib.Formula(text)
        factors = [factor for term in formula for factor in term.factors]
        texts = dict.fromkeys(str(f.expr) for f in factors if f.eval_method.value == "python")
        python = [read_expression(text) for text in texts]
    except Exception as error:
        raise ValueError(f"{label}: cannot read {text!r}: {_reason(error)}") from error
    bare = [str(factor.expr) for factor in factors if factor.eval_method.value == "lookup"]
    for name in ("", "0", "1"):
        if f"`{name}`" in text and name in table:
            raise ValueError(f"{label}: column {name!r} reads as a number in a formula: rename the column")
    for expression in python:
        if safe:
            require_safe(label, expression, lib.names, table)
        require_sound(label, expression, lib.names, table.n)
    inside = [name for expression in python for name in sorted(expression.values)]
    for name in (name for expression in python for name in sorted(expression.functions)):
        if name not in lib.known:
            known = sorted(lib.functions | STRUCTURES)
            raise ValueError(f"{label}: unknown function {name!r}: {nearest(name, known)}")
        if name in table and name in bare + inside:
            raise ValueError(f"{label}: column {name!r} hides the function {name}(): rename the column")
    wanted = dict.fromkeys(bare + [name for name in inside if name not in lib.known])
    unknown = tuple(name for name in wanted if name not in table)
    for name in unknown:
        dotted = [column for column in table.keys if column.startswith(f"{name}.") and name in inside]
        if dotted:
            raise ValueError(
                f"{label}: unknown column {name!r}: in an expression write `{dotted[0]}`, in backticks"
            )
    columns = tuple(dict.fromkeys(name for name in bare + inside if name in table))
    unproven = frozenset(e.text for e in python if not is_by_row(e, lib.names))
    return Part(label, columns, frozenset(bare), is_vector, formula, unproven=unproven, unknown=unknown)


def terms(text: str, label: str = "fixed part") -> list[tuple[str, ...]]:
    """The terms of a right-hand side, each its factors as a formula writes them; () is the intercept.

    ValueError for syntax.
    """
    try:
        formula = formulaic().Formula(text)
    except Exception as error:
        raise ValueError(f"{label}: cannot read {text!r}: {_reason(error)}") from error
    return [factor_texts(term) for term in formula]


def parse_vector(name: str, text: str, table: Table, *, safe: bool = False) -> Part:
    """Read an expression with one numeric value a row (arithmetic, not formula operators)."""
    label = name if name.startswith("offset(") else f"{name} {text!r}"
    column = text if text in table else text.strip("` ")
    if column in table:
        return parse(label, f"0 + {quoted(column)}", table, is_vector=True)
    if "^" in QUOTES.sub("", text):
        raise ValueError(f"{name} {text!r}: ^ is Python's exclusive or, write ** for a power")
    return parse(label, f"0 + I({text})", table, safe=safe, is_vector=True)


def fit_parts(
    parts: dict[str, Part], table: Table, rows: np.ndarray, counts: dict[str, int]
) -> tuple[dict[str, Part], dict[str, np.ndarray], np.ndarray, pd.DataFrame]:
    """Evaluate parts on the complete rows `rows` of a table.

    Returns the fitted parts, their matrices, the rows left after those were dropped in which an
    expression gives NaN (counted in `counts`), and the columns that were evaluated on them.
    Expressions are evaluated again on the rows left, unless that gives NaN again (as `lag` does).
    """

    def evaluate(rows: np.ndarray, drop: Iterable[int]) -> dict[str, _Evaluated]:
        frame = _frame(table, parts.values(), rows)
        return {name: _evaluate(part, frame, set(drop)) for name, part in parts.items()}

    values = evaluate(rows, ())
    lost = set().union(*(value.lost for value in values.values()))
    if lost:
        for value in values.values():
            counts.update(value.nulls)
        kept = np.delete(rows, sorted(lost))
        require_rows(len(kept), counts)
        again = evaluate(kept, ())
        values = evaluate(rows, lost) if any(value.lost for value in again.values()) else again
        rows = kept
    fitted = {
        name: replace(
            part,
            spec=values[name].spec,
            names=tuple(values[name].spec.column_names),
            values=values[name].factors,
        )
        for name, part in parts.items()
    }
    columns = _frame(table, parts.values(), rows)
    for name, part in fitted.items():
        if part.unproven and len(values[name].matrix) == len(columns):
            evaluation = Evaluation(_frame(table, [part], rows), values[name].matrix)
            fitted[name] = replace(part, evaluation=evaluation)
    return fitted, {name: value.matrix for name, value in values.items()}, rows, columns


def apply_part(part: Part, table: Table, rows: np.ndarray, kinds: dict[str, str]) -> np.ndarray:
    """(n, k) values of a fitted part (or a new vector) on all n rows of a table, NaN outside `rows`.

    `kinds` are those of the fit; a column that has become another kind is converted to a factor or to
    bool, or is a ValueError. The state of the fit is left as it is.
    """
    out = np.full((table.n, 1 if part.is_vector else len(part.names)), np.nan)
    if rows.size:
        out[rows] = _apply(part, _frame(table, [part], rows), kinds)
    return out


def reads_other_rows(part: Part, kinds: dict[str, str]) -> str:
    """What is wrong with evaluating a fitted part on new rows, or "": expressions that read other rows."""
    if not part.unproven:
        return ""
    moved = np.ones(len(part.names), bool)
    if part.evaluation is not None:
        moved = part.evaluation.moved(lambda frame: _apply(part, frame, kinds))
    return part.fault(moved) if np.any(moved) else ""


def _apply(part: Part, frame: pd.DataFrame, kinds: dict[str, str]) -> np.ndarray:
    """(n, k) values on all rows of a frame, NaN where an expression gives NaN."""
    out = np.full((len(frame), 1 if part.is_vector else len(part.names)), np.nan)
    for name, column in list(frame.items()):
        now = kind_of(column)
        kind = kinds.get(str(name), now)
        if kind == "category":
            frame[name] = column.astype("category")
        elif kind == "bool" and now == "number" and bool(column.isin([0, 1]).all()):
            frame[name] = column.astype(bool)
        elif kind != now:
            raise ValueError(
                f"{part.label}: column {name!r} was a {kind} in the fit and is a {now} here: convert it"
            )
    value = _evaluate(replace(part, spec=copy.deepcopy(part.spec)), frame, set())
    out[np.delete(np.arange(len(frame)), sorted(value.lost))] = value.matrix
    return out


@dataclass(frozen=True)
class _Evaluated:
    """Matrix of the rows not `lost` to NaN, how many each expression lost, and `Part.values`."""

    matrix: np.ndarray
    spec: Any
    lost: set[int]
    nulls: dict[str, int]
    factors: dict[str, np.ndarray]


def _frame(table: Table, parts: Iterable[Part], rows: np.ndarray) -> pd.DataFrame:
    names = dict.fromkeys(name for part in parts for name in part.columns)
    return pd.DataFrame({name: table.evaluated(name, rows) for name in names}, index=pd.RangeIndex(len(rows)))


def _evaluate(part: Part, frame: pd.DataFrame, drop: set[int]) -> _Evaluated:
    lib, lost, nulls = formulaic(), set(drop), {}
    for name in part.bare:
        if part.is_vector and frame[name].dtype.kind == "b":
            frame = frame.assign(**{name: frame[name].astype(np.float64)})
    if not part.names:
        _require_room(part, frame)
    materializer = lib.Materializer(frame, context=lib.context)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            matrix = materializer.get_model_matrix(part.spec, drop_rows=lost, output="numpy")
        except Exception as error:
            short = _no_numbers(materializer.factor_cache, len(frame)) or _shortened(error, frame)
            raise ValueError(f"{part.label}: {short}") from error
        evaluated = {str(expr): factor.values for expr, factor in materializer.factor_cache.items()}
        if lost:
            nulls = {expr: len(lib.find_nulls(v)) for expr, v in evaluated.items() if not np.isscalar(v)}
    fitted = replace(part, spec=matrix.model_spec)
    _check_levels(fitted, evaluated, known=bool(part.names))
    values = np.asarray(matrix)
    if part.is_vector and (values.shape[1] != 1 or fitted.levels):
        raise ValueError(f"{part.label} is not one numeric column: convert it to numbers")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{part.label}: the values are not all numeric: convert them to numbers")
    if not values.size:
        values = np.empty((len(frame) - len(lost), values.shape[1]))
    return _Evaluated(
        values.astype(np.float64),
        matrix.model_spec,
        lost,
        {e: k for e, k in nulls.items() if k},
        _interacting(fitted, evaluated, sorted(lost)),
    )


def _require_room(part: Part, frame: pd.DataFrame) -> None:
    """ValueError where terms have many times as many columns as there are rows, before these are made."""
    sizes = {
        str(term): math.prod(max(_n_levels(str(factor.expr), frame) - 1, 1) for factor in term.factors)
        for term in part.spec
    }
    total, n = sum(sizes.values()), len(frame)
    if total > CROWDED * max(n, FEW_ROWS):
        worst = max(sizes, key=lambda term: sizes[term])
        raise ValueError(
            f"{part.label}: some {total:,} columns for {n:,} rows, {sizes[worst]:,} of them of {worst!r}: "
            "take out interactions of factors with many levels"
        )


def _n_levels(expr: str, frame: pd.DataFrame) -> int:
    """Levels of a factor, of a column or C(column); 1 for numbers."""
    if expr in frame:
        return len(frame[expr].cat.categories) if hasattr(frame[expr], "cat") else 1
    named = re.match(r"(?:C|factor)\(\s*`?([^`,()]+?)`?\s*[,)]", expr)
    return len(frame[named.group(1)].unique()) if named and named.group(1) in frame else 1


def _interacting(part: Part, evaluated: dict[str, Any], lost: list[int]) -> dict[str, np.ndarray]:
    """`Part.values` of the rows that are not lost."""
    levels, out = part.levels, {}
    for factors in part.term_factors.values():
        if not any(expr in levels for expr in factors):
            continue
        for expr in factors:
            inner = getattr(evaluated[expr], "__wrapped__", evaluated[expr])
            if expr in levels:
                array = pd.Categorical(np.asarray(inner), categories=list(levels[expr])).codes
            elif isinstance(inner, dict):
                array = np.column_stack([np.asarray(column, float) for column in inner.values()])
            else:
                array = np.asarray(inner, float).reshape(len(inner), -1)
            out[expr] = np.delete(array, lost, axis=0)
    return out


def _shortened(error: Exception, frame: pd.DataFrame) -> str:
    """What an expression raised, with its name and those of its columns that are no numbers."""
    if none := re.match(
        r"Error encountered while checking for nulls in `(.*)`: No implementation", str(error)
    ):
        return f"{none.group(1)!r} does not give one value for each row"
    found = re.fullmatch(r"Unable to evaluate factor `(.*)`\. \[\w+: (.*)\]", str(error), re.DOTALL)
    if not found:
        return str(error)
    words = {"category": "text or categories", "time": "dates or times"}
    kinds = {str(name): kind_of(column) for name, column in frame.items()}
    used = read_expression(found.group(1)).values
    odd = [f"{n!r} holds {words[k]}" for n, k in kinds.items() if k in words and n in used]
    said = f"{', '.join(odd)}: convert it to numbers" if odd else found.group(2).rstrip(".")
    return f"cannot evaluate {found.group(1)!r}: {said}"


def _no_numbers(factors: dict[str, Any], n: int) -> str:
    for expr, factor in factors.items():
        values, python = factor.values, factor.factor.eval_method.value == "python"
        if python and getattr(getattr(values, "dtype", None), "kind", "") in ("m", "M"):
            return (
                f"{expr!r} gives dates or time spans: make it a column of numbers, such as days, beforehand"
            )
        if python and not isinstance(values.__wrapped__, dict) and np.shape(values)[:1] != (n,):
            return f"{expr!r} does not give one value for each row"
    return ""


def _check_levels(part: Part, evaluated: dict[str, Any], *, known: bool) -> None:
    levels = part.levels
    for expr, names in levels.items():
        values = getattr(evaluated[expr], "__wrapped__", evaluated[expr])
        if isinstance(values, dict) or np.ndim(values) != 1:
            continue
        unseen = [str(v) for v in pd.Series(values).dropna().unique() if v not in names]
        if unseen:
            what = "levels that the model was not fitted with" if known else "values outside its levels"
            listed = ", ".join(unseen[:8]) + (", ..." if len(unseen) > 8 else "")
            raise ValueError(f"{part.label}: {expr!r} has {what}: {listed}; drop those rows")
    factors = part.term_factors
    for term, columns in part.terms.items():
        single = [expr for expr in factors[term] if len(levels.get(expr, "two")) < 2]
        if not columns.size and single:
            raise ValueError(f"{part.label}: factor {single[0]!r} has one level: take it out of the formula")


def _reason(error: Exception) -> str:
    """formulaic's message, its coloured excerpt as a line with a caret."""
    message, _, excerpt = re.sub(r"\x1b\[[\d;]*m", "", str(error)).partition("\n\n")
    message = re.sub(
        r"Operator `(.*?)` has insuf\w+ arguments.*",
        r"\1 lacks a term on one of its sides: write both, or I(...) for arithmetic",
        message,
    )
    message = re.sub(
        r"Missing operator between (`.*`) and (`.*`)\.",
        r"nothing stands between \1 and \2: write +, or a name with spaces in backticks",
        message,
    )
    if "⧛" not in excerpt:
        return message
    return f"{message}\n    {re.sub('[⧛⧚]', '', excerpt)}\n    {' ' * excerpt.index('⧛')}^"
