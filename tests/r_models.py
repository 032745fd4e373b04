"""Comparison of a fit with the stored results of lme4 or nlme: one function an aspect, one list of them.

The references were polished to gradients below 1e-6 of the criterion, so that their own errors are far
below the tolerances, which are those of the project's contract (docs/architecture.md).
"""

import re

import numpy as np
from numpy.testing import assert_allclose

CRITERION = 1e-6
FIXED = 1e-6
VARIANCE = 1e-5
BOUNDARY = 1e-6


def r_name(name: str) -> str:
    """formulaic's name of a coefficient as R writes it."""
    name = re.sub(r"C\((\w+), contr\.poly\)", r"\1", name)
    name = (
        re.sub(r"\[(?:T\.)?([^\]]*)\]", r"\1", name).replace("**", "^").replace(" ^ ", "^").replace("np.", "")
    )
    return "(Intercept)" if name == "Intercept" else name


def listed(value) -> list:
    """R writes a vector of one as a scalar."""
    return value if isinstance(value, list) else [value]


def group_name(term) -> str:
    """The grouping factor; lme4 numbers the terms of one factor g, g.1, …"""
    return re.sub(r"\.\d+$", "", term["group"])


def singular(ref) -> bool:
    return bool(ref.get("singular")) or "singular" in ref.get("tags", [])


def criterion(fit, ref):
    assert fit.converged, fit.status
    assert fit.grad_norm <= 1e-6 * (1 + abs(fit.deviance))
    assert fit.nobs == ref["nobs"]
    assert fit.deviance <= ref["objective"] + CRITERION
    assert fit.deviance >= ref["objective"] - CRITERION, "lower than R: the reference is not at its optimum"
    assert_allclose(fit.aic, ref["AIC"], rtol=0, atol=CRITERION)
    # nlme counts n − p observations under REML
    count = fit.nobs - len(fit.params) if "nlme" in ref.get("engine", "") and fit.reml else fit.nobs
    assert_allclose(fit.bic + fit.n_params * np.log(count / fit.nobs), ref["BIC"], rtol=0, atol=CRITERION)


def fixed_effects(fit, ref):
    estimate, se = (np.array(listed(ref["fixef"][key])) for key in ("estimate", "se"))
    assert [r_name(name) for name in fit.params.index] == listed(ref["fixef"]["names"])
    # 1e-8 of a standard error for coefficients that are nearly zero
    assert_allclose(fit.params, estimate, rtol=FIXED, atol=1e-8 * se.min())
    assert_allclose(fit.bse, se, rtol=FIXED)
    vcov = np.array(ref["vcov"]["values"]).reshape(len(se), len(se))
    assert np.abs(fit.cov_params() - vcov).to_numpy().max() <= 2 * FIXED * np.max(se) ** 2
    if "wald_ci" in ref:
        limits = fit.conf_int(ddf="normal")
        for side in ("lower", "upper"):
            assert np.all(
                np.abs(limits[side] - listed(ref["wald_ci"][side])) <= FIXED * (np.abs(estimate) + se)
            )


def variance_components(fit, ref):
    floor = BOUNDARY * ref["sigma"] ** 2 if singular(ref) else 0.0
    assert_allclose(fit.sigma, ref["sigma"], rtol=VARIANCE)
    assert fit.is_singular == singular(ref)
    table = fit.varcorr()
    rows = [row for row in table.itertuples() if row.term1]
    ours = {(row.group, r_name(row.term1), r_name(row.term2 or row.term1)): row.vcov for row in rows}
    count = 0
    for term in ref["varcomp"]:
        names, group = listed(term["names"]), group_name(term)
        matrix = np.array(term["cov"], float).reshape(len(names), len(names))
        sd = np.sqrt(np.diag(matrix))
        for i, a in enumerate(names):
            for j, b in enumerate(names[: i + 1]):
                if (group, b, a) not in ours:
                    assert i != j
                    assert matrix[i, j] == 0
                    continue
                count += 1
                assert abs(ours[group, b, a] - matrix[i, j]) <= VARIANCE * sd[i] * sd[j] + floor, (a, b)
    assert count == len(ours)
    if "theta" in ref:
        theta = theta_as_written(fit, ref)
        # an sd at its bound is known to the square root of what its variance is
        atol = np.sqrt(BOUNDARY) if singular(ref) else VARIANCE * np.abs(theta).max()
        assert_allclose(fit.theta, theta, rtol=VARIANCE, atol=atol)


def theta_as_written(fit, ref) -> np.ndarray:
    """R's θ with terms in the order of the formula: lme4 has the factor with most levels first."""
    blocks, start = {}, 0
    for term in ref["varcomp"]:
        names = tuple(listed(term["names"]))
        stop = start + len(names) * (len(names) + 1) // 2
        blocks[group_name(term), names] = listed(ref["theta"])[start:stop]
        start = stop
    if start != len(listed(ref["theta"])):
        return np.array(listed(ref["theta"]))
    keys = [(term.group, tuple(r_name(name) for name in term.names)) for term in fit.model.frame.random]
    return np.concatenate([blocks[key] for key in keys])


def random_effects(fit, ref):
    for effects in ref.get("ranef", []):
        of_factor(fit, ref, effects)


def of_factor(fit, ref, effects):
    levels, terms = listed(effects["levels"]), listed(effects["terms"])
    ours = fit.random_effects[effects["group"]]
    ours = ours.set_axis(ours.index.astype(str)).rename(columns=r_name)
    long = fit.ranef()
    long = long[long["group"] == effects["group"]]
    for j, name in enumerate(terms):
        expected = np.array(effects["values"][j])
        atol = FIXED * np.sqrt(np.mean(expected**2)) + (BOUNDARY * ref["sigma"] if singular(ref) else 0.0)
        assert_allclose(ours.loc[levels, name], expected, rtol=0, atol=atol, err_msg=name)
        if "condsd" not in effects:
            continue
        of_term = long[long["term"].map(r_name) == name]
        sd = of_term["cond_sd"].set_axis(of_term["level"].astype(str))
        floor = np.sqrt(BOUNDARY) * ref["sigma"] if singular(ref) else 0.0
        assert_allclose(sd[levels], effects["condsd"][j], rtol=VARIANCE, atol=floor, err_msg=name)
    own = [term.group == effects["group"] for term in fit.model.frame.random]
    matrices = [one for one, here in zip(fit.cond_var().values(), own, strict=True) if here]
    if effects.get("condvar") and len(matrices) == 1:
        order = [list(ours.index).index(level) for level in levels[: len(effects["condvar"])]]
        expected = np.array(effects["condvar"]).reshape(len(order), len(terms), len(terms))
        floor = BOUNDARY * ref["sigma"] ** 2 if singular(ref) else 0.0
        assert_allclose(
            matrices[0][order], expected, rtol=VARIANCE, atol=1e-7 * np.abs(expected).max() + floor
        )


def fitted(fit, ref):
    scale = np.sqrt(np.mean(fit.y**2))
    assert_allclose(fit.fittedvalues.iloc[:6], ref["fitted_head"], rtol=0, atol=FIXED * scale)
    assert_allclose(fit.resid.iloc[:6], ref["resid_head"], rtol=0, atol=FIXED * scale)
    quantiles = ref.get("scaled_resid_quantiles") or ref["std_resid_quantiles"]
    ours = np.quantile(fit.scaled_resid, [0, 0.25, 0.5, 0.75, 1])
    assert_allclose(ours, quantiles, rtol=0, atol=VARIANCE)


def predictions(fit, ref):
    new = ref.get("predict")
    if not new:
        return
    frame = {name: listed(values) for name, values in new["newdata"].items()}
    scale = FIXED * np.sqrt(np.mean(fit.y**2))
    assert_allclose(fit.predict(frame), listed(new["with_re"]), rtol=0, atol=scale)
    assert_allclose(fit.predict(frame, re="none"), listed(new["without_re"]), rtol=0, atol=scale)
    if "new_level" in new:
        frame = {name: listed(values) for name, values in new["new_level"]["newdata"].items()}
        expected = listed(new["new_level"]["with_re_allow_new"])
        assert_allclose(fit.predict(frame, new_levels="population"), expected, rtol=0, atol=scale)


ASPECTS = {
    f.__name__: f
    for f in (criterion, fixed_effects, variance_components, random_effects, fitted, predictions)
}
