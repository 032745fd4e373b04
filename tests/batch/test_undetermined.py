"""Where Z lies in the span of X, REML leaves a variance open: a batch says what a single fit says."""

import jax
import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.batch import determined

GROUPS, SIZE = 4, 6
RNG = np.random.default_rng(1)
FRAME = pd.DataFrame(
    {
        "h": pd.Categorical(np.repeat(np.arange(GROUPS), SIZE)),
        "x": RNG.normal(size=GROUPS * SIZE),
    }
)
Y = RNG.normal(size=(GROUPS * SIZE, 70))
Y[3, 1] = np.nan


FORMULA = "~ 0 + h + x + (1 | h)"


def test_batches_agree_with_single_fits():
    model, y = lj.lmm(FORMULA, FRAME), Y[:, :3]
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


@pytest.fixture(scope="module")
def arms():
    """Three kinds of rows at every level of a fixed factor: the weights of its means are open."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(4), 7)
    arm = np.where(rng.random(28) < 0.4, "b", "a")
    d = pd.DataFrame({"h": pd.Categorical(g), "g": g, "arm": arm, "x": rng.normal(size=28)})
    return d.assign(y=rng.normal(size=28) + np.array([2.0, 0.0, 1.0, -1.0])[g] + 0.5 * d.x)


WEIGHTED = "~ h + x + (0 + arm | g)"


def test_estimates_that_move_are_missing(arms):
    """By dense algebra: along the open direction the REML criterion stays, the levels move, x does not."""
    with pytest.warns(lj.FitWarning, match=r"not identified.*Intercept, h\[T.1\]"):
        fit = lj.lmm("y " + WEIGHTED, arms).fit()
    levels = ["Intercept", "h[T.1]", "h[T.2]", "h[T.3]"]
    assert fit.unidentified[-4:] == levels
    for table in (fit.coef_table(), fit.coef_table("kr"), fit.conf_int()):
        assert table.loc[levels].isna().all(axis=None)
        assert table.loc["x"].notna().all()
    assert fit.params.isna().tolist() == fit.bse.isna().tolist() == [True] * 4 + [False]
    assert fit.predict(re="none").isna().all()
    assert np.isnan(fit.test("h[T.1] = 0")["estimate"]).all()
    assert "nan" in str(fit.summary())

    x, z = fit.fitted.data.frame.x, np.column_stack([arms.arm == "a", arms.arm == "b"]).astype(float)
    psi = fit.estimate.psi
    direction = fit.estimate.moves[:, np.any(fit.estimate.moves, axis=0)][:, 0]

    def gls(psi):
        a, b, c, s = psi
        v = s * np.eye(28) + (z @ [[a, c], [c, b]] @ z.T) * (arms.g.to_numpy()[:, None] == arms.g.to_numpy())
        f = x.T @ np.linalg.solve(v, x)
        beta = np.linalg.solve(f, x.T @ np.linalg.solve(v, arms.y))
        e = arms.y - x @ beta
        return np.linalg.slogdet(v)[1] + np.linalg.slogdet(f)[1] + e @ np.linalg.solve(v, e), beta

    far = psi + 0.05 * direction * psi[-1] / np.max(np.abs(direction))
    (here, beta), (there, moved) = gls(psi), gls(far)
    assert abs(here - there) < 1e-5 * 0.05
    assert np.abs(beta - moved)[:4].max() > 1e-4
    assert abs(beta[4] - moved[4]) < 1e-7
    assert abs(fit.params["x"] - beta[4]) < 1e-9


def test_batches_miss_the_same_estimates(arms):
    y = np.column_stack([arms.y, arms.y, 3.0 * arms.y + arms.x])
    y[2, 1] = np.nan
    fits = lj.lmm(WEIGHTED, arms).fit_batch(y)
    assert fits.params.isna().to_numpy().tolist() == [[True] * 4 + [False]] * 3
    assert fits.bse.isna().to_numpy().tolist() == [[True] * 4 + [False]] * 3
    assert fits.contrast({"h[T.1]": 1})["estimate"].isna().all()
    # y → 3y + x moves the slope so, and no weight of the levels
    np.testing.assert_allclose(fits.params["x"][2], 3.0 * fits.params["x"][0] + 1.0, rtol=1e-6)


def test_what_is_open_is_decided_in_double_precision(monkeypatch):
    kinds, derivatives = [], determined._derivatives

    def watched(*args):
        kinds.append(str(jax.numpy.zeros(()).dtype))
        return derivatives(*args)

    monkeypatch.setattr(determined, "_derivatives", watched)
    lj.lmm(FORMULA, FRAME).fit_batch(Y[:, :3])
    assert set(kinds) == {"float64"}


def test_a_contrast_that_stands_still_is_given(arms):
    """a = x + level 1, b = x − level 1: both coefficients move, their sum is the slope of x."""
    one = (arms.h == 1).astype(float)
    d = arms.assign(a=arms.x + one, b=arms.x - one, h2=(arms.h == 2) * 1.0, h3=(arms.h == 3) * 1.0)
    other = "~ a + b + h2 + h3 + (0 + arm | g)"
    y = np.column_stack([arms.y, arms.y, np.roll(arms.y, 3)])
    y[2, 1] = np.nan
    slope = lj.lmm(WEIGHTED, arms).fit_batch(y).t_tests()
    fits = lj.lmm(other, d).fit_batch(y)
    assert fits.params.isna().all(axis=None)
    table = fits.contrast({"a": 1, "b": 1})
    for what in ("estimate", "se", "df", "t"):
        np.testing.assert_allclose(table[what], slope[what][:, -1], rtol=1e-4, err_msg=what)
    assert fits.contrast({"a": 1})["estimate"].isna().all()
    tested = fits.test(["a + b = 0", "a = 0"])
    assert tested["F"].isna().all()
    np.testing.assert_allclose(fits.test("a + b = 0")["F"], slope["t"][:, -1] ** 2, rtol=1e-4)


def test_predictions_whose_sum_stands_still_are_given(arms):
    """Levels and their random effects move against each other: of two arms the sum is known.

    By dense algebra at two points of the open direction.
    """
    with pytest.warns(lj.FitWarning, match="not identified"):
        fit = lj.lmm("y " + WEIGHTED, arms).fit()
    x, z = fit.fitted.data.frame.x, np.column_stack([arms.arm == "a", arms.arm == "b"]).astype(float)
    same = arms.g.to_numpy()[:, None] == arms.g.to_numpy()

    def fitted(psi):
        a, b, c, s = psi
        zdz = (z @ [[a, c], [c, b]] @ z.T) * same
        v = s * np.eye(28) + zdz
        beta = np.linalg.solve(x.T @ np.linalg.solve(v, x), x.T @ np.linalg.solve(v, arms.y))
        return x @ beta + zdz @ np.linalg.solve(v, arms.y - x @ beta)

    psi = fit.estimate.psi
    direction = fit.estimate.moves[:, np.any(fit.estimate.moves, axis=0)][:, 0]
    here, there = fitted(psi), fitted(psi + 0.05 * direction * psi[-1] / np.max(np.abs(direction)))
    np.testing.assert_allclose(here, there, atol=1e-6)
    np.testing.assert_allclose(fit.fittedvalues, here, atol=1e-8)
    np.testing.assert_allclose(fit.predict(arms.iloc[:9]), here[:9], atol=1e-8)
    assert fit.resid.notna().all()
    assert fit.predict(re="none").isna().all()
    y = np.column_stack([arms.y, arms.y])
    batch = lj.lmm(WEIGHTED, arms).fit_batch(y)
    np.testing.assert_allclose(batch.predict(arms.iloc[:9]).iloc[1], here[:9], atol=1e-6)


def test_many_lanes_miss_the_same_estimates(arms):
    """More responses than are fitted one by one take mapped programs."""
    rng = np.random.default_rng(8)
    y = rng.normal(size=(28, 520)) + rng.normal(size=(4, 520))[arms.g]
    some = np.array([0, 7, 300, 519])
    many, few = (lj.lmm(WEIGHTED, arms).fit_batch(v) for v in (y, y[:, some]))
    row = {"x": 1.0}
    assert many.params.isna().to_numpy()[some].tolist() == few.params.isna().to_numpy().tolist()
    assert few.params.isna().any(axis=None)
    for what in ("estimate", "se", "df"):
        one, other = (fits.contrast(row)[what].to_numpy() for fits in (many, few))
        np.testing.assert_allclose(one[some], other, rtol=1e-4, err_msg=what)
    np.testing.assert_array_equal(np.isnan(many.bse)[["x"]].iloc[some], np.isnan(few.bse)[["x"]])
