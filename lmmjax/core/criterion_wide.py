"""The criterion's parts on a grouped design with many columns in a group, whose ∂²S is never formed.

With T = ZᵀH⁻¹W, U = ZᵀH⁻¹Z of a group and e = W[−β̂; 1] sums over groups, or patterns, of

    ∂_cd r² + 2v_cᵀSxx⁻¹v_d = 2Σtr(E_cUE_d(te)(te)ᵀ),      tr(Sxx⁻¹∂_cdSxx) = 2Σtr(E_cUE_dT_xSxx⁻¹T_xᵀ)

are those of products of two small symmetric matrices: (q², q²) numbers for all c and d.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, hold, matmul, transpose
from lmmjax.core.criterion import CriterionParts, Jet
from lmmjax.core.likelihood import profile
from lmmjax.gram.grouped.many_columns import Places, congruences, first_products, pair_sums, places
from lmmjax.gram.grouped.products import GroupedProducts, GroupedResponse


def wide_parts(shared: GroupedProducts, d: Array, response: GroupedResponse, reml: Array) -> CriterionParts:
    """`criterion.parts` of products whose units have one entry, or two."""
    at, dtype = places(shared.units), d.dtype
    logdet, h, j = shared._blocks(d)
    gram = shared._gram(logdet, h, response)
    u = hold(matmul(j, transpose(shared.r)))
    fit = profile(gram)
    beta, inverse = fit.beta, fit.xx_inv
    if shared.compressed:
        first_xx, first_xy, forms = _compressed(shared, response, j, at, beta, inverse)
        of_e, of_x = (matmul(matmul(j, form), transpose(j)) for form in forms)
    else:
        t = matmul(j, response.columns(shared))
        first_s = -first_products(t, at)
        first_xx, first_xy = first_s[:, :-1, :-1], first_s[:, :-1, -1]
        te = t[:, -1] - jnp.einsum("apg,p->ag", t[:, :-1], beta)
        of_e = te[:, None] * te[None]
        tx = t[:, :-1]
        of_x = jnp.einsum("apg,bpg->abg", jnp.einsum("apg,pr->arg", tx, inverse), tx)
    v = first_xy - first_xx @ beta
    kappa = jnp.asarray(reml, dtype)
    solved = inverse @ first_xx
    cross = jnp.tensordot(solved, solved, axes=((1, 2), (2, 1)))
    units = jnp.asarray(shared.units, dtype)
    log_first = jnp.tensordot(units, jnp.sum(shared.count[None, None] * u, -1), axes=((1, 2), (0, 1)))
    log = Jet(
        gram.logdet + kappa * fit.logdet_xx,
        log_first + kappa * jnp.tensordot(first_xx, inverse, axes=((1, 2), (0, 1))),
        -pair_sums(shared.count[None, None] * u, u, at) + kappa * (2.0 * pair_sums(u, of_x, at) - cross),
    )
    r2_first = -jnp.tensordot(units, jnp.sum(of_e, -1), axes=((1, 2), (0, 1)))
    r2 = Jet(fit.r2, r2_first, 2.0 * pair_sums(u, of_e, at) - 2.0 * v @ inverse @ v.T)
    return CriterionParts(log, r2, fit)


def _compressed(
    shared: GroupedProducts, response: GroupedResponse, j: Array, at: Places, beta: Array, inverse: Array
) -> tuple[Array, Array, list[Array]]:
    """∂Sxx (m, p, p), ∂sxy (m, p); ΣCee′Cᵀ and ΣC_xSxx⁻¹C_xᵀ over the groups of a pattern (r, r, K)."""
    r = j.shape[1]
    rows, columns = np.triu_indices(r)
    first_xx, first_xy, _ = shared._contract(-congruences(j, at)[:, rows, columns], response)
    xx = shared.between_xx
    of_e = response.between_yy - 2.0 * response.between_xy @ beta + (xx @ beta) @ beta
    of_x = jnp.tensordot(xx, inverse, axes=((2, 3), (0, 1)))
    # products off the diagonal are there twice
    share = jnp.asarray(np.where(rows == columns, 1.0, 0.5), j.dtype)[:, None]
    place = np.zeros((r, r), int)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return first_xx, first_xy, [(share * form)[place] for form in (of_e, of_x)]
