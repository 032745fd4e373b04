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
# # From a fit to a posterior
#
# Four operators made five sheets of paper each, and the brightness of every sheet was measured. How much do
# operators differ? Four are few, so the answer depends on how the uncertainty about their variance is carried
# along. This notebook draws from the posterior, checks the draws by quadrature and by a second sampler, shows
# what an improper prior does, and goes on to predictions and sensitivity with reaction times of 18 subjects.

# %%
import warnings

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lmmjax import lmm
from lmmjax.bayes import LKJ, HalfNormal, InverseGamma
from lmmjax.datasets import load

plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Paper brightness
#
# The data are those of Faraway (2002), *Practical Regression and Anova using R*, section 16.1.

# %%
sheets = {
    "a": [59.8, 60.0, 60.8, 60.8, 59.8],
    "b": [59.8, 60.2, 60.4, 59.9, 60.0],
    "c": [60.7, 60.7, 60.5, 60.9, 60.3],
    "d": [61.0, 60.8, 60.6, 60.5, 60.5],
}
pulp = pd.DataFrame([(b, o) for o, values in sheets.items() for b in values], columns=["bright", "operator"])
fit = lmm("bright ~ 1 + (1 | operator)", pulp).fit()
fit.varcorr()

# %%
post = fit.posterior(jax.random.key(1))
print(post)
post.summary().round(3)

# %% [markdown]
# The priors that were not given are defaults, on the scale of the response:

# %%
pd.Series(post.priors, name="prior").to_frame()

# %% [markdown]
# ## Is it right?
#
# With four balanced groups the posterior of the two standard deviations can be written down. With λ = σ² +
# 5τ² and the flat prior of the mean integrated out,
#
# $$\log p(y \mid \tau, \sigma) = -\tfrac12\left[16 \log\sigma^2 + \frac{\mathrm{SS}_w}{\sigma^2}
# + 3\log\lambda + \frac{\mathrm{SS}_b}{\lambda}\right] + \text{constant},$$
#
# so a grid gives the exact answer. A Gibbs sampler, which draws the operators' effects along with everything
# else and shares no likelihood code with NUTS, is a third opinion.

# %%
y = np.array(list(sheets.values()))
within, between = np.sum((y - y.mean(1, keepdims=True)) ** 2), 5 * np.sum((y.mean(1) - y.mean()) ** 2)
scale = y.std(ddof=1)
log_tau, log_sigma = np.linspace(-9, 3, 1201)[:, None], np.linspace(-2.5, 0.8, 331)[None, :]
tau, sigma = np.exp(log_tau), np.exp(log_sigma)
lam = sigma**2 + 5 * tau**2
log_density = -0.5 * (16 * np.log(sigma**2) + within / sigma**2 + 3 * np.log(lam) + between / lam)
log_density = log_density - 2 * np.log1p((tau / scale) ** 2 / 3) - 2 * np.log1p((sigma / scale) ** 2 / 3)
weight = np.exp(log_density - log_density.max() + log_tau + log_sigma)
weight /= weight.sum()

gibbs = fit.posterior(jax.random.key(2), method="gibbs", draws=5000)
pd.DataFrame(
    {
        "quadrature": [np.sum(weight * tau), np.sum(weight * sigma)],
        "NUTS": post.summary()["mean"].iloc[1:].to_numpy(),
        "± NUTS": post.summary()["mcse"].iloc[1:].to_numpy(),
        "Gibbs": gibbs.summary()["mean"].iloc[1:].to_numpy(),
        "± Gibbs": gibbs.summary()["mcse"].iloc[1:].to_numpy(),
    },
    index=["operator sd", "sigma"],
).round(4)

# %%
fig, ax = plt.subplots(figsize=(6, 3))
density = weight.sum(1) / (tau[:, 0] * (log_tau[1, 0] - log_tau[0, 0]))
ax.hist(post.values[..., 1].ravel(), bins=80, range=(0, 1.5), density=True, color="0.8", label="NUTS")
ax.hist(
    gibbs.values[..., 1].ravel(),
    bins=80,
    range=(0, 1.5),
    density=True,
    histtype="step",
    color="C1",
    label="Gibbs",
)
ax.plot(tau[:, 0], density, color="C0", label="quadrature")
ax.set(xlim=(0, 1.5), xlabel="sd between operators", yticks=[])
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## A prior without a posterior
#
# The density 1/σ² for both variances is a default elsewhere. Near zero variance between operators the
# likelihood is positive and 1/σ² does not integrate, so there is nothing to sample from. We are warned, and
# see why: every chain drifts to zero, and the interval of the mean becomes that of a model without operators.

# %%
improper = {"sd": InverseGamma(0, 0), "sigma": InverseGamma(0, 0)}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    wrong = fit.posterior(jax.random.key(0), improper, method="gibbs", draws=10_000, warmup=3000)
for warning in caught:
    print(warning.message, end="\n\n")

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
for chain in range(4):
    left.plot(np.log10(wrong.values[chain, ::20, 1]), lw=0.7)
    right.plot(np.log10(post.values[chain, ::2, 1]), lw=0.7)
left.set(title="1/σ²", xlabel="draw / 20", ylabel="log₁₀ of the operator sd")
right.set(title="half-t, the default", xlabel="draw / 2", ylim=(-3, 1))
plt.show()

pd.concat({"1/σ²": wrong.summary().loc["Intercept"], "default": post.summary().loc["Intercept"]}, axis=1).loc[
    ["mean", "lower", "upper"]
].round(2)

# %% [markdown]
# ## Reaction times
#
# Subjects differ in their reaction time at the start and in how much it grows with every day of little sleep.

# %%
sleepstudy = load("sleepstudy")
fit = lmm("Reaction ~ Days + (Days | Subject)", sleepstudy).fit()
post = fit.posterior(jax.random.key(3))
post.summary().round(2)

# %% [markdown]
# R̂ is 1.00 and 4,000 draws are worth about 4,000 independent ones: fixed and random effects are integrated
# out before sampling, four variance parameters are left. Intervals by profile likelihood, and posterior:

# %%
profile = fit.conf_int(method="profile", which="all")
pd.concat({"profile": profile, "posterior": post.summary()[["lower", "upper"]]}, axis=1).round(2)

# %% [markdown]
# ## Predictions
#
# Subject 308 on days 0 to 12, and somebody who was not in the study: random effects of a new subject are
# drawn from their distribution, at every draw of its parameters.

# %%
days = np.arange(13)
new = pd.DataFrame({"Days": np.tile(days, 2), "Subject": np.repeat([308, 999], len(days))})
drawn = post.posterior_predictive(jax.random.key(4), new).reshape(-1, len(new))
lower, median, upper = np.quantile(drawn, [0.05, 0.5, 0.95], axis=0).reshape(3, 2, -1)

fig, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for k, (ax, title) in enumerate(zip(axes, ["subject 308", "a new subject"], strict=True)):
    ax.fill_between(days, lower[k], upper[k], color="0.85")
    ax.plot(days, median[k], color="C0")
    ax.set(title=title, xlabel="days", ylabel="" if k else "reaction time, ms")
own = sleepstudy[sleepstudy["Subject"] == 308]
axes[0].plot(own["Days"], own["Reaction"], "ko", ms=3)
axes[1].plot(sleepstudy["Days"], sleepstudy["Reaction"], "k.", ms=2)
plt.show()

# %% [markdown]
# `groups="new"` replicates the whole study with other subjects. Its 90 % intervals should hold about 90 % of
# what was observed.

# %%
replicated = post.posterior_predictive(jax.random.key(5), groups="new").reshape(-1, len(sleepstudy))
low, high = np.quantile(replicated, [0.05, 0.95], axis=0)
print(f"{np.mean((fit.y >= low) & (fit.y <= high)):.0%} of the observations")

# %% [markdown]
# ## Would another prior change the answer?
#
# The same draws, reweighted: no new sampling. `k` is the Pareto shape of the weights, trustworthy up to 0.7;
# `shift` is the change of a mean in posterior standard deviations.

# %%
post.reweight({"cor": LKJ(4.0), "sd": HalfNormal(30.0)})

# %% [markdown]
# ArviZ takes it from here:

# %%
post.to_arviz(posterior_predictive=jax.random.key(6), log_likelihood=True)
