"""Gather, scatter and slices that begin where an operand says, by NumPy's indices of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.arrays.interpret.rules import PARAMETERS, WITH_KNOWN, Rule

UPDATES: dict[str, Any] = {
    "scatter": None,
    "scatter-add": np.add,
    "scatter_add": np.add,
    "scatter-sub": np.subtract,
    "scatter_sub": np.subtract,
    "scatter-mul": np.multiply,
    "scatter_mul": np.multiply,
    "scatter-min": np.minimum,
    "scatter_min": np.minimum,
    "scatter-max": np.maximum,
    "scatter_max": np.maximum,
}


def _gather_parameters(eqn: Any) -> dict[str, Any]:
    d = eqn.params["dimension_numbers"]
    fill = eqn.params["fill_value"]
    dtype = np.dtype(eqn.outvars[0].aval.dtype)
    if fill is None:
        fill = np.nan if dtype.kind in "fc" else (True if dtype.kind == "b" else np.iinfo(dtype).min)
    return {
        "offset": tuple(d.offset_dims),
        "gone": tuple(d.collapsed_slice_dims),
        "map": tuple(d.start_index_map),
        "batch": tuple(getattr(d, "operand_batching_dims", ())),
        "batch_of_indices": tuple(getattr(d, "start_indices_batching_dims", ())),
        "sizes": tuple(map(int, eqn.params["slice_sizes"])),
        "operand": tuple(eqn.invars[0].aval.shape),
        "out": tuple(eqn.outvars[0].aval.shape),
        "mode": _mode(eqn),
        "fill": fill,
    }


def _scatter_parameters(eqn: Any) -> dict[str, Any]:
    d = eqn.params["dimension_numbers"]
    operand, updates = (tuple(eqn.invars[k].aval.shape) for k in (0, 2))
    gone = tuple(d.inserted_window_dims)
    batch = tuple(getattr(d, "operand_batching_dims", ()))
    window = iter(updates[k] for k in d.update_window_dims)
    return {
        "offset": tuple(d.update_window_dims),
        "gone": gone,
        "map": tuple(d.scatter_dims_to_operand_dims),
        "batch": batch,
        "batch_of_indices": tuple(getattr(d, "scatter_indices_batching_dims", ())),
        "sizes": tuple(1 if k in gone or k in batch else next(window) for k in range(len(operand))),
        "operand": operand,
        "out": updates,
        "mode": _mode(eqn),
    }


def _mode(eqn: Any) -> str:
    return str(eqn.params["mode"]).rsplit(".", 1)[-1].split(" ")[0].upper()


def _places(p: dict[str, Any], indices: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
    """An index a dimension of the operand, of the shape of what is gathered; where the slice lies within,
    or None where all do."""
    rank = len(p["out"])
    lead = [k for k in range(rank) if k not in p["offset"]]

    def in_place(a: np.ndarray, places: list[int]) -> np.ndarray:
        shape = [1] * rank
        for place, size in zip(places, a.shape, strict=True):
            shape[place] = size
        return a.reshape(shape)

    where, within = [], None
    kept = iter(p["offset"])
    for k, (size, length) in enumerate(zip(p["operand"], p["sizes"], strict=True)):
        at = np.zeros([1] * rank, np.intp)
        if k in p["map"]:
            start = in_place(indices[..., p["map"].index(k)].astype(np.intp), lead)
            last = size - length
            if p["mode"] == "FILL_OR_DROP":
                good = (start >= 0) & (start <= last)
                if not good.all():
                    within = good if within is None else within & good
            at = at + np.clip(start, 0, max(last, 0))
        elif k in p["batch"]:
            axis = p["batch_of_indices"][p["batch"].index(k)]
            at = at + in_place(np.arange(size), [lead[axis]])
        if k not in p["gone"] and k not in p["batch"]:
            at = at + in_place(np.arange(length), [next(kept)])
        where.append(at)
    return tuple(where), within


def _gather(p: dict[str, Any], known: list[np.ndarray | None]) -> Rule:
    def take(x: Any, where: tuple[np.ndarray, ...], within: np.ndarray | None) -> np.ndarray:
        found = x[where] if where else x
        if found.shape != p["out"]:
            found = np.broadcast_to(found, p["out"])
        return found if within is None else np.where(within, found, np.asarray(p["fill"], x.dtype))

    if known[1] is not None:
        places = _places(p, known[1])
        return lambda x, _: take(x, *places)
    return lambda x, indices: take(x, *_places(p, indices))


def _scatter(name: str) -> Any:
    function = UPDATES[name]

    def maker(p: dict[str, Any], known: list[np.ndarray | None]) -> Rule:
        ready = None if known[1] is None else _places(p, known[1])

        def rule(x: Any, indices: Any, updates: Any) -> np.ndarray:
            where, within = _places(p, indices) if ready is None else ready
            where = np.broadcast_arrays(*where) if where else ()
            if within is not None:
                chosen = np.broadcast_to(within, p["out"])
                where, updates = [w[chosen] if w.shape == chosen.shape else w for w in where], updates[chosen]
            out = np.array(x)
            if function is None:
                out[tuple(where)] = updates
            else:
                function.at(out, tuple(where), updates)
            return out

        return rule

    return maker


def _dynamic_slice(p: dict[str, Any], known: list[np.ndarray | None]) -> Rule:
    sizes = p["sizes"]

    def rule(x: Any, *starts: Any) -> np.ndarray:
        begin = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, x.shape, sizes, strict=True)]
        return x[tuple(slice(b, b + k) for b, k in zip(begin, sizes, strict=True))]

    return rule


def _dynamic_update(p: dict[str, Any], known: list[np.ndarray | None]) -> Rule:
    def rule(x: Any, update: Any, *starts: Any) -> np.ndarray:
        begin = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, x.shape, update.shape, strict=True)]
        out = np.array(x)
        out[tuple(slice(b, b + k) for b, k in zip(begin, update.shape, strict=True))] = update
        return out

    return rule


PARAMETERS["gather"] = _gather_parameters
WITH_KNOWN["gather"] = _gather
PARAMETERS["dynamic_slice"] = lambda eqn: {"sizes": tuple(map(int, eqn.params["slice_sizes"]))}
WITH_KNOWN["dynamic_slice"] = _dynamic_slice
PARAMETERS["dynamic_update_slice"] = lambda eqn: {}
WITH_KNOWN["dynamic_update_slice"] = _dynamic_update
for _name in UPDATES:
    PARAMETERS[_name] = _scatter_parameters
    WITH_KNOWN[_name] = _scatter(_name)
