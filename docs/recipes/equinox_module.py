"""A mixed-model head as an equinox module: a network whose last layer has random effects.

`MixedModel.loss` is what is minimised; `MixedModel.predict` gives predictions with and without what a group's
own rows tell of it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import lmmjax as lj

jax.config.update("jax_enable_x64", True)

GROUPS, ROWS = 15, 10


class MixedModel(eqx.Module):
    """Features by a network; coefficients common to all, and an intercept of every group."""

    network: eqx.nn.MLP

    def __init__(self, inputs: int, width: int, key):
        self.network = eqx.nn.MLP(
            inputs, 3, width, 1, activation=jnp.tanh, final_activation=jnp.tanh, key=key
        )

    def features(self, inputs):
        h = jax.vmap(self.network)(inputs)
        return jnp.concatenate([jnp.ones((len(h), 1), h.dtype), h], axis=1)

    def fit(self, inputs, y, groups):
        problem = lj.problem_from_arrays(y, self.features(inputs), groups)
        return problem, lj.estimate(problem)

    def loss(self, inputs, y, groups):
        weights = jax.tree.leaves(eqx.filter(self.network, eqx.is_array))
        return (self.fit(inputs, y, groups)[1].deviance + 0.1 * sum(jnp.sum(w**2) for w in weights)) / len(y)

    def predict(self, inputs, y, groups, new_inputs, new_groups):
        """For new rows of groups in the data, or of none (−1)."""
        problem, fit = self.fit(inputs, y, groups)
        return lj.predict(problem, fit, self.features(new_inputs), new_groups)


def data(key):
    keys = jax.random.split(key, 3)
    groups = np.repeat(np.arange(GROUPS), ROWS)
    inputs = jax.random.normal(keys[0], (len(groups), 2))
    y = jnp.tanh(inputs[:, 0] * inputs[:, 1]) + 2.0 * jax.random.normal(keys[1], (GROUPS,))[groups]
    return inputs, y + 0.2 * jax.random.normal(keys[2], y.shape), groups


def train(key, steps=80):
    """The losses, the model, and the data."""
    inputs, y, groups = data(key)
    model = MixedModel(2, 8, jax.random.key(1))
    optimiser = optax.adam(0.03)
    state = optimiser.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state):
        loss, slope = eqx.filter_value_and_grad(lambda m: m.loss(inputs, y, groups))(model)
        updates, state = optimiser.update(slope, state)
        return eqx.apply_updates(model, updates), state, loss

    losses = []
    for _ in range(steps):
        model, state, loss = step(model, state)
        losses.append(float(loss))
    return losses, model, (inputs, y, groups)


if __name__ == "__main__":
    losses, model, (inputs, y, groups) = train(jax.random.key(0))
    both, codes = jnp.tile(inputs, (2, 1)), np.append(groups, np.full(len(groups), -1))
    own, population = jnp.split(jax.jit(lambda new: model.predict(inputs, y, groups, new, codes))(both), 2)
    print(f"criterion per row: {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")
    with_b, without = jnp.std(y - own), jnp.std(y - population)
    print(f"root mean square error: {with_b:.3f} with random effects, {without:.3f} without")
    assert losses[-1] < losses[0] - 0.1
    assert with_b < 0.5 * without
