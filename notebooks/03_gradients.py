# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gradients through a fit
#
# A fit of lmmjax is a differentiable function: of the responses, of X and Z, of the weights. So we can ask
# what every observation does to an estimate, and put a mixed model on top of a network and train both by
# REML.

# %%
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pandas as pd

import lmmjax as lj
from lmmjax.datasets import load

jax.config.update("jax_enable_x64", True)
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## What an observation does
#
# Reaction times of 18 subjects over ten days without sleep. `sensitivity` has the derivative of every
# estimate in every response and weight, each estimate by one reverse pass through the fit.

# %%
sleep = load("sleepstudy")
fit = lj.lmm("Reaction ~ Days + (Days | Subject)", sleep).fit()
s = fit.sensitivity()

fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
for ax, name in zip(axes, ["Days", "sd_Days|Subject"], strict=True):
    grid = s.y[name].to_numpy().reshape(18, 10)
    most = np.abs(grid).max()
    image = ax.pcolormesh(np.arange(10), np.arange(18), grid, cmap="RdBu_r", vmin=-most, vmax=most)
    ax.set(title=f"∂ {name} / ∂ y", xlabel="day", yticks=np.arange(18))
    ax.set_yticklabels(sleep["Subject"].unique())
    fig.colorbar(image, ax=ax)
plt.show()

# %% [markdown]
# In a balanced design the slope owes the same to the days of every subject: it is their mean. The standard
# deviation of slopes rises where subjects with steep slopes get steeper. A derivative predicts what a
# change does:

# %%
y = fit.y.copy()
y[9] += 10.0
both = pd.DataFrame(
    {"refit": fit.refit(y).params - fit.params, "derivative × 10 ms": 10.0 * s.y.iloc[9][fit.params.index]}
)
both.round(3)

# %% [markdown]
# Derivatives in the weights of whole subjects give standard errors that do not rest on normal random
# effects or errors (infinitesimal jackknife). Here they say much the same as the model.

# %%
s.se[["model", "group"]].round(3)

# %% [markdown]
# ## A network with a mixed-model head
#
# Two hidden layers give three features; their coefficients are fixed effects, and groups have random ones.
# The loss is the REML criterion at its optimum, so every step of the optimiser contains a whole fit, and
# its gradient goes through it. The competitor is the same network, from the same start, with the same
# penalty and the same optimiser, whose head is least squares: it knows nothing of groups.
#
# `keep` leaves rows out of a fit without changing a shape, so that one compiled program trains all folds of
# a cross-validation at once.


# %%
def start(key, inputs, width=8, features=3):
    keys = jax.random.split(key, 3)
    return {
        "first": jax.random.normal(keys[0], (inputs, width)),
        "bias": jax.random.normal(keys[1], (width,)),
        "second": jax.random.normal(keys[2], (width, features)) / np.sqrt(width),
    }


def features(weights, t):
    h = jnp.tanh(jnp.tanh(t @ weights["first"] + weights["bias"]) @ weights["second"])
    return jnp.concatenate([jnp.ones((len(t), 1)), h], axis=1)


def penalty(weights):
    return 0.02 * sum(jnp.sum(w**2) for w in jax.tree.leaves(weights))


class Mixed:
    """Random intercepts of groups; the REML criterion."""

    def loss(self, weights, keep, d):
        problem = lj.problem_from_arrays(d["y"], features(weights, d["t"]), d["g"], keep=keep)
        return lj.estimate(problem).deviance / jnp.sum(keep) + penalty(weights)

    def predict(self, weights, keep, d):
        x = features(weights, d["t"])
        problem = lj.problem_from_arrays(d["y"], x, d["g"], keep=keep)
        return lj.predict(problem, lj.estimate(problem), x, d["g"])


class Plain:
    """No random effects: least squares."""

    def head(self, weights, keep, d):
        x = features(weights, d["t"])
        kept = x * keep[:, None]
        return x @ jnp.linalg.solve(kept.T @ x + 1e-8 * jnp.eye(x.shape[1]), kept.T @ d["y"])

    def loss(self, weights, keep, d):
        squares = keep * (d["y"] - self.head(weights, keep, d)) ** 2
        return jnp.log(jnp.sum(squares) / jnp.sum(keep)) + penalty(weights)

    predict = head


def trainer(model, d, steps=150):
    """Weights after `steps` of Adam, as a function of their start and of keep (folds, n)."""
    optimiser = optax.adam(0.03)

    def one(weights, keep):
        def step(carry, _):
            weights, state = carry
            slope = jax.grad(model.loss)(weights, keep, d)
            updates, state = optimiser.update(slope, state)
            return (optax.apply_updates(weights, updates), state), None

        return jax.lax.scan(step, (weights, optimiser.init(weights)), length=steps)[0][0]

    return jax.jit(jax.vmap(one, (None, 0)))


def compared(d, folds, few=8, seeds=2):
    """Root mean square errors of held-out rows: of groups known, unknown, and little known."""
    rng = np.random.default_rng(0)
    n, groups = len(d["y"]), int(d["g"].max()) + 1
    by_row, by_group = (
        rng.permutation(np.arange(n) % folds),
        rng.permutation(np.arange(groups) % folds)[d["g"]],
    )
    keep = np.concatenate([by != k for by in (by_row, by_group) for k in range(folds)]).reshape(2 * folds, n)
    order = np.array([np.sum(d["g"][:i] == d["g"][i]) for i in range(n)])
    known = keep[folds:] | (order < few)
    rows = []
    for name, model in (("mixed", Mixed()), ("plain", Plain())):
        train = trainer(model, d)
        predict = jax.jit(jax.vmap(lambda w, k, model=model: model.predict(w, k, d)))
        for seed in range(seeds):
            weights = start(jax.random.key(seed), d["t"].shape[1])
            weights = train(weights, jnp.asarray(keep, float))
            first = np.asarray(predict(weights, jnp.asarray(keep, float)))
            same = jax.tree.map(lambda w: w[folds:], weights)
            later = np.asarray(predict(same, jnp.asarray(known, float)))
            errors = [(first[:folds], keep[:folds]), (first[folds:], keep[folds:]), (later, known)]
            squares = [np.mean(((np.asarray(d["y"]) - p) ** 2)[~k]) for p, k in errors]
            rows.append([name, *np.sqrt(squares)])
    columns = ["network", "rows", "groups", f"groups, {few} rows known"]
    return pd.DataFrame(rows, columns=columns).groupby("network").mean().round(3)


def data(y, t, g):
    """Standardised arrays."""
    return {"y": jnp.asarray((y - y.mean()) / y.std()), "t": jnp.asarray((t - t.mean(0)) / t.std(0)), "g": g}


# %% [markdown]
# **Simulated.** Thirty groups of 4 to 16 rows; the covariates differ between groups, a smooth function of
# them is to be learned, and groups have levels of their own, which a network without random effects takes
# for part of the function.

# %%
rng = np.random.default_rng(5)
g = np.repeat(np.arange(30), rng.integers(4, 17, 30))
t = 0.7 * rng.normal(size=(30, 2))[g] + 0.7 * rng.normal(size=(len(g), 2))
level = 1.5 * rng.normal(size=30)[g]
y = np.sin(2 * t[:, 0]) + t[:, 0] * t[:, 1] + level + 0.4 * rng.normal(size=len(g))
begin = time.perf_counter()
simulated = compared(data(y, t, g), folds=5)
print(f"40 networks trained in {time.perf_counter() - begin:.0f} s")
simulated.head()

# %% [markdown]
# **Measured.** Follicles in the ovaries of eleven mares, over their cycles. Mares differ in level, and the
# number goes up and down over a cycle.

# %%
ovary = load("ovary")
mares = compared(
    data(ovary["follicles"].to_numpy(float), ovary[["Time"]].to_numpy(float), pd.factorize(ovary["Mare"])[0]),
    folds=11,
)
mares.head()

# %% [markdown]
# Errors are in standard deviations of the response. For rows held out of known groups, the network with
# random effects is far better. For groups never seen both can only predict a typical group; the mixed model
# has the better function, because it does not take levels for it. That gains much where covariates
# differ between groups, and nothing that can be told from chance for the mares, all of which were measured
# over the same cycle. As soon as a few rows of a new group are known, the mixed model uses them, without
# further training.

# %%
assert (simulated.loc["mixed"] < simulated.loc["plain"]).all()
better = mares.loc["mixed"] < mares.loc["plain"]
assert better["rows"]
assert better["groups, 8 rows known"]

# %% [markdown]
# ## The scale of a feature, chosen by gradient
#
# Is reaction time linear in days? Let the feature be a power of them. The power is chosen twice: by the
# likelihood, and by the exact error for held-out subjects, for which eighteen models, one without each
# subject, are fitted at every step, with variances of their own, and differentiated.

# %%
days = jnp.asarray(sleep["Days"].to_numpy(float))
reaction = jnp.asarray(sleep["Reaction"].to_numpy(float))
subject = pd.factorize(sleep["Subject"])[0]
without = jnp.asarray(subject[None] != np.arange(18)[:, None])


def design(power):
    return jnp.stack([jnp.ones_like(days), ((days + 1.0) / 10.0) ** power], axis=1)


def held_out_error(power):
    """Root mean square error of the mean curve, each subject predicted from the others."""
    x = design(power)

    def squares(keep):
        beta = lj.estimate(lj.problem_from_arrays(reaction, x, subject, x, keep=keep)).beta
        return jnp.sum(jnp.where(keep, 0.0, (reaction - x @ beta) ** 2))

    return jnp.sqrt(jnp.sum(jax.vmap(squares)(without)) / len(days))


def deviance(power):
    """−2 log-likelihood, which unlike the REML criterion compares fixed effects."""
    x = design(power)
    return lj.estimate(lj.problem_from_arrays(reaction, x, subject, x, reml=False)).deviance


@jax.jit
def descended(powers):
    """Powers after 60 steps of Adam on each criterion, and the criteria on the way."""
    optimiser = optax.adam(0.05)

    def both(powers):
        return jnp.stack([held_out_error(powers[0]), deviance(powers[1])])

    def step(carry, _):
        powers, state = carry
        values, pull = jax.vjp(both, powers)
        updates, state = optimiser.update(pull(jnp.ones(2))[0], state)
        return (optax.apply_updates(powers, updates), state), values

    (powers, _), path = jax.lax.scan(step, (powers, optimiser.init(powers)), length=60)
    return powers, path


powers, path = descended(jnp.ones(2))
print(f"by held-out subjects: power {powers[0]:.2f}, error {path[0, 0]:.2f} → {path[-1, 0]:.2f} ms")
print(f"by likelihood: power {powers[1]:.2f}, −2 log-likelihood {path[0, 1]:.2f} → {path[-1, 1]:.2f}")
