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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays.unroll.rules import apply, constant, each_element, unpack, unpacked

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}

WHOLE = frozenset(["while", "cond", "custom_vmap_call"])
"""Primitives that take arrays as they are; `custom_vmap_call` brings its own rule for many responses."""


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


def _pack(elements: np.ndarray, dtype: Any) -> Any:
    flat = [jnp.asarray(e, dtype) for e in elements.ravel()]
    if elements.shape == ():
        return flat[0]
    return jnp.stack(flat).reshape(elements.shape) if flat else jnp.zeros(elements.shape, dtype)


def _packed(a: Any, dtype: Any) -> Any:
    return _pack(a, dtype) if isinstance(a, np.ndarray) and a.dtype == object else jnp.asarray(a, dtype)


def _elements(a: Any, dtype: Any) -> Elements:
    a = unpacked(a)
    return Elements(tuple(jnp.asarray(e, dtype) for e in a.ravel()), a.shape)


class _Interpreter:
    """Evaluates a jaxpr on object arrays of scalars; `one` is a traced 1."""

    def __init__(self, one: Any):
        self.one = one

    def evaluate(self, jaxpr: Any, consts: Any, args: list[Any]) -> list[Any]:
        """Values of the outputs; arrays are unpacked into elements only where an operation needs them."""
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))

        def read(v: Any, whole: bool) -> Any:
            # a literal: `jax.extend.core` has the type, and imports Pallas with it
            if hasattr(v, "val"):
                return v.val if whole else unpack(v.val)
            if not whole:
                values[v] = unpacked(values[v])
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
            return [each_element(self.hold, a) for a in args]
        return apply(eqn, args)

    def hold(self, x: Any) -> Any:
        """x as something that XLA computes only once."""
        if constant(x) or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return x / self.one

    def loop(self, params: dict[str, Any], args: list[Any]) -> list[Any]:
        cond, body = params["cond_jaxpr"], params["body_jaxpr"]
        first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        cond_consts, body_consts, carry = args[:first], args[first:second], args[second:]
        kinds = [v.aval for v in body.jaxpr.outvars]

        def run_cond(flat: list[Any]) -> Any:
            found = self.evaluate(cond.jaxpr, cond.consts, cond_consts + _restore(flat, kinds))
            return jnp.asarray(unpacked(found[0])[()], bool)

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

        index = unpacked(args[0])[()]
        return _restore(jax.lax.switch(jnp.asarray(index, np.int32), [run(b) for b in branches]), kinds)


def _flatten(arrays: list[Any], kinds: list[Any]) -> list[Any]:
    """The elements of all arrays."""
    pairs = zip(arrays, kinds, strict=True)
    return [jnp.asarray(e, kind.dtype) for a, kind in pairs for e in unpacked(a).ravel()]


def _restore(flat: list[Any], kinds: list[Any]) -> list[np.ndarray]:
    """Arrays of elements from all their elements."""
    items, out = iter(flat), []
    for kind in kinds:
        a = np.empty(kind.shape, dtype=object)
        for index in np.ndindex(a.shape):
            a[index] = next(items)
        out.append(a)
    return out
