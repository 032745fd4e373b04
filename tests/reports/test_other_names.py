"""Names of other packages are answered with what is there."""

import copy
import pickle

import pytest

import lmmjax as lj
from lmmjax.datasets import load
from lmmjax.reports.other_names import HERE, OtherNames
from lmmjax.results.plots import FitPlots


def first(name):
    return name.split("(")[0].split(".")[0]


def test_what_is_named_is_there():
    for name, here in HERE.items():
        assert not hasattr(lj.Fit, name)
        assert any(hasattr(kind, first(here)) for kind in (lj.Fit, lj.BatchFit)), name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fixef", "params"),
        ("confint", r"conf_int\(\)"),
        ("parms", "did you mean 'params'"),
        ("eBayes", "eBayes'$"),
    ],
)
def test_a_fit_says_where_it_is(name, said):
    fit = lj.lmm("Reaction ~ Days", load("sleepstudy")).fit()
    for own in (fit, copy.copy(fit), pickle.loads(pickle.dumps(fit))):
        with pytest.raises(AttributeError, match=said):
            getattr(own, name)
        assert not hasattr(own, "_repr_png_")


def test_what_a_property_raises_is_kept():
    class Own(OtherNames):
        @property
        def broken(self):
            raise AttributeError("of its own")

    with pytest.raises(AttributeError, match="of its own"):
        Own().broken  # noqa: B018


def test_pictures_and_the_package():
    with pytest.raises(AttributeError, match=r"there are .*profile"):
        FitPlots(None).nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"it is lmm\(formula, data\)\.fit\(\) here"):
        lj.lmer  # noqa: B018
