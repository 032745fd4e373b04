"""Formulas made of others: `.` as all other columns, and as what a formula was before.

y ~ . + (1 | g)          `.` is the sum of the columns that the formula does not use elsewhere
. ~ . - x + (1 | h)      as an update, `.` is the old side: response, or fixed part, offsets and bars
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn

from lmmjax.formula.columns import nearest
from lmmjax.formula.text.bars import Bar, Splitter, quoted, signed, split_bars
from lmmjax.formula.text.tokens import Token, fail


def has_dot(formula: str) -> bool:
    """Whether a formula has a `.` outside function calls."""
    return isinstance(formula, str) and any(_dots(Splitter(formula, True)))


def with_columns(formula: str, columns: Iterable[str], taken: Iterable[str]) -> str:
    """The formula with `.` written out as the sum of all columns but those taken.

    Columns of the response, of offsets and of grouping factors are taken, and those that occur in the texts
    `taken`. ValueError if none is left.
    """
    splitter = Splitter(formula, True)
    split = splitter.split()
    texts = [split.response or "", *split.offsets, *taken]
    used = {name for bar in split.bars for name in bar.group} | {n for text in texts for n in names(text)}
    left = [name for name in columns if name not in used]
    at = _dots(splitter)
    if not left:
        position = splitter.tokens[at[0]].start
        fail(formula, position, "'.' stands for no column: the formula uses them all, write 1 for none")
    out, end = "", 0
    for i in at:
        before, after = (_neighbour(splitter, k) for k in (i - 1, i + 1))
        plain = before in ("~", "+", "(") and after in ("", "+", "-", ")")
        written = " + ".join(map(quoted, left))
        token = splitter.tokens[i]
        out += formula[end : token.start] + (written if plain or len(left) == 1 else f"({written})")
        end = token.start + 1
    return out + formula[end:]


def names(text: str) -> set[str]:
    """Words and quoted names of an expression."""
    return {token.text.strip("`") for token in Splitter(text).tokens if token.kind != "op"}


def updated(old: str, change: str, terms: Callable[[str], list[tuple[str, ...]]]) -> str:
    """The formula that `change`, such as ". ~ . - x" or "~ . + (1 | h)", makes of `old`.

    A random term is taken out as it is put in, "- (x | g)"; `||` and `a/b` stand for several. The fixed part
    is written out: `y ~ a*b` less `a:b` is `y ~ a + b`.

    Parameters
    ----------
    terms : the factors of every term of a fixed part, as `expressions.terms` gives them.

    Raises
    ------
    ValueError : the change is no formula, or takes out what is not there.
    """
    if not isinstance(change, str):
        raise TypeError(f"a formula is a string, not {type(change).__name__}")
    before, reader = split_bars(old), Splitter(change, True)
    tildes = reader.find(0, len(reader.tokens), "~")
    if len(tildes) != 1 or tildes[0] + 1 == len(reader.tokens):
        raise ValueError(f"update {change!r}: write one ~ and the change right of it, as in '~ . - x'")
    tilde, end = tildes[0], len(reader.tokens)
    for i in range(tilde):
        if reader.tokens[i].text == ".":
            reader.tokens[i] = Token(before.response or "", reader.tokens[i].start, "word")
    response = reader.text(0, tilde).strip() or before.response
    whole = [(sign, a, b, reader.text(a, b)) for sign, a, b in reader.summands(tilde + 1, end)]
    kept = [i for i in _dots(reader) if i > tilde]
    for _, a, b, _ in whole:
        inside = [i for i in range(a, b) if reader.tokens[i].text == "."]
        if set(inside) - set(kept):
            reader.fail(reader.at(inside[0]), "'.' is the whole fixed part: it has no place in a function")
        if any(reader.tokens[i].text in ("|", "||") for i in range(a, b)):
            reader.refuse_dots(a, b)
    for i in kept:
        reader.tokens[i] = Token(f"({before.fixed})", reader.tokens[i].start, "word")
    bars = list(before.bars) if kept else []
    offsets = list(before.offsets) if kept else []
    fixed: list[tuple[int, str]] = []
    for sign, a, b, text in whole:
        if text == ".":
            if sign < 0:
                reader.fail(reader.at(a), "'.' can only be added: leave it out to take away what there was")
            fixed.append((1, before.fixed if not fixed else f"({before.fixed})"))
            continue
        reader.bars, reader.offsets = [], []
        piece = reader.piece(1, a, b)
        if sign > 0:
            bars += [bar for bar in reader.bars if _key(bar) not in map(_key, bars)]
            offsets += [one for one in reader.offsets if one not in offsets]
        else:
            _remove(change, reader, bars, offsets)
        if piece:
            if sign < 0 and piece not in ("0", "1"):
                _require_there(change, piece, signed(fixed), terms)
            fixed.append((sign, piece))
    plain = simplified(signed(fixed) or "1", terms)
    return written(response, plain, offsets, [(bar.structure, bar.text) for bar in bars])


def written(
    response: str | None, fixed: str, offsets: Iterable[str], random: Iterable[tuple[str, str]]
) -> str:
    """A formula from its parts, random terms by structure and text."""
    parts = [fixed, *(f"offset({text})" for text in offsets)]
    parts += [f"({text})" if structure == "us" else text for structure, text in random]
    return f"{response or ''} ~ {' + '.join(parts)}".strip()


def simplified(fixed: str, terms: Callable[[str], list[tuple[str, ...]]]) -> str:
    """A fixed part as a sum of its terms, or as it is where that reads differently."""
    own = terms(fixed)
    plain = [":".join(term) for term in own if term]
    text = " + ".join(plain if () in own else ["0", *plain]) or "1"
    return text if list(map(frozenset, terms(text))) == list(map(frozenset, own)) else fixed


def _dots(splitter: Splitter) -> list[int]:
    """Positions of `.` outside function calls."""
    inside: set[int] = set()
    for call in splitter.calls:
        inside.update(range(call, splitter.pair[call]))
    return [i for i, token in enumerate(splitter.tokens) if token.text == "." and i not in inside]


def _neighbour(splitter: Splitter, i: int) -> str:
    return splitter.tokens[i].text if 0 <= i < len(splitter.tokens) else ""


def _key(bar: Bar) -> tuple[str, tuple[str, ...], frozenset[str], frozenset[str]]:
    """What two spellings of a random term have in common."""
    pieces = frozenset(piece.strip() for piece in bar.lhs.split("+"))
    own = pieces if "-" in bar.lhs or len(pieces) == 1 else pieces - {"1"}
    return bar.structure, bar.args, own, frozenset(bar.group)


def _remove(change: str, reader: Splitter, bars: list[Bar], offsets: list[str]) -> None:
    """Take the random terms and offsets that the reader has just found out of the lists."""
    for bar in reader.bars:
        found = [k for k, own in enumerate(bars) if _key(own) == _key(bar)]
        if not found:
            _absent(change, f"random term ({bar.text})", bar.text, [own.text for own in bars])
        del bars[found[0]]
    for text in reader.offsets:
        if text not in offsets:
            _absent(change, f"offset({text})", text, offsets)
        offsets.remove(text)


def _require_there(
    change: str, piece: str, before: str, terms: Callable[[str], list[tuple[str, ...]]]
) -> None:
    """ValueError unless one of the terms of a piece is in the fixed part before it."""
    there = terms(before or "0")
    wanted = {frozenset(term) for term in terms(f"0 + {piece}")}
    if wanted and not wanted & {frozenset(term) for term in there}:
        _absent(change, f"term {piece}", piece, [":".join(term) for term in there if term])


def _absent(change: str, what: str, name: str, known: Iterable[str]) -> NoReturn:
    raise ValueError(f"update {change!r}: the formula has no {what} to take out: {nearest(name, known)}")
