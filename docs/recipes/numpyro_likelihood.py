"""The marginal likelihood of a mixed model inside a numpyro model: as a factor, and as a distribution.

b is integrated out exactly, so that NUTS moves in a handful of dimensions whatever the number of groups.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.stats import multivariate_normal
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

import lmmjax as lj
from lmmjax.datasets import load

jax.config.update("jax_enable_x64", True)

frame = load("sleepstudy")
model = lj.lmm("Reaction ~ Days + (Days || Subject)", frame)
x, y = model.design.x, jnp.asarray(model.frame.y)
codes = model.frame.random[0].codes
PROBLEM = model.problem()


def as_factor(problem):
    """β, the residual sd and both sds of the subjects, with priors on the scale of milliseconds."""
    beta = numpyro.sample("beta", dist.Normal(jnp.array([250.0, 0.0]), jnp.array([100.0, 50.0])).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(50.0))
    sds = numpyro.sample("sds", dist.HalfNormal(jnp.array([50.0, 20.0])).to_event(1))
    numpyro.factor("y", lj.loglik(problem, beta, sigma**2, sds / sigma))


class MixedNormal(dist.Distribution):
    """N(Xβ, σ²(I + ZDZᵀ)) with D = ΛΛᵀ: a vector of responses, and its random effects integrated out."""

    support = constraints.real_vector
    pytree_data_fields = ("beta", "sigma", "theta")

    def __init__(self, beta, sigma, theta):
        self.beta, self.sigma, self.theta = beta, sigma, theta
        super().__init__(batch_shape=(), event_shape=y.shape)

    def log_prob(self, value):
        return lj.loglik(model.problem(value), self.beta, self.sigma**2, self.theta)

    def sample(self, key, sample_shape=()):
        keys = jax.random.split(key, 2)
        b = jax.random.normal(keys[0], (*sample_shape, 18, 2)) * self.theta
        noise = jax.random.normal(keys[1], (*sample_shape, *y.shape))
        return x @ self.beta + self.sigma * (jnp.sum(x * b[..., codes, :], axis=-1) + noise)


def as_distribution(response=None):
    beta = numpyro.sample("beta", dist.Normal(jnp.array([250.0, 0.0]), jnp.array([100.0, 50.0])).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(50.0))
    sds = numpyro.sample("sds", dist.HalfNormal(jnp.array([50.0, 20.0])).to_event(1))
    numpyro.sample("y", MixedNormal(beta, sigma, sds / sigma), obs=response)


def explicit(beta, sigma, sds):
    """The same density, with the matrix V written out."""
    same = codes[:, None] == codes[None]
    v = sigma**2 * jnp.eye(len(y)) + same * ((x * sds**2) @ x.T)
    return multivariate_normal.logpdf(y, x @ beta, v)


if __name__ == "__main__":
    at = {"beta": jnp.array([251.0, 10.0]), "sigma": jnp.array(25.0), "sds": jnp.array([24.0, 6.0])}
    factor, _ = log_density(as_factor, (PROBLEM,), {}, at)
    whole, _ = log_density(as_distribution, (y,), {}, at)
    value = MixedNormal(at["beta"], at["sigma"], at["sds"] / at["sigma"]).log_prob(y)
    print(f"log density of the responses: {value:.6f}, written out {explicit(**at):.6f}")
    assert abs(factor - whole) < 1e-8
    assert abs(value - explicit(**at)) < 1e-8

    mcmc = MCMC(NUTS(as_factor), num_warmup=300, num_samples=500, progress_bar=False)
    mcmc.run(jax.random.key(0), PROBLEM)
    draws = mcmc.get_samples()
    slope = draws["beta"][:, 1]
    print(f"slope: {slope.mean():.2f} ± {slope.std():.2f}; by REML {model.fit().params['Days']:.2f}")
    # a posterior sd of 1.6 and some hundred effective draws
    assert abs(slope.mean() - model.fit().params["Days"]) < 0.5
