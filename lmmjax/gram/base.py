"""The waist: what a covariance backend gives to everything above it."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, derivatives, namespace, record
from lmmjax.design import Basis, Origin, Rows


@record
class Gram:
    """All that the likelihood sees of the data: log|H| and WᵀH⁻¹W for W = [X y].

    Attributes
    ----------
    logdet : log|H|.
    xx : (p, p) XᵀH⁻¹X.
    xy : (p,) XᵀH⁻¹y.
    yy : yᵀH⁻¹y.
    """

    logdet: Array
    xx: Array
    xy: Array
    yy: Array

    @classmethod
    def of(cls, logdet: Array, s: Array) -> Gram:
        """From log|H| and S = WᵀH⁻¹W (..., p + 1, p + 1)."""
        p = s.shape[-1] - 1
        return cls(logdet, s[..., :p, :p], s[..., :p, p], s[..., p, p])

    @property
    def s(self) -> Array:
        """S = WᵀH⁻¹W (..., p + 1, p + 1)."""
        top = jnp.concatenate([self.xx, self.xy[..., None]], axis=-1)
        last = jnp.concatenate([self.xy, self.yy[..., None]], axis=-1)
        return jnp.concatenate([top, last[..., None, :]], axis=-2)


@record
class GramJet:
    """A Gram with its first and second derivatives in d: leading axes (m,) and (m, m)."""

    value: Gram
    first: Gram
    second: Gram


class Curve(abc.ABC):
    """Second derivatives ∂_ab of a matrix (p, p) in m directions: a record, of NumPy or traced arrays."""

    @abc.abstractmethod
    def traced(self, phi: Array) -> Array:
        """tr(Φ∂_ab) (m, m) for a symmetric Φ (p, p)."""

    @abc.abstractmethod
    def weighted(self, w: Array) -> Array:
        """Σ w_ab ∂_ab (p, p) for a symmetric w (m, m)."""


@record
class FullCurve(Curve):
    """All of them: (m, m, p, p)."""

    array: Array

    def traced(self, phi: Array) -> Array:
        return namespace(phi, self.array).sum(phi[None, None] * self.array, axis=(-2, -1))

    def weighted(self, w: Array) -> Array:
        return namespace(w, self.array).sum(w[:, :, None, None] * self.array, axis=(0, 1))


@record
class GramCurve:
    """A Gram, its first derivatives (m, ...), and along the tangent of H the second of log|H| and of Sxx."""

    value: Gram
    first: Gram
    logdet: Array
    xx: Curve


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one evaluation with first and second derivatives takes, roughly.

    Attributes
    ----------
    operations : floating-point operations.
    memory : bytes that it holds beside the products.
    roles : per term, how the backend treats its factor.
    """

    operations: float
    memory: float
    roles: tuple[str, ...]


@record
class Projection:
    """What the random effects of one term see of the data.

    Attributes
    ----------
    u : (q, q, G) diagonal blocks of ZᵀH⁻¹Z.
    tx : (q, p, G) ZᵀH⁻¹X.
    ty : (q, G) ZᵀH⁻¹y.
    own : (G,) diagonal of K, where groups have covariances DK_gh: then KZᵀ is in the place of Zᵀ.
    """

    u: Array
    tx: Array
    ty: Array
    own: Array | None = None


class CrossProducts(abc.ABC):
    """Cross-products of a design, shared by all its responses: the data of a backend.

    Where every structure is linear, H = R + Σ_c d_c Z E_c Zᵀ is linear in d (m,), the free entries of the
    relative covariances.
    A subclass is a record; its methods are pure and may be traced.
    """

    @property
    def size(self) -> float:
        """Rough measure of the scalars in one evaluation, for the choice to unroll; infinite means never."""
        return float("inf")

    @property
    def sequential(self) -> bool:
        """Whether responses must be taken one by one: batched LAPACK calls in a mapped loop can hang."""
        return False

    @property
    def together(self) -> bool:
        """Whether many responses can descend together: all do that are not sequential, and some that are."""
        return not self.sequential

    @property
    def individual(self) -> bool:
        """Whether responses with weights of their own can be mapped over, each with its own products."""
        return False

    @property
    def carried(self) -> bool:
        """Whether responses can have weights of their own beside products that all of them share."""
        return False

    @property
    def few(self) -> float:
        """Responses up to which single fits come before a program for many, if fewer than usual."""
        return float("inf")

    @property
    def costly(self) -> bool:
        """Whether one evaluation takes so long that a fit makes one descent only."""
        return False

    @property
    def vector(self) -> int:
        """Length of the vectors that one response works on beside its small blocks: 1 if there are none."""
        return 1

    @abc.abstractmethod
    def cost(self) -> Cost:
        """Operations and memory of one evaluation, from the sizes alone."""

    @abc.abstractmethod
    def gram(self, d: Array, response: ResponseProducts) -> Gram:
        """(log|H|, WᵀH⁻¹W) at d (m,)."""

    @abc.abstractmethod
    def project(self, d: Array, response: ResponseProducts) -> tuple[Projection, ...]:
        """ZᵀH⁻¹Z (diagonal blocks) and ZᵀH⁻¹W, a projection per term."""

    def jet(self, d: Array, response: ResponseProducts) -> GramJet:
        """The Gram and its exact first and second derivatives in d."""
        return forward_jet(lambda d: self.gram(d, response), d)

    def linear_jet(self, d: Array, response: ResponseProducts) -> GramJet:
        """`jet` with the second derivatives along the tangent of H at d: the same where H is linear in d."""
        return self.jet(d, response)

    def curve(self, d: Array, response: ResponseProducts) -> GramCurve:
        """`linear_jet` without the second derivatives that tests of fixed effects do not need."""
        jet = self.linear_jet(d, response)
        return GramCurve(jet.value, jet.first, jet.second.logdet, FullCurve(jet.second.xx))


class ResponseProducts:
    """Cross-products that depend on the response: a record of arrays."""


class Prepared(abc.ABC):
    """The rows of a design, ready to take responses: lives outside the optimiser.

    Attributes
    ----------
    shared : products of the design.
    order : the order in which `respond` wants the rows, or None.
    """

    shared: CrossProducts
    order: np.ndarray | None = None

    def settle(
        self, rows: Rows, basis: Basis, residual: Array, origin: Origin, factor: Array
    ) -> tuple[Array, Origin, Array]:
        """The residuals (n, ...), their origin and factor as `respond` had best take them."""
        return residual, origin, factor

    @abc.abstractmethod
    def respond(self, residual: Array, factor: Array) -> ResponseProducts:
        """Products of factor · residual (n, ...); axes of responses trail. NumPy in, NumPy out; traceable."""


def forward_jet(gram: Callable[[Array], Gram], d: Array) -> GramJet:
    """The jet of a function of d by forward differentiation."""
    value, first, second = derivatives(gram, d)
    return GramJet(value, lead(first, 1), lead(second, 2))


def taylor(f: Callable[[Array], Any], at: Array) -> Callable[[Array], Any]:
    """A polynomial with the value and the first two derivatives of f (a pytree of arrays) at a point (m,).

    In its place where f is dear and is differentiated in more than its own argument.
    """
    value, slope, curve = derivatives(f, at)

    def near(x: Array) -> Any:
        step = x - at
        return jax.tree.map(lambda v, a, b: v + a @ step + 0.5 * ((b @ step) @ step), value, slope, curve)

    return near


def lead(gram: Gram, axes: int) -> Gram:
    """Move the derivative axes, which `jacfwd` puts last, to the front."""
    order = range(-axes, 0)
    return jax.tree.map(lambda a: jnp.moveaxis(a, tuple(order), tuple(range(axes))), gram)


class AroundProducts(CrossProducts):
    """Products around those of another backend, which says what they cost."""

    inner: CrossProducts

    @property
    def sequential(self) -> bool:
        return self.inner.sequential

    @property
    def costly(self) -> bool:
        return self.inner.costly

    @property
    def vector(self) -> int:
        return self.inner.vector

    def cost(self) -> Cost:
        return self.inner.cost()
