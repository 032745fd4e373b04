"""A log density for blackjax: log standard deviations given the data, β and b integrated out.

The restricted likelihood is the likelihood of the variance parameters with β integrated out under a flat
prior. `Fit.posterior` does all this and more; here is how to do it by hand.
"""

import blackjax
import jax
import jax.numpy as jnp

import lmmjax as lj
from lmmjax.datasets import load

jax.config.update("jax_enable_x64", True)

model = lj.lmm("Reaction ~ Days + (Days || Subject)", load("sleepstudy"))
PROBLEM = model.problem()
SCALES = jnp.array([50.0, 20.0, 50.0])


def log_density(log_sds):
    """Of the logs of sd(Intercept), sd(Days) and σ: restricted likelihood, half-normal priors, Jacobian."""
    sds = jnp.exp(log_sds)
    prior = -0.5 * jnp.sum((sds / SCALES) ** 2)
    return lj.restricted_loglik(PROBLEM, sds[2] ** 2, sds[:2] / sds[2]) + prior + jnp.sum(log_sds)


def sample(key, warmup=300, draws=500):
    """Standard deviations (draws, 3)."""
    keys = jax.random.split(key, 2)
    start = jnp.log(jnp.array([25.0, 6.0, 25.0]))
    adaptation = blackjax.window_adaptation(blackjax.nuts, log_density)
    (state, tuned), _ = adaptation.run(keys[0], start, num_steps=warmup)
    step = blackjax.nuts(log_density, **tuned).step

    def one(state, key):
        state, _ = step(key, state)
        return state, jnp.exp(state.position)

    return jax.lax.scan(one, state, jax.random.split(keys[1], draws))[1]


if __name__ == "__main__":
    draws = jax.jit(sample)(jax.random.key(0))
    fit = model.fit()
    for name, column, reml in zip(
        ("sd(Intercept)", "sd(Days)", "sigma"), draws.T, fit.varcorr()["sdcor"], strict=True
    ):
        print(f"{name}: {jnp.median(column):.2f}, by REML {reml:.2f}")
        assert abs(jnp.median(column) - reml) < 0.25 * reml
