"""The programs of `batch.device.scan`: functions of what all devices have, and of the responses of each."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp

from lmmjax.arrays import Array, quick_jit
from lmmjax.batch.device.lanes import counted
from lmmjax.inference.scan.lanes import (
    Coordinates,
    candidates,
    less,
    moments,
    near,
    picked,
    products_of,
    responses,
)


@partial(quick_jit, short=0, plays=False, static_argnames=("size",))
def widened(g: Array, *, size: int) -> Array:
    """Candidates (n, k) in double precision, with columns of zeros to be `size`."""
    return jnp.pad(g.astype(jnp.float64), ((0, 0), (0, size - g.shape[1])))


@partial(quick_jit, short=0, plays=False)
def prepared(of: Coordinates, g: Array) -> tuple[Array, Array, Array]:
    there, lost = candidates(of, g)
    return there, products_of(of, there, there), lost


@partial(quick_jit, short=0, plays=False)
def cross_products(of: Coordinates, one: Array, two: Array) -> Array:
    return products_of(of, one, two)


def formed(of: Coordinates, y: Array, a: Array, h: Array) -> tuple[Array, Array, Array]:
    return responses(of, y, a, h)


def all_moments(whole: tuple[Array, ...], *arrays: Array) -> tuple[Array, Array]:
    return moments(*whole, *arrays)


def all_crossed(whole: tuple[Array, ...], _: Array, w: Array, f: Array) -> Array:
    one, two, both = whole
    return less(both.T @ w, one, two, f)


def tile(
    whole: tuple[Array, ...],
    a: Array,
    share: Array,
    slack: Array,
    real: Array,
    own: tuple[Array, ...],
    ml: tuple[Array, ...] | None = None,
    *,
    top: int,
    best: bool,
    above: bool,
) -> tuple[Array, Array, tuple[Array, ...], Array]:
    """Pairs (k, t) that are kept, which of them whatever is best, b and c of all; how many are kept (1,)."""
    b, c = moments(*whole, *own)
    wanted = {"top": top, "above": above}
    by_level = near(b, c, a, share, slack, real, best=False, **wanted)
    kept = near(b, c, a, share, slack, real, best=True, **wanted) if best else by_level
    other = () if ml is None else moments(*whole, *ml)
    return kept, by_level, (b, c, *other), counted(kept.ravel())


def hits(_: Any, kept: Array, level: Array, values: tuple[Array, ...], size: int) -> tuple[Array, Array]:
    return picked(kept, (level.astype(values[0].dtype), *values), size)
