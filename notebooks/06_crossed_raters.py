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
# # Crossed raters
#
# Students rate lecturers, consumers taste hams, judges score skaters: every score has two sources, the one
# who rates and the one who is rated, and neither is inside the other. How much of the variance is whose?

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import lmmjax as lj
from lmmjax.datasets import load

plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## A small one
#
# Six samples of penicillin were tested on each of 24 plates (lme4's Penicillin). Plates rate samples.

# %%
penicillin = load("penicillin")
fit = lj.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin).fit()
fit.summary()

# %%
fit.icc(by_group=True)

# %% [markdown]
# The reliability of a sample's mean over k plates grows with k. Any function of the variances has a
# standard error, by the delta method: here for one plate and for 24.

# %%
k = np.array([1, 2, 4, 8, 24])
plate, sample, residual = fit.varcorr()["vcov"]
reliability = sample / (sample + (plate + residual) / k)
pd.DataFrame({"plates": k, "reliability": reliability}).round(3)

# %% [markdown]
# ## A large one
#
# 73,421 ratings of 1,128 lecturers by 2,972 students at ETH Zürich (lme4's InstEval): each student rated
# some of the lecturers. `service` says whether the lecture was held for another department.

# %%
ratings = load("insteval")
model = lj.lmm("y ~ service + (1 | s) + (1 | d)", ratings)
model.structure()

# %%
large = model.fit()
large.summary()

# %% [markdown]
# Students differ, lecturers differ more, and most of a rating is neither. How much of the order of the
# lecturers is chance? Their effects with intervals, in order:

# %%
effects = large.ranef().query("group == 'd'").sort_values("value")
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
rank = np.arange(len(effects))
half = 1.96 * effects["cond_sd"]
axes.fill_between(rank, effects["value"] - half, effects["value"] + half, color="0.85", linewidth=0)
axes.plot(rank, effects["value"], color="C0")
axes.axhline(0, color="0.4", linewidth=0.8)
axes.set(xlabel="lecturers in order", ylabel="effect on the rating", title="1,128 lecturers, 95 % intervals")
plt.show()
away = (effects["value"].abs() > half).mean()
print(f"{away:.0%} of the lecturers are away from the average")

# %% [markdown]
# Degrees of freedom take both factors into account: `service` varies within students and within lecturers,
# so that it has many.

# %%
large.coef_table("kenward-roger")

# %%
assert large.converged
# lecturers differ more than students, and most is residual, as lme4 finds
students, lecturers, rest = large.varcorr()["sdcor"]
assert np.allclose([students, lecturers, rest], [0.326, 0.517, 1.178], rtol=0, atol=0.01)
