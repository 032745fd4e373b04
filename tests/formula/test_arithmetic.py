"""In expressions all numbers are doubles: bools are 0 and 1, small integers do not wrap around."""

import numpy as np
import pandas as pd
import pytest

from lmmjax.formula import model_frame, new_frame

N = 24
RNG = np.random.default_rng(3)
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "x": RNG.normal(size=N),
        "a": RNG.random(N) > 0.5,
        "b": RNG.random(N) > 0.5,
        "f": pd.Categorical(np.tile(list("pqrs"), 6)),
        "day": pd.date_range("2021-11-01", periods=N),
        "my col": RNG.normal(size=N),
        "my_col": RNG.normal(size=N),
        "g": np.repeat(range(6), 4),
    }
)
A, B = DATA["a"].astype(float), DATA["b"].astype(float)
CODES, DAYS = DATA["f"].cat.codes.astype(float), DATA["day"].dt.day_of_year.astype(float)

CASES = {
    "I(a + b)": A + B,
    "I(a - b)": A - B,
    "I(a * b)": A * B,
    "I(-a)": -A,
    "I(a ** 2 + b / 2)": A**2 + B / 2,
    "np.add(a, b)": A + B,
    "I((x > 0) + (`my col` > 0))": (DATA["x"] > 0) * 1.0 + (DATA["my col"] > 0),
    "I((x > 0) * 2 - a)": (DATA["x"] > 0) * 2.0 - A,
    "I(f.cat.codes * 100)": CODES * 100,
    "np.power(f.cat.codes, 9)": CODES**9,
    "I(day.dt.day_of_year ** 6)": DAYS**6,
    "I(abs(f.cat.codes - 2) * 90)": np.abs(CODES - 2) * 90,
    "exp10(x)": 10.0 ** DATA["x"],
    "I(`my col` + my_col)": DATA["my col"] + DATA["my_col"],
}


@pytest.mark.parametrize("term", CASES)
def test_numbers_are_doubles(term):
    frame = model_frame(f"y ~ 0 + {term}", DATA)
    np.testing.assert_allclose(frame.x[:, 0], CASES[term], rtol=1e-14)
    assert frame.x.shape == (N, 1)


def test_also_in_responses_weights_and_offsets():
    frame = model_frame("I(a + b) ~ x", DATA, weights="1 + a + b", offset="a - b")
    np.testing.assert_array_equal(frame.y, A + B)
    np.testing.assert_array_equal(frame.weights, 1 + A + B)
    np.testing.assert_array_equal(frame.offset, A - B)


@pytest.mark.parametrize("term", ["scale(`my col`) + my_col", "poly(`my col` + my_col, 2)"])
def test_the_state_of_names_that_read_alike(term):
    """`my col` and my_col are both my_col to Python."""
    frame = model_frame(f"y ~ {term}", DATA)
    for rows in ([0], [3, 17]):
        np.testing.assert_allclose(new_frame(frame, DATA.iloc[rows]).x, frame.x[rows], atol=1e-13)


def test_what_is_no_arithmetic_stays():
    """Conditions are factors, texts are texts, and places are whole numbers."""
    frame = model_frame('y ~ I(~a) + I((x > 0) & b) + I(f == "p") + I(x.values[::-1])', DATA)
    assert [name for name in frame.x_names if name.endswith("[T.True]")] == [
        "I(~a)[T.True]",
        "I((x > 0) & b)[T.True]",
        "I(f == 'p')[T.True]",
    ]
