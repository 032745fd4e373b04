"""Expressions on new rows: the numbers of the fit, row by row or together, or a refusal."""

import numpy as np
import pandas as pd
import pytest

from lmmjax.formula import model_frame, new_frame

N = 40
RNG = np.random.default_rng(1)
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "x": RNG.normal(size=N) + 3,
        "g": np.repeat(range(8), 5),
        "d": pd.date_range("2020-01-01", periods=N),
        "f": np.tile(list("abcde"), 8),
        "t": np.tile(range(5), 8),
        "b": RNG.normal(size=N) > 0,
    }
)

SOUND = """
log(x); np.log(x); poly(x, 2); scale(x); np.log(scale(x) + 5); center(x) * f; poly(center(x), 2); bs(x, df=4)
ns(x, df=3); cr(x, df=3); I(x**2); C(t); C(t, contr.sum); b:x; I(f == "a"); hashed(f, levels=3); exp10(x / 9)
np.where(x > 3, 1.0, 0.0); np.clip(x, 2, 3); np.minimum(x, 3); np.interp(x, [-1, 0, 1, 5], [0, 2, 3, 4])
bs(x, knots=[np.median(x)]); x.clip(2, 3); x.astype(int); I(x.where(x > 3, 3)); I(f.isin(["a", "b"]))
I(d.dt.dayofyear); I(d > "2020-01-10"); poly(d, 2); I(d.astype("int64")); x.pipe(lambda v: v + 1)
"""
DEPENDENT = """
I(x - x.mean()); I(x - np.mean(x)); I(x / max(x)); I(x / x.max()); x.rank(); x.cumsum(); np.cumsum(x); lag(x)
x.shift(1, fill_value=0); I(x.diff().fillna(0)); np.interp(x, [min(x), max(x)], [0, 1]); np.log(x / np.sum(x))
np.minimum(x, np.quantile(x, 0.9)); I(x > np.median(x)); I((d - d.min()).dt.days); I(f.cat.codes)
scale(x - np.mean(x)); x.pipe(lambda v: v - v.mean()); I(x - x.groupby(g).transform("mean")); np.sort(x)
I(x - x.values[0]); I(x[::-1].values); np.digitize(x, np.quantile(x, [0.2, 0.5, 0.8]));
np.maximum.accumulate(x)
I(x.rolling(2, min_periods=1).mean()); x.clip(x.quantile(0.05), x.quantile(0.95)); np.gradient(x)
I(f.map(f.value_counts()).astype(float)); f:I(x - np.mean(x)); I((x - np.min(x)) / (np.max(x) - np.min(x)))
"""


def listed(text):
    return [term.strip() for term in text.replace("\n", ";").split(";") if term.strip()]


def matrices(new):
    return np.column_stack([new.x, new.random[0].z])


@pytest.mark.parametrize("term", listed(SOUND))
def test_rows_alone_are_as_together(term):
    frame = model_frame(f"y ~ {term} + (0 + {term} | g)", DATA)
    together = matrices(new_frame(frame, DATA))
    np.testing.assert_allclose(together, np.column_stack([frame.x, frame.random[0].z]), atol=1e-12)
    for k in (0, 7, 39):
        np.testing.assert_allclose(matrices(new_frame(frame, DATA.iloc[[k]]))[0], together[k], atol=1e-12)


@pytest.mark.parametrize("term", listed(DEPENDENT))
def test_what_depends_on_other_rows_is_refused(term):
    for formula in (f"y ~ {term} + (1 | g)", f"y ~ 1 + (0 + {term} | g)"):
        frame = model_frame(formula, DATA)
        with pytest.raises(ValueError, match=r"in a row depends on other rows, .*: use center\(x\)") as error:
            new_frame(frame, DATA.iloc[[3]])
        assert term.split("(")[0].split(":")[-1] in str(error.value)


def test_offsets_too():
    frame = model_frame("y ~ x + offset(t - np.mean(t)) + (1 | g)", DATA)
    with pytest.raises(ValueError, match=r"offset\(t-np.mean\(t\)\).*: the value in a row depends"):
        new_frame(frame, DATA)


def test_a_term_that_is_not_needed_is_no_hindrance():
    frame = model_frame("y - np.mean(y) ~ x + (0 + I(x - np.mean(x)) | g)", DATA)
    assert new_frame(frame, DATA, groups=()).x.shape == (N, 2)
    with pytest.raises(ValueError, match="depends on other rows"):
        new_frame(frame, DATA)
    with pytest.raises(ValueError, match=r"response.*the value in a row depends"):
        new_frame(frame, DATA, groups=(), require_response=True)


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_dates_count_alike_in_any_unit(unit):
    frame = model_frame("y ~ poly(d, 2) + I(d.astype('int64')) + (1 | g)", DATA)
    new = new_frame(frame, DATA.assign(d=DATA["d"].dt.as_unit(unit)))
    np.testing.assert_allclose(new.x, frame.x, rtol=1e-12)


def test_all_missing_columns_are_named():
    with pytest.raises(
        ValueError, match=r"unknown columns 'w' \(offset\(w\)\), 'u' \(fixed part\), 'v' \(\(1 \| v\)\)"
    ):
        model_frame("y ~ u + (1 | v) + (1 | g) + offset(w)", DATA)
    frame = model_frame("y ~ x + f + (1 | g)", DATA)
    with pytest.raises(ValueError, match="the new data have no columns 'x', 'g': there are: y, f"):
        new_frame(frame, DATA[["y", "f"]])
