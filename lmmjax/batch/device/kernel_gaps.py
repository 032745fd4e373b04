"""Fits of one kernel to responses with missing values on devices, by the decomposition of all rows.

Responses that lack about as many rows share a program. Which rows these are is looked up by the host; what
they are of B and X is gathered there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array
from lmmjax.batch.device.one_kernel import GRID, brought
from lmmjax.batch.device.pipeline import through_blocks
from lmmjax.batch.device.rows import Handed
from lmmjax.batch.device.transfer import move, over
from lmmjax.batch.device.where import Place
from lmmjax.batch.lanes import in_x64, pad
from lmmjax.core import Estimate, ProblemMaker
from lmmjax.core.problem import make_lanes
from lmmjax.core.spectral.fit import spectral_data, widened
from lmmjax.core.spectral.gap_lanes import GapLanes, inverted
from lmmjax.core.spectral.gaps import DETERMINED, PERFECT, filled_gaps, row_weights
from lmmjax.core.spectral.lanes import points_of, product, searched
from lmmjax.core.spectral.records import records
from lmmjax.design import Origin
from lmmjax.gram.grouped.prepare import bucket
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.gram.spectral.products import SpectralResponse

EXACT = 1e-6
"""Largest entry of MM⁻¹ − I of a matrix that is regular."""


class Gapped:
    """A design of one kernel on devices: the search for responses that lack up to m rows each."""

    def __init__(self, maker: ProblemMaker, reml: bool, devices: tuple[Any, ...]):
        prepared = maker.prepared
        assert isinstance(prepared, SpectralPrepared)
        # not the maker, with which these are kept
        self.parts = maker.rows, maker.basis, prepared, maker.design.structure
        self.reml, self.n, self.p = reml, maker.design.n, maker.design.p
        self.problem = maker.lanes(np.zeros((self.n, 1)), reml)
        nobody = np.zeros((1, len(prepared.shared.mu)))
        self.data = spectral_data(self.problem, nobody, np.zeros(1))
        # the row that nobody has
        self.b, self.x = (np.pad(a, ((0, 1), (0, 0))) for a in (prepared.b, np.asarray(maker.rows.x).T))
        self.found = Handed(self._found, devices)

    def fits(self, count: np.ndarray) -> np.ndarray:
        """Whether responses that lack so many rows (T,) can be fitted so."""
        none = self.data.rest + np.count_nonzero(self.data.mu <= 0)
        return (self.n - count > self.p + 1) & ((none == 0) | (none > count))

    def _found(self, y: Array, rows: Array) -> tuple[tuple, tuple, Array]:
        """Responses y (n, T), filled, without the rows (m, T), of which `n` is none."""
        made = make_lanes(*self.parts, y, self.reml)
        response, m, data = made.response, rows.shape[0], self.data
        assert isinstance(response, SpectralResponse)
        b, x = (jnp.moveaxis(jnp.asarray(a)[rows], 2, 1) for a in (self.b, self.x))
        full = (rows == self.n).astype(y.dtype)
        rest_e, rest_ee = jnp.zeros_like(full), jnp.zeros((m, m, y.shape[1]))
        if data.rest:
            left = jnp.pad(self._left_over(y) / made.origin.scale, ((0, 1), (0, 0)))
            rest_e = jnp.take_along_axis(left, rows, axis=0) - jnp.einsum("ikt,kt->it", b, response.y)
            rest_ee = (1.0 - full[None]) * np.eye(m)[:, :, None]
            rest_ee = rest_ee - jnp.einsum("ipt,jpt->ijt", x, x) - jnp.einsum("ikt,jkt->ijt", b, b)
        nu = data.nu - (m - jnp.sum(full, axis=0))
        own = b, x, full, rest_e, rest_ee
        one = jnp.ones(y.shape[1])
        lanes = GapLanes(data, response.y, response.rest, *own, nu)
        at_zero, v, q = lanes.parts(jnp.ones_like(response.y), one, full=True)
        inverse = inverted(at_zero)[1]
        squares = q - jnp.sum(v * jnp.sum(inverse * v[None], axis=1), axis=0)
        # tr M⁻¹ < 1/λ: no eigenvalue of M is below λ; of a singular M the inverse is none
        off = jnp.abs(product(at_zero, inverse) - np.eye(m)[:, :, None])
        exact = jnp.max(off, axis=(0, 1), initial=0.0) < EXACT
        fine = exact & (jnp.einsum("iit->t", inverse) - jnp.sum(full, axis=0) < 1.0 / DETERMINED)
        fine &= squares > PERFECT * q
        # those that are not have no missing rows here, and are nobody's
        b, x, rest_e, rest_ee = (jnp.where(fine, a, 0.0) for a in (b, x, rest_e, rest_ee))
        own = b, x, jnp.where(fine, full, 1.0), rest_e, rest_ee
        whole = jnp.where(fine[None, :], response.y, 1.0)
        arrays = searched(GapLanes(data, whole, jnp.where(fine, response.rest, 1.0), *own, nu))
        return arrays, (made.origin.beta, made.origin.scale), fine

    def _left_over(self, y: Array) -> Array:
        """What X leaves of responses (n, T)."""
        rows, x = self.parts[0], self.x[: self.n]
        y = y if rows.offset is None else y - jnp.asarray(rows.offset)[:, None]
        y = y if rows.root_weight is None else y * jnp.asarray(rows.root_weight)[:, None]
        return y - x @ (x.T @ y)


def gaps_on_devices(
    place: Place, maker: ProblemMaker, y: np.ndarray, reml: bool
) -> tuple[Estimate, np.ndarray, np.ndarray] | None:
    """`core.spectral.gaps.gap_estimates` of y (n, T)."""
    there = in_x64(_gapped)(maker, reml, place.devices)
    n, total = y.shape
    filled, gone, usable = filled_gaps(y)
    count = gone.sum(axis=0)
    sizes = np.array([bucket(int(m)) for m in count])
    usable &= there.fits(count)
    found, at_all = [], []
    for m in np.unique(sizes[usable]):
        at = np.flatnonzero(usable & (sizes == m))
        # rows that are missing come first
        rows = np.sort(np.where(gone[:, at], np.arange(n)[:, None], n), axis=0)[:m].astype(np.int32)
        found.append(_searched(place, there, filled[:, at], rows))
        at_all.append(at)
    if not found:
        return None
    (*arrays, optima), origin, fine = jax.tree.map(lambda *a: np.concatenate(a, axis=-1), *found)
    kept = np.flatnonzero(fine)
    if not len(kept):
        return None
    at = np.concatenate(at_all)[kept]
    problem = dataclasses.replace(there.problem, origin=Origin(*origin))
    points = points_of(there.data, tuple(arrays), kept)
    more = row_weights(maker, gone[:, at])
    points = dataclasses.replace(points, nu=points.nu - count[at], logdet_r=points.logdet_r + more)
    estimate = records(problem, points, not reml, kept)
    out = jax.tree.map(lambda a: widened(a, at, total), estimate)
    out.moves[:] = 0.0
    number, done = np.zeros(total, int), np.zeros(total, bool)
    number[at], done[at] = optima[kept], True
    return out, number, done


def _searched(place: Place, there: Gapped, y: np.ndarray, rows: np.ndarray) -> Any:
    """What was found of responses y (n, T) without the rows (m, T), on the host."""
    k, total = there.b.shape[1], y.shape[1]

    def block(part: slice, lanes: int) -> Callable[[], Any]:
        size = lanes * len(place.devices)
        own = pad(rows[:, part], size - (part.stop - part.start))
        made = there.found(lanes, move(y[:, part], size, place.devices), over(own, place.devices))
        return lambda: made

    lanes = place.block(total, there.n + len(rows) * k, k + GRID)
    return through_blocks(place, total, lanes, block, partial(brought, place))


def _gapped(maker: ProblemMaker, reml: bool, devices: tuple[Any, ...]) -> Gapped:
    """The search of a maker on devices; kept while the maker is."""
    known = _kept.setdefault(maker, {})
    if (reml, devices) not in known:
        known[reml, devices] = Gapped(maker, reml, devices)
    return known[reml, devices]


_kept: WeakKeyDictionary[ProblemMaker, dict[tuple, Gapped]] = WeakKeyDictionary()
