"""L-BFGS for many parameters, by optax."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array

MOST = 500
"""Steps."""


def lbfgs(function: Callable[[Array], Array], x: Array) -> Array:
    """The point x (m,) at which L-BFGS with a zoom line search leaves a smooth function.

    It stops when max |∂f/∂x| is below √eps · (1 + |f|) and certifies nothing: follow it
    with a Newton step.

    Source: Liu & Nocedal (1989), doi:10.1007/BF01589116.
    """
    import optax

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(function)
    eps = float(jnp.finfo(x.dtype).eps) ** 0.5

    def step(carry):
        x, state, i, _ = carry
        value, gradient = value_and_grad(x, state=state)
        updates, state = solver.update(gradient, state, x, value=value, grad=gradient, value_fn=function)
        bound = eps * (1.0 + jnp.abs(value))
        return optax.apply_updates(x, updates), state, i + 1, jnp.max(jnp.abs(jnp.asarray(gradient))) > bound

    def unfinished(carry):
        return carry[3] & (carry[2] < MOST)

    # optax counts in integers of two sizes
    with jax.numpy_dtype_promotion("standard"):
        return jax.lax.while_loop(unfinished, step, (x, solver.init(x), 0, jnp.asarray(True)))[0]
