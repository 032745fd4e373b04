"""Where Z lies in the span of X, REML leaves a variance open: a batch says what a single fit says."""

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

GROUPS, SIZE = 4, 6
RNG = np.random.default_rng(1)
FRAME = pd.DataFrame(
    {
        "h": pd.Categorical(np.repeat(np.arange(GROUPS), SIZE)),
        "x": RNG.normal(size=GROUPS * SIZE),
    }
)
Y = RNG.normal(size=(GROUPS * SIZE, 600))
Y[3, 1] = np.nan


FORMULA = "~ 0 + h + x + (1 | h)"


@pytest.mark.parametrize("lanes", [3, 600])
def test_batches_agree_with_single_fits(lanes):
    model, y = lj.lmm(FORMULA, FRAME), Y[:, :lanes]
    fits = model.fit_batch(y)
    assert fits.unidentified.all()
    for k in (0, 1):
        rows = np.isfinite(y[:, k])
        with pytest.warns(lj.FitWarning, match="not identified"):
            one = lj.lmm("y " + FORMULA, FRAME.assign(y=y[:, k])[rows]).fit()
        table = one.coef_table()
        assert table["se"].isna().tolist() == [True] * GROUPS + [False]
        for what in ("se", "df", "t", "p"):
            np.testing.assert_allclose(fits.t_tests()[what][k], table[what], rtol=1e-5, err_msg=what)
        np.testing.assert_allclose(fits.bse.iloc[k], one.bse, rtol=1e-6)
        kr = fits.t_tests("kr")["se"][k]
        np.testing.assert_allclose(kr, one.coef_table("kr")["se"], rtol=1e-5)
        assert one.unidentified == [name for name in fits.sdcor if np.isnan(fits.sdcor[name].iloc[k])]


def test_rounding_of_a_flat_criterion_is_no_saddle():
    """With weights of their own, products are differences: the curvature is rounding of either sign."""
    y = Y[:, :70]
    weights = np.random.default_rng(5).uniform(0.5, 2.0, y.shape)
    assert lj.lmm(FORMULA, FRAME).fit_batch(y, weights=weights).converged.all()
