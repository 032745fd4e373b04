"""Functions of lanes as programs on devices: mapped, spread over several, gathered and put back there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.arrays.unroll import Elements, unroll
from lmmjax.batch.lanes import axes_of, each, some_lanes
from lmmjax.batch.programs import FUNCTIONS, unrollable
from lmmjax.core import Problem
from lmmjax.optimize import Status

AXIS = "lanes"


def mesh(devices: tuple[Any, ...]) -> jax.sharding.Mesh:
    """The devices in a row."""
    return jax.sharding.Mesh(np.array(devices), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def over_lanes(devices: tuple[Any, ...], ndim: int) -> jax.sharding.NamedSharding:
    """Arrays of `ndim` axes, the last of which is spread over the devices."""
    return jax.sharding.NamedSharding(mesh(devices), jax.sharding.PartitionSpec(*[None] * (ndim - 1), AXIS))


def varying(problem: Problem) -> dict[str, Any]:
    """The fields of a problem that differ between lanes, by name."""
    found: dict[str, Any] = {}
    each(problem, lambda name, field: found.setdefault(name, field))
    return found


def spread(function: Callable, devices: tuple[Any, ...]) -> Callable:
    """A function (whole, *lanes) → lanes where each device works on its own: nothing moves between them.

    Arrays of `whole` are the same for all devices; those of `lanes` and of the result trail with lanes.
    """
    if len(devices) == 1:
        return function

    def turned(*args: Any) -> Any:
        return jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), function(*args))

    def run(whole: Any, *lanes: Any) -> Any:
        none, first = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)
        trailing = jax.tree.map(
            lambda a: jax.sharding.PartitionSpec(*[None] * (jnp.ndim(a) - 1), AXIS), lanes
        )
        specs = (jax.tree.map(lambda _: none, whole), *trailing)
        # loops of devices end apart, so that nothing can be said about what varies
        made = jax.shard_map(turned, mesh=mesh(devices), in_specs=specs, out_specs=first, check_vma=False)
        return jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), made(whole, *lanes))

    return run


@cache
def program(name: str, unrolled: bool, devices: tuple[Any, ...]) -> Callable:
    """One of `FUNCTIONS` over lanes: (one, problem, shared), varying fields, *lanes → lanes."""
    inner = unroll(FUNCTIONS[name], apart=True) if unrolled else lambda _, *args: FUNCTIONS[name](*args)

    def mapped(whole: Any, fields: dict[str, Any], *lanes: Any) -> Any:
        one, problem, shared = whole
        problem = dataclasses.replace(problem, **fields)
        axes = (None, axes_of(problem), *(-1 for _ in lanes), *(None for _ in shared))
        return jax.vmap(inner, in_axes=axes, out_axes=-1)(one, problem, *lanes, *shared)

    written = ", unrolled" if unrolled else ""
    return quick_jit(
        spread(mapped, devices),
        short=np.inf if unrolled else 0,
        plays=False,
        name=f"device lanes of {name}{written}, {len(devices)}",
    )


def call(
    name: str, devices: tuple[Any, ...], problem: Problem, *lanes: Any, shared: tuple[Any, ...] = ()
) -> Any:
    """One of `FUNCTIONS` over lanes, whose arrays trail with lanes, or are `Elements`: see `joined`."""
    one = np.ones((), problem.n.dtype)
    run, fields = program(name, unrollable(_one_lane(problem).shared), devices), varying(problem)
    whole = dataclasses.replace(problem, **dict.fromkeys(fields))
    return run((one, whole, shared), fields, *lanes)


def _one_lane(problem: Problem) -> Problem:
    """The shapes of the problem of one lane."""

    def one(_: str, field: Any) -> Any:
        return jax.tree.map(lambda a: jnp.zeros(a.shape[:-1], a.dtype), field)

    return jax.eval_shape(lambda: each(problem, one))


@cache
def on_lanes(function: Callable, devices: tuple[Any, ...], **settings: Any) -> Callable:
    """`spread` of a function with some arguments set, as a program."""
    return quick_jit(spread(partial(function, **settings), devices), short=0, plays=False)


def _is_elements(leaf: Any) -> bool:
    return isinstance(leaf, Elements)


def joined(tree: Any) -> Any:
    """Arrays from their elements: not in the program that computes these, which would do it once for each."""
    lanes = jax.tree.leaves(tree)[0].shape[-1]

    def join(leaf: Any) -> Any:
        if not _is_elements(leaf):
            return leaf
        if not leaf.items:
            return jnp.zeros((*leaf.shape, lanes))
        return jnp.stack(leaf.items).reshape(*leaf.shape, lanes)

    return jax.tree.map(join, tree, is_leaf=_is_elements)


def unfinished(status: Array) -> Array:
    """Lanes that have reached their limit of evaluations."""
    return status == Status.ITERATION_LIMIT


def unseen(status: Array, before: Array) -> Array:
    """Lanes whose last step nobody looked at, and which was not good enough."""
    return unfinished(status) & ((before == Status.CONVERGED) | (before == Status.FLAT))


def counted(left: Array) -> Array:
    """How many of the lanes of a device (1,)."""
    return jnp.sum(left, dtype=jnp.int32)[None]


def gathered(left: Array, tree: Any, size: int) -> tuple[Any, Array]:
    """The lanes that are left, `size` a device, filled up with others; and their places, none of those."""
    order = jnp.argsort(~left, stable=True)[:size]
    return some_lanes(tree, order), jnp.where(left[order], order, left.shape[0])


def put(_: Any, tree: Any, at: Array, part: Any) -> Any:
    """The lanes with those at their places replaced."""
    return jax.tree.map(lambda a, b: a.at[..., at].set(b, mode="drop"), tree, part)


def packed(tree: Any) -> tuple[Array, Array]:
    """All numbers of lanes as rows, those of floating point and the others, for two transfers."""

    def rows(arrays: list[Array], kind: Any) -> Array:
        return jnp.concatenate([a.reshape(-1, a.shape[-1]).astype(kind) for a in arrays])

    real, rest = _kinds(jax.tree.leaves(tree))
    return rows(real, real[0].dtype), rows(rest, jnp.int32)


def unpacked(rows: tuple[Array, Array], like: Any, count: int) -> Any:
    """The first `count` lanes of a tree of NumPy arrays from its rows."""
    leaves, structure = jax.tree.flatten(like)
    out: dict[int, np.ndarray] = {}
    for arrays, kind in zip(map(np.asarray, rows), _kinds(leaves), strict=True):
        first = 0
        for leaf in kind:
            shape = leaf.shape[:-1]
            size = math.prod(shape)
            own = arrays[first : first + size, :count].reshape(*shape, count)
            out[id(leaf)] = np.array(own, leaf.dtype)
            first += size
    return jax.tree.unflatten(structure, [out[id(leaf)] for leaf in leaves])


def _kinds(leaves: list[Any]) -> tuple[list[Any], list[Any]]:
    real = [a for a in leaves if jnp.issubdtype(a.dtype, jnp.floating)]
    return real, [a for a in leaves if not jnp.issubdtype(a.dtype, jnp.floating)]
