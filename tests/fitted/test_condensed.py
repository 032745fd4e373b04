"""Models of data that are read by the chunk: the fit of all rows at once, whatever the chunks."""

import warnings

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.core import profiled_deviance
from lmmjax.gram.grouped import condense
from lmmjax.gram.grouped.condense import Condenser

N = 600


def make():
    rng = np.random.default_rng(4)
    g = rng.integers(0, 30, N)
    data = pd.DataFrame(
        {
            "x": rng.normal(size=N),
            "f": rng.choice(["a", "b", "c"], N),
            "g": np.array([f"id{k}" for k in range(30)])[g],
            "h": rng.integers(0, 4, N),
            "w": rng.uniform(0.5, 2.0, N),
        }
    )
    b = rng.normal(size=(2, 30))
    data["y"] = (
        0.3 * data["x"] + (data["f"] == "b") + b[0, g] + 0.6 * b[1, g] * data["x"] + rng.normal(size=N)
    )
    # levels that come late, and rows with missing values
    data.loc[N - 1, "f"] = "late"
    data.loc[N - 2, "f"] = "late"
    data.loc[[3, 400], ["x", "g"]] = [[np.nan, "id1"], [0.0, None]]
    return data


DATA = make()
FORMULA = "y ~ x * f + (x | g)"


def pieces(size=130, data=DATA):
    return lambda: (data.iloc[k : k + size] for k in range(0, len(data), size))


@pytest.fixture(scope="module")
def whole():
    return lj.lmm(FORMULA, DATA, weights="w").fit()


@pytest.fixture(scope="module")
def fit():
    return lj.lmm(FORMULA, pieces(), weights="w").fit()


def test_the_fit_is_that_of_all_rows(fit, whole):
    """Criterion to rounding, all else as far as two descents of a flat criterion agree."""
    assert abs(fit.deviance - whole.deviance) < 1e-8
    assert fit.nobs == whole.nobs == N - 2
    assert_allclose(fit.params, whole.params, rtol=1e-6, atol=1e-8)
    assert_allclose(fit.cov_params(), whole.cov_params(), rtol=1e-5, atol=1e-9)
    assert list(fit.params.index) == list(whole.params.index)
    assert_allclose(fit.coef_table(ddf="kr"), whole.coef_table(ddf="kr"), rtol=1e-4, atol=1e-7)
    assert_allclose(fit.bic, whole.bic, rtol=1e-10)
    left, right = (f.ranef() for f in (fit, whole))
    for a, b in (
        zip(left.values(), right.values(), strict=True) if isinstance(left, dict) else [(left, right)]
    ):
        pd.testing.assert_frame_equal(a, b, rtol=1e-5, atol=1e-7)
    assert "Number of obs: 598" in str(fit.summary())
    assert "Scaled residuals" not in str(fit.summary())


@pytest.mark.parametrize(
    "formula", ["y ~ x + f + (1 | g/h)", "y ~ x + offset(w) + (1 | g) + (1 | h)", "y ~ x + (1 + x || g)"]
)
def test_other_structures(formula):
    """Nested, crossed, several terms: the cells of all factors are condensed."""
    model = lj.lmm(formula, pieces())
    assert model.data.design.n < N
    assert abs(model.fit(reml=False).deviance - lj.lmm(formula, DATA).fit(reml=False).deviance) < 1e-8


def test_what_has_rows_is_streamed(fit, whole, tmp_path):
    rows = pd.concat(fit.rows(), ignore_index=True)
    assert len(rows) == N
    there = DATA[["x", "g"]].notna().all(axis=1).to_numpy()
    assert_allclose(rows["fitted"][there], whole.fittedvalues, rtol=1e-6, atol=1e-6)
    assert_allclose(rows["resid"][there], whole.resid, rtol=1e-6, atol=1e-6)
    assert rows["fitted"][~there].isna().all()
    assert fit.write_rows(tmp_path / "out.parquet", ["g"]) == N
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert list(out) == ["g", "fitted", "population", "resid"]
    assert_allclose(out["resid"], rows["resid"])
    new = pd.DataFrame({"x": [0.5], "f": ["late"], "g": ["id3"], "w": [1.0]})
    assert_allclose(fit.predict(new), whole.predict(new), rtol=1e-6)
    # rows to predict have no response
    assert fit.write_rows(tmp_path / "new.parquet", ["g"], data=lambda: [new]) == 1
    (out,) = pd.read_parquet(tmp_path / "new.parquet").to_dict("records")
    assert_allclose([out["fitted"], out["resid"]], [fit.predict(new).item(), np.nan])
    with pytest.raises(ValueError, match="has no column 'x': there are"):
        next(fit.rows(data=lambda: [new.drop(columns="x")]))
    with pytest.raises(AttributeError, match=r"cooks_distance needs all rows at once.*rows\(\)"):
        fit.cooks_distance()


def test_files_datasets_and_readers(tmp_path):
    table = pa.Table.from_pandas(DATA, preserve_index=False)
    (tmp_path / "d").mkdir()
    for k in range(3):
        DATA.iloc[200 * k : 200 * (k + 1)].to_parquet(tmp_path / "d" / f"{k}.parquet")
    expected = lj.lmm("y ~ x + (1 | g)", DATA).fit().deviance
    sources = [tmp_path / "d", ds.dataset(tmp_path / "d"), table.to_reader(100), lambda: table.to_batches(70)]
    for source in sources:
        assert abs(lj.lmm("y ~ x + (1 | g)", source).fit().deviance - expected) < 1e-8


def test_condensed_again_and_again(monkeypatch):
    """The products of [Z X y] of every cell, and of [X y] of all rows, are those of all rows."""
    monkeypatch.setattr(condense, "LEAST", 8)
    rng = np.random.default_rng(0)
    codes, z = rng.integers(0, 3, (90, 2)), rng.normal(size=(90, 2))
    z[codes[:, 0] == 1, 1] = 2 * z[codes[:, 0] == 1, 0]
    # a time stamp: products of rows would keep nine digits of sixteen
    w = np.column_stack([rng.normal(size=(90, 2)) + 1e7, rng.normal(size=90)])
    condenser = Condenser(2, 3)
    for k in range(0, 90, 7):
        condenser.add(codes[k : k + 7], z[k : k + 7], w[k : k + 7])
    few, z_few, w_few = condenser.rows()
    assert len(few) <= 9 * 2 + 3
    q, r = np.linalg.qr(w), np.linalg.qr(w_few)
    assert_allclose(np.abs(q.R), np.abs(r.R), rtol=1e-9, atol=1e-6)
    for cell in np.unique(codes, axis=0):
        mine, theirs = (np.all(c == cell, axis=1) for c in (codes, few))
        assert_allclose(z_few[theirs].T @ z_few[theirs], z[mine].T @ z[mine], rtol=1e-10, atol=1e-12)
        assert_allclose(z_few[theirs].T @ w_few[theirs], z[mine].T @ w[mine], rtol=1e-10, atol=1e-6)


def test_passes_must_agree_and_types_may_not():
    """Integers with missing values are doubles in some chunks; a level that the first pass did not see."""
    data = DATA[["y", "x", "h"]].dropna()
    mixed = [data.iloc[:300], data.iloc[300:].assign(h=lambda d: d["h"].astype(float))]
    mixed[1].iloc[0, 2] = np.nan
    expected = lj.lmm("y ~ x + (1 | h)", pd.concat(mixed)).fit().deviance
    assert abs(lj.lmm("y ~ x + (1 | h)", lambda: mixed).fit().deviance - expected) < 1e-8
    calls = []

    def begin():
        calls.append(0)
        return [data if len(calls) < 3 else data.assign(h=data["h"] + 1)]

    with pytest.raises(ValueError, match="h: the level 4 was not there in the first pass"):
        lj.lmm("y ~ x + (1 | h)", begin)

    def fewer():
        calls.append(0)
        return [data[:300]] if len(calls) % 3 == 0 else [data]

    calls.clear()
    with pytest.raises(ValueError, match=f"{len(data)} rows in the first pass and 300 in the second"):
        lj.lmm("y ~ x + (1 | h)", fewer)


@pytest.mark.parametrize("head", [1000, 20])
def test_rows_in_messages_are_those_of_the_data(monkeypatch, head, fit):
    """In the first pass and in the second, beyond rows with missing values and in a later chunk."""
    monkeypatch.setattr("lmmjax.fitted.chunks.HEAD", head)
    for column, value, formula, said in (
        ("w", -1.0, FORMULA, "weights must be positive: -1 in row 450"),
        ("x", 0.0, "y ~ I(1 / x) + (1 | g)", "is infinite in row 450"),
        ("y", np.inf, FORMULA, "is infinite in row 450"),
    ):
        data = DATA.assign(x=DATA["x"].replace(0.0, 1.0))
        data.loc[450, column] = value
        with pytest.raises(ValueError, match=said):
            lj.lmm(formula, pieces(data=data), weights="w")
    with pytest.raises(ValueError, match="is infinite in row 450"):
        list(fit.rows(data=pieces(data=data)))


def test_what_is_no_pass_over_the_data(tmp_path):
    frames = iter([DATA[:300], DATA[300:]])
    for source, said in (
        (lambda: frames, "the same iterator twice"),
        (lambda: 3, "returned int: return frames"),
        (lambda: [3], "is of type int"),
        (lambda: [DATA[:300], DATA[300:].drop(columns="x")], "has no column 'x': did"),
    ):
        with pytest.raises(ValueError, match=said.replace("did", ".*there are")):
            lj.lmm("y ~ x + (1 | h)", source)
    data = DATA.dropna()
    ds.write_dataset(
        pa.Table.from_pandas(data, preserve_index=False),
        tmp_path / "d",
        format="parquet",
        partitioning=["f"],
        partitioning_flavor="hive",
    )
    expected = lj.lmm("y ~ f + (1 | h)", data).fit().deviance
    assert abs(lj.lmm("y ~ f + (1 | h)", tmp_path / "d").fit().deviance - expected) < 1e-8


def test_aliased_columns_are_those_of_all_rows():
    """A column that depends on others in the first chunk alone stays, one that depends everywhere goes."""
    data = DATA.assign(a=np.where(np.arange(N) < 300, 2 * DATA["x"], DATA["w"]), d=DATA["x"] + 1.0)
    fit, whole = (lj.lmm("y ~ x + a + d + (1 | g)", source).fit() for source in (pieces(130, data), data))
    assert fit.model.data.frame.aliased == whole.model.frame.aliased == ("d",)
    assert_allclose(fit.params, whole.params, rtol=1e-7)


EFFECTS = {
    "y ~ x + factor(h) * f + two + (1 | g)": {"weights": "w", "offset": "o"},
    "y ~ f * two + x + (0 + x | g)": {},
}
RESULTS = {
    "anova": lambda fit: [fit.anova(kind, "kr") for kind in (1, 2, 3)],
    "drop1": lambda fit: [fit.drop1()] if "0 +" in fit.model.formula else [fit.drop1(test="lrt")],
    "ranova": lambda fit: [fit.ranova()] if "0 +" in fit.model.formula else [],
    "shares": lambda fit: [fit.r2(se=True), fit.icc(True), fit.variance_shares(se=True)],
    "collinearity": lambda fit: [fit.vif(), fit.condition_indices()],
    "means": lambda fit: [
        fit.emmeans("f").pairs().table,
        fit.emmeans("f", weights="proportional").table,
        fit.emmeans(["f", "two"], weights="cells").table,
        fit.emtrends("x", "f").table,
    ],
}


@pytest.fixture(scope="module", params=EFFECTS)
def pair(request):
    """The same model by the chunk and in memory."""
    rng = np.random.default_rng(7)
    data = DATA.assign(two=rng.integers(0, 2, N), o=rng.normal(size=N))
    # a cell of two factors without rows
    data = data[(data["f"] != "late") & ~((data["f"] == "c") & (data["h"] == 3))]
    options = EFFECTS[request.param]
    with warnings.catch_warnings():
        # a slope without a variance
        warnings.simplefilter("ignore", lj.FitWarning)
        return tuple(lj.lmm(request.param, source, **options).fit() for source in (pieces(130, data), data))


@pytest.mark.parametrize("what", RESULTS)
def test_what_follows_is_that_of_all_rows(pair, what):
    """Moments, counts and relations of the columns are those of all rows; two descents differ below 1e-5."""
    with warnings.catch_warnings():
        # a cell without rows
        warnings.simplefilter("ignore", lj.EstimabilityWarning)
        for mine, other in zip(*(RESULTS[what](fit) for fit in pair), strict=True):
            same = pd.testing.assert_series_equal if isinstance(mine, pd.Series) else None
            (same or pd.testing.assert_frame_equal)(mine, other, rtol=1e-4, atol=1e-6, check_dtype=False)


def test_saved_updated_and_side_by_side(fit, whole, tmp_path):
    fit.save(tmp_path / "fit.lmm")
    again = lj.load(tmp_path / "fit.lmm")
    assert again.deviance == fit.deviance
    pd.testing.assert_frame_equal(again.anova(), fit.anova())
    pd.testing.assert_frame_equal(again.emmeans("f").table, fit.emmeans("f").table)
    with pytest.raises(ValueError, match=r"rows\(data=…\)"):
        again.rows()
    rows = pd.concat(again.rows(["g"], data=pieces()), ignore_index=True)
    assert_allclose(rows["fitted"].dropna(), whole.fittedvalues, rtol=1e-6, atol=1e-6)
    assert_allclose(again.update("~ . - x:f", data=pieces()).deviance, fit.update("~ . - x:f").deviance)
    assert_allclose(fit.refit(reml=False).deviance, whole.refit(reml=False).deviance, rtol=1e-10)
    table = lj.modeltable([fit, whole, again], ["a", "b", "c"])
    assert (table.table["a"] == table.table["b"]).all()
    assert "compare" not in " ".join(table.notes)
    assert "tabular" in fit.summary().to_latex()


def test_prediction_limits_have_the_weights_of_new_rows(fit, whole):
    new = pd.DataFrame({"x": [0.5, 0.5], "f": ["a", "b"], "g": ["id3", "id4"], "w": [1.0, 9.0]})
    mine, other = (f.predict(new, interval="prediction") for f in (fit, whole))
    pd.testing.assert_frame_equal(mine, other, rtol=1e-5)


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.conf_int("boot"),
        lambda fit: fit.cov_params("CR2"),
        lambda fit: fit.predict(),
        lambda fit: fit.get_prediction(),
        lambda fit: fit.plot(),
        lambda fit: fit.plot.effects("x", residuals=True),
        lambda fit: lj.compare(fit, fit),
    ],
)
def test_what_needs_rows_is_refused(fit, ask):
    with pytest.raises(ValueError, match="read by the chunk"):
        ask(fit)


def test_dates_and_pictures(tmp_path):
    """Means of a date, a picture of it, and no rug: its values are those of combinations."""
    data = DATA.assign(day=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(N), unit="D")).dropna()
    text = "y ~ I(day.dt.dayofyear / 365) + f + (1 | g)"
    mine, other = (lj.lmm(text, source).fit() for source in (pieces(130, data), data))
    pd.testing.assert_frame_equal(mine.emmeans("f").table, other.emmeans("f").table, rtol=1e-4, atol=1e-6)
    axes = mine.plot.effects("day", "f")
    assert axes.get_xlabel() == "day"
    with pytest.raises(AttributeError, match=r"plot\.shrinkage needs all rows"):
        _ = mine.plot.shrinkage


def relations(blocks):
    """K of the levels of g and of five more."""
    half = np.random.default_rng(2).normal(size=(35, 60))
    k, names = half @ half.T / 60, [f"id{i}" for i in range(35)]
    if blocks:
        k = sp.block_diag([k[i : i + 5, i : i + 5] for i in range(0, 35, 5)], format="csr")
    return lj.Kernel(k, names)


@pytest.mark.parametrize(("blocks", "reml", "backend"), [(False, True, None), (True, False, "block")])
def test_one_kernel_is_that_of_all_rows(blocks, reml, backend):
    """To rounding: the decomposition is that of the levels, however many rows there are."""
    arguments = {"kernels": {"g": relations(blocks)}, "weights": "w", "backend": backend}
    model = lj.lmm("y ~ x + (1 | g)", pieces(), **arguments)
    mine, other = (m.fit(reml) for m in (model, lj.lmm("y ~ x + (1 | g)", DATA, **arguments)))
    assert model.data.design.n <= 33
    assert abs(mine.deviance - other.deviance) < 1e-9
    assert_allclose(mine.bse, other.bse, rtol=1e-9)
    columns = ["estimate", "se", "lower", "upper", "variance"]
    shares = [f.heritability()[columns].to_numpy(float) for f in (mine, other)]
    assert_allclose(*shares, rtol=1e-7)
    effects = [f.ranef(cond_var=True)[["value", "cond_sd", "pred_se"]] for f in (mine, other)]
    assert len(effects[0]) == 35
    assert_allclose(*effects, rtol=1e-7, atol=1e-9)
    assert_allclose(mine.reliability()["reliability"], other.reliability()["reliability"], rtol=1e-7)
    new = pd.DataFrame({"x": [0.5, 0.5], "g": ["id3", "id34"]})
    assert_allclose(mine.predict(new), other.predict(new), rtol=1e-8)


def test_kernels_of_chunks_are_kept_and_changed(tmp_path):
    fit = lj.lmm("y ~ x + (1 | g)", pieces(), kernels={"g": relations(False)}).fit()
    fit.save(tmp_path / "fit.lmm")
    again = lj.load(tmp_path / "fit.lmm")
    columns = ["estimate", "se", "lower", "upper"]
    assert (again.heritability()[columns] == fit.heritability()[columns]).all(axis=None)
    assert fit.update("~ . - x").heritability().index[0] == "g"
    assert fit.update(kernels={"g": relations(True)}).deviance != fit.deviance
    for ask, words in (
        (lambda: fit.heritability(scale="sample"), 'use "diagonal"'),
        (lambda: fit.heritability(by="f"), "by= needs all rows"),
        (lambda: lj.lmm("y ~ x + (1 | g)", pieces(), kernels={"h": relations(False)}), "kernels"),
    ):
        with pytest.raises(ValueError, match=words):
            ask()


def test_several_terms_with_kernels_condense():
    """Criteria at given parameters, without descents."""
    kernels = {"g": [relations(True), None]}
    condensed, whole = (lj.lmm("y ~ x + (1 | g)", data, kernels=kernels).data for data in (pieces(), DATA))
    for reml in (True, False):
        with jax.enable_x64(True):
            values = [
                float(profiled_deviance(np.array([0.8, 0.5]), own.maker(own.response(), reml)))
                for own in (condensed, whole)
            ]
        assert abs(values[0] - values[1]) < 1e-9
