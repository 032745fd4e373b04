"""Names of statsmodels say what the fit says under its own."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose


def test_aliases(fit):
    pd.testing.assert_series_equal(fit.fe_params, fit.params)
    pd.testing.assert_series_equal(fit.bse_fe, fit.bse)
    assert fit.df_resid == 178
    assert fit.model.endog_names == "Reaction"
    assert fit.model.exog_names == ["Intercept", "Days"]


@pytest.mark.parametrize("options", [{}, {"ddf": "kr", "level": 0.9}, {"robust": "CR2"}])
def test_t_tests_are_tests_of_single_rows(fit, options):
    """F of one row is t², and the limits are those of `test`."""
    hypotheses = ["Days = 10", "Intercept - 20 * Days", "Intercept = 250"]
    table = fit.t_test(hypotheses, **options)
    assert list(table.index) == ["Days = 10", "Intercept - 20 * Days = 0", "Intercept = 250"]
    for (_, row), one in zip(table.iterrows(), hypotheses, strict=True):
        expected = fit.test(one, **options).iloc[0]
        for name in ("estimate", "se", "lower", "upper", "t", "p"):
            assert_allclose(row[name], expected[name], rtol=1e-9)
        assert_allclose(row["df"], expected["den_df"], rtol=1e-9)


def test_f_tests_are_joint(fit):
    joint = ["Days = 10", "Intercept = 250"]
    pd.testing.assert_frame_equal(fit.f_test(joint), fit.test(joint))
    assert list(fit.f_test("Days").columns) == ["F", "num_df", "den_df", "p"]
    pd.testing.assert_frame_equal(fit.f_test("Days = 10, Intercept = 250"), fit.test(joint))
    # arrays and right-hand sides as for `test`
    pd.testing.assert_frame_equal(
        fit.f_test(np.eye(2), rhs=[250, 10]), fit.test(np.eye(2), rhs=[250, 10]), check_names=False
    )


def test_predictions(fit, sleepstudy):
    """The population's mean; the variance of an observation of a new group adds z'Dz + σ²."""
    new = sleepstudy.iloc[[0, 5, 0]]
    found = fit.get_prediction(new)
    table = found.summary_frame(alpha=0.1)
    assert table.index.equals(new.index)
    x = np.column_stack([np.ones(3), new["Days"]])
    assert_allclose(table["mean"], x @ fit.params, rtol=1e-12)
    variance = np.einsum("kp,pr,kr->k", x, fit.cov_params(), x)
    assert_allclose(table["mean_se"], np.sqrt(variance), rtol=1e-9)
    intercepts, slopes, both = fit.varcorr()["vcov"][:3]
    d = np.array([[intercepts, both], [both, slopes]])
    normal = fit.get_prediction(new, ddf="normal").summary_frame(alpha=0.1)
    sd = np.sqrt(variance + np.einsum("kq,qr,kr->k", x, d, x) + fit.scale)
    assert_allclose(normal["obs_ci_upper"] - normal["mean"], 1.6448536269514722 * sd, rtol=1e-9)
    assert_allclose(found.predicted_mean, table["mean"], rtol=1e-12)
    assert_allclose(found.se_mean, table["mean_se"], rtol=1e-12)
    assert_allclose(found.conf_int(alpha=0.1)["lower"], table["mean_ci_lower"], rtol=1e-12)
    assert_allclose(found.conf_int(obs=True, alpha=0.1)["upper"], table["obs_ci_upper"], rtol=1e-12)
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        found.summary_frame(alpha=95)
    assert repr(found).splitlines()[0].split() == [*table.columns]
    with pytest.raises(ValueError, match="new_levels='population'"):
        fit.get_prediction(new.assign(Subject=1), re="all")
    weighted = fit.get_prediction(new, ddf="normal", weights=[1.0, 1.0, 4.0]).summary_frame()
    half = (weighted["obs_ci_upper"] - weighted["mean"]) / 1.959963984540054
    assert_allclose(half.iloc[0] ** 2 - half.iloc[2] ** 2, 0.75 * fit.scale, rtol=1e-7)
