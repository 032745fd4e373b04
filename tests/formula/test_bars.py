"""Splitting formulas: every spelling has one meaning, every mistake one message with a position."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmmjax.formula import Bar, split_bars
from lmmjax.formula.text.bars import STRUCTURES


def terms(formula: str) -> list[tuple[str, str]]:
    return [(bar.lhs, ":".join(bar.group)) for bar in split_bars(formula).bars]


def test_a_formula_in_parts():
    split = split_bars("log(y) ~ x*f + offset(log(n)) + (x | g) + rr(0 + f | a:b, 2)")
    assert (split.response, split.fixed, split.offsets) == ("log(y)", "x*f", ("log(n)",))
    assert split.bars == (
        Bar("x", ("g",), "us", (), "x | g", 32),
        Bar("0 + f", ("a", "b"), "rr", ("2",), "rr(0 + f | a:b, 2)", 42),
    )


@pytest.mark.parametrize(
    ("formula", "fixed"),
    [
        ("~ (1|g)", "1"),
        ("y ~ (1|g) + x", "x"),
        ("y ~ x + (1|g) - 1", "x - 1"),
        ("y ~ -1 + (1|g)", "-1"),
        ("y ~ - 1 + x + (1|g)", "-1 + x"),
        ("y ~ 0 + (1|g) + x", "0 + x"),
        ("y ~ (1|g) - x", "-x"),
        ("y ~ (x + (1|g)) + z", "(x) + z"),
        ("y ~ (x + z) * f + ((1|g))", "(x+z)*f"),
        ("y ~ ((1|g) + (1|h))", "1"),
        ("y ~ x + + -1 + (1|g)", "x - 1"),
        ("y ~ x:f/z + a**2 + x**1", "x:f/z + a**2 + x**1"),
        ("y ~ I(a|b) + (1|g)", "I(a|b)"),
        ("y ~ np.where((a > 1) | (b<2), 1, 0)", "np.where((a>1)|(b<2), 1, 0)"),
        ("y ~ {a | b} + x[a|b] + (1|g)", "{a|b} + x[a|b]"),
        ("y ~ C(f, contr.treatment('p|q (')) + (1|g)", "C(f, contr.treatment('p|q ('))"),
        ('y ~ C(f, levels=["a~b", "c\\"|"]) + (1|g)', 'C(f, levels=["a~b", "c\\"|"])'),
        ("y ~ `a|b` + `x (mm)` + (1|g)", "`a|b` + `x (mm)`"),
        ("y ~ cs(x, df=3) + exp(x) + cs(f | g)", "cs(x, df=3) + exp(x)"),
        ("y ~ I(1 if a else b) + I(not a)", "I(1 if a else b) + I(not a)"),
        ("y ~ Informed.liking + (1|.g)", "Informed.liking"),
        ("y ~ offset(o) + (1|g)", "1"),
        ("y\n ~ x +\n\t(1\n|g)\n", "x"),
    ],
)
def test_the_fixed_part_is_what_remains(formula, fixed):
    assert split_bars(formula).fixed == fixed


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("~ (1|g)", [("1", "g")]),
        ("~ (1+x|g)", [("1 + x", "g")]),
        ("~ (0+x | g)", [("0 + x", "g")]),
        ("~ (x-1 | g)", [("x - 1", "g")]),
        ("~ (-1 + x | g)", [("-1 + x", "g")]),
        ("~ (poly(x, 2)*f | g)", [("poly(x, 2)*f", "g")]),
        ("~ (I(a|b) | g)", [("I(a|b)", "g")]),
        ("~ (1|a/b)", [("1", "a"), ("1", "b:a")]),
        ("~ (x|a/b/c)", [("x", "a"), ("x", "b:a"), ("x", "c:b:a")]),
        ("~ (1|a:b)", [("1", "a:b")]),
        ("~ (1|b:a)", [("1", "b:a")]),
        ("~ (1|a:b/c)", [("1", "a:b"), ("1", "c:a:b")]),
        ("~ (1|a/b:c)", [("1", "a"), ("1", "b:c:a")]),
        ("~ (1|a/(b/c))", [("1", "a"), ("1", "b:a"), ("1", "c:b:a")]),
        ("~ (1|(a:b))", [("1", "a:b")]),
        ("~ (1|`a/b`:`c d`)", [("1", "a/b:c d")]),
        ("~ (1|g) + (0+x|g)", [("1", "g"), ("0 + x", "g")]),
        ("~ (x||g)", [("1", "g"), ("0 + x", "g")]),
        ("~ (x1+x2||g)", [("1", "g"), ("0 + x1", "g"), ("0 + x2", "g")]),
        ("~ (1 + x1 + (x2 + x1)||g)", [("1", "g"), ("0 + x1", "g"), ("0 + x2", "g")]),
        ("~ (0+x||g)", [("0 + x", "g")]),
        ("~ (x - 1||g)", [("0 + x", "g")]),
        ("~ (x + 0||g)", [("0 + x", "g")]),
        ("~ (-1 + x||g)", [("0 + x", "g")]),
        ("~ (1||g)", [("1", "g")]),
        ("~ (f||g)", [("1", "g"), ("0 + f", "g")]),
        ("~ (x*z + f||g)", [("1", "g"), ("0 + x", "g"), ("0 + z", "g"), ("0 + f", "g"), ("0 + x:z", "g")]),
        ("~ (poly(x, 2) + `a b`:z||g)", [("1", "g"), ("0 + poly(x, 2)", "g"), ("0 + `a b`:z", "g")]),
        ("~ (x||a/b)", [("1", "a"), ("0 + x", "a"), ("1", "b:a"), ("0 + x", "b:a")]),
        ("~ us(x|g)", [("x", "g")]),
    ],
)
def test_random_terms(formula, expected):
    assert terms(formula) == expected


@pytest.mark.parametrize("structure", sorted(STRUCTURES - {"us"}))
def test_structures_are_named(structure):
    (bar,) = split_bars(f"y ~ x + {structure}( 0+f|g:h , 2, k = 'a,|b')").bars
    assert (bar.structure, bar.lhs, bar.group, bar.args) == (
        structure,
        "0 + f",
        ("g", "h"),
        ("2", "k='a,|b'"),
    )
    assert bar.text == f"{structure}(0 + f | g:h, 2, k='a,|b')"


def test_nesting_keeps_the_structure():
    assert [bar.text for bar in split_bars("~ diag(f | a/b)").bars] == ["diag(f | a)", "diag(f | b:a)"]


def test_text_writes_names_as_a_formula_does():
    assert [bar.text for bar in split_bars("~ (x|`my group`/b)").bars] == [
        "x | `my group`",
        "x | b:`my group`",
    ]


@pytest.mark.parametrize(
    ("formula", "at", "message"),
    [
        ("", "", "there is no ~"),
        ("y x", "y x", "there is no ~"),
        ("y ~", "", "nothing is right of ~"),
        ("y ~ x ~ z", "~ z", "more than one ~"),
        ("y ~ (x ~ z)", "~ z", "~ belongs between"),
        ("y ~ x + ", "+ ", "a term is missing after this sign"),
        ("y ~ ()", ")", "a term is missing here"),
        ("y ~ ((1|g)", "((1", "this ( is never closed: add )"),
        ("y ~ 1|g)", ")", "this ) closes nothing"),
        ("y ~ f(x] + z", "] +", "this ] closes nothing"),
        ("y ~ C(f, 'a)", "'a)", "this ' is never closed"),
        ("y ~ `a + (1|g)", "`a", "this ` is never closed"),
        ("y ~ x + 1|g", "|g", "write y ~ x + (1 | g) if only 1 is left of the bar, (x + 1 | g) if all is"),
        ("y ~ x + 1 || g", "|| g", "a bar outside parentheses: write y ~ x + (1 || g) if only 1"),
        ("y ~ 1|g", "|g", "a bar outside parentheses: write y ~ (1 | g)"),
        ("y ~ 1|g + 1|h", "|g + 1", "a bar outside parentheses: write y ~ (1 | g) + (1 | h)"),
        ("y ~ (1|g) + z|h + x", "|h", "a bar outside parentheses: write y ~ (1|g) + (z | h) + x"),
        ("y ~ |g", "|g", "write the random term as (lhs | group)"),
        ("(y|g) ~ x", "(y|g)", "a random term can only be added"),
        ("y|g ~ x", "|g", "random terms belong right of ~"),
        ("y ~ (|g)", "|g", "nothing is left of this bar"),
        ("y ~ (x|)", "|)", "nothing is right of this bar"),
        ("y ~ (1|a|b)", "|b", "exactly one bar"),
        ("y ~ ((1|a)|g)", "(1|a)|", "a random term can only be added"),
        ("y ~ x*(1|g)", "(1|g)", "a random term can only be added"),
        ("y ~ (x + (1|g)):z", "(1|g)", "a random term can only be added"),
        ("y ~ x - (1|g)", "(1|g)", "cannot be subtracted"),
        ("y ~ x (1|g)", "(1|g)", "a + is missing between x and"),
        ("y ~ (1|g) + x + (1 | g)", "(1 | g)", "appears twice"),
        ("y ~ (x||g) + (1|g)", "(1|g)", "(1 | g) appears twice"),
        ("y ~ (1|a:b) + (1|b:a)", "(1|b:a)", "appears twice"),
        ("y ~ (1|a/b) + (1|a:b)", "(1|a:b)", "appears twice"),
        ("y ~ (1|a*b)", "*b", "write a:b, a/b, or (1 | a) + (1 | b) + (1 | a:b)"),
        ("y ~ (1|a + b)", "+ b", "write a:b"),
        ("y ~ (1|factor(g))", "factor(g)", "factor(g) is no grouping factor"),
        ("y ~ (1|2)", "2)", "2 is no grouping factor"),
        ("y ~ (1|'g')", "'g'", "is no grouping factor"),
        ("y ~ (1|a:)", ")", "a name is missing beside :"),
        ("y ~ (1|a//b)", "/b", "a name is missing beside /"),
        ("y ~ (1|())", "())", "nothing is inside these parentheses"),
        ("y ~ (1|a/b/a)", "a)", "a factor appears twice in a:b:a"),
        ("y ~ (1|(a/b):c)", "(a/b)", "nesting inside an interaction"),
        ("y ~ (1|g, 2)", ", 2", "further arguments need a structure"),
        ("y ~ rr(2, x|g)", "|g", "exactly one bar"),
        ("y ~ diag(x||g)", "||g", "|| has no meaning inside diag()"),
        ("y ~ (x/z||g)", "/z", "left of || write every term"),
        ("y ~ (x - z||g)", "z||", "left of || write every term"),
        ("y ~ (0||g)", "0||", "no term is left of ||"),
        ("y ~ x + (.|g)", ".|g", "'.' stands for all other columns in the fixed part alone"),
        ("y ~ I(x^2) + (1|g)", "^2", "inside a function ^ is Python's exclusive or"),
        ("y^2 ~ x", "^2", "in the response ^ is Python's exclusive or"),
        ("y ~ x - offset(z)", "offset", "an offset is added"),
        ("y ~ x + offset()", "offset", "not empty"),
        ("y ~ x +\n  z + (1|)", "|)", "nothing is right of this bar"),
    ],
)
def test_mistakes_are_shown_with_their_place(formula, at, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        split_bars(formula)
    *_, line, caret = str(caught.value).split("\n")
    assert line.strip() in formula
    assert line.startswith(at, caret.index("^")) if at else caret.index("^") == len(line)


def test_a_formula_is_a_string():
    with pytest.raises(TypeError, match="a formula is a string, not int"):
        split_bars(3)  # pyright: ignore[reportArgumentType]


NAMES = st.sampled_from(["a", "b.c", "_d", "e1", "`f g`", "`h|i`"])
FIXED = st.sampled_from(
    ["1", "x", "x:z", "I(x|z)", "np.log(x)", "C(f, contr.treatment('a | b'))", "`p (q`", "(x + z)"]
)
LEFT = st.sampled_from(["1", "x", "0 + x", "x - 1", "1 + I(a|b)", "`y z` + f"])
SPACE = st.sampled_from(["", " ", "\n "])


@st.composite
def random_terms(draw):
    left, group = draw(LEFT), draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    return (
        left,
        tuple(name.strip("`") for name in group),
        f"({left}{draw(SPACE)}|{draw(SPACE)}{':'.join(group)})",
    )


@given(
    fixed=st.lists(FIXED, unique=True, max_size=4),
    random=st.lists(random_terms(), max_size=4, unique_by=lambda term: (term[0], frozenset(term[1]))),
    data=st.data(),
)
def test_any_order_and_spacing_splits_the_same(fixed, random, data):
    pieces = data.draw(st.permutations([(text, None) for text in fixed] + [(t[2], t) for t in random]))
    plus = data.draw(SPACE) + "+" + data.draw(SPACE)
    split = split_bars("y ~ " + (plus.join(text for text, _ in pieces) or "1"))
    assert split.fixed == (" + ".join(text for text, term in pieces if term is None) or "1")
    assert [(bar.lhs, bar.group) for bar in split.bars] == [(t[0], t[1]) for _, t in pieces if t is not None]
    again = split_bars(
        f"y ~ {split.fixed} + " + " + ".join(f"({bar.text})" for bar in split.bars) if random else "y ~ 1"
    )
    assert [bar.text for bar in again.bars] == [bar.text for bar in split.bars]


@given(st.text(alphabet="xg1 ~|+-*/:()[]{}'`,.^\n", max_size=25))
def test_any_text_splits_or_is_a_value_error(text):
    try:
        split = split_bars(text)
    except ValueError as error:
        split = None
        assert re.match(r"(?s)formula: .*\n +\^$", str(error))  # noqa: PT017
    if split is not None:
        assert split.fixed
        assert all(bar.lhs and all(bar.group) for bar in split.bars)
