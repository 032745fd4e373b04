"""All 998 SNPs that GEMMA 0.98.5 tested on the panel of tests/reference/gemma, by REML and by ML."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.scan import Top

FOLDER = Path(__file__).parent / "gemma"
GEMMA = pd.read_csv(FOLDER / "assoc.csv.gz").set_index("rs")

# relative, from its own stopping rule: see the README there
CLOSE = {"se": 2e-6, "p_wald": 1e-5, "p_lrt": 5e-7, "p_score": 2e-6}


@pytest.fixture(scope="module")
def scans():
    data = np.fromfile(FOLDER / "d.bed", np.uint8)[3:].reshape(-1, 50)
    codes = (data[:, :, None] >> np.array([0, 2, 4, 6])) & 3
    values = np.array([2.0, np.nan, 1.0, 0.0])[codes.reshape(len(data), 200).T]
    people = pd.read_csv(FOLDER / "d.fam", sep=r"\s+", header=None)
    markers = pd.DataFrame(values, index=people[1], columns=[f"rs{k + 1}" for k in range(1000)])
    frame = pd.DataFrame({"id": people[1], "x": np.loadtxt(FOLDER / "cov.txt")[:, 1], "y": people[5]})
    kernel = lj.Kernel.from_markers(markers.drop(columns=["rs172", "rs841"]), method="gemma-centered")
    model = lj.lmm("y ~ x + (1 | id)", frame, kernels={"id": kernel})
    # individuals in another order: labels decide
    moved = markers.iloc[::-1]
    fits = {"reml": model.fit(), "ml": model.fit(reml=False)}
    return {
        name: fit.scan(moved, ratio="refit", maf=0.01, max_missing=0.05) for name, fit in fits.items()
    } | {"top": fits["reml"].scan(moved, ratio="refit", maf=0.01, max_missing=0.05, keep=Top(5))}


def test_the_same_snps_are_left(scans):
    assert list(scans["reml"]["marker"]) == list(GEMMA.index)
    assert len(GEMMA) == 998


@pytest.mark.parametrize("column", CLOSE)
def test_statistics_by_reml(scans, column):
    assert np.allclose(scans["reml"][column], GEMMA[column], rtol=CLOSE[column], atol=0)


def test_effects_ratios_and_likelihoods(scans):
    off = scans["reml"]["effect"].to_numpy() - GEMMA["beta"].to_numpy()
    assert np.max(np.abs(off) / GEMMA["se"].to_numpy()) < 1e-5
    assert np.allclose(scans["reml"]["ratio"], GEMMA["l_remle"], rtol=2e-5, atol=0)
    assert np.allclose(scans["ml"]["ratio"], GEMMA["l_mle"], rtol=2e-5, atol=0)
    assert np.allclose(scans["ml"]["loglik"], GEMMA["logl_H1"], rtol=5e-7, atol=0)


def test_the_strongest_are_among_those_that_were_swept(scans):
    """The five smallest p of likelihood ratios, in markers that GEMMA filters too."""
    whole = scans["reml"].nsmallest(5, "p_lrt").sort_values("marker")
    top = scans["top"].sort_values("marker")
    assert set(top["marker"]) <= set(GEMMA.index)
    assert list(top["marker"]) == list(whole["marker"])
    assert np.allclose(top["p_lrt"], whole["p_lrt"], rtol=1e-8)
