"""A network in front of a mixed model, trained end to end by REML with optax.

The last hidden layer of a small network gives the columns of X; groups have random intercepts and slopes. The
loss is the REML criterion at its optimum: β, b and all variances are profiled out in every step, so that the
network is all there is to train.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lmmjax as lj

jax.config.update("jax_enable_x64", True)

GROUPS, ROWS = 20, 12
CODES = np.repeat(np.arange(GROUPS), ROWS)


def data(key):
    """Responses that are smooth in one covariate, with a level and a slope of every group."""
    keys = jax.random.split(key, 3)
    t = jax.random.uniform(keys[0], (GROUPS * ROWS,), minval=-2.0, maxval=2.0)
    b = jax.random.normal(keys[1], (GROUPS, 2)) * jnp.array([2.0, 0.5])
    noise = 0.3 * jax.random.normal(keys[2], t.shape)
    return t, jnp.sin(2.0 * t) + b[CODES, 0] + b[CODES, 1] * t + noise


def features(weights, t):
    """(n, 6): an intercept, t, and four of a layer."""
    return jnp.column_stack([jnp.ones_like(t), t, jnp.tanh(t[:, None] * weights["slope"] + weights["bias"])])


def criterion(weights, t, y):
    """REML criterion per row; the ridge keeps the features apart."""
    x = features(weights, t)
    fit = lj.estimate(lj.problem_from_arrays(y, x, CODES, x[:, :2]))
    ridge = sum(jnp.sum(w**2) for w in jax.tree.leaves(weights))
    return (fit.deviance + 0.1 * ridge) / len(y)


def train(key, steps=60):
    """The losses of the steps, and the weights."""
    t, y = data(key)
    weights = {"slope": jnp.array([1.0, -1.5, 2.0, -2.5]), "bias": jnp.array([-1.0, -0.3, 0.3, 1.0])}
    optimiser = optax.adam(0.05)

    @jax.jit
    def step(carry, _):
        weights, state = carry
        loss, slope = jax.value_and_grad(criterion)(weights, t, y)
        updates, state = optimiser.update(slope, state)
        return (optax.apply_updates(weights, updates), state), loss

    (weights, _), losses = jax.lax.scan(step, (weights, optimiser.init(weights)), length=steps)
    return losses, weights, (t, y)


if __name__ == "__main__":
    losses, weights, (t, y) = train(jax.random.key(0))
    x = features(weights, t)
    fit = jax.jit(lambda x: lj.estimate(lj.problem_from_arrays(y, x, CODES, x[:, :2])))(x)
    print(f"criterion per row: {losses[0]:.4f} at the start, {losses[-1]:.4f} after {len(losses)} steps")
    print(f"residual sd: {jnp.sqrt(fit.sigma2):.3f} (true 0.3)")
    assert losses[-1] < losses[0] - 0.05
    assert abs(jnp.sqrt(fit.sigma2) - 0.3) < 0.05
