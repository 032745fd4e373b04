"""The rules of primitives on elements: arithmetic without constant zeros and ones, and moves by number."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lmmjax.arrays.unroll.moves import MOVES, move, scalar

REDUCTIONS = {
    "reduce_sum": "add",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_and": "and",
    "reduce_or": "or",
    "reduce_prod": "mul",
}


def apply(eqn: Any, args: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs of a primitive without inner programs, on object arrays of elements."""
    name, params = eqn.primitive.name, eqn.params
    if name in MOVES:
        return move(name, args, params)
    if name == "dot_general":
        return [_dot_general(args[0], args[1], params["dimension_numbers"])]
    if name in REDUCTIONS:
        return [_reduce(REDUCTIONS[name], args[0], params["axes"])]
    if name in ("argmax", "argmin"):
        return [_arg_extreme(args[0], name == "argmax")]
    if name == "iota":
        return [unpack(np.indices(params["shape"], dtype=params["dtype"])[params["dimension"]])]
    if name == "convert_element_type":
        return [each_element(_converter(np.dtype(params["new_dtype"])), *args)]
    if name == "select_n":
        return [each_element(_select, *args)]
    if name in ELEMENTWISE:
        return [each_element(ELEMENTWISE[name](params), *args)]
    raise ValueError(f"the primitive {name!r} cannot be unrolled")


def unpack(array: Any) -> np.ndarray:
    """Object array of the elements; concrete NumPy arrays give NumPy scalars."""
    out = np.empty(np.shape(array), dtype=object)
    for index in np.ndindex(out.shape):
        out[index] = array[index] if out.shape else array
    return out


def unpacked(a: Any) -> np.ndarray:
    """The elements, unless it is an array of these already."""
    return a if isinstance(a, np.ndarray) and a.dtype == object else unpack(a)


def constant(x: Any) -> bool:
    """Whether an element is known while tracing."""
    return not isinstance(x, Tracer)


def _converter(dtype: np.dtype) -> Callable:
    return lambda x: np.asarray(x).astype(dtype)[()] if constant(x) else x.astype(dtype)


def each_element(rule: Callable, *arrays: np.ndarray) -> np.ndarray:
    """A rule on every element of broadcast arrays."""
    arrays = np.broadcast_arrays(*arrays) if len({a.shape for a in arrays}) > 1 else arrays
    out = np.empty(arrays[0].shape, dtype=object)
    for index in np.ndindex(out.shape):
        out[index] = rule(*(a[index] for a in arrays))
    return out


def _dot_general(a: np.ndarray, b: np.ndarray, numbers: Any) -> np.ndarray:
    ((ca, cb), (ba, bb)) = numbers
    free_a = [i for i in range(a.ndim) if i not in (*ca, *ba)]
    free_b = [i for i in range(b.ndim) if i not in (*cb, *bb)]
    left = a.transpose(*ba, *free_a, *ca)
    right = b.transpose(*bb, *free_b, *cb)
    nb, nc = len(ba), len(ca)
    batch, contracted = left.shape[:nb], left.shape[left.ndim - nc :]
    rows, cols = left.shape[nb : left.ndim - nc], right.shape[nb : right.ndim - nc]
    out = np.empty((*batch, *rows, *cols), dtype=object)
    for s, i, j in itertools.product(np.ndindex(batch), np.ndindex(rows), np.ndindex(cols)):
        total: Any = None
        for c in np.ndindex(contracted):
            term = multiply(left[(*s, *i, *c)], right[(*s, *j, *c)])
            total = term if total is None else add(total, term)
        out[(*s, *i, *j)] = 0.0 if total is None else total
    return out


def _reduce(name: str, array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    rule = _rule(name)
    kept = [i for i in range(array.ndim) if i not in axes]
    moved = array.transpose(*kept, *axes).reshape([array.shape[i] for i in kept] + [-1])
    out = np.empty(moved.shape[:-1], dtype=object)
    for index in np.ndindex(out.shape):
        row = moved[index]
        total = row[0] if len(row) else 0.0
        for x in row[1:]:
            total = rule(total, x)
        out[index] = total
    return out


def _arg_extreme(array: np.ndarray, largest: bool) -> np.ndarray:
    best, where = array[0], np.int32(0)
    beats = _rule("gt" if largest else "lt")
    for k in range(1, len(array)):
        better = beats(array[k], best)
        where, best = _select(better, where, np.int32(k)), _select(better, best, array[k])
    return scalar(where)


def _is(x: Any, value: float) -> bool:
    return constant(x) and bool(np.all(np.asarray(x) == value))


def add(a: Any, b: Any) -> Any:
    """a + b without adding constant zeros."""
    return b if _is(a, 0) else a if _is(b, 0) else a + b


def multiply(a: Any, b: Any) -> Any:
    """ab without multiplying by constant zeros (taken as exact: 0·x = 0) and ones."""
    if _is(a, 0) or _is(b, 0):
        return 0.0
    return b if _is(a, 1) else a if _is(b, 1) else a * b


def _subtract(a: Any, b: Any) -> Any:
    return a if _is(b, 0) else -b if _is(a, 0) else a - b


def _divide(a: Any, b: Any) -> Any:
    return 0.0 if _is(a, 0) else a if _is(b, 1) else a / b


def _select(which: Any, *cases: Any) -> Any:
    if constant(which):
        return cases[int(which)]
    if cases[0] is cases[1]:
        return cases[0]
    return jnp.where(which, cases[1], cases[0])


def _plain(function: Callable) -> Callable:
    """A rule for a primitive without parameters: NumPy on constants, `jax.numpy` on the rest."""
    numpy_function = getattr(np, function.__name__)

    def rule(*xs: Any) -> Any:
        if all(constant(x) for x in xs):
            with np.errstate(all="ignore"):
                return numpy_function(*xs)
        return function(*(x.item() if constant(x) and hasattr(x, "item") else x for x in xs))

    return lambda params: rule


ELEMENTWISE: dict[str, Callable[[dict[str, Any]], Callable]] = {
    "add": lambda _: add,
    "add_any": lambda _: add,
    "mul": lambda _: multiply,
    "sub": lambda _: _subtract,
    "div": lambda _: _divide,
    "neg": lambda _: lambda x: x if _is(x, 0) else -x,
    "integer_pow": lambda params: lambda x: _power(x, params["y"]),
    "square": lambda _: lambda x: multiply(x, x),
    "rsqrt": lambda _: lambda x: 1.0 / _rule("sqrt")(x),
    "copy_p": lambda _: lambda x: x,
    "stop_gradient": lambda _: lambda x: x,
    "reshard": lambda _: lambda x: x,
    "pow": lambda _: _raise,
    "clamp": lambda _: lambda low, x, high: _rule("min")(_rule("max")(x, low), high),
}
for _name, _function in {
    "log": jnp.log,
    "log1p": jnp.log1p,
    "exp": jnp.exp,
    "sqrt": jnp.sqrt,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "tanh": jnp.tanh,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "eq": jnp.equal,
    "ne": jnp.not_equal,
    "and": jnp.logical_and,
    "or": jnp.logical_or,
    "not": jnp.logical_not,
    "is_finite": jnp.isfinite,
}.items():
    ELEMENTWISE[_name] = _plain(_function)


def _raise(x: Any, y: Any) -> Any:
    """x to the power y; a power of a vector takes as long as a whole evaluation, a root does not."""
    if constant(y) and 2.0 * y == int(2.0 * y) and abs(y) <= 4:
        root = _rule("sqrt")(x) if y % 1 else 1.0
        return multiply(root, _power(x, int(y // 1)))
    return np.power(x, y) if constant(x) and constant(y) else jnp.power(x, y)


def _rule(name: str) -> Callable:
    """The rule of a primitive without parameters."""
    return ELEMENTWISE[name]({})


def _power(x: Any, y: int) -> Any:
    if y < 0:
        return 1.0 / _power(x, -y)
    out: Any = 1.0
    for _ in range(y):
        out = multiply(out, x)
    return out
