"""The text of a formula as tokens, its brackets matched."""

import math
import re
from dataclasses import dataclass
from typing import NoReturn

DEPTH = 50
"""Most brackets open at a time: Python's own limit for expressions is 200, its recursion deeper."""

FACTORS = 10
"""Most factors of a product a*b*c, which stands for 2^k − 1 terms."""

LONGEST = 20_000
"""Most characters of a name, a text or an expression: reading them takes the square of their number."""

TERMS = 10**5
"""Most products that a power of a sum is written out as."""

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<quote>"(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `[^`]*`)
      | (?P<word>[\w.]+)
      | (?P<op>\|\||\*\*|.)""",
    re.VERBOSE | re.DOTALL,
)
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_POWERS = ("**", "^")
_NO_POWER = "right of {} stands a whole number, as in (a + b)^2: write one, or I(...) for arithmetic"


@dataclass(frozen=True)
class Token:
    """A piece of the text, the offset of its first character, and its kind: quote, word or op."""

    text: str
    start: int
    kind: str


def fail(formula: str, position: int, message: str) -> NoReturn:
    """ValueError with the line of the formula and a caret at a position."""
    begin = formula.rfind("\n", 0, position) + 1
    line = formula[begin:].split("\n", 1)[0]
    raise ValueError(f"formula: {message}\n    {line}\n    {' ' * (position - begin)}^")


def tokenize(formula: str) -> tuple[list[Token], dict[int, int], set[int]]:
    """Tokens, the closing bracket of each opening one, and the opening brackets of calls, by position."""
    tokens: list[Token] = []
    pair: dict[int, int] = {}
    calls: set[int] = set()
    opened: list[int] = []
    begin: dict[int, int] = {}
    in_call, stars = 0, [0]
    for match in _TOKEN.finditer(formula):
        kind, text, start = str(match.lastgroup), match.group(), match.start()
        if kind == "space":
            continue
        if len(text) > LONGEST:
            more = f"a name or text of more than {LONGEST:,} characters: make it a column of the data"
            fail(formula[: start + 60], start, more)
        here, last = len(tokens), tokens[-1] if tokens else None
        if text in ('"', "'", "`"):
            fail(formula, start, f"this {text} is never closed: add {text}")
        if not in_call and last is not None and last.text in _POWERS and kind == "op" and text != "(":
            fail(formula, last.start, _NO_POWER.format(last.text))
        if text == "^" and in_call:
            fail(formula, start, "inside a function ^ is Python's exclusive or: write ** for a power")
        if text == "*" and not in_call:
            stars[-1] += 1
            if stars[-1] >= FACTORS:
                fail(formula, start, f"a product of more than {FACTORS} factors: write the terms you want")
        elif text in ("+", "-", "|", "||", "~"):
            stars[-1] = 0
        if text in _PAIRS:
            after_value = last is not None and (last.kind != "op" or last.text in ")]}")
            if text == "{" or after_value:
                calls.add(here)
            in_call += here in calls
            opened.append(here)
            stars.append(0)
            if len(opened) > DEPTH:
                fail(formula, start, f"more than {DEPTH} brackets are open: take some away")
        elif text in (")", "]", "}"):
            if not opened or _PAIRS[tokens[opened[-1]].text] != text:
                fail(formula, start, f"this {text} closes nothing: remove it, or open it before")
            pair[opened[-1]], begin[here] = here, opened[-1]
            if opened[-1] in calls and start - (first := tokens[opened[-1]].start) > LONGEST:
                more = f"an expression of more than {LONGEST:,} characters: make it a column of the data"
                fail(formula[: first + 60], first, more)
            in_call -= opened.pop() in calls
            stars.pop()
        tokens.append(Token(text, start, kind))
        if not in_call and last is not None and last.text in _POWERS and text.isdigit():
            base = begin.get(here - 2, here - 2)
            if _products(tokens[base : here - 1]) * int(text[:4]) > math.log(TERMS):
                fail(formula, start, "a power of so many terms: write the terms you want")
    if tokens and tokens[-1].text in _POWERS:
        fail(formula, tokens[-1].start, _NO_POWER.format(tokens[-1].text))
    if opened:
        bracket = tokens[opened[-1]]
        fail(formula, bracket.start, f"this {bracket.text} is never closed: add {_PAIRS[bracket.text]}")
    return tokens, pair, calls


def _products(tokens: list[Token]) -> float:
    """The log of about how many terms a piece of a formula stands for."""
    texts = [token.text for token in tokens]
    count = math.log(1 + texts.count("+")) + math.log(2) * texts.count("*")
    for k, text in enumerate(texts[:-1]):
        if text in ("**", "^") and texts[k + 1].isdigit():
            count *= int(texts[k + 1][:4])
    return count
