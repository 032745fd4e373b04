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
# # Seven examples from textbooks
#
# The data sets that courses on mixed models go through, one by one: growing rats, paper pulp, a split
# plot, a randomised block, a trial with rats, trees that drink, hormones of five women. Each asks another
# question of a model. What R's packages print for them is asserted at the end of each section.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import lmmjax as lj

plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Growing rats: intercepts and slopes, shrinkage
#
# Thirty young rats, weighed once a week for five weeks (Gelfand et al. 1990). A line for each rat,
# correlated intercepts and slopes.

# %%
growth = pd.read_csv("data/rat_growth.csv")
slopes = lj.lmm("y ~ week + (week | rat)", growth).fit()
intercepts = slopes.update("~ . - (week | rat) + (1 | rat)")
lj.compare(intercepts, slopes)

# %% [markdown]
# Two regressions for each rat: one from its own five weights, and one that knows the other rats. The
# second is drawn towards the mean line, and the more so the further away it is.

# %%
axes = slopes.plot.shrinkage()
axes.set(xlabel="weight at the start (g)", ylabel="gain a week (g)")
plt.show()

# %%
# R: REML criteria 1084.58 and 1127.169
assert np.allclose([slopes.deviance, intercepts.deviance], [1084.58, 1127.169], rtol=0, atol=0.005)

# %% [markdown]
# ## Pulp: a variance component of four operators
#
# Four operators made five sheets of paper each (Faraway 2002). Do operators differ? The variance is tested
# against zero, which is the end of its range: the exact distribution of the restricted likelihood ratio
# knows that.

# %%
sheets = {
    "a": [59.8, 60.0, 60.8, 60.8, 59.8],
    "b": [59.8, 60.2, 60.4, 59.9, 60.0],
    "c": [60.7, 60.7, 60.5, 60.9, 60.3],
    "d": [61.0, 60.8, 60.6, 60.5, 60.5],
}
pulp = pd.DataFrame([(b, o) for o, values in sheets.items() for b in values], columns=["bright", "operator"])
fit = lj.lmm("bright ~ 1 + (1 | operator)", pulp).fit()
print(fit.varcorr().round(4))
print(fit.rlrt())
print("share of the variance:", round(float(fit.icc()), 4))

# %% [markdown]
# With four operators their standard deviation is known badly: the profile interval begins at zero.

# %%
limits = fit.conf_int(method="profile", which="all")
limits.round(3)

# %%
# R: REML criterion 18.626, ICC 0.3905, profile interval 0 to 0.6179, RLRT 3.470
assert abs(fit.deviance - 18.626) < 0.001
assert abs(float(fit.icc()) - 0.3905) < 1e-4
assert np.allclose(limits.loc["sd_(Intercept)|operator"], [0, 0.6179], rtol=0, atol=1e-4)
assert abs(fit.rlrt().statistic - 3.470) < 1e-3

# %% [markdown]
# ## Irrigation: a split plot
#
# Four irrigations on eight fields, two varieties in each field (Faraway 2002). Irrigation is compared
# between fields, varieties within them: two sizes of experimental unit, two error terms. The random effect
# of the field says so, and Kenward and Roger's method finds the right degrees of freedom, 4 for
# everything.

# %%
yields = [35.4, 37.9, 36.7, 38.2, 34.8, 36.4, 39.5, 40.0, 41.6, 40.3, 42.7, 41.6, 43.6, 42.8, 44.5, 47.6]
irrigation = pd.DataFrame(
    {
        "field": np.repeat([f"f{k}" for k in range(1, 9)], 2),
        "irrigation": np.tile(np.repeat(["i1", "i2", "i3", "i4"], 2), 2),
        "variety": np.tile(["v1", "v2"], 8),
        "yields": yields,
    }
)
split = lj.lmm("yields ~ irrigation * variety + (1 | field)", irrigation).fit()
table = split.anova(ddf="kenward-roger")
table.round(4)

# %%
print(split.rlrt())
lj.compare(split.update("~ . - irrigation:variety"), split)

# %%
# R: REML criterion 45.395; F 0.3882, 1.0676, 0.2452 on 4 df; RLRT 6.112, p 0.010; likelihood ratio 1.3503
assert abs(split.deviance - 45.395) < 0.001
assert np.allclose(table["F"], [0.3882, 1.0676, 0.2452], rtol=0, atol=1e-4)
assert np.allclose(table["den_df"], 4)
assert abs(split.rlrt().statistic - 6.1118) < 1e-3

# %% [markdown]
# ## Penicillin: treatments in random blocks
#
# Four processes, a batch of corn steep liquor for each block of four runs (Box, Hunter & Hunter; Faraway
# 2002). Blocks are five of many: random.

# %%
runs = {
    "Blend1": [89, 88, 97, 94],
    "Blend2": [84, 77, 92, 79],
    "Blend3": [81, 87, 87, 85],
    "Blend4": [87, 92, 89, 84],
    "Blend5": [79, 81, 80, 88],
}
penicillin = pd.DataFrame(
    [(b, t, y) for b, ys in runs.items() for t, y in zip("ABCD", ys, strict=True)],
    columns=["blend", "treat", "amount"],
)
blocks = lj.lmm("amount ~ treat + (1 | blend)", penicillin).fit()
blocks.anova(ddf="kenward-roger")

# %%
blocks.emmeans("treat", ddf="kenward-roger").pairs().table.round(3)

# %% [markdown]
# The approximations agree that the treatments hardly differ. Without any: simulate under the hypothesis,
# refit.

# %%
null = blocks.refit(reml=False).update("~ . - treat")
full = blocks.refit(reml=False)
draws = null.simulate(jax.random.key(1), 1000)
ratios = null.model.fit_batch(draws, reml=False).deviance - full.model.fit_batch(draws, reml=False).deviance
observed = null.deviance - full.deviance
print(f"likelihood ratio {observed:.3f}, bootstrap p {np.mean(ratios >= observed):.3f}")

# %%
# R: REML criterion 103.83, F 1.2389 on 3 and 12 df, likelihood ratio 4.0474
assert abs(blocks.deviance - 103.83) < 0.001
assert np.allclose(blocks.anova(ddf="kenward-roger")[["F", "den_df"]], [[1.23894, 12]], atol=1e-4)
assert abs(observed - 4.0474) < 1e-3

# %% [markdown]
# ## Rats: a trial with dropout
#
# Fifty rats under no, a low or a high dose of a drug that inhibits testosterone; the height of the skull
# is measured until anaesthesia kills some of them (Verbeke & Molenberghs 2000). All share an intercept,
# since they are alike at the start; each treatment has its slope in log age. Rows that are not there are
# no problem for maximum likelihood if what makes them missing is in the model.

# %%
rats = pd.read_csv("data/rats.csv")
rats["t"] = np.log(1 + (rats["age"] - 45) / 10)
trial = lj.lmm("y ~ t:Treatment + (1 | rat)", rats).fit()
trial.summary()

# %%
trial.test(["t:Treatment[hig] - t:Treatment[con]", "t:Treatment[low] - t:Treatment[con]"])

# %% [markdown]
# Are the residuals of a rat correlated beyond its intercept? A continuous-time autoregression, beside the
# model without:

# %%
correlated = lj.lmm("y ~ t:Treatment + (1 | rat)", rats, residual=lj.CAR1("age", group="rat")).fit()
lj.compare(trial, correlated)

# %%
# R: 932.403 and 932.306
assert np.allclose([trial.deviance, correlated.deviance], [932.403, 932.306], rtol=0, atol=0.001)

# %% [markdown]
# ## Water: structured errors
#
# How much water ten trees use, through the year (Harris; the R package agridat). A parabola in time, and
# what one tree uses on two neighbouring days is alike. Random parabolas for the trees do not catch that;
# an intercept and residuals whose correlation falls with the days between do.

# %%
water = pd.read_csv("data/water_use.csv").dropna()
water["ti"] = water["day"] / 100
parabolas = lj.lmm("water ~ ti + I(ti**2) + (ti + I(ti**2) || tree)", water).fit()
exponential = lj.lmm(
    "water ~ ti + I(ti**2) + (1 | tree)", water, residual=lj.Exponential("day", group="tree")
).fit()
gaussian = exponential.update(residual=lj.Gaussian("day", group="tree"))
models = {"random parabolas": parabolas, "exponential": exponential, "Gaussian": gaussian}
facts = {name: [m.llf, m.aic, m.is_singular] for name, m in models.items()}
pd.DataFrame.from_dict(facts, "index", columns=["log-likelihood", "AIC", "singular"]).round(3)

# %% [markdown]
# The first is singular: neither slope differs between trees. The semivariogram of its residuals shows what
# it misses: days that are close are alike.

# %%
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, model in models.items():
    steps = model.semivariogram()
    axes.plot(steps.iloc[:, 0], steps["semivariance"], "o-", markersize=3, label=name)
axes.set(xlabel="days apart", ylabel="semivariance", ylim=(0, None))
axes.legend(frameon=False)
plt.show()

# %%
exponential.conf_int(which="all").round(3)

# %%
# nlme: log-likelihoods -131.257, -125.654 and -127.359, range 3.7945
assert np.allclose([m.llf for m in models.values()], [-131.257, -125.654, -127.359], rtol=0, atol=0.001)
assert parabolas.is_singular

# %% [markdown]
# ## Estrone: an intraclass correlation, and why not to trust Wald
#
# Sixteen measurements of a hormone for each of five women: how much of the variance is between women?
# Fears, Benichou & Gail (1996, The American Statistician 50, 226–227) saw that a Wald test of that
# variance is not significant, however clearly the women differ. Their measurements are not at hand here,
# so five women are drawn.

# %%
rng = np.random.default_rng(6)
estrone = pd.DataFrame({"woman": np.repeat(list("abcde"), 16)})
level = pd.Series(rng.normal(1.4, 0.14, 5), list("abcde"))
estrone["log_estrone"] = estrone["woman"].map(level) + rng.normal(0, 0.06, 80)
women = lj.lmm("log_estrone ~ 1 + (1 | woman)", estrone).fit()
variance = women.varcorr().iloc[0]
print(women.icc(se=True).round(3))
print(f"Wald: z = {variance['vcov'] / variance['se']:.2f}")
print(women.rlrt())

# %% [markdown]
# The standard error of a variance of five women is about its estimate times √(2/4): z is near √2 whatever
# the data. The likelihood ratio has no such ceiling. And the interval of the share is lopsided:

# %%
boot = women.bootstrap(jax.random.key(2), 1000, lambda b: b.icc())
women.icc(se=True), boot.conf_int()
