"""Models of data that are read by the chunk: the fit of all rows at once, whatever the chunks."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
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
    "formula", ["y ~ x + f + (1 | g/h)", "y ~ x + offset(w) + (1 | g) + (1 | h)", "y ~ x + (1 + f || g)"]
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


def test_aliased_columns_are_those_of_all_rows():
    """A column that depends on others in the first chunk alone stays, one that depends everywhere goes."""
    data = DATA.assign(a=np.where(np.arange(N) < 300, 2 * DATA["x"], DATA["w"]), d=DATA["x"] + 1.0)
    fit, whole = (lj.lmm("y ~ x + a + d + (1 | g)", source).fit() for source in (pieces(130, data), data))
    assert fit.model.data.frame.aliased == whole.model.frame.aliased == ("d",)
    assert_allclose(fit.params, whole.params, rtol=1e-7)
