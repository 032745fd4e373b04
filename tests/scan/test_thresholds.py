"""Thresholds by permutation, and pictures of scans."""

import jax
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

import lmmjax as lj
from lmmjax import plot

mpl.use("Agg")
RNG = np.random.default_rng(2)
N, M = 50, 30
IDS = [f"i{k}" for k in range(N)]
G = pd.DataFrame(RNG.integers(0, 3, (N, M)).astype(float), index=IDS)
HALF = RNG.normal(size=(N, 80))
FITS = lj.lmm(
    "~ 1 + (1 | id)", pd.DataFrame({"id": IDS}), kernels={"id": lj.Kernel(HALF @ HALF.T / 80, IDS)}
).fit_batch(pd.DataFrame(RNG.normal(size=(N, 3)), columns=list("abc")))


def test_thresholds_are_those_of_independent_markers():
    """Of M markers the strongest has p < 1 − 0.95^(1/M); a tenth of the LOD is the error of 2,000 draws."""
    found = FITS.scan_threshold(G, jax.random.key(3), 2000)
    assert list(found["response"]) == list("abc")
    # ρ² of noise is beta(1/2, (n − p − 1)/2)
    share = beta.isf(1 - 0.95 ** (1 / M), 0.5, (N - 2) / 2)
    assert np.allclose(found["lod"], -N * np.log1p(-share) / (2 * np.log(10)), rtol=0.1)
    again = FITS.scan_threshold(G, jax.random.key(3), 2000)
    pd.testing.assert_frame_equal(found, again)


def test_pictures_place_markers_by_chromosome():
    table = FITS["a"].scan(G)
    chromosome, position = ["1"] * 10 + ["2"] * 20, list(range(10)) + list(range(20))
    ax = plot.plot_manhattan(table, chromosome=chromosome, position=position)
    first, second = ax.lines[0].get_xdata(), ax.lines[1].get_xdata()
    assert (len(first), len(second)) == (10, 20)
    assert max(first) < min(second)
    assert np.allclose(ax.lines[1].get_ydata(), -np.log10(table["p_wald"][10:]))
    ax = plot.plot_lod(table, threshold=3.0)
    assert np.allclose(ax.lines[0].get_ydata(), table["lod"])
    with pytest.raises(ValueError, match="3 responses: take one"):
        plot.plot_lod(FITS.scan(G))
    with pytest.raises(ValueError, match="chromosome has 1 values for 30 rows"):
        plot.plot_lod(table, chromosome=["1"])
    mpl.pyplot.close("all")
