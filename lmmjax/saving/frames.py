"""Model frames as what they are evaluated from, and evaluated again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula import ModelFrame, Table, array_frame, model_frame, nearest, take_columns, take_rows
from lmmjax.formula.frame import Matrices, Source, allowing, row_vector
from lmmjax.formula.residuals import used_columns
from lmmjax.residual import CORRELATIONS, VARIANCES, Residual, as_residual
from lmmjax.saving.archive import Arrays
from lmmjax.saving.kernels import packed_kernels, unpacked_kernels
from lmmjax.saving.polars_frames import as_polars
from lmmjax.saving.values import Plain, packed, packed_labels, plain_of, unpacked, unpacked_labels, value_of


def packed_frame(frame: ModelFrame, arrays: Arrays, columns: Any) -> Plain:
    """A frame as plain data: formula, options and the columns that they read, or matrices.

    Parameters
    ----------
    columns : names of further columns of the data to keep, or "all".

    Raises
    ------
    ValueError : there is no column of that name; one that holds objects of a type that a file does not keep;
        a residual structure that is none of the package's.
    """
    base = frame.base
    if isinstance(base, Source):
        made = _packed_source(frame, base, arrays, columns)
    elif isinstance(base, Matrices):
        made = _packed_matrices(base, arrays)
    else:
        raise ValueError("a model that was made from another's design has no data of its own to save")
    own = _has_own_weights(frame, base)
    made |= {"rows": arrays.put(frame.rows), "x_names": list(frame.x_names)}
    made |= {"kernels": packed_kernels(frame, arrays)}
    return made | ({"own_weights": arrays.put(frame.weights)} if own else {})


def _has_own_weights(frame: ModelFrame, base: Source | Matrices) -> bool:
    """Whether some rows have other weights than the model that they are taken from."""
    if frame.weights is None:
        return False
    if frame.source is not None:
        return frame.source.weights is not base.weights
    return base.weights is None or not np.array_equal(frame.weights, base.weights[frame.rows])


def unpacked_frame(plain: Plain, arrays: Arrays, safe: bool) -> ModelFrame:
    """The frame, evaluated again; `safe` refuses expressions that are not those of a safe formula."""
    frame = _from_source(plain, arrays, safe) if plain["made"] == "formula" else _from_matrices(plain, arrays)
    rows = arrays[plain["rows"]]
    own = arrays[plain["own_weights"]] if "own_weights" in plain else None
    if own is not None or not np.array_equal(rows, frame.rows):
        keep = np.isin(frame.rows, rows)
        if np.count_nonzero(keep) != len(rows):
            raise ValueError("rows of the model are missing from its data")
        if own is None:
            frame = take_rows(frame, keep)
        else:
            whole = np.ones(len(keep))
            whole[keep] = own
            frame = take_rows(dataclasses.replace(frame, weights=None), keep, whole)
    lost = [name for name in plain["x_names"] if name not in frame.x_names]
    if lost:
        raise ValueError(f"its formula and data give no column {lost[0]!r}, which its estimates are of")
    kept = [frame.x_names.index(name) for name in plain["x_names"]]
    return take_columns(frame, np.array(kept, int))


def require_same(frame: ModelFrame, again: ModelFrame) -> None:
    """ValueError naming what a frame that was evaluated again has otherwise."""
    for what, one, other in _numbers(frame, again):
        if (one is None) != (other is None) or (
            one is not None and not np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")
        ):
            raise ValueError(
                f"{what} evaluated again differs from that of the model: its data were changed after it was "
                "made, or an expression gives other values each time; make the model anew, from columns"
            )


def _numbers(frame: ModelFrame, again: ModelFrame) -> Iterable[tuple[str, Any, Any]]:
    """Arrays of two frames, by what to call them."""
    yield "the choice of complete rows", frame.rows, again.rows
    yield "the names of the fixed effects", np.array(frame.x_names), np.array(again.x_names)
    for name in ("y", "weights", "offset"):
        yield "the response" if name == "y" else name, getattr(frame, name), getattr(again, name)
    for j, name in enumerate(frame.x_names):
        yield f"column {name!r}", frame.x[:, j], again.x[:, j]
    for one, other in zip(frame.random, again.random, strict=True):
        yield f"({one.text})", one.z, other.z
        yield f"grouping factor {one.group!r}", one.codes, other.codes
        yield f"the levels of {one.group!r}", one.levels.astype(str), other.levels.astype(str)
    own, new = frame.residual, again.residual
    if own is not None and new is not None:
        yield "known variances", own.known, new.known
        if own.design is not None and new.design is not None:
            yield "the groups of the residual structure", own.design.codes, new.design.codes
            yield "the places of the residual structure", own.design.place, new.design.place


def _packed_source(frame: ModelFrame, base: Source, arrays: Arrays, columns: Any) -> Plain:
    table = Table(base.data)
    residual = None if base.residual is None else as_residual(base.residual)
    kept = dict.fromkeys([*_read(frame), *used_columns(residual, table), *_further(table, columns)])
    plain = {
        "made": "formula",
        "formula": frame.formula,
        "safe": base.safe,
        "index": packed_labels(table.index, arrays, "the index of the data"),
        "columns": [
            {
                "name": plain_of(table.keys[name], "a name"),
                **packed(table.raw(name), arrays, f"column {name!r}"),
            }
            for name in kept
        ],
        "polars": type(base.data).__module__.startswith("polars"),
        "residual": packed_residual(residual),
        "among": None if base.rows is None else arrays.put(base.rows),
    }
    for what in ("weights", "offset"):
        given = getattr(base, what)
        if given is not None and not isinstance(given, str):
            given = {"at": arrays.put(row_vector(given, what, table.n, table.index))}
        plain[what] = given
    return plain


def _read(frame: ModelFrame) -> list[str]:
    """Columns that the parts of a formula and its grouping factors read."""
    parts = frame._recipe.parts.values()
    read = [name for part in parts for name in part.columns]
    return [*read, *(name for term in frame.random for name in term._levels.names)]


def _further(table: Table, columns: Any) -> list[str]:
    if isinstance(columns, str) and columns == "all":
        return list(table.keys)
    wanted = [columns] if isinstance(columns, str) else [str(name) for name in columns]
    for name in wanted:
        if name not in table:
            raise ValueError(f"columns: unknown column {name!r}: {nearest(name, table.keys)}")
    return wanted


def _from_source(plain: Plain, arrays: Arrays, safe: bool) -> ModelFrame:
    columns = {value_of(column["name"]): unpacked(column, arrays) for column in plain["columns"]}
    data: Any = pd.DataFrame(columns)
    data.index = unpacked_labels(plain["index"], arrays)
    data = as_polars(data) if plain["polars"] else data
    beside: dict[str, Any] = {
        what: arrays[plain[what]["at"]] if isinstance(plain[what], dict) else plain[what]
        for what in ("weights", "offset")
    }
    frame = model_frame(
        plain["formula"],
        data,
        **beside,
        residual=unpacked_residual(plain["residual"]),
        kernels=unpacked_kernels(plain.get("kernels", []), arrays),
        safe=safe or plain["safe"],
        rows=None if plain["among"] is None else arrays[plain["among"]],
    )
    return allowing(frame, plain["safe"])


def _packed_matrices(base: Matrices, arrays: Arrays) -> Plain:
    given = {"x": base.x, **{f"z of {name}": part for name, part in base.z.items() if part is not None}}
    vectors = {"y": base.y, "weights": base.weights, "offset": base.offset}
    labels = [*base.groups.items(), *base.columns.items()]
    return {
        "made": "matrices",
        "index": packed_labels(base.index, arrays, "the index of the data"),
        "matrices": {
            name: {"at": arrays.put(part.to_numpy()), "names": list(part.columns)}
            for name, part in given.items()
        },
        "vectors": {name: None if v is None else arrays.put(v) for name, v in vectors.items()},
        "labels": [packed(values, arrays, name) for name, values in labels],
        "groups": list(base.groups),
        "columns": list(base.columns),
        "response": base.response,
        "structure": base.structure,
        "residual": packed_residual(base.residual),
    }


def _from_matrices(plain: Plain, arrays: Arrays) -> ModelFrame:
    index = unpacked_labels(plain["index"], arrays)
    matrices = {
        name: pd.DataFrame(arrays[one["at"]], index=index, columns=one["names"])
        for name, one in plain["matrices"].items()
    }
    vectors = {
        name: None if at is None else pd.Series(arrays[at], index=index)
        for name, at in plain["vectors"].items()
    }
    y = vectors["y"]
    read = [unpacked(one, arrays).set_axis(index) for one in plain["labels"]]
    labels = dict(zip(plain["groups"], read, strict=False))
    return array_frame(
        None if y is None else y.rename(plain["response"]),
        matrices["x"],
        labels,
        {name: matrices.get(f"z of {name}") for name in labels} if labels else None,
        structure=plain["structure"],
        weights=vectors["weights"],
        offset=vectors["offset"],
        residual=unpacked_residual(plain["residual"]),
        columns=dict(zip(plain["columns"], read[len(labels) :], strict=True)),
        kernels=_by_factor(unpacked_kernels(plain.get("kernels", []), arrays)),
    )


def _by_factor(kernels: dict[str, Any] | None) -> dict[str, Any] | None:
    """The kernels of terms of a model of matrices, one a factor, by factor."""
    return None if kernels is None else {text.split(" | ")[-1].rstrip(")"): k for text, k in kernels.items()}


def packed_residual(residual: Residual | None) -> Plain | None:
    """A structure by the names of its parts and their fields; ValueError for one of the user's own."""
    if residual is None:
        return None
    known = CORRELATIONS | VARIANCES
    for part in residual.parts:
        if known.get(part.name) is not type(part):
            raise ValueError(
                f"{type(part).__name__} is a residual structure of your own, which a file does not know: "
                "keep the code that makes the model"
            )
    parts = [{"family": part.name, **dataclasses.asdict(part)} for part in residual.parts]
    return {"parts": parts, "known": residual.known}


def unpacked_residual(plain: Plain | None) -> Residual | None:
    """The residual structure."""
    if plain is None:
        return None
    known, made = CORRELATIONS | VARIANCES, []
    for part in plain["parts"]:
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in part.items()}
        made.append(as_residual(known[fields.pop("family")](**fields)))
    out = Residual(known=plain["known"])
    for part in made:
        out = out * part
    return out
