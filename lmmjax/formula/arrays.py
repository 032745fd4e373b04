"""From matrices to a model frame, and to new rows of it, without a formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.other_arguments import answered
from lmmjax.covariance import family
from lmmjax.formula.columns import Table
from lmmjax.formula.frame import (
    Matrices,
    ModelFrame,
    NewFrame,
    NewRandom,
    RandomColumns,
    assemble,
    complete_rows,
    row_vector,
)
from lmmjax.formula.labelled import eager, labelled
from lmmjax.formula.levels import group_levels, require_other_texts, row_labels
from lmmjax.formula.matching import first_index, positions, without_labels
from lmmjax.formula.occasions import require_columns
from lmmjax.formula.relationships.terms import as_kernel, kernel_levels
from lmmjax.formula.residuals import own_places, residual_columns, used_columns
from lmmjax.residual import as_residual


@answered
def array_frame(
    y: Any,
    x: Any,
    groups: Any,
    z: Any = None,
    *,
    x_names: Sequence[str] | None = None,
    structure: str = "us",
    weights: Any = None,
    offset: Any = None,
    residual: Any = None,
    columns: Mapping[str, Any] | None = None,
    kernels: Mapping[str, Any] | None = None,
) -> ModelFrame:
    """ModelFrame of matrices, without a formula and without an intercept that x does not have.

    y (n,) or None; x (n, p) array or frame (names x0, x1, … or its own). `groups`: one array of labels,
    or a dict {name: labels} or list of them (names "group", or "group0", "group1", …, or that of a
    Series); z in the same arrangement, each (n,) or (n, q), array or frame, or None for a random
    intercept. `residual` is a residual structure, and `columns` {name: (n,)} what it reads beside the groups.
    `kernels` are the known covariances of levels by group, {name: K}, one for each.
    All that has labels of its rows is put in the order of the first that has. Missing rows are dropped over
    all of it. Raises ValueError as `model_frame` does, and where labels differ.
    """
    labels, parts = _arranged({} if groups is None else groups, z)
    beside = {**(columns or {}), **labels}
    given = {"x": x, "y": y, **beside, "weights": weights, "offset": offset}
    given |= {f"z of {name}": part for name, part in parts.items()}
    without_labels({name: one for name, one in given.items() if one is not None}, "from_arrays")
    index = first_index([x, y, *beside.values(), *parts.values(), weights, offset])
    design, names = _matrix(x, "x", x_names, index)
    n = len(design)
    index = pd.RangeIndex(n) if index is None else index
    vectors = {"y": y, "weights": weights, "offset": offset}
    vectors = {name: row_vector(v, name, n, index) for name, v in vectors.items() if v is not None}
    table = Table(beside, index)
    if table.n != n and table.keys:
        raise ValueError(f"groups has {table.n} rows and x has {n}: give one label for each row of x")
    matrices = {name: _matrix(part, "z", None, index) for name, part in parts.items() if part is not None}
    own = None if residual is None else as_residual(residual)
    if unknown := [name for name in kernels or {} if name not in labels]:
        raise ValueError(f"kernels has {unknown[0]!r}, which is no group: there are {', '.join(labels)}")
    for name, (part, _) in matrices.items():
        if len(part) != n:
            raise ValueError(f"z of {name!r} has {len(part)} rows and x has {n}")
    missing = {name: np.isnan(v) for name, v in vectors.items()}
    missing["x"] = np.asarray(np.isnan(design).any(axis=1))
    missing |= {name: table.missing(name) for name in (*labels, *used_columns(own, table))}
    missing |= {
        f"z of {name}": np.asarray(np.isnan(part).any(axis=1)) for name, (part, _) in matrices.items()
    }
    rows, counts = complete_rows(missing, n)
    for name in labels:
        _require_labels(table.take(name, rows), name, index[rows])

    random = []
    for name in labels:
        own_kernel = None if name not in (kernels or {}) else as_kernel((kernels or {})[name], name)
        if own_kernel is None:
            codes, levels = group_levels([name], [table.take(name, rows)])
        else:
            codes, levels = kernel_levels(own_kernel, name, name, table.take(name, rows))
        part, part_names = matrices.get(name, (np.ones((n, 1)), ("(Intercept)",)))
        text = " + ".join(["0"] * ("(Intercept)" not in part_names) + list(part_names))
        text = text.replace("(Intercept)", "1")
        text = f"{text} | {name}" if structure == "us" else f"{structure}({text} | {name})"
        require_columns(text, family(structure), part, None)
        random.append(
            RandomColumns(
                part[rows],
                part_names,
                name,
                codes,
                levels.labels,
                structure,
                (),
                text,
                levels,
                None,
                own_kernel,
            )
        )
    kept = {name: vectors[name][rows] if name in vectors else None for name in ("y", "weights", "offset")}
    response = None if y is None else str(getattr(y, "name", None) or "y")
    base = Matrices(
        **{name: vectors.get(name) for name in kept},
        x=pd.DataFrame(design, columns=list(names), copy=False),
        groups={name: table.raw(name) for name in labels},
        z={
            name: pd.DataFrame(matrices[name][0], columns=list(matrices[name][1]))
            if name in matrices
            else None
            for name in labels
        },
        structure=structure,
        residual=own,
        columns={name: table.raw(name) for name in columns or ()},
        index=index,
        response=response,
    )
    return assemble(
        formula="",
        response=response,
        x=design[rows],
        x_names=names,
        terms={name: np.array([j]) for j, name in enumerate(names)},
        term_factors={name: (name,) for name in names},
        factor_levels={},
        random=tuple(random),
        rows=rows,
        n_dropped=n - len(rows),
        missing=counts,
        index=index[rows],
        data_index=index,
        y=kept["y"],
        weights=kept["weights"],
        offset=kept["offset"],
        residual=None if own is None else residual_columns(own, table, rows),
        base=base,
    )


def new_array_frame(
    frame: ModelFrame, x: np.ndarray, groups: Mapping[str, Any], z: Mapping[str, np.ndarray]
) -> NewFrame:
    """m new rows of a model of matrices, with independent residuals of variance σ².

    x (m, r) has all columns that the model was given, aliased ones too, z (m, q) those of every factor;
    `groups` are labels (m,) by factor. A missing label, and a factor without labels, are levels that the fit
    has not seen. A row that is not estimable is NaN.
    """
    m, index = len(x), pd.RangeIndex(len(x))
    own, lost = frame.dependence, np.zeros(len(x), bool)
    if own is not None:
        lost = ~own.estimable(x)
        x = np.where(lost[:, None], np.nan, x[:, own.kept])
    table, random = Table(dict(groups), index), []
    for k, term in enumerate(frame.random):
        codes, unseen = np.full(m, -1, np.int32), ()
        if term.group in table:
            rows = np.flatnonzero(~table.missing(term.group))
            column = [table.take(term.group, rows)]
            codes[rows] = term._levels.codes(column) if rows.size else -1
            unseen = row_labels(column, np.flatnonzero(codes[rows] < 0))
            require_other_texts(unseen, term._levels)
        every = np.ones(len(term.names), bool)
        random.append(NewRandom(z[term.group], codes, unseen, term.group, term.text, k, every))
    places = own_places(None, m, None)
    return NewFrame(x, None, tuple(random), None, index, lost, places)


def _matrix(
    values: Any, what: str, names: Sequence[str] | None, index: pd.Index | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n, k) float64 and its column names: given, a frame's own, or x0, x1, …"""
    given = labelled(values, what, f"{what}: column", remedy="code factors as columns, or use a formula")
    place = positions(given.index, index, what, "the other arrays")
    array, own = given.values if place is None else given.values[place], given.columns
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2:
        raise ValueError(f"{what} has shape {array.shape}: a matrix has one row for each observation")
    found = names if names is not None else own
    if found is None:
        ones = what == "z" and array.shape[1] == 1 and bool(np.all(array == 1))
        found = ["(Intercept)"] if ones else [f"{what}{j}" for j in range(array.shape[1])]
    if len(found) != array.shape[1] or len({str(name) for name in found}) < len(found):
        raise ValueError(
            f"{what} has {array.shape[1]} columns: give as many different names, not {list(found)}"
        )
    return array, tuple(str(name) for name in found)


def _require_labels(column: pd.Series, name: str, index: pd.Index) -> None:
    """ValueError if the labels of groups are measurements."""
    if column.dtype.kind == "f" and np.any(bad := column.to_numpy() % 1 != 0):
        k = int(np.argmax(bad))
        raise ValueError(
            f"groups: {name!r} has {column.iloc[k]:g} in row {index[k]}: labels of groups are whole numbers "
            "or text"
        )


def _arranged(groups: Any, z: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """{name: labels} and {name: z or None} of whatever arrangement was given."""
    groups = eager(groups)
    if isinstance(groups, Mapping) or hasattr(groups, "columns"):
        labels = {
            str(name): groups[name] for name in (groups if isinstance(groups, Mapping) else groups.columns)
        }
    elif isinstance(groups, list | tuple) and groups and not np.isscalar(groups[0]):
        labels = {str(getattr(g, "name", None) or f"group{k}"): g for k, g in enumerate(groups)}
        if len(labels) < len(groups):
            raise ValueError("two groups have the same name: pass a dict {name: labels}")
    else:
        return (only := {str(getattr(groups, "name", None) or "group"): groups}), dict.fromkeys(only, z)
    if z is None:
        return labels, dict.fromkeys(labels)
    if isinstance(z, Mapping):
        unknown = [str(name) for name in z if str(name) not in labels]
        if unknown:
            raise ValueError(f"z has {unknown[0]!r}, which is no group: there are {', '.join(labels)}")
        return labels, {name: z.get(name) for name in labels}
    if not isinstance(z, list | tuple) or len(z) != len(labels):
        raise ValueError(f"there are {len(labels)} groups: pass z as a dict or list with one entry for each")
    return labels, dict(zip(labels, z, strict=True))
