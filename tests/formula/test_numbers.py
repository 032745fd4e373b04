"""Numbers of any kind and library become doubles; what is none is refused with its name."""

import datetime
import re
from decimal import Decimal
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from lmmjax.formula.numbers import doubles

NAN = np.nan


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5, None], [1, 2.5, NAN]),
        ((1, True, np.float32(0.5)), [1, 1, 0.5]),
        ([Decimal("1.5"), Fraction(1, 4), pd.NA], [1.5, 0.25, NAN]),
        ([10**30, 1], [1e30, 1]),
        (np.array([True, False]), [1, 0]),
        (np.array([2**63], np.uint64), [2.0**63]),
        (np.array([-128, 127], np.int8), [-128, 127]),
        (np.ma.masked_array([1, 999], mask=[False, True]), [1, NAN]),
        (np.ma.masked_array([1.5, "?"], mask=[False, True], dtype=object), [1.5, NAN]),
        (np.ma.masked_array(np.array([1.0, 2.0])), [1, 2]),
        (jnp.array([1, 2]), [1, 2]),
        (jnp.array([0.5, 2], jnp.bfloat16), [0.5, 2]),
        (pd.Series([1, None], dtype="Int64"), [1, NAN]),
        (pd.Series([2**63, None], dtype="UInt64"), [2.0**63, NAN]),
        (pd.Series([True, None], dtype="boolean"), [1, NAN]),
        (pd.Series([0.5, None], dtype="Float32"), [0.5, NAN]),
        (pd.Series([1, None], dtype="int8[pyarrow]"), [1, NAN]),
        (pd.Series([2**63, None], dtype="uint64[pyarrow]"), [2.0**63, NAN]),
        (pd.Series([Decimal("0.25"), None], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), [0.25, NAN]),
        (pd.Series([None, None]), [NAN, NAN]),
        (pd.Series(pd.arrays.SparseArray([0.0, 3.0])), [0, 3]),
        (pd.array([1, None], dtype="Int64"), [1, NAN]),
        (pl.Series([1, None]), [1, NAN]),
        (pl.Series([2**63], dtype=pl.UInt64), [2.0**63]),
        (pl.Series([Decimal("0.25"), None]), [0.25, NAN]),
        (pl.Series([True, None]), [1, NAN]),
        (pl.Series([None, None]), [NAN, NAN]),
        (pa.array([1, None]), [1, NAN]),
        (pa.chunked_array([[2**63], [None]], type=pa.uint64()), [2.0**63, NAN]),
        (pa.chunked_array([[Decimal("0.25")], [None]]), [0.25, NAN]),
        (pa.array([True, None]), [1, NAN]),
        (sparse.csr_matrix([[0, 2.0]]), [[0, 2]]),
    ],
)
def test_numbers(values, expected):
    found = doubles(values, "y")
    assert found.dtype == np.float64
    assert_array_equal(found, np.array(expected, float))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1.5", 2], "y is not numeric but text (1.5 in row 0)"),
        (np.array(["1", "2"]), "y is not numeric but text (1 in row 0)"),
        (pd.Series(["a", None]), "y is not numeric but text (a in row 0)"),
        (pd.Series(["3"], dtype="string"), "not numeric but text (3 in row 0)"),
        (pl.Series(["a"]), "not numeric but text (a in row 0)"),
        (pa.array([None, "a"]), "not numeric but text (a in row 1)"),
        (pd.Series([2.0, 1.0], dtype="category"), "not numeric but categories: say which numbers"),
        (np.array([1 + 0j, 2 + 1j]), "not numeric but complex numbers ((1+0j) in row 0)"),
        ([1.0, 1j], "complex numbers ((1+0j) in row 0)"),
        (pd.Series(pd.to_datetime(["2020-01-01"])), "not numeric but dates (2020-01-01"),
        (np.array(["2020-01-01"], "M8[D]"), "not numeric but dates"),
        ([datetime.date(2020, 1, 1)], "not numeric but dates (2020-01-01 in row 0)"),
        (pd.Series(pd.to_timedelta([1], "D")), "not numeric but time spans"),
        (pl.Series([datetime.timedelta(1)]), "not numeric but time spans"),
        (pd.Series([[1], [2, 3]]), "not numeric but values of type list"),
        ([[1, 2], [3]], "y is no array: its rows differ in length"),
        ([10**400], "a number of more than 308 digits in row 0"),
        ("y.parquet", "y is of type str: pass an array"),
        (3.5, "y is of type float: pass an array"),
    ],
)
def test_what_is_no_number(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        doubles(values, "y")
