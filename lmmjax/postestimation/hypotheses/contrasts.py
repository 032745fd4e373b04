"""Linear contrasts and hypotheses from texts, dicts and arrays to rows of weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.columns import nearest
from lmmjax.formula.matching import is_default


def contrast_matrix(
    contrasts: Any, x_names: list[str], aliased: Sequence[str] = ()
) -> tuple[np.ndarray, list[str], bool]:
    """Weights L (k, p) with labels, and whether several contrasts were asked for.

    Parameters
    ----------
    contrasts : as for `BatchFit.contrast`; Series and frames with labels go by these, as dicts do.
    aliased : names of coefficients that were dropped, for the message about them.
    """
    contrasts, names = _by_label(contrasts), None
    if isinstance(contrasts, Mapping) and _are_named(contrasts, x_names):
        names, contrasts = (
            [str(name) for name in contrasts],
            [_by_label(piece) for piece in contrasts.values()],
        )
        pieces, several = contrasts, True
        arrays = [np.shape(piece) for piece in pieces if not isinstance(piece, str | Mapping)]
        if wrong := [shape for shape in arrays if shape != (len(x_names),)]:
            raise ValueError(_misshapen(wrong[0], x_names))
    elif isinstance(contrasts, str | Mapping):
        pieces, several = [contrasts], False
    elif isinstance(contrasts, list | tuple) and any(isinstance(c, str | Mapping) for c in contrasts):
        pieces, several = list(contrasts), True
    else:
        try:
            array = np.asarray(contrasts, dtype=float)
        except (TypeError, ValueError):
            raise ValueError("a contrast is a text, a dict {coefficient: weight} or an array") from None
        if array.ndim not in (1, 2) or array.shape[-1] != len(x_names):
            raise ValueError(_misshapen(array.shape, x_names))
        pieces, several = list(np.atleast_2d(array)), array.ndim == 2
    rows = [_row(piece, x_names, aliased) for piece in pieces]
    labels = names or [
        piece if isinstance(piece, str) else written(row, x_names)
        for piece, row in zip(pieces, rows, strict=True)
    ]
    for row, label in zip(rows, labels, strict=True):
        _check_row(row, label)
    return np.array(rows).reshape(-1, len(x_names)), labels, several


def _are_named(contrasts: Mapping, x_names: Sequence[str]) -> bool:
    """Whether a dict is {name: contrast}, and not one contrast {coefficient: weight}."""
    values = list(contrasts.values())
    written_out = [isinstance(v, Mapping | list | tuple | np.ndarray | pd.Series) for v in values]
    named = all(written_out) or not set(map(str, contrasts)) <= set(x_names)
    return (
        bool(values)
        and named
        and all(w or isinstance(v, str) for w, v in zip(written_out, values, strict=True))
    )


def _misshapen(shape: tuple[int, ...], x_names: Sequence[str]) -> str:
    p = len(x_names)
    return (
        f"contrasts have shape {shape}; the model has {p} coefficients ({', '.join(x_names)}): pass ({p},) "
        f"or (k, {p})"
    )


def _by_label(contrasts: Any) -> Any:
    """Series as dicts and frames as lists of these, unless they are numbered 0, 1, …."""
    if isinstance(contrasts, list | tuple):
        return type(contrasts)(_by_label(piece) for piece in contrasts)
    if isinstance(contrasts, pd.DataFrame):
        return contrasts if is_default(contrasts.columns) else contrasts.to_dict("records")
    if isinstance(contrasts, pd.Series) and not is_default(contrasts.index):
        return contrasts.to_dict()
    return contrasts


def _row(piece: Any, x_names: list[str], aliased: Sequence[str]) -> np.ndarray:
    if isinstance(piece, str):
        return parse_contrast(piece, x_names, aliased)
    if not isinstance(piece, Mapping):
        return np.asarray(piece, dtype=float)
    row = np.zeros(len(x_names))
    for name, weight in piece.items():
        if name not in x_names:
            raise ValueError(_unknown(str(name), x_names, aliased))
        try:
            row[x_names.index(name)] = float(weight)
        except (TypeError, ValueError):
            raise ValueError(f"the weight of {name!r} in a contrast is a number, not {weight!r}") from None
    return row


def _unknown(name: str, x_names: Sequence[str], aliased: Sequence[str]) -> str:
    if name in aliased:
        return f"{name!r} was dropped from the fit for linear dependence: it is not estimable"
    return f"unknown coefficient {name!r}: {nearest(name, x_names)}"


def hypothesis(
    l: Any, x_names: list[str], rhs: Any = None, aliased: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray, str]:
    """Rows (k, p), right-hand sides (k,) and text of the hypothesis Lβ = rhs.

    Parameters
    ----------
    l : as for `Fit.test`. A text may be an equation, or several between commas.
    rhs : a number or (k,); None for what the texts say, or 0.
    aliased : names of coefficients that were dropped, for the message about them.
    """
    pieces = [l] if isinstance(l, str) else list(l) if isinstance(l, list | tuple) else None
    if pieces and all(isinstance(piece, str) for piece in pieces):
        pieces = [clause for piece in pieces for clause in _clauses(piece, x_names)]
    if pieces and all(isinstance(piece, str) for piece in pieces):
        parsed = [parse_hypothesis(piece, x_names, aliased) for piece in pieces]
        rows, right = np.concatenate([r for r, _ in parsed]), np.concatenate([r for _, r in parsed])
        if rhs is not None and (right.any() or any(len(_split_at_equals(piece)) > 1 for piece in pieces)):
            raise ValueError("rhs is given beside equations: write it into them, or leave it out")
        labels = pieces
        for row in rows:
            _check_row(row, ", ".join(pieces))
    else:
        rows, labels, _ = contrast_matrix(l, x_names, aliased)
        right = np.zeros(len(rows))
    if rhs is not None:
        right = np.asarray(rhs, dtype=float)
        if right.shape not in ((), (len(rows),)) or not np.all(np.isfinite(right)):
            raise ValueError(f"rhs has shape {right.shape}: give one finite number, or ({len(rows)},)")
        right = np.broadcast_to(right, (len(rows),))
    return rows, right, ", ".join(labels)


def _check_row(row: np.ndarray, label: str) -> None:
    if not np.all(np.isfinite(row)) or not np.any(row):
        raise ValueError(f"contrast {label!r} is zero or not finite: give it a finite weight")


def written(row: np.ndarray, x_names: list[str]) -> str:
    """A contrast as `parse_contrast` reads it."""
    parts = [
        ("- " if w < 0 else "+ ") + ("" if abs(w) == 1 else f"{abs(w):g} * ") + name
        for w, name in zip(row, x_names, strict=True)
        if w
    ]
    return " ".join(parts).removeprefix("+ ")


_SIGN = re.compile(r"\s*([+-])\s*|\s+")
_NUMBER = r"(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)"
_FACTOR, _DIVISOR = re.compile(_NUMBER + r"\s*\*\s*"), re.compile(r"\s*/\s*" + _NUMBER)
_CONSTANT = re.compile(_NUMBER + r"(?=\s*(?:[+-]|$))")


def parse_contrast(text: str, x_names: Sequence[str], aliased: Sequence[str] = ()) -> np.ndarray:
    """Weights (p,) of a text such as "a - b" or "0.5 * a + b / 2".

    Coefficient names are matched literally, the longest first, so "Sex[T.F]:Days" or "I(x - 1)" need no
    quotes.
    """
    return _parse(text, x_names, aliased, constants=False)[0]


def parse_hypothesis(
    text: str, x_names: Sequence[str], aliased: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (k, p) and right-hand sides (k,) of "2 * a - b = 3", "a = b = 0", or "a", which is "a = 0"."""
    sides = [_parse(side, x_names, aliased, constants=True) for side in _split_at_equals(text)]
    rows, constants = (np.array(column) for column in zip(*sides, strict=True))
    if len(sides) == 1:
        return rows, -constants
    if not any(np.any(row) for row in rows):
        raise ValueError(f"hypothesis {text!r} names no coefficient: there are {', '.join(x_names)}")
    return rows[:-1] - rows[1:], constants[1:] - constants[:-1]


def _clauses(text: str, x_names: Sequence[str]) -> list[str]:
    """Texts between commas outside brackets and backticks; the text itself if a name has such a comma."""
    found, depth, quoted = [""], 0, False
    for character in text:
        quoted ^= character == "`"
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth and not quoted:
            found.append("")
        else:
            found[-1] += character
    alone = len(found) == 1 or any(len(_clauses(name, ())) > 1 for name in x_names)
    return [text] if alone else [clause.strip() for clause in found]


def _split_at_equals(text: str) -> list[str]:
    """Pieces of the text between signs = outside brackets: an expression in a name may have its own."""
    pieces, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character != "=" or depth:
            pieces[-1] += character
        elif pieces[-1] or len(pieces) == 1:
            # the second of == begins no piece
            pieces.append("")
    return pieces


def _parse(
    text: str, x_names: Sequence[str], aliased: Sequence[str], *, constants: bool
) -> tuple[np.ndarray, float]:
    """Weights (p,) and the sum of the constants, where these are allowed."""
    if not text.strip():
        raise ValueError(f"a contrast or one side of an equation is empty: {nearest('', x_names)}")
    row, constant, text = np.zeros(len(x_names)), 0.0, text.strip()
    longest = sorted(x_names, key=len, reverse=True)
    at, rest = 0, text.rstrip()
    while at < len(rest) or at == 0:
        sign = _SIGN.match(rest, at)
        if at and not (sign and sign.group(1)):
            raise ValueError(f"contrast {text!r}: + or - expected at position {at}: {rest[at:]!r}")
        at = sign.end() if sign else at
        weight = -1.0 if sign and sign.group(1) == "-" else 1.0
        if factor := _FACTOR.match(rest, at):
            weight *= float(factor.group(1))
            at = factor.end()
        ends = ((n, _end_of(rest, n, at)) for n in longest)
        name, end = next(((n, e) for n, e in ends if e and _ends(rest, e)), (None, 0))
        if name is None and constants and (number := _CONSTANT.match(rest, at)):
            constant += weight * float(number.group(1))
            at = number.end()
            continue
        if name is None:
            backticks = re.match(r"`([^`]*)`", rest[at:])
            found = re.split(r"\s+[+-]\s+|\s*/\s*|\s+$", rest[at:])[0]
            found = backticks.group(1) if backticks else found
            if found in aliased:
                raise ValueError(f"contrast {text!r}: {_unknown(found, x_names, aliased)}")
            raise ValueError(
                f"contrast {text!r}: unknown coefficient {found!r} at position {at}: "
                + nearest(found, x_names)
            )
        at = end
        if divisor := _DIVISOR.match(rest, at):
            weight /= float(divisor.group(1)) or np.nan
            at = divisor.end()
        row[list(x_names).index(name)] += weight
    return row, constant


def _end_of(text: str, name: str, at: int) -> int:
    """Where a name that begins at a position ends, with the backticks of a formula or without; 0 if not."""
    begin = at
    for c in name:
        if c != "`":
            while text[at : at + 1] == "`":
                at += 1
        if text[at : at + 1] != c:
            return 0
        at += 1
    at += text[at : at + 1] == "`"
    return at if (text[begin:at].count("`") - name.count("`")) % 2 == 0 else 0


def _ends(text: str, at: int) -> bool:
    """Whether a name may end here: not in the middle of a longer word."""
    return at == len(text) or text[at] in " \t+-/"
