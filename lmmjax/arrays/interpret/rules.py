"""What NumPy does for a primitive of JAX: (parameters, known operands) → function of arrays."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.dtypes import float0
from scipy import special

Rule = Callable[..., Any]


class Unsupported(Exception):
    """A program has an operation that cannot be played."""


def plain(*names: str) -> Callable[[Any], dict[str, Any]]:
    """Parameters of an equation by name, as they are: numbers and tuples of them."""
    return lambda eqn: {name: _data(eqn.params[name]) for name in names}


def _data(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(map(_data, value))
    return int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else value


def dtype_of(atom: Any) -> np.dtype:
    """The type of a value in a program; `Unsupported` where NumPy has none of its own (keys, bfloat16)."""
    try:
        dtype = np.dtype(atom.aval.dtype)
    except TypeError:
        raise Unsupported(f"NumPy has no {atom.aval.dtype}") from None
    if dtype == float0:
        # tangents of integers, which nothing reads
        return np.dtype(bool)
    if dtype.kind == "V":
        raise Unsupported(f"NumPy has no {dtype}")
    return dtype


def out_type(eqn: Any) -> str:
    return dtype_of(eqn.outvars[0]).str


def _power(x: np.ndarray, n: int) -> Any:
    if n == 2:
        return x * x
    return 1 / x**-n if n < 0 else x**n


def _divide(x: Any, y: Any) -> Any:
    if x.dtype.kind in "iu":
        return np.trunc(x / np.where(y == 0, 1, y)).astype(x.dtype)
    return x / y


def _select(which: Any, *cases: Any) -> Any:
    if not which.ndim:
        return cases[int(which)]
    if len(cases) == 2:
        return np.where(which, cases[1], cases[0])
    return np.choose(which, cases)


def _not(x: Any) -> Any:
    return np.logical_not(x) if x.dtype.kind == "b" else np.invert(x)


ELEMENTS: dict[str, Rule] = {
    "add": operator.add,
    "add_any": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": _divide,
    "rem": np.fmod,
    "neg": operator.neg,
    "max": np.maximum,
    "min": np.minimum,
    "pow": lambda x, y: np.power(x, y.astype(x.dtype)),
    "abs": operator.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "cbrt": np.cbrt,
    "square": lambda x: x * x,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": special.expit,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": special.erf,
    "erfc": special.erfc,
    "erf_inv": special.erfinv,
    "lgamma": special.gammaln,
    "digamma": special.digamma,
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "not": _not,
    "is_finite": np.isfinite,
    "nextafter": np.nextafter,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}
"""Of arrays of one shape (or scalars), element by element, without parameters.

Python's operators take a tenth of the time that ufuncs take for scalars.
"""

SCALARWISE = frozenset({*ELEMENTS} - {"clamp"})
"""Those whose operands need not be broadcast before."""

REDUCTIONS: dict[str, Any] = {
    "reduce_sum": np.add,
    "reduce_prod": np.multiply,
    "reduce_max": np.maximum,
    "reduce_min": np.minimum,
    "reduce_and": np.bitwise_and,
    "reduce_or": np.bitwise_or,
}

RUNNING: dict[str, Any] = {
    "cumsum": np.add,
    "cumprod": np.multiply,
    "cummax": np.maximum,
    "cummin": np.minimum,
}

PARAMETERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    **dict.fromkeys(ELEMENTS, plain()),
    **dict.fromkeys(REDUCTIONS, plain("axes")),
    **dict.fromkeys(RUNNING, plain("axis", "reverse")),
    "select_n": plain(),
    "integer_pow": plain("y"),
    "convert_element_type": lambda eqn: {"dtype": out_type(eqn)},
    "iota": lambda eqn: {"dtype": out_type(eqn)} | plain("shape", "dimension")(eqn),
    "dot_general": lambda eqn: (
        plain("dimension_numbers")(eqn)
        | {"dtype": out_type(eqn), "shapes": tuple(tuple(v.aval.shape) for v in eqn.invars)}
    ),
    "argmax": lambda eqn: plain("axes")(eqn) | {"dtype": out_type(eqn)},
    "argmin": lambda eqn: plain("axes")(eqn) | {"dtype": out_type(eqn)},
    "sort": plain("dimension", "num_keys"),
}
"""What is plain data of an equation, by primitive: those that have rules."""


def _reduce(name: str, p: dict[str, Any]) -> Rule:
    function, axes = REDUCTIONS[name], p["axes"]
    if name in ("reduce_sum", "reduce_prod"):
        return lambda x: function.reduce(x, axes, x.dtype)
    if name not in ("reduce_max", "reduce_min"):
        return lambda x: function.reduce(x, axes)

    def extreme(x: Any) -> Any:
        if x.size:
            return function.reduce(x, axes)
        # of nothing: what every number is beyond
        lowest, highest = (-np.inf, np.inf) if x.dtype.kind == "f" else _range(x.dtype)
        return function.reduce(x, axes, initial=lowest if name == "reduce_max" else highest)

    return extreme


def _range(dtype: np.dtype) -> tuple[int, int]:
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def _running(name: str, p: dict[str, Any]) -> Rule:
    function, axis, back = RUNNING[name], p["axis"], p["reverse"]
    if back:
        return lambda x: np.flip(function.accumulate(np.flip(x, axis), axis, x.dtype), axis)
    return lambda x: function.accumulate(x, axis, x.dtype)


def _dot(p: dict[str, Any]) -> Rule:
    ((left, right), (left_batch, right_batch)), dtype = p["dimension_numbers"], np.dtype(p["dtype"])
    a_shape, b_shape = p["shapes"]
    if not left_batch and len(b_shape) <= 2 and len(a_shape) <= 2 and 0 not in (*a_shape, *b_shape):
        # vectors and matrices: what NumPy's own product is for
        turn_a, turn_b = left == (0,) and len(a_shape) == 2, right == (1,)
        if len(left) == 1:
            return {
                (False, False): lambda a, b: np.dot(a, b),
                (True, False): lambda a, b: np.dot(a.T, b),
                (False, True): lambda a, b: np.dot(a, b.T),
                (True, True): lambda a, b: np.dot(a.T, b.T),
            }[turn_a, turn_b]
    free_a = [k for k in range(len(a_shape)) if k not in left and k not in left_batch]
    free_b = [k for k in range(len(b_shape)) if k not in right and k not in right_batch]
    lead = tuple(a_shape[k] for k in left_batch)
    shape = (*lead, *(a_shape[k] for k in free_a), *(b_shape[k] for k in free_b))
    rows, length, columns = (
        math.prod(some)
        for some in ([a_shape[k] for k in free_a], [a_shape[k] for k in left], [b_shape[k] for k in free_b])
    )
    turn_a, turn_b = (*left_batch, *free_a, *left), (*right_batch, *right, *free_b)
    flat_a, flat_b = (*lead, rows, length), (*lead, length, columns)

    def rule(a: Any, b: Any) -> Any:
        product = np.matmul(a.transpose(turn_a).reshape(flat_a), b.transpose(turn_b).reshape(flat_b))
        return product.reshape(shape).astype(dtype, copy=False)

    return rule


def _arg(function: Rule, p: dict[str, Any]) -> Rule:
    (axis,), dtype = p["axes"], np.dtype(p["dtype"])
    return lambda x: function(x, axis).astype(dtype)


def _sort(p: dict[str, Any]) -> Rule:
    axis, keys = p["dimension"], p["num_keys"]

    def rule(*arrays: Any) -> Any:
        if keys == 1:
            order = np.argsort(arrays[0], axis, kind="stable")
        else:
            order = np.lexsort(arrays[keys - 1 :: -1], axis)
        out = [np.take_along_axis(a, order, axis) for a in arrays]
        return out if len(out) > 1 else out[0]

    return rule


MAKERS: dict[str, Callable[[dict[str, Any]], Rule]] = {
    "select_n": lambda p: _select,
    "integer_pow": lambda p: lambda x: _power(x, p["y"]),
    "convert_element_type": lambda p: lambda x: x.astype(p["dtype"]),
    "iota": lambda p: (
        lambda: np.broadcast_to(
            np.arange(p["shape"][p["dimension"]], dtype=p["dtype"]).reshape(
                [-1 if k == p["dimension"] else 1 for k in range(len(p["shape"]))]
            ),
            p["shape"],
        )
    ),
    "dot_general": _dot,
    "argmax": lambda p: _arg(np.argmax, p),
    "argmin": lambda p: _arg(np.argmin, p),
    "sort": _sort,
}


def make(name: str, params: dict[str, Any], known: list[np.ndarray | None]) -> Rule:
    """The function of a step; operands that are always the same may be prepared in it."""
    if name in ELEMENTS:
        return ELEMENTS[name]
    if name in REDUCTIONS:
        return _reduce(name, params)
    if name in RUNNING:
        return _running(name, params)
    if name in MAKERS:
        return MAKERS[name](params)
    return WITH_KNOWN[name](params, known)


WITH_KNOWN: dict[str, Callable[[dict[str, Any], list[np.ndarray | None]], Rule]] = {}
"""Rules that prepare themselves for operands that are known: indices (`indexing`)."""
