"""Other people's optimisers on the criterion: BFGS and Newton's method for equations, of optimistix.

`profiled_deviance(θ, problem)` is a smooth function of θ without bounds; its gradient is exact.
"""

import jax
import jax.numpy as jnp
import optimistix as optx

import lmmjax as lj
from lmmjax.datasets import load

jax.config.update("jax_enable_x64", True)

PROBLEM = lj.lmm("Reaction ~ Days + (Days | Subject)", load("sleepstudy")).problem()
START = jnp.array([1.0, 0.0, 0.2])


@jax.jit
def minimise(start):
    """θ̂ by BFGS, polished by Newton's method on the gradient."""
    rough = optx.minimise(
        lj.profiled_deviance, optx.BFGS(1e-8, 1e-8), start, PROBLEM, max_steps=500, throw=False
    )
    gradient = jax.grad(lj.profiled_deviance)
    return optx.root_find(gradient, optx.Newton(1e-10, 1e-10), rough.value, PROBLEM, max_steps=50).value


if __name__ == "__main__":
    theta, fit = minimise(START), jax.jit(lj.estimate)(PROBLEM)
    print(f"theta: {theta}, by estimate {fit.theta}")
    assert abs(lj.profiled_deviance(theta, PROBLEM) - fit.deviance) < 1e-9
    assert jnp.max(jnp.abs(theta - fit.theta)) < 1e-6
