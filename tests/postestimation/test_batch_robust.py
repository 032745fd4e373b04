"""Robust covariances of many responses against those of their fits one by one."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.inference.robust.sandwich import KINDS
from lmmjax.postestimation.hypotheses import batch_robust

T = 7


def made():
    """Twenty groups of one to six rows, some of equal design; responses with rows and a group missing."""
    rng = np.random.default_rng(0)
    size = rng.integers(1, 7, 20)
    size[:6] = 4
    g = np.repeat(np.arange(20), size)
    t = np.concatenate([np.arange(s) for s in size])
    data = pd.DataFrame(
        {
            "g": g,
            "t": t.astype(float),
            "a": np.where(np.arange(20) % 2, "u", "v")[g],
            "h": 10 * g + t // 2,
            "site": g // 4,
            "w": rng.uniform(0.5, 2.0, len(g)),
            "kind": np.where(t % 2, "p", "q"),
        }
    )
    y = rng.normal(size=(len(g), T)) + rng.normal(size=(20, T))[g]
    y[3, 1] = y[3, 5] = np.nan
    y[g == 2, 3] = np.nan
    return data, y


DATA, Y = made()
MODELS = {
    "equal weights": ("~ t + a + (1 | g)", {}, None),
    "weights, nested": ("~ t + a + (1 | g) + (1 | h)", {"weights": "w", "offset": "w"}, DATA["site"]),
    "a structured term": ("~ t + a + cs(0 + kind | g)", {}, None),
}


@pytest.mark.parametrize("model", MODELS)
def test_as_one_by_one(model, monkeypatch):
    """Standard errors and degrees of freedom of all kinds, with designs in common and without."""
    monkeypatch.setattr(batch_robust, "FEW", 1)
    formula, options, cluster = MODELS[model]
    fits = lj.lmm(formula, DATA, **options).fit_batch(Y)
    singles = [fits[k] for k in range(T)]
    for kind in KINDS:
        found, covs = fits.t_tests(robust=kind, cluster=cluster), fits.cov_params(kind, cluster)
        tables = [fit.coef_table(robust=kind, cluster=cluster) for fit in singles]
        for name in ("se", "df", "p"):
            assert_allclose(found[name], [table[name] for table in tables], rtol=1e-9)
        assert_allclose(covs, [fit.cov_params(kind, cluster) for fit in singles], rtol=1e-8, atol=1e-12)
    if model == "equal weights":
        contrast = fits.contrast("t - a[T.v]", robust="CR2")
        row = singles[0].test("t - a[T.v]", robust="CR2").iloc[0]
        assert_allclose(
            contrast.iloc[0][["estimate", "se", "df", "p"]],
            row[["estimate", "se", "den_df", "p"]].astype(float),
        )
        top = fits.top("t", T, robust="CR2")
        assert_allclose(top.loc[list(range(T)), "se"], fits.t_tests(robust="CR2")["se"][:, 1])
        limits = singles[2].conf_int(robust="CR2")
        assert_allclose(fits.conf_int(robust="CR2").loc[2].to_numpy(), limits.to_numpy().ravel())
        normal = fits.t_tests("normal", robust="CR2")
        assert np.isinf(normal["df"]).all()


def test_weights_of_responses_and_what_one_cluster_determines():
    """Where one site has a level of `kind` alone, neither it nor the intercept has a robust error."""
    y, weights = Y[:, [0, 4]].copy(), np.ones((len(Y), 2))
    weights[:, 0] = DATA["w"]
    y[(DATA["kind"] == "p") & (DATA["site"] > 0), 1] = np.nan
    fits = lj.lmm("~ t + kind + (1 | g)", DATA).fit_batch(y, weights=weights)
    found = fits.t_tests(robust="CR2", cluster=DATA["site"])
    own = fits[0].coef_table(robust="CR2", cluster=DATA["site"])
    assert_allclose(found["se"][0], own["se"], rtol=1e-9)
    assert np.isnan(found["se"][1]).tolist() == [True, False, True]
    with pytest.warns(lj.EstimabilityWarning, match=r"Intercept; kind\[T.q\]"):
        single = fits[1].coef_table(robust="CR2", cluster=DATA["site"])
    assert_allclose(found["se"][1], single["se"], rtol=1e-9)
