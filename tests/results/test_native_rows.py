"""Frames out like frames in, where there is a row for every row."""

import jax
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def native(sleepstudy):
    return pl.from_pandas(sleepstudy)


@pytest.fixture(scope="module")
def of_polars(native):
    return lj.lmm(FORMULA, native).fit()


ROWS = {
    "fittedvalues": lambda fit: fit.fittedvalues,
    "resid": lambda fit: fit.resid,
    "scaled_resid": lambda fit: fit.scaled_resid,
    "normalized_resid": lambda fit: fit.normalized_resid,
    "residuals": lambda fit: fit.residuals("marginal"),
    "hat": lambda fit: fit.hat(),
    "augment": lambda fit: fit.augment(),
    "predict": lambda fit: fit.predict(),
    "prediction": lambda fit: fit.get_prediction(ddf="normal").summary_frame(),
    "simulate": lambda fit: fit.simulate(jax.random.key(0), 2),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_fit(fit, of_polars, native, name):
    own, expected = ROWS[name](of_polars), ROWS[name](fit)
    assert isinstance(expected, pd.Series | pd.DataFrame)
    assert type(own) is (pl.Series if isinstance(expected, pd.Series) else pl.DataFrame)
    assert_allclose(own.to_numpy(), expected.to_numpy(), rtol=1e-9)
    names = [expected.name] if isinstance(expected, pd.Series) else list(map(str, expected.columns))
    assert ([own.name] if isinstance(own, pl.Series) else own.columns) == names


@pytest.mark.parametrize("se", [False, True])
def test_new_rows_decide(fit, of_polars, native, sleepstudy, se):
    new, options = native[20:25], {"se": se, "ddf": "normal"}
    kinds = (pl.Series, pd.Series, pa.ChunkedArray) if not se else (pl.DataFrame, pd.DataFrame, pa.Table)
    for own in (fit, of_polars):
        assert type(own.predict(new, **options)) is kinds[0]
        assert type(own.predict(new.lazy(), **options)) is kinds[0]
        assert isinstance(own.predict(sleepstudy[20:25], **options), kinds[1])
        assert isinstance(own.predict(new.to_dict(as_series=False), **options), kinds[1])
        assert isinstance(own.predict(new.to_arrow(), **options), kinds[2])
    assert_allclose(fit.predict(new), fit.predict(sleepstudy[20:25]), rtol=1e-12)


def test_other_tables_stay(of_polars, native):
    """Of coefficients and groups; and of rows, where some were dropped and labels say which are there."""
    for table in (of_polars.tidy(), of_polars.random_effects["Subject"], of_polars.hat(group="Subject")):
        assert isinstance(table, pd.DataFrame)
    holes = native.with_columns(Days=pl.when(pl.col("Days") > 0).then(pl.col("Days")))
    left = lj.lmm(FORMULA, holes).fit().resid
    assert isinstance(left, pd.Series)
    assert left.index[0] == 1
