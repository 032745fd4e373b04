"""Formulas as changes of others, and `.`: pure work on text."""

import pytest

from lmmjax.formula.expressions import terms
from lmmjax.formula.text.update import has_dot, updated, with_columns


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        ("y ~ a*b + (x | g)", "~ . - b:a", "y ~ a + b + (x | g)"),
        ("y ~ a + (x | g)", ". ~ . + z", "y ~ a + z + (x | g)"),
        ("y ~ a + (1 + x | g)", "~ . - (x | g) + (1 | g)", "y ~ a + (1 | g)"),
        ("log(y) ~ a + offset(o) + (x || g)", "sqrt(.) ~ . - (x || g) - offset(o)", "sqrt(log(y)) ~ a"),
        ("y ~ a + (1 | a/b)", "~ . - (1 | a/b) + (1 | c)", "y ~ a + (1 | c)"),
        ("y ~ a + b + (1 | g)", "~ .*z", "y ~ a + b + z + a:z + b:z + (1 | g)"),
        ("y ~ a + b + (1 | g)", "~ .^2 - a", "y ~ b + a:b + (1 | g)"),
        ("y ~ a + b + (1 | g)", "~ z + (1 | h)", "y ~ z + (1 | h)"),
        ("y ~ a + b + (1 | g)", "~ . - 1", "y ~ 0 + a + b + (1 | g)"),
        ("y ~ 0 + a + (1 | g)", "~ . + 1", "y ~ a + (1 | g)"),
        ("y ~ a + b + (1 | g)", "~ . - a - b", "y ~ 1 + (1 | g)"),
        ("y ~ `a b` + I(x**2):f + (1 | `my g`)", "~ . - `a b`", "y ~ I(x ** 2):f + (1 | `my g`)"),
        ("y ~ x + cs(f | g)", "~ . - cs(f | g) + rr(f | g, 2)", "y ~ x + rr(f | g, 2)"),
        ("~ x + (1 | g)", "y ~ .", "y ~ x + (1 | g)"),
        ("y ~ a + (1 | g)", "~ . + (1 | g)", "y ~ a + (1 | g)"),
        ("y ~ x + np.log(z)", "~ . - np.log(z)", "y ~ x"),
    ],
)
def test_updated(old, change, new):
    assert updated(old, change, terms) == new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("~ . - z", "no term z to take out: there are: a"),
        ("~ . - (x | g)", r"no random term \(x | g\) to take out"),
        ("~ . - offset(o)", "no offset"),
        ("a + b", "write one ~"),
        ("~ . - .", "'.' can only be added"),
        ("~ . + (. | g)", "in the fixed part alone"),
        ("~ log(.)", "no place in a function"),
    ],
)
def test_changes_that_are_none(change, message):
    with pytest.raises(ValueError, match=message):
        updated("y ~ a + (1 | g)", change, terms)


@pytest.mark.parametrize(
    ("formula", "written"),
    [
        ("y ~ . + (1|g)", "y ~ a + `b b` + w + (1|g)"),
        ("log(y) ~ .^2 + (a|g)", "log(y) ~ (a + `b b` + w)^2 + (a|g)"),
        ("y ~ . - a + (1 | g)", "y ~ a + `b b` + w - a + (1 | g)"),
        ("y ~ (.)*z", "y ~ (a + `b b` + g + w)*z"),
        ("y ~ offset(a) + . + (1|g)", "y ~ offset(a) + `b b` + w + (1|g)"),
        ("y ~ x.1 + np.log(a)", None),
    ],
)
def test_dot(formula, written):
    columns = ["y", "a", "b b", "g", "w"]
    assert has_dot(formula) == (written is not None)
    if written:
        assert with_columns(formula, columns, []) == written


@pytest.mark.parametrize("formula", ["y ~ (1 | .)", "y ~ (. | g)", ". ~ . + a"])
def test_dots_elsewhere(formula):
    with pytest.raises(ValueError, match="in the fixed part alone"):
        with_columns(formula, ["y", "a", "g"], [])


def test_no_column_is_left():
    with pytest.raises(ValueError, match="stands for no column"):
        with_columns("y ~ . + (1 | g)", ["y", "g"], [])
