"""Formula text split into response, fixed part, offsets and random-effect terms.

    response ~ fixed + offset(o) + (lhs | group) + (lhs || group) + diag(lhs | group) + ...

Pure string work: nothing here knows a data frame. What stays in the fixed part, and everything left
of a bar, is formulaic's syntax; what is right of a bar is

    group  =  path ('/' path)*        a/b/c  is  a, b:a, c:b:a: as in lme4 the inner factor comes first
    path   =  factor (':' factor)*    a:b    is the interaction, one level for each pair that occurs
    factor =  name | `any text` | '(' group ')'

Differences from lme4: `a/b/c` gives `c:b:a`, where lme4 writes `c:(b:a)`; and `(x | a*b)` or
`(x | a + b)`, which lme4 evaluates as arithmetic, is an error that says what to write.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import NoReturn

from lmmjax.formula.text.tokens import fail, tokenize

_NAMES = "us diag homdiag cs homcs ar1 hetar1 car1 ou exp gau mat toep homtoep rr fa propto equalto"
STRUCTURES = frozenset(re.findall(r"\w+", _NAMES))


@dataclass(frozen=True)
class Bar:
    """One random-effect term `(lhs | group)`.

    `lhs` is the formula of its columns; `group` the factors whose interaction is the grouping factor;
    `structure` the covariance family, `args` its further arguments (the 2 of `rr(f | g, 2)`) as text;
    `text` the term as written, normalised ("Days | Subject", "cs(f | g)"); `position` the offset of its
    first character in the formula.
    """

    lhs: str
    group: tuple[str, ...]
    structure: str
    args: tuple[str, ...]
    text: str
    position: int


@dataclass(frozen=True)
class SplitFormula:
    """A formula in parts; `fixed` is "1" when nothing but random terms and offsets was written."""

    response: str | None
    fixed: str
    offsets: tuple[str, ...]
    bars: tuple[Bar, ...]


def split_bars(formula: str, *, dot: bool = False) -> SplitFormula:
    """Split an lme4-style formula, `response ~ terms` or `~ terms`.

    `(x1 + x2 || g)` means what lme4 documents: `(1 | g) + (0 + x1 | g) + (0 + x2 | g)`, without the
    first if the intercept is removed (`0 +`, `- 1`). `x1*x2` is written out first. A factor on the left
    of `||` keeps its full correlated block: `(f || g)` is `(1 | g) + (0 + f | g)`; write `diag(f | g)`
    for independent columns. A call such as `I(a | b)` is left alone unless its name is in `STRUCTURES`.

    Raises ValueError, with the formula and a caret at the place, for unbalanced brackets or quotes, a
    missing or second `~`, an empty side of a bar or of `+`, a bar outside parentheses, a random term
    that is not simply added, a grouping factor that is not made of names, a term written twice, `.` (which
    `dot` leaves in the fixed part), `^` inside a function call (exclusive or in Python: `**` is the power),
    brackets too deep, and products of too many factors.
    """
    if not isinstance(formula, str):
        raise TypeError(f"a formula is a string, not {type(formula).__name__}")
    return Splitter(formula, dot).split()


def quoted(name: str) -> str:
    """The name as a formula writes it: in backticks unless it is a plain word."""
    return name if re.fullmatch(r"[^\W\d][\w.]*", name) else f"`{name}`"


class Splitter:
    """Works on ranges [lo, hi) of one list of tokens; `pair` maps an opening bracket to its partner."""

    def __init__(self, formula: str, dot: bool = False):
        self.formula, self.dot = formula, dot
        self.tokens, self.pair, self.calls = tokenize(formula)
        self.bars: list[Bar] = []
        self.offsets: list[str] = []

    def fail(self, position: int, message: str) -> NoReturn:
        fail(self.formula, position, message)

    def top(self, lo: int, hi: int) -> Iterator[int]:
        """Positions in [lo, hi) outside all brackets (opening brackets included)."""
        while lo < hi:
            yield lo
            lo = self.pair.get(lo, lo) + 1

    def find(self, lo: int, hi: int, *texts: str) -> list[int]:
        return [i for i in self.top(lo, hi) if self.tokens[i].kind == "op" and self.tokens[i].text in texts]

    def at(self, i: int) -> int:
        return self.tokens[i].start if i < len(self.tokens) else len(self.formula)

    def text(self, lo: int, hi: int) -> str:
        """Source text, with white space only where words or a comma need it."""
        out = ""
        for token in self.tokens[lo:hi]:
            words = out[-1:].isidentifier() or out[-1:].isdigit() or out[-1:] in ("'", '"', ")", "]")
            out += " " * (out[-1:] == "," or (bool(out) and words and token.kind == "word")) + token.text
        return out

    def split(self) -> SplitFormula:
        end = len(self.tokens)
        tildes = self.find(0, end, "~")
        if not tildes:
            self.fail(0, "there is no ~: write 'response ~ terms', or '~ terms' without a response")
        if len(tildes) > 1:
            self.fail(self.at(tildes[1]), "there is more than one ~: keep one, between response and terms")
        tilde = tildes[0]
        self.refuse_dots(0, end if not self.dot else tilde)
        if tilde + 1 == end:
            self.fail(self.at(end), "nothing is right of ~: write at least '~ 1'")
        for i in range(tilde):
            if self.tokens[i].text == "^":
                self.fail(self.at(i), "in the response ^ is Python's exclusive or: write ** for a power")
        for i in self.find(0, tilde, "|", "||"):
            self.fail(self.at(i), "random terms belong right of ~")
        self.refuse_bars(0, tilde)
        for i in self.find(tilde + 1, end, "**", "^"):
            power = self.tokens[i + 1].text if i + 1 < end else ""
            if power.isdigit() and (len(power) > 2 or int(power) > 20):
                self.fail(self.at(i), f"power {power[:12]} of terms: interactions of up to 20 are formed")
        response = self.text(0, tilde) or None
        fixed = self.fixed(tilde + 1, end) or "1"
        seen: set[tuple] = set()
        for bar in self.bars:
            key = (bar.lhs, frozenset(bar.group), bar.structure)
            if key in seen:
                self.fail(bar.position, f"the random term ({bar.text}) appears twice: remove one")
            seen.add(key)
        return SplitFormula(response, fixed, tuple(self.offsets), tuple(self.bars))

    def summands(self, lo: int, hi: int) -> list[tuple[int, int, int]]:
        """(sign, lo, hi) of each summand of the top-level sum in [lo, hi)."""
        out, sign, start = [], 1, lo
        for i in self.find(lo, hi, "+", "-"):
            before = self.tokens[i - 1]
            if i > start and before.kind == "op" and before.text not in ")]}":
                continue
            turn = -1 if self.tokens[i].text == "-" else 1
            if i > start:
                out.append((sign, start, i))
                sign = turn
            else:
                sign *= turn
            start = i + 1
        if start == hi:
            place = self.at(hi - 1) if hi > lo else self.at(hi)
            self.fail(place, "a term is missing here" if hi == lo else "a term is missing after this sign")
        return [*out, (sign, start, hi)]

    def fixed(self, lo: int, hi: int) -> str:
        """Text of [lo, hi) without random terms and offsets, which are collected on the way."""
        pieces = [(sign, self.piece(sign, a, b)) for sign, a, b in self.summands(lo, hi)]
        return signed([(sign, text) for sign, text in pieces if text])

    def piece(self, sign: int, a: int, b: int) -> str:
        head = self.tokens[a]
        if self.pair.get(a) == b - 1 and head.text == "(":
            if self.find(a + 1, b - 1, "|", "||"):
                self.term(sign, a, a + 1, b - 1, "us")
                return ""
            inner = self.fixed(a + 1, b - 1)
            return f"({inner})" if inner else ""
        if a + 1 < b and self.pair.get(a + 1) == b - 1 and head.kind == "word":
            barred = self.find(a + 2, b - 1, "|", "||")
            if head.text == "offset":
                if sign < 0 or a + 2 == b - 1:
                    self.fail(head.start, "an offset is added and not empty: write + offset(expression)")
                self.offsets.append(self.text(a + 2, b - 1))
                return ""
            if barred and head.text in STRUCTURES:
                self.term(sign, a, a + 2, b - 1, head.text)
                return ""
            if barred and self.at(a + 1) > head.start + len(head.text):
                self.fail(self.at(a + 1), f"a + is missing between {head.text} and this random term")
        if self.find(a, b, "|", "||"):
            self.fail(self.at(self.find(a, b, "|", "||")[0]), self.parenthesised())
        self.refuse_bars(a, b)
        return self.text(a, b)

    def parenthesised(self) -> str:
        """What to write for a formula with bars outside parentheses."""
        (tilde,), end = self.find(0, len(self.tokens), "~"), len(self.tokens)
        pieces: list[tuple[int, str]] = []
        left = right = other = ""
        for sign, a, b in self.summands(tilde + 1, end):
            text, bars = self.text(a, b), self.find(a, b, "|", "||")
            if bars and not (len(bars) == 1 and a < bars[0] < b - 1):
                return "a bar outside parentheses: write the random term as (lhs | group)"
            if bars:
                bar = self.tokens[bars[0]].text
                left, right = self.text(a, bars[0]), self.text(bars[0] + 1, b)
                text = f"({left} {bar} {right})"
                other = f"({signed([*pieces, (sign, left)])} {bar} {right})"
            pieces.append((sign, text))
        said = f"a bar outside parentheses: write {self.text(0, tilde)} ~ {signed(pieces)}".replace("  ", " ")
        if len(pieces) == 1 or not pieces[-1][1].endswith(f"{right})") or "(" in other[1:]:
            return said
        return f"{said} if only {left} is left of the bar, {other} if all is"

    def refuse_dots(self, lo: int, hi: int) -> None:
        """Fail at a `.` in [lo, hi)."""
        for i in range(lo, hi):
            if self.tokens[i].text == ".":
                self.fail(self.at(i), "'.' stands for all other columns in the fixed part alone: name them")

    def refuse_bars(self, lo: int, hi: int) -> None:
        """Fail at a bar of [lo, hi) that is not inside a call, where it is Python's `or`."""
        for i in self.top(lo, hi):
            token = self.tokens[i]
            if token.text in ("|", "||"):
                self.fail(token.start, "a bar outside parentheses: write the random term as (lhs | group)")
            if token.text == "~":
                self.fail(token.start, "~ belongs between the response and the terms")
            if i in self.pair and i not in self.calls:
                if self.find(i + 1, self.pair[i], "|", "||"):
                    self.fail(token.start, "a random term can only be added: write ... + (lhs | group)")
                self.refuse_bars(i + 1, self.pair[i])

    def term(self, sign: int, start: int, lo: int, hi: int, structure: str) -> None:
        """Collect the term (lhs | group, args) in [lo, hi), written from token `start` on."""
        place = self.at(start)
        self.refuse_dots(lo, hi)
        if sign < 0:
            self.fail(place, "a random term cannot be subtracted: leave it out")
        commas = self.find(lo, hi, ",")
        edges = [*commas, hi]
        bars = self.find(lo, edges[0], "|", "||")
        if commas and structure == "us":
            self.fail(self.at(commas[0]), "a comma: further arguments need a structure, as in rr(f | g, 2)")
        if len(bars) != 1:
            where = bars[1] if bars else self.find(lo, hi, "|", "||")[0]
            self.fail(self.at(where), "a random term has exactly one bar: (lhs | group)")
        bar = bars[0]
        if bar == lo:
            self.fail(self.at(bar), "nothing is left of this bar: write 1 for a random intercept")
        if bar + 1 == edges[0]:
            self.fail(self.at(bar), "nothing is right of this bar: write the grouping factor")
        self.refuse_bars(lo, bar)
        args = tuple(self.text(a + 1, b) for a, b in zip(commas, edges[1:], strict=True))
        if self.tokens[bar].text == "||":
            if structure != "us":
                self.fail(self.at(bar), f"|| has no meaning inside {structure}(): write | or diag(... | ...)")
            lefts = self.independent(lo, bar)
        else:
            lefts = [signed([(s, self.text(a, b)) for s, a, b in self.summands(lo, bar)])]
        for group in self.group(bar + 1, edges[0]):
            for lhs in lefts:
                text = f"{lhs} | {':'.join(map(quoted, group))}"
                if structure != "us":
                    text = f"{structure}({', '.join([text, *args])})"
                self.bars.append(Bar(lhs, group, structure, args, text, place))

    def independent(self, lo: int, hi: int) -> list[str]:
        """Left sides of the terms that `lhs || group` stands for, by order of interaction as in R."""
        intercept, terms = True, []
        todo = self.summands(lo, hi)
        while todo:
            sign, a, b = todo.pop(0)
            text = self.text(a, b)
            if self.tokens[a].text == "(" and self.pair[a] == b - 1 and sign > 0:
                todo = self.summands(a + 1, b - 1) + todo
            elif text in ("0", "1"):
                intercept = (text == "1") == (sign > 0)
            else:
                refused = self.find(a, b, "/", "^", "**", "%")
                if sign < 0 or refused:
                    self.fail(
                        self.at(refused[0] if refused else a), "left of || write every term with + or *"
                    )
                parts = [self.text(c, d) for c, d in self.cut(a, b, "*")]
                for size in range(1, len(parts) + 1):
                    terms += [":".join(chosen) for chosen in combinations(parts, size)]
        ordered = sorted(dict.fromkeys(terms), key=_order)
        if not intercept and not ordered:
            self.fail(self.at(lo), "no term is left of ||: write 1 for a random intercept")
        return ["1"] * intercept + [f"0 + {term}" for term in ordered]

    def cut(self, lo: int, hi: int, operator: str) -> list[tuple[int, int]]:
        """Ranges between the top-level occurrences of an operator, none of them empty."""
        edges = [lo - 1, *self.find(lo, hi, operator), hi]
        ranges = [(a + 1, b) for a, b in pairwise(edges)]
        for a, b in ranges:
            if a == b:
                self.fail(self.at(a), f"a name is missing beside {operator}")
        return ranges

    def group(self, lo: int, hi: int) -> list[tuple[str, ...]]:
        """Grouping factors of a right side, each a tuple of names: nesting written out, inner first."""
        out: list[tuple[str, ...]] = []
        for a, b in self.cut(lo, hi, "/"):
            outer = out[-1] if out else ()
            factors = [self.factor(c, d) for c, d in self.cut(a, b, ":")]
            if len(factors) > 1 and any(len(inner) > 1 for inner in factors):
                self.fail(self.at(a), "nesting inside an interaction: write the terms one by one")
            inner = factors[0] if len(factors) == 1 else [tuple(f for (names,) in factors for f in names)]
            for names in (n + outer for n in inner):
                if len(set(names)) < len(names):
                    self.fail(self.at(a), f"a factor appears twice in {':'.join(names)}")
                out.append(names)
        return out

    def factor(self, lo: int, hi: int) -> list[tuple[str, ...]]:
        token = self.tokens[lo]
        if self.pair.get(lo) == hi - 1 and token.text == "(":
            if hi - lo == 2:
                self.fail(token.start, "nothing is inside these parentheses: write the grouping factor")
            return self.group(lo + 1, hi - 1)
        for i in self.find(lo, hi, "*", "+"):
            self.fail(self.at(i), "on the right of a bar write a:b, a/b, or (1 | a) + (1 | b) + (1 | a:b)")
        plain = token.kind == "word" and re.match(r"[^\W\d]|\.", token.text)
        if hi - lo > 1 or not (plain or token.text.startswith("`")):
            message = f"{self.text(lo, hi)} is no grouping factor: write a column's name, or make it a column"
            self.fail(token.start, message)
        return [(token.text.strip("`"),)]


def signed(pieces: list[tuple[int, str]]) -> str:
    joined = "".join(f" {'+' if sign > 0 else '-'} {text}" for sign, text in pieces)
    return joined.removeprefix(" + ").lstrip().replace("- ", "-", joined.startswith(" - "))


def _order(term: str) -> int:
    return len(re.sub(r"\(.*\)|`[^`]*`", "", term).split(":"))
