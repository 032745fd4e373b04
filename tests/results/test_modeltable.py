"""Models side by side: the numbers of the fits, their digits, and what a reader has to know."""

import numpy as np
import pytest

import lmmjax as lj
from lmmjax.reports.modeltable import STATISTICS


@pytest.fixture(scope="module")
def other(sleepstudy):
    return lj.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy).fit()


def test_numbers_of_the_fits(fit, other):
    table = lj.modeltable({"slopes": fit, "intercepts": other}).table
    assert list(table.columns) == ["slopes", "intercepts"]
    for name, one in (("slopes", fit), ("intercepts", other)):
        cells = table[name]
        assert cells["Days"] == f"{one.params['Days']:.3f}***"
        assert cells.iloc[list(table.index).index("Days") + 1] == f"({one.bse['Days']:.3f})"
        assert cells["Residual: sd"] == f"{one.sigma:.3f}"
        assert cells["Log-likelihood"] == f"{one.llf:.3f}"
        assert [cells["AIC"], cells["BIC"]] == [f"{one.aic:.3f}", f"{one.bic:.3f}"]
        assert [cells["R² (marginal)"], cells["R² (conditional)"]] == [f"{v:.3f}" for v in one.r2()]
        assert cells["ICC"] == f"{one.icc():.3f}"
        assert [cells["Observations"], cells["Groups: Subject"]] == ["180", "18"]
    sds = fit.varcorr()["sdcor"]
    shown = table["slopes"][[label for label in table.index if label.startswith("Subject: ")]]
    assert list(shown) == [f"{v:.3f}" for v in sds[:3]]
    assert table.loc["Subject: cor (Intercept), Days", "intercepts"] == ""


@pytest.mark.parametrize("below", ["se", "ci", "t", "p", "none"])
def test_what_stands_below(fit, below):
    table = lj.modeltable(fit, below=below, stars=False, coefs={"Days": "per day"}, statistics="nobs")
    row, limits = fit.coef_table().loc["Days"], fit.conf_int("wald").loc["Days"]
    wanted = {
        "se": f"({row['se']:.3f})",
        "ci": "[{:.3f}, {:.3f}]".format(*limits),
        "t": f"({row['t']:.3f})",
        "p": "(<0.001)",
        "none": f"{fit.varcorr()['sdcor'][0]:.3f}",
    }
    cells = table.table["(1)"]
    assert list(cells.index[:2]) == ["Response", "per day"]
    assert list(cells[1:3]) == [f"{row['estimate']:.3f}", wanted[below]]
    assert "***" not in str(table)


def test_it_prints_in_80_characters(fit, other):
    many = lj.modeltable([fit, other] * 5)
    lines = str(many).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(f"({k})" in str(many) for k in range(1, 11))
    one = lj.modeltable([fit, other])
    assert r"\caption{Sleep}" in one.to_latex("Sleep", "tab:sleep")
    assert one.to_latex().startswith(r"\begin{tabular}{lrr}")
    assert one.to_html() == one._repr_html_()
    assert set(STATISTICS) >= {"nobs", "groups", "llf", "aic", "bic"}


def test_a_batch_of_a_few_responses(fit):
    fits = fit.model.fit_batch(np.column_stack([fit.y, 2 * fit.y]))
    table = lj.modeltable(fits).table
    assert list(table.columns) == ["0", "1"]
    assert table.loc["Days", "1"] == f"{2 * fit.params['Days']:.3f}***"
    with pytest.raises(ValueError, match="60 responses is no table"):
        lj.modeltable(fits[[0, 1] * 30])


def test_standard_errors_have_two_digits(fit):
    """Whatever the units of the response."""
    small = fit.refit(fit.y * 1e-6)
    cells = lj.modeltable(small, digits=1, statistics=()).table["(1)"]
    assert cells["Days"] == f"{small.params['Days']:.7f}***"
    assert float(cells["Residual: sd"]) == pytest.approx(small.sigma, rel=0.05)


def test_notes_say_what_does_not_compare(fit, other, sleepstudy):
    assert lj.modeltable([fit, other]).notes[2:] == ()
    assert (
        "some models were fitted by REML and some by ML"
        in lj.modeltable([fit, fit.refit(reml=False)]).notes[-1]
    )
    assert (
        "180 and 170 observations"
        in lj.modeltable([fit, fit.model.subset(sleepstudy.index > 9).fit()]).notes[-1]
    )
    units = lj.lmm("Reaction ~ I(Days / 7) + (Days | Subject)", sleepstudy).fit()
    assert "units and contrasts" in lj.modeltable([fit, units]).notes[-1]
    assert lj.modeltable([fit, fit.refit(reml=False)], statistics=["nobs"]).notes[2:] == ()
    assert "18 clusters of Subject" in " ".join(lj.modeltable(fit, robust="CR2").notes)
    flat = fit.refit(np.random.default_rng(0).normal(size=180))
    assert flat.is_singular
    assert "singular fit" in " ".join(lj.modeltable({"flat": flat}).notes)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([], {}, "at least one"),
        ([1], {}, "call .fit"),
        (None, {"names": ["a", "b"]}, "2 names for 1"),
        (None, {"coefs": ["Day"]}, "did you mean 'Days'"),
        (None, {"statistics": ["AIC"]}, "did you mean 'aic'"),
        (None, {"below": "sd"}, "se, ci, t, p, none"),
        (None, {"stars": 0.05}, "stars must be"),
        (None, {"stars": {"*": 5}}, "between 0 and 1"),
    ],
)
def test_bad_arguments(fit, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        lj.modeltable([fit] if arguments is None else arguments, **options)
