"""The criterion's parts where groups keep to a schedule: from sums by pattern, without the jet of the Gram.

With e = z[−β̂; 1] and Φ = Sxx⁻¹, the weights of directions E of R are, by pattern,

    F = Σ eeᵀ + cYc for r²,   G = n c − κΣ z_xΦz_xᵀ for log|R| + κ log|Sxx|:

    ∂r² = −tr(EF),    ∂∂′r² = 2 tr(E c E′F) − 2 vᵀΦv′,   v = −Σ z_xᵀEe,
    ∂l  = tr(EG),     ∂∂′l  = tr(E c E′(n c − 2G)) − κ tr(Φ ∂Sxx Φ ∂′Sxx),   ∂Sxx = −Σ z_xᵀEz_x,

and where R is curved in its parameters, −tr(F ∂∂′R) and tr(G ∂∂′R).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array, value_and_slopes
from lmmjax.core.criterion import SMOOTH, CriterionParts, Jet
from lmmjax.core.likelihood import profile
from lmmjax.gram import Gram
from lmmjax.gram.whitened.blocks import WhitenedResponse
from lmmjax.gram.whitened.products import WhitenedProducts
from lmmjax.gram.whitened.schedule import ScheduleProducts, between, by_pattern, twice


def scheduled_parts(
    shared: WhitenedProducts, d: Array, response: WhitenedResponse, reml: Array
) -> CriterionParts | None:
    """`criterion.parts` at d (m,); None where groups do not keep to a schedule."""
    products, structure = shared.products, shared.structure.residual
    if not isinstance(products, ScheduleProducts) or structure is None:
        return None
    matrix, e = products.with_slopes(structure, d)
    there = products.solve(matrix, response)
    fit = profile(Gram.of(shared.logdet_r + there.logdet, there.s))
    phi, kappa, c = fit.xx_inv, jnp.asarray(reml, d.dtype), there.c
    z_x, pattern, count = there.z[..., :-1], products.pattern, products.mask.shape[1]
    residual = there.z[..., -1:] - z_x @ fit.beta[:, None]
    f = by_pattern(residual, residual, pattern, count) + c @ response.yy @ c
    nc = jnp.asarray(products.count)[..., None, None] * c
    g = nc - kappa * by_pattern(z_x, z_x @ phi, pattern, count)

    def pulled(d: Array) -> Array:
        """The derivatives (2, k) of Σ F · R and Σ G · R in d."""
        return jax.vmap(jax.vjp(lambda d: products.covariance(structure, d), d)[1])(totals)[0]

    totals = jnp.stack([jnp.sum(f, axis=1), jnp.sum(g, axis=1)])
    of_r2, of_logdet = zip(*value_and_slopes(pulled, d), strict=True)
    first = between(e, jnp.concatenate([z_x, residual], axis=-1))
    v, xx = first[:, :-1, -1], first[:, :-1, :-1]
    half = phi @ xx
    cross = half.reshape(len(d), -1) @ jnp.swapaxes(half, 1, 2).reshape(len(d), -1).T
    logdet = Jet(
        shared.logdet_r + there.logdet + kappa * fit.logdet_xx,
        of_logdet[0],
        twice(e, c, nc - 2.0 * g) - kappa * cross + of_logdet[1],
    )
    r2 = Jet(fit.r2, -of_r2[0], 2.0 * (twice(e, c, f) - v @ phi @ v.T) - of_r2[1])
    return CriterionParts(logdet, r2, fit)


SMOOTH[WhitenedProducts] = scheduled_parts
