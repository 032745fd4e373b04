"""`Fit.predict` with standard errors and limits: what enters, by the matrices written out."""

import numpy as np
import pandas as pd
import pytest
from fit_data import covariances, matrices
from numpy.testing import assert_allclose
from scipy.stats import t as student

import lmmjax as lj

COLUMNS = ["fit", "se", "lower", "upper"]


@pytest.fixture(scope="module")
def crossed():
    rng = np.random.default_rng(4)
    n = 120
    d = pd.DataFrame({"a": rng.integers(0, 12, n), "b": rng.integers(0, 6, n), "x": rng.normal(size=n)})
    d["y"] = d.x + rng.normal(size=12)[d.a] + rng.normal(size=6)[d.b] + rng.normal(size=n)
    return lj.lmm("y ~ x + (x | a) + (1 | b)", d).fit()


def by_hand(fit, x, a):
    """(x, a)ᵀC(x, a) by Henderson's equations."""
    own, z, g, r, _ = matrices(fit)
    w = np.hstack([own, z])
    coefficients = w.T @ np.linalg.solve(r, w)
    coefficients[own.shape[1] :, own.shape[1] :] += np.linalg.inv(g)
    rows = np.hstack([x, a])
    return np.sum(rows * np.linalg.solve(coefficients, rows.T).T, axis=1)


@pytest.mark.parametrize("name", ["fit", "crossed"])
def test_rows_of_the_fit(name, request):
    """Every row at once, terms of a row together; the same as new rows."""
    fit = request.getfixturevalue(name)
    x, z, *_ = matrices(fit)
    table = fit.predict(se=True)
    assert list(table.columns) == COLUMNS
    assert_allclose(table["fit"], fit.predict(), rtol=1e-12)
    assert_allclose(table["se"] ** 2, by_hand(fit, x, z), rtol=1e-9)
    data = fit.model.frame
    assert table.index.equals(data.index)


def test_unseen_levels_and_parts_of_terms(crossed):
    d = covariances(crossed)
    z = matrices(crossed)[1]
    new = pd.DataFrame({"a": [3, 77], "b": [5, 2], "x": [0.5, -2.0]})
    rows = np.column_stack([np.ones(2), new["x"]])
    effects = np.zeros((2, z.shape[1]))
    effects[0, 6:8] = rows[0]
    effects[[0, 1], [24 + 5, 24 + 2]] = 1.0
    table = crossed.predict(new, se=True, new_levels="population")
    unknown = np.array([0.0, rows[1] @ d[0] @ rows[1]])
    assert_allclose(table["se"] ** 2, by_hand(crossed, rows, effects) + unknown, rtol=1e-9)
    # an intercept of two columns; what is left out is a level drawn anew in a new response
    effects[:, 7] = 0.0
    effects[1] = 0.0
    effects[:, 24:] = 0.0
    for name in ("1|a", "(1 | a)", "~ (1|a)", ["1 | a"]):
        part = crossed.predict(new, se=True, re=name, new_levels="population")
        assert_allclose(
            part["se"] ** 2, by_hand(crossed, rows, effects) + np.array([0.0, d[0][0, 0]]), rtol=1e-9
        )
        value = rows @ crossed.params + [crossed.random_effects["a"].loc[3, "(Intercept)"], 0.0]
        assert_allclose(part["fit"], value, rtol=1e-9)
    response = crossed.predict(new, interval="prediction", re="1|a", new_levels="population", ddf="normal")
    rest = d[1][0, 0] + np.array([rows[0, 1] ** 2 * d[0][1, 1], rows[1] @ d[0] @ rows[1]])
    wanted = by_hand(crossed, rows, effects) + rest
    assert_allclose(response["se"] ** 2, wanted, rtol=1e-9)
    half = 1.959963984540054 * np.sqrt(wanted + crossed.scale)
    assert_allclose(response["upper"] - response["fit"], half, rtol=1e-9)
    assert_allclose(response["fit"] - response["lower"], half, rtol=1e-9)
    with pytest.raises(ValueError, match=r"z is not left of the bar in \(x \| a\)"):
        crossed.predict(new, re="0 + z | a")


def test_the_population_is_that_of_the_tests(fit, sleepstudy):
    """Without random terms: standard errors and degrees of freedom of contrasts, by every method."""
    new = pd.DataFrame({"Days": [0.0, 4.5, 20.0]})
    rows = np.column_stack([np.ones(3), new["Days"]])
    for ddf in ("satterthwaite", "kr", "kenward-roger-sas", "normal"):
        table = fit.predict(new, re="none", se=True, ddf=ddf)
        for row, one in zip(rows, table.itertuples(), strict=True):
            test = fit.test(row, ddf=ddf)
            assert_allclose(one.se, test["se"].iloc[0], rtol=1e-9)
            t = student.ppf(0.95, test["den_df"].iloc[0])
            limits = fit.predict(new, re="none", interval="confidence", ddf=ddf, level=0.9)
            assert_allclose(limits["upper"][one.Index] - one.fit, t * one.se, rtol=1e-7)
    d = covariances(fit)[0]
    marginal = fit.predict(new, re="none", interval="prediction")
    assert_allclose(
        marginal["se"] ** 2,
        np.einsum("kp,pr,kr->k", rows, fit.cov_params().to_numpy() + d, rows),
        rtol=1e-9,
    )
    ml = lj.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy).fit(reml=False)
    again = ml.predict(new, re="none", se=True, ddf="kr")
    assert_allclose(again, fit.predict(new, re="none", se=True, ddf="kr"), rtol=1e-5)
    assert "REML" in again.attrs["note"]


def test_kenward_roger_adds_what_the_variances_cost(fit):
    plain, adjusted = (fit.predict(se=True, ddf=ddf) for ddf in ("satterthwaite", "kr"))
    assert np.all(adjusted["se"] > plain["se"])
    assert_allclose(adjusted["fit"], plain["fit"], rtol=1e-12)


def test_rows_without_predictions(sleepstudy):
    """A cell that does not occur, a missing value: NaN, and the other rows as they are."""
    data = sleepstudy.assign(a=sleepstudy["Days"] % 2, b=sleepstudy["Days"] // 5)
    data = data[(data["a"] == 0) | (data["b"] == 0)]
    fit = lj.lmm("Reaction ~ C(a) * C(b) + (1 | Subject)", data).fit()
    new = pd.DataFrame({"a": [0, 1, 0.0, 0], "b": [0, 1, 1, np.nan], "Subject": [308, 308, 309, 309]})
    with pytest.warns(lj.EstimabilityWarning, match="1 of 4 new rows"):
        table = fit.predict(new, interval="prediction")
    assert list(table.isna().all(axis=1)) == [False, True, False, True]
    assert_allclose(table.iloc[[0]], fit.predict(new.iloc[[0]], interval="prediction"), rtol=1e-12)


def test_what_the_data_leave_open():
    """Two terms of one factor: neither has a standard error, their sum has."""
    rng = np.random.default_rng(0)
    d = pd.DataFrame({"g": np.repeat(np.arange(10), 6), "x": rng.normal(size=60)})
    d["h"] = -d["g"]
    d["y"] = d["x"] + rng.normal(size=10)[d["g"]] + rng.normal(size=60)
    one = lj.lmm("y ~ x + (1 | g)", d).fit()
    with pytest.warns(lj.FitWarning, match="not identified"):
        two = lj.lmm("y ~ x + (1 | g) + (1 | h)", d).fit()
    wanted = one.predict(d[:7], interval="prediction")
    assert_allclose(two.predict(d[:7], interval="prediction"), wanted, rtol=1e-6)
    half = two.predict(d[:7], re="g", interval="confidence")
    assert half.isna().all(axis=None)
    marginal = two.predict(d[:7], re="none", interval="prediction")
    assert_allclose(marginal, one.predict(d[:7], re="none", interval="prediction"), rtol=1e-6)


def test_variances_of_new_residuals():
    rng = np.random.default_rng(2)
    n = 90
    d = pd.DataFrame({"g": np.repeat(np.arange(15), 6), "arm": np.tile([0, 1], 45), "x": rng.normal(size=n)})
    d["w"], d["v"] = rng.uniform(0.5, 2.0, n), rng.uniform(0.5, 2.0, n)
    d["y"] = d["x"] + rng.normal(size=15)[d["g"]] + (1 + d["arm"]) / np.sqrt(d["w"]) * rng.normal(size=n)
    new = d.iloc[[0, 1, 7]].drop(columns="y").assign(w=[1.0, 4.0, 0.25])

    def added(fit, new, **given):
        table = fit.predict(new, interval="prediction", ddf="normal", **given)
        return ((table["upper"] - table["fit"]) / 1.959963984540054) ** 2 - table["se"] ** 2

    weighted = lj.lmm("y ~ x + (1 | g)", d, weights="w").fit()
    assert_allclose(added(weighted, new), weighted.scale / new["w"], rtol=1e-9)
    assert_allclose(added(weighted, new, weights=[2, 2, 2]), weighted.scale / 2, rtol=1e-9)
    fixed = lj.lmm("y ~ x + (1 | g)", d, weights=d["w"]).fit()
    with pytest.raises(ValueError, match="pass weights= for the new rows"):
        fixed.predict(new, interval="prediction")
    assert_allclose(added(fixed, new, weights="w"), weighted.scale / new["w"], rtol=1e-9)
    with pytest.raises(ValueError, match="ask for one of them"):
        fixed.predict(new, se=True, weights="w")
    differ = lj.lmm("y ~ x + (1 | g)", d, residual=lj.VarIdent("arm")).fit()
    ratio = np.where(new["arm"] == 1, differ.estimate.psi[1], 1.0)
    assert_allclose(added(differ, new.drop(columns="w")), differ.scale * ratio**2, rtol=1e-9)
    known = lj.lmm("y ~ x + (1 | g)", d, residual=lj.KnownVariance("v")).fit()
    assert_allclose(added(known, new), new["v"], rtol=1e-9)


def test_kriging_by_the_joint_normal_distribution():
    """Known variances of the residuals enter; a place that was seen is known."""
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"g": np.repeat(np.arange(12), 5), "t": np.tile(np.arange(5.0), 12)})
    d["v"] = rng.uniform(0.5, 2.0, 60)
    d["y"] = rng.normal(size=60).cumsum() * 0.3 + np.sqrt(d["v"]) * rng.normal(size=60)
    fit = lj.lmm("y ~ t", d, residual=lj.CAR1("t", group="g") * lj.KnownVariance("v")).fit()
    new = pd.DataFrame({"g": [0, 4, 99], "t": [2.5, 7.0, 1.0], "v": [2.0, 0.5, 3.0]})
    every = pd.concat([d, new])
    rho = float(fit.estimate.psi[0]) ** (1.0 / fit.model.frame.residual.unit)
    same = every["g"].to_numpy()[:, None] == every["g"].to_numpy()
    gaps = np.abs(every["t"].to_numpy()[:, None] - every["t"].to_numpy())
    sd = np.sqrt(every["v"].to_numpy())
    v = np.where(same, rho**gaps, 0.0) * sd[:, None] * sd
    x, rows = (np.column_stack([np.ones(len(f)), f["t"]]) for f in (d, new))
    solved = np.linalg.solve(v[:60, :60], np.column_stack([v[:60, 60:], x]))
    h = rows.T - x.T @ solved[:, :3]
    value = rows @ fit.params + solved[:, :3].T @ (fit.y - x @ fit.params)
    mspe = np.diag(v[60:, 60:] - v[60:, :60] @ solved[:, :3] + h.T @ fit.cov_params() @ h)
    for interval in ("confidence", "prediction"):
        table = fit.predict(new, kriging=True, interval=interval)
        assert_allclose(table["fit"], value, rtol=1e-9)
        assert_allclose(table["se"] ** 2, mspe, rtol=1e-9)
    # without kriging no group is read
    alone = fit.predict(new[["t", "v"]], interval="prediction", ddf="normal")
    wanted = np.einsum("kp,pr,kr->k", rows, fit.cov_params(), rows) + new["v"]
    assert_allclose((alone["upper"] - alone["fit"]) ** 2, 1.959963984540054**2 * wanted, rtol=1e-9)
    for ddf in ("satterthwaite", "kenward-roger"):
        seen = fit.predict(d[:3], kriging=True, interval="prediction", ddf=ddf)
        assert_allclose(seen["fit"], d["y"][:3], rtol=1e-9)
        # what is known has no error, not one of 1e-17 with limits that are infinite
        assert not seen["se"].any()
        assert (seen["lower"] == seen["fit"]).all()


def test_intervals_cover():
    """Means and new responses in eight groups of five, and in a ninth, for each of 60 responses."""
    rng = np.random.default_rng(11)
    groups, draws = 8, 60
    d = pd.DataFrame({"g": np.repeat(np.arange(groups), 5), "x": np.tile(np.linspace(-1, 1, 5), groups)})
    new = pd.DataFrame({"g": [*range(groups), 99], "x": np.linspace(-2, 2, groups + 1)})
    b = rng.normal(size=(groups + 1, draws))
    y = d["x"].to_numpy()[:, None] + b[d["g"]] + rng.normal(size=(len(d), draws))
    mean = new["x"].to_numpy()[:, None] + b[np.where(new["g"] == 99, groups, new["g"])]
    truth = {"confidence": mean, "prediction": mean + rng.normal(size=mean.shape)}
    fits, found = lj.lmm("~ x + (1 | g)", d).fit_batch(y), dict.fromkeys(truth, 0)
    for k in range(draws):
        one = fits[k]
        for name, values in truth.items():
            table = one.predict(new, interval=name, new_levels="population")
            found[name] += np.sum((table["lower"] <= values[:, k]) & (values[:, k] <= table["upper"]))
    covered = {name: count / (draws * len(new)) for name, count in found.items()}
    assert 0.93 < covered["prediction"] < 0.97, covered
    # the estimation of the variances is left out: with few groups a little too short
    assert 0.91 < covered["confidence"] < 0.97, covered


def test_columns_of_a_factor_depend_on_the_intercept(crossed):
    frame = crossed.model.frame
    d = pd.DataFrame({"a": frame.random[0].codes, "f": np.where(frame.x[:, 1] > 0, "u", "v"), "y": frame.y})
    fit = lj.lmm("y ~ f + (f | a)", d).fit()
    assert fit.predict(d[:2], re="f | a").equals(fit.predict(d[:2]))
    with pytest.raises(ValueError, match=r"because there is an intercept: write 'f \| a'"):
        fit.predict(d[:2], re="0 + f | a")


def test_rows_without_a_random_effect():
    """A row of zeros of Z has the error of x'β̂ alone, wherever it stands."""
    rng = np.random.default_rng(8)
    d = pd.DataFrame({"g": np.repeat(np.arange(8), 6), "x": rng.normal(size=48)})
    d["t"] = np.tile(np.arange(6.0), 8)
    d.loc[d["t"] > 3, "x"] = 0.0
    d["y"] = d["t"] + rng.normal(size=8)[d["g"]] * d["x"] + 0.3 * rng.normal(size=48)
    fit = lj.lmm("y ~ t + (0 + x | g)", d).fit()
    rows = d[d["t"] > 3]
    found, own = fit.predict(rows, se=True), fit.predict(rows, se=True, re="none")
    assert_allclose(found["se"], own["se"])
    shuffled = lj.lmm("y ~ t + (0 + x | g)", d.sample(frac=1, random_state=1)).fit()
    assert_allclose(shuffled.predict(d, se=True)["se"], fit.predict(d, se=True)["se"], rtol=1e-6)


def test_limits_without_degrees_of_freedom_are_infinite_and_said():
    """Six groups whose variances are near zero: nobody knows the variance of a seventh."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": np.repeat(range(6), 4), "x": np.tile(np.arange(4.0), 6)})
    data["y"] = data["x"] + rng.normal(size=6)[data["g"]] * 0.3 + rng.normal(size=24)
    new = pd.DataFrame({"g": [99, 0], "x": [3.0, 3.0]})
    options = {"interval": "confidence", "ddf": "kenward-roger", "new_levels": "population"}
    with pytest.warns(lj.FitWarning, match="singular"):
        fit = lj.lmm("y ~ x + (x | g)", data).fit()
    with pytest.warns(lj.FitWarning, match=r"limits of 1 of 2 predictions are infinite.*re='none'"):
        table = fit.predict(new, **options)
    assert table.iloc[0][["lower", "upper"]].tolist() == [-np.inf, np.inf]
    assert np.isfinite(table.iloc[1]).all()
    # pbkrtest 0.5: standard error 0.4190543 with 5 degrees of freedom
    mean = fit.predict(new, **options, re="none").iloc[0]
    assert_allclose(mean["se"], 0.4190543, rtol=1e-5)
    assert_allclose((mean["upper"] - mean["fit"]) / mean["se"], student.ppf(0.975, 5), rtol=1e-6)
