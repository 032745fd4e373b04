"""Exact draws of β and b given the variance parameters: independent given ψ, whatever the backend.

β given ψ comes from the Gram (`target.draw_beta`). For b, draw b* and ε* from the model; then

    b = b* + DZᵀH⁻¹(y − Xβ − Zb* − ε*)

has the conditional distribution given y, β and ψ: all groups and terms jointly (Matheron's rule; Papandreou &
Yuille 2010 call it perturb-and-MAP). Only conditional means of other responses are needed.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array, psd_cholesky, quick_jit
from lmmjax.bayes.priors import BetaPrior
from lmmjax.bayes.target import draw_beta
from lmmjax.core import Problem, conditional_means, response_axes
from lmmjax.design import Structure


@quick_jit
def beta_draws(key: Array, problem: Problem, psi: Array, beta: BetaPrior) -> Array:
    """β (N, p) given ψ (N, m + 1)."""
    keys = jax.random.split(key, psi.shape[0])
    return jax.lax.map(lambda pair: draw_beta(pair[0], problem, pair[1], beta), (keys, psi))


@partial(quick_jit, static_argnames=("structure", "n_groups"))
def perturbations(
    key: Array,
    psi: Array,
    z: tuple[Array, ...],
    codes: tuple[Array, ...],
    noise: Array,
    structure: Structure,
    n_groups: tuple[int, ...],
    roots: tuple[Array | None, ...],
) -> tuple[tuple[Array, ...], Array]:
    """b* per term (N, G, q), and Zb* + ε* (N, n), drawn from the model at ψ (N, m + 1).

    Parameters
    ----------
    z : per term (n, q); codes : per term (n,); noise : ε* (N, n).
    roots : per term L (G, r) of K = LLᵀ, or None for groups that are independent.
    """
    keys = jax.random.split(key, len(z))
    y, effects = noise, []
    matrices = jax.vmap(structure.matrices)(psi[:, :-1])
    for k, zk, ck, matrix, groups, root in zip(keys, z, codes, matrices, n_groups, roots, strict=True):
        factor = jax.vmap(lambda a: psd_cholesky(a, 1e-15))(matrix)
        u = jax.random.normal(k, (psi.shape[0], groups, zk.shape[1]), psi.dtype)
        b = jnp.einsum("dij,dgj->dgi", factor, u)
        b = b if root is None else jnp.einsum("gr,dri->dgi", root, b)
        y = y + jnp.sum(zk[None] * b[:, ck], axis=-1)
        effects.append(b)
    return tuple(effects), y


@quick_jit
def pulled(problem: Problem, psi: Array, beta: Array) -> tuple[Array, ...]:
    """Conditional means b̂ (N, G, q) of every term for responses (N,), each at its ψ and β."""
    axes = response_axes(problem, 0)
    if not problem.shared.sequential:
        return jax.vmap(conditional_means, in_axes=(axes, 0, 0))(problem, psi, beta)

    def one(at):
        own = jax.tree.map(
            lambda a, axis: a[at] if axis == 0 else a, problem, axes, is_leaf=lambda a: a is None
        )
        return conditional_means(own, psi[at], beta[at])

    return jax.lax.map(one, jnp.arange(psi.shape[0]))
