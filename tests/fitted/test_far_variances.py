"""Variances that differ by many powers of ten: found, the same alone and in a batch, or said to be lost."""

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

RNG = np.random.default_rng(2)
GROUPS, SIZE = 20, 5
G = np.repeat(np.arange(GROUPS), SIZE)
FRAME = pd.DataFrame({"g": G, "x": RNG.normal(size=G.size), "t": np.tile(np.arange(SIZE), GROUPS)})


def test_a_large_variance_of_one_level_does_not_hide_small_ones_of_others():
    """Least squares leave a part of the large residuals in the others: 30 rows a level, 7 powers of ten."""
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"g": np.repeat(np.arange(15), 6), "v": np.tile(list("abc"), 30)})
    d["x"] = rng.normal(size=90)
    y = (rng.normal(size=(90, 2)) + rng.normal(size=(15, 2))[d.g]) * np.where(d.v == "a", 1e7, 1.0)[:, None]
    structure = lj.VarIdent("v")
    fits = lj.lmm("~ x + (1 | g)", d, residual=structure).fit_batch(y)
    assert fits.converged.all()
    for levels in (list("abc"), list("cab")):
        data = d.assign(y=y[:, 0], v=pd.Categorical(d.v, categories=levels))
        one = lj.lmm("y ~ x + (1 | g)", data, residual=structure).fit()
        assert one.converged
        assert abs(one.deviance - fits.deviance[0]) < 1e-8


@pytest.mark.parametrize(
    "structure",
    [
        lj.Unstructured("t", group="g"),
        lj.CompoundSymmetry(group="g") * lj.VarIdent("t"),
        lj.Symmetric("t", group="g") * lj.VarIdent("t"),
    ],
    ids=["un", "csh", "unr"],
)
def test_residuals_that_are_all_but_equal_within_groups_are_named(structure):
    """Correlations of 1 − 1e-8: of 16 digits of R none is left where its square is needed."""
    d = FRAME[FRAME.t < 3]
    rng = np.random.default_rng(4)
    y = rng.normal(size=GROUPS)[d.g] + 1e-4 * rng.normal(size=len(d))
    same = rng.normal(size=GROUPS)[d.g]
    model = lj.lmm("~ x", d, residual=structure)
    with pytest.warns(UserWarning, match="2 of 3 responses could not be fitted"):
        fits = model.fit_batch(np.column_stack([y, rng.normal(size=len(d)), same]))
    # where nothing varies within groups that is seen
    assert list(fits.status) == ["too_few_digits", "converged", "perfect_fit"]
    assert "random effect" in fits.reasons.iloc[0]
    with pytest.warns(lj.FitWarning, match="so many powers of ten, or residuals"):
        one = lj.lmm("y ~ x", d.assign(y=y), residual=structure).fit()
    assert not one.converged
    assert "rounding hides" in one.status
