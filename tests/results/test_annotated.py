"""AnnData, MuData and files in, AnnData and Parquet out; by likeness, and with the packages if installed."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

import lmmjax as lj
from lmmjax.arrays.sparse_columns import SparseColumns

RNG = np.random.default_rng(2)
N = 36
OBS = pd.DataFrame(
    {"donor": np.repeat([f"d{k}" for k in range(6)], 6), "x": RNG.normal(size=N)},
    index=[f"s{k:02d}" for k in range(N)],
)
Y = pd.DataFrame(
    RNG.normal(size=(6, 4)).repeat(6, axis=0) + RNG.normal(size=(N, 4)), index=OBS.index, columns=list("abcd")
)
FORMULA = "~ x + (1 | donor)"


class Annotated(SimpleNamespace):
    """What this package asks of AnnData."""

    def copy(self):
        return Annotated(**{**vars(self), "varm": dict(self.varm), "uns": dict(self.uns)})


VALUES = Y.to_numpy()


def annotated(x=VALUES, names=Y.columns, obs=OBS, **others):
    own = {"X": x, "obs": obs, "obs_names": obs.index, "var_names": pd.Index(names)}
    return Annotated(**own, layers={"twice": 2 * Y.to_numpy()}, raw=None, varm={}, uns={}, **others)


@pytest.fixture(scope="module")
def fits():
    return lj.lmm(FORMULA, OBS).fit_batch(Y)


def test_design_and_responses(fits):
    adata = annotated()
    model = lj.lmm(FORMULA, adata)
    assert_allclose(model.fit_batch(adata).params, fits.params, rtol=1e-12)
    assert list(model.fit_batch(adata).names) == list("abcd")
    assert_allclose(model.fit_batch(adata, layer="twice").params, 2 * fits.params, rtol=1e-8)
    # observations go by their names
    order = RNG.permutation(N)
    shuffled = annotated(sparse.csr_matrix(Y.to_numpy()[order]), obs=OBS.iloc[order])
    found = model.fit_batch(shuffled)
    assert isinstance(found.fitted.y, SparseColumns)
    assert_allclose(found.params, fits.params, rtol=1e-8)
    assert_allclose(lj.lmm(FORMULA, shuffled).fit_batch(adata).params, fits.params, rtol=1e-8)
    raw = annotated(names=["b"], x=Y[["b"]].to_numpy())
    raw.raw = SimpleNamespace(X=Y.to_numpy(), var_names=Y.columns)
    assert_allclose(model.fit_batch(raw, use_raw=True).params, fits.params, rtol=1e-12)
    # "0", "1", … are what AnnData makes where there were no names
    plain = annotated(obs=OBS.set_axis([str(k) for k in range(N)]))
    assert_allclose(lj.lmm(FORMULA, plain).fit_batch(Y.to_numpy()).params, fits.params, rtol=1e-12)
    assert model.fit_response(adata.X[:, 0]).predict(annotated()).shape == (N,)


def test_modalities(fits):
    some = OBS.iloc[4:]
    rna = annotated()
    protein = annotated(Y.to_numpy()[4:], obs=some)
    both = Annotated(obs=OBS, obs_names=OBS.index, var_names=Y.columns, mod={"rna": rna, "protein": protein})
    model = lj.lmm(FORMULA, both)
    assert_allclose(model.fit_batch(both, mod="rna").params, fits.params, rtol=1e-12)
    missing = model.fit_batch(both, mod="protein")
    alone = lj.lmm(FORMULA, protein).fit_batch(protein)
    assert_allclose(missing.params, alone.params, rtol=1e-8)
    fits.to_anndata(both, mod="rna")
    assert "lmm" in rna.varm
    for given, words in (({}, "name one by mod="), ({"mod": "atac"}, "no modality 'atac'")):
        with pytest.raises(ValueError, match=words):
            model.fit_batch(both, **given)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "counts"}, "no layer 'counts'; the layers are: 'twice'"),
        ({"use_raw": True}, "raw is empty"),
        ({"use_raw": True, "layer": "twice"}, "name two matrices"),
        ({"mod": "rna"}, "these are AnnData"),
    ],
)
def test_what_there_is_not(options, words):
    with pytest.raises(ValueError, match=words):
        lj.lmm(FORMULA, OBS).fit_batch(annotated(), **options)


def test_options_of_others():
    model = lj.lmm(FORMULA, OBS)
    with pytest.raises(ValueError, match="responses are DataFrame"):
        model.fit_batch(Y, layer="twice")
    with pytest.raises(ValueError, match="the data have no X: name a layer, one of: 'twice'"):
        model.fit_batch(annotated(x=None))


def test_text_files(fits, tmp_path):
    design, responses = tmp_path / "samples.csv", tmp_path / "genes.tsv"
    OBS.to_csv(design, index_label="sample")
    Y.sample(frac=1, random_state=0).to_csv(responses, sep="\t", index_label="sample")
    found = lj.lmm(FORMULA, design).fit_batch(responses)
    assert_allclose(found.params, fits.params, rtol=1e-8)
    OBS.to_csv(design)
    assert_allclose(lj.lmm(FORMULA, str(design)).fit_batch(str(responses)).params, fits.params, rtol=1e-8)
    with pytest.raises(ValueError, match="is no frame and no file of a design"):
        lj.lmm(FORMULA, "samples.docx")
    with pytest.raises(FileNotFoundError):
        lj.lmm(FORMULA, tmp_path / "none.csv")
    with pytest.raises(ValueError, match="read the file first"):
        lj.lmm(FORMULA, OBS).fit_batch(responses, use_raw=True)


@pytest.mark.parametrize("kind", ["polars", "lazy", "pyarrow"])
def test_frames_of_others(fits, kind):
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    made = [polars.from_pandas(frame.reset_index(drop=True)) for frame in (OBS, Y)]
    made = [m.lazy() if kind == "lazy" else m.to_arrow() if kind == "pyarrow" else m for m in made]
    assert_allclose(lj.lmm(FORMULA, made[0]).fit_batch(made[1]).params, fits.params, rtol=1e-12)


def test_results_go_back(fits):
    adata = annotated(names=["c", "a", "other", "b"])
    with pytest.raises(ValueError, match="1 of 4 responses are no variables of adata, such as 'd'"):
        fits.to_anndata(adata)
    part = fits[["a", "b", "c"]]
    new = part.to_anndata(adata, contrasts={"both": "x + Intercept"}, copy=True)
    assert not adata.varm
    table = new.varm["lmm"]
    assert list(table.index) == ["c", "a", "other", "b"]
    top = part.top("x", None)
    for name in ("estimate", "se", "df", "t", "p", "q"):
        assert_allclose(table.loc[top.index, f"{name}:x"], top[name])
    assert_allclose(table.loc["a", "estimate:both"], part.params.loc["a"].sum())
    assert_allclose(table.loc["a", "sigma"], part.sigma["a"])
    assert table.loc["other", "status"] == "not_fitted"
    assert np.isnan(table.loc["other", "estimate:x"])
    assert table["n_optima"].dtype.kind == "i"
    assert table["is_singular"].dtype == bool
    said = new.uns["lmm"]
    assert said["formula"] == FORMULA
    assert said["coefficients"] == ["Intercept", "x"]
    moderated = fits.moderate(robust=True)
    back = fits.to_anndata(annotated(), key="m", moderated=moderated)
    assert_allclose(back.varm["m"]["p:x"], moderated.top("x", None).loc[list("abcd"), "p"])
    assert back.uns["m"]["moderated"]
    with pytest.raises(ValueError, match="other responses than these fits"):
        part.to_anndata(adata, moderated=moderated)
    with pytest.raises(ValueError, match="adata must be AnnData or MuData, not DataFrame"):
        fits.to_anndata(Y)
    with pytest.raises(ValueError, match="would be called 'estimate:x'"):
        fits.to_anndata(annotated(), contrasts={"x": {"x": 1.0, "Intercept": 1.0}})


def test_what_is_not_there_is_said():
    """Layers by name; X is none of them, though AnnData lists it as None. Rows that are missing."""
    model, adata = lj.lmm(FORMULA, OBS), annotated()
    adata.layers = {None: adata.X, **adata.layers}
    with pytest.raises(ValueError, match=r"no layer 'once'; the layers are: 'twice'$"):
        model.fit_batch(adata, layer="once")
    with pytest.raises(ValueError, match="30 of the 36 rows of the data: make the model of these rows"):
        model.fit_batch(Y.iloc[:30])


def test_parquet(fits, tmp_path):
    pytest.importorskip("pyarrow")
    fits.to_parquet(tmp_path / "out.parquet", moderated=True)
    table = pd.read_parquet(tmp_path / "out.parquet").set_index("response")
    top = fits.top("x", None, moderated=True)
    assert_allclose(table.loc[top.index, "p:x"], top["p"])
    assert list(table["status"]) == ["converged"] * 4


def test_real_packages(fits, tmp_path):
    anndata = pytest.importorskip("anndata")
    adata = anndata.AnnData(
        sparse.csr_matrix(Y.to_numpy()), obs=OBS.copy(), var=pd.DataFrame(index=Y.columns)
    )
    adata.layers["dense"] = Y.to_numpy()
    model = lj.lmm(FORMULA, adata)
    for options in ({}, {"layer": "dense"}):
        assert_allclose(model.fit_batch(adata, **options).params, fits.params, rtol=1e-8)
    backed = model.fit_batch(adata[:, ["b", "a"]])
    assert list(backed.names) == ["b", "a"]
    backed.to_anndata(adata)
    made = fits.to_anndata()
    assert made.shape == (N, 4)
    with anndata.settings.override(allow_write_nullable_strings=True):
        made.write_h5ad(tmp_path / "a.h5ad")
        adata.write_h5ad(tmp_path / "b.h5ad")
    again = anndata.read_h5ad(tmp_path / "b.h5ad")
    assert_allclose(again.varm["lmm"].loc["a", "estimate:x"], fits.params.loc["a", "x"], rtol=1e-8)
    assert_allclose(lj.lmm(FORMULA, tmp_path / "a.h5ad").fit_batch(tmp_path / "a.h5ad").params, fits.params)
    stored = anndata.read_h5ad(tmp_path / "b.h5ad", backed="r")
    assert_allclose(model.fit_batch(stored).params, fits.params, rtol=1e-8)
    mudata = pytest.importorskip("mudata")
    with warnings.catch_warnings():
        # mudata has its opinion of names, and announces another default
        warnings.simplefilter("ignore")
        both = mudata.MuData({"rna": adata, "few": adata[4:].copy()})
    assert_allclose(model.fit_batch(both, mod="rna").params, fits.params, rtol=1e-8)
    assert lj.lmm(FORMULA, both["few"]).fit_batch(both["few"]).to_anndata(both, mod="few") is both
