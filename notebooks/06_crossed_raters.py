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
axes = large.plot.ranef("d")
axes.set_xlabel("effect on the rating, 95 % intervals")
plt.show()
effects = large.ranef().query("group == 'd'")
away = (effects["value"].abs() > 1.96 * effects["cond_sd"]).mean()
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
