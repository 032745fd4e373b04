"""1,940 heterogeneous stock mice (Valdar et al. 2006, doi:10.1038/ng1840): what GEMMA prints of them.

The data are in the example folder of GEMMA, in Debian the package gemma-doc, and not here. With LMMJAX_MICE
set to that folder these tests take half a minute of CPU time.
"""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

FOLDER = Path(os.environ.get("LMMJAX_MICE", "nowhere"))
PRINTED = json.loads((Path(__file__).parent / "mice" / "gemma.json").read_text())
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="LMMJAX_MICE names no folder")


@pytest.fixture(scope="module")
def mice():
    """Genotypes by label, two traits, and the relationships from what GEMMA's filters leave."""
    table = pd.read_csv(FOLDER / "mouse_hs1940.geno.txt.gz", header=None, skipinitialspace=True)
    traits = pd.read_csv(FOLDER / "mouse_hs1940.pheno.txt.gz", header=None, sep="\t")
    ids = [f"m{k}" for k in range(len(traits))]
    markers = pd.DataFrame(table.iloc[:, 3:].to_numpy(float).T, index=ids, columns=table[0])
    data = pd.DataFrame({"id": ids, "cd8": traits[0], "mch": traits[5]})
    share = markers[data["cd8"].notna().to_numpy()].mean() / 2
    kept = markers.loc[:, np.minimum(share, 1 - share) >= 0.01]
    return markers, data, lj.Kernel.from_markers(kept, method="gemma-centered")


def test_relationships(mice):
    assert np.allclose(mice[2].levels.whole[:3, :3], PRINTED["centered"], atol=5.1e-8)


def test_heritability_of_cd8(mice):
    """GEMMA centres the relationships of the mice that have the trait, once more."""
    _, data, kernel = mice
    data = data.dropna(subset="cd8")
    at = kernel.ids.get_indexer(data["id"])
    inner = kernel.levels.between(at, at)
    inner = inner - inner.mean(axis=0)
    inner = inner - inner.mean(axis=1)[:, None]
    own = lj.Kernel(0.5 * (inner + inner.T), data["id"])
    found = lj.lmm("cd8 ~ 1 + (1 | id)", data, kernels={"id": own}).fit().heritability().loc["id"]
    assert round(found["estimate"], 6) == PRINTED["cd8"]["pve"]
    assert round(found["se"], 6) == PRINTED["cd8"]["se"]


def test_scan_of_cd8(mice):
    markers, data, kernel = mice
    printed = pd.DataFrame(PRINTED["cd8_scan"]).set_index("rs")
    fit = lj.lmm("cd8 ~ 1 + (1 | id)", data, kernels={"id": kernel}).fit()
    found = fit.scan(markers[list(printed.index)], ratio="refit").set_index("marker")
    # its rule ends a step early: see the README of tests/reference/gemma
    assert np.allclose(found["ratio"], printed["l_remle"], rtol=2e-5)
    assert np.max(np.abs(found["effect"] - printed["beta"]) / printed["se"]) < 1e-5
    for mine, theirs in (("se", "se"), ("p_wald", "p_wald")):
        assert np.allclose(found[mine], printed[theirs], rtol=1e-5)


def test_two_traits(mice):
    _, data, kernel = mice
    own = PRINTED["cd8_mch"]
    model = lj.multitrait("cbind(cd8, mch) ~ 1 + (1 | id)", data.dropna(), kernels={"id": kernel})
    table = model.fit().varcorr()
    genetic, left = table[table["group"] == "id"], table[table["group"] == "Residual"]
    vg = [own["vg"][0][0], own["vg"][1][1], own["vg"][0][1]]
    ve = [own["ve"][1][1], own["ve"][0][1], own["ve"][0][0]]
    assert np.allclose(genetic["vcov"], vg, rtol=5e-6)
    assert np.allclose(left["vcov"], ve, rtol=5e-6)
    assert np.allclose(genetic["se"], np.array(own["se_vg"])[[0, 2, 1]], rtol=2e-5)
    assert np.allclose(left["se"], own["se_ve"][::-1], rtol=2e-5)
