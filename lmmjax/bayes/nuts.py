"""The No-U-Turn sampler on the posterior of the variance parameters, all chains in one program.

Step size and metric are adapted by Stan's windows. The sampler is blackjax's.

Source: Hoffman & Gelman (2014), JMLR 15, 1593-1623.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit, record
from lmmjax.bayes.coordinates import PriorSet, components, natural
from lmmjax.bayes.target import log_posterior
from lmmjax.core import Problem

DEEPEST = 10
"""Most doublings of a trajectory."""


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


def one_chain(
    key: Array, start: Array, problem: Problem, priors: PriorSet, warmup: int, draws: int, target: Array
) -> Chains:
    """A chain from u = start (k,): `warmup` steps of adaptation, then `draws` steps."""
    import blackjax

    def log_density(u: Array) -> Array:
        return log_posterior(u, problem, priors)

    key_warm, key_run = jax.random.split(key)
    adaptation: Any = blackjax.window_adaptation(
        blackjax.nuts,
        log_density,
        target_acceptance_rate=target,
        adaptation_info_fn=lambda *_: None,
        max_num_doublings=DEEPEST,
    )
    (state, parameters), _ = adaptation.run(key_warm, start, warmup)
    kernel: Any = blackjax.nuts(log_density, **parameters)

    def step(state, key):
        state, info = kernel.step(key, state)
        parts, _ = components(state.position, problem.structure, priors)
        psi = natural(parts, problem.structure)
        kept = Chains(
            psi,
            state.logdensity,
            info.is_divergent,
            info.num_trajectory_expansions,
            info.num_integration_steps,
            info.acceptance_rate,
            info.energy,
        )
        return state, kept

    return jax.lax.scan(step, state, jax.random.split(key_run, draws))[1]


@partial(quick_jit, short=0, static_argnames=("warmup", "draws"))
def run_chains(
    key: Array, starts: Array, problem: Problem, priors: PriorSet, warmup: int, draws: int, target: Array
) -> Chains:
    """Chains from starts (chains, k): mapped over, or one after the other where the backend says so."""
    keys = jax.random.split(key, starts.shape[0])

    def chain(key, start):
        return one_chain(key, start, problem, priors, warmup, draws, target)

    if problem.shared.sequential:
        return jax.lax.map(lambda pair: chain(*pair), (keys, starts))
    return jax.vmap(chain)(keys, starts)


def sample(
    key: Array,
    starts: np.ndarray,
    problem: Problem,
    priors: PriorSet,
    *,
    warmup: int,
    draws: int,
    target_accept: float = 0.9,
) -> Chains:
    """`run_chains`; blackjax promotes dtypes and ranks, which is let pass here."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return run_chains(key, starts, problem, priors, warmup, draws, np.asarray(target_accept))
