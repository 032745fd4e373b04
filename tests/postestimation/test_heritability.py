"""Proportions of variance beside direct formulas, bootstrap and a grid; published breeding values."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest
from published_data import CALVES, PEDIGREE
from scipy import optimize

import lmmjax as lj
from lmmjax.fitted.values import _nearby
from lmmjax.postestimation.parameters import heritability as module

N = 48
RNG = np.random.default_rng(12)
IDS = [f"i{k}" for k in range(N)]
HALF = RNG.normal(size=(N, 60))
K = HALF @ HALF.T / 40
KERNEL = lj.Kernel(K, IDS, name="A")
DATA = pd.DataFrame({"id": IDS, "x": RNG.normal(size=N), "env": list("abc") * 16})
U, E = np.linalg.cholesky(K) @ RNG.normal(size=(N, 8)), RNG.normal(size=(N, 8))
# from none of the kernel to all of it
Y = U * np.array([0, 0.2, 0.6, 1, 1, 1, 1, 3]) + E * np.array([1, 1, 1, 1, 0.7, 0.5, 0.2, 0.01])
MODEL = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": KERNEL})


@pytest.fixture(scope="module")
def fits():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        return MODEL.fit_batch(Y)


def test_shares_are_what_they_are_said_to_be(fits):
    psi = fits.estimate.psi
    centre = np.eye(N) - 1 / N
    for scale, gain in (
        ("diagonal", np.trace(K) / N),
        ("sample", np.trace(centre @ K) / (N - 1)),
        ("ratio", 1.0),
    ):
        own = fits.heritability(scale=scale)
        assert np.allclose(own["estimate"], psi[:, 0] * gain / (psi[:, 0] * gain + psi[:, 1]), rtol=1e-12)
        assert np.allclose(own["variance"], psi[:, 0] * gain, rtol=1e-12)
    # a constant in the kernel is none of the rows' differences
    moved = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": lj.Kernel(K + 3, IDS)}).fit_batch(Y[:, 3:5])
    one, two = (f.heritability(scale="sample")["estimate"] for f in (moved, fits))
    assert np.allclose(one, two[3:5], rtol=1e-6)
    assert list(fits.heritability()["bound"]) == list(fits.bound)
    assert np.array_equal(fits.heritability()["se"].isna(), fits.bound != "")


def test_one_fit_is_a_row_of_the_batch(fits):
    y = Y.copy()
    y[[2, 9], 4], y[7, 5] = np.nan, np.nan
    gaps = MODEL.fit_batch(y[:, 4:6])
    for batch, k in ((fits, 3), (fits, 4), (gaps, 0), (gaps, 1)):
        table = batch[k].heritability()
        assert list(table.index) == ["id", "Residual"]
        assert list(table.columns) == ["estimate", "se", "lower", "upper", "variance", "bound"]
        numbers = ["estimate", "se", "lower", "upper", "variance"]
        found = batch.heritability().loc[k, numbers].astype(float)
        # an optimum leaves 1e-7 of a share open
        assert np.allclose(table.loc["id", numbers].astype(float), found, rtol=1e-5)
        rest = batch.heritability("Residual").loc[k, numbers].astype(float)
        assert np.allclose(table.loc["Residual", numbers].astype(float), rest, rtol=1e-5)
        assert table.attrs["method"] == "profile"


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_limits_are_where_the_criterion_has_risen(fits, reml):
    """Dense algebra at the limits; at an end the criterion has not risen so far."""
    x, nu = MODEL.frame.x, N - 2 * reml
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        own = fits if reml else MODEL.fit_batch(Y, reml=False)
    table = own.heritability(scale="ratio", level=0.9)

    def value(h, y):
        v = h * K + (1 - h) * np.eye(N)
        inverse = np.linalg.inv(v)
        xx = x.T @ inverse @ x
        r2 = y @ inverse @ y - y @ inverse @ x @ np.linalg.solve(xx, x.T @ inverse @ y)
        logdet = np.linalg.slogdet(v)[1] + reml * np.linalg.slogdet(xx)[1]
        return logdet + nu * (1 + np.log(2 * np.pi * r2 / nu))

    ended = {"lower": 0, "upper": 0}
    for k, row in table.iterrows():
        for side, end in (("lower", 0.0), ("upper", 1.0)):
            rise = value(row[side], Y[:, k]) - own.deviance[k]
            if row[side] == end:
                ended[side] += 1
                assert rise <= 2.70554345
            else:
                assert rise == pytest.approx(2.7055434540954, abs=1e-6)
    assert min(ended.values()) > 0


def test_profiles_over_other_shares_are_those_of_one_ratio(fits, monkeypatch):
    fit = fits[3]
    one = fit.heritability(level=0.8)
    monkeypatch.setattr(module, "_has_profile", lambda *_: False)
    two = fit.heritability(level=0.8, method="profile")
    # its search ends within 1e-5 of a logit
    assert np.allclose(one[["lower", "upper"]], two[["lower", "upper"]], atol=1e-5)


def test_limits_beside_other_terms_are_where_the_criterion_has_risen():
    """Two kernels; the other shares minimised by SciPy on dense matrices."""
    rng = np.random.default_rng(8)
    second = 0.3 ** np.abs(np.subtract.outer(np.arange(N), np.arange(N)))
    parts, data = [K, second, np.eye(N)], DATA.assign(y=U[:, 1] + rng.normal(size=N))
    kernels = {"id": {"A": KERNEL, "S": lj.Kernel(second, IDS)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        fit = lj.lmm("y ~ x + (1 | id)", data, kernels=kernels).fit()
    table = fit.heritability(method="profile", scale="ratio", level=0.9)
    assert list(table.index) == ["id[A]", "id[S]", "Residual", "repeatability"]
    assert np.array_equal(table["lower"] <= table["estimate"], table["estimate"] <= table["upper"])
    x, y = MODEL.frame.x, data["y"].to_numpy()

    def value(shares):
        v = sum(share * part for share, part in zip(shares, parts, strict=True))
        inverse = np.linalg.inv(v)
        xx = x.T @ inverse @ x
        r2 = y @ inverse @ y - y @ inverse @ x @ np.linalg.solve(xx, x.T @ inverse @ y)
        logdet = np.linalg.slogdet(v)[1] + np.linalg.slogdet(xx)[1]
        return logdet + (N - 2) * (1 + np.log(2 * np.pi * r2 / (N - 2)))

    def rise(inside, s):
        outside = [k for k in range(3) if k not in inside]
        pair, whole = (inside, s) if len(inside) == 2 else (outside, 1 - s)

        def at(share):
            out = np.full(3, 1 - whole)
            out[pair] = whole * np.array([share, 1 - share])
            return value(out)

        found = optimize.minimize_scalar(at, bounds=(0, 1), method="bounded", options={"xatol": 1e-8})
        return min(found.fun, at(0.0), at(1.0)) - fit.deviance

    ended = 0
    for name, inside in (("id[A]", [0]), ("Residual", [2]), ("repeatability", [0, 1])):
        for side, end in (("lower", 0.0), ("upper", 1.0)):
            limit = table.loc[name, side]
            if limit == end:
                ended += 1
                assert rise(inside, abs(end - 1e-7)) <= 2.70554345 + 1e-5
            else:
                assert rise(inside, limit) == pytest.approx(2.7055434540954, abs=1e-5)
    assert ended < 6


def test_permanent_environment_and_litters():
    data = pd.concat([DATA.assign(litter=[f"l{k % 7}" for k in range(N)])] * 2, ignore_index=True)
    rng = np.random.default_rng(3)
    data["y"] = np.tile(U[:, 0] + rng.normal(size=N), 2) + rng.normal(size=2 * N)
    kernels = {"id": [KERNEL, None]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        fit = lj.lmm("y ~ x + (1 | id) + (1 | litter)", data, kernels=kernels).fit()
    table = fit.heritability()
    assert list(table.index) == ["id[A]", "id", "litter", "Residual", "repeatability"]
    share = table["estimate"]
    assert share.iloc[:4].sum() == pytest.approx(1)
    assert share["repeatability"] == pytest.approx(share["id[A]"] + share["id"])
    # the same of a function of the parameters by its own derivatives
    gain = np.trace(K) / N

    def by_hand(p):
        parts = [p[name] ** 2 for name in ("sd_(Intercept)|id[A]", "sd_(Intercept)|id", "sigma")]
        litter = p["sd_(Intercept)|litter"] ** 2 if table["bound"]["litter"] == "" else 0.0
        whole = parts[0] * gain + parts[1] + parts[2] + litter
        return [parts[0] * gain / whole, (parts[0] * gain + parts[1]) / whole]

    delta = fit.delta(by_hand)
    assert np.allclose(table.loc[["id[A]", "repeatability"], "se"], delta["se"], rtol=1e-8)
    by = fit.heritability(by="env", scale="ratio")
    assert np.allclose(by.xs("a")["estimate"], by.xs("b")["estimate"])
    with pytest.raises(ValueError, match="profiles are of shares of all rows"):
        fit.heritability(by="env", method="profile")
    with pytest.raises(ValueError, match="no column 'envv'"):
        fit.heritability(by="envv")


def test_errors_are_those_of_a_parametric_bootstrap():
    """800 draws where the share is far from its ends."""
    rng = np.random.default_rng(1)
    n = 160
    families = np.kron(np.eye(n // 8), 0.5 + 0.5 * np.eye(8))
    model = lj.lmm(
        "~ 1 + (1 | id)",
        pd.DataFrame({"id": np.arange(n)}),
        kernels={"id": lj.Kernel(families, np.arange(n))},
    )
    y = np.linalg.cholesky(families) @ rng.normal(size=n) + rng.normal(size=n) * 0.7
    fit = model.fit_response(y)
    share = fit.heritability()
    draws = model.simulate(jax.random.key(4), np.zeros(n), fit.estimate.psi, 800)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        drawn = model.fit_batch(draws).heritability()
    inner = drawn["estimate"]
    # the error of a standard deviation of 800 is 2.5 %; the delta method's own is of the order 1/families
    assert share["se"]["id"] == pytest.approx(inner.std(), rel=0.2)
    truth = share["estimate"]["id"]
    covered = np.mean((drawn["lower"] <= truth) & (truth <= drawn["upper"]))
    # three standard errors of a share of 0.95
    assert abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 800) + 0.01


def test_no_kernel():
    fit = lj.lmm("y ~ x + (1 | env)", DATA.assign(y=Y[:, 0] + DATA["env"].map({"a": 0, "b": 3, "c": 7})))
    with pytest.raises(ValueError, match=r"no term of this model has a kernel.*icc"):
        fit.fit().heritability()


def at(model, y, psi):
    """Modes of a model at given variances."""
    with jax.enable_x64(True):
        return [
            {name: np.asarray(getattr(modes, name)) for name in ("b", "mspe")}
            for modes in _nearby(model.expanded(np.asarray(y), True), np.asarray(psi)).modes
        ]


def test_published_breeding_values_of_one_trait():
    """Example 3.1, with the digits that BLUPF90 prints: github.com/masuday/Blupf90TutorialStandard."""
    kernel = lj.Kernel.from_pedigree(PEDIGREE, ids=np.arange(1, 9))
    model = lj.lmm("wwg ~ sex + (1 | calf)", CALVES, kernels={"calf": kernel})
    modes = at(model, CALVES["wwg"], [20.0, 40.0])[0]
    published = [0.098, -0.019, -0.041, -0.009, -0.186, 0.177, -0.249, 0.183]
    assert np.array_equal(np.round(modes["b"][:, 0], 3), published)
    value = [9844458, -1877010, -4108420, -866312, -18573210, 17687209, -24945855, 18261469]
    error = [4.34094096, 4.43664612, 4.27297922, 4.13608581, 4.13814812, 4.20610397, 4.20407502, 4.11029997]
    assert np.allclose(modes["b"][:, 0], np.array(value) * 1e-8, rtol=0, atol=5.1e-9)
    # one of its errors is off by four of the last digit that is printed
    assert np.allclose(np.sqrt(modes["mspe"][:, 0, 0]), error, rtol=0, atol=5e-8)


def test_published_breeding_values_and_permanent_environments():
    """Example 4.1: five cows with two lactations each."""
    cows = pd.DataFrame(
        {
            "cow": np.repeat([4, 5, 6, 7, 8], 2),
            "parity": np.tile(["1", "2"], 5),
            "hys": list("1314231324"),
            "fat": [201.0, 280, 150, 200, 160, 190, 180, 250, 285, 300],
        }
    )
    pedigree = {"id": [4, 5, 6, 7, 8], "sire": [1, 3, 1, 3, 1], "dam": [2, 2, 5, 4, 7]}
    kernel = lj.Kernel.from_pedigree(pd.DataFrame(pedigree), ids=np.arange(1, 9), name="A")
    model = lj.lmm("fat ~ parity + hys + (1 | cow)", cows, kernels={"cow": [kernel, None]})
    additive, permanent = at(model, cows["fat"], [20.0, 12.0, 28.0])
    published = [10.148, -3.084, -7.063, 13.581, -18.207, -18.387, 9.328, 24.194]
    assert np.allclose(additive["b"][:, 0], published, rtol=0, atol=5.1e-4)
    # cow 6 is printed as -17.229, and is -17.2285
    assert np.allclose(permanent["b"][:, 0], [8.417, -7.146, -17.229, -1.390, 17.347], rtol=0, atol=5.5e-4)


def test_published_breeding_values_and_litters():
    """Example 4.2: ten piglets of three litters."""
    pigs = pd.DataFrame(
        {
            "pig": np.arange(6, 16),
            "sire": [1, 1, 1, 3, 3, 3, 3, 1, 1, 1],
            "dam": [2, 2, 2, 4, 4, 4, 4, 5, 5, 5],
            "sex": list("MFFFMFFMFM"),
            "weight": [90.0, 70, 65, 98, 106, 60, 80, 100, 85, 68],
        }
    )
    kernel = lj.Kernel.from_pedigree(pigs, ids=np.arange(1, 16), id="pig", sire="sire", dam="dam")
    model = lj.lmm("weight ~ sex + (1 | pig) + (1 | dam)", pigs, kernels={"pig": kernel})
    additive, litter = at(model, pigs["weight"], [20.0, 15.0, 65.0])
    published = [-1.441, -1.175, 1.441, 1.441, -0.266, -1.098, -1.667, -2.334]
    published += [3.925, 2.895, -1.141, 1.525, 0.448, 0.545, -3.819]
    assert np.allclose(additive["b"][:, 0], published, rtol=0, atol=5.1e-4)
    assert np.allclose(litter["b"][:, 0], [-1.762, 2.161, -0.399], rtol=0, atol=5.1e-4)


def test_reliability_is_one_less_the_share_of_the_error(fits):
    fit = fits[3]
    table = fit.reliability()
    psi = fit.estimate.psi
    x = MODEL.frame.x
    inverse = np.linalg.inv(psi[0] * K + psi[1] * np.eye(N))
    p = inverse - inverse @ x @ np.linalg.solve(x.T @ inverse @ x, x.T @ inverse)
    # Var(û) over Var(u)
    expected = psi[0] * np.diagonal(K @ p @ K) / np.diagonal(K)
    assert np.allclose(table["reliability"], expected, rtol=1e-6)
    assert np.allclose(table["accuracy"] ** 2, table["reliability"])
    assert table["observed"].all()
    with pytest.raises(ValueError, match="unknown grouping factor 'idd'"):
        fit.reliability("idd")
