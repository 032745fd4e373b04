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
# # Quickstart, for somebody who comes from lme4
#
# Two small data sets, thirty growing rats and eighteen tired people, take you through a fit, what it
# reports, shrinkage, predictions, and thousands of fits at once. The formulas are lme4's:
#
# | lme4 | lmmjax |
# |---|---|
# | `lmer(y ~ x + (x \| g), d)` | `lmm("y ~ x + (x \| g)", d).fit()` |
# | `lmer(..., REML = FALSE)` | `.fit(reml=False)` |
# | `fixef(m)`, `VarCorr(m)` | `fit.params`, `fit.varcorr()` |
# | `ranef(m)`, `coef(m)` | `fit.random_effects`, `fit.coef()` |
# | `REMLcrit(m)`, `logLik(m)` | `fit.deviance`, `fit.llf` |
# | `predict(m, newdata, re.form = NA)` | `fit.predict(newdata, re="none")` |

# %%
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import lmmjax as lj
from lmmjax import lmm
from lmmjax.datasets import load

plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Growing rats
#
# Thirty rats were weighed once a week for five weeks (Gelfand et al. 1990; see `data/README.md`). Each rat
# seems to have a line of its own.

# %%
rats = pd.read_csv("data/rat_growth.csv")
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for _, rat in rats.groupby("rat"):
    axes.plot(rat["week"], rat["y"], color="0.6", linewidth=0.8)
axes.plot(rats.groupby("week")["y"].mean(), color="C3", linewidth=2, label="mean")
axes.set(xlabel="week", ylabel="weight (g)", xticks=range(5), title="Thirty rats")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# So let intercept and slope vary between rats, correlated, as `(week | rat)` says in lme4. REML is the
# default here too. An integer right of the bar is a grouping factor without further ado.

# %%
slopes = lmm("y ~ week + (week | rat)", rats).fit()
slopes.summary()

# %% [markdown]
# How much worse is one slope for all? The REML criterion rises from 1084.58 to 1127.17. Both models have
# the same fixed effects, so that their REML criteria may be compared.

# %%
intercepts = lmm("y ~ week + (1 | rat)", rats).fit()
pd.concat([slopes.glance(), intercepts.glance()], keys=["(week | rat)", "(1 | rat)"]).droplevel(1)

# %%
# the values that R gives for these two models
assert abs(slopes.deviance - 1084.58) < 0.005
assert abs(intercepts.deviance - 1127.169) < 0.0005

# %% [markdown]
# Variances and covariances come as a table, with standard errors from the observed information. Intervals
# for standard deviations and correlations are computed on the log and on Fisher's z scale.

# %%
slopes.varcorr()

# %%
slopes.conf_int(which="all")

# %% [markdown]
# A rat gains 43 g a week on average, and about two thirds of all rats lie within 3.5 g of that. The
# correlation of intercept and slope is uncertain: with 30 rats its interval holds zero easily.
#
# R's `anova(m0, m1)` is `lj.compare`. Models that differ in their *fixed* effects are refitted by maximum
# likelihood, as in R. `**` is the power, as in Python.

# %%
straight = lmm("y ~ week + (week | rat)", rats).fit()
curved = lmm("y ~ week + I(week**2) + (week | rat)", rats).fit()
lj.compare(straight, curved)

# %% [markdown]
# ## Tired people, and shrinkage
#
# `sleepstudy` needs no introduction to users of lme4: reaction times of 18 subjects, day by day, with hardly
# any sleep.

# %%
sleepstudy = load("sleepstudy")
fit = lmm("Reaction ~ Days + (Days | Subject)", sleepstudy).fit()
fit.summary()

# %% [markdown]
# The conditional modes (BLUPs) of `ranef()` are `fit.random_effects`, a frame of levels × coefficients for
# each grouping factor. `fit.ranef()` is the long form with two standard deviations: `cond_sd`, that of lme4,
# takes the fixed effects as known; `pred_se` carries their uncertainty too.

# %%
fit.ranef().query("level in [308, 309, 310]").round(2)

# %% [markdown]
# `fit.coef()` adds the fixed effects: one line for every subject. Compare these lines, where partial pooling
# puts them, with a separate regression for each subject, without pooling:

# %%
axes = fit.plot.shrinkage()
axes.set(xlabel="intercept (ms)", ylabel="slope (ms per day)")
plt.show()

# %% [markdown]
# The arrows lead inwards, across the contours: what ten noisy observations say about a subject is weighed
# against what the other subjects are like. Intercepts give way more than slopes, because ten days determine
# a slope better, in units of its spread between subjects, than the value on day 0. In the data:

# %%
panels = fit.plot.spaghetti("Days", each=True)
plt.show()

# %% [markdown]
# ## Predictions
#
# A subject we know, with and without its random effects, and one we have never seen: unknown levels are an
# error until you say that the population mean will do (lme4: `allow.new.levels = TRUE`).

# %%
known = pd.DataFrame({"Days": [10, 11], "Subject": [308, 308]})
pd.DataFrame({"with b": fit.predict(known), "without": fit.predict(known, re="none")})

# %%
unseen = known.assign(Subject=999)
try:
    fit.predict(unseen)
except ValueError as error:
    print(error)
fit.predict(unseen, new_levels="population")

# %% [markdown]
# ## Thousands of fits
#
# Where the same design meets many responses (genes, voxels, simulated data sets) one call fits them all.
# Here we draw 2,000 responses from the fitted model, which is a parametric bootstrap, and fit every one.
# The first call compiles the program; later calls with as many responses reuse it.

# %%
model = fit.model
simulated = fit.simulate(jax.random.key(1), 2000)
model.fit_batch(simulated)

begin = time.perf_counter()
fits = model.fit_batch(simulated)
elapsed = time.perf_counter() - begin
print(f"{len(fits)} fits in {elapsed:.2f} s, {1e6 * elapsed / len(fits):.0f} µs each")
print(f"converged {fits.converged.mean():.1%}, singular {fits.is_singular.mean():.1%}")

# %% [markdown]
# The spread of the bootstrap estimates beside the standard errors of the one fit:

# %%
pd.DataFrame({"standard error": fit.bse, "sd of bootstrap estimates": fits.params.std()})

# %%
correlation = fits.varcorr[("Subject", "(Intercept)", "Days")] / np.sqrt(
    fits.varcorr[("Subject", "(Intercept)", "")] * fits.varcorr[("Subject", "Days", "")]
)
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.hist(correlation.dropna(), bins=40, color="C0", alpha=0.7)
axes.axvline(fit.varcorr()["sdcor"].iloc[2], color="C3", label="estimate from the data")
axes.set(xlabel="correlation of intercept and slope", ylabel="fits", title="2,000 bootstrap fits")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# The bars at the ends, at ±1, are mostly singular fits: optima on the boundary, found and reported as such
# (`fits.is_singular`), not failures. Any member of the batch is a full fit, taken out without fitting again:
# `fits[17].summary()`.
#
# What differs from lme4, and what is not there yet, is listed in `docs/coming_from/lme4.md`; how it works
# is in `docs/architecture.md`.
