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
# # A trial with repeated measures: MMRM
#
# 200 patients, four visits, two treatments, and a third of the visits missing: the simulated trial of the
# R package mmrm, whose results PROC MIXED gives as well. The mixed model for repeated measures has no
# random effects: the covariance of a patient's visits is left free, and each treatment has a mean at each
# visit.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import lmmjax as lj

plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %%
fev = pd.read_csv("../tests/reference/mmrm/fev.csv")
seen = fev.groupby(["ARMCD", "AVISIT"])["FEV1"].agg(["count", "mean", "std"])
seen.round(2)

# %% [markdown]
# ## The model
#
# `AVISIT` says which visit a row is, so that a visit that was missed is a gap. Baseline, race and sex are
# covariates.

# %%
formula = "FEV1 ~ RACE + SEX + ARMCD * AVISIT"
mmrm = lj.lmm(formula, fev, residual=lj.Unstructured("AVISIT", group="USUBJID")).fit()
mmrm.anova(ddf="kenward-roger")

# %%
mmrm.residual_cov().round(2)

# %%
mmrm.residual_cov(cor=True).round(2)

# %% [markdown]
# ## The treatment at each visit
#
# Marginal means by visit, and their differences, with Kenward and Roger's degrees of freedom.

# %%
means = mmrm.emmeans("ARMCD", by="AVISIT", ddf="kenward-roger")
effects = means.contrast("revpairwise", adjust="none").table
effects.round(3)

# %%
axes = mmrm.plot.effects("AVISIT", "ARMCD", ddf="kenward-roger")
axes.set_ylabel("FEV1 (%)")
plt.show()

# %% [markdown]
# ## Other covariances
#
# Ten parameters for four visits. Do fewer do? AIC, on the same fixed effects by REML; robust standard
# errors hold whatever the choice.

# %%
structures = {
    "unstructured": lj.Unstructured("AVISIT", group="USUBJID"),
    "Toeplitz, variances by visit": lj.Toeplitz("AVISIT", group="USUBJID") * lj.VarIdent("AVISIT"),
    "AR(1), variances by visit": lj.AR1("AVISIT", group="USUBJID") * lj.VarIdent("AVISIT"),
    "compound symmetry": lj.CompoundSymmetry(group="USUBJID"),
    "unstructured, by arm": lj.Unstructured("AVISIT", group="USUBJID", by="ARMCD"),
}
fits = {name: lj.lmm(formula, fev, residual=residual).fit() for name, residual in structures.items()}
last = "ARMCD[T.TRT] + ARMCD[T.TRT]:AVISIT[T.VIS4]"
rows = {}
for name, fit in fits.items():
    own, robust = fit.contrast(last, ddf="satterthwaite").iloc[0], fit.contrast(last, robust="CR2").iloc[0]
    rows[name] = {"parameters": fit.n_params, "AIC": fit.aic, "effect at visit 4": own["estimate"]}
    rows[name] |= {"se": own["se"], "df": own["df"], "robust se": robust["se"]}
pd.DataFrame(rows).T.round(3)

# %%
# PROC MIXED, FEV1 ~ ARMCD with type=un: DDFM=KR has a standard error of 0.66124 on 160.73 df
small = lj.lmm("FEV1 ~ ARMCD", fev, residual=structures["unstructured"]).fit()
sas = small.coef_table("kenward-roger-sas").loc["ARMCD[T.TRT]"]
assert np.allclose(sas[["se", "df"]], [0.66124, 160.73], rtol=4e-4)
assert min(fits, key=lambda name: fits[name].aic).startswith("unstructured")
