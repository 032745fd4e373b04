"""The way back from transformed responses, and its derivatives."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lmmjax.formula.response import back_transform

Y = np.array([0.31, 0.52, 0.83])
INVERTIBLE = [
    "log(y)",
    "np.log(y)",
    "log2(y)",
    "np.log10(3 * y)",
    "log1p(y)",
    "log(y + 1) / 2",
    "sqrt(y)",
    "2 * sqrt(y + pi_)",
    "np.cbrt(y)",
    "y ** 0.5",
    "y ** -1",
    "1 / y",
    "-1 / (1 + y)",
    "3 - y / 4",
    "I(y / 4)",
    "np.power(y, 3)",
    "np.exp(y)",
    "expm1(y)",
    "np.arcsin(sqrt(y))",
    "np.arcsinh(y)",
    "2 ** y",
    "np.square(y)",
    "np.reciprocal(y)",
    "log(log(y + 3))",
    "100 - 2 * log(y)",
    "log(`y`)",
]
NAMES = {name: getattr(np, name) for name in ("log", "log1p", "sqrt", "expm1", "log2")} | {"np": np}


@pytest.mark.parametrize("text", INVERTIBLE)
def test_there_and_back(text):
    text = text.replace("pi_", "3.25")
    forward = eval(text.replace("`", ""), NAMES | {"y": Y, "I": lambda v: v})
    own = back_transform(text, forward)
    h = 1e-4
    value, *derivatives = own.jet(forward)
    assert_allclose(value, Y, rtol=1e-12)
    # each derivative is that of the one before, by differences whose error is h² of the third next
    for k, derivative in enumerate(derivatives):
        difference = (own.jet(forward + h)[k] - own.jet(forward - h)[k]) / (2 * h)
        assert_allclose(derivative, difference, rtol=1e-4, atol=1e-6 * np.abs(derivative).max() + 1e-9)
    assert_allclose(own.at_ends(forward), forward, rtol=1e-9)


def test_limits_stay_where_the_transformation_goes():
    root, angle = back_transform("sqrt(y)", Y), back_transform("np.arcsin(sqrt(y))", np.array([0.5]))
    assert_allclose(root.at_ends(np.array([-1.0, 2.0])), [0, 2])
    assert_allclose(angle.at_ends(np.array([-1.0, 0.7, 2.0])), [0, 0.7, np.pi / 2], atol=1e-9)
    assert np.isnan(root.jet(np.array([-1.0]))[0][0])
    # the branch that the data are on
    assert_allclose(back_transform("1 / y", -1 / Y).at_ends(np.array([-2.0, 1.0])), [-2, 0])


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("log(y)", 1.0), ("log2(y)", np.log(2)), ("2 * log(3 * y) + 1", 0.5), ("-log(y)", -1.0)],
)
def test_differences_of_logarithms_are_ratios(text, ratio):
    assert_allclose(back_transform(text, Y).ratio, ratio)


@pytest.mark.parametrize("text", ["sqrt(y)", "log1p(y)", "log(y + 1)", "np.exp(y)", "3 * y", "log(log(y))"])
def test_other_differences_are_not(text):
    assert back_transform(text, Y).ratio is None


@pytest.mark.parametrize("text", [None, "y", "my column", "I(y)", "`y`"])
def test_plain_responses(text):
    assert back_transform(text, Y) is None


@pytest.mark.parametrize(
    "text", ["log(y / x)", "center(y)", "y * y", "np.log(y / (1 - y))", "1 / y", "y ** y"]
)
def test_what_has_no_way_back(text):
    with pytest.raises(ValueError, match="no invertible function"):
        back_transform(text, np.array([-1.0, 1.0]))
