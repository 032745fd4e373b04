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
# # A brain: a mixed model in every voxel
#
# From image files to maps, with a mask and scans that lack voxels. So that it runs in seconds, the brain
# has voxels of 10 mm and 120 scans: 30 people, four scans each. At 2 mm and 400 scans it is 228,000 voxels,
# and the same lines: `python -m benchmarks run brain` measures that, in memory and by `stream_batch`.

# %%
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd

import lmmjax as lj

plt.rcParams.update({"figure.dpi": 110})

# %% [markdown]
# ## Scans
#
# The mask is an ellipsoid. People differ with an sd of 1, so do the scans of one person. In one place
# values grow by 0.5 a week, in another by 0.9 with each sd of the age. Every scan lacks a slab at its top
# or bottom, and one voxel in a hundred anywhere: NaN.

# %%
rng = np.random.default_rng(3)
shape, affine = (18, 22, 18), np.diag([10.0, 10.0, 10.0, 1.0])
grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
inside = np.sum((grid / np.array([0.77, 0.80, 0.77])[:, None, None, None]) ** 2, axis=0) <= 1


def blob(x: float, y: float, z: float, width: float) -> np.ndarray:
    """A bump, 1 at its centre."""
    return np.exp(-0.5 * np.sum(((grid.T - (x, y, z)) / width).T ** 2, axis=0))


by_week, by_age = blob(0.35, -0.2, 0.1, 0.18), blob(-0.4, 0.3, 0.0, 0.22)
people = 30
scans = pd.DataFrame({"id": np.repeat(np.arange(people), 4), "week": np.tile(np.arange(4.0), people)})
scans["age"] = rng.normal(size=people)[scans["id"]]
own = rng.normal(size=(people, *shape))

folder = Path(tempfile.mkdtemp())
for k, row in enumerate(scans.itertuples()):
    values = own[row.id] + rng.normal(size=shape) + 0.5 * row.week * by_week + 0.9 * row.age * by_age
    edge = int(rng.integers(0, 5))
    values[:, :, : edge if k % 2 else 0] = np.nan
    values[:, :, shape[2] - (0 if k % 2 else edge) :] = np.nan
    values[rng.random(shape) < 0.01] = np.nan
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine), folder / f"scan{k:02d}.nii.gz")
scans["path"] = [str(folder / f"scan{k:02d}.nii.gz") for k in range(len(scans))]
mask = nib.Nifti1Image(inside.astype(np.uint8), affine)
print(f"{inside.sum():,} voxels × {len(scans)} scans")
scans.head(3)[["id", "week", "age"]]

# %% [markdown]
# ## One call
#
# The responses are the column with the paths. A missing voxel leaves its scan out of the fit of that voxel,
# and of no other.

# %%
model = lj.lmm("~ age + week + (1 | id)", scans)
begin = time.perf_counter()
fits = model.fit_batch("path", mask=mask)
print(fits, f"in {time.perf_counter() - begin:.1f} s with reading and compiling")

# %%
# one voxel, taken out: the fit of the scans that it has
images = lj.Images(scans["path"], mask)
lacking = fits.to_img(mask, "n").get_fdata()[inside] < len(scans)
k = int(np.argmax(np.where(lacking, by_week[inside], 0.0)))
values = images.read(k, k + 1)[:, 0]
alone = lj.lmm("y ~ age + week + (1 | id)", scans.assign(y=values)).fit()
print(f"{np.isnan(values).sum()} of {len(values)} scans lack it")
print(f"by itself {alone.params['week']:.6f}, in the batch {fits.params['week'].iloc[k]:.6f}")
assert abs(alone.params["week"] - fits.params["week"].iloc[k]) < 1e-6

# %% [markdown]
# ## Maps
#
# `to_img` maps whatever the fits have: t and q of an effect, the share of people in the variance, and how
# many scans a voxel had.

# %%
maps = {
    "t of week": fits.to_img(mask, "week", "t"),
    "t of age": fits.to_img(mask, "age", "t"),
    "share of people (ICC)": fits.to_img(mask, "icc"),
    "scans": fits.to_img(mask, "n"),
}
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
for ax, (name, image) in zip(axes, maps.items(), strict=True):
    # from the side: left is the back of the head
    volume = np.where(inside, image.get_fdata(), np.nan)
    x = int(np.argmax(np.max(by_age if "age" in name else by_week, axis=(1, 2))))
    shown = volume[x].T
    limits = {"cmap": "RdBu_r", "vmin": -8, "vmax": 8} if name.startswith("t of") else {"cmap": "viridis"}
    picture = ax.imshow(shown, origin="lower", **limits)
    ax.set(title=name, xticks=[], yticks=[])
    figure.colorbar(picture, ax=ax, shrink=0.8)
plt.show()

# %%
table = fits.t_tests()
for name, k, effect in (("week", 2, by_week), ("age", 1, by_age)):
    q, effect = table["q"][:, k], effect[inside]
    print(
        f"{name}: {np.mean(q[effect > 0.6] < 0.05):.0%} found in the middle of the blob, "
        f"{np.mean(q[effect < 0.01] < 0.05):.2%} where there is nothing"
    )
    assert np.mean(q[effect < 0.01] < 0.05) < 0.02
assert np.mean(table["q"][:, 2][by_week[inside] > 0.6] < 0.05) > 0.5

# %% [markdown]
# ## Larger than memory
#
# `stream_batch` reads the scans once into a temporary file, fits the voxels in chunks and writes a table,
# which `to_img` maps.

# %%
done = model.stream_batch(images, folder / "week.parquet")
streamed = images.to_img(pd.read_parquet(done.path)[["response", "t:week"]])
assert np.allclose(streamed.get_fdata()[inside], maps["t of week"].get_fdata()[inside], atol=1e-4)
print(f"{done.n_fitted:,} voxels, {done.n_failed} could not be fitted")
