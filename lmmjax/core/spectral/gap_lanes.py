"""`gaps.py` and `rows.py` for many responses in one program, traced: columns taken out at every ratio.

Responses have at most m columns; who has fewer is filled up with columns of ones of M's own, of which nothing
follows: log|M| adds 0, v is 0 there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, sweep
from lmmjax.core.spectral.lanes import Lanes, log_determinant, product, trace
from lmmjax.core.spectral.search import Spectral

WRITTEN = 3
"""Columns up to which elimination is written out."""

Sums = tuple[Array, Array, Array]
"""M (m, m, T), v (m, T) and q (T,)."""


class RowLanes(Lanes):
    """`rows.Rotated` of responses on the last axis.

    Parameters
    ----------
    x : (n, p) X̃.
    """

    def __init__(self, data: Spectral, y: Array, left: Array, x: np.ndarray):
        super().__init__(data, y, left)
        self.x = jnp.asarray(x)
        p = x.shape[1]
        self.pairs = jnp.asarray((x[:, :, None] * x[:, None, :]).reshape(len(x), p * p))

    def sums(self, w: Array) -> Sums:
        """M, v and q with weights w (n, T)."""
        p, total = self.x.shape[1], self.y.shape[1]
        m = (self.pairs.T @ w).reshape(p, p, w.shape[1])
        return (
            jnp.broadcast_to(m, (p, p, total)),
            self.x.T @ (w * self.y),
            jnp.sum(w * self.squares, axis=0),
        )

    def on_grid(self, a: np.ndarray, h: np.ndarray) -> Array:
        def value(point: Array) -> Array:
            scale = point[0] + point[1] * self.mu
            m, v, q = self.sums(1.0 / scale)
            own, inverse = inverted(m)
            r2 = q - jnp.sum(v * jnp.sum(inverse * v[None], axis=1), axis=0)
            logdet = jnp.sum(jnp.log(scale)) + (0.0 if self.data.ml else own)
            return logdet + self.nu * jnp.log(r2)

        return jax.lax.map(value, jnp.asarray(np.stack([a, h], axis=1)))

    def at(self, t: Array) -> tuple[Array, ...]:
        a, _, scale, s = self.sides(t)
        w = a[None, :] / scale
        first = w * s
        sums = self.sums(w)
        more = self.sums(-first), self.sums(first * (2.0 * s - 1.0))
        own, _, r2, fall, curve, one, two = eliminated(sums, *more)
        slope = jnp.sum(s, axis=0) + self.nu * fall
        bend = jnp.sum(s * (1.0 - s), axis=0) + self.nu * (curve - fall**2)
        value = jnp.sum(jnp.log(scale), axis=0) + self.nu * jnp.log(r2 / a)
        if not self.data.ml:
            value = value + own - self.x.shape[1] * jnp.log(a)
            slope, bend = slope + one, bend + two
        return value, slope, bend, r2 / a, fall

    def ends(self, t: np.ndarray) -> tuple[Array, Array]:
        if self.data.ml:
            return super().ends(t)
        mu = jnp.broadcast_to(self.mu, self.y.shape)
        at_zero, first = self.sums(jnp.ones_like(mu)), self.sums(-mu)
        lower = rises(at_zero, first, float(self.data.mu.sum()), self.nu)
        if not self.data.regular:
            return lower, jnp.zeros_like(lower)
        at_one, first = self.sums(1.0 / mu), self.sums(-(mu**-2.0))
        return lower, rises(at_one, first, float(np.sum(1.0 / self.data.mu)), self.nu)

    def found(self, a: Array, h: Array) -> tuple[Array, Array, Array, Array]:
        scale = a[None, :] + h[None, :] * self.mu
        m, v, q = self.sums(1.0 / scale)
        own, s = inverted(m)
        beta = jnp.sum(s * v[None], axis=1)
        value = jnp.sum(jnp.log(scale), axis=0) + (0.0 if self.data.ml else own)
        return value, q - jnp.sum(v * beta, axis=0), s, beta


class GapLanes(Lanes):
    """`gaps.Gaps` of responses on the last axis.

    Parameters
    ----------
    b, x : (m, k, T) B_E and (m, p, T) X_E, 0 where a column fills up; full : (m, T) 1 where it does.
    rest_e, rest_ee : (m, T) of y, and (m, m, T) of I, what neither X nor B has in these rows.
    nu : (T,).
    """

    def __init__(
        self,
        data: Spectral,
        y: Array,
        left: Array,
        b: Array,
        x: Array,
        full: Array,
        rest_e: Array,
        rest_ee: Array,
        nu: Array,
    ):
        super().__init__(data, y, left)
        self.b, self.x, self.nu, self.rest_e, self.rest_ee = b, x, nu, rest_e, rest_ee
        self.full = np.eye(len(b))[:, :, None] * full[None]

    def parts(self, w: Array, rest: Array | float, full: bool = False) -> Sums:
        """M, E'Py and y'Py with weights w (k, T), and `rest` (T,) of what B lacks; M filled up if `full`."""
        weighted = w[None] * self.b
        m = jnp.einsum("ikt,jkt->ijt", weighted, self.b)
        v = jnp.einsum("ikt,kt->it", weighted, self.y)
        q = jnp.sum(w * self.squares, axis=0)
        if self.data.rest:
            m, v, q = m + rest * self.rest_ee, v + rest * self.rest_e, q + rest * self.left
        return (m + self.full if full else m), v, q

    def on_grid(self, a: np.ndarray, h: np.ndarray) -> Array:
        def value(point: Array) -> Array:
            one = jnp.ones(self.y.shape[1])
            logdet, r2, *_ = self.criterion(point[0] * one, point[1] * one)
            return logdet + self.nu * jnp.log(r2)

        return jax.lax.map(value, jnp.asarray(np.stack([a, h], axis=1)))

    def criterion(self, a: Array, h: Array) -> tuple[Array, Array, Array, Array]:
        """The log-determinants, r² (T,), M⁻¹ (m, m, T) and M⁻¹E'Py (m, T)."""
        scale = a[None, :] + h[None, :] * self.mu
        m, v, q = self.parts(1.0 / scale, 1.0 / a, full=True)
        own, inverse = inverted(m)
        g = jnp.sum(inverse * v[None], axis=1)
        logdet = jnp.sum(jnp.log(scale), axis=0) + own
        if self.data.rest:
            logdet = logdet + self.data.rest * jnp.log(a)
        if self.data.ml and len(self.data.xkx):
            logdet = logdet + inverted(self.s_open(a, h, scale, inverse))[0]
        return logdet, q - jnp.sum(v * g, axis=0), inverse, g

    def n(self, weights: Array) -> Array:
        """B_E (weights (k, T) ∘ C), (m, p, T)."""
        return jnp.einsum("ikt,kp->ipt", self.b * weights[None], jnp.asarray(self.data.c))

    def s_open(self, a: Array, h: Array, scale: Array, inverse: Array) -> Array:
        """S_o (p, p, T), with M⁻¹ (m, m, T)."""
        n = self.x - self.n(h[None, :] / scale)
        return self.s_matrix(a, h, scale) + product(jnp.swapaxes(n, 0, 1), product(inverse, n))

    def at(self, t: Array) -> tuple[Array, ...]:
        a, h, scale, s = self.sides(t)
        w = a[None, :] / scale
        turn = -w * s
        sums = self.parts(w, jnp.ones_like(a), full=True)
        zero = jnp.zeros_like(a)
        first, second = self.parts(turn, zero), self.parts(turn * (1.0 - 2.0 * s), zero)
        own, inverse, r2, fall, curve, one, two = eliminated(sums, first, second)
        slope = jnp.sum(s, axis=0) + self.nu * fall + one
        bend = jnp.sum(s * (1.0 - s), axis=0) + self.nu * (curve - fall**2) + two
        # over a, as the determinants of the scale a + hμ
        filled = jnp.sum(self.full, axis=(0, 1))
        value = jnp.sum(jnp.log(scale), axis=0) + own - (len(self.b) - filled) * jnp.log(a)
        if self.data.rest:
            value = value + self.data.rest * jnp.log(a)
        value = value + self.nu * jnp.log(r2 / a)
        if self.data.ml and len(self.data.xkx):
            more = log_determinant(*self._s_curve(a, h, scale, s, inverse, first[0], second[0]))
            value = value + more[0] + len(self.data.xkx) * jnp.log(a)
            slope, bend = slope + more[1], bend + more[2]
        return value, slope, bend, r2 / a, fall

    def _s_curve(
        self, a: Array, h: Array, scale: Array, s: Array, inverse: Array, m1: Array, m2: Array
    ) -> tuple[Array, Array, Array]:
        """S_o over a (p, p, T), with its first and second derivatives in t."""
        r = h[None, :] / scale
        n, n1 = self.x - self.n(r), -self.n(r * (1.0 - s))
        n2 = -self.n(r * (1.0 - s) * (1.0 - 2.0 * s))
        g = product(inverse, n)
        turn, turned = n1 - product(m1, g), jnp.swapaxes(g, 0, 1)
        # F = N'M⁻¹N, of which ∂F = ∂N'G + G'∂N − G'∂M G with G = M⁻¹N
        half, double = product(jnp.swapaxes(n1, 0, 1), g), product(jnp.swapaxes(n2, 0, 1), g)
        first = half + jnp.swapaxes(half, 0, 1) - product(turned, product(m1, g))
        second = double + jnp.swapaxes(double, 0, 1) - product(turned, product(m2, g))
        second = second + 2.0 * product(jnp.swapaxes(turn, 0, 1), product(inverse, turn))
        value, one, two = self.s_curve(a, h, scale, s)
        return value + product(jnp.swapaxes(n, 0, 1), g), one + first, two + second

    def ends(self, t: np.ndarray) -> tuple[Array, Array]:
        if self.data.ml:
            return super().ends(t)
        mu = jnp.broadcast_to(self.mu, self.y.shape)
        one = jnp.ones(self.y.shape[1])
        at_zero, first = self.parts(jnp.ones_like(mu), one, full=True), self.parts(-mu, 0.0 * one)
        lower = rises(at_zero, first, float(self.data.mu.sum()), self.nu)
        if not self.data.regular:
            return lower, jnp.zeros_like(lower)
        at_one, first = self.parts(1.0 / mu, 0.0 * one, full=True), self.parts(-(mu**-2.0), 0.0 * one)
        return lower, rises(at_one, first, float(np.sum(1.0 / self.data.mu)), self.nu)

    def found(self, a: Array, h: Array) -> tuple[Array, Array, Array, Array]:
        scale = a[None, :] + h[None, :] * self.mu
        logdet, r2, inverse, g = self.criterion(a, h)
        s, ratio = self.s_open(a, h, scale, inverse), h[None, :] / scale
        n = self.x - self.n(ratio)
        beta = -(self.data.c.T @ (self.y * ratio)) - jnp.sum(n * g[:, None], axis=0)
        return logdet, r2, s, beta


def inverted(m: Array) -> tuple[Array, Array]:
    """log|M| (T,) and M⁻¹, in a program that is short whatever m is."""
    return sweep(m, unroll=WRITTEN)


def eliminated(sums: Sums, first: Sums, second: Sums) -> tuple[Array, ...]:
    """log|M|, M⁻¹, r², ∂r²/r², ∂²r²/r², ∂log|M| and ∂²log|M|, as `schur.eliminated`."""
    (m, v, q), (m1, v1, q1), (m2, v2, q2) = sums, first, second
    logdet, inverse = inverted(m)

    def times(matrix: Array, vector: Array) -> Array:
        return jnp.sum(matrix * vector[None], axis=1)

    g = times(inverse, v)
    r2, turn = q - jnp.sum(v * g, axis=0), v1 - times(m1, g)
    slope = q1 - jnp.sum(g * (v1 + turn), axis=0)
    bend = q2 - 2.0 * jnp.sum(g * v2, axis=0) + jnp.sum(g * times(m2, g), axis=0)
    bend = bend - 2.0 * jnp.sum(turn * times(inverse, turn), axis=0)
    solved = product(inverse, m1)
    curve = jnp.sum(inverse * m2, axis=(0, 1)) - trace(solved, solved)
    return logdet, inverse, r2, slope / r2, bend / r2, jnp.sum(inverse * m1, axis=(0, 1)), curve


def rises(sums: Sums, first: Sums, logdet: float, nu: Array) -> Array:
    """As `schur.rises`."""
    (m, v, q), (m1, v1, q1) = sums, first
    _, inverse = inverted(m)
    g = jnp.sum(inverse * v[None], axis=1)
    r2 = q - jnp.sum(v * g, axis=0)
    slope = q1 - 2.0 * jnp.sum(g * v1, axis=0) + jnp.sum(g * jnp.sum(m1 * g[None], axis=1), axis=0)
    return logdet + jnp.sum(inverse * m1, axis=(0, 1)) + nu * slope / r2 >= 0
