"""The public names: what users write. A name is added here on purpose; none goes without a deprecation."""

import pytest

import lmmjax as lj

NAMES = {
    "lmmjax": """
        AR1 ARMA BatchFit CAR1 CompoundSymmetry EstimabilityWarning Estimate Exponential Fit FitWarning
        Gaussian Kernel KnownVariance Matern32 Matern52 Model Moments Pedigree Problem Status Symmetric
        Toeplitz Unstructured VarExp VarIdent VarPower __version__ compare conditional_modes
        duplicate_correlation enable_compilation_cache estimate gram grm lmm load loglik modeltable multitrait
        power predict problem_from_arrays profiled_deviance response_axes restricted_loglik self_check voom
    """,
    "Fit": """
        aic aicc allfit anova augment bic bootstrap bound bse bse_fe check coef coef_table cond_var
        condition_indices conf_int contour contrast converged cooks_distance cov_params covratio covtrace
        cross_validate delta deviance df_resid dfbetas drop1 emmeans emtrends f_test fe_params
        fittedvalues genetic_correlation get_prediction glance grad_norm hat heritability icc influence
        is_singular llf lrt mdffits n_iter n_params nobs normalized_resid params permutation plot posterior
        predict profile pvalues r2 random_effects ranef ranova refit reliability repca resid residual_cov
        residuals rlrt save scale scaled_resid scan scan_threshold
        semivariogram sensitivity sigma simulate status step summary t_test test theta tidy to_maketables
        to_marginaleffects tvalues unidentified update varcorr variance_shares vif
    """,
    "BatchFit": """
        anova bound bse by_reml conf_int contrast converged convergence cov_params delta deviance df emmeans
        emtrends heritability icc influence is_singular llf moderate n_optima n_starts params plot predict
        pvalues r2 random_effects reasons save scan scan_threshold sdcor sigma statistics status summary
        t_tests test tidy to_anndata to_img to_parquet top treat tvalues unidentified varcorr varcorr_se
        variance_shares
    """,
    "Model": """
        components endog_names exog_names expanded fit fit_batch fit_response formula from_arrays moments
        problem save simulate stream_batch structure subset update
    """,
    "Moments": """
        bse params varcorr
    """,
}


LATER = {"Images", "LMMRegressor", "MixedEffectsRegressor", "PertpyLMM"}
"""Names of the package that need an extra, and are imported when they are asked for."""


def public(owner):
    return sorted(name for name in dir(owner) if not name.startswith("_"))


@pytest.mark.parametrize("owner", NAMES)
def test_names(owner):
    found = sorted(lj.__all__) if owner == "lmmjax" else public(getattr(lj, owner))
    assert found == NAMES[owner].split()


def test_names_that_need_an_extra():
    pytest.importorskip("sklearn")
    assert all(isinstance(getattr(lj, name), type) for name in LATER)
    assert set(lj._LATER) == LATER
    assert not LATER & set(lj.__all__)
    with pytest.raises(AttributeError, match="no attribute 'regressor'"):
        _ = lj.regressor


def test_attributes_of_instances(fit, sleepstudy):
    """Set when an object is made, so that no class lists them."""
    batch = fit.model.fit_batch(sleepstudy[["Reaction"]])
    assert set(vars(fit)) == {"model", "fitted", "y", "estimate", "reml", "response"}
    assert set(vars(fit.model)) == {"data", "frame", "design", "maker"}
    assert {"model", "fitted", "names", "estimate", "reml"} <= set(vars(batch))
