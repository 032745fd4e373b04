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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pandas as pd

import lmmjax as lj
from lmmjax.arrays import quick_jit
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
# a cross-validation at once. (`quick_jit` is `jax.jit` with options for programs that take longer to compile
# than to run.)


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

    def fitted(self, weights, keep, d):
        """Predictions, those for a typical group, and the variances between and within groups."""
        x = features(weights, d["t"])
        problem = lj.problem_from_arrays(d["y"], x, d["g"], keep=keep)
        fit = lj.estimate(problem)
        return lj.predict(problem, fit, x, d["g"]), x @ fit.beta, fit.psi[0], fit.psi[1]


class Plain:
    """No random effects: least squares."""

    def head(self, weights, keep, d):
        x = features(weights, d["t"])
        kept = x * keep[:, None]
        mean = x @ jnp.linalg.solve(kept.T @ x + 1e-8 * jnp.eye(x.shape[1]), kept.T @ d["y"])
        return mean, jnp.sum(keep * (d["y"] - mean) ** 2) / (jnp.sum(keep) - x.shape[1])

    def loss(self, weights, keep, d):
        return jnp.log(self.head(weights, keep, d)[1]) + penalty(weights)

    def fitted(self, weights, keep, d):
        mean, variance = self.head(weights, keep, d)
        return mean, mean, jnp.zeros_like(variance), variance


def log_density(residuals, member, between, within):
    """Joint normal log density (G,) of each group's residuals: covariance `within` I + `between` 11ᵀ."""
    n, total, squares = jnp.sum(member, axis=1), member @ residuals, member @ residuals**2
    quadratic = (squares - between / (within + n * between) * total**2) / within
    return -0.5 * (n * jnp.log(2 * jnp.pi * within) + jnp.log1p(n * between / within) + quadratic)


def trainer(model, g, steps=80):
    """Errors (2, n) and log densities of groups (G,), as a function of the weights' start, rows and data.

    The network is trained with the rows in `keep`; errors are those with the random effects and variances
    from `keep`, and from `known`.
    """
    optimiser = optax.adam(0.04)
    member = jnp.asarray(g == np.arange(g.max() + 1)[:, None], float)

    def one(weights, keep, known, y, t):
        d = {"y": y, "t": t, "g": g}

        def step(carry, _):
            weights, state = carry
            slope = jax.grad(model.loss)(weights, keep, d)
            updates, state = optimiser.update(slope, state)
            return (optax.apply_updates(weights, updates), state), None

        weights = jax.lax.scan(step, (weights, optimiser.init(weights)), length=steps)[0][0]
        predicted, typical, between, within = jax.vmap(lambda rows: model.fitted(weights, rows, d))(
            jnp.stack([keep, known])
        )
        return d["y"] - predicted, log_density(d["y"] - typical[0], member, between[0], within[0])

    return quick_jit(jax.vmap(one, (None, 0, 0, None, None)))


def compared(trainers, y, t, g, folds=5, few=8):
    """Root mean square errors of held-out rows, and log densities of held-out groups, by network."""
    rng = np.random.default_rng(0)
    n, groups = len(y), int(g.max()) + 1
    y, t = (jnp.asarray((a - a.mean(0)) / a.std(0)) for a in (y, t))
    rows, fold = rng.permutation(np.arange(n) % folds), rng.permutation(np.arange(groups) % folds)
    keep = np.concatenate([by != k for by in (rows, fold[g]) for k in range(folds)]).reshape(-1, n)
    order = np.array([np.sum(g[:i] == g[i]) for i in range(n)])
    known = np.concatenate([keep[:folds], keep[folds:] | (order < few)])
    weights = start(jax.random.key(0), t.shape[1])
    errors, densities = {}, {}
    for name, train in trainers.items():
        error, density = train(weights, jnp.asarray(keep), jnp.asarray(known), y, t)
        squares = np.asarray(error) ** 2
        held_out = [squares[:folds, 0][~keep[:folds]], squares[folds:, 0][~keep[folds:]]]
        held_out.append(squares[folds:, 1][~known[folds:]])
        errors[name] = [np.sqrt(np.mean(e)) for e in held_out]
        densities[name] = np.asarray(density)[folds + fold, np.arange(groups)]
    columns = ["rows", "groups", f"groups, {few} rows known"]
    return pd.DataFrame.from_dict(errors, "index", columns=columns), pd.DataFrame(densities)


def paired(densities):
    """Mean log density of a held-out group, and the difference with its standard error."""
    gain = densities["mixed"] - densities["plain"]
    se = gain.std() / np.sqrt(len(gain))
    return pd.Series({**densities.mean(), "difference": gain.mean(), "se": se, "share": np.mean(gain > 0)})


# %% [markdown]
# **Measured.** Exam scores at 16 of at most 30 pupils in each of 65 schools, from the reading score at 11 and
# the sex of the pupil.

# %%
exam = load("exam").groupby("school", observed=True).head(30)
school = pd.factorize(exam["school"])[0]
trainers = {"mixed": trainer(Mixed(), school), "plain": trainer(Plain(), school)}
pupils = np.column_stack([exam["standLRT"], exam["sex"] == "F"]).astype(float)
schools, school_densities = compared(trainers, exam["normexam"].to_numpy(float), pupils, school)
schools.round(3)

# %% [markdown]
# **Simulated**, for as many rows in groups of the same sizes, so that the compiled programs serve again. The
# covariates differ between groups, a smooth function of them is to be learned, and groups have levels of
# their own, which a network without random effects takes for part of the function.

# %%
rng = np.random.default_rng(5)
t = 0.7 * rng.normal(size=(65, 2))[school] + 0.7 * rng.normal(size=(len(school), 2))
level = rng.normal(size=65)[school]
y = np.sin(2 * t[:, 0]) + t[:, 0] * t[:, 1] + level + 0.5 * rng.normal(size=len(school))
simulated, simulated_densities = compared(trainers, y, t, school)
simulated.round(3)

# %% [markdown]
# Errors are in standard deviations of the response. For rows held out of known groups the network with random
# effects is better, and once a few rows of a new group are known it uses them, without further training.
#
# For groups of which nothing is known squared error does not tell the two apart in the schools, and hardly in
# the simulation: b = 0 there, both predict a typical group, and a network without random effects estimates
# the mean without bias, if less efficiently. What it gets wrong is how the pupils of a new school vary
# *together*. The measure for that is the joint log density of all observations of a held-out group: normal
# with covariance σ²(I + ZDZᵀ), and for the plain network σ²I, every parameter from the training data.

# %%
gains = pd.DataFrame({"schools": paired(school_densities), "simulated": paired(simulated_densities)}).T
gains.round(2)

# %% [markdown]
# `difference` is the mean over held-out groups, `se` its standard error from the 65 paired differences, and
# `share` the part of the groups in which the mixed model is better.

# %%
for errors in (schools, simulated):
    better = errors.loc["mixed"] < errors.loc["plain"]
    assert better[["rows", "groups, 8 rows known"]].all()
    assert errors.loc["mixed", "groups"] < 1.03 * errors.loc["plain", "groups"]
assert (gains["difference"] > 2 * gains["se"]).all()

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
# without each subject, and with all of them
keeps = jnp.asarray(subject[None] != np.arange(19)[:, None])


def design(power):
    return jnp.stack([jnp.ones_like(days), ((days + 1.0) / 10.0) ** power], axis=1)


def criteria(powers):
    """Error of the mean curve for held-out subjects, and −2 log-likelihood, each at a power of its own."""

    def fitted(keep, power):
        x = design(power)
        fit = lj.estimate(lj.problem_from_arrays(reaction, x, subject, x, keep=keep, reml=False))
        return jnp.sum(jnp.where(keep, 0.0, (reaction - x @ fit.beta) ** 2)), fit.deviance

    squares, deviances = jax.vmap(fitted)(keeps, powers[jnp.array([0] * 18 + [1])])
    return jnp.stack([jnp.sqrt(jnp.sum(squares) / len(days)), deviances[18]])


@quick_jit
def descended(powers):
    """Powers after 40 steps of Adam on each criterion, and the criteria on the way."""
    optimiser = optax.adam(0.05)

    def step(carry, _):
        powers, state = carry
        values, pull = jax.vjp(criteria, powers)
        updates, state = optimiser.update(pull(jnp.ones(2))[0], state)
        return (optax.apply_updates(powers, updates), state), values

    (powers, _), path = jax.lax.scan(step, (powers, optimiser.init(powers)), length=40)
    return powers, path


powers, path = descended(jnp.ones(2))
print(f"by held-out subjects: power {powers[0]:.2f}, error {path[0, 0]:.2f} → {path[-1, 0]:.2f} ms")
print(f"by likelihood: power {powers[1]:.2f}, −2 log-likelihood {path[0, 1]:.2f} → {path[-1, 1]:.2f}")
