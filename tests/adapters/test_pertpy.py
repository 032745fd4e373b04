"""pertpy's interface of differential expression: with the package, else with the part of it that is used."""

import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

INSTALLED = find_spec("pertpy") is not None


class Base:
    """What the method has from pertpy 1.0.

    Its bases keep adata, of which `mask` picks variables by a column of var, and layer, and see to it that
    the values, X or the layer, are finite numbers. Several contrasts by name are tested one by one, and a
    column `contrast` says which.
    """

    def __init__(self, adata, *, mask=None, layer=None):
        self.adata, self.layer = adata if mask is None else adata.masked(mask), layer
        if not np.isfinite(self.data).all():
            raise ValueError("Counts cannot contain negative, NaN or Inf values.")

    @property
    def data(self):
        return self.adata.X if self.layer is None else self.adata.layers[self.layer]


class LinearBase(Base):
    def test_contrasts(self, contrasts, **kwargs):
        contrasts = contrasts if isinstance(contrasts, dict) else {None: contrasts}
        found = [self._test_single_contrast(c, **kwargs).assign(contrast=k) for k, c in contrasts.items()]
        return pd.concat(found)


class Data(SimpleNamespace):
    """AnnData's attributes that are read."""

    def masked(self, column):
        at = self.var[column].to_numpy()
        var = self.var[at]
        return Data(
            X=self.X[:, at], obs=self.obs, var=var, layers={}, obs_names=self.obs_names, var_names=var.index
        )


@pytest.fixture(scope="module")
def method():
    if INSTALLED:
        yield lj.PertpyLMM
        return
    name = "pertpy.tools._differential_gene_expression"
    fake = ModuleType(name)
    fake.LinearModelBase = LinearBase
    with pytest.MonkeyPatch.context() as patch:
        for path in ("pertpy", "pertpy.tools"):
            patch.setitem(sys.modules, path, ModuleType(path))
        patch.setitem(sys.modules, name, fake)
        sys.modules.pop("lmmjax.adapters.pertpy_method", None)
        found = lj.PertpyLMM
    sys.modules.pop("lmmjax.adapters.pertpy_method", None)
    yield found


@pytest.fixture(scope="module")
def adata():
    rng = np.random.default_rng(0)
    labels = [f"s{k}" for k in range(24)]
    drug = pd.Categorical(["no", "yes", "more"] * 8, categories=["no", "yes", "more"])
    obs = pd.DataFrame({"drug": drug, "donor": np.repeat(np.arange(8), 3)}, index=labels)
    obs["age"] = rng.normal(50, 5, 8).repeat(3)
    x = rng.normal(size=(24, 6)) + rng.normal(size=(8, 6)).repeat(3, axis=0)
    x[obs["drug"] == "yes", :2] += 2
    var = pd.DataFrame({"chosen": np.arange(6) < 4}, index=[f"g{k}" for k in range(6)])
    layers = {"counts": rng.poisson(50, (24, 6)).astype(float)}
    if INSTALLED:
        import anndata

        return anndata.AnnData(x, obs=obs, var=var, layers=layers)
    return Data(X=x, obs=obs, var=var, layers=layers, obs_names=obs.index, var_names=var.index)


def test_comparisons_are_contrasts_of_a_batch(method, adata):
    table = method.compare_groups(adata, "drug", "no", ["yes", "more"], paired_by="donor", mask="chosen")
    y = pd.DataFrame(adata.X[:, :4], index=adata.obs.index, columns=["g0", "g1", "g2", "g3"])
    fits = lj.lmm("~ drug + (1 | donor)", adata.obs).fit_batch(y)
    for level in ("yes", "more"):
        expected = fits.top(f"drug[T.{level}]", 4)
        own = table[table["contrast"] == level]
        assert own["variable"].tolist() == expected.index.tolist()
        names = {"log_fc": "estimate", "sd": "se", "t_value": "t", "p_value": "p", "adj_p_value": "q"}
        for theirs, ours in names.items():
            np.testing.assert_allclose(own[theirs], expected[ours], rtol=1e-10)


def test_conditions_fill_in_references_and_zeros(method, adata):
    own = method(adata, "~ drug * age + (1 | donor)")
    assert own.variables == {"drug", "age"}
    row = own.cond(drug="yes", age=3.0)
    assert row[row != 0].to_dict() == {"Intercept": 1, "drug[T.yes]": 1, "age": 3, "drug[T.yes]:age": 3}
    difference = own.contrast("drug", "yes", "more")
    assert difference[difference != 0].to_dict() == {"drug[T.yes]": -1, "drug[T.more]": 1}
    assert list(difference.index) == list(own.design.columns)
    with pytest.raises(RuntimeError, match="not fitted"):
        own.test_contrasts(difference)
    with pytest.raises(ValueError, match="no level 'maybe' of drug: there are 'no', 'yes', 'more'"):
        own.cond(drug="maybe")
    with pytest.raises(ValueError, match="no variable 'dose' in the model: there are age, drug"):
        own.cond(dose=1)
    with pytest.raises(ValueError, match="did you mean 'donor'"):
        method(adata, "~ drug + (1 | donr)")


def test_a_matrix_and_a_formula_are_the_same_design(method, adata):
    x = (
        pd.DataFrame({"one": 1.0, "yes": adata.obs["drug"] == "yes", "more": adata.obs["drug"] == "more"})
        * 1.0
    )
    tables = []
    for own, contrast in (
        (method(adata, x, random="(1 | donor)"), [0, 1, 0]),
        (method(adata, "drug + (1 | donor)"), [0, 1, 0]),
    ):
        own.fit()
        tables.append(own.test_contrasts(np.array(contrast), moderated=True))
    np.testing.assert_allclose(tables[0]["p_value"], tables[1]["p_value"], rtol=1e-6)


def test_counts_have_precision_weights(method, adata):
    own = method(adata, "~ drug + (1 | donor)", layer="counts")
    own.fit(voom=True)
    counts = pd.DataFrame(adata.layers["counts"], index=adata.obs.index, columns=adata.var_names)
    model = lj.lmm("~ drug + (1 | donor)", adata.obs)
    v = lj.voom(counts, model)
    expected = model.fit_batch(v.logcpm, weights=v.weights)
    np.testing.assert_allclose(own.fits.params, expected.params, rtol=1e-10)


def test_statistics_are_contrasts_by_responses(adata):
    y = pd.DataFrame(adata.X, index=adata.obs.index, columns=adata.var_names)
    y.iloc[:, 4] = np.nan
    with pytest.warns(UserWarning, match="could not be fitted"):
        fits = lj.lmm("~ drug + (1 | donor)", adata.obs).fit_batch(y)
    wide = fits.statistics({"yes": "drug[T.yes]", "more - yes": "drug[T.more] - drug[T.yes]"})
    assert wide.index.tolist() == ["yes", "more - yes"]
    assert wide.columns.tolist() == ["g0", "g1", "g2", "g3", "g5"]
    np.testing.assert_array_equal(wide.loc["yes"], fits.tvalues["drug[T.yes]"].dropna())
    whole = fits.statistics(what="estimate", drop_missing=False)
    pd.testing.assert_frame_equal(whole.T, fits.params, check_names=False)
    moderated = fits.statistics("drug[T.yes]", moderated=True)
    expected = fits.top("drug[T.yes]", 6, moderated=True)["t"]
    np.testing.assert_allclose(moderated.iloc[0], expected[moderated.columns], rtol=1e-12)
    with pytest.raises(ValueError, match="what"):
        fits.statistics(what="tt")


@pytest.mark.skipif(INSTALLED, reason="pertpy is there")
def test_without_pertpy_it_is_said(adata, monkeypatch):
    monkeypatch.delitem(sys.modules, "lmmjax.adapters.pertpy_method", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'lmmjax\[pertpy\]'"):
        lj.PertpyLMM(adata, "~ drug + (1 | donor)")
