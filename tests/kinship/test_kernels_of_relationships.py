"""Kernels of the builders are those of the matrices that they return."""

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

FAMILIES = pd.DataFrame(
    [(f"{f}{k}", f"{f}s", f"{f}d") for f in "abcdef" for k in range(3)],
    columns=["animal", "father", "mother"],
)


def test_pedigrees():
    columns = {"id": "animal", "sire": "father", "dam": "mother"}
    pedigree = lj.Pedigree(FAMILIES, **columns)
    for kernel in (lj.Kernel.from_pedigree(FAMILIES, **columns), lj.Kernel.from_pedigree(pedigree)):
        pd.testing.assert_frame_equal(kernel.matrix, pedigree.additive(), check_names=False)
        # six families
        assert kernel.levels.components.max() == 5
    some = FAMILIES["animal"][::2]
    dominance = lj.Kernel.from_pedigree(pedigree, some, kind="dominance")
    pd.testing.assert_frame_equal(dominance.matrix, pedigree.dominance(some), check_names=False)
    with pytest.raises(ValueError, match="unknown kind"):
        lj.Kernel.from_pedigree(pedigree, kind="epistasis")
    with pytest.raises(ValueError, match="Pedigree already"):
        lj.Kernel.from_pedigree(pedigree, id="animal")


def test_markers():
    x = np.random.default_rng(0).integers(0, 3, (6, 30))
    ids = list("uvwxyz")
    kernel = lj.Kernel.from_markers(x, ids, method="gcta")
    pd.testing.assert_frame_equal(kernel.matrix, lj.grm(x, ids, "gcta"), check_names=False)
