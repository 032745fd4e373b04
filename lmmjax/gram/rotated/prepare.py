"""From rows to independent groups: K of the levels that have rows is UΛUᵀ, and Uᵀ is applied to the levels.

With the same design Z₀ (k, q), residuals R₀ and weights in every level,

    V = K ⊗ Z₀DZ₀ᵀ + I ⊗ σ²R₀     →     (Uᵀ ⊗ I)V(U ⊗ I) = ⊕ᵢ (λᵢZ₀DZ₀ᵀ + σ²R₀),

so that rotated levels are groups with Zᵢ = √λᵢ Z₀, of any backend. Terms of the same levels without a kernel
keep Z₀.

Source: Zhou & Stephens (2014), doi:10.1038/nmeth.2848, of several traits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg as sl

from lmmjax.arrays import Array, namespace
from lmmjax.arrays.memory import require_memory
from lmmjax.design import Design, LevelKernel, RandomTerm, Rows
from lmmjax.gram.base import Prepared, ResponseProducts
from lmmjax.gram.rotated.arrangement import Arrangement, arrangement, random_codes
from lmmjax.gram.rotated.products import RotatedProducts
from lmmjax.gram.spectral.decomposition import Decomposition


class RotatedPrepared(Prepared):
    """The rotation of the levels of one kernel, and the backend of what it leaves.

    Parameters
    ----------
    design, rows : a design with an `arrangement`, and its standardised rows.
    below : (design, rows, **options) → the products of independent groups.
    compress : False for products that have the levels apart, for conditional modes.
    """

    def __init__(
        self,
        design: Design,
        rows: Rows,
        below: Callable[..., Prepared],
        compress: bool | None = None,
        **options: Any,
    ):
        at = arrangement(design)
        assert at is not None
        self.compressed = compress is not False
        self.size, self.order = at.rows.shape, at.rows.ravel()
        found = level_decomposition(at.kernel, at.codes)
        self.u = found.b
        mu = np.maximum(found.mu, 0.0)
        g, k = self.size
        groups = np.repeat(np.arange(g, dtype=np.int32), k)
        terms, z = [], []
        for term, own in zip(design.terms, rows.z, strict=True):
            z0 = np.asarray(own)[:, at.rows[0]]
            scale = np.ones(g) if term.kernel is None else np.sqrt(mu)
            z.append((z0[:, None, :] * scale[None, :, None]).reshape(len(z0), g * k))
            terms.append(dataclasses.replace(term, z=z[-1].T, codes=groups, n_groups=g, kernel=None))
        x = self.rotate(np.asarray(rows.x)[:, self.order].T).T
        residual = design.residual
        inner_design = Design(
            x.T,
            tuple(terms),
            residual=None if residual is None else residual.take(self.order),
            known=design.known,
        )
        inner_rows = Rows(x, tuple(z), None, None, rows.logdet_r)
        made = below(inner_design, inner_rows, apart=not self.compressed, **options)
        self.made = made
        self.inner = getattr(made, "inner", made)
        self.shared = made.shared
        if not self.compressed:
            self.shared = RotatedProducts(
                made.shared,
                tuple(reach(term, at, found) for term in design.terms),
                tuple(None if t.kernel is None else t.kernel.diagonal for t in design.terms),
                design.structure,
            )

    def rotate(self, values: Array) -> Array:
        """Rows (n, ...) by level and position, the levels rotated by Uᵀ."""
        xp = namespace(values)
        apart = values.reshape(*self.size, *values.shape[1:])
        return xp.tensordot(xp.asarray(self.u.T), apart, axes=1).reshape(values.shape)

    def respond(self, residual: Array, factor: Array) -> ResponseProducts:
        turned, order = self.rotate(residual), self.made.order
        return self.made.respond(turned if order is None else turned[order], factor)


def reach(term: RandomTerm, at: Arrangement, found: Decomposition) -> np.ndarray:
    """(G, g) from what rotated levels see to the effects of all levels: K_{·d}UΛ^(−½), or U."""
    if term.kernel is None:
        out = np.zeros((term.n_groups, len(at.codes)))
        out[random_codes(term, at)] = found.b
        return out
    root = term.kernel.factor
    across = np.asarray(root @ (root[at.codes].T @ found.b))
    positive = found.mu > 0
    return np.where(positive, across / np.sqrt(np.where(positive, found.mu, 1.0)), 0.0)


def level_decomposition(kernel: LevelKernel, codes: np.ndarray) -> Decomposition:
    """λ (g,) and U (g, g) of K of the levels `codes` (g,), which the kernel may have."""

    def make() -> Decomposition:
        g = len(codes)
        require_memory("the decomposition of the kernel", 4, g, g)
        half = kernel.rows(codes)
        whole = half @ half.T
        whole = whole if isinstance(whole, np.ndarray) else whole.toarray()
        mu, u = sl.eigh(0.5 * (whole + whole.T), driver="evr", overwrite_a=True, check_finite=False)
        return Decomposition(np.where(mu > g * np.finfo(float).eps * mu[-1], mu, 0.0), u)

    return kernel.decomposed("levels", (codes,), make)
