"""Models and fits come back from a file as they were; what is no such file, or was changed, is refused."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import lmmjax as lj
from lmmjax.fitted import Fitted, with_mean
from lmmjax.residual import CORRELATIONS, VARIANCES, as_residual
from lmmjax.saving import archive, load_record, save_record
from lmmjax.saving.frames import packed_residual, require_same, unpacked_residual

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def data():
    """Columns of every type, with odd names and labels, and missing values."""
    rng, n = np.random.default_rng(0), 60
    out = pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n), "my col": rng.uniform(0.5, 2, n)})
    out["g"], out["t"] = np.repeat(np.arange(12), 5), np.tile(np.arange(5), 12)
    out["arm"] = np.where(out["g"] % 2, "B", "A:1")
    labels = ['q"uo', "ü|x", "", "a b"]
    out["f"] = pd.Categorical.from_codes(rng.integers(0, 4, n), [*labels, "unused"])
    out["o"] = pd.Categorical.from_codes(rng.integers(0, 3, n), [3, 1, 2], ordered=True)
    out["cut"] = pd.cut(out["x"], 3)
    out["day"] = pd.Timestamp("2024-03-30 00:00", tz="Europe/Berlin") + pd.to_timedelta(out["t"], unit="D")
    out["month"] = pd.PeriodIndex.from_ordinals(np.asarray(out["t"]) + 600, freq="M")
    out["date"] = [day.date() for day in out["day"]]
    out["moment"] = out["day"].astype(object)
    out["whole"] = pd.array(rng.integers(0, 5, n), dtype="Int64")
    out.loc[3, "whole"] = pd.NA
    out["flag"] = pd.array(rng.integers(0, 2, n).astype(bool), dtype="boolean")
    out["arrow"] = out["arm"].astype("string[pyarrow]")
    out["mixed"] = pd.Series([k % 3 if k % 2 else f"{k % 3} of 3" for k in range(n)], dtype=object)
    out.loc[7, "x"] = np.nan
    return out.set_index(pd.MultiIndex.from_product([range(12), list("abcde")], names=["i", None]))


MODELS = {
    "transformations": ("y ~ scale(x) + poly(`my col`, 2) + bs(x, df=4) + (1 | g)", {}),
    "categories": ("np.log(`my col`) ~ f * x + C(o, contr.poly) + cut + (x | arm:g)", {}),
    "times": ("y ~ C(day) + C(moment) + (1 | date)", {"residual": lj.CAR1("month", group="g")}),
    "objects": ("y ~ whole + flag + mixed + arrow + (1 | g)", {}),
    "expressions": ("y ~ x + offset(t) + (1 | g)", {"weights": "2 * `my col`", "offset": "x"}),
    "families": ("~ x + rr(0 + arm | g, 1) + cs(0 + arm | t)", {}),
    "known": ("y ~ x", {"residual": lj.KnownVariance("my col") * lj.VarIdent("arm")}),
    "levels": ("y ~ x", {"residual": lj.AR1("t", group="g", by="arm", nugget=True)}),
}
RESIDUALS = [
    lj.AR1("t", group="g", by="arm", nugget=True),
    lj.ARMA("t", group="g", p=1, q=2) * lj.VarIdent("arm"),
    lj.CompoundSymmetry(group="a:b") * lj.VarPower("my col", by="arm") * lj.VarExp("x"),
    lj.VarExp() * lj.KnownVariance("my col"),
    lj.KnownVariance("v"),
    *(getattr(lj, name)(group="g") for name in ("Toeplitz", "Unstructured", "Symmetric")),
    *(getattr(lj, name)("t") for name in ("CAR1", "Exponential")),
    *(getattr(lj, name)(("x", "t"), nugget=True) for name in ("Gaussian", "Matern32", "Matern52")),
]
ALL = set(CORRELATIONS) | set(VARIANCES)


def there_and_back(given, path, **options):
    given.save(path / "file.lmm")
    return lj.load(path / "file.lmm", **options)


def assert_model(model, again):
    one, other = model.frame, again.frame
    require_same(one, other)
    pd.testing.assert_index_equal(one.index, other.index)
    assert str(model.components) == str(again.components)
    assert str(one.factor_levels) == str(other.factor_levels)
    for term, new in zip(one.random, other.random, strict=True):
        pd.testing.assert_index_equal(term.levels, new.levels)
    assert (one.formula, one.aliased, one.n_dropped, one.missing) == (
        other.formula,
        other.aliased,
        other.n_dropped,
        other.missing,
    )


@pytest.mark.parametrize("name", MODELS)
def test_models(data, tmp_path, name):
    formula, options = MODELS[name]
    model = lj.lmm(formula, data, **options)
    again = there_and_back(model, tmp_path)
    assert type(again) is lj.Model
    assert_model(model, again)
    kept, given = again.frame.source.data, data
    for column in kept:
        pd.testing.assert_series_equal(kept[column], given[column], check_dtype=column != "arrow")


def test_every_residual_structure():
    assert {part.name for residual in RESIDUALS for part in as_residual(residual).parts} == ALL
    for residual in map(as_residual, RESIDUALS):
        assert unpacked_residual(json.loads(json.dumps(packed_residual(residual)))) == residual


@pytest.mark.parametrize("kind", [pl.DataFrame, dict])
def test_other_frames_and_arrays_beside_them(data, tmp_path, kind):
    weights = pd.Series(np.arange(1.0, 61.0))
    columns = {name: data[name].to_list() for name in ("y", "x", "arm", "g")}
    model = lj.lmm("y ~ x + arm + (1 | g)", kind(columns), weights=weights[::-1], offset=weights.to_numpy())
    again = there_and_back(model, tmp_path)
    assert_model(model, again)
    assert isinstance(again.frame.source.data, pl.DataFrame) == (kind is pl.DataFrame)


def test_types_of_polars(data, tmp_path):
    """Rows come out as they went in: the frame is one of polars again."""
    days = [day.replace(tzinfo=None) for day in data["day"]]
    given = pl.DataFrame(
        {
            "y": data["y"].to_numpy(),
            "g": data["g"].to_numpy(),
            "x": pl.Series(data["x"].to_list(), strict=False).fill_nan(None),
            "whole": pl.Series([None if v is pd.NA else int(v) for v in data["whole"]], dtype=pl.Int16),
            "f": pl.Series(data["f"].astype(str).to_list(), dtype=pl.Enum(["ü|x", 'q"uo', "", "a b"])),
            "arm": pl.Series(data["arm"].to_list(), dtype=pl.Categorical),
            "day": pl.Series(days, dtype=pl.Datetime("ms", "Europe/Berlin")),
            "flag": data["flag"].to_list(),
        }
    )
    model = lj.lmm("y ~ x + whole + f + flag + (1 | arm)", given, residual=lj.CAR1("day", group="g"))
    again = there_and_back(model, tmp_path)
    assert_model(model, again)
    kept = again.frame.source.data
    assert kept.drop("whole", "arm", "day").equals(given.select(kept.columns).drop("whole", "arm", "day"))
    assert kept["day"].dt.timestamp("ms").equals(given["day"].dt.timestamp("ms"))


def test_models_of_matrices_and_of_some_rows(data, tmp_path):
    x = data[["x"]].assign(one=1.0, twice=2.0 * data["x"])
    z = {"g": data[["t"]]}
    residual = lj.AR1("t", group="g")
    options = {"residual": residual, "columns": {"t": data["t"]}, "weights": data["my col"]}
    model = lj.Model.from_arrays(data["y"], x, {"g": data["g"], "a": data["arm"]}, z, **options)
    keep = np.arange(model.design.n) % 7 != 2
    for some in (model, model.subset(keep), model.subset(keep, np.arange(1.0, 1.0 + len(keep)))):
        assert_model(some, there_and_back(some, tmp_path))
    own = lj.lmm("y ~ scale(x) + f + (1 | g)", data).subset(
        data["x"].notna().to_numpy() & (data["t"] < 4).to_numpy()
    )
    again = there_and_back(own, tmp_path)
    assert_model(own, again)
    # transformations keep what they saw of all rows
    x = own.update("~ . - f").frame.x
    np.testing.assert_array_equal(x, again.update("~ . - f").frame.x)


def test_a_fit_says_the_same(fit, sleepstudy, tmp_path):
    again = there_and_back(fit, tmp_path)
    assert type(again) is lj.Fit
    assert str(again.summary()) == str(fit.summary())
    assert repr(again) == repr(fit)
    new = pd.DataFrame({"Days": [10, 11], "Subject": [308, 309]})
    pd.testing.assert_series_equal(again.predict(new), fit.predict(new))
    assert repr(again.emmeans("Days")) == repr(fit.emmeans("Days"))
    pd.testing.assert_frame_equal(again.augment(), fit.augment())
    assert again.refit(fit.y).deviance == fit.deviance


@pytest.mark.parametrize("version", range(1, archive.FORMAT + 1))
def test_files_of_every_format_are_read(version):
    """Written by make_format.py when they were new; the numbers are what it printed."""
    found = lj.load(FOLDER / f"format_{version}_fit.lmm")
    assert found.llf == pytest.approx(-55.07900611083798, rel=1e-9)
    params = [0.5041304862251985, 0.9192657363975929, 0.05556331432520782, -0.7011957678379781]
    np.testing.assert_allclose(found.params, [*params, -1.3274053115403495], rtol=1e-6)
    assert found.nobs == 31
    assert found.model.frame.factor_levels == {"arm": ("b", "a")}
    fits = lj.load(FOLDER / f"format_{version}_batch.lmm")
    np.testing.assert_allclose(fits.llf, [-55.809026, np.nan, -40.530277], rtol=1e-7)
    assert list(fits.converged) == [True, False, True]


def test_the_same_fit_makes_the_same_file(fit, tmp_path):
    for name in "ab":
        fit.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_further_columns(fit, sleepstudy, tmp_path):
    model = lj.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy.assign(late=sleepstudy["Days"] > 5))
    with pytest.raises(ValueError, match="unknown column 'late'"):
        there_and_back(model, tmp_path).update("~ . + late")
    model.save(tmp_path / "more", columns="late")
    assert lj.load(tmp_path / "more").update("~ . + late").frame.x_names[-1].startswith("late")
    with pytest.raises(ValueError, match="did you mean 'late'"):
        model.save(tmp_path / "more", columns=["lat"])
    with pytest.raises(FileNotFoundError):
        lj.load(tmp_path / "none")


def test_a_batch_with_failures(fit, sleepstudy, tmp_path):
    y = sleepstudy[["Reaction"]].assign(
        some=sleepstudy["Reaction"].where(sleepstudy.index % 7 != 2), none=np.nan
    )
    with pytest.warns(UserWarning, match="1 of 3 responses"):
        fits = fit.model.fit_batch(y)
    again = there_and_back(fits, tmp_path)
    assert type(again) is lj.BatchFit
    pd.testing.assert_frame_equal(again.tidy("normal"), fits.tidy("normal"))
    assert list(again.reasons) == list(fits.reasons)
    assert list(again.status) == list(fits.status)
    # the fit of a response on its rows, with the columns that they determine
    pd.testing.assert_series_equal(there_and_back(fits["some"], tmp_path).params, fits["some"].params)


def test_a_variance_of_the_mean(fit, sleepstudy, tmp_path):
    """Its covariate, the fitted values, comes from the file; of a fit that is not compared, to save time."""
    data = lj.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy, residual=lj.VarPower()).data
    own = Fitted(with_mean(data, np.asarray(fit.fittedvalues)), fit.y, fit.estimate, True)
    save_record(
        dataclasses.replace(own, estimate=dataclasses.replace(fit.estimate, deviance=np.nan)), tmp_path / "f"
    )
    again = load_record(tmp_path / "f", True)
    np.testing.assert_array_equal(again.data.design.residual.covariates[0], fit.fittedvalues)


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def rewritten(path, change, sealed=True):
    """The file with its JSON changed; `sealed` makes the digest fit."""
    with zipfile.ZipFile(path) as members:
        parts = {name: members.read(name) for name in members.namelist()}
    head = json.loads(parts[archive.TEXT])
    arrays = archive.read(path)[1]
    change(head, arrays)
    if sealed:
        head["digest"] = archive._digest(head["content"], arrays)
    parts[archive.TEXT] = json.dumps(head)
    with zipfile.ZipFile(path, "w") as members:
        for name, part in parts.items():
            members.writestr(name, part if name == archive.TEXT else npy(arrays[name.removesuffix(".npy")]))


CHANGES = {
    "newer": (
        lambda head, _: head.update(format_version=2, lmmjax="9.9"),
        "by lmmjax 9.9 in format 2.* update",
    ),
    "no version": (lambda head, _: head.update(format_version="1"), "format version '1'"),
    "another": (lambda head, _: head.update(format="zip"), "no file that lmmjax saved"),
    "lacking": (lambda head, _: head["content"]["frame"].pop("rows"), "lacks 'rows'"),
    "shape": (
        lambda head, arrays: arrays.update({head["content"]["fit"]["y"]: np.ones(3)}),
        "3 values for 180",
    ),
    "type": (lambda head, _: head["content"]["frame"].update(columns=5), "no whole fit"),
    "data": (
        lambda head, _: head["content"]["frame"].update(formula="Reaction ~ I(Days) + (1 | Subject)"),
        "no column 'Days'",
    ),
    "code": (
        lambda head, _: head["content"]["frame"].update(
            formula="Reaction ~ I(Days + __import__('os').getpid()) + (Days | Subject)"
        ),
        "__import__.* safe formula",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file(fit, tmp_path, name):
    change, message = CHANGES[name]
    path = tmp_path / "file.lmm"
    fit.save(path)
    rewritten(path, change)
    with pytest.raises(ValueError, match=message):
        lj.load(path)


def test_what_does_not_belong_together(fit, tmp_path):
    path = tmp_path / "file.lmm"
    fit.save(path)
    rewritten(path, lambda head, _: head["content"].update(backend="dense"), sealed=False)
    with pytest.raises(ValueError, match="changed after it was written"):
        lj.load(path)
    fit.save(path)
    rewritten(path, lambda head, _: head["content"]["fit"].update(reml=False))
    with pytest.raises(ValueError, match="do not belong together"):
        lj.load(path)


@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_an_incomplete_file(fit, tmp_path, part):
    path = tmp_path / "file.lmm"
    fit.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="incomplete"):
        lj.load(path)
    path.write_bytes(whole[:3000] + bytes([whole[3000] ^ 255]) + whole[3001:])
    with pytest.raises(ValueError, match="copy the file anew"):
        lj.load(path)


def test_what_cannot_be_saved(sleepstudy, tmp_path):
    path = tmp_path / "file.lmm"
    model = lj.lmm("Reaction ~ I(Days + np.random.normal()) + (1 | Subject)", sleepstudy)
    with pytest.raises(ValueError, match="evaluated again differs"):
        model.save(path)
    odd = sleepstudy.assign(Subject=[frozenset({s}) for s in sleepstudy["Subject"]])
    with pytest.raises(ValueError, match=r"'Subject' holds .* objects"):
        lj.lmm("Reaction ~ Days + (1 | Subject)", odd).save(path)

    class Mine(lj.AR1):
        pass

    model = lj.lmm("Reaction ~ Days", sleepstudy, residual=Mine("Days", group="Subject"))
    with pytest.raises(ValueError, match="Mine is a residual structure of your own"):
        model.save(path)
    assert not path.exists()


def test_formulas_of_any_python_on_request(sleepstudy, tmp_path):
    model = lj.lmm("Reaction ~ I(Days.clip(1, 8)) + (1 | Subject)", sleepstudy)
    with pytest.raises(ValueError, match=r"attribute \.clip.*safe=False"):
        there_and_back(model, tmp_path)
    assert_model(model, there_and_back(model, tmp_path, safe=False))
