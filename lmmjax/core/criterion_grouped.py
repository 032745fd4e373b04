"""The criterion's parts for many responses at once, on a grouped design without repeated patterns.

With the shared c (q, p, G) of X every sum over groups that involves X alone or X and one response is a
matrix product with the responses as rows; the others are sums along the last axis. Two passes: the
first gives S and with it β̂ and Sxx⁻¹, the second only what the criterion needs of the derivatives,

    w = H(c_y − c_xβ̂),  t = Rw,  U = RHRᵀ,  Q = J(c_xSxx⁻¹c_xᵀ)Jᵀ,  J = RH:

    ∂_c r² = −Σ tᵀEt,                 ∂_cd r² = 2Σ tᵀEUFt − 2v_cᵀSxx⁻¹v_d,   v_c = −Σ c_xᵀJᵀEt,
    ∂_c log|Sxx| = tr(Sxx⁻¹∂_cSxx),   tr(Sxx⁻¹∂_cdSxx) = 2Σ tr(QEUF),        ∂_cSxx = −Σ c_xᵀJᵀEJc_x.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.custom_batching
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import UNROLL, Array
from lmmjax.arrays.unroll import unroll
from lmmjax.core.criterion import SHORTCUTS, CriterionParts, Jet, parts
from lmmjax.core.criterion_wide import wide_parts
from lmmjax.core.likelihood import Profile, profile
from lmmjax.gram import Gram
from lmmjax.gram.grouped.products import GroupedProducts


@jax.custom_batching.custom_vmap
def parts_of_groups(shared: Any, d: Array, response: Any, reml: Array) -> CriterionParts:
    """`criterion.parts` of uncompressed grouped products; over many responses it is `lanes_parts`."""
    return parts(shared.jet(d, response), reml)


@parts_of_groups.def_vmap
def _mapped(size: int, batched: list, shared: Any, d: Array, response: Any, reml: Array) -> Any:
    if batched[3]:
        axes = jax.tree.map(lambda b: 0 if b else None, tuple(batched))
        out = jax.vmap(lambda s, d, y, k: parts(s.jet(d, y), k), in_axes=axes)(shared, d, response, reml)
        return out, jax.tree.map(lambda _: True, out)

    def lead(a: Array, mapped: bool) -> Array:
        return a if mapped else jnp.broadcast_to(a, (size, *a.shape))

    own = jax.tree.map(lead, response, batched[2])
    if any(jax.tree.leaves(batched[0])):
        design = jax.tree.map(lead, shared, batched[0])
    else:
        design = jax.tree.map(lambda a: a[None], shared)
    out = lanes_parts(
        design.r,
        design.count,
        design.within_xx,
        design.between_xx,
        design.logdet_r,
        shared.units,
        d if batched[1] else d[None],
        own.within_xy,
        own.within_yy,
        own.between_xy,
        reml,
    )
    return out, jax.tree.map(lambda _: True, out)


def _shortcut(shared: GroupedProducts, d: Array, response: Any, reml: Array) -> CriterionParts | None:
    if shared.wide:
        return wide_parts(shared, d, response, reml)
    return None if shared.compressed or shared.tied else parts_of_groups(shared, d, response, reml)


SHORTCUTS[GroupedProducts] = _shortcut


def lanes_parts(
    r: Array,
    count: Array,
    within_xx: Array,
    c_x: Array,
    logdet_r: Array,
    units: np.ndarray,
    d: Array,
    within_xy: Array,
    within_yy: Array,
    c_y: Array,
    reml: Array,
) -> CriterionParts:
    """`criterion.parts` for d (T, m) or (1, m) and responses with T leading.

    Arrays by group keep the group axis last: r (S, q, q, G), c_x (S, q, p, G), c_y (T, q, G), with S = 1
    for a design shared by all responses and S = T for one each. `units` are the matrices E (m, q, q).
    """
    designs, q, p, groups = c_x.shape
    pairs = [(a, b) for a in range(q) for b in range(a, q)]
    lanes = c_y.shape[0]
    # entries (T, G) of I + RᵀDR, of H and of log|I + RᵀDR|
    curves = jnp.einsum("saig,cab,sbjg->sijcg", r, jnp.asarray(units, d.dtype), r)
    b = [
        [1.0 * (i == j) + jnp.sum(d[:, :, None] * curves[:, i, j], axis=1) for j in range(q)]
        for i in range(q)
    ]
    one = 1.0 + 0.0 * reml

    def keep(x: Array) -> Array:
        """x, computed once: XLA repeats sums and products for every user, but no division."""
        return x / one

    logdet, h = _inverse(b)
    h = [[keep(h[min(i, j)][max(i, j)]) for j in range(q)] for i in range(q)]
    logdet = jnp.sum(count * logdet, axis=-1)

    upper = [(i, k) for i in range(p) for k in range(i, p)]
    # C_aᵀC_b + C_bᵀC_a, halved for a = b, by its entries on and above the diagonal
    c_pairs = jnp.stack([_pair(c_x, a, b_, upper) for a, b_ in pairs], axis=2).reshape(
        designs, len(upper), len(pairs) * groups
    )
    c_rows = jnp.swapaxes(c_x, 1, 2).reshape(designs, p, q * groups)

    def over(weights: list[Array], rows: Array) -> Array:
        """Σ over groups of weights (T, G) × rows (S, k, G), several of each joined: (T, k)."""
        stacked = jnp.concatenate([jnp.broadcast_to(x, (x.shape[0], groups)) for x in weights], axis=-1)
        if designs == 1:
            return stacked @ rows[0].T
        return jnp.sum(stacked[:, None] * rows, axis=-1)

    def back(values: Array, rows: Array, blocks: int) -> Array:
        """Σ over k of values (T, k) × rows (S, k, G): (T, blocks, G)."""
        if designs == 1:
            return (values @ rows[0]).reshape(lanes, blocks, groups)
        return jnp.sum(values[:, :, None] * rows, axis=1).reshape(lanes, blocks, groups)

    square = np.zeros((p, p), int)
    for k, (i, l) in enumerate(upper):
        square[i, l] = square[l, i] = k

    def over_xx(weights: list[Array]) -> Array:
        return over(weights, c_pairs)[:, square]

    def over_x(weights: list[Array]) -> Array:
        return over(weights, c_rows)

    y = [c_y[:, a] for a in range(q)]
    hy = [_sum(h[a][b_] * y[b_] for b_ in range(q)) for a in range(q)]
    xx = within_xx + over_xx([h[a][b_] for a, b_ in pairs])
    xy = within_xy + over_x(hy)
    yy = within_yy + jnp.sum(_sum(hy[a] * y[a] for a in range(q)), axis=-1)
    fit = _profiles(jnp.broadcast_to(xx, (lanes, p, p)), xy, yy, one)

    shift = back(fit.beta, c_rows, q)
    e = [y[a] - shift[:, a] for a in range(q)]
    w = [_sum(h[a][b_] * e[b_] for b_ in range(q)) for a in range(q)]
    t = [keep(_sum(r[:, a, i] * w[i] for i in range(a + 1))) for a in range(q)]
    j = [[keep(_sum(r[:, a, k] * h[k][i] for k in range(a + 1))) for i in range(q)] for a in range(q)]
    u = [[keep(_sum(j[a][k] * r[:, b_, k] for k in range(b_ + 1))) for b_ in range(a + 1)] for a in range(q)]
    u = [[u[max(a, b_)][min(a, b_)] for b_ in range(q)] for a in range(q)]
    doubled = np.array([1.0 if i == k else 2.0 for i, k in upper])
    packed = fit.xx_inv[:, [i for i, _ in upper], [k for _, k in upper]] * jnp.asarray(doubled, d.dtype)[None]
    s = back(packed, c_pairs, len(pairs))
    # c_pairs holds C_aᵀC_b + C_bᵀC_a off the diagonal: twice the bilinear form
    forms = {pair: s[:, k] * (1.0 if pair[0] == pair[1] else 0.5) for k, pair in enumerate(pairs)}
    js = [[_sum(j[a][k] * forms[min(k, i), max(k, i)] for k in range(q)) for i in range(q)] for a in range(q)]
    big_q = [[keep(_sum(js[a][i] * j[b_][i] for i in range(q))) for b_ in range(a + 1)] for a in range(q)]
    big_q = [[big_q[max(a, b_)][min(a, b_)] for b_ in range(q)] for a in range(q)]

    def total(x: Array) -> Array:
        return jnp.sum(x, axis=-1)

    tt = {(a, b_): total(t[a] * t[b_]) for a, b_ in pairs}
    sum_u = {(a, b_): total(u[a][b_]) for a, b_ in pairs}
    entries = [(int(np.argwhere(e_)[-1][0]), int(np.argwhere(e_)[-1][1])) for e_ in units]
    uu: dict = {}
    tut: dict = {}
    qu: dict = {}

    def ordered(a: int, b_: int) -> tuple[int, int]:
        return (a, b_) if a <= b_ else (b_, a)

    def cached(store: dict, key: tuple, *factors: Array) -> Array:
        """Σ_g of a product of arrays (T, G), computed once a key."""
        if key not in store:
            store[key] = total(math.prod(factors[1:], start=factors[0]))
        return store[key]

    def spread(entry: tuple[int, int]) -> list[tuple[int, int]]:
        """Positions of the ones of E."""
        a, b_ = entry
        return [(a, b_)] if a == b_ else [(a, b_), (b_, a)]

    logdet_first, logdet_second, r2_first, r2_second, trace_second = [], {}, [], {}, {}
    for k, one in enumerate(entries):
        logdet_first.append(_sum(sum_u[ordered(*ab)] for ab in spread(one)))
        r2_first.append(-_sum(tt[ordered(*ab)] for ab in spread(one)))
        for l, two in enumerate(entries[: k + 1]):
            # tr(UEUF), tᵀEUFt and tr(QEUF) from positions (a, b) of E and (c, f) of F
            terms = [(ab, cf) for ab in spread(one) for cf in spread(two)]
            logdet_second[k, l] = -_sum(
                cached(uu, tuple(sorted((ordered(f, a), ordered(b_, c)))), u[f][a], u[b_][c])
                for (a, b_), (c, f) in terms
            )
            r2_second[k, l] = 2.0 * _sum(
                cached(tut, (ordered(a, f), ordered(b_, c)), t[a], t[f], u[b_][c])
                for (a, b_), (c, f) in terms
            )
            trace_second[k, l] = 2.0 * _sum(
                cached(qu, (ordered(f, a), ordered(b_, c)), big_q[f][a], u[b_][c])
                for (a, b_), (c, f) in terms
            )
    v, xx_first = [], []
    for one in entries:
        et = {a: t[b_] for a, b_ in spread(one)}
        v.append(-over_x([_sum(j[a][i] * et[a] for a in et) for i in range(q)]))
        coefficients = [
            _sum(j[a][i] * j[b_][k] for a, b_ in spread(one)) * 1.0
            if i == k
            else _sum(j[a][i] * j[b_][k] + j[a][k] * j[b_][i] for a, b_ in spread(one)) * 0.5
            for i, k in pairs
        ]
        xx_first.append(-over_xx(coefficients))
    v_all = jnp.stack(v, axis=1)
    xx_all = jnp.broadcast_to(jnp.stack(xx_first, axis=1), (lanes, len(entries), p, p))
    v_inv = jnp.sum(v_all[..., :, None] * fit.xx_inv[:, None], axis=-2)
    cross_v = jnp.sum(v_inv[:, :, None] * v_all[:, None], axis=-1)
    solved = jnp.sum(fit.xx_inv[:, None, :, :, None] * xx_all[:, :, None], axis=-2)
    trace_first = jnp.sum(fit.xx_inv[:, None] * xx_all, axis=(-2, -1))
    cross = jnp.sum(solved[:, :, None] * jnp.swapaxes(solved, -1, -2)[:, None], axis=(-2, -1))

    def matrix(values: dict) -> Array:
        m = len(entries)
        rows = [[values[max(k, l), min(k, l)] for l in range(m)] for k in range(m)]
        return jnp.stack([jnp.stack([jnp.broadcast_to(x, (lanes,)) for x in row], -1) for row in rows], -2)

    def vector(values: list) -> Array:
        return jnp.stack([jnp.broadcast_to(x, (lanes,)) for x in values], -1)

    log_part = Jet(
        jnp.broadcast_to(logdet_r + logdet, (lanes,)) + reml * fit.logdet_xx,
        vector(logdet_first) + reml * trace_first,
        matrix(logdet_second) + reml * (matrix(trace_second) - cross),
    )
    r2_part = Jet(fit.r2, vector(r2_first), matrix(r2_second) - 2.0 * cross_v)
    return CriterionParts(log_part, r2_part, fit)


def _profiles(xx: Array, xy: Array, yy: Array, one: Array) -> Profile:
    """Generalised least squares of every lane, T leading."""

    def solve(xx: Array, xy: Array, yy: Array) -> Profile:
        return profile(Gram(jnp.zeros_like(yy), xx, xy, yy))

    if xx.shape[-1] > UNROLL:
        return jax.vmap(solve)(xx, xy, yy)
    return jax.vmap(unroll(solve), in_axes=(None, 0, 0, 0))(one, xx, xy, yy)


def _inverse(b: list[list[Array]]) -> tuple[Array, list[list[Array]]]:
    """log|B| and B⁻¹ of symmetric positive definite B given by its entries."""
    q = len(b)
    b = [row[:] for row in b]
    logdet = None
    for k in range(q):
        pivot = b[k][k]
        inverse = 1.0 / pivot
        logdet = jnp.log(pivot) if logdet is None else logdet + jnp.log(pivot)
        row = b[k][:]
        for i in range(q):
            for l in range(i, q):
                if i != k and l != k:
                    b[i][l] = b[i][l] - row[i] * row[l] * inverse
                    b[l][i] = b[i][l]
        for i in range(q):
            if i != k:
                b[k][i] = b[i][k] = row[i] * inverse
        b[k][k] = -inverse
    return logdet, [[-x for x in row] for row in b]


def _pair(c: Array, a: int, b: int, entries: list[tuple[int, int]]) -> Array:
    """Some entries of C_aᵀC_b + C_bᵀC_a, halved for a = b: (S, k, G)."""
    one, two = (np.array(part, int) for part in zip(*entries, strict=True)) if entries else ([], [])
    product = c[:, a][:, one] * c[:, b][:, two]
    return product if a == b else product + c[:, a][:, two] * c[:, b][:, one]


def _sum(items) -> Array:
    total = None
    for item in items:
        total = item if total is None else total + item
    return total
