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
# # Thousands of traits
#
# The expression of 20,000 genes in samples of 60 donors, one mixed model for each of them, fitted together.
# The data are simulated, so that at every step we can compare with the truth: which genes respond, and how
# many of our discoveries are false.

# %%
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from lmmjax import lmm

plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Samples and genes
#
# Every donor gave three to seven samples, which were treated by turns. So treatment varies within donors,
# age and sex only between them.

# %%
rng = np.random.default_rng(20)
n_donors, n_genes = 60, 20_000

donors = pd.DataFrame(
    {
        "donor": [f"donor{k:02d}" for k in range(n_donors)],
        "age": rng.integers(20, 80, n_donors),
        "sex": rng.permutation(np.repeat(["female", "male"], n_donors // 2)),
    }
)
owner = np.repeat(np.arange(n_donors), rng.integers(3, 8, n_donors))
samples = donors.iloc[owner].reset_index(drop=True)
samples["treatment"] = np.where(samples.groupby("donor").cumcount() % 2 == 0, "control", "drug")
print(f"{len(samples)} samples of {n_donors} donors")
samples.head(4)


# %% [markdown]
# A tenth of the genes respond to the drug, a twentieth change with age, a fiftieth differ between the
# sexes. In three of ten genes donors do not differ at all; in the others up to 80 % of the remaining
# variance is theirs.


# %%
def some(share: float, sd: float) -> np.ndarray:
    """Effects (T,): normal with this sd for a share of the genes, 0 for the others."""
    return np.where(rng.random(n_genes) < share, rng.normal(0, sd, n_genes), 0.0)


genes = pd.Index([f"gene{k:05d}" for k in range(n_genes)], name="gene")
donor_share = np.where(rng.random(n_genes) < 0.3, 0.0, rng.uniform(0, 0.8, n_genes))
truth = pd.DataFrame(
    {
        "level": rng.uniform(2, 10, n_genes),
        "treatment": some(0.10, 0.5),
        "age": some(0.05, 0.02),
        "sex": some(0.02, 0.6),
        "donor_share": donor_share,
        "sd_donor": np.sqrt(donor_share),
        "sd_residual": np.sqrt(1 - donor_share),
    },
    index=genes,
)
signal = (
    truth["level"].to_numpy()
    + np.outer(samples["treatment"] == "drug", truth["treatment"])
    + np.outer(samples["age"] - 50, truth["age"])
    + np.outer(samples["sex"] == "male", truth["sex"])
    + rng.normal(size=(n_donors, n_genes))[owner] * truth["sd_donor"].to_numpy()
)
noise = rng.normal(size=signal.shape) * truth["sd_residual"].to_numpy()
complete = signal + noise

# %% [markdown]
# Real tables have holes. Two thousand genes lose a tenth of their values, each in samples of its own; five
# were not detected anywhere.

# %%
values = complete.copy()
patchy = rng.choice(n_genes, 2_000, replace=False)
values[:, patchy] = np.where(rng.random((len(samples), 2_000)) < 0.1, np.nan, values[:, patchy])
values[:, rng.choice(n_genes, 5, replace=False)] = np.nan
expression = pd.DataFrame(values, columns=genes)
n_patterns = np.unique(np.packbits(np.isnan(values), axis=0), axis=1).shape[1]
print(f"{np.isnan(values).mean():.1%} of the values are missing, in {n_patterns:,} different patterns")

# %% [markdown]
# ## One model, 20,000 fits
#
# The formula has no response: those are the columns of the frame. A missing value leaves its sample out of
# the fit of its own gene, and of no other. The first call compiles; we show both times.

# %%
model = lmm("~ treatment + age + sex + (1 | donor)", samples)
seconds = []
for _ in range(2):
    begin = time.perf_counter()
    fits = model.fit_batch(expression)
    seconds.append(time.perf_counter() - begin)
print(f"first call {seconds[0]:.1f} s, second {seconds[1]:.2f} s: {1e6 * seconds[1] / n_genes:.0f} µs a gene")

# %% [markdown]
# The warning counts what could not be fitted: the genes without values. They have a status and missing
# results, and the rest of the table does not notice. All others are exact REML fits, certified one by one.
# A donor variance of 0 is an optimum like any other, and marked as singular.

# %%
print(fits.status.value_counts().to_string())
without = truth["donor_share"] == 0
print(f"singular: {fits.is_singular[without].mean():.0%} where donors do not differ,")
print(f"          {fits.is_singular[~without].mean():.1%} where they do")
assert fits.converged.sum() == n_genes - 5
fitted = fits.converged[fits.converged].index
alone = model.fit_batch(expression[fitted])
np.testing.assert_allclose(alone.params, fits.params.loc[fitted], rtol=1e-9, atol=1e-12)

# %% [markdown]
# ## Which genes respond to the drug?
#
# `fits.top` sorts the genes by one coefficient; `q` are Benjamini–Hochberg values over all genes that were
# fitted. Beside them we put the true effect.

# %%
drug = "treatment[T.drug]"
fits.top(drug, 8).join(truth["treatment"].rename("truth")).round({"estimate": 3, "se": 3, "t": 1, "truth": 3})

# %% [markdown]
# `fits.tidy()` is the long frame of everything, a row for each gene and parameter. From it we count
# discoveries at q < 0.05, and how many of them are false.

# %%
tidy = fits.tidy()
terms = {drug: "treatment", "age": "age", "sex[T.male]": "sex"}


def discoveries(p: pd.Series, real: pd.Series) -> dict[str, float]:
    """What Benjamini and Hochberg find at 5 %, and what it is worth."""
    known = p.dropna()
    found = pd.Series(stats.false_discovery_control(known) < 0.05, index=known.index)
    real = real[found.index] != 0
    return {
        "found": found.sum(),
        "false": (found & ~real).sum(),
        "rate": (found & ~real).sum() / found.sum(),
        "its sd": np.sqrt((found & ~real).sum()) / found.sum(),
        "power": (found & real).sum() / real.sum(),
    }


by_term = {term: rows.set_index("response") for term, rows in tidy.groupby("term") if term in terms}
table = pd.DataFrame({term: discoveries(by_term[term]["p"], truth[name]) for term, name in terms.items()})
table.T.round(3)

# %%
# the q of the table and SciPy's agree
for term in terms:
    assert table.loc["found", term] == (by_term[term]["q"] < 0.05).sum()

# %% [markdown]
# *rate* is the share of false discoveries, with its sampling error beside it; *power* the share of true
# effects that were found. Over many such data sets the rate should be below 5 % on average. The p-values are
# Satterthwaite's, with degrees of freedom for every gene: what varies only between donors is estimated from
# 60 donors, not from 300 samples. Normal p-values forget that, and are too small at the far ends:

# %%
normal = fits.tidy(ddf="normal")
without = {
    term: discoveries(normal[normal["term"] == term].set_index("response")["p"], truth[name])
    for term, name in terms.items()
}
pd.DataFrame(without).T.round(3)

# %%
for term, name in terms.items():
    if name != "treatment":
        assert without[term]["rate"] > table.loc["rate", term]
        # where donors do not differ, samples count in full
        assert by_term[term]["df"].median() < n_donors

# %% [markdown]
# ## Volcano
#
# Effects against evidence, on a square-root scale. Colours say what we found, and whether it is true.

# %%
volcano = fits.top(drug, n_genes)
volcano = volcano[volcano["p"].notna()].join(truth["treatment"].rename("truth"))
found, real = volcano["q"] < 0.05, volcano["truth"] != 0
kinds = {
    "no effect, not found": (~found & ~real, "0.82", 3),
    "true effect, missed": (~found & real, "C0", 5),
    "true effect, found": (found & real, "C2", 5),
    "false discovery": (found & ~real, "C3", 9),
}
figure, axes = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
for name, (chosen, color, size) in kinds.items():
    rows = volcano[chosen]
    axes.scatter(
        rows["estimate"],
        -np.log10(rows["p"]),
        s=size,
        color=color,
        linewidths=0,
        label=f"{name} ({len(rows):,})",
        rasterized=True,
    )
axes.axhline(-np.log10(volcano.loc[found, "p"].max()), color="0.5", linewidth=0.8, linestyle=":")
axes.annotate(
    "q = 0.05",
    (1, -np.log10(volcano.loc[found, "p"].max())),
    (0, 3),
    ("axes fraction", "data"),
    "offset points",
    ha="right",
    color="0.4",
    fontsize=8,
)
axes.set_yscale("function", functions=(lambda v: np.sqrt(np.maximum(v, 0)), np.square))
axes.set(ylim=(0, None), yticks=[0, 5, 20, 50, 100, 150], xlabel="effect of the drug", ylabel="−log₁₀ p")
axes.legend(frameon=False, fontsize=8, markerscale=2, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2)
plt.show()

# %% [markdown]
# ## Where the variance is
#
# `fits.icc()` is the share of the donors in the variance that the fixed effects leave over. Left, against
# the truth; right, all parts of the variance, for the foremost genes of each effect: what a fixed effect
# explains is the variance of its part of the mean.

# %%
icc = fits.icc()
x = pd.DataFrame(model.frame.x, columns=model.frame.x_names)
parts = pd.DataFrame({name: fits.params[term] ** 2 * x[term].var() for term, name in terms.items()})
parts["donor"] = fits.varcorr[("donor", "(Intercept)", "")]
parts["residual"] = fits.varcorr.iloc[:, -1]
shares = parts.div(parts.sum(axis=1), axis=0)
assert np.allclose(icc.dropna(), (parts["donor"] / (parts["donor"] + parts["residual"])).dropna())

figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4.2), width_ratios=(1, 1.35), layout="constrained")
cells = left.hexbin(truth["donor_share"], icc, gridsize=45, bins="log", cmap="Greys", mincnt=1, linewidths=0)
left.plot([0, 0.8], [0, 0.8], "C3", linewidth=1, label="estimate = truth")
left.set(xlabel="true share of donors", ylabel="estimated share (ICC)", title="20,000 genes")
left.legend(frameon=False, loc="upper left", fontsize=8)
figure.colorbar(cells, cax=left.inset_axes((0.58, 0.2, 0.36, 0.03)), orientation="horizontal", label="genes")
shown = [gene for term in terms for gene in fits.top(term, 5).index]
colors = {"treatment": "C2", "age": "C0", "sex": "C4", "donor": "C1", "residual": "0.85"}
start = np.zeros(len(shown))
for name, color in colors.items():
    right.barh(shown, shares.loc[shown, name], left=start, color=color, label=name)
    start += shares.loc[shown, name].to_numpy()
right.set(xlabel="share of the variance", title="top 5 for drug, age and sex", xlim=(0, 1))
right.invert_yaxis()
right.tick_params(axis="y", labelsize=8)
figure.legend(
    *right.get_legend_handles_labels(), loc="outside lower right", ncols=5, frameon=False, fontsize=8
)
plt.show()

error = icc - truth["donor_share"]
print(f"error of the share: mean {error.mean():+.3f}, sd {error.std():.3f}")

# %% [markdown]
# ## One gene in full
#
# Every member of the batch is a whole fit, taken out without fitting again: summary, intervals, random
# effects, predictions. We take the foremost of the genes with missing values; its summary counts the
# samples it has.

# %%
patchy_names = genes[np.sort(patchy)]
ranking = fits.top(drug, n_genes)
gene = ranking.index[ranking.index.isin(patchy_names)][0]
fit = fits[gene]
print(gene, "true effect of the drug", round(truth.loc[gene, "treatment"], 3))
fit.summary()

# %%
alone = lmm(f"{gene} ~ treatment + age + sex + (1 | donor)", samples.assign(**{gene: expression[gene]})).fit()
difference = abs(alone.params - fit.params).max()
print(f"fitted by itself, the same to {difference:.0e}")
assert difference < 1e-6

# %% [markdown]
# ## Bootstrap
#
# `fit.bootstrap` simulates from the fit and refits every draw, as one batch. Its intervals for the standard
# deviations need no normal approximation.

# %%
begin = time.perf_counter()
bootstrap = fit.bootstrap(jax.random.key(2), 2_000)
print(f"2,000 refits in {time.perf_counter() - begin:.1f} s")
wald = fit.conf_int(which="all").add_prefix("Wald ")
wald.join(bootstrap.conf_int().add_prefix("bootstrap ")).round(3)

# %% [markdown]
# ## Precision weights
#
# In sequencing, a value is the less precise the fewer reads it rests on, and that differs between samples
# *and* genes. Such weights, as voom makes them, are a table of the shape of the responses: `weights=`, with
# Var(ε) = σ²/w. We simulate samples of different depth, add the noise that goes with it, and fit with and
# without weights.

# %%
depth = np.exp(rng.normal(0, 1, len(samples)))
reads = np.outer(depth, np.exp(truth["level"] / 2))
weights = 1 / (1 + 30 / reads)
print(f"weights between {weights.min():.3f} and {weights.max():.3f}, median {np.median(weights):.2f}")
uneven = pd.DataFrame(signal + noise / np.sqrt(weights), columns=genes)

begin = time.perf_counter()
weighted = model.fit_batch(uneven, weights=weights)
print(f"{len(weighted):,} weighted fits in {time.perf_counter() - begin:.1f} s, the first call")
unweighted = model.fit_batch(uneven)

comparison = pd.DataFrame(
    {
        name: discoveries(batch.pvalues[drug], truth["treatment"])
        for name, batch in {"unweighted": unweighted, "weighted": weighted}.items()
    }
).T
comparison["mean |error| of the effect"] = [
    (batch.params[drug] - truth["treatment"]).abs().mean() for batch in (unweighted, weighted)
]
comparison.round(3)

# %%
# weights find more, and err less
assert comparison.loc["weighted", "power"] > comparison["power"].iloc[0]
assert (
    comparison.loc["weighted", "mean |error| of the effect"]
    < comparison["mean |error| of the effect"].iloc[0]
)

# %% [markdown]
# ## Larger than memory
#
# `model.stream_batch("responses.parquet", "results.parquet")` does the same in bounded memory, from file to
# file, and `resume=True` continues what was interrupted; on the command line it is `lmmjax batch`. Weights
# and offsets by value are sources like the responses: `stream_batch(..., weights="weights.parquet")`.
