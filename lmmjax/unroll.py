"""Unrolling: a function of small arrays rewritten as arithmetic on their elements.

A loop over thousands of responses is fast when every elementary operation is one vector operation
along the responses. `unroll(f)` traces f for one response, then evaluates its operations element
by element: arrays become NumPy object arrays of scalars, multiplications by constant zeros and ones
disappear, data movement costs nothing. Under `jax.vmap` each scalar turns into a vector of responses
and XLA fuses the lot. Measured on two CPU cores for five evaluations of 2048 responses with four fixed
effects: 2.5 times as fast as mapping the arrays for (1 | g), 2.1 times for (1 + t | g).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

MOVES = frozenset(
    [
        "broadcast_in_dim",
        "concatenate",
        "copy",
        "expand_dims",
        "gather",
        "pad",
        "rev",
        "reshape",
        "scatter",
        "slice",
        "split",
        "squeeze",
        "stack",
        "transpose",
    ]
)
"""Primitives that only move elements: they are applied to the elements' numbers instead."""

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}

WHOLE = frozenset(["while", "cond", "custom_vmap_call"])
"""Primitives that take arrays as they are; `custom_vmap_call` brings its own rule for many responses."""

REDUCTIONS = {
    "reduce_sum": "add",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_and": "and",
    "reduce_or": "or",
    "reduce_prod": "mul",
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Elements:
    """An array as its elements, in order."""

    items: tuple[Any, ...]
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})


def unroll(function: Callable, *, apart: bool = False) -> Callable:
    """`function` evaluated element by element, to be mapped with `jax.vmap`.

    The result takes one more argument, first: the number 1 as a traced scalar. XLA computes sums
    and products again for each of their users; it does not repeat a division. So where the function
    has an `optimization_barrier`, the elements are divided by that 1, and are computed once.

    With `apart` the arrays of the result are `Elements`: XLA joins vectors of responses by a choice for
    every element of the result, which took five times as long as computing them.

    The function must be traceable for one response, with loops only of the kind `lax.while_loop`.
    Raises ValueError naming the primitive that has no elementwise rule.
    """

    def unrolled(one: Any, *args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        out = _Interpreter(one).evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        finished = _elements if apart else _packed
        leaves = [finished(a, s.dtype) for a, s in zip(out, jax.tree.leaves(shape), strict=True)]
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return unrolled


def _unpack(array: Any) -> np.ndarray:
    """Object array of the elements; concrete NumPy arrays give NumPy scalars."""
    out = np.empty(np.shape(array), dtype=object)
    for index in np.ndindex(out.shape):
        out[index] = array[index] if out.shape else array
    return out


def _pack(elements: np.ndarray, dtype: Any) -> Any:
    flat = [jnp.asarray(e, dtype) for e in elements.ravel()]
    if elements.shape == ():
        return flat[0]
    return jnp.stack(flat).reshape(elements.shape) if flat else jnp.zeros(elements.shape, dtype)


def _unpacked(a: Any) -> np.ndarray:
    return a if isinstance(a, np.ndarray) and a.dtype == object else _unpack(a)


def _packed(a: Any, dtype: Any) -> Any:
    return _pack(a, dtype) if isinstance(a, np.ndarray) and a.dtype == object else jnp.asarray(a, dtype)


def _elements(a: Any, dtype: Any) -> Elements:
    a = _unpacked(a)
    return Elements(tuple(jnp.asarray(e, dtype) for e in a.ravel()), a.shape)


def _constant(x: Any) -> bool:
    return not isinstance(x, Tracer)


class _Interpreter:
    """Evaluates a jaxpr on object arrays of scalars; `one` is a traced 1."""

    def __init__(self, one: Any):
        self.one = one

    def evaluate(self, jaxpr: Any, consts: Any, args: list[Any]) -> list[Any]:
        """Values of the outputs; arrays are unpacked into elements only where an operation needs them."""
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))

        def read(v: Any, whole: bool) -> Any:
            if isinstance(v, core.Literal):
                return v.val if whole else _unpack(v.val)
            if not whole:
                values[v] = _unpacked(values[v])
            return values[v]

        for eqn in jaxpr.eqns:
            whole = eqn.primitive.name in CALLS or eqn.primitive.name in WHOLE
            out = self.apply(eqn, [read(v, whole) for v in eqn.invars])
            values.update(zip(eqn.outvars, out, strict=True))
        return [read(v, True) for v in jaxpr.outvars]

    def apply(self, eqn: Any, args: list[Any]) -> list[Any]:
        name, params = eqn.primitive.name, eqn.params
        if name == "custom_vmap_call":
            arrays = [_packed(a, v.aval.dtype) for a, v in zip(args, eqn.invars, strict=True)]
            return eqn.primitive.bind(*arrays, **params)
        if name in CALLS:
            inner = params[CALLS[name]]
            return self.evaluate(inner.jaxpr, inner.consts, args)
        if name == "while":
            return self.loop(params, args)
        if name == "cond":
            return self.branch(params["branches"], args)
        if name == "optimization_barrier":
            return [_map(self.hold, a) for a in args]
        if name in MOVES:
            return _move(eqn, args)
        if name == "dot_general":
            return [_dot_general(args[0], args[1], params["dimension_numbers"])]
        if name in REDUCTIONS:
            return [_reduce(REDUCTIONS[name], args[0], params["axes"])]
        if name in ("argmax", "argmin"):
            return [_arg_extreme(args[0], name == "argmax")]
        if name == "iota":
            return [_unpack(np.indices(params["shape"], dtype=params["dtype"])[params["dimension"]])]
        if name == "convert_element_type":
            return [_map(_converter(np.dtype(params["new_dtype"])), *args)]
        if name == "select_n":
            return [_map(_select, *args)]
        if name in ELEMENTWISE:
            return [_map(ELEMENTWISE[name](params), *args)]
        raise ValueError(f"the primitive {name!r} cannot be unrolled")

    def hold(self, x: Any) -> Any:
        """x as something that XLA computes only once."""
        if _constant(x) or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return x / self.one

    def loop(self, params: dict[str, Any], args: list[Any]) -> list[Any]:
        cond, body = params["cond_jaxpr"], params["body_jaxpr"]
        first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        cond_consts, body_consts, carry = args[:first], args[first:second], args[second:]
        kinds = [v.aval for v in body.jaxpr.outvars]

        def run_cond(flat: list[Any]) -> Any:
            found = self.evaluate(cond.jaxpr, cond.consts, cond_consts + _restore(flat, kinds))
            return jnp.asarray(_unpacked(found[0])[()], bool)

        def run_body(flat: list[Any]) -> list[Any]:
            return _flatten(
                self.evaluate(body.jaxpr, body.consts, body_consts + _restore(flat, kinds)), kinds
            )

        return _restore(jax.lax.while_loop(run_cond, run_body, _flatten(carry, kinds)), kinds)

    def branch(self, branches: Any, args: list[Any]) -> list[Any]:
        """A choice that is the same for all responses, or else both sides are computed."""
        kinds = [v.aval for v in branches[0].jaxpr.outvars]

        def run(closed: Any) -> Callable[[], list[Any]]:
            # evaluation unpacks what it is given in place
            return lambda: _flatten(self.evaluate(closed.jaxpr, closed.consts, list(args[1:])), kinds)

        index = _unpacked(args[0])[()]
        return _restore(jax.lax.switch(jnp.asarray(index, np.int32), [run(b) for b in branches]), kinds)


def _flatten(arrays: list[Any], kinds: list[Any]) -> list[Any]:
    """The elements of all arrays."""
    pairs = zip(arrays, kinds, strict=True)
    return [jnp.asarray(e, kind.dtype) for a, kind in pairs for e in _unpacked(a).ravel()]


def _restore(flat: list[Any], kinds: list[Any]) -> list[np.ndarray]:
    """Arrays of elements from all their elements."""
    items, out = iter(flat), []
    for kind in kinds:
        a = np.empty(kind.shape, dtype=object)
        for index in np.ndindex(a.shape):
            a[index] = next(items)
        out.append(a)
    return out


def _converter(dtype: np.dtype) -> Callable:
    return lambda x: np.asarray(x).astype(dtype)[()] if _constant(x) else x.astype(dtype)


def _map(rule: Callable, *arrays: np.ndarray) -> np.ndarray:
    arrays = np.broadcast_arrays(*arrays) if len({a.shape for a in arrays}) > 1 else arrays
    out = np.empty(arrays[0].shape, dtype=object)
    for index in np.ndindex(out.shape):
        out[index] = rule(*(a[index] for a in arrays))
    return out


def _move(eqn: Any, args: list[np.ndarray]) -> list[np.ndarray]:
    """Apply a primitive that moves elements to their numbers, and fetch the elements by number."""
    name = eqn.primitive.name
    data = [0] if name == "gather" else [0, 2] if name == "scatter" else range(len(args))
    data = [0, 1] if name == "pad" else list(data)
    offsets = np.cumsum([0, *(args[k].size for k in data)])
    pool = np.concatenate([args[k].ravel() for k in data])
    operands = []
    for k, a in enumerate(args):
        if k in data:
            start = int(offsets[data.index(k)])
            operands.append(np.arange(start, start + a.size, dtype=np.int32).reshape(a.shape))
        else:
            operands.append(np.array(a.tolist(), dtype=np.int32))
    with jax.ensure_compile_time_eval():
        moved = eqn.primitive.bind(*map(jnp.asarray, operands), **_integer(eqn))
    outputs = moved if eqn.primitive.multiple_results else [moved]
    return [pool[np.asarray(ids)] if np.shape(ids) else _scalar(pool[int(ids)]) for ids in outputs]


def _integer(eqn: Any) -> dict[str, Any]:
    """Parameters of a moving primitive for int32 operands (a gather's fill value must fit)."""
    params = dict(eqn.params)
    if params.get("fill_value") is not None:
        params["fill_value"] = 0
    return params


def _scalar(x: Any) -> np.ndarray:
    out = np.empty((), dtype=object)
    out[()] = x
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
    rule = ELEMENTWISE[name]({})
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
    for k in range(1, len(array)):
        better = jnp.greater(array[k], best) if largest else jnp.less(array[k], best)
        where, best = _select(better, where, np.int32(k)), _select(better, best, array[k])
    return _scalar(where)


def _is(x: Any, value: float) -> bool:
    return _constant(x) and bool(np.all(np.asarray(x) == value))


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
    if _constant(which):
        return cases[int(which)]
    if cases[0] is cases[1]:
        return cases[0]
    return jnp.where(which, cases[1], cases[0])


def _plain(function: Callable) -> Callable:
    """A rule for a primitive without parameters: NumPy on constants, `jax.numpy` on the rest."""
    numpy_function = getattr(np, function.__name__)

    def rule(*xs: Any) -> Any:
        if all(_constant(x) for x in xs):
            with np.errstate(all="ignore"):
                return numpy_function(*xs)
        return function(*(x.item() if _constant(x) and hasattr(x, "item") else x for x in xs))

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
    "rsqrt": lambda _: lambda x: 1.0 / jnp.sqrt(x),
    "copy_p": lambda _: lambda x: x,
    "stop_gradient": lambda _: lambda x: x,
    "reshard": lambda _: lambda x: x,
    "pow": lambda _: _raise,
    "clamp": lambda _: lambda low, x, high: jnp.minimum(jnp.maximum(x, low), high),
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
    if _constant(y) and 2.0 * y == int(2.0 * y) and abs(y) <= 4:
        root = _power(jnp.sqrt(x), 1) if y % 1 else 1.0
        return multiply(root, _power(x, int(y // 1)))
    return jnp.power(x, y)


def _power(x: Any, y: int) -> Any:
    if y < 0:
        return 1.0 / _power(x, -y)
    out: Any = 1.0
    for _ in range(y):
        out = multiply(out, x)
    return out
