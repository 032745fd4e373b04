"""Profiles with structures: at their ends the dense likelihood has risen, and is flat in all else."""

import numpy as np
import pandas as pd
import pytest
import structure_data as explicit
from numpy.testing import assert_allclose
from scipy import stats

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core import ProblemMaker
from lmmjax.covariance import FAMILIES, family
from lmmjax.fitted import components, sd_scale
from lmmjax.inference.profile.axes import Target
from lmmjax.inference.profile.constrained import Chart, natural
from lmmjax.inference.profile.layout import Axes
from lmmjax.inference.profile.surface import endpoint
from lmmjax.postestimation.parameters.profiles import surface

LEVEL, RISE = stats.norm.ppf(0.95), stats.chi2.ppf(0.9, 1)


def visits(n_id=14, size=4):
    """Rows of subjects in groups of two, some visits missing, correlated and of unequal variance."""
    rng = np.random.default_rng(4)
    d = pd.DataFrame({"id": np.repeat(np.arange(n_id), size), "t": np.tile(np.arange(size), n_id)})
    root = np.linalg.cholesky(0.5 ** np.abs(np.subtract.outer(np.arange(size), np.arange(size))))
    d["sex"], d["f"], d["x"] = np.where(d["id"] % 2, "f", "m"), d["t"].astype(str), rng.normal(size=len(d))
    e = (rng.normal(size=(n_id, size)) @ root.T).ravel() * np.where(d["sex"] == "f", 1.5, 1.0)
    return d.assign(y=1 + 0.5 * d["x"] + e, g=d["id"] // 2).drop(index=[3, 17, 30]).reset_index(drop=True)


DATA = visits()
FEW = DATA[DATA["t"] < 3]
MODELS = {
    "AR1 * VarIdent": (("y ~ x", DATA, lj.AR1("t", group="id") * lj.VarIdent("sex")), ("Phi",)),
    "Unstructured": (("y ~ x", FEW, lj.Unstructured("t", group="id")), ("cov(0, 2)",)),
    "Toeplitz": (("y ~ x", DATA, lj.Toeplitz("t", group="id")), ("cor2",)),
}
CASES = [(model, name) for model, (_, names) in MODELS.items() for name in names]


@pytest.fixture(scope="module")
def fitted():
    made = {}

    def get(model):
        if model not in made:
            (formula, data, residual), _ = MODELS[model]
            made[model] = lj.lmm(formula, data, residual=residual).fit(reml=False)
        return made[model]

    return get


def deviance(design, y, values):
    """−2ℓ at ψ (m + 1,) and β (p,), stacked."""
    psi, beta = values[: -design.p], values[-design.p :]
    v = psi[-1] * explicit.matrix(design, design.structure.relative(psi))
    r = y - design.x @ beta
    return np.linalg.slogdet(2 * np.pi * v)[1] + r @ np.linalg.solve(v, r)


@pytest.mark.parametrize(("model", "name"), CASES)
def test_ends_of_a_profile(fitted, model, name):
    """Where the deviance has risen by χ²₁'s quantile its derivatives in all other parameters vanish."""
    fit = fitted(model)
    design, own = fit.model.data.design, surface(fit.fitted, [name], None)
    held = list(fit.conf_int(which="all").index).index(name)
    assert_allclose(own.value(0, own.coordinate(0, own.value(0, own.best[0]))), own.value(0, own.best[0]))
    for side in (-1, 1):
        end = endpoint(own, side, LEVEL)
        values = np.concatenate(own.parameters(end.point))
        reported = np.sqrt(values[held]) if name == "sigma" or name.startswith("sd_") else values[held]
        assert_allclose(end.value, reported, rtol=1e-9)
        assert (end.value - own.value(0, own.best[0])) * side > 0
        assert_allclose(deviance(design, fit.y, values) - fit.deviance, RISE, rtol=1e-7)
        for k in range(len(values)):
            step = 1e-4 * max(abs(values[k]), 0.1) * (np.arange(len(values)) == k)
            up, down = (deviance(design, fit.y, values + sign * step) for sign in (1, -1))
            slope = (up - down) / 2e-4
            assert (abs(slope) > 0.05) if k == held else abs(slope) < 1e-4, (k, slope)


def test_ends_on_a_boundary(fitted):
    """A level that no correlation reaches: the end of its range, and said so."""
    fit = fitted("AR1 * VarIdent")
    own = surface(fit.fitted, ["Phi"], None)
    far = endpoint(own, 1, 1e3)
    assert (far.value, far.boundary) == (1.0, True)
    assert_allclose(own.value(0, far.at), 1.0, atol=1e-7)


def coordinates():
    """Every family of residuals and random effects, of three visits and three columns."""
    for name, correlation in explicit.CASES.items():
        yield name, {"correlation": correlation, "visits": 3, "sizes": (3,) * 8}
    for name, variances in explicit.VARIANCE_CASES.items():
        yield name, {"variances": variances}
    for name in FAMILIES:
        yield name, {"terms": ((family(name), 3),)}


COORDINATES = dict(coordinates())


@pytest.mark.parametrize("name", COORDINATES)
def test_every_parameter_is_a_coordinate(name, x64):
    """ψ comes back from the coordinates, and with one of them moved its parameter is what the axis says."""
    rng = np.random.default_rng(2)
    design = explicit.design(rng, **COORDINATES[name])
    structure, y = design.structure, 3.0 * rng.normal(size=design.n)
    problem = ProblemMaker(design)(y, False)
    d = np.asarray(explicit.decoder(structure)(explicit.random_theta(rng, design))[0])
    psi = np.append(d * 1.7**structure.powers, 1.7)
    outward = np.asarray(structure.entry_map(problem.basis.outward))
    for k, (target, value) in enumerate(targets(structure, psi)):
        laid = Axes(problem, psi, [target])
        chart = Chart(laid.maps, laid.radius, laid.angle, laid.bends, np.eye(2), np.zeros(2))
        axis = laid.axes[0]
        assert_allclose(axis.value(laid.x[axis.at]), value(psi), rtol=1e-9)
        assert_allclose(axis.coordinate(value(psi)), laid.x[axis.at], rtol=1e-8, atol=1e-9)
        for step in (0.0, 0.01):
            x = laid.x + step * (np.arange(len(laid.x)) == axis.at)
            at = np.asarray(coordinates_jit(x, chart, problem))
            sigma2 = problem.origin.scale**2 * np.exp(at[-1])
            there = np.append(sigma2**structure.powers * (outward @ at[:-1]), sigma2)
            if not step:
                assert_allclose(there, psi, rtol=1e-8, atol=1e-10)
            assert_allclose(value(there), axis.value(x[axis.at]), rtol=1e-8), (k, step)


coordinates_jit = quick_jit(natural)


def targets(structure, psi):
    """Every parameter as a target, and how it is read of ψ."""
    rows = components(structure, ["g"] * len(structure.terms), [("a", "b", "c")] * len(structure.terms))
    for k, row in enumerate(rows):
        if row.kind == "sigma":
            yield Target("sigma", -1), lambda psi: np.sqrt(psi[-1])
        elif row.parameter is not None:
            root = row.kind == "variance"
            yield Target("parameter", -1, k), lambda psi, k=k, root=root: np.sqrt(psi[k]) if root else psi[k]
        else:
            kind = {"variance": "sd", "covariance": "cor"}[row.kind]
            yield Target(kind, row.term, row.i, row.j), lambda psi, k=k: sd_scale(psi, rows)[0][k]


def test_known_variances():
    """The same as prior weights with σ held: σ has no profile, the others have."""
    d = DATA.assign(v=0.3 + 0.2 * DATA["t"])
    fit = lj.lmm("y ~ x + (1 | id)", d, residual=lj.KnownVariance("v")).fit(reml=False)
    limits = fit.conf_int("profile", 0.9, "all")
    assert limits.loc["sigma"].isna().all()
    own = surface(fit.fitted, ["sd_(Intercept)|id"], None)
    for value in limits.loc["sd_(Intercept)|id"]:
        found, _ = own.locate(np.array([own.coordinate(0, value)]))
        psi, beta = own.parameters(found)
        v = np.diag(d["v"]) + psi[0] * (d["id"].to_numpy()[:, None] == d["id"].to_numpy())
        assert psi[-1] == pytest.approx(1.0)
        r = fit.y - fit.model.frame.x @ beta
        rise = np.linalg.slogdet(2 * np.pi * v)[1] + r @ np.linalg.solve(v, r) - fit.deviance
        assert_allclose(rise, RISE, rtol=1e-7)
    with pytest.raises(ValueError, match="'sigma' is known"):
        fit.profile("sigma")


def test_no_joint_profile_of_one_matrix(fitted):
    with pytest.raises(ValueError, match="two parameters of one free matrix"):
        fitted("Unstructured").contour("var(1)", "sigma")
