"""nlme's results in ../shared/reference for residual structures and structured random effects.

Intervals: nlme takes the Hessian by finite differences, whose default step leaves errors of up to 5 %. LIMITS
has them from the same calls refitted with

    lmeControl(.relStep = 1e-4, tolerance = 1e-10, msTol = 1e-12, maxIter = 200, msMaxIter = 200)

or glsControl of the same; they move by less than 4e-4 between steps of 1e-4 and 3e-4. For varIdent the rows
of males come first, so that their variance is the reference, as in the stored fit. Limits of the dialyzers,
which move by more, are extrapolated to a step of 0: 2 L(5e-5) − L(1e-4). Others are as stored.
"""

import functools

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose
from r_models import criterion, fitted, listed, predictions, r_name, random_effects
from reference_data import PRESENT, STORED, read

import lmmjax as lj
from lmmjax.core.residuals import covariance
from lmmjax.fitted import reported

if not PRESENT:
    pytest.skip("../shared/reference is not beside the repository", allow_module_level=True)

REFERENCES = STORED["models"]
GROWTH = "distance ~ Sex * I(age - 11)"
CURVE = "rate ~ (pressure + I(pressure**2) + I(pressure**3) + I(pressure**4)) * QB"
SINE, COSINE = "sin(2 * np.pi * Time)", "cos(2 * np.pi * Time)"
MODELS = {
    "ovary_ar1_lme": (f"follicles ~ {SINE} + {COSINE} + diag(1 + {SINE} | Mare)", lj.AR1(group="Mare")),
    "rats_car1_lme": ("y ~ t:Treatment + (1 | rat)", lj.CAR1("age", group="rat")),
    "ratgrowth_car1_gls": ("y ~ week", lj.CAR1("week", group="rat")),
    "orthodont_ar1_lme_ml": (f"{GROWTH} + (1 | Subject)", lj.AR1(group="Subject")),
    "orthodont_varident_lme": (f"{GROWTH} + (I(age - 11) | Subject)", lj.VarIdent("Sex")),
    "orthodont_corsymm_gls": (GROWTH, lj.Symmetric("age", group="Subject") * lj.VarIdent("age")),
    "orthodont_compsymm_gls": (GROWTH, lj.CompoundSymmetry(group="Subject")),
    "dialyzer_varpower_lme": (f"{CURVE} + (pressure + I(pressure**2) | Subject)", lj.VarPower("pressure")),
    "machines_pdcompsymm_lme": ("score ~ Machine + homcs(0 + Machine | Worker)", None),
    "seed4_water_corexp_lme": ("water ~ ti + ti2 + (1 | tree)", lj.Exponential("day", group="tree")),
    "water_corgaus_lme": ("water ~ ti + ti2 + (1 | tree)", lj.Gaussian("day", group="tree")),
}
LIMITS = {
    "ovary_ar1_lme": {
        "sd_(Intercept)|Mare": (1.699564689, 4.80732717),
        f"sd_{SINE}|Mare": (0.379699043, 4.16778829),
        "Phi": (0.430952968, 0.686057481),
        "sigma": (3.02188492, 4.07011612),
    },
    "rats_car1_lme": {
        "sd_(Intercept)|rat": (1.50271247, 2.35477033),
        "Phi": (0.218716447, 0.953066583),
        "sigma": (1.08653794, 1.34589897),
    },
    "orthodont_ar1_lme_ml": {
        "sd_(Intercept)|Subject": (1.29454894, 2.38722243),
        "Phi": (-0.36459006, 0.246981071),
        "sigma": (1.14198183, 1.59148053),
    },
    "orthodont_varident_lme": {
        "sd_(Intercept)|Subject": (1.3658513349, 2.519269782),
        "sd_I(age - 11)|Subject": (0.0687405343, 0.356377249),
        "cor_I(age - 11).(Intercept)|Subject": (-0.3738941505, 0.841104226),
        "sd(Sex=Female)": (0.287794163, 0.580815624),
        "sigma": (1.31550870, 2.01864642),
    },
    "machines_pdcompsymm_lme": {
        "sd_common|Worker": (3.7569396136, 9.786662779),
        "rho|Worker": (0.0853754625, 0.898211849),
        "sigma": (0.763253198, 1.21143237),
    },
    "seed4_water_corexp_lme": {
        "sd_(Intercept)|tree": (0.318957537, 0.832842815),
        "range": (2.48765834, 5.78824322),
        "sigma": (0.354057028, 0.435289401),
    },
    "water_corgaus_lme": {
        "sd_(Intercept)|tree": (0.322253716, 0.835759468),
        "range": (3.26763301, 4.80079052),
        "sigma": (0.353632797, 0.429771667),
    },
    "orthodont_corsymm_gls": {
        "cor(8, 10)": (0.253025991, 0.774336805),
        "cor(8, 12)": (0.384340173, 0.826429308),
        "cor(8, 14)": (0.184846036, 0.749267195),
        "cor(10, 12)": (0.272728937, 0.780615568),
        "cor(10, 14)": (0.482244921, 0.864268578),
        "cor(12, 14)": (0.513392544, 0.869726934),
        "sd(age=10)": (0.635672693, 1.21513602),
        "sd(age=12)": (0.802279706, 1.43897882),
        "sd(age=14)": (0.686438138, 1.33891506),
        "sigma": (1.76566041, 3.07263573),
    },
    "dialyzer_varpower_lme": {
        "sd_(Intercept)|Subject": (1.255269157, 2.7473406155),
        "sd_pressure|Subject": (3.623354135, 7.8348708837),
        "sd_I(pressure ** 2)|Subject": (1.091073584, 2.4900275552),
        "cor_pressure.(Intercept)|Subject": (-0.803875883, -0.0498445726),
        "cor_I(pressure ** 2).(Intercept)|Subject": (-0.169065819, 0.7304693414),
        "cor_I(pressure ** 2).pressure|Subject": (-0.985037458, -0.8624608703),
        "power(pressure)": (0.507931736, 0.9907249863),
        "sigma": (1.060306595, 1.5034861534),
    },
}


def parameters(ref) -> list[float]:
    """The stored residual parameters in our order: correlations, then variances, without the reference."""
    correlation = (ref.get("corStruct") or {}).get("coef", {})
    variance = (ref.get("varStruct") or {}).get("coef_all", {})
    of_levels = "power" not in variance
    return [*correlation.values(), *(v for k, v in enumerate(variance.values()) if k or not of_levels)]


@functools.cache
def fitted_model(name):
    ref = REFERENCES[name]
    formula, residual = MODELS[name]
    return lj.lmm(formula, read(ref), residual=residual).fit(reml=ref["method"] == "REML")


def fixed_effects(fit, ref):
    assert [r_name(name) for name in fit.params.index] == ref["fixef"]["names"]
    estimate, se = (np.array(ref["fixef"][key]) for key in ("estimate", "se"))
    assert_allclose(fit.params, estimate, rtol=1e-5, atol=1e-5 * se.min())
    # nlme multiplies the standard errors of maximum likelihood by √(n/(n − p))
    stretch = 1.0 if fit.reml else np.sqrt(fit.nobs / (fit.nobs - len(se)))
    assert_allclose(stretch * fit.bse, se, rtol=1e-5)


def variance_parameters(fit, ref):
    design, psi = fit.model.design, fit.estimate.psi
    assert_allclose(fit.sigma, ref["sigma"], rtol=1e-5)
    matrices = design.structure.absolute(psi)
    for matrix, term in zip(matrices, ref.get("varcomp") or [], strict=True):
        sd = np.array(listed(term["sd"]))
        assert_allclose(np.sqrt(np.diag(matrix)), sd, rtol=1e-5)
        expected = np.array(term["cov"]).reshape(len(sd), len(sd))
        assert np.all(np.abs(matrix - expected) <= 1e-5 * sd[:, None] * sd)
    own = fit.varcorr()
    own = own[(own["group"] == "Residual") & own["term1"].notna()]
    assert_allclose(own["sdcor"], parameters(ref), rtol=1e-5)


def by_rate(limits):
    """Limits of φ by log(−log φ), which any unit of time only shifts, from nlme's, by logit φ."""
    low, high = scipy.special.logit(limits)
    phi = scipy.special.expit(0.5 * (low + high))
    half = 0.5 * (high - low) * (1.0 - phi) / -np.log(phi)
    return phi ** np.exp(half), phi ** np.exp(-half)


def intervals(fit, ref):
    limits = fit.conf_int(which="all").iloc[: -len(fit.params)]
    expected = LIMITS.get(ref["id"])
    if expected is None:
        stored = ref["intervals"]
        parts = [stored[part] for part in ("corStruct", "varStruct", "sigma") if part in stored]
        ends = [[v for part in parts for v in listed(part[side])] for side in ("lower", "upper")]
        expected = dict(zip(limits.index, zip(*ends, strict=True), strict=True))
    assert list(limits.index) == list(expected)
    for row in fit.model.data.components:
        if row.parameter is not None and row.parameter.scale == "rate" and row.parameter.lower == 0.0:
            expected[row.parameter.name] = by_rate(expected[row.parameter.name])
    # of correlations, which can be anything near 0, a thousandth of their range
    tol = [1e-3 if name.lower().startswith(("cor", "phi", "rho")) else 0.0 for name in limits.index]
    wanted = np.array(list(expected.values()))
    assert np.all(np.abs(limits - wanted) <= np.array(tol)[:, None] + 1e-3 * np.abs(wanted))


def residuals(fit, ref):
    """Residuals decorrelated by the Cholesky factor in the order of the rows."""
    # nlme takes another root of a matrix of compound symmetry
    if ref["id"] == "orthodont_compsymm_gls":
        return
    expected = ref["norm_resid_head"]
    # nlme takes its factors in the order of the sorted groups, but these rows are not sorted: wrong after the
    # first group (the fifth row is alone in its own)
    if ref["id"] == "rats_car1_lme":
        expected = expected[:4]
    assert_allclose(fit.normalized_resid.iloc[: len(expected)], expected, rtol=0, atol=1e-5)


def marginal_covariance(fit, ref):
    stored = ref.get("marginal_V_first_group_6x6")
    if stored is None:
        return
    design, (term,) = fit.model.design, fit.model.frame.random
    rows = np.flatnonzero(np.array(term.levels).astype(str)[term.codes] == stored["group"])[:6]
    expected, z = np.array(stored["values"]), design.terms[0].z[rows]
    (matrix,) = design.structure.absolute(fit.estimate.psi)
    actual = z @ np.asarray(matrix) @ z.T + covariance(design, fit.estimate.psi, rows)
    assert_allclose(actual, expected, rtol=0, atol=1e-5 * expected.max())


def means(fit, ref):
    fitted(fit, ref)
    if "fitted_pop_head" in ref:
        scale = 1e-6 * np.sqrt(np.mean(fit.y**2))
        assert_allclose(fit.predict(re="none").iloc[:6], ref["fitted_pop_head"], rtol=0, atol=scale)


def new_rows(fit, ref):
    new = ref["predict"]
    # gls has no random effects
    with_re = new["without_re"] if new["with_re"] is None else new["with_re"]
    predictions(fit, {**ref, "predict": {**new, "with_re": with_re}})


CHECKS = (
    criterion,
    fixed_effects,
    variance_parameters,
    intervals,
    random_effects,
    means,
    residuals,
    marginal_covariance,
    new_rows,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_equals_nlme(name, check):
    check(fitted_model(name), REFERENCES[name])


def test_all_structures_of_the_references_are_covered():
    covered = {k for k, ref in REFERENCES.items() if ref.get("corStruct") or ref.get("varStruct")}
    assert covered <= set(MODELS)


def test_unstructured_is_symmetric_with_a_variance_a_visit():
    ref = REFERENCES["orthodont_corsymm_gls"]
    fit = lj.lmm(GROWTH, read(ref), residual=lj.Unstructured("age", group="Subject")).fit()
    criterion(fit, ref)
    fixed_effects(fit, ref)
    sd = ref["sigma"] * np.array(list(ref["varStruct"]["coef_all"].values()))
    expected = np.eye(4)
    expected[np.triu_indices(4, 1)] = list(ref["corStruct"]["coef"].values())
    expected = np.triu(expected, 1).T + expected
    rows = np.flatnonzero(fit.model.design.residual.codes == 0)
    actual = covariance(fit.model.design, fit.estimate.psi, rows)
    assert_allclose(actual / sd / sd[:, None], expected, rtol=0, atol=1e-5)


def test_lecture_model_of_water_use():
    """It prints −125.654 and range 3.7946, from software that stopped a little early."""
    fit = fitted_model("seed4_water_corexp_lme")
    assert round(fit.llf, 3) == -125.654
    psi, _ = reported(fit.estimate.psi, fit.model.data.components)
    assert abs(psi[1] - 3.7946) < 1e-4
