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
# # Single cells: pseudobulk of donors and cell types
#
# Cells of one donor are alike, so cells are no replicates: donors are. We add up the counts of every gene
# over the cells of a donor and a type (*pseudobulk*), weigh the sums by their precision, and fit a mixed
# model to every gene. The data are simulated: 9,600 cells of 20 donors and three types, 1,000 genes, half
# of the donors treated. In T cells 100 genes respond to the treatment, half of them up and half down by a
# factor of 2.5; in the other types none does.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import sparse

import lmmjax as lj

plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Cells
#
# The mean of a gene in a cell is exp(level + type + donor + response), a donor's deviations have an sd of
# 0.3, those of a donor's cells of one type another 0.2, and the depths of cells vary by a factor of 1.5.
# Counts are Poisson.

# %%
rng = np.random.default_rng(9)
n_donors, n_genes, cells_each = 20, 1_000, 480
types = ["B", "T", "monocyte"]
cells = pd.DataFrame(
    {
        "donor": np.repeat([f"d{k:02d}" for k in range(n_donors)], cells_each),
        "type": rng.choice(types, n_donors * cells_each, p=[0.25, 0.5, 0.25]),
    }
)
cells["treated"] = np.where(cells["donor"].str[1:].astype(int) % 2 == 0, "no", "yes")
genes = pd.Index([f"g{k:03d}" for k in range(n_genes)])
responds = np.arange(n_genes) < 100

of_type = dict(zip(types, 0.8 * rng.normal(size=(3, n_genes)), strict=True))
change = np.where(responds, np.where(np.arange(n_genes) % 2, 1, -1) * np.log(2.5), 0.0)
level = rng.normal(-2.5, 1.0, n_genes)
blocks, parts = [], []
for _, own in cells.groupby("donor"):
    of_donor = 0.3 * rng.normal(size=n_genes)
    for kind, some in own.groupby("type"):
        mean = level + of_type[kind] + of_donor + 0.2 * rng.normal(size=n_genes)
        if kind == "T" and some["treated"].iloc[0] == "yes":
            mean = mean + change
        depth = np.exp(np.log(1.5) * rng.normal(size=(len(some), 1)))
        blocks.append(sparse.csr_array(rng.poisson(depth * np.exp(mean)).astype(np.float32)))
        parts.append(some)
cells = pd.concat(parts, ignore_index=True)
counts = sparse.vstack(blocks, format="csr")
share = counts.nnz / np.prod(counts.shape)
print(f"{counts.shape[0]:,} cells × {counts.shape[1]:,} genes, {share:.0%} not zero")

# %% [markdown]
# ## Pseudobulk
#
# One product with the matrix of who is where. With AnnData, `cells` is `adata.obs` and `counts` is
# `adata.X`, and what follows takes an AnnData of the sums as it takes the frame (`lj.lmm(formula, pdata)`,
# `lj.voom(pdata, model)`).

# %%
codes, keys = pd.factorize(pd.MultiIndex.from_frame(cells[["donor", "type", "treated"]]))
where = sparse.csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))))
obs = pd.DataFrame(list(keys), columns=["donor", "type", "treated"])
obs.index = obs["donor"] + " " + obs["type"]
bulk = pd.DataFrame((where @ counts).toarray(), index=obs.index, columns=genes)
obs["cells"] = np.bincount(codes)
bulk = bulk.loc[:, bulk.sum() > 10 * len(bulk)]
print(f"{len(bulk)} sums of {obs['cells'].min()} to {obs['cells'].max()} cells, {bulk.shape[1]} genes kept")
obs.head(3)

# %% [markdown]
# ## A mixed model of every gene
#
# The donor is a random effect: its three sums are alike. `lj.voom` gives log counts per million and
# precision weights. The effect of the treatment in each type is a contrast of the fixed effects.

# %%
model = lj.lmm("~ 0 + type + type:treated + (1 | donor)", obs)
v = lj.voom(bulk, model)
fits = model.fit_batch(v.logcpm, weights=v.weights)
print(fits)
effects = {kind: name for kind in types for name in fits.params if f"[{kind}]" in name and "treated" in name}
print(effects)

# %%
real = pd.Series(responds, index=genes)[bulk.columns]
rows = {}
for kind, name in effects.items():
    table = fits.top(name, None, moderated=True)
    found = table["q"] < 0.05
    rows[kind] = {
        "found": found.sum(),
        "of those that respond in T cells": (found & real[table.index]).sum(),
        "p < 0.05 where nothing responds": (table["p"][~real[table.index]] < 0.05).mean(),
    }
rows = pd.DataFrame(rows).T
rows.round(3)

# %%
assert rows.loc["T", "of those that respond in T cells"] > 10
assert (
    rows.loc["T", "found"] - rows.loc["T", "of those that respond in T cells"]
    <= 0.15 * rows.loc["T", "found"]
)
assert rows.loc[["B", "monocyte"], "found"].max() <= 3

# %% [markdown]
# Half of the genes that respond are up and half down. Had all gone up, the normalisation would take some of
# that for the depth of the library, and move all other genes the other way: see [counts and moderated
# statistics](https://github.com/lmmjax/lmmjax/blob/main/docs/omics.md).
#
# ## Cells as replicates
#
# The same question asked of single T cells, as if they were independent: true hypotheses are rejected at 5
# % far too often, because the donors' deviations are taken for effects of the treatment. With the donor in
# the model they are not. The matrix stays sparse.

# %%
at = np.flatnonzero(cells["type"] == "T")
some = cells.iloc[at].reset_index(drop=True)
own = counts[at][:, np.flatnonzero(np.isin(genes, bulk.columns))]
formulas = {"cells alone": "~ treated", "donors random": "~ treated + (1 | donor)"}
pvalues = {
    name: lj.lmm(formula, some).fit_batch(own).pvalues["treated[T.yes]"] for name, formula in formulas.items()
}
rejected = {name: np.mean(p[~real.to_numpy()] < 0.05) for name, p in pvalues.items()}
print({name: f"{share:.1%}" for name, share in rejected.items()})
assert rejected["cells alone"] > 0.3
assert rejected["donors random"] < 0.1

# %% [markdown]
# ## Pictures

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.8), layout="constrained")
fits.moderate().plot.volcano(effects["T"], left)
left.set_title("treatment in T cells")
fits.plot.shares(ax=right)
right.set_title("shares of the variance")
plt.show()

# %% [markdown]
# `fits.to_anndata(pdata, moderated=True)` puts the table into `pdata.varm["lmm"]`, and
# `fits.statistics(effects)` is what decoupler takes: contrasts × genes.

# %%
fits.statistics(effects, moderated=True).iloc[:, :5].round(2)
