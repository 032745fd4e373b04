"""One lane of a batch: a few steps of its descent, and the record of the fit at its end."""

from __future__ import annotations

import dataclasses

import jax

from lmmjax.arrays import Array
from lmmjax.core import Estimate, Problem
from lmmjax.core.criterion import evaluate
from lmmjax.core.estimate import Report, entries, finish, objective, snap
from lmmjax.core.start import moment_start
from lmmjax.optimize import NewtonState, newton

RESUME, RENEW, START = range(3)
"""Where `newton_steps` begins: where the state is; at its x, in new coordinates; at the moment start."""


def newton_steps(
    problem: Problem, state: NewtonState, begin: Array, max_iter: Array, early: Array
) -> NewtonState:
    """Newton steps from a state; `begin` says how, the same for all lanes. See `newton` for `early`.

    Keeps nothing but the point: for many lanes, a few steps at a time.
    """

    def resume() -> tuple:
        return state.x, state.context, state.trial, state.planned

    def renew() -> tuple:
        x, pivoting = problem.structure.pivoted(entries(problem, state.x, state.context))
        return x, pivoting, x, x

    def start() -> tuple:
        x, pivoting = moment_start(problem)
        return x, pivoting, x, x

    x, pivoting, trial, planned = jax.lax.switch(begin, (resume, renew, start))
    state = dataclasses.replace(state, x=x, context=pivoting, trial=trial, planned=planned)

    def bare(theta, pivoting):
        return (*objective(problem, theta, pivoting)[:3], ())

    return newton(
        bare,
        x,
        pivoting,
        max_iter=max_iter,
        projections=(snap(problem),),
        columns=problem.structure.columns,
        early=early,
        resume=state,
    )


def conclude(problem: Problem, state: NewtonState, bound: Array) -> Estimate:
    """`finish` at the end of a descent, with the certificate found there: a decrement below `bound`."""
    theta, pivoting = state.x, state.context
    split = evaluate(problem.shared, entries(problem, theta, pivoting), problem.response, problem.reml)
    return finish(problem, theta, pivoting, Report(state.status, state.n_iter), split, bound)
