"""Attributes that maketables reads."""

import numpy as np
import pytest

from lmmjax.reports.maketables import LABELS


def test_coefficients_with_their_limits(fit):
    column = fit.to_maketables("kr")
    table, own = column.__maketables_coef_table__, fit.coef_table("kr")
    limits = fit.conf_int("wald", ddf="kr")
    np.testing.assert_array_equal(table["b"], own["estimate"])
    np.testing.assert_array_equal(table[["se", "df", "t", "p"]], own[["se", "df", "t", "p"]])
    np.testing.assert_allclose(table[["ci95l", "ci95u"]], limits.loc[own.index])
    assert (table["ci95l"] < table["ci90l"]).all()
    assert column.__maketables_depvar__ == "Reaction"


def test_numbers_below(fit):
    column = fit.to_maketables(robust="CR2")
    keys = column.__maketables_default_stat_keys__
    assert keys[:2] == ["sd_(Intercept)|Subject", "sd_Days|Subject"]
    assert column.__maketables_stat__("sigma") == fit.sigma
    assert column.__maketables_stat__("N") == 180
    assert column.__maketables_stat__("groups") == "18 Subject"
    assert column.__maketables_stat__("se_type") == "CR2, by: Subject"
    assert column.__maketables_vcov_info__ == {"vcov_type": "CR2", "clustervar": "Subject"}
    assert column.__maketables_stat__("r2") is None
    assert all(column.__maketables_stat__(key) is not None for key in LABELS)


def test_bad_arguments_when_it_is_made(fit):
    with pytest.raises(ValueError, match="ddf"):
        fit.to_maketables("kr", robust="CR2")


def test_a_table_of_two(fit):
    mt = pytest.importorskip("maketables")
    column = fit.to_maketables()
    made = mt.ETable([column, fit.to_maketables(robust="CR2")], coef_fmt="b [ci95l, ci95u]").df
    b, lower, upper = column.__maketables_coef_table__.loc["Days", ["b", "ci95l", "ci95u"]]
    assert made.loc[("coef", "Days")].iloc[0] == f"{b:.3f} [{lower:.3f}, {upper:.3f}]"
    assert ("stats", "sigma") in made.index
    assert len(mt.ETable([fit, fit]).df.columns) == 2
