"""Products of responses on a device: the function of a single fit, traced.

Least squares, sums over groups and products are one program. It keeps the rows, takes residuals from them and
forms squares of these: no difference that would lose digits, so that nothing but responses that X and Z
explain almost wholly (`gram.grouped.settle`) is looked at again on the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr

from lmmjax.arrays import Array, quick_jit
from lmmjax.arrays.sparse_columns import Columns
from lmmjax.batch.device.lanes import on_lanes, put, spread, varying
from lmmjax.batch.device.transfer import move, over, to_all
from lmmjax.core import Problem, ProblemMaker
from lmmjax.core.problem import MOST, make_lanes
from lmmjax.design import solve_upper
from lmmjax.gram.grouped.prepare import GroupedPrepared
from lmmjax.gram.grouped.products import GroupedResponse
from lmmjax.gram.grouped.settle import SHARE, within_fit


class Rows:
    """The rows of a design on devices: makes the problems of blocks of responses."""

    def __init__(self, maker: ProblemMaker, reml: bool, devices: tuple[Any, ...]):
        self.reml, self.devices = reml, devices
        # not the maker, with which these are kept
        self.parts = maker.rows, maker.basis, maker.prepared, maker.design.structure
        template = maker.lanes(np.zeros((maker.design.n, 1)), reml)
        fields = varying(template)
        # what all lanes share goes to the device once
        whole = dataclasses.replace(template, **dict.fromkeys(fields))
        self.template = jax.tree.map(lambda a: to_all(a, devices), whole)
        self.inverse, self.ones = _inverse_within(maker), _constant(maker)
        self.formed = Handed(self._products, devices)

    def __call__(self, y: Columns, lanes: int) -> tuple[Problem, tuple[Array, Array, Array]]:
        """The problem of responses y (n, ≤ lanes × devices), filled up; nothing is waited for.

        Also which responses ask for a second look, which are finite, and their variances: zero where
        nobody will ask for them.
        """
        there = move(y, lanes * len(self.devices), self.devices)
        response, origin, flags = self.formed(lanes, there)
        return dataclasses.replace(self.template, response=response, origin=origin), flags

    def _products(self, y: Array) -> tuple[Any, Any, tuple[Array, Array, Array]]:
        level = y[0]
        # a level far from zero would cost digits; the first row is a good enough guess of it
        shifted = y if self.ones is None else y - level
        made = make_lanes(*self.parts, shifted, self.reml)
        response, origin = made.response, made.origin
        if self.ones is not None:
            origin = dataclasses.replace(origin, beta=origin.beta + self.ones[:, None] * level)
        finite = jnp.isfinite(origin.scale)
        apart = isinstance(response, GroupedResponse)
        spread = jnp.zeros_like(origin.scale) if apart else jnp.var(y, axis=0)
        if self.inverse is None:
            return response, origin, (jnp.zeros_like(finite), finite, spread)
        assert isinstance(response, GroupedResponse)
        # as in `gram.grouped.settle`, of responses of mean square one
        xy, yy = response.within_xy, response.within_yy
        left = yy - jnp.sum(xy * (self.inverse @ xy), axis=0)
        close = (left <= SHARE * yy) | (yy <= SHARE**2 * y.shape[0])
        return response, origin, (close & (yy > 0), finite, spread)

    def settled(self, problem: Problem, y: np.ndarray, suspect: np.ndarray, lanes: int) -> Problem:
        """The problem with the responses y (n, k) at places `suspect` (k,) formed by the host."""
        with np.errstate(all="ignore"):
            made = varying(make_lanes(*self.parts, y, self.reml))
        return replaced(problem, made, suspect, lanes, self.devices)


class Handed:
    """A function of blocks of lanes, traced; constants are handed over, not written into the program."""

    def __init__(self, function: Callable, devices: tuple[Any, ...]):
        self.function, self.devices = function, devices
        self.programs: dict[tuple, tuple] = {}

    def __call__(self, lanes: int, *rows: Array) -> Any:
        """`function` of arrays (..., lanes × devices), of which each device has its own lanes."""
        key = tuple((a.shape, str(a.dtype)) for a in rows)
        if key not in self.programs:
            own = [jax.ShapeDtypeStruct((*a.shape[:-1], lanes), a.dtype) for a in rows]
            # what is written for NumPy too broadcasts as it does
            with jax.numpy_rank_promotion("allow"):
                traced, shape = jax.make_jaxpr(self.function, return_shape=True)(*own)
            run = quick_jit(
                spread(lambda consts, *rows: eval_jaxpr(traced.jaxpr, consts, *rows), self.devices),
                short=0,
                plays=False,
            )
            consts = [to_all(c, self.devices) for c in traced.consts]
            self.programs[key] = run, consts, jax.tree.structure(shape)
        run, consts, structure = self.programs[key]
        return jax.tree.unflatten(structure, run(consts, *rows))


def replaced(
    problem: Problem, made: dict[str, Any], places: np.ndarray, lanes: int, devices: tuple[Any, ...]
) -> Problem:
    """The problem with the lanes at `places` (k,) replaced by fields of the host, which trail with k."""
    fields = varying(problem)
    at = np.full(len(devices) * lanes, lanes * len(devices), np.int32)
    # each device looks for its own: places of others are out of its range
    rows = jax.tree.map(lambda a: np.repeat(a[..., :1], len(at), axis=-1), made)
    for device in range(len(devices)):
        own = np.flatnonzero(places // lanes == device)
        here = device * lanes + np.arange(len(own))
        at[here] = places[own] - device * lanes
        for new, old in zip(jax.tree.leaves(rows), jax.tree.leaves(made), strict=True):
            new[..., here] = old[..., own]
    moved = jax.tree.map(lambda a: over(a, devices), (fields, at, rows))
    return dataclasses.replace(problem, **on_lanes(put, devices)((), *moved))


def rows_of(maker: ProblemMaker, reml: bool, devices: tuple[Any, ...], y: Columns) -> Rows:
    """The rows of a maker on devices, in the units of responses y (n, T); kept while the maker is."""
    if maker.design.residual is not None:
        maker = maker.in_units(np.asarray(y[:, :MOST]).T)
    known = _kept.setdefault(maker, {})
    if (reml, devices) not in known:
        known[reml, devices] = Rows(maker, reml, devices)
    return known[reml, devices]


_kept: WeakKeyDictionary[ProblemMaker, dict[tuple, Rows]] = WeakKeyDictionary()


def _inverse_within(maker: ProblemMaker) -> np.ndarray | None:
    """A generalised inverse (p, p) of X'MX, M the projection off Z; None if no response needs it."""
    prepared = maker.prepared
    if not isinstance(prepared, GroupedPrepared) or prepared.rows_left <= 0:
        return None
    xx = np.asarray(prepared.shared.within_xx)
    zero = np.zeros(len(xx))
    return within_fit(xx[..., None], np.eye(len(xx)), zero)[0]


def _constant(maker: ProblemMaker) -> np.ndarray | None:
    """The coefficients (p,) that make a constant of X, if it has one in its span."""
    x, root = np.asarray(maker.rows.x), maker.rows.root_weight
    column = np.ones(x.shape[1]) if root is None else np.asarray(root)
    projection = x @ column
    if abs(projection @ projection / (column @ column) - 1.0) > 1e-12:
        return None
    return solve_upper(np.asarray(maker.basis.x_factor), projection)
