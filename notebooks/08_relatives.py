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
# # Relatives: heritability, breeding values, markers
#
# What relatives share says how much of a trait is inherited. First a textbook's five calves, small enough to
# see every number; then 200 people in 40 families, with the genotypes and the covariate of the example that
# the tests compare with GEMMA.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import lmmjax as lj

plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## A pedigree
#
# Weights gained before weaning, from Mrode (2014), *Linear Models for the Prediction of Animal Breeding
# Values*, example 3.1. Animals 1, 2 and 3 have no records: they are parents.

# %%
calves = pd.DataFrame(
    {
        "calf": [4, 5, 6, 7, 8],
        "sire": [1, 3, 1, 4, 3],
        "dam": [None, 2, 2, 5, 6],
        "sex": ["male", "female", "female", "male", "male"],
        "gain": [4.5, 2.9, 3.9, 3.5, 5.0],
    }
)
A = lj.Kernel.from_pedigree(calves, ids=range(1, 9), id="calf", sire="sire", dam="dam", name="A")
A.matrix  # noqa: B018

# %% [markdown]
# Five records cannot estimate two variances. The book takes them as known, σ²ₐ = 20 and σ²ₑ = 40, and so does
# `Model.simulate`, which draws what such a herd could have looked like: the calves of one pair of parents
# vary together.

# %%
model = lj.lmm("gain ~ sex + (1 | calf)", calves, kernels={"calf": A})
herds = model.simulate(jax.random.key(1), [4.4, 3.4, 3.4, 4.4, 4.4], [20.0, 40.0], 5000)
pd.DataFrame(np.corrcoef(herds), index=calves["calf"], columns=calves["calf"]).round(2)

# %% [markdown]
# ## Families with genotypes
#
# Relationships from a thousand markers, with one call. `gemma-centered` is what `gemma -gk 1` writes. With
# `pip install 'lmmjax[genetics]'` `lj.grm` takes the path of a .bed file; here its two bits a genotype are
# unpacked by hand, so that nothing is to be installed.

# %%
folder = "../tests/reference/gemma/"
ids = pd.read_csv(folder + "d.fam", sep=r"\s+", header=None)[1].astype(str)
packed = np.fromfile(folder + "d.bed", np.uint8)[3:].reshape(1000, -1)
bits = (packed[:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
genotypes = np.array([2.0, np.nan, 1.0, 0.0])[bits.reshape(1000, -1)[:, : len(ids)]].T
K = lj.grm(genotypes, ids, "gemma-centered")
people = pd.DataFrame({"id": K.index, "x": np.loadtxt(folder + "cov.txt")[:, -1]})
print(K.shape, f"mean diagonal {np.diagonal(K).mean():.3f}")

fig, ax = plt.subplots(figsize=(4.4, 3.6))
image = ax.imshow(K.iloc[:40, :40], cmap="viridis")
fig.colorbar(image, label="relationship")
ax.set_title("the first eight families")

# %% [markdown]
# The example has no trait of its own that we may use twice, so make two that share half of their genes, with
# heritabilities of one half.

# %%
rng = np.random.default_rng(20)
value, vector = np.linalg.eigh(K.to_numpy())
root = vector * np.sqrt(np.maximum(value, 0) / np.diagonal(K).mean())
genes = root @ rng.normal(size=(len(K), 2)) @ np.linalg.cholesky([[1.0, 0.5], [0.5, 1.0]]).T
people[["height", "weight"]] = genes + rng.normal(size=genes.shape) + 0.4 * people[["x"]].to_numpy()

fit = lj.lmm("height ~ x + (1 | id)", people, kernels={"id": K}).fit()
fit.heritability()

# %% [markdown]
# Limits are those of the profile likelihood: they stay within 0 and 1. Is the standard error right? A
# bootstrap refits the model to a thousand draws from it, which takes no time with one kernel.

# %%
draws = fit.model.fit_batch(fit.simulate(jax.random.key(2), 1000))
drawn = draws.heritability()
print(f"delta method {fit.heritability()['se']['id']:.3f}, bootstrap {drawn['estimate'].std():.3f}")

fig, ax = plt.subplots(figsize=(5, 3))
ax.hist(drawn["estimate"], bins=40, color="0.75")
ax.axvline(fit.heritability()["estimate"]["id"], color="C3")
ax.set(xlabel="heritability", ylabel="draws")

# %% [markdown]
# ## Breeding values
#
# Hide the records of every fifth person. Their values are predicted from their relatives, with less
# reliability.

# %%
some = lj.lmm("height ~ x + (1 | id)", people[people.index % 5 > 0], kernels={"id": K}).fit()
values = some.reliability().set_index("level")
values["truth"] = pd.Series(genes[:, 0], index=people["id"])
print(values.groupby("observed")[["reliability"]].mean().round(2))
print(values.groupby("observed")[["value", "truth"]].corr().iloc[::2, 1].round(2))

fig, ax = plt.subplots(figsize=(4, 4))
for seen, part in values.groupby("observed"):
    ax.scatter(part["truth"], part["value"], s=12, label="with a record" if seen else "without", alpha=0.7)
ax.set(xlabel="value it was made with", ylabel="predicted")
ax.legend()

# %% [markdown]
# ## Two traits
#
# Do the same genes act on both? `multitrait` fits them together, in the coordinates of the eigenvectors of K.

# %%
both = lj.multitrait("cbind(height, weight) ~ x + (1 | id)", people, kernels={"id": K}).fit()
both.genetic_correlation(test=True).T  # noqa: B018

# %%
both.heritability(by="trait")

# %% [markdown]
# ## Markers
#
# One marker after the other beside the relationships, as GEMMA's `-lmm`. A trait with a gene of its own shows
# where it is.

# %%
common = int(np.nanstd(genotypes, axis=0).argmax())
people["tail"] = people["height"] + 0.8 * np.nan_to_num(genotypes[:, common], nan=1.0)
tail = lj.lmm("tail ~ x + (1 | id)", people, kernels={"id": K}).fit()
scan = tail.scan(genotypes)

fig, ax = plt.subplots(figsize=(7, 2.6))
ax.scatter(np.arange(len(scan)), -np.log10(scan["p_wald"]), s=5)
ax.axhline(-np.log10(0.05 / len(scan)), color="C3", lw=1)
ax.set(xlabel="marker", ylabel="−log10 p")
