"""Operations that move elements and compute nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.arrays.interpret.rules import MAKERS, PARAMETERS, Rule, plain


def _slice(p: dict[str, Any]) -> Rule:
    strides = p["strides"] or (None,) * len(p["start_indices"])
    where = tuple(map(slice, p["start_indices"], p["limit_indices"], strides))
    return lambda x: x[where]


def _reshape(p: dict[str, Any]) -> Rule:
    shape = p["new_sizes"]
    return (lambda x: x.reshape(shape)) if shape else (lambda x: x.reshape(-1)[0])


def _broadcast(p: dict[str, Any]) -> Rule:
    shape, narrow = p["shape"], [1] * len(p["shape"])
    for place, size in zip(p["broadcast_dimensions"], p["sizes"], strict=True):
        narrow[place] = size
    narrow = tuple(narrow)
    if narrow == shape:
        return lambda x: x.reshape(shape)

    def rule(x: Any) -> np.ndarray:
        out = np.empty(shape, x.dtype)
        out[...] = x.reshape(narrow)
        return out

    return rule


def _split(p: dict[str, Any]) -> Rule:
    ends, before = np.cumsum(p["sizes"]), (slice(None),) * p["axis"]
    parts = [(*before, slice(int(e - n), int(e))) for e, n in zip(ends, p["sizes"], strict=True)]
    return (lambda x: x[parts[0]]) if len(parts) == 1 else lambda x: [x[part] for part in parts]


def _stack(p: dict[str, Any]) -> Rule:
    shape, axis = p["shape"], p["axis"]
    places = [(*[slice(None)] * axis, k) for k in range(shape[axis])]

    def rule(*arrays: Any) -> np.ndarray:
        out = np.empty(shape, arrays[0].dtype)
        for place, array in zip(places, arrays, strict=True):
            out[place] = array
        return out

    return rule


def _unstack(p: dict[str, Any]) -> Rule:
    places = [(*[slice(None)] * p["axis"], k) for k in range(p["count"])]
    return (lambda x: x[places[0]]) if len(places) == 1 else lambda x: [x[place] for place in places]


def _pad(p: dict[str, Any]) -> Rule:
    config = p["padding_config"]

    def rule(x: Any, fill: Any) -> np.ndarray:
        sizes = [max(n - 1, 0) * k + n for n, (_, _, k) in zip(x.shape, config, strict=True)]
        total = [n + low + high for n, (low, high, _) in zip(sizes, config, strict=True)]
        inner = np.full(sizes, fill, x.dtype)
        inner[tuple(slice(None, None, k + 1) for _, _, k in config)] = x
        out = np.full(total, fill, x.dtype)
        into, of = [], []
        for size, (low, high, _) in zip(sizes, config, strict=True):
            into.append(slice(max(low, 0), size + low + min(high, 0)))
            of.append(slice(max(-low, 0), size + min(high, 0)))
        out[tuple(into)] = inner[tuple(of)]
        return out

    return rule


PARAMETERS |= {
    "broadcast_in_dim": lambda eqn: (
        plain("shape", "broadcast_dimensions")(eqn) | {"sizes": tuple(eqn.invars[0].aval.shape)}
    ),
    "reshape": plain("new_sizes"),
    "squeeze": lambda eqn: {"new_sizes": tuple(eqn.outvars[0].aval.shape)},
    "expand_dims": lambda eqn: {"new_sizes": tuple(eqn.outvars[0].aval.shape)},
    "transpose": plain("permutation"),
    "rev": plain("dimensions"),
    "slice": plain("start_indices", "limit_indices", "strides"),
    "split": plain("sizes", "axis"),
    "stack": lambda eqn: plain("axis")(eqn) | {"shape": tuple(eqn.outvars[0].aval.shape)},
    "unstack": lambda eqn: plain("axis")(eqn) | {"count": len(eqn.outvars)},
    "concatenate": plain("dimension"),
    "pad": plain("padding_config"),
}

MAKERS |= {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": lambda p: lambda x: x.transpose(p["permutation"]),
    "rev": lambda p: lambda x: np.flip(x, p["dimensions"]),
    "slice": _slice,
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
    "concatenate": lambda p: lambda *arrays: np.concatenate(arrays, p["dimension"]),
    "pad": _pad,
}
