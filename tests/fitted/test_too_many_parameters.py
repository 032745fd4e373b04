"""More parameters than the data can carry are refused with what to do."""

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj


def rows(groups, visits):
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(groups), visits), "v": np.tile(np.arange(visits), groups)}
    )
    return frame.assign(y=np.random.default_rng(1).normal(size=groups * visits), arm=frame["id"] % 2)


@pytest.mark.parametrize(
    ("frame", "formula", "residual", "message"),
    [
        (
            rows(1, 40),
            "y ~ 1",
            lj.Unstructured("v", group="id"),
            "1 groups cannot tell .* 40",
        ),
        (rows(4, 5), "y ~ 1", lj.Symmetric("v", group="id"), "4 groups cannot tell the covariances of 5"),
        (rows(8, 5), "y ~ 1", lj.Unstructured("v", group="id", by="arm"), "or no by="),
        (rows(20, 5), "y ~ 1", lj.ARMA("v", p=20, group="id"), "at most 4 steps apart, .* lower p and q"),
        (rows(20, 1), "y ~ 1", lj.CompoundSymmetry(group="id"), "every group has one row"),
        (rows(1, 9), "y ~ 1", lj.VarIdent("v"), "9 covariance parameters and 1 fixed effects for 9"),
        (rows(2, 4), "y ~ 1 + (1 | v)", lj.Toeplitz("v", group="id") * lj.VarIdent("v"), "more than these"),
    ],
)
def test_refused(frame, formula, residual, message):
    with pytest.raises(ValueError, match=message):
        lj.lmm(formula, frame, residual=residual)


def test_responses_whose_squares_are_no_doubles():
    model = lj.lmm("y ~ arm + (1 | id)", rows(12, 4))
    y = model.frame.y
    for far in (1e155, 1e-155):
        with pytest.raises(ValueError, match="whose square is not a double: divide it"):
            model.fit_response(far * y)
    with pytest.warns(UserWarning, match="2 of 3 responses could not be fitted"):
        fits = model.fit_batch(np.stack([1e155 * y, y, 1e-155 * y], axis=1))
    assert fits.status.tolist() == ["not_finite", "converged", "not_finite"]


def test_collinear_slopes_are_named():
    frame = rows(12, 6).assign(twice=lambda f: 2.0 * f["v"] + 1.0)
    with pytest.warns(
        lj.FitWarning, match=r"the columns of \(v \+ twice \| id\) depend on each other: drop twice"
    ):
        lj.lmm("y ~ 1 + (v + twice | id)", frame).fit()


def test_cost_of_spatial_residuals():
    costs = []
    for visits in (20, 40):
        frame = rows(3, visits).assign(t=np.random.default_rng(2).uniform(size=3 * visits))
        model = lj.lmm("y ~ 1", frame, residual=lj.Gaussian("t", group="id", nugget=True))
        costs.append(model.structure().operations)
    # matrices of the rows are inverted
    assert costs[0] > 3 * 20**3
    assert 6 < costs[1] / costs[0] < 9
