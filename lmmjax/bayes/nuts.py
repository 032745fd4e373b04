"""The No-U-Turn sampler on the posterior of the variance parameters, all chains in one program.

Step size and metric are adapted by Stan's windows. The sampler is blackjax's.

Source: Hoffman & Gelman (2014), JMLR 15, 1593-1623.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit, record
from lmmjax.bayes.coordinates import PriorSet, components, natural
from lmmjax.bayes.target import log_posterior
from lmmjax.core import Problem

DEEPEST = 10
"""Most doublings of a trajectory."""

PIECE = 250
"""Steps that a program makes: one program for any number of draws."""


@record
class Chains:
    """What the sampler leaves, leading axes (chains, draws).

    Attributes
    ----------
    psi : (..., m + 1) natural covariance parameters, σ² last.
    log_density : log posterior density of u.
    divergent : whether the trajectory diverged; depth : its doublings; steps : its leapfrog steps;
    acceptance : mean acceptance probability along it; energy : of its end.
    """

    psi: Array
    log_density: Array
    divergent: Array
    depth: Array
    steps: Array
    acceptance: Array
    energy: Array


@record
class Walk:
    """Where chains are, what their adaptation has seen, and what comes of it; leading axis (chains,).

    Attributes
    ----------
    at : u (k,), log posterior density there, its gradient (k,).
    averaging : the state of dual averaging of the step size; spread : that of Welford's variances of u.
    step_size : (), of the next trajectory; inverse_metric : (k,) variances of u.
    """

    at: tuple[Array, ...]
    averaging: tuple[Array, ...]
    spread: tuple[Array, ...]
    step_size: Array
    inverse_metric: Array


def schedule(warmup: int, draws: int) -> np.ndarray:
    """(steps, 3): the number of a step, what it adapts, what ends with it; Stan's windows, in whole pieces.

    0 the step size, 1 the metric too, 2 neither; 0 nothing, 1 a window, 2 warm-up.
    """
    from blackjax.adaptation.window_adaptation import build_schedule

    total = -(-(warmup + draws) // PIECE) * PIECE
    out = np.zeros((total, 3), np.int32)
    out[:, 0] = np.arange(total)
    with jax.numpy_dtype_promotion("standard"):
        out[:warmup, 1:] = np.asarray(build_schedule(warmup))
    out[warmup:, 1] = 2
    out[warmup - 1, 2] = 2
    return out


def one_chain(
    key: Array, walk: Walk, stages: Array, problem: Problem, priors: PriorSet, target: Array
) -> tuple[Walk, Chains]:
    """As many steps of a chain as there are stages (steps, 3), see `schedule`."""
    import blackjax
    from blackjax.adaptation.mass_matrix import (
        MassMatrixAdaptationState,
        WelfordAlgorithmState,
        mass_matrix_adaptation,
    )
    from blackjax.adaptation.step_size import DualAveragingAdaptationState, dual_averaging_adaptation
    from blackjax.mcmc.hmc import HMCState

    kernel: Any = blackjax.nuts.build_kernel()
    _, seen, spread_of = mass_matrix_adaptation()
    again, averaged, _ = dual_averaging_adaptation(target)

    def log_density(u: Array) -> Array:
        return log_posterior(u, problem, priors)

    def like(old: Walk, new: Walk) -> Walk:
        # counts of blackjax are weak or 64 bits wide, as they come
        return jax.tree.map(lambda a, b: jnp.asarray(b, a.dtype), old, new)

    def tune(walk: Walk, rate: Array) -> Walk:
        averaging = averaged(DualAveragingAdaptationState(*walk.averaging), rate)
        new = replace(walk, averaging=tuple(averaging), step_size=jnp.exp(averaging.log_step_size))
        return like(walk, new)

    def metric_of(walk: Walk) -> Any:
        return MassMatrixAdaptationState(walk.inverse_metric, WelfordAlgorithmState(*walk.spread))

    def learn(walk: Walk, rate: Array) -> Walk:
        state = metric_of(walk)
        return like(walk, replace(tune(walk, rate), spread=tuple(seen(state, walk.at[0]).wc_state)))

    def turn(walk: Walk) -> Walk:
        metric = spread_of(metric_of(walk))
        averaging = again(jnp.exp(walk.averaging[1]))
        step_size = jnp.exp(averaging.log_step_size)
        new = Walk(walk.at, tuple(averaging), tuple(metric.wc_state), step_size, metric.inverse_mass_matrix)
        return like(walk, new)

    def settle(walk: Walk) -> Walk:
        return replace(walk, step_size=jnp.exp(walk.averaging[1]))

    def step(walk: Walk, stage: Array) -> tuple[Walk, tuple[Array, Any]]:
        number, adapted, end = stage
        own, at = jax.random.fold_in(key, number), HMCState(*walk.at)
        state, info = kernel(own, at, log_density, walk.step_size, walk.inverse_metric, DEEPEST)
        rate = info.acceptance_rate
        moved = replace(walk, at=tuple(state))
        moved = jax.lax.switch(adapted, (tune, learn, lambda walk, _: walk), moved, rate)
        moved = jax.lax.switch(end, (lambda walk: walk, turn, settle), moved)
        kept = (
            info.is_divergent,
            info.num_trajectory_expansions,
            info.num_integration_steps,
            rate,
            info.energy,
        )
        return moved, (state.position, (state.logdensity, *kept))

    walk, (u, kept) = jax.lax.scan(step, walk, stages)
    psi = jax.vmap(lambda u: natural(components(u, problem.structure, priors)[0], problem.structure))(u)
    return walk, Chains(psi, *kept)


@partial(quick_jit, short=0)
def run_chains(
    key: Array, walks: Walk, stages: Array, problem: Problem, priors: PriorSet, target: Array
) -> tuple[Walk, Chains]:
    """`one_chain` for walks (chains, ...): mapped over, or one after the other where the backend says so."""
    keys = jax.random.split(key, walks.step_size.shape[0])

    def chain(key: Array, walk: Walk) -> tuple[Walk, Chains]:
        return one_chain(key, walk, stages, problem, priors, target)

    if problem.shared.sequential:
        return jax.lax.map(lambda pair: chain(*pair), (keys, walks))
    return jax.vmap(chain)(keys, walks)


def sample(
    key: Array,
    starts: tuple[np.ndarray, np.ndarray, np.ndarray],
    problem: Problem,
    priors: PriorSet,
    *,
    warmup: int,
    draws: int,
    target_accept: float = 0.9,
) -> Chains:
    """Chains from u (chains, k), its log densities and gradients: `warmup` steps of adaptation, then `draws`.

    blackjax promotes dtypes and ranks, which is let pass here.
    """
    count, k = starts[0].shape
    stages, target = schedule(warmup, draws), np.asarray(target_accept)
    zero, one = np.zeros(count), np.ones(count)
    # dual averaging begins at a step size of 1
    averaging = zero, zero, np.ones(count, np.int32), zero, np.full(count, np.log(10.0))
    spread = np.zeros((count, k)), np.zeros((count, k)), np.zeros(count, np.int32)
    walk = Walk(starts, averaging, spread, one, np.ones((count, k)))
    pieces = []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for begin in range(0, len(stages), PIECE):
            piece = stages[begin : begin + PIECE]
            walk, kept = run_chains(key, walk, piece, problem, priors, target)
            pieces.append(jax.tree.map(np.asarray, kept))
    return jax.tree.map(lambda *a: np.concatenate(a, axis=1)[:, warmup : warmup + draws], *pieces)
